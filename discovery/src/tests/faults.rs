//! The network between router and controller, cut at each step of each call in turn.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

/// Takes part in no conversation, and ends one.
struct Relay {
    address: SocketAddr,
    left: Arc<Mutex<Option<usize>>>,
    task: JoinHandle<()>,
}

impl Relay {
    /// To a controller: passes so many TLS records on, in whatever direction they go, and half of the next one; then it breaks all
    /// connections, once, and is a good relay from then on.
    async fn new(controller: SocketAddr, records: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(Mutex::new(Some(records)));
        let shared = left.clone();
        let cut = Arc::new(Notify::new());
        let task = tokio::spawn(async move {
            loop {
                let Ok((router, _)) = listener.accept().await else {
                    return;
                };
                let (left, cut) = (shared.clone(), cut.clone());
                tokio::spawn(async move {
                    let Ok(controller) = TcpStream::connect(controller).await else {
                        return;
                    };
                    let (from_router, to_router) = router.into_split();
                    let (from_controller, to_controller) = controller.into_split();
                    tokio::select! {
                        () = pass(from_router, to_controller, &left, &cut) => {}
                        () = pass(from_controller, to_router, &left, &cut) => {}
                        () = cut.notified() => {}
                    }
                });
            }
        });
        Self {
            address,
            left,
            task,
        }
    }

    /// It has been cut.
    fn has_cut(&self) -> bool {
        self.left.lock().unwrap().is_none()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes records on for as long as there are any.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    left: &Mutex<Option<usize>>,
    cut: &Notify,
) {
    loop {
        let mut record = vec![0; 5];
        if from.read_exact(&mut record).await.is_err() {
            return;
        }
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + length, 0);
        if from.read_exact(&mut record[5..]).await.is_err() {
            return;
        }
        let last = {
            let mut left = left.lock().unwrap();
            match *left {
                Some(0) => {
                    *left = None;
                    true
                }
                Some(records) => {
                    *left = Some(records - 1);
                    false
                }
                None => false,
            }
        };
        let octets = match last {
            true => &record[..record.len() / 2],
            false => &record[..],
        };
        if to.write_all(octets).await.is_err() {
            return;
        }
        if last {
            cut.notify_waiters();
            return;
        }
    }
}

/// Follows, and finds that nothing is ever taken away or changed.
async fn grow(follower: &mut Follower, what: &str, wanted: impl Fn(&View) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !wanted(&follower.view) {
        assert!(Instant::now() < end, "{what}: {:?}", follower.view.keys());
        let before = follower.view.clone();
        follower.step(Duration::from_secs(1)).await;
        for (key, item) in &before {
            assert_eq!(follower.view.get(key), Some(item), "{what}: {key}");
        }
    }
}

/// One router's life so far, through a relay that breaks at a record; false where it ended before.
async fn life(controller: Arc<Running>, scratch: Arc<Scratch>, records: usize) -> bool {
    let relay = Relay::new(controller.address, records).await;
    let name = format!("x{records}");
    let scope = json!({ "kind": "join", "role": "router", "name": name });
    let body = json!({ "scope": scope, "uses": 2 });
    let token = controller.ask(Method::POST, "tokens", body).await.unwrap();
    let token: TokenText = token["token"].as_str().unwrap().parse().unwrap();
    let folder = scratch.path(&name);
    // As the router does: again, for as long as the controller is not reached; a refusal would be the end.
    let address = relay.address.to_string();
    let mut membership = loop {
        match Membership::join(&address, &token, &name, &folder).await {
            Ok(membership) => break membership,
            Err(ClientError::Unreachable { .. } | ClientError::Broken { .. }) => {}
            Err(error) => panic!("{records}: {error}"),
        }
    };
    loop {
        match membership.renew().await {
            Ok(()) => break,
            Err(ClientError::Unreachable { .. } | ClientError::Broken { .. }) => {}
            Err(error) => panic!("{records}: {error}"),
        }
    }
    let number = u8::try_from(records + 20).unwrap();
    let mut router = Follower::start(&folder, number);
    grow(&mut router, "its neighbour", has("neighbor/rr")).await;
    let path = format!("tenants/red/attachments/{name}");
    controller.ask(Method::PUT, &path, json!({})).await.unwrap();
    grow(&mut router, "its tenant", has("tenant/red")).await;
    // It is asked how it does until it answers, and never another answers for it.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let path = format!("performance?router={name}");
        let asked = async { controller.get(&path).await };
        let answer = tokio::select! {
            answer = asked => answer,
            () = async { while router.step(Duration::from_secs(90)).await.is_some() {} } => unreachable!(),
        };
        if answer["partial"] == false {
            assert_eq!(
                answer["routers"][&name],
                json!({ "tenant": "" }),
                "{answer}"
            );
            break;
        }
        assert_eq!(answer["missing"], json!([name]), "{answer}");
        assert!(Instant::now() < end, "{answer}");
    }
    // What it runs is known.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        grow(&mut router, "nothing new", |_| true).await;
        router.step(Duration::from_millis(20)).await;
        let status = controller.get("status").await;
        let mut routers = status["routers"].as_array().unwrap().iter();
        let own = routers.find(|one| one["name"] == name.as_str()).unwrap();
        if own["lags"] == false && own["runs"].as_u64() >= Some(1) {
            break;
        }
        assert!(Instant::now() < end, "{own}");
    }
    let keys = ["neighbor/rr", "origins/red", "settings", "tenant/red"];
    assert_eq!(router.keys(), keys);
    // The token has been used once, however often it was shown.
    let tokens = controller.get("tokens").await;
    let mut tokens = tokens["items"].as_array().unwrap().iter();
    let own = tokens.find(|one| one["id"] == token.id.as_str());
    assert_eq!(own.unwrap()["uses_left"], 1, "{records}");
    relay.has_cut()
}

/// A router joins, renews its certificate, registers, is told what to be, says that it is, and is asked how it does: with the network
/// cut behind the first TLS record of all that, then behind the second, and so on until there are no more. Whatever was cut, there is
/// one router and one registration, and nothing that a router had been told is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_at_any_step_of_any_call_duplicates_nothing_and_takes_nothing_away() {
    let scratch = Arc::new(Scratch::new());
    let controller = Arc::new(Running::new(&scratch, 600).await);
    // With a reflector, routers see it and not each other.
    let mut reflector = controller.router(&scratch, "rr", "reflector", 1).await;
    let settled = tokio::spawn(async move {
        let mut before = View::new();
        while reflector.step(Duration::from_secs(600)).await.is_some() {
            for (key, item) in &before {
                assert_eq!(reflector.view.get(key), Some(item), "the reflector: {key}");
            }
            before = reflector.view.clone();
        }
    });
    let end = Instant::now() + Duration::from_secs(10);
    while controller.get("routers/rr").await["registration"].is_null() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let body = json!({ "name": "red" });
    controller.ask(Method::POST, "tenants", body).await.unwrap();
    let mut done = 0;
    let mut last = false;
    while !last {
        let lives = (done..done + 8)
            .map(|records| tokio::spawn(life(controller.clone(), scratch.clone(), records)));
        let lives: Vec<_> = lives.collect();
        done += lives.len();
        for life in lives {
            last |= !life.await.unwrap();
        }
    }
    assert!(done > 40, "the relay does not see records: {done}");
    assert!(!settled.is_finished(), "the reflector was told otherwise");
    settled.abort();
    // Each joined once and registered once.
    let mut joined = Vec::new();
    let mut registered = Vec::new();
    let mut before = u64::MAX;
    while before > 1 {
        let page = controller.get(&format!("revisions?before={before}")).await;
        for revision in page["items"].as_array().unwrap() {
            before = revision["number"].as_u64().unwrap();
            let operation = revision["operation"].as_str().unwrap();
            if let Some(name) = operation.strip_suffix(" joins") {
                joined.push(name.to_owned());
            }
            if let Some(name) = operation.strip_suffix(" registers") {
                registered.push(name.to_owned());
            }
        }
    }
    for names in [&mut joined, &mut registered] {
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!((names.len(), count), (done + 1, done + 1), "{names:?}");
    }
}
