//! A configuration of which others wrote parts: what is wrong with a part costs that part, and everything else holds.
//!
//! | wrong is | what it costs |
//! |---|---|
//! | a neighbour | that neighbour |
//! | an interface, a prefix, a route protocol, a breakout or a router of a tenant | that one |
//! | a node of a service | the node: the service is as one that is somewhere else |
//! | a service or a chain otherwise | nothing of them changes: all of the tenant's stay as they were, and a tenant that had none is left out, since its packets would go past its services |
//! | anything else of a tenant | that tenant |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Config;
use super::report::{ConfigErrors, Problem};

/// A configuration as a tree, with who told each of its neighbours and tenants.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// All of it.
    pub document: Value,
    /// What the teller calls each of the list `neighbors`, in its order.
    pub neighbors: Vec<String>,
    /// The same of `tenants`.
    pub tenants: Vec<String>,
}

/// A part that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refused {
    /// What the teller calls it.
    pub item: String,
    /// What is wrong, and what it costs.
    pub reason: String,
}

/// What goes, the last of a list first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    Neighbor(usize),
    /// Services and chains of a tenant, or all of it.
    Whole(usize, Extent),
    /// An entry of one of a tenant's lists.
    Entry(usize, String, usize),
    /// All of a key of a tenant.
    Key(usize, String),
    /// The node of a tenant's service.
    Node(usize, usize),
    /// The nodes of all services.
    Nodes,
}

impl Cut {
    /// The tenant of which a part goes that is neither all of it nor a chain.
    fn inside(&self) -> Option<usize> {
        match self {
            Self::Entry(index, ..) | Self::Key(index, _) | Self::Node(index, _) => Some(*index),
            Self::Neighbor(_) | Self::Whole(..) | Self::Nodes => None,
        }
    }
}

/// How much of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Chains,
    All,
}

/// A step of a path such as `tenants[3].interfaces[1]`: a key, and a place in its list.
fn steps(path: &str) -> Vec<(&str, Option<usize>)> {
    let steps = path.split('.').map(|step| match step.split_once('[') {
        Some((key, rest)) => (key, rest.trim_end_matches(']').parse().ok()),
        None => (step, None),
    });
    steps.collect()
}

/// What a problem costs; `None` where that is everything.
fn cut(path: &str) -> Option<Cut> {
    let steps = steps(path);
    let (first, rest) = steps.split_first()?;
    let index = match *first {
        ("neighbors", Some(index)) => return Some(Cut::Neighbor(index)),
        ("tenants", Some(index)) => index,
        // Nodes are announced with the locator, and this router announces none.
        ("overlay", None) if rest.is_empty() => return Some(Cut::Nodes),
        _ => return None,
    };
    let entry = |key: &str, at| Cut::Entry(index, key.to_owned(), at);
    Some(match rest {
        [
            (key @ ("interfaces" | "prefixes" | "redistribute" | "neighbors"), Some(at)),
            ..,
        ] => entry(key, *at),
        [
            (key @ ("interfaces" | "prefixes" | "redistribute" | "neighbors" | "breakout"), None),
            ..,
        ] => Cut::Key(index, (*key).to_owned()),
        [
            ("services", Some(at)),
            ("interface" | "node" | "outside" | "probe", _),
            ..,
        ] => Cut::Node(index, *at),
        [("services" | "chains", _), ..] => Cut::Whole(index, Extent::Chains),
        _ => Cut::Whole(index, Extent::All),
    })
}

fn words(problem: &Problem, prefix: &str) -> String {
    let path = problem.path.strip_prefix(prefix);
    let path = path.unwrap_or(&problem.path).trim_start_matches('.');
    // Lines are those of a text that nobody sees.
    let help = problem.help.as_deref().map(|help| {
        let first = help.strip_prefix("the first is on line ");
        match first.map(|rest| rest.split_once(", ")) {
            None => format!("; {help}"),
            Some(Some((_, owner))) => format!("; the first is of {owner}"),
            Some(None) => String::new(),
        }
    });
    let help = help.unwrap_or_default();
    match path {
        "" => format!("{}{help}", problem.message),
        path => format!("{path}: {}{help}", problem.message),
    }
}

fn detach(service: &mut Value) {
    if let Some(service) = service.as_object_mut() {
        for key in ["interface", "node", "outside", "probe"] {
            service.remove(key);
        }
    }
}

impl Parts {
    /// Reads it; `former` has the services and chains of tenants as they were.
    ///
    /// # Errors
    /// Where more is wrong than parts.
    pub(crate) fn read(
        mut self,
        file: &str,
        former: &Config,
    ) -> Result<(Config, Vec<Refused>), ConfigErrors> {
        let mut refused = BTreeSet::new();
        // Tenants whose services and chains are as they were.
        let mut kept = BTreeSet::new();
        loop {
            let errors = match Config::parse(file, &self.document.to_string()) {
                Ok(config) => return Ok((config, refused.into_iter().collect())),
                Err(errors) => errors,
            };
            let mut cuts: BTreeMap<Cut, &Problem> = BTreeMap::new();
            for problem in &errors.problems {
                match cut(&problem.path) {
                    Some(cut) => drop(cuts.entry(cut).or_insert(problem)),
                    None => return Err(errors),
                }
            }
            // The last first, so that places stay what they are: what is inside of tenants before tenants go.
            let before = self.document.clone();
            let mut gone = None;
            // Chains of services that could not be read may be well when those are.
            let inside: BTreeSet<usize> = cuts.keys().filter_map(Cut::inside).collect();
            for (cut, problem) in cuts.into_iter().rev() {
                match cut {
                    Cut::Whole(index, Extent::All) => gone = Some(index),
                    Cut::Whole(index, Extent::Chains)
                        if gone == Some(index) || inside.contains(&index) =>
                    {
                        continue;
                    }
                    _ => {}
                }
                refused.extend(self.apply(cut, problem, former, &mut kept));
            }
            if self.document == before {
                return Err(errors);
            }
        }
    }

    fn apply(
        &mut self,
        cut: Cut,
        problem: &Problem,
        former: &Config,
        kept: &mut BTreeSet<String>,
    ) -> Option<Refused> {
        let of_tenant = |parts: &Self, index: usize, costs: &str| {
            let reason = words(problem, &format!("tenants[{index}]"));
            Some(Refused {
                item: parts.tenants.get(index)?.clone(),
                reason: format!("{reason}{costs}"),
            })
        };
        match cut {
            Cut::Neighbor(index) => {
                remove(&mut self.document["neighbors"], index);
                (index < self.neighbors.len()).then(|| Refused {
                    item: self.neighbors.remove(index),
                    reason: words(problem, &format!("neighbors[{index}]")),
                })
            }
            Cut::Whole(index, Extent::All) => {
                let refused = of_tenant(self, index, "");
                self.remove_tenant(index);
                refused
            }
            Cut::Entry(index, key, at) => {
                remove(&mut self.document["tenants"][index][&key], at);
                of_tenant(self, index, "")
            }
            Cut::Key(index, key) => {
                if let Some(tenant) = self.document["tenants"][index].as_object_mut() {
                    tenant.remove(&key);
                }
                of_tenant(self, index, "")
            }
            Cut::Node(index, at) => {
                let service = &mut self.document["tenants"][index]["services"][at];
                let name = service["name"].as_str().unwrap_or_default();
                let costs = format!(" (the service `{name}` has no node here)");
                detach(service);
                of_tenant(self, index, &costs)
            }
            Cut::Nodes => {
                let tenants = self.document["tenants"].as_array_mut();
                for tenant in tenants.into_iter().flatten() {
                    let services = tenant["services"].as_array_mut();
                    services.into_iter().flatten().for_each(detach);
                }
                Some(Refused {
                    item: "services".into(),
                    reason: words(problem, ""),
                })
            }
            Cut::Whole(index, Extent::Chains) => self.keep_chains(index, former, kept, &of_tenant),
        }
    }

    fn remove_tenant(&mut self, index: usize) {
        remove(&mut self.document["tenants"], index);
        if index < self.tenants.len() {
            self.tenants.remove(index);
        }
    }

    /// Puts a tenant's services and chains back to what they were, or leaves the tenant out.
    fn keep_chains(
        &mut self,
        index: usize,
        former: &Config,
        kept: &mut BTreeSet<String>,
        refused: &dyn Fn(&Self, usize, &str) -> Option<Refused>,
    ) -> Option<Refused> {
        let tenant = &mut self.document["tenants"][index];
        let name = tenant["name"].as_str().unwrap_or_default().to_owned();
        let mut before = former.tenants.iter();
        let before = before.find(|one| one.name == name && tenant["vni"] == one.vni.get());
        let before = before.and_then(|one| serde_json::to_value(one).ok());
        match before.filter(|_| kept.insert(name)) {
            Some(before) => {
                for key in ["services", "chains"] {
                    match before.get(key) {
                        Some(value) => tenant[key] = value.clone(),
                        None => tenant[key] = Value::Array(Vec::new()),
                    }
                }
                refused(
                    self,
                    index,
                    " (the tenant's services and chains stay as they were)",
                )
            }
            None => {
                let costs = " (the tenant is not here until that is right: its packets would go past its services)";
                let refused = refused(self, index, costs);
                self.remove_tenant(index);
                refused
            }
        }
    }
}

fn remove(list: &mut Value, at: usize) {
    if let Some(list) = list.as_array_mut()
        && at < list.len()
    {
        list.remove(at);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({
            "router": { "name": "r1", "router_id": "192.0.2.1", "asn": 64601 },
            "overlay": { "global_administrator": 64512, "endpoint": "192.0.2.1" },
        })
    }

    fn parts(tenants: &[Value], neighbors: &[Value]) -> Parts {
        let mut document = base();
        document["tenants"] = tenants.into();
        document["neighbors"] = neighbors.into();
        let named = |kind: &str, one: &Value| format!("{kind}/{}", one["name"].as_str().unwrap());
        let neighbors = neighbors
            .iter()
            .map(|one| format!("neighbor/{}", one["description"].as_str().unwrap()));
        Parts {
            tenants: tenants.iter().map(|one| named("tenant", one)).collect(),
            neighbors: neighbors.collect(),
            document,
        }
    }

    fn nothing() -> Config {
        Config::parse("r1", &base().to_string()).unwrap()
    }

    fn names(config: &Config) -> Vec<&str> {
        let tenants = config.tenants.iter();
        tenants.map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn one_bad_entry_costs_that_entry() {
        let red = json!({
            "name": "red", "vni": 10001,
            "interfaces": ["red0", "a:b", "red1", "a name that is too long", "lo"],
            "prefixes": ["10.0.1.0/24", "10.0.1.0/24", "10.0.2.0/24"],
            "redistribute": ["connected", "everything", "static"],
            "neighbors": [{ "address": "10.0.1.2", "asn": 64601 }, { "address": "10.0.1.3", "asn": 65001 }],
            "breakout": { "interface": "a/b" },
        });
        let blue = json!({ "name": "blue", "vni": 10002, "interfaces": ["red1", "blue0"] });
        let green = json!({ "name": "green", "vni": 10001 });
        let neighbors = [
            json!({ "description": "r2", "address": "0.0.0.0", "asn": 64601 }),
            json!({ "description": "r3", "address": "192.0.2.3", "asn": 64601 }),
            json!({ "description": "r4", "address": "192.0.2.3", "asn": 64601 }),
        ];
        let parts = parts(&[red, blue, green], &neighbors);
        let (config, refused) = parts.read("told", &nothing()).unwrap();
        assert_eq!(names(&config), ["red", "blue"]);
        let red = &config.tenants[0];
        assert_eq!(red.interfaces, ["red0", "red1"]);
        assert_eq!(red.prefixes.len(), 2);
        assert_eq!(red.redistribute.len(), 2);
        assert_eq!(red.neighbors.len(), 1);
        assert_eq!(red.breakout, None);
        assert_eq!(config.tenants[1].interfaces, ["blue0"]);
        assert_eq!(config.neighbors.len(), 1);
        let items: Vec<&str> = refused.iter().map(|one| one.item.as_str()).collect();
        let count = |item: &str| items.iter().filter(|one| **one == item).count();
        assert_eq!(count("tenant/red"), 7, "{refused:#?}");
        assert_eq!(count("tenant/blue"), 1, "{refused:#?}");
        assert_eq!(count("tenant/green"), 1, "{refused:#?}");
        assert_eq!(count("neighbor/r2") + count("neighbor/r4"), 2, "{items:?}");
        let about = |text: &str| refused.iter().any(|one| one.reason.contains(text));
        assert!(
            about("redistribute[1]: found the text \"everything\""),
            "{refused:#?}"
        );
        assert!(
            about("interfaces[1]: found the text \"a:b\""),
            "{refused:#?}"
        );
    }

    #[test]
    fn a_node_that_cannot_be_is_as_one_that_is_somewhere_else() {
        let red = json!({
            "name": "red", "vni": 10001, "interfaces": ["red0"],
            "services": [
                { "name": "firewall", "label": 20001, "interface": "fw0", "node": ["0.0.0.0"] },
                { "name": "meter", "label": 20002, "interface": "m0", "node": ["169.254.1.2"], "probe": { "kind": "tcp" } },
            ],
            "chains": [{ "name": "web", "services": ["firewall", "meter"] }],
        });
        let (config, refused) = parts(&[red], &[]).read("told", &nothing()).unwrap();
        let red = &config.tenants[0];
        assert!(red.services.iter().all(|one| one.interface.is_none()));
        assert_eq!(red.chains[0].services, ["firewall", "meter"]);
        assert_eq!(red.interfaces, ["red0"]);
        assert_eq!(refused.len(), 2, "{refused:#?}");
        assert!(refused[0].reason.contains("`firewall` has no node here"));
    }

    #[test]
    fn packets_never_go_past_a_service_because_its_chain_cannot_be_read() {
        let tenant = |services: &[&str]| {
            json!({
                "name": "red", "vni": 10001, "interfaces": ["red0"],
                "services": [{ "name": "firewall", "label": 20001 }],
                "chains": [{ "name": "web", "services": services }],
            })
        };
        let (running, _) = parts(&[tenant(&["firewall"])], &[])
            .read("told", &nothing())
            .unwrap();
        // What ran goes on; what did not run is not there.
        let told = || parts(&[tenant(&["proxy"])], &[]);
        let (config, refused) = told().read("told", &running).unwrap();
        assert_eq!(config.tenants, running.tenants);
        assert!(refused[0].reason.contains("stay as they were"));
        let (config, refused) = told().read("told", &nothing()).unwrap();
        assert!(config.tenants.is_empty());
        assert!(refused[0].reason.contains("past its services"));
        // And places stay what they are while tenants go.
        let mut told = told();
        let blue = json!({ "name": "blue", "vni": 10002, "interfaces": ["blue0", "a:b"] });
        let green = json!({ "name": "green", "vni": 0 });
        let tenants = told.document["tenants"].as_array_mut().unwrap();
        tenants.extend([blue, green]);
        told.tenants
            .extend(["tenant/blue".into(), "tenant/green".into()]);
        let (config, refused) = told.read("told", &nothing()).unwrap();
        assert_eq!(names(&config), ["blue"]);
        assert_eq!(config.tenants[0].interfaces, ["blue0"]);
        let items: Vec<&str> = refused.iter().map(|one| one.item.as_str()).collect();
        assert_eq!(items, ["tenant/blue", "tenant/green", "tenant/red"]);
    }

    #[test]
    fn what_is_wrong_with_the_router_itself_is_wrong_with_everything() {
        let mut parts = parts(&[], &[]);
        parts.document["router"]["asn"] = 0.into();
        assert!(parts.read("told", &nothing()).is_err());
    }
}
