//! Sources of neighbours, each against the real thing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::store::Cluster;
use super::*;
use crate::source::{Dns, EtcdPeers, Peer, PeerFile, Source, Standing, follow};

type Peers = BTreeMap<String, Peer>;
type News = tokio::sync::mpsc::Receiver<Standing>;

fn known(standing: &Standing) -> Peers {
    let peers = standing.peers.iter();
    peers
        .map(|one| (one.name.clone(), one.peer.clone()))
        .collect()
}

async fn standing(said: &mut News, what: &str, wanted: impl Fn(&Standing) -> bool) -> Standing {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut last = Standing::default();
    loop {
        let standing = tokio::time::timeout_at(end, said.recv()).await;
        last = standing
            .unwrap_or_else(|_| panic!("{what}: {last:#?}"))
            .unwrap();
        if wanted(&last) {
            return last;
        }
    }
}

async fn until(said: &mut News, what: &str, wanted: impl Fn(&Peers) -> bool) -> Peers {
    known(&standing(said, what, |one| wanted(&known(one))).await)
}

/// Until a source says nothing: its peers are what they were, and marked.
async fn silent(said: &mut News, peers_before: &Peers) {
    let stale = standing(said, "silence", |one| !one.silent.is_empty()).await;
    assert_eq!(known(&stale), *peers_before);
    assert!(
        stale.peers.iter().all(|one| one.stale.is_some()),
        "{stale:?}"
    );
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
    let stale = standing(&mut said, "a mistake", |one| !one.refused.is_empty()).await;
    assert!(stale.refused[0].reason.contains("adress"), "{stale:?}");
    assert_eq!(known(&stale).len(), 1, "{stale:?}");
    assert!(stale.peers[0].stale.is_some(), "{stale:?}");
    // Somebody is writing it, or has written a name twice.
    for text in [
        "",
        "r1: { address: 192.0.2.1 }\nr1: { address: 192.0.2.9 }\n",
    ] {
        std::fs::write(&path, text).unwrap();
        let stale = standing(&mut said, text, |one| !one.silent.is_empty()).await;
        assert_eq!(known(&stale).len(), 1, "{stale:?}");
        std::fs::write(&path, "r1: { address: 192.0.2.1 }\n").unwrap();
        standing(&mut said, "mended", |one| one.silent.is_empty()).await;
    }
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
    let addresses: Vec<String> = peers.values().map(|one| one.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
    assert!(
        peers
            .values()
            .all(|one| one.asn == Some(64601) && one.port == 1179),
        "{peers:?}"
    );
    // Nobody answers: the peers stay.
    drop(server);
    silent(&mut said, &peers).await;
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

/// A name server that answers as a zone on a bad day does.
struct Zone {
    address: SocketAddr,
    answers: std::sync::Arc<std::sync::Mutex<Answers>>,
    task: JoinHandle<()>,
}

/// Records as they stand in a zone, `NAME TYPE DATA`, and names whose type is answered with SERVFAIL, `NAME TYPE`.
#[derive(Default)]
struct Answers {
    records: Vec<&'static str>,
    failing: Vec<&'static str>,
    asked: Vec<String>,
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Zone {
    async fn start() -> Self {
        use hickory_resolver::proto::op::{Message, ResponseCode};
        use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let answers = std::sync::Arc::new(std::sync::Mutex::new(Answers::default()));
        let shared = answers.clone();
        let task = tokio::spawn(async move {
            let mut octets = [0; 4096];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut octets).await else {
                    return;
                };
                let asked = Message::from_bytes(&octets[..length]).unwrap();
                let query = asked.queries[0].clone();
                let mut answer = asked.into_response();
                {
                    let mut answers = shared.lock().unwrap();
                    let name = query.name().to_lowercase().to_string();
                    let key = format!("{} {}", name.trim_end_matches('.'), query.query_type());
                    if answers.failing.contains(&key.as_str()) {
                        answer.metadata.response_code = ResponseCode::ServFail;
                    } else {
                        let found = answers.records.iter();
                        let found = found.filter_map(|one| one.strip_prefix(&format!("{key} ")));
                        for data in found {
                            answer.add_answer(record(&query, data));
                        }
                    }
                    answers.asked.push(key);
                }
                let answer = answer.to_bytes().unwrap();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self {
            address,
            answers,
            task,
        }
    }

    fn set(&self, records: &[&'static str], failing: &[&'static str]) {
        let mut answers = self.answers.lock().unwrap();
        answers.records = records.to_vec();
        answers.failing = failing.to_vec();
    }

    fn follow(&self) -> News {
        let dns = Dns::new("_bgp._tcp.lab.test.", &[self.address]).unwrap();
        follow(vec![Box::new(dns)])
    }
}

/// A record that lives for a second.
fn record(
    query: &hickory_resolver::proto::op::Query,
    data: &str,
) -> hickory_resolver::proto::rr::Record {
    use hickory_resolver::proto::rr::rdata::{CNAME, SRV, TXT};
    use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
    let data = match query.query_type() {
        RecordType::A => RData::A(data.parse().unwrap()),
        RecordType::TXT => RData::TXT(TXT::new(vec![data.to_owned()])),
        RecordType::CNAME => RData::CNAME(CNAME(Name::from_ascii(data).unwrap())),
        RecordType::SRV => {
            let (port, target) = data.split_once(' ').unwrap();
            let target = Name::from_ascii(target).unwrap();
            RData::SRV(SRV::new(0, 0, port.parse().unwrap(), target))
        }
        other => panic!("{other}"),
    };
    Record::from_rdata(query.name().clone(), 1, data)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_record_in_dns_costs_that_record() {
    let zone = Zone::start().await;
    let good = [
        "_bgp._tcp.lab.test SRV 179 r1.test.",
        "_bgp._tcp.lab.test SRV 179 r2.test.",
        "_bgp._tcp.lab.test SRV 179 r3.test.",
        "_bgp._tcp.lab.test SRV 0 r4.test.",
        "_bgp._tcp.lab.test SRV 179 r5.test.",
        "_bgp._tcp.lab.test SRV 179 r6.test.",
        "_bgp._tcp.lab.test SRV 179 r7.test.",
        "r1.test A 192.0.2.1",
        "r2.test A 192.0.2.2",
        "r2.test TXT asn=0",
        "r3.test A 0.0.0.0",
        "r4.test A 192.0.2.4",
        "r5.test A 192.0.2.5",
        "r6.test A 192.0.2.6",
        "r6.test TXT asn=AS64603",
        "r7.test A 192.0.2.7",
        "r7.test TXT asn=sixtyfour",
    ];
    zone.set(&good, &["r5.test TXT"]);
    let mut said = zone.follow();
    let first = standing(&mut said, "the good ones", |one| !one.peers.is_empty()).await;
    let found = known(&first);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["r1.test", "r6.test"], "{first:#?}");
    assert_eq!(found["r6.test"].asn, Some(64603));
    let refused: Vec<&str> = first.refused.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        refused,
        ["r2.test", "r3.test", "r4.test", "r5.test", "r7.test"],
        "{first:#?}"
    );
    // One that is known stays when its server fails, marked stale, and is not taken for one of the own AS.
    zone.set(&good, &["r5.test TXT", "r6.test TXT"]);
    let stale = standing(&mut said, "r6 is stale", |one| {
        one.peers.iter().any(|one| one.stale.is_some())
    })
    .await;
    assert_eq!(known(&stale), found, "{stale:#?}");
    zone.set(&good, &["r5.test TXT"]);
    standing(&mut said, "r6 is back", |one| {
        one.peers.iter().all(|one| one.stale.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_come_late_are_found_and_a_blip_ends_nothing() {
    let zone = Zone::start().await;
    let mut said = zone.follow();
    let nobody = standing(&mut said, "nobody yet", |_| true).await;
    assert!(nobody.peers.is_empty() && nobody.silent.is_empty());
    let records = ["_bgp._tcp.lab.test SRV 179 r1.test.", "r1.test A 192.0.2.1"];
    zone.set(&records, &[]);
    let found = until(&mut said, "it is found", |one| one.len() == 1).await;
    // The zone is empty for a while: a mistake of somebody's.
    zone.set(&[], &[]);
    silent(&mut said, &found).await;
    zone.set(&records, &[]);
    let back = standing(&mut said, "it is back", |one| one.silent.is_empty()).await;
    assert_eq!(known(&back), found);
    assert!(back.peers[0].stale.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_srv_records_is_followed() {
    let zone = Zone::start().await;
    zone.set(
        &[
            "_bgp._tcp.lab.test CNAME _bgp._tcp.real.test.",
            "_bgp._tcp.real.test CNAME _bgp._tcp.last.test.",
            "_bgp._tcp.last.test SRV 1179 r1.test.",
            "r1.test A 192.0.2.1",
        ],
        &[],
    );
    let mut said = zone.follow();
    let found = until(&mut said, "behind the alias", |one| one.len() == 1).await;
    assert_eq!(found["r1.test"].port, 1179);
}
