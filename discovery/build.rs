//! Makes the gRPC code from the protocol's files, without a compiler installed on the machine.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let ours = [
        "weft/discovery/v1/discovery.proto",
        "weft/discovery/v1/exchange.proto",
        "weft/management/v1/management.proto",
    ];
    let ours = protox::compile(ours, ["proto"])?;
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(folder.join("descriptors"), ours.encode_to_vec())?;
    let theirs = protox::compile(["etcd/etcd.proto"], ["proto"])?;
    for descriptors in [ours, theirs] {
        tonic_prost_build::configure()
            .btree_map(".")
            // What is shown of it stands in src/session_keys.rs: not the secrets.
            .skip_debug([".weft.discovery.v1.SessionKey"])
            .compile_fds(descriptors)?;
    }
    Ok(())
}
