use super::super::tests::{OVERLAY, ROUTER, good, lines};
use crate::config::Config;

/// Problems of a policy `p` with one term, without their places.
fn of_term(term: &str) -> Vec<String> {
    of_policies(&format!("policies: {{ p: [{term}] }}\n"))
}

fn of_policies(text: &str) -> Vec<String> {
    let all = lines(&format!("{ROUTER}{text}"));
    let words = all.iter().map(|line| line.split_once(' ').unwrap().1);
    words.map(str::to_owned).collect()
}

#[test]
fn what_is_wrong_with_a_term_says_where_and_what_to_do() {
    for (term, problem) in [
        (
            "{ match: { prefixes: custmers }, then: accept }",
            "policies.p[0].match.prefixes: there is no prefix list `custmers` (define it under `prefix_lists`; there are bogons, too-long, \
             default-routes)",
        ),
        (
            "{ match: { prefixes: [bogon] }, then: accept }",
            "policies.p[0].match.prefixes[0]: there is no prefix list `bogon` (did you mean `bogons`?)",
        ),
        (
            "{ match: { as_path: '65001a_' }, then: accept }",
            "policies.p[0].match.as_path: there is no list of AS paths `65001a_` (define it under `as_paths`; there are bogons)",
        ),
        (
            "{ match: { as_path: '(65001' }, then: accept }",
            "policies.p[0].match.as_path: found `(65001`, no regular expression of AS paths: unclosed group",
        ),
        (
            "{ match: { as_path: 9-1 }, then: accept }",
            "policies.p[0].match.as_path: found `9-1`, expected a range that ends behind its start: 1-9",
        ),
        (
            "{ match: { communities: '65000:x' }, then: accept }",
            "policies.p[0].match.communities: `65000:x` is no community: `A:B`, each 0 to 65535, a range such as 100-199, or `*`",
        ),
        (
            "{ match: { communities: 'rt:1' }, then: accept }",
            "policies.p[0].match.communities: `rt:1` is no extended community: `rt:A:B` or `soo:A:B`, each part a number, a range or `*`, A also \
             an IPv4 address; or `0x` with 16 hexadecimal digits, or fewer and `*`",
        ),
        (
            "{ match: { local_pref: 200-100 }, then: accept }",
            "policies.p[0].match.local_pref: found `200-100`, a range that ends before it starts (did you mean 100-200?)",
        ),
        (
            "{ match: { vnis: [10001] }, then: accept }",
            "policies.p[0].match.vnis: labels are of an overlay, and there is none",
        ),
        (
            "{ match: { community: '65000:1' }, then: accept }",
            "policies.p[0].match: unknown key `community`, allowed are `prefixes`, `as_path`, `communities`, `as_path_length`, `origin_as`, \
             `neighbor_as`, `local_pref`, `med`, `vnis`, `labels`, `origin`, `next_hop`, `neighbors`, `source` and `families` (did you mean \
             `communities`?)",
        ),
        (
            "{ match: { prefixes: bogons } }",
            "policies.p[0]: the term does nothing (add `then: accept`, `then: reject`, or what it is to `set`)",
        ),
        (
            "{ then: accept, call: bogons }",
            "policies.p[0]: `call` stands in the place of `then` (leave one of them out)",
        ),
        (
            "{ call: bogus }",
            "policies.p[0].call: there is no policy `bogus` (did you mean `bogons`?)",
        ),
        (
            "{ call: p }",
            "policies.p: a policy that calls itself never ends: p calls p",
        ),
        (
            "{ unless: {}, then: accept }",
            "policies.p[0].unless: all routes are those without a condition, so that the term would be about none (leave `unless` out)",
        ),
        (
            "{ set: { prepend: 33 } }",
            "policies.p[0].set.prepend: found `33`, expected a number of times, 1 to 32",
        ),
        (
            "{ set: { next_hop: here } }",
            "policies.p[0].set.next_hop: found `here`, expected `self`, `unchanged`, or an IP address",
        ),
        (
            "{ set: { communities: { add: '65000:*' } } }",
            "policies.p[0].set.communities.add: `65000:*` is no community: `A:B`, each 0 to 65535, or a well-known name",
        ),
    ] {
        assert_eq!(of_term(term), [problem], "{term}");
    }
    let twice = of_policies(
        "policies: { p: [{ name: a, then: next, set: { med: 1 } }, { name: a, then: accept }] }",
    );
    assert!(
        twice[0].contains("the term `a` stands in this policy for a second time"),
        "{twice:?}"
    );
}

#[test]
fn names_that_mean_something_are_not_given_again() {
    for (text, problem) in [
        (
            "policies: { accept: [] }",
            "`accept` means something already",
        ),
        (
            "policies: { bogons: [] }",
            "`bogons` is one that Weft has ready",
        ),
        (
            "prefix_lists: { too-long: [] }",
            "`too-long` is one that Weft has ready",
        ),
        (
            "communities: { no-export: [] }",
            "`no-export` means something already",
        ),
        (
            "as_paths: { '65001': [] }",
            "`65001` could be an AS path itself: a name has a letter",
        ),
    ] {
        let found = of_policies(text);
        assert!(found.len() == 1 && found[0].contains(problem), "{found:?}");
    }
    let label = lines(&format!(
        "{ROUTER}{OVERLAY}policies: {{ p: [{{ set: {{ communities: {{ add: '64512:1:1' }} }} }}] }}\n"
    ));
    assert!(
        label[0].contains("`64512:1:1` is a label community of the overlay"),
        "{label:?}"
    );
}

/// An empty list would be about every route, where its name says of which.
#[test]
fn a_condition_has_something_in_it() {
    for key in [
        "prefixes",
        "as_path",
        "communities",
        "as_path_length",
        "origin_as",
        "neighbor_as",
        "local_pref",
        "med",
        "origin",
        "next_hop",
        "neighbors",
        "source",
        "families",
    ] {
        let problem = format!(
            "policies.p[0].match.{key}: an empty list is no condition (leave it out where any will do, or name something)"
        );
        let term = format!("{{ match: {{ {key}: [] }}, then: accept }}");
        assert_eq!(of_term(&term), [problem], "{key}");
    }
    let all = of_term("{ match: { communities: { all: [] } }, then: accept }");
    assert!(all[0].contains("an empty list is no condition"), "{all:?}");
}

/// Two that are good alone are too long together: nothing passes in silence.
#[test]
fn a_chain_of_policies_that_is_too_long_is_said() {
    let long = "{ set: { med: 1 } }, ".repeat(6000);
    let text = format!(
        "{ROUTER}policies: {{ p1: [{long}{{ then: accept }}], p2: [{long}{{ then: accept }}] }}\n\
         neighbors: [{{ address: 192.0.2.9, asn: 7, export: p1, import: [p1, p2] }}]"
    );
    let found = lines(&text);
    assert!(
        found.len() == 1 && found[0].contains("more than 10000 terms"),
        "{found:?}"
    );
}

#[test]
fn a_neighbour_names_what_is_there() {
    let problems = |import: &str| {
        let text = format!(
            "{ROUTER}policies: {{ out: [{{ set: {{ next_hop: self }}, then: accept }}] }}\n\
             neighbors: [{{ address: 192.0.2.9, asn: 7, export: out, import: {import} }}]"
        );
        match Config::parse("r.yaml", &text) {
            Ok(_) => Vec::new(),
            Err(_) => lines(&text),
        }
    };
    for fine in [
        "accept",
        "reject",
        "[]",
        "bogons",
        "[bogons, accept]",
        "[10.0.0.0/8]",
    ] {
        assert_eq!(problems(fine), [] as [String; 0], "{fine}");
    }
    for (import, problem) in [
        (
            "bogon",
            "there is no policy `bogon` (did you mean `bogons`?)",
        ),
        (
            "[hygiene, nothing]",
            "there is no policy `nothing` (define it under `policies`; there are bogons, hygiene, blackhole, graceful-shutdown, out)",
        ),
        (
            "[accept, bogons]",
            "behind `accept` nothing is left for the policies that follow (put `accept` last)",
        ),
        (
            "[bogons, 10.0.0.0/8]",
            "a list has either prefixes or policies",
        ),
        (
            "10.0.0.0",
            "found `10.0.0.0`, expected `accept`, `reject`, a policy, a list of policies, or a list of prefixes",
        ),
        (
            "out",
            "out term 1 sets the next hop `self`, which only has a meaning at export (name an address, or leave it out)",
        ),
    ] {
        let found = problems(import);
        assert!(
            found.len() == 1 && found[0].contains(problem),
            "{import}: {found:?}"
        );
    }
}

/// RFC 8212: a warning names the neighbours between which and us nothing passes, and how that is changed.
#[test]
fn neighbours_without_a_policy_are_named() {
    let warnings = |router: &str, neighbor: &str| {
        let text = format!(
            "router: {{ name: r, router_id: 192.0.2.1, asn: 1{router} }}\nneighbors: [{{ address: 192.0.2.9{neighbor} }}]"
        );
        good(&text).warnings()
    };
    let both = warnings("", ", asn: 7");
    assert!(
        both[0].starts_with("neighbour 192.0.2.9 (AS 7) has no `import` and `export`"),
        "{both:?}"
    );
    assert!(
        both[0].contains("RFC 8212") && both[0].contains("`import: accept, export: accept`"),
        "{both:?}"
    );
    let one = warnings("", ", asn: 7, export: []");
    assert!(
        one[0].contains("has no `import`, and") && one[0].contains("or `import: accept` to"),
        "{one:?}"
    );
    for (router, neighbor) in [
        (", default_policy: accept", ", asn: 7"),
        ("", ", asn: 1"),
        ("", ", asn: 7, import: accept, export: reject"),
    ] {
        assert_eq!(warnings(router, neighbor), [] as [String; 0]);
    }
}

/// Each YAML block of the documentation is a configuration, or becomes one with a router before it.
#[test]
fn examples_of_the_documentation_hold() {
    let text = include_str!("../../../../docs/policy.md");
    let blocks: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let whole = match block.contains("router:") {
            true => block.to_owned(),
            false => format!("{ROUTER}{OVERLAY}{block}"),
        };
        let config = good(&whole);
        assert_eq!(config.warnings(), [] as [String; 0], "{block}");
    }
}

#[test]
fn the_same_words_are_one_program() {
    let config = good(&format!(
        "{ROUTER}policies: {{ p: [{{ then: accept }}] }}\n\
         neighbors: [{{ address: 192.0.2.8, asn: 7, import: [bogons, p] }}, {{ address: 192.0.2.9, asn: 8, import: [bogons, p] }}]"
    ));
    let programs = config.neighbors.iter().map(|neighbor| {
        let passing = neighbor.session.import.as_ref().unwrap();
        std::sync::Arc::as_ptr(passing.policy.program().unwrap())
    });
    let programs: Vec<_> = programs.collect();
    assert_eq!(programs[0], programs[1]);
}
