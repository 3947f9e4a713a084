//! The controller and routers as they meet: real connections on the loopback interface, a real datastore in a file.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

mod api;
mod chains;
mod edges;
mod exchange;
mod faults;
mod grants;
pub(crate) mod growth;
mod identity;
mod management;
mod membership;
mod origins;
mod quotas;
mod routers;
mod session_keys;
mod sources;
mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::EtcdTls;
use crate::client::{Client, ClientError, Event, Facts, Membership, Rest};
use crate::controller::{Folder, Settings, serve};
use crate::model::Domain;
use crate::pki::TokenText;
use crate::proto::item::Item;
use crate::view::View;

/// A folder of its own, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-discovery-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn domain(lease: u32) -> Domain {
    Domain {
        name: "lab".into(),
        asn: 64601,
        global_administrator: 64512,
        first_vni: 10_000,
        last_vni: 10_002,
        lease,
        quarantine: 3600,
        hold_time: 90,
        certificate: 86_400,
        resumed: 0,
    }
}

/// A controller that runs; it ends with the value, as if it were killed.
struct Running {
    folder: Folder,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Running {
    async fn new(scratch: &Scratch, lease: u32) -> Self {
        Self::with(scratch, lease, Vec::new()).await
    }

    async fn with(scratch: &Scratch, lease: u32, etcd: Vec<String>) -> Self {
        Self::of(scratch, domain(lease), etcd).await
    }

    async fn of(scratch: &Scratch, domain: Domain, etcd: Vec<String>) -> Self {
        let folder = Folder::new(&scratch.path("controller"));
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            names: vec!["127.0.0.1".into()],
            etcd: etcd.clone(),
            etcd_tls: EtcdTls::default(),
        };
        folder.create(domain, &settings).await.unwrap();
        let mut running = Self {
            folder,
            address: settings.listen,
            task: None,
        };
        running.start().await;
        // It comes back where it was.
        let settings = json!({ "listen": running.address, "names": ["127.0.0.1"], "etcd": etcd });
        std::fs::write(
            scratch.path("controller/controller.json"),
            settings.to_string(),
        )
        .unwrap();
        running
    }

    /// Another controller of the same domain, beside.
    async fn beside(scratch: &Scratch, etcd: Vec<String>) -> Self {
        let (from, to) = (scratch.path("controller"), scratch.path("beside"));
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let settings = json!({ "listen": "127.0.0.1:0", "names": ["127.0.0.1"], "etcd": etcd });
        std::fs::write(to.join("controller.json"), settings.to_string()).unwrap();
        let mut running = Self {
            folder: Folder::new(&to),
            address: "127.0.0.1:0".parse().unwrap(),
            task: None,
        };
        running.start().await;
        running
    }

    async fn start(&mut self) {
        let (ready, at) = oneshot::channel();
        let folder = self.folder.clone();
        self.task = Some(tokio::spawn(async move {
            let ready = |address| ready.send(address).unwrap();
            serve(&folder, ready, std::future::pending()).await.unwrap();
        }));
        self.address = at.await.unwrap();
    }

    /// Every connection breaks.
    async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        if !self.folder.settings().unwrap().etcd.is_empty() {
            return;
        }
        // The connections are tasks of their own, and the datastore is open for as long as one lives.
        let path = self.folder.authority().with_file_name("domain.redb");
        let end = Instant::now() + Duration::from_secs(10);
        while crate::store::Redb::try_open(&path).unwrap().is_none() {
            assert!(Instant::now() < end, "the datastore stays open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn operator(&self) -> Rest {
        let token = std::fs::read_to_string(self.folder.operator()).unwrap();
        self.rest(&token)
    }

    fn rest(&self, token: &str) -> Rest {
        Rest::new(&self.address.to_string(), token.parse().unwrap())
    }

    async fn token(&self, scope: Value) -> String {
        let body = json!({ "scope": scope });
        let created = self
            .operator()
            .ask(Method::POST, "tokens", Some(&body))
            .await;
        created.unwrap()["token"].as_str().unwrap().to_owned()
    }

    async fn join_token(&self, role: &str) -> TokenText {
        let token = self.token(json!({ "kind": "join", "role": role })).await;
        token.parse().unwrap()
    }

    async fn join(&self, name: &str, role: &str, folder: &Path) -> Result<Membership, ClientError> {
        let scope = json!({ "kind": "join", "role": role, "name": name });
        let token: TokenText = self.token(scope).await.parse().unwrap();
        Membership::join(&self.address.to_string(), &token, name, folder).await
    }

    /// A router that has joined and follows; `number` is the end of its addresses.
    async fn router(&self, scratch: &Scratch, name: &str, role: &str, number: u8) -> Follower {
        let folder = scratch.path(name);
        self.join(name, role, &folder).await.unwrap();
        Follower::start(&folder, number)
    }

    /// Makes a tenant and attaches it to a router.
    async fn attach_new(&self, tenant: &str, router: &str) {
        let attachment = format!("tenants/{tenant}/attachments/{router}");
        for (method, path, body) in [
            (Method::POST, "tenants", json!({ "name": tenant })),
            (Method::PUT, &attachment, json!({})),
        ] {
            self.ask(method, path, body).await.unwrap();
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let body = (!body.is_null()).then_some(body);
        let answer = self.operator().ask(method, path, body.as_ref()).await;
        answer.map_err(|error| error.to_string())
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, Value::Null).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A router's side, which runs whatever it is told.
struct Follower {
    client: Client,
    events: tokio::sync::mpsc::Receiver<Event>,
    view: View,
    revision: u64,
    /// What was said of the link last.
    link: Option<Result<(), String>>,
    /// What was said of the folder last.
    kept: Option<Result<(), String>>,
}

impl Follower {
    fn start(folder: &Path, number: u8) -> Self {
        Self::start_with(folder, number, None)
    }

    /// The same with a token in its configuration.
    fn start_with(folder: &Path, number: u8, token: Option<TokenText>) -> Self {
        let membership = Membership::load(folder).unwrap().unwrap();
        Self::start_as(membership, number, token, false)
    }

    /// The same; `session_keys` says that it signs its sessions.
    fn start_as(
        membership: Membership,
        number: u8,
        token: Option<TokenText>,
        session_keys: bool,
    ) -> Self {
        let runs = membership.last_view();
        let facts = Facts {
            router_id: None,
            bgp_address: [192, 0, 2, number].into(),
            endpoint: [192, 0, 2, number].into(),
            encapsulations: vec!["vxlan".into()],
            capacity: 0,
            session_keys,
        };
        let (client, events) = Client::start(membership, facts, runs.clone(), token);
        let (revision, view) = runs.unwrap_or_default();
        Self {
            client,
            events,
            view,
            revision,
            link: None,
            kept: None,
        }
    }

    /// Follows until it is said why the controller is away.
    async fn refused(&mut self, word: &str) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match &self.link {
                Some(Err(why)) if why.contains(word) => return why.clone(),
                link => assert!(Instant::now() < end, "{word}: {link:?}"),
            }
            self.step(Duration::from_secs(1)).await;
        }
    }

    /// Takes the next view in and says so; `None` where none comes in time.
    async fn step(&mut self, patience: Duration) -> Option<()> {
        match tokio::time::timeout(patience, self.events.recv())
            .await
            .ok()??
        {
            Event::View(revision, view) => {
                self.client
                    .applied(revision, view.clone(), Vec::new())
                    .await;
                (self.revision, self.view) = (revision, view);
            }
            Event::Link(link) => self.link = Some(link),
            Event::Kept(kept) => self.kept = Some(kept),
            Event::Question(question) => {
                let _ = question.answer.send(json!({ "tenant": question.tenant }));
            }
        }
        Some(())
    }

    /// Follows until the view is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&View) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !wanted(&self.view) {
            assert!(Instant::now() < end, "{what}: {:?}", self.view.keys());
            self.step(Duration::from_secs(1)).await;
        }
    }

    /// Nothing is said for a while of what it is to be.
    async fn quiet(&mut self) {
        let (revision, view) = (self.revision, self.view.clone());
        let end = Instant::now() + Duration::from_millis(400);
        while Instant::now() < end {
            self.step(Duration::from_millis(100)).await;
        }
        assert_eq!((self.revision, &self.view), (revision, &view));
    }

    fn keys(&self) -> Vec<&str> {
        self.view.keys().map(String::as_str).collect()
    }
}

fn has(key: &str) -> impl Fn(&View) -> bool + '_ {
    move |view| view.contains_key(key)
}

fn lacks(key: &str) -> impl Fn(&View) -> bool + '_ {
    move |view| !view.is_empty() && !view.contains_key(key)
}

/// What a router is told of a neighbour.
fn neighbor<'a>(view: &'a View, key: &str) -> &'a crate::proto::Neighbor {
    match view[key].item.as_ref().unwrap() {
        Item::Neighbor(neighbor) => neighbor,
        other => panic!("{other:?}"),
    }
}
