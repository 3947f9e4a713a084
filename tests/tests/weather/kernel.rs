//! Whether the kernel of a router holds what the router wants, read by other programs than the router.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use weft_tests::{Lab, wait_until};

/// The protocol number of everything that Weft adds.
const OURS: &str = "proto 87";
/// What a router adds to its kernel and how that is listed. Which of two equal ways the underlay takes is asked for apart.
const LISTS: [&str; 9] = [
    "ip -d route show table all proto 87",
    "ip -d -6 route show table all proto 87",
    "ip rule",
    "ip -6 rule",
    "ip nexthop",
    "bridge vni show",
    "ip neigh show dev vx0",
    "nft list ruleset",
    "ip -br link show dev vx0",
];

/// What a router's kernel holds of the router.
pub(crate) struct Snapshot(BTreeMap<&'static str, Vec<String>>);

impl Snapshot {
    /// That of a router that says that the kernel holds what it should.
    pub(crate) fn settled(lab: &Lab, node: &str) -> Self {
        lab.converged(node);
        Self::read(lab, node)
    }

    fn read(lab: &Lab, node: &str) -> Self {
        // The number of a next-hop object is the router's choice, another one after a restart: what it leads to stands in its place.
        let objects = lab.run(node, "ip nexthop");
        let objects: Vec<(&str, &str)> = objects
            .lines()
            .filter_map(|line| line.trim().strip_prefix("id ")?.split_once(' '))
            .collect();
        let lists = LISTS.map(|list| {
            let text = lab.run(node, list);
            // Two lines each where there is a next-hop object, which is listed apart.
            let mut lines: Vec<String> = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.starts_with("nh_info") && !line.contains(" table main "))
                // The signature of a table is its process's: another one after a restart.
                .filter(|line| !line.starts_with("comment \"weft-"))
                .map(|line| {
                    let known = objects
                        .iter()
                        .fold(format!("{line} "), |line, (id, object)| {
                            line.replace(&format!("id {id} "), &format!("({object}) "))
                        });
                    known.trim_end().to_owned()
                })
                .collect();
            lines.sort();
            (list, lines)
        });
        Self(BTreeMap::from(lists))
    }

    /// Waits until the kernel is as it was then, as the router says that it wants it, and its way to each far end is that of the best path.
    ///
    /// # Panics
    /// Where that does not come, with what differs.
    pub(crate) fn is_again(&self, lab: &Lab, node: &str) {
        let differs = || {
            let now = Self::read(lab, node);
            let lists = LISTS.iter().filter(|list| self.0[*list] != now.0[*list]);
            let mut differs: Vec<String> = lists
                .map(|list| format!("{list}: {:#?} was {:#?}", now.0[list], self.0[list]))
                .collect();
            differs.extend(now.unwanted(lab, node));
            differs
        };
        let mut last = Vec::new();
        let end = std::time::Instant::now() + Duration::from_secs(60);
        wait_until("the kernel is read", Duration::from_secs(90), || {
            last = differs();
            (last.is_empty() || std::time::Instant::now() > end).then_some(())
        });
        assert!(last.is_empty(), "{node}: {}", last.join("\n"));
    }

    /// What the router says of its intent that is not so in the kernel.
    fn unwanted(&self, lab: &Lab, node: &str) -> Vec<String> {
        let Some(kernel) = lab.get(node, "kernel") else {
            return vec!["the router does not answer".to_owned()];
        };
        let ours = |list: &str| {
            let lines = self.0[list].iter();
            lines.filter(|line| line.contains(OURS)).count() as u64
        };
        let tables = [
            "ip -d route show table all proto 87",
            "ip -d -6 route show table all proto 87",
        ];
        let routes: u64 = tables.iter().map(|list| self.0[*list].len() as u64).sum();
        let counted = [
            ("rules", ours("ip rule") + ours("ip -6 rule")),
            ("next hops", ours("ip nexthop")),
            ("routes", routes + main_routes(lab, node).len() as u64),
        ];
        let mut wrong = Vec::new();
        let objects = kernel["objects"].as_array().unwrap();
        for (object, count) in counted {
            let said = objects.iter().find(|one| one["object"] == object);
            let wanted = said.map_or(&Value::Null, |said| &said["intended"]);
            if *wanted != count {
                wrong.push(format!("{object}: {count} in the kernel, wanted {wanted}"));
            }
        }
        for line in main_routes(lab, node) {
            let words: Vec<&str> = line.split(' ').collect();
            let paths = lab.paths(node, &format!("{}/32", words[0]));
            let best = paths.iter().find(|path| path["best"] == true);
            let gateway = best.map_or(&Value::Null, |best| &best["next_hop"]);
            if words[2] != gateway {
                wrong.push(format!("{line}: the best path leads to {gateway}"));
            }
        }
        wrong
    }
}

/// The router's routes in the main table: `ADDRESS via GATEWAY dev DEVICE ...`.
fn main_routes(lab: &Lab, node: &str) -> Vec<String> {
    let text = lab.run(node, "ip route show table main proto 87");
    text.lines().map(|line| line.trim().to_owned()).collect()
}
