//! Sources of neighbours, each against the real thing.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::store::Cluster;
use super::*;
use crate::source::{Dns, EtcdPeers, PeerFile, Peers, Source, follow};

async fn until(
    said: &mut tokio::sync::mpsc::Receiver<Peers>,
    what: &str,
    wanted: impl Fn(&Peers) -> bool,
) -> Peers {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let peers = tokio::time::timeout_at(end, said.recv()).await;
        let peers = peers.unwrap_or_else(|_| panic!("{what}")).unwrap();
        if wanted(&peers) {
            return peers;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_and_a_mistake_that_changes_nothing() {
    let scratch = Scratch::new();
    let path = scratch.path("peers.yaml");
    std::fs::write(&path, "r1: { address: 192.0.2.1 }\n").unwrap();
    let sources: Vec<Box<dyn Source>> = vec![Box::new(PeerFile::new(&path))];
    let mut said = follow(sources);
    let peers = until(&mut said, "r1", |peers| peers.len() == 1).await;
    assert_eq!((peers["r1"].port, peers["r1"].asn), (179, None));
    std::fs::write(&path, "r1: { adress: 192.0.2.1 }\n").unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(1500), said.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    std::fs::write(
        &path,
        "r1: { address: 192.0.2.1 }\nr2: { address: 192.0.2.2, asn: 64602 }\n",
    )
    .unwrap();
    let peers = until(&mut said, "r2", |peers| peers.len() == 2).await;
    assert_eq!(peers["r2"].asn, Some(64602));
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// dnsmasq with these records, whose time to live is a second.
fn dnsmasq(address: SocketAddr, records: &[String]) -> Option<Server> {
    let mut dnsmasq = Command::new("dnsmasq");
    dnsmasq.args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
    ]);
    dnsmasq.args([
        "--listen-address=127.0.0.1",
        "--local-ttl=1",
        "--pid-file",
        "--user=root",
        "--local=/test/",
    ]);
    dnsmasq
        .arg(format!("--port={}", address.port()))
        .args(records);
    let child = dnsmasq.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if child.is_err() {
        println!("SKIPPED: dnsmasq is not installed");
    }
    child.ok().map(Server)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_dns_are_asked_for_again_when_they_end() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let router = |name: &str, number: u8, asn: u32| {
        let host = format!("{name}.lab.test");
        [
            format!("--srv-host=_bgp._tcp.lab.test,{host},1179"),
            format!("--host-record={host},192.0.2.{number},2001:db8::{number}"),
            format!("--txt-record={host},asn={asn}"),
        ]
    };
    let (r1, r2) = (router("r1", 1, 64601), router("r2", 2, 64602));
    let Some(server) = dnsmasq(address, &r1) else {
        return;
    };
    let dns = Dns::new("_bgp._tcp.lab.test", &[address]).unwrap();
    let mut said = follow(vec![Box::new(dns)]);
    let peers = until(&mut said, "r1 by both its addresses", |peers| {
        peers.len() == 2
    })
    .await;
    let addresses: Vec<String> = peers.values().map(|of| of.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
    assert!(
        peers
            .values()
            .all(|of| of.asn == Some(64601) && of.port == 1179),
        "{peers:?}"
    );
    // Nobody answers: the peers stay.
    drop(server);
    let nothing = tokio::time::timeout(Duration::from_secs(3), said.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let both = [r1, r2.clone()].concat();
    let server = dnsmasq(address, &both);
    until(&mut said, "r2 too", |peers| peers.len() == 4).await;
    drop(server);
    let _server = dnsmasq(address, &r2);
    let peers = until(&mut said, "r2 alone", |peers| peers.len() == 2).await;
    assert!(
        peers.keys().all(|name| name.starts_with("r2.")),
        "{peers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_etcd_live() {
    let scratch = Scratch::new();
    if let Some(cluster) = Cluster::start(&scratch, 1) {
        keys_in(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_etcd_live_with_certificates() {
    let scratch = Scratch::new();
    if let Some(cluster) = Cluster::start_tls(&scratch) {
        keys_in(&cluster).await;
    }
}

async fn keys_in(cluster: &Cluster) {
    let etcdctl = async |words: &[&str]| {
        let mut etcdctl = tokio::process::Command::new("etcdctl");
        etcdctl
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(&cluster.endpoints[0]);
        let files = [
            ("--cacert", &cluster.tls.cacert),
            ("--cert", &cluster.tls.cert),
            ("--key", &cluster.tls.key),
        ];
        for (option, file) in files {
            etcdctl.args(
                file.iter()
                    .flat_map(|file| [option.as_ref(), file.as_os_str()]),
            );
        }
        let end = Instant::now() + Duration::from_secs(20);
        while !etcdctl
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .unwrap()
            .success()
        {
            assert!(Instant::now() < end, "etcdctl {words:?}");
        }
    };
    etcdctl(&["put", "/weft/peers/r1", r#"{"address": "192.0.2.1"}"#]).await;
    etcdctl(&["put", "/weft/peersons/x", "somebody else's"]).await;
    let source = EtcdPeers::new(&cluster.endpoints, &cluster.tls, "/weft/peers").unwrap();
    let mut said = follow(vec![Box::new(source)]);
    until(&mut said, "r1", |peers| {
        peers.len() == 1 && peers.contains_key("r1")
    })
    .await;
    etcdctl(&[
        "put",
        "/weft/peers/r2",
        r#"{"address": "192.0.2.2", "asn": 64602}"#,
    ])
    .await;
    let peers = until(&mut said, "r2", |peers| peers.len() == 2).await;
    assert_eq!(peers["r2"].asn, Some(64602));
    etcdctl(&["del", "/weft/peers/r1"]).await;
    until(&mut said, "r2 alone", |peers| {
        peers.len() == 1 && peers.contains_key("r2")
    })
    .await;
}
