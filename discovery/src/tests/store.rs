//! What every datastore has to do.

mod limits;

use super::*;
use crate::database::{Database, News, Rejection};
use crate::model::{Record, Tenant, key};
use crate::store::{Etcd, Redb, Span, Store, StoreError};

fn tenant(name: &str, vni: u32) -> Record {
    Record::Tenant(Tenant {
        name: name.to_owned(),
        vni,
        home: None,
        description: None,
        id: None,
    })
}

/// The suite: `open` opens the same datastore each time.
async fn suite<S: Store>(open: impl Fn() -> S) {
    let database = Database::start(open()).await.unwrap();
    assert_eq!(database.state().revision, 0);
    // A thousand at once, each once, each a revision of its own.
    let mut revisions = database.watch();
    let changes = (0..1000u32).map(|number| {
        let database = database.clone();
        tokio::spawn(async move {
            let put = move |transaction: &mut crate::database::Transaction<'_>| {
                transaction.put(tenant(&format!("t{number}"), number + 1));
                Ok(())
            };
            database
                .change("test", format!("put {number}"), put)
                .await
                .unwrap()
                .1
        })
    });
    let changes: Vec<_> = changes.collect();
    let mut numbers = Vec::new();
    for change in changes {
        numbers.push(change.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=1000).collect::<Vec<u64>>());
    let mut seen = Vec::new();
    while seen.len() < 1000 {
        let News::Revisions(news) = revisions.recv().await.unwrap() else {
            panic!("a gap")
        };
        seen.extend(news.iter().map(|each| each.number));
    }
    assert_eq!(seen, numbers, "watchers see each in order");
    // All or nothing: a refused change leaves nothing, whatever it had put.
    let half = database.change("test", "half", |transaction| -> Result<(), Rejection> {
        transaction.put(tenant("half", 5000));
        Err(Rejection::Invalid("no".into()))
    });
    assert_eq!(half.await.unwrap_err(), Rejection::Invalid("no".into()));
    assert!(database.state().tenant(&key::tenant("half")).is_none());
    // Each change is computed from what the one before left.
    let count = (0..50).map(|_| {
        let database = database.clone();
        tokio::spawn(async move {
            let add = |transaction: &mut crate::database::Transaction<'_>| {
                let vni = match transaction.get(&key::tenant("t0")) {
                    Some(Record::Tenant(each)) => each.vni,
                    _ => return Err(Rejection::NotFound("t0".into())),
                };
                transaction.put(tenant("t0", vni + 1));
                Ok(())
            };
            database.change("test", "add", add).await.unwrap()
        })
    });
    for change in count.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    assert_eq!(database.state().tenant(&key::tenant("t0")).unwrap().vni, 51);
    // What changes nothing is no revision.
    let nothing = database.change("test", "nothing", |transaction| {
        transaction.put(tenant("t1", 2));
        Ok(())
    });
    assert_eq!(nothing.await.unwrap().1, 1050);
    let history = database.history(Span::Before(1051), 2).await.unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|each| (each.number, each.operation.as_str()))
        .collect();
    assert_eq!(told, [(1050, "add"), (1049, "add")]);
    let before = database.state();
    database.close().await;
    let again = Database::start(open()).await.unwrap();
    assert_eq!(again.state().revision, before.revision);
    let all = |state: &crate::model::State| state.tenants().cloned().collect::<Vec<_>>();
    assert_eq!(all(&again.state()), all(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file() {
    let scratch = Scratch::new();
    let path = scratch.path("domain.redb");
    suite(|| Redb::open(&path).unwrap()).await;
}

/// etcd processes on the loopback interface, members of one cluster; they end with the value.
pub(super) struct Cluster {
    members: Vec<std::process::Child>,
    pub(super) endpoints: Vec<String>,
    /// What its clients show.
    pub(super) tls: EtcdTls,
}

/// An authority, and what it signed for members and for clients: files below a folder.
fn certificates(scratch: &Scratch) -> EtcdTls {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let write = |name: &str, text: String| {
        let path = scratch.path(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for name in ["member", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let signed = params.signed_by(&key, &authority).unwrap();
        write(&format!("{name}.pem"), signed.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    EtcdTls {
        cacert: Some(write("ca.pem", authority.pem())),
        cert: Some(scratch.path("client.pem")),
        key: Some(scratch.path("client.key")),
    }
}

impl Cluster {
    /// `None` where etcd is not installed.
    pub(super) fn start(scratch: &Scratch, count: usize) -> Option<Self> {
        Self::with(scratch, count, EtcdTls::default())
    }

    /// One member that lets nobody in without a certificate.
    pub(super) fn start_tls(scratch: &Scratch) -> Option<Self> {
        Self::with(scratch, 1, certificates(scratch))
    }

    fn with(scratch: &Scratch, count: usize, tls: EtcdTls) -> Option<Self> {
        let port = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let ports: Vec<(u16, u16)> = (0..count).map(|_| (port(), port())).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let client_url = |port: u16| format!("{scheme}://127.0.0.1:{port}");
        let peers = ports.iter().enumerate();
        let peers: Vec<String> = peers
            .map(|(at, (_, peer))| format!("m{at}={}", url(*peer)))
            .collect();
        let mut members = Vec::new();
        for (at, (client, peer)) in ports.iter().enumerate() {
            let mut etcd = std::process::Command::new("etcd");
            etcd.args(["--name", &format!("m{at}"), "--logger", "zap", "--data-dir"]);
            etcd.arg(scratch.path(&format!("etcd{at}")));
            etcd.args([
                "--listen-client-urls",
                &client_url(*client),
                "--advertise-client-urls",
                &client_url(*client),
            ]);
            if let Some(cacert) = &tls.cacert {
                etcd.arg("--client-cert-auth")
                    .arg("--trusted-ca-file")
                    .arg(cacert);
                etcd.arg("--cert-file").arg(scratch.path("member.pem"));
                etcd.arg("--key-file").arg(scratch.path("member.key"));
            }
            etcd.args([
                "--listen-peer-urls",
                &url(*peer),
                "--initial-advertise-peer-urls",
                &url(*peer),
            ]);
            etcd.args(["--initial-cluster", &peers.join(",")]);
            let null = std::process::Stdio::null;
            match etcd.stdout(null()).stderr(null()).spawn() {
                Ok(member) => members.push(member),
                Err(_) => {
                    println!("SKIPPED: etcd is not installed");
                    return None;
                }
            }
        }
        let endpoints = ports.iter().map(|(client, _)| client_url(*client));
        Some(Self {
            members,
            endpoints: endpoints.collect(),
            tls,
        })
    }

    fn open(&self) -> Etcd {
        self.open_with(&self.tls).unwrap()
    }

    fn open_with(&self, tls: &EtcdTls) -> Result<Etcd, StoreError> {
        Etcd::connect(&self.endpoints, tls, "/weft/test")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    suite(|| cluster.open()).await;
}

/// The same with certificates; and who has none, another authority's, or does not trust the members' is not let in.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_certificates() {
    let (scratch, others) = (Scratch::new(), Scratch::new());
    let Some(cluster) = Cluster::start_tls(&scratch) else {
        return;
    };
    suite(|| cluster.open()).await;
    let (own, others) = (cluster.tls.clone(), certificates(&others));
    let without = EtcdTls {
        cacert: own.cacert.clone(),
        ..EtcdTls::default()
    };
    let strange = EtcdTls {
        cacert: own.cacert.clone(),
        ..others.clone()
    };
    let distrusting = EtcdTls {
        cacert: others.cacert,
        ..own.clone()
    };
    let load = async |tls: EtcdTls| cluster.open_with(&tls).unwrap().load().await;
    let (without, strange, distrusting) =
        tokio::join!(load(without), load(strange), load(distrusting));
    for (refused, word) in [
        // In etcd's words, where the connection lives for as long.
        (without, "etcd: "),
        (strange, "etcd: "),
        (distrusting, "invalid peer certificate"),
    ] {
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains(word), "{refused}");
    }
    // What makes no sense is told before anybody is asked.
    let refused = |tls: &EtcdTls| cluster.open_with(tls).err().unwrap().to_string();
    assert!(refused(&EtcdTls::default()).contains("whom to trust?"));
    let no_key = EtcdTls {
        key: None,
        ..own.clone()
    };
    assert!(refused(&no_key).contains("given together"));
    let missing = EtcdTls {
        cacert: Some(scratch.path("nothing.pem")),
        ..own.clone()
    };
    assert!(refused(&missing).contains("nothing.pem: No such file"));
    let plain = Etcd::connect(&["http://127.0.0.1:1".into()], &own, "/weft");
    assert!(plain.err().unwrap().to_string().contains("are for https"));
}

async fn put(database: &Database, name: String, vni: u32) -> Result<u64, Rejection> {
    let put = move |transaction: &mut crate::database::Transaction<'_>| {
        // Two records: both are there, or none.
        transaction.put(tenant(&name, vni));
        transaction.put(tenant(&format!("{name}-too"), vni));
        Ok(())
    };
    Ok(database.change("test", "put", put).await?.1)
}

/// Three members and two controllers; a member is killed while both write. What was acknowledged is there at both, whole, and once.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_a_member_under_two_controllers() {
    let scratch = Scratch::new();
    let Some(mut cluster) = Cluster::start(&scratch, 3) else {
        return;
    };
    let one = Database::start(cluster.open()).await.unwrap();
    let other = Database::start(cluster.open()).await.unwrap();
    let mut seen_by_other = other.watch();
    let mut writes = Vec::new();
    for number in 0..1000u32 {
        let database = [&one, &other][number as usize % 2].clone();
        writes.push(tokio::spawn(async move {
            let name = format!("t{number}");
            (name.clone(), put(&database, name, number + 1).await)
        }));
        if number == 500 {
            let mut member = cluster.members.remove(0);
            member.kill().unwrap();
            member.wait().unwrap();
        }
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut acknowledged = Vec::new();
    for write in writes {
        let (name, result) = write.await.unwrap();
        match result {
            Ok(revision) => acknowledged.push((revision, name)),
            // Told so, and nothing is said of whether it is there.
            Err(Rejection::Unavailable(_)) => {}
            Err(other) => panic!("{name}: {other}"),
        }
    }
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
    acknowledged.sort();
    let mut numbers: Vec<u64> = acknowledged.iter().map(|(revision, _)| *revision).collect();
    numbers.dedup();
    assert_eq!(
        numbers.len(),
        acknowledged.len(),
        "a revision is one change's"
    );
    // Both hear of everything.
    let last = put(&one, "last".into(), 1).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while other.state().revision < last {
        assert!(Instant::now() < end, "{} of {last}", other.state().revision);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let third = Database::start(cluster.open()).await.unwrap();
    for database in [&one, &other, &third] {
        let state = database.state();
        assert_eq!(state.revision, last);
        for (_, name) in &acknowledged {
            assert!(state.tenant(&key::tenant(name)).is_some(), "{name} is lost");
        }
        let names: std::collections::BTreeSet<_> =
            state.tenants().map(|each| each.name.clone()).collect();
        for name in names.iter().filter(|name| !name.ends_with("-too")) {
            assert!(names.contains(&format!("{name}-too")), "half of {name}");
        }
    }
    assert_eq!(
        one.history(Span::Before(u64::MAX), 5).await.unwrap(),
        third.history(Span::Before(u64::MAX), 5).await.unwrap()
    );
    // And in order.
    let mut at = 0;
    while let Ok(news) = seen_by_other.try_recv() {
        if let News::Revisions(revisions) = news {
            for revision in revisions.iter() {
                assert!(revision.number > at, "{} behind {at}", revision.number);
                at = revision.number;
            }
        }
    }
    // Who is here is known, and who has gone is not for long.
    let alive = one.alive("one").await.unwrap().unwrap();
    assert!(alive.contains("one"), "{alive:?}");
    let alive = other.alive("other").await.unwrap().unwrap();
    assert!(
        alive.contains("one") && alive.contains("other"),
        "{alive:?}"
    );
}

/// A snapshot and what came behind it are all that there was.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_a_snapshot() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    let database = Database::start(cluster.open()).await.unwrap();
    let writes = (0..1100u32).map(|number| {
        let database = database.clone();
        tokio::spawn(async move {
            put(&database, format!("t{number}"), number + 1)
                .await
                .unwrap()
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    let again = Database::start(cluster.open()).await.unwrap();
    assert_eq!(again.state().revision, 1100);
    let all = |state: &crate::model::State| state.tenants().cloned().collect::<Vec<_>>();
    assert_eq!(all(&again.state()), all(&database.state()));
    assert_eq!(all(&again.state()).len(), 2200);
}

/// Two controllers over one cluster: a router that loses one goes to the other, and is told there what was changed at either.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_goes_from_a_controller_that_dies_to_the_next() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    let mut one = Running::with(&scratch, 15, cluster.endpoints.clone()).await;
    let two = Running::beside(&scratch, cluster.endpoints.clone()).await;
    let token = one.join_token("router").await;
    let addresses = format!("{},{}", one.address, two.address);
    let mut routers = Vec::new();
    for (name, number) in [("a1", 1), ("a2", 2)] {
        let folder = scratch.path(name);
        Membership::join(&addresses, &token, name, &folder)
            .await
            .unwrap();
        routers.push(Follower::start(&folder, number));
    }
    let [a1, a2] = &mut routers[..] else { panic!() };
    a1.until("a2", has("neighbor/a2")).await;
    a2.until("a1", has("neighbor/a1")).await;
    // Made at the one, attached at the other.
    one.ask(Method::POST, "tenants", json!({ "name": "red" }))
        .await
        .unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while two
        .ask(Method::PUT, "tenants/red/attachments/a1", json!({}))
        .await
        .is_err()
    {
        assert!(Instant::now() < end, "it does not hear of the tenant");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    a1.until("the tenant", has("tenant/red")).await;
    // The one dies. Both come to the other, which has them as they are: nothing is told anew, and nobody's lease runs out.
    one.kill().await;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let status = two.get("status").await;
        let attached = status["routers"].as_array().unwrap().iter();
        if attached.filter(|each| each["attached"] == true).count() == 2 {
            break;
        }
        assert!(Instant::now() < end, "{status}");
        a1.step(Duration::from_millis(20)).await;
        a2.step(Duration::from_millis(20)).await;
    }
    two.ask(Method::DELETE, "tenants/red/attachments/a1", Value::Null)
        .await
        .unwrap();
    a1.until("the tenant is gone", lacks("tenant/red")).await;
    assert!(has("neighbor/a2")(&a1.view) && has("neighbor/a1")(&a2.view));
    assert_eq!(two.get("routers/a2").await["expired"], false);
}
