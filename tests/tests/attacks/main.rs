//! What a neighbour outside says of the overlay that it has no business with, and what comes of it: nothing.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

mod api;
mod host;
mod hostile;
mod load;
mod tenant;

use std::time::Duration;

use hostile::Hostile;
use weft_tests::{need, wait_until};

/// Tenant label of VNI 10001 at 198.51.100.2, the attacker's own address.
const STOLEN: &str = "64512:10001:3325256706";
/// Locator of endpoint id 192.0.2.11, which is a1's.
const LOCATOR: &str = "64512:1610612736:3221225995";
const PREFIX: &str = "10.0.2.10/32";

fn possible() -> bool {
    need(&["ip", "curl"])
}

#[test]
fn a_neighbour_of_which_nothing_is_accepted_draws_no_tenants_packets() {
    if !possible() {
        return;
    }
    let mut x = Hostile::known_as("");
    x.announce(PREFIX, &[STOLEN]);
    x.is_heard();
    assert_eq!(x.communities_inside(PREFIX), [""; 0]);
    assert_eq!(x.trace("a1", "10.0.2.10")["verdict"]["code"], "no-route");
    assert_eq!(x.stripped("vni"), 1);
}

#[test]
fn a_neighbour_that_may_announce_one_vni_announces_no_other() {
    if !possible() {
        return;
    }
    let mut x = Hostile::known_as("accept_vnis: [10002], accept_endpoints: [198.51.100.4/30]");
    // The second is of a VNI that it may announce, at an endpoint of which it may say nothing.
    let other = "64512:10002:3325256706";
    x.announce(PREFIX, &[STOLEN, other]);
    x.is_heard();
    assert_eq!(x.communities_inside(PREFIX), [""; 0]);
    assert_eq!(x.trace("a1", "10.0.2.10")["verdict"]["code"], "no-route");
    assert_eq!((x.stripped("vni"), x.stripped("endpoint")), (1, 1));
}

#[test]
fn what_a_transit_carries_on_is_configured_so() {
    if !possible() {
        return;
    }
    let mut x = Hostile::known_as("overlay: transit");
    x.announce(PREFIX, &[STOLEN]);
    x.is_heard();
    assert_eq!(x.communities_inside(PREFIX), [STOLEN]);
    assert_eq!(x.trace("ea", "10.0.2.10")["verdict"]["code"], "no-route");
    assert_eq!(x.stripped("vni"), 0);
}

fn tunnel_of_ea(x: &Hostile) -> String {
    let trace = x.trace("ea", "10.0.1.10");
    trace["tunnels"][0]["router"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn nobody_takes_the_endpoint_id_of_another_router() {
    if !possible() {
        return;
    }
    for (words, partner) in [("", false), ("accept_vnis: [10001]", true)] {
        let mut x = Hostile::known_as(words);
        wait_until("the way to a1", Duration::from_secs(60), || {
            (tunnel_of_ea(&x) == "2001:db8::11").then_some(())
        });
        // Lower than a1's own.
        x.announce("2001:db7::66/128", &[LOCATOR]);
        x.is_heard();
        assert_eq!(tunnel_of_ea(&x), "2001:db8::11", "{words}");
        let status = x.lab.get("ea", "status").unwrap();
        let alarms = status["alarms"].as_array().unwrap();
        let raised = alarms
            .iter()
            .any(|alarm| alarm["code"] == "locator-conflict");
        assert_eq!(raised, partner, "{status}");
        assert_eq!(x.stripped("vni"), u64::from(!partner));
    }
}

/// Case 13: attributes that stand in an UPDATE again and again.
#[test]
fn what_is_wrong_with_updates_is_told_in_a_few_lines() {
    if !possible() {
        return;
    }
    let mut x = Hostile::known_as("");
    let before = x.lab.log("ea").lines().count();
    for number in 0..5 {
        x.repeat(&format!("10.66.{number}.0/24"), 900);
    }
    x.is_heard();
    let lines = x.lab.log("ea").lines().count() - before;
    assert!(lines < 20, "{lines} lines");
    let neighbor = x.lab.neighbor("ea", "198.51.100.2").unwrap();
    assert_eq!(neighbor["state"], "established", "{neighbor}");
}

/// What nobody can be sent to this router does not draw to itself either: a label whose endpoint id no locator gives an address.
#[test]
fn a_label_that_leads_nowhere_draws_nobody_to_the_edge() {
    if !possible() {
        return;
    }
    // VNI 10001 at endpoint id 203.0.113.77, and the locator of that.
    let label = "64512:268445457:3405803853";
    let locator = "64512:1610612736:3405803853";
    let mut x = Hostile::known_as("accept_vnis: [10001]");
    x.announce(PREFIX, &[label]);
    x.is_heard();
    assert_eq!(x.lab.paths("a1", PREFIX), [serde_json::Value::Null; 0]);
    x.announce("2001:db7::77/128", &[locator]);
    wait_until("the label inside", Duration::from_secs(60), || {
        let paths = x.lab.paths("a1", PREFIX);
        (!paths.is_empty()).then_some(())
    });
    assert!(x.communities_inside(PREFIX).contains(&label.to_owned()));
}
