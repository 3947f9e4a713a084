//! Makes the gRPC code from the protocol's files, without a compiler installed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "weft/discovery/v1/discovery.proto",
        "weft/discovery/v1/exchange.proto",
        "etcd/etcd.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
