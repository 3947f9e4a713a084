//! Groups of neighbours: what several have in common, and prefixes that further ones may connect from.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::defaults;
use super::neighbor::{self, Neighbor};
use super::reader::{Cursor, Fields};
use super::session::{Known, Whose};
use super::values::{name, number_of, prefixes, unique};

/// Keys of a group that are no neighbour's.
const OWN_KEYS: [&str; 3] = ["name", "listen", "limit"];

/// Neighbours that have something in common. A group has any key of a neighbour but `address` and `group`; a neighbour that names the group
/// has from it what it does not say itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Group {
    /// Its name, for `group` of neighbours.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub name: String,
    /// Dynamic neighbours: who connects from these prefixes is a neighbour of the group for as long as there is a session, without standing in
    /// the file. Of several groups that of the longest prefix counts. Needs `asn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<super::serial::Prefix>")]
    pub listen: Vec<IpNet>,
    /// Most dynamic neighbours of the group at a time, 100 where nothing is said; further ones are refused. `None` where nobody is listened
    /// for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub limit: Option<u32>,
    /// What its neighbours have, as it is written.
    #[serde(flatten)]
    #[schemars(skip)]
    pub written: Map<String, Value>,
    /// A dynamic neighbour, without its address; `None` where nobody is listened for.
    #[serde(skip)]
    pub template: Option<Box<Neighbor>>,
}

/// Groups by name, as they stand in the file.
pub(super) type Written<'a> = BTreeMap<String, Cursor<'a>>;

/// Reads all groups. What is wrong with one is reported once, however many neighbours have it.
pub(super) fn read_all<'a>(
    at: &Cursor<'a>,
    known: Known<'_>,
    has_overlay: bool,
) -> Option<(Vec<Group>, Written<'a>)> {
    let groups = at.list("a list of groups", |at| read(&at, known, has_overlay))?;
    let names = groups.iter().map(|at| (at.value.name.as_str(), &at.at));
    unique(names, |name| {
        format!("the group `{name}` stands here for a second time")
    });
    let listening = groups.iter().flat_map(|at| {
        let prefixes = at.value.listen.iter();
        prefixes.map(|prefix| (*prefix, &at.at))
    });
    unique(listening, |prefix| {
        format!("another group listens for neighbours from {prefix}")
    });
    let written = groups
        .iter()
        .map(|at| (at.value.name.clone(), at.at.clone()))
        .collect();
    Some((groups.into_iter().map(|at| at.value).collect(), written))
}

fn read<'a>(at: &Cursor<'a>, known: Known<'_>, has_overlay: bool) -> Option<Group> {
    let mut fields = at.fields("a mapping with `name` and what the neighbours have in common")?;
    let group_name = fields.required("name", "what neighbours name it by", |at| name(&at));
    let listen = fields.optional("listen", |at| {
        if at.is_empty_list() {
            return at.expected("prefixes that neighbours connect from");
        }
        prefixes(&at)
    });
    let limit = fields.optional("limit", |at| {
        if listen.is_none() {
            at.problem(
                "`limit` is for neighbours that connect by themselves, and this group listens for none",
                Some("add `listen: [PREFIX]`, or remove it".to_owned()),
            );
        }
        number_of(&at, "a number of neighbours", 1, 10_000)
    });
    let listens = listen.is_some();
    let mut written = at.written();
    written.retain(|key, _| !OWN_KEYS.contains(&key.as_str()));
    let template =
        neighbor::read_fields((at, fields), known, has_overlay, Whose::Group { listens });
    let template = template.filter(|_| listens).map(|(mut template, _)| {
        template.group = group_name.as_deref().map(Arc::from);
        template.session.passive = true;
        Box::new(template)
    });
    Some(Group {
        name: group_name?,
        listen: listen.unwrap_or_default(),
        limit: listens.then(|| limit.unwrap_or_else(defaults::group_limit)),
        written,
        template,
    })
}

/// The group that a neighbour names; what the neighbour does not say is the group's.
pub(super) fn inherit<'a>(fields: &mut Fields<'a>, groups: &Written<'a>) -> Option<Arc<str>> {
    let (name, group) = fields.optional("group", |at| named(&at, groups))?;
    fields.inherit(&group);
    Some(name)
}

/// A group that there is, and where it stands.
pub(super) fn named<'a>(at: &Cursor<'_>, groups: &Written<'a>) -> Option<(Arc<str>, Cursor<'a>)> {
    let named = at.scalar().unwrap_or_default();
    let Some(group) = groups.get(named) else {
        let names: Vec<&str> = groups.keys().map(String::as_str).collect();
        let message = match names.is_empty() {
            true => format!("found `{named}`, and there are no `groups`"),
            false => format!(
                "found `{named}`, expected the name of a group: {}",
                names.join(", ")
            ),
        };
        at.problem(message, super::reader::did_you_mean(named, &names));
        return None;
    };
    Some((Arc::from(named), group.clone()))
}
