#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
use super::*;
use crate::model::{Domain, Registration, Role, Scope, key};
use crate::operations::NewToken;
use crate::store::Redb;

/// A router registered here, and its stream was cut before it stood: it is away, and its lease runs out.
#[tokio::test]
async fn who_broke_off_between_registration_and_stream_is_away() {
    let name = format!("weft-hub-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let database = Database::start(Redb::open(&path).unwrap()).await.unwrap();
    let hub = Hub::new(database.clone());
    let id = hub.id().to_owned();
    let registered = database.change("test", "register", move |transaction| {
        let domain = Domain {
            name: "lab".into(),
            asn: 64601,
            global_administrator: 64512,
            first_vni: 1,
            last_vni: 9,
            lease: 1,
            quarantine: 0,
            hold_time: 90,
            certificate: 60,
            resumed: 0,
        };
        operations::create_domain(transaction, &domain)?;
        let token = NewToken {
            scope: Scope::Join {
                role: Role::Router,
                name: None,
            },
            ttl: None,
            uses: None,
        };
        operations::create_token(transaction, "t", "secret", &token, "test")?;
        operations::join(transaction, "t", "secret", "a1", "key")?;
        let registration = Registration {
            router_id: [192, 0, 2, 1].into(),
            bgp_address: [192, 0, 2, 1].into(),
            endpoint: [192, 0, 2, 1].into(),
            encapsulations: vec!["vxlan".into()],
            capacity: 0,
            generation: 1,
            version: String::new(),
            instance: String::new(),
            session_keys: false,
        };
        operations::register(transaction, "a1", "key", &registration, &id, true)
    });
    registered.await.unwrap();
    let mut changed = database.watch();
    let following = tokio::spawn(async move { hub.follow().await });
    let expired = async {
        while !database.state().router(&key::router("a1")).unwrap().expired {
            changed.recv().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), expired).await;
    following.abort();
    let _ = std::fs::remove_file(&path);
    waited.expect("the lease never runs out");
}
