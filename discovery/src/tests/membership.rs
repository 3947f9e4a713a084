//! Who is a router of the domain on a bad day: reinstalled, removed and back, moved, restored from a copy, cloned. Each ends in a router that
//! works, or in a sentence that says what to do.

use super::store::Cluster;
use super::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            // Written just now: it has its final name by now, and is copied under that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
}

/// Follows in the background, and answers what is asked.
fn alive(mut follower: Follower) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            follower.step(Duration::from_secs(60)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_installed_anew_begins_anew() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let folder = scratch.path("a1");
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    // It has been started some times.
    for _ in 0..3 {
        a1.until("settings", has("settings")).await;
        drop(a1);
        a1 = Follower::start(&folder, 1);
    }
    a1.until("settings", has("settings")).await;
    drop(a1);
    std::fs::remove_dir_all(&folder).unwrap();
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let router = controller.get("routers/a1").await;
    assert_eq!(router["registration"]["generation"], 1, "{router}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_was_removed_comes_back_with_a_token() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let folder = scratch.path("a1");
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    controller
        .ask(Method::DELETE, "routers/a1", Value::Null)
        .await
        .unwrap();
    let why = a1.refused("is not in the domain").await;
    assert!(
        why.contains("weft token create --role router --name a1"),
        "{why}"
    );
    drop(a1);
    // With a fresh one in its configuration it joins by itself; one that is used up is named.
    let token = controller.join_token("router").await;
    let mut a1 = Follower::start_with(&folder, 1, Some(token.clone()));
    let end = Instant::now() + Duration::from_secs(20);
    while controller.get("status").await["routers"][0]["attached"] != true {
        assert!(Instant::now() < end);
        a1.step(Duration::from_millis(100)).await;
    }
    drop(a1);
    controller
        .ask(Method::DELETE, "routers/a1", Value::Null)
        .await
        .unwrap();
    let tokens = controller.get("tokens").await;
    assert!(tokens.to_string().contains(&token.id), "{tokens}");
    controller
        .ask(Method::DELETE, &format!("tokens/{}", token.id), Value::Null)
        .await
        .unwrap();
    let mut a1 = Follower::start_with(&folder, 1, Some(token));
    let why = a1.refused("is good no more").await;
    assert!(why.contains("not known here"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_under_the_name_is_told_to_the_one_that_had_it() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    drop(a1);
    let other = scratch.path("other");
    controller.join("a1", "router", &other).await.unwrap();
    let mut other = Follower::start(&other, 2);
    other.until("settings", has("settings")).await;
    let mut a1 = Follower::start(&scratch.path("a1"), 1);
    let why = a1.refused("another router has joined as `a1`").await;
    assert!(why.contains("remove its state folder"), "{why}");
    assert!(why.contains("/a1)"), "which: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_a_token_becomes_no_router_that_there_is() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let address = controller.address.to_string();
    let any = controller.join_token("router").await;
    let thief = scratch.path("thief");
    let refused = Membership::join(&address, &any, "a1", &thief).await;
    let why = refused.unwrap_err().to_string();
    assert!(
        why.contains("weft token create --role router --name a1"),
        "{why}"
    );
    // A token that names it is its operator's word: the former one's stream ends at once, before anything else changes.
    controller.join("a1", "router", &thief).await.unwrap();
    let why = a1.refused("another router has joined as `a1`").await;
    assert!(why.contains("remove its state folder"), "{why}");
    controller.attach_new("red", "a1").await;
    let mut new = Follower::start(&thief, 2);
    new.until("the tenant", has("tenant/red")).await;
    assert!(!a1.view.contains_key("tenant/red"));
}

/// A token that was made for a router goes with it: who has it is not the next of that name.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_router_that_was_removed_makes_nobody_its_successor() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    controller
        .join("a1", "router", &scratch.path("a1"))
        .await
        .unwrap();
    let scope = json!({ "kind": "join", "role": "router", "name": "a1" });
    let former: TokenText = controller.token(scope).await.parse().unwrap();
    controller
        .ask(Method::DELETE, "routers/a1", Value::Null)
        .await
        .unwrap();
    controller
        .join("a1", "router", &scratch.path("new"))
        .await
        .unwrap();
    let address = controller.address.to_string();
    let refused = Membership::join(&address, &former, "a1", &scratch.path("thief")).await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("not known here"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_has_moved_is_where_it_is_now() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    let mut a2 = controller.router(&scratch, "a2", "router", 2).await;
    a2.until("a1", has("neighbor/a1")).await;
    a1.until("a2", has("neighbor/a2")).await;
    drop(a1);
    let mut a1 = Follower::start(&scratch.path("a1"), 7);
    a2.until("where it is", |view| {
        has("neighbor/a1")(view) && neighbor(view, "neighbor/a1").address == "192.0.2.7"
    })
    .await;
    a1.until("its settings", |view| {
        let settings = view.get("settings").and_then(|one| one.item.as_ref());
        matches!(settings, Some(Item::Settings(one)) if one.router_id == "192.0.2.7")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_routers_folder_is_the_router_where_there_is_one() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let folder = scratch.path("a1");
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    drop(a1);
    copy(&folder, &scratch.path("backup"));
    for _ in 0..4 {
        let mut a1 = Follower::start(&folder, 1);
        a1.step(Duration::from_secs(10)).await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&scratch.path("backup"), &folder);
    controller.attach_new("red", "a1").await;
    let mut a1 = Follower::start(&folder, 1);
    a1.until("what has changed since", has("tenant/red")).await;
    let router = controller.get("routers/a1").await;
    assert_eq!(router["registration"]["generation"], 2, "{router}");
}

/// A disk is full at the start: the router is what its domain says, says what a start without the controller would lack, and keeps it when
/// there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_takes_nothing_keeps_no_router_from_its_domain() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let folder = scratch.path("a1");
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    drop(a1);
    let in_the_way = folder.join("generation.new");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let mut a1 = Follower::start(&folder, 1);
    controller.attach_new("red", "a1").await;
    a1.until("what is new", has("tenant/red")).await;
    let kept = a1.kept.clone();
    let why = kept.and_then(Result::err).unwrap_or_default();
    assert!(why.contains("generation"), "{why}");
    std::fs::remove_dir(&in_the_way).unwrap();
    controller.attach_new("blue", "a1").await;
    a1.until("what is newer", has("tenant/blue")).await;
    let membership = Membership::load(&folder).unwrap().unwrap();
    let is_kept = || {
        let known = membership.last_view();
        known.is_some_and(|(_, view)| view.contains_key("tenant/blue"))
    };
    let end = Instant::now() + Duration::from_secs(20);
    while a1.kept != Some(Ok(())) || !is_kept() {
        assert!(Instant::now() < end);
        a1.step(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_takes_nothing_from_the_router_that_answers() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    copy(&scratch.path("a1"), &scratch.path("clone"));
    let a1 = alive(a1);
    let mut clone = Follower::start(&scratch.path("clone"), 9);
    let why = clone.refused("`a1` is attached, and answers").await;
    assert!(why.contains("remove its state folder"), "{why}");
    assert!(why.contains("/clone)"), "which: {why}");
    let router = controller.get("routers/a1").await;
    assert_eq!(router["registration"]["endpoint"], "192.0.2.1", "{router}");
    // When the first is gone it is the router.
    a1.abort();
    let end = Instant::now() + Duration::from_secs(30);
    while controller.get("routers/a1").await["registration"]["endpoint"] != "192.0.2.9" {
        assert!(Instant::now() < end);
        clone.step(Duration::from_millis(100)).await;
    }
}

/// The clone meets another controller of the domain than the router did: that one asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_takes_nothing_at_another_controller_either() {
    let scratch = Scratch::new();
    let Some(cluster) = Cluster::start(&scratch, 1) else {
        return;
    };
    let controller = Running::with(&scratch, 30, cluster.endpoints.clone()).await;
    let beside = Running::beside(&scratch, cluster.endpoints.clone()).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    copy(&scratch.path("a1"), &scratch.path("clone"));
    // It asks the other one.
    let membership = scratch.path("clone/member.json");
    let text = std::fs::read_to_string(&membership).unwrap();
    let text = text.replace(&controller.address.to_string(), &beside.address.to_string());
    std::fs::write(&membership, text).unwrap();
    let a1 = alive(a1);
    let mut clone = Follower::start(&scratch.path("clone"), 9);
    let why = clone.refused("`a1` is attached, and answers").await;
    assert!(why.contains("remove its state folder"), "{why}");
    let router = beside.get("routers/a1").await;
    assert_eq!(router["registration"]["endpoint"], "192.0.2.1", "{router}");
    // When the first is gone it is the router, there too.
    a1.abort();
    let end = Instant::now() + Duration::from_secs(30);
    while beside.get("routers/a1").await["registration"]["endpoint"] != "192.0.2.9" {
        assert!(Instant::now() < end);
        clone.step(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datastore_from_an_older_copy_takes_nothing_away_before_its_operator_says_so() {
    let scratch = Scratch::new();
    let mut controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    controller.kill().await;
    let store = scratch.path("controller/domain.redb");
    std::fs::copy(&store, scratch.path("copy.redb")).unwrap();
    controller.start().await;
    controller.attach_new("red", "a1").await;
    a1.until("the tenant", has("tenant/red")).await;
    controller.kill().await;
    std::fs::copy(scratch.path("copy.redb"), &store).unwrap();
    controller.start().await;
    let why = a1.refused("restored from an older copy").await;
    assert!(why.contains("weft controller resume"), "{why}");
    assert!(a1.view.contains_key("tenant/red"));
    let status = controller.get("status").await;
    assert!(
        status["warnings"][0]
            .as_str()
            .unwrap()
            .contains("weft controller resume"),
        "{status}"
    );
    controller
        .ask(Method::POST, "resume", Value::Null)
        .await
        .unwrap();
    a1.until("what is here", lacks("tenant/red")).await;
    let status = controller.get("status").await;
    assert!(!status.to_string().contains("resume"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_router_refuses_is_told_by_item_and_reason() {
    let scratch = Scratch::new();
    let controller = Running::new(&scratch, 30).await;
    let mut a1 = controller.router(&scratch, "a1", "router", 1).await;
    a1.until("settings", has("settings")).await;
    let refused = vec![crate::proto::Refused {
        item: "tenant/red".into(),
        reason: "interfaces[0]: no".into(),
    }];
    a1.client
        .applied(a1.revision, a1.view.clone(), refused)
        .await;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let status = controller.get("status").await;
        let router = &status["routers"][0];
        if router["refused"][0]["item"] == "tenant/red" {
            assert_eq!(router["refused"][0]["reason"], "interfaces[0]: no");
            assert_eq!(router["lags"], true);
            break;
        }
        assert!(Instant::now() < end, "{status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
