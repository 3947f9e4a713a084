//! What every datastore has to do.

use super::*;
use crate::database::{Database, Rejection};
use crate::model::{Record, Tenant, key};
use crate::store::{Redb, Store};

fn tenant(name: &str, vni: u32) -> Record {
    Record::Tenant(Tenant {
        name: name.to_owned(),
        vni,
        home: None,
        description: None,
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
        seen.extend(revisions.recv().await.unwrap().iter().map(|of| of.number));
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
                    Some(Record::Tenant(of)) => of.vni,
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
    let history = database.history(1051, 2).await.unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|of| (of.number, of.operation.as_str()))
        .collect();
    assert_eq!(told, [(1050, "add"), (1049, "add")]);
    let before = database.state();
    drop(database);
    let end = Instant::now() + Duration::from_secs(10);
    // The writer ends when the last handle has gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(Instant::now() < end);
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
