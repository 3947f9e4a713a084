//! `weft policy`: what policies of a configuration make of routes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_api::types as api;
use weft_bgp::policy::{Change, NextHopEdit, Program, Route, Source, well_known};
use weft_bgp_wire::{
    AnyCommunity, Asn, AttributesBuilder, AttributesView, Family, LargeCommunity, Origin, code,
    flags,
};

use super::show::{Screen, Target};
use super::table::{Cell, Table, Tone, View};
use crate::config::{Config, Library};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run routes through policies of a configuration, without touching anything: which term decides, and what is changed.
    Test(Box<Test>),
    /// Name the policies and lists that Weft has ready.
    List {
        #[command(flatten)]
        router: Target,
    },
}

#[derive(Args)]
pub(super) struct Test {
    /// The configuration that has the policies.
    file: PathBuf,
    /// Policies, one behind the other, as at `import` and `export`.
    #[arg(required = true)]
    policies: Vec<String>,
    /// Which way the routes go.
    #[arg(long, value_enum, default_value_t = Way::Import)]
    at: Way,
    /// A route, by its prefix; may be given several times. The options that follow say what else it has.
    #[arg(long)]
    prefix: Vec<IpNet>,
    #[command(flatten)]
    attributes: Attributes,
    /// A file with a list of routes, YAML or JSON: `prefix` and, as with the options here, `as_path`, `origin`, `next_hop`, `med`,
    /// `local_pref`, `communities`, `neighbor`, `source`; with `expect`, `accept` or `reject`, another outcome is an error.
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// The routes that the running router has.
    #[arg(long)]
    live: bool,
    /// Most routes of the running router.
    #[arg(long, default_value_t = 1000, requires = "live")]
    limit: usize,
    #[command(flatten)]
    router: Target,
}

/// What a route of the command line has beside its prefix.
#[derive(Args)]
struct Attributes {
    /// AS_PATH: numbers with spaces between, sets in braces.
    #[arg(long, default_value = "", requires = "prefix")]
    as_path: String,
    /// ORIGIN: igp, egp or incomplete.
    #[arg(long, default_value = "igp", requires = "prefix")]
    origin: String,
    /// The next hop.
    #[arg(long, requires = "prefix")]
    next_hop: Option<IpAddr>,
    /// MULTI_EXIT_DISC.
    #[arg(long, requires = "prefix")]
    med: Option<u32>,
    /// LOCAL_PREF.
    #[arg(long, requires = "prefix")]
    local_pref: Option<u32>,
    /// A community of any sort; may be given several times.
    #[arg(long = "community", requires = "prefix")]
    communities: Vec<String>,
    /// The neighbour that it is from.
    #[arg(long, requires = "prefix")]
    neighbor: Option<IpAddr>,
    /// Where it is from: `ebgp` by default, `local` at export where there is no neighbour.
    #[arg(long, value_enum, requires = "prefix")]
    source: Option<From>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Import,
    Export,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Local,
    Ebgp,
    Ibgp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Accept,
    Reject,
}

/// A route to try.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    prefix: IpNet,
    #[serde(default)]
    as_path: String,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    next_hop: Option<IpAddr>,
    #[serde(default)]
    med: Option<u32>,
    #[serde(default)]
    local_pref: Option<u32>,
    #[serde(default)]
    communities: Vec<String>,
    #[serde(default)]
    neighbor: Option<IpAddr>,
    #[serde(default)]
    source: Option<From>,
    #[serde(default)]
    expect: Option<Expected>,
}

/// What became of a route.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Outcome {
    prefix: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbor: Option<IpAddr>,
    accepted: bool,
    /// The term that decided; absent where none did, so that the end rejected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    /// All terms that it was in.
    terms: Vec<String>,
    /// What was changed.
    changes: Vec<String>,
    /// It was to be otherwise.
    unexpected: bool,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Test(arguments) => test(&arguments),
        Command::List { router } => {
            Screen::new(&router)?.print(&ready()[..], list)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A policy or list that Weft has ready.
#[derive(Serialize)]
struct Ready {
    kind: &'static str,
    name: String,
    about: &'static str,
}

fn ready() -> Vec<Ready> {
    let policies = well_known::POLICIES.iter().map(|one| Ready {
        kind: "policy",
        name: one.policy.name.to_string(),
        about: one.about,
    });
    let lists = well_known::PREFIX_LISTS.iter().map(|one| Ready {
        kind: "prefix list",
        name: one.name.to_owned(),
        about: one.about,
    });
    let path = Ready {
        kind: "AS path",
        name: "bogons".to_owned(),
        about: "an AS number that the Internet does not have stands in it",
    };
    policies.chain(lists).chain([path]).collect()
}

fn list(all: &[Ready], view: View) -> String {
    let mut table = Table::new(&["KIND", "NAME", "WHAT IT IS"]);
    for one in all {
        table.row(vec![
            one.kind.into(),
            Cell::new(one.name.as_str(), Tone::Strong),
            one.about.into(),
        ]);
    }
    table.render(view)
}

fn test(arguments: &Test) -> anyhow::Result<ExitCode> {
    let config = Config::read(&arguments.file)?;
    let program = program(&config.library, &arguments.policies, &arguments.file)?;
    let screen = Screen::new(&arguments.router)?;
    let routes = given(arguments, &screen)?;
    if routes.is_empty() {
        bail!("no route to try: give `--prefix`, `--routes FILE` or `--live`");
    }
    let outcomes = routes
        .iter()
        .map(|route| outcome(&program, route, arguments.at, config.router.asn));
    let outcomes: Vec<Outcome> = outcomes.collect::<anyhow::Result<_>>()?;
    screen.print(&outcomes[..], table)?;
    Ok(match outcomes.iter().any(|outcome| outcome.unexpected) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn program(library: &Library, names: &[String], file: &Path) -> anyhow::Result<Program> {
    library.program(names).map_err(|error| {
        let all: Vec<&str> = library.names().collect();
        anyhow!("{}: {error}; there are {}", file.display(), all.join(", "))
    })
}

/// All routes to try.
fn given(arguments: &Test, screen: &Screen) -> anyhow::Result<Vec<Given>> {
    let of_line = &arguments.attributes;
    let mut routes: Vec<Given> = arguments
        .prefix
        .iter()
        .map(|prefix| Given {
            prefix: *prefix,
            as_path: of_line.as_path.clone(),
            origin: Some(of_line.origin.clone()),
            next_hop: of_line.next_hop,
            med: of_line.med,
            local_pref: of_line.local_pref,
            communities: of_line.communities.clone(),
            neighbor: of_line.neighbor,
            source: of_line.source,
            expect: None,
        })
        .collect();
    if let Some(file) = &arguments.routes {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let listed: Vec<Given> = serde_yaml::from_str(&text)
            .with_context(|| format!("{}: expected a list of routes", file.display()))?;
        routes.extend(listed);
    }
    if arguments.live {
        let neighbors: Vec<api::Neighbor> = screen.get(&["neighbors"], &[])?;
        let kinds: BTreeMap<IpAddr, api::NeighborKind> = neighbors
            .iter()
            .filter(|neighbor| neighbor.tenant.is_none())
            .map(|neighbor| (neighbor.address, neighbor.kind))
            .collect();
        let page = screen.pages::<api::Route>(&["routes"], &[], arguments.limit)?;
        for route in page.items {
            let paths = route.paths.iter();
            routes.extend(paths.map(|path| live(route.prefix, path, &kinds)));
        }
    }
    Ok(routes)
}

/// A path of the running router.
fn live(prefix: IpNet, path: &api::Path, kinds: &BTreeMap<IpAddr, api::NeighborKind>) -> Given {
    let sorts = [
        &path.communities,
        &path.extended_communities,
        &path.large_communities,
    ];
    let kind = path.neighbor.and_then(|neighbor| kinds.get(&neighbor));
    Given {
        prefix,
        as_path: path.as_path.clone(),
        origin: Some(path.origin.clone()),
        next_hop: path.next_hop,
        med: path.med,
        local_pref: path.local_pref,
        communities: sorts.into_iter().flatten().cloned().collect(),
        neighbor: path.neighbor,
        source: Some(match (path.neighbor, kind) {
            (None, _) => From::Local,
            (_, Some(api::NeighborKind::Ebgp)) => From::Ebgp,
            (_, Some(_)) => From::Ibgp,
            (Some(_), None) => From::Ebgp,
        }),
        expect: None,
    }
}

/// Its attributes, canonical.
fn attributes(given: &Given) -> anyhow::Result<AttributesBuilder> {
    let mut builder = AttributesBuilder::new();
    builder.set_origin(match given.origin.as_deref() {
        None | Some("igp") => Origin::Igp,
        Some("egp") => Origin::Egp,
        Some("incomplete") => Origin::Incomplete,
        Some(other) => bail!("`{other}` is no origin: igp, egp or incomplete"),
    });
    builder.set(flags::TRANSITIVE, code::AS_PATH, &as_path(&given.as_path)?);
    if let Some(med) = given.med {
        builder.set_med(med);
    }
    if let Some(local_pref) = given.local_pref {
        builder.set_local_pref(local_pref);
    }
    let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for text in &given.communities {
        match text.parse::<AnyCommunity>()? {
            AnyCommunity::Standard(one) => standard.push(one),
            AnyCommunity::Extended(one) => extended.push(one),
            AnyCommunity::Large(one) => large.push(one),
        }
    }
    large.sort_unstable();
    builder.set_communities(standard);
    builder.set_extended_communities(extended);
    builder.set_large_communities(large);
    Ok(builder)
}

/// The octets of a path as it is shown: `64601 {1 2} (65001)`.
fn as_path(text: &str) -> anyhow::Result<Vec<u8>> {
    const SEQUENCE: u8 = 2;
    let mut segments: Vec<(u8, Vec<u32>)> = Vec::new();
    let mut inside = None;
    let spaced = text
        .chars()
        .flat_map(|character| match character {
            '{' | '}' | '(' | ')' | '[' | ']' => vec![' ', character, ' '],
            ',' => vec![' '],
            other => vec![other],
        })
        .collect::<String>();
    for word in spaced.split_whitespace() {
        let kind = match word {
            "{" => Some(1),
            "(" => Some(3),
            "[" => Some(4),
            _ => None,
        };
        if let Some(kind) = kind {
            segments.push((kind, Vec::new()));
            inside = Some(kind);
        } else if matches!(word, "}" | ")" | "]") {
            inside = None;
        } else {
            let asn = word.parse().map_err(|_| {
                anyhow!("`{word}` in `{text}` is no AS number: write numbers with spaces between, sets in braces")
            })?;
            let kind = inside.unwrap_or(SEQUENCE);
            match segments.last_mut() {
                Some((last, asns)) if *last == kind && asns.len() < 255 => asns.push(asn),
                _ => segments.push((kind, vec![asn])),
            }
        }
    }
    let mut octets = Vec::new();
    for (kind, asns) in segments {
        octets.extend_from_slice(&[kind, asns.len() as u8]);
        octets.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    Ok(octets)
}

fn outcome(program: &Program, given: &Given, way: Way, own: Asn) -> anyhow::Result<Outcome> {
    let builder = attributes(given).with_context(|| format!("the route {}", given.prefix))?;
    let family = match given.prefix {
        IpNet::V4(_) => Family::Ipv4Unicast,
        IpNet::V6(_) => Family::Ipv6Unicast,
    };
    let unspecified: IpAddr = match given.prefix {
        IpNet::V4(_) => [0; 4].into(),
        IpNet::V6(_) => [0; 16].into(),
    };
    let before = given.next_hop.unwrap_or(unspecified);
    let usual = match (way, given.neighbor) {
        (Way::Export, None) => From::Local,
        _ => From::Ebgp,
    };
    let route = Route {
        attributes: builder.view(),
        next_hop: before,
        family,
        source: match given.source.unwrap_or(usual) {
            From::Local => Source::Local,
            From::Ebgp => Source::Ebgp,
            From::Ibgp => Source::Ibgp,
        },
        neighbor: given.neighbor,
        prepends: match way {
            Way::Export => own,
            Way::Import => builder.view().as_path().neighbor_as().unwrap_or(own),
        },
    };
    let (accepted, terms) = program.run(&route, &given.prefix);
    let mut edit = builder.clone();
    let change = program.apply(&terms, route.prepends, family, &mut edit);
    let names: Vec<String> = terms
        .iter()
        .map(|at| program.term(*at).to_string())
        .collect();
    let decides = terms.last().is_some_and(|at| program.decides(*at));
    Ok(Outcome {
        prefix: given.prefix,
        neighbor: given.neighbor,
        accepted,
        decided_by: names.last().filter(|_| decides).cloned(),
        terms: names,
        changes: changes(builder.view(), edit.view(), before, change),
        unexpected: given
            .expect
            .is_some_and(|expected| (expected == Expected::Accept) != accepted),
    })
}

/// What was changed, in words.
fn changes(
    before: AttributesView<'_>,
    after: AttributesView<'_>,
    next_hop: IpAddr,
    change: Change,
) -> Vec<String> {
    fn differs<T: PartialEq>(
        name: &str,
        pair: [T; 2],
        show: impl Fn(&T) -> String,
    ) -> Option<String> {
        let [before, after] = &pair;
        (before != after).then(|| format!("{name} {} -> {}", show(before), show(after)))
    }
    fn or_none<T: Display>(value: &Option<T>) -> String {
        value
            .as_ref()
            .map_or_else(|| "none".to_owned(), T::to_string)
    }
    let both = [before, after];
    let mut changes: Vec<String> = [
        differs("local_pref", both.map(|view| view.local_pref()), or_none),
        differs("med", both.map(|view| view.med()), or_none),
        differs("origin", both.map(|view| view.origin()), Origin::to_string),
        differs(
            "as_path",
            both.map(|view| view.as_path().to_string()),
            String::clone,
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    match change.next_hop {
        Some(NextHopEdit::Own) => changes.push("next_hop self".to_owned()),
        Some(NextHopEdit::Unchanged) => changes.push("next_hop unchanged".to_owned()),
        Some(NextHopEdit::Address(address)) => {
            changes.extend(differs("next_hop", [next_hop, address], IpAddr::to_string));
        }
        None => {}
    }
    let [had, has] = both.map(|view| -> Vec<String> {
        let standard = view.communities().map(|one| one.to_string());
        let extended = view.extended_communities().map(|one| one.to_string());
        let large = view.large_communities();
        let large = large.map(|one: LargeCommunity| one.to_string());
        standard.chain(extended).chain(large).collect()
    });
    let gone = had.iter().filter(|one| !has.contains(one));
    changes.extend(gone.map(|one| format!("-{one}")));
    let come = has.iter().filter(|one| !had.contains(one));
    changes.extend(come.map(|one| format!("+{one}")));
    changes
}

fn table(outcomes: &[Outcome], view: View) -> String {
    let sourced = outcomes.iter().any(|outcome| outcome.neighbor.is_some());
    let mut columns = vec!["PREFIX"];
    columns.extend(sourced.then_some("NEIGHBOR"));
    columns.extend(["RESULT", "BY", "CHANGES"]);
    if view.wide {
        columns.push("TERMS");
    }
    let mut table = Table::new(&columns);
    for outcome in outcomes {
        let mut row = vec![Cell::new(outcome.prefix.to_string(), Tone::Strong)];
        let neighbor = outcome.neighbor.map(|neighbor| neighbor.to_string());
        row.extend(sourced.then(|| Cell::from(neighbor.unwrap_or_default())));
        let (word, tone) = match outcome.accepted {
            true => ("accept", Tone::Good),
            false => ("reject", Tone::Warning),
        };
        row.push(match outcome.unexpected {
            true => Cell::new(format!("{word} (unexpected)"), Tone::Bad),
            false => Cell::new(word, tone),
        });
        let by = outcome.decided_by.as_deref().unwrap_or("the end");
        row.push(by.into());
        // Of what is rejected nobody hears what was changed.
        let changes = match outcome.accepted {
            true => outcome.changes.join(", "),
            false => String::new(),
        };
        row.push(changes.into());
        if view.wide {
            row.push(outcome.terms.join(", ").into());
        }
        table.row(row);
    }
    table.render(view)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use super::*;

    const TEXT: &str = "\
router: { name: r, router_id: 192.0.2.1, asn: 64601 }
communities: { customer: ['65000:1'] }
policies:
  guard:
    - call: hygiene
    - name: customers
      match: { communities: customer }
      set: { local_pref: 200, prepend: 2, communities: { remove: customer, add: ['65000:2', '1:2:3'] } }
    - { match: { as_path: '_3356_' }, set: { next_hop: 192.0.2.9 }, then: accept }
";

    fn tried(given: &str, way: Way) -> Outcome {
        let config = Config::parse("r.yaml", TEXT).unwrap();
        let names = ["guard".to_owned()];
        let program = program(&config.library, &names, Path::new("r.yaml")).unwrap();
        let given: Given = serde_yaml::from_str(given).unwrap();
        outcome(&program, &given, way, config.router.asn).unwrap()
    }

    #[test]
    fn the_term_that_decides_is_named_with_what_was_changed() {
        let good = tried(
            "{ prefix: 1.1.1.0/24, as_path: '3356 {7 8}', communities: ['65000:1', no-export] }",
            Way::Import,
        );
        assert!(good.accepted);
        assert_eq!(good.decided_by.as_deref(), Some("guard term 3"));
        assert_eq!(
            good.changes,
            [
                "local_pref none -> 200",
                "as_path 3356 {7 8} -> 3356 3356 3356 {7 8}",
                "next_hop 0.0.0.0 -> 192.0.2.9",
                "-65000:1",
                "+65000:2",
                "+1:2:3"
            ]
        );
        let own = tried(
            "{ prefix: 1.1.1.0/24, as_path: 3356, communities: ['65000:1'] }",
            Way::Export,
        );
        assert_eq!(own.changes[1], "as_path 3356 -> 64601 64601 3356");
        let private = tried(
            "{ prefix: 10.0.0.0/24, as_path: 3356, expect: accept }",
            Way::Import,
        );
        assert_eq!(private.decided_by.as_deref(), Some("bogons term prefixes"));
        assert!(!private.accepted && private.unexpected);
        let end = tried(
            "{ prefix: 1.1.1.0/24, as_path: 3357, expect: reject }",
            Way::Import,
        );
        assert_eq!((end.decided_by, end.unexpected), (None, false));
    }

    #[test]
    fn paths_are_read_as_they_are_shown() {
        for text in ["", "1", "1 2 3", "1 {2 3} 4", "(65001 65002) 7", "[1 2] 3"] {
            let mut builder = AttributesBuilder::new();
            builder.set(flags::TRANSITIVE, code::AS_PATH, &as_path(text).unwrap());
            assert_eq!(builder.view().as_path().to_string(), text);
        }
        assert!(as_path("1 x").unwrap_err().to_string().contains("`x`"));
    }

    #[test]
    fn outcomes_stand_in_a_table() {
        let outcomes = [
            tried("{ prefix: 1.1.1.0/24, as_path: 3356 }", Way::Import),
            tried("{ prefix: 10.0.0.0/24, expect: accept }", Way::Import),
        ];
        let view = View {
            wide: false,
            colours: false,
            width: None,
        };
        assert_eq!(
            table(&outcomes, view),
            "\
PREFIX       RESULT               BY                    CHANGES
1.1.1.0/24   accept               guard term 3          next_hop 0.0.0.0 -> 192.0.2.9
10.0.0.0/24  reject (unexpected)  bogons term prefixes
"
        );
    }
}
