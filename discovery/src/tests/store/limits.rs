//! What a datastore holds has bounds, a change may be as large as it is, and what earlier versions wrote is read.

use super::*;
use crate::chains::records::{Past, PastChains};
use crate::etcd::PutRequest;
use crate::etcd::kv_client::KvClient;
use crate::model::{Revision, State, Versioned, now};
use crate::tests::growth;
use redb::{ReadableDatabase as _, TableDefinition, TableHandle as _};

/// A domain as an earlier version has left it, and its history: the past of a tenant's chains is in one record.
fn former() -> (State, Vec<Revision>) {
    let mut domain = growth::Domain::new();
    domain.tenant("red").unwrap();
    domain.service("red", "fw", None).unwrap();
    let made = domain.chain("red", "web", 80, &["fw"]).unwrap();
    let changed = domain.chain("red", "web", 81, &["fw"]).unwrap();
    let past = Past {
        services: [("fw".to_owned(), 10_001)].into(),
        chains: vec![match &changed.changes[0].old {
            Some(Record::Chain(chain)) => std::sync::Arc::new(chain.clone()),
            other => panic!("{other:?}"),
        }],
    };
    let past = Record::PastChains(PastChains {
        tenant: "red".into(),
        past: vec![past],
    });
    let mut history = vec![made, changed];
    let latest = history.last_mut().unwrap();
    latest
        .changes
        .retain(|change| !change.key.starts_with("past-"));
    latest.changes.push(crate::model::Change {
        key: past.key(),
        old: None,
        new: Some(past.clone()),
    });
    let records = domain.state.below("").map(|(_, one)| one.clone());
    let records = records.filter(|one| !one.record.key().starts_with("past-"));
    let past = Versioned {
        record: past,
        modified: domain.state.revision,
    };
    for revision in &mut history {
        revision.at = now();
    }
    let state = State::new(domain.state.revision, records.chain([past]));
    (state, history)
}

/// All that an earlier version wrote is there, in the form of this one.
async fn check_former(database: &Database, before: &State) {
    let state = database.state();
    let past: Vec<_> = state.below("past-difference/red/").collect();
    assert_eq!(past.len(), 1);
    assert!(state.below("past-chains/").next().is_none());
    let others = |state: &State| -> Vec<Versioned> {
        let all = state.below("").filter(|(key, _)| !key.starts_with("past-"));
        all.map(|(_, one)| one.clone()).collect()
    };
    assert_eq!(others(&state), others(before));
    assert_eq!(state.revision, before.revision + 1, "one for the past");
    let history = database.history(Span::After(0), 100).await.unwrap();
    let numbers: Vec<u64> = history.iter().map(|one| one.number).collect();
    assert_eq!(
        numbers,
        [before.revision - 1, before.revision, before.revision + 1]
    );
    let keys = history.iter().flat_map(|one| &one.changes);
    let keys: Vec<&str> = keys.map(|change| change.key.as_str()).collect();
    assert_eq!(
        keys,
        ["chain/red/web", "chain/red/web"],
        "what is internal is not told"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_earlier_version_is_read() {
    let scratch = Scratch::new();
    let path = scratch.path("domain.redb");
    let (state, history) = former();
    {
        let file = redb::Database::create(&path).unwrap();
        let write = file.begin_write().unwrap();
        let records = TableDefinition::<&str, &[u8]>::new("records");
        let revisions = TableDefinition::<u64, &[u8]>::new("history");
        let numbers = TableDefinition::<&str, u64>::new("numbers");
        for (key, one) in state.below("") {
            let value = serde_json::to_vec(one).unwrap();
            let mut table = write.open_table(records).unwrap();
            table.insert(key, value.as_slice()).unwrap();
        }
        for revision in &history {
            let value = serde_json::to_vec(revision).unwrap();
            let mut table = write.open_table(revisions).unwrap();
            table.insert(revision.number, value.as_slice()).unwrap();
        }
        let mut table = write.open_table(numbers).unwrap();
        table.insert("revision", state.revision).unwrap();
        drop(table);
        write.commit().unwrap();
    }
    for _ in 0..2 {
        let database = Database::start(Redb::open(&path).unwrap()).await.unwrap();
        check_former(&database, &state).await;
        database.close().await;
    }
    let file = redb::Database::create(&path).unwrap();
    let read = file.begin_read().unwrap();
    let tables: Vec<String> = read
        .list_tables()
        .unwrap()
        .map(|one| one.name().to_owned())
        .collect();
    assert!(!tables.contains(&"history".to_owned()), "{tables:?}");
}

/// A change that puts so many tenants, each with so much to say.
async fn put_many(database: &Database, name: &str, count: usize, octets: usize) -> u64 {
    let name = name.to_owned();
    let put = move |transaction: &mut crate::database::Transaction<'_>| {
        for number in 0..count {
            let Record::Tenant(mut one) = tenant(&format!("{name}{number}"), number as u32 + 1)
            else {
                continue;
            };
            one.description = Some("x".repeat(octets));
            transaction.put(Record::Tenant(one));
        }
        Ok(())
    };
    database.change("test", "put many", put).await.unwrap().1
}

/// What is kept of the history: its first revision, and its octets by pages, none of which is too large.
async fn kept(database: &Database) -> (u64, usize) {
    let (mut last, mut first, mut octets) = (0, None, 0);
    loop {
        let page = database.history(Span::After(last), 100).await.unwrap();
        let Some(end) = page.last() else { break };
        let size: usize = page
            .iter()
            .map(|one| serde_json::to_vec(one).unwrap().len())
            .sum();
        assert!(
            size <= 1 << 20 || page.len() == 1,
            "{size} octets, {} revisions",
            page.len()
        );
        first = first.or(page.first().map(|one| one.number));
        for (at, revision) in page.iter().enumerate() {
            let before = if at == 0 { last } else { page[at - 1].number };
            assert!(before == 0 || revision.number == before + 1, "a gap");
        }
        (last, octets) = (end.number, octets + size);
    }
    assert_eq!(last, database.state().revision);
    (first.unwrap_or(0), octets)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_file_has_a_size() {
    let scratch = Scratch::new();
    let path = scratch.path("domain.redb");
    let database = Database::start(Redb::open(&path).unwrap()).await.unwrap();
    for _ in 0..24 {
        // Each time with what was there before: twice as much.
        put_many(&database, "a", 1, 1 << 20).await;
        put_many(&database, "a", 1, (1 << 20) + 1).await;
    }
    let (first, octets) = kept(&database).await;
    assert!(
        first > 1 && octets <= 64 << 20,
        "from {first}: {octets} octets"
    );
    assert!(octets > 30 << 20, "as much as fits: {octets} octets");
    let file = std::fs::metadata(&path).unwrap().len();
    assert!(file < 110 << 20, "{file} octets on the disk");
    // Going back to what is forgotten says so; the latest page is there.
    let latest = database.history(Span::Before(u64::MAX), 100).await.unwrap();
    assert_eq!(latest[0].number, 48);
}

/// What an earlier version wrote to etcd: snapshots and revisions.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_an_earlier_version_is_read() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    let (state, history) = former();
    let channel = crate::etcd::connect(&cluster.endpoints, &cluster.tls).unwrap();
    let put = async |key: String, value: Vec<u8>| {
        let end = Instant::now() + Duration::from_secs(20);
        let request = PutRequest {
            key: format!("/weft/test/{key}").into(),
            value,
            lease: 0,
        };
        while let Err(error) = KvClient::new(channel.clone()).put(request.clone()).await {
            assert!(Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The snapshot is of the revision before the last one, in two parts.
    let (last, snapshot) = (state.revision, state.revision - 1);
    let records: Vec<&Versioned> = state.below("").map(|(_, one)| one).collect();
    let records: Vec<&Versioned> = records
        .into_iter()
        .filter(|one| !one.record.key().starts_with("past-"))
        .collect();
    for (number, part) in records.chunks(records.len().div_ceil(2)).enumerate() {
        let key = format!("parts/{snapshot:020}/{number:08}");
        put(key, serde_json::to_vec(part).unwrap()).await;
    }
    let where_it_is = json!({ "revision": snapshot, "parts": 2 });
    put("snapshot".into(), where_it_is.to_string().into()).await;
    for revision in &history {
        let key = format!("history/{:020}", revision.number);
        put(key, serde_json::to_vec(revision).unwrap()).await;
    }
    put("revision".into(), last.to_string().into()).await;
    // Two controllers find it at the same time.
    let (one, other) = tokio::join!(
        Database::start(cluster.open()),
        Database::start(cluster.open())
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    while other.state().revision < last + 1 || one.state().revision < last + 1 {
        assert!(Instant::now() < end, "{}", other.state().revision);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let third = Database::start(cluster.open()).await.unwrap();
    for database in [&one, &other, &third] {
        check_former(database, &state).await;
    }
}

/// More than etcd takes in one request or transaction is one change all the same: at the other controller, and for who starts then.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_change_in_etcd_is_one() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    let one = Database::start(cluster.open()).await.unwrap();
    let other = Database::start(cluster.open()).await.unwrap();
    let same = |one: &Database, other: &Database| {
        let (one, other) = (one.state(), other.state());
        assert!(*one == *other, "{} and {}", one.revision, other.revision);
    };
    let heard = async |database: &Database, revision: u64| {
        let end = Instant::now() + Duration::from_secs(30);
        while database.state().revision < revision {
            assert!(Instant::now() < end, "{}", database.state().revision);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Many records, large ones, one that is as large as they get, and small ones between, at both.
    put_many(&one, "many", 1000, 10).await;
    put_many(&one, "large", 40, 100 << 10).await;
    put_many(&one, "largest", 1, 1 << 20).await;
    let small = put(&one, "small".into(), 1).await.unwrap();
    heard(&other, small).await;
    same(&one, &other);
    put_many(&other, "many", 1000, 11).await;
    let last = put(&other, "last".into(), 1).await.unwrap();
    heard(&one, last).await;
    same(&one, &other);
    let third = Database::start(cluster.open()).await.unwrap();
    same(&one, &third);
    let gone = one.change("test", "delete", |transaction| {
        for (key, _) in transaction.state().below("tenant/") {
            transaction.delete(key);
        }
        Ok(())
    });
    heard(&third, gone.await.unwrap().1).await;
    assert!(third.state().below("tenant/").next().is_none());
    let fourth = Database::start(cluster.open()).await.unwrap();
    same(&third, &fourth);
    assert_eq!(kept(&fourth).await.0, 1);
}

/// The history in etcd has the same size as in a file.
#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_cluster_has_a_size() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    let database = Database::start(cluster.open()).await.unwrap();
    for _ in 0..24 {
        put_many(&database, "a", 1, 1 << 20).await;
        put_many(&database, "a", 1, (1 << 20) + 1).await;
    }
    let (first, octets) = kept(&database).await;
    // It is looked at now and then only.
    assert!(
        first > 1 && octets <= 90 << 20,
        "from {first}: {octets} octets"
    );
}
