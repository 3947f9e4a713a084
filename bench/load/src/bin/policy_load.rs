//! A table through the RIB with an import policy, for a count of instructions: `policy-load LINES [ROUTES]` has a prefix list of so many lines asked about
//! each route, and 0 lines stand for no policy. With `path` behind it, a regular expression of AS paths and an edit too.
//!
//! ```sh
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*counted*' target/release/policy-load 1000
//! ```

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use weft_bgp_core::policy::{
    AsPathTest, Condition, Conditions, Edit, NumberSet, Policy, PrefixRange, PrefixSet, Program,
    RoutePolicy, Term, Then,
};
use weft_load::Random;
use weft_load::rib::{Bench, sender};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual| {
        let text = arguments.get(at);
        text.map_or(usual, |text| text.parse().expect("a number"))
    };
    let (lines, routes) = (number(0, 1000), number(1, 200_000));
    let path = arguments.iter().any(|argument| argument == "path");
    let stream = weft_load::internet(routes).announce(sender(1));
    let held = counted(&stream, &policy(lines, path));
    assert_eq!(held, routes, "the policy lets everything pass");
}

/// Everything passes, whether it is in a list of so many lines or not.
fn policy(lines: usize, path: bool) -> RoutePolicy {
    if lines == 0 {
        return RoutePolicy::Accept;
    }
    let mut random = Random(0x5eed_5678_9abc_def1);
    let lines: Vec<PrefixRange> = (0..lines)
        .map(|_| {
            let (address, len) = (random.below(1 << 32) as u32, 12 + random.below(13) as u8);
            let prefix: IpNet = Ipv4Net::new_assert(address.into(), len).trunc().into();
            PrefixRange {
                prefix,
                ge: prefix.prefix_len(),
                le: 24,
            }
        })
        .collect();
    let term = |name: &str, matches, edits| {
        Arc::new(Term {
            name: name.into(),
            matches,
            unless: None,
            edits,
            then: Then::Accept,
        })
    };
    let listed = Conditions {
        prefixes: Some(Arc::new(PrefixSet::new(&lines))),
        others: Vec::new(),
    };
    let mut terms = vec![term("listed", listed, Vec::new())];
    if path {
        let test = AsPathTest {
            patterns: vec!["_1[0-9]*_2[0-9]*_".parse().expect("an expression")],
            contains: NumberSet::default(),
        };
        let matches = Conditions {
            prefixes: None,
            others: vec![Condition::AsPath(test)],
        };
        terms.push(term("path", matches, vec![Edit::LocalPref(200)]));
    }
    terms.push(term("others", Conditions::default(), Vec::new()));
    let name = "bench".into();
    let program = Program::new([&Policy { name, terms }], &|_| None);
    RoutePolicy::Program(Arc::new(program.expect("a program")))
}

/// What is counted.
#[inline(never)]
fn counted(stream: &[u8], policy: &RoutePolicy) -> usize {
    let mut bench = Bench::with_import(1, policy);
    bench.take(1, stream);
    bench.send();
    bench.prefixes()
}
