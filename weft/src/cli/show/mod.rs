//! `weft show`: the state of a running router, from its API.

pub(super) mod bgp;
pub(super) mod chains;
pub(super) mod forwarding;
pub(super) mod overlay;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_api::Client;
use weft_api::types::{
    Chain, Endpoint, Kernel, LabelUse, Neighbor, Page, PrefixMatch, Route, Service, Status, Tenant,
    TenantRoute, Traffic,
};
use weft_bgp_wire::{CommunityPattern, LargeCommunity, LargeCommunityPattern};

use super::complete;
use super::human;
use super::output::Output;
use super::reach::Reach;
use super::table::View;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    router: Target,
    #[command(subcommand)]
    what: What,
}

/// Which router is asked, and how its answer is printed.
#[derive(Args)]
pub(super) struct Target {
    #[command(flatten)]
    reach: Reach,
    /// How to print.
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns.
    Table,
    /// More columns.
    Wide,
    /// As the API answers.
    Json,
}

#[derive(Subcommand)]
enum What {
    /// The router as a whole.
    Status,
    /// BGP neighbours, or one of them in detail.
    Neighbors {
        /// Its address.
        #[arg(add = ArgValueCandidates::new(complete::neighbors))]
        address: Option<IpAddr>,
    },
    /// BGP routes with all of their paths: the best marked `>`, kept over a restart `s`.
    Routes(RouteArguments),
    /// Tenants, or the table of one of them.
    Tenants {
        /// Its name.
        #[arg(add = ArgValueCandidates::new(complete::tenants))]
        name: Option<String>,
        #[command(flatten)]
        prefix: Selection,
        /// Most routes to show.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Labels in use; or label communities, decoded field by field without asking a router.
    Labels {
        /// Label communities, such as `64512:10001:3221225995`.
        communities: Vec<LargeCommunity>,
    },
    /// Services: where their nodes are, and how they do.
    Services {
        /// Only this tenant's.
        #[arg(add = ArgValueCandidates::new(complete::tenants))]
        tenant: Option<String>,
    },
    /// Service chains: what happens at each step, and how many packets took it on this router.
    Chains {
        /// Only this tenant's.
        #[arg(add = ArgValueCandidates::new(complete::tenants))]
        tenant: Option<String>,
    },
    /// What tunnels carried, by tenant, VNI and router at the far end.
    Traffic {
        /// Only this tenant.
        #[arg(add = ArgValueCandidates::new(complete::tenants))]
        tenant: Option<String>,
    },
    /// Routers that tunnels lead to, with round-trip times and loss.
    Endpoints {
        /// Only this tenant's.
        #[arg(add = ArgValueCandidates::new(complete::tenants))]
        tenant: Option<String>,
    },
    /// What the kernel holds of ours, and what it refused.
    Kernel {
        /// Most refused routes to show.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
}

/// Which prefixes are shown.
#[derive(Args)]
struct Selection {
    /// Only this prefix; of an address, the most specific prefix that covers it.
    prefix: Option<String>,
    /// The prefix and its more specifics.
    #[arg(long, requires = "prefix", group = "match")]
    longer: bool,
    /// The prefix and what covers it.
    #[arg(long, requires = "prefix", group = "match")]
    shorter: bool,
    /// The most specific prefix that covers it: what a packet there would take.
    #[arg(long, requires = "prefix", group = "match")]
    longest: bool,
    /// That prefix alone, of an address the /32 or /128.
    #[arg(long, requires = "prefix", group = "match")]
    exact: bool,
}

impl Selection {
    fn query(&self) -> Vec<(&'static str, String)> {
        let words = [
            (self.longer, PrefixMatch::Longer),
            (self.shorter, PrefixMatch::Shorter),
            (self.longest, PrefixMatch::Longest),
            (self.exact, PrefixMatch::Exact),
        ];
        let prefix = self.prefix.iter().map(|text| ("prefix", text.clone()));
        let how = words.into_iter().filter(|(given, _)| *given);
        prefix
            .chain(how.map(|(_, word)| ("match", word.to_string())))
            .collect()
    }
}

#[derive(Args)]
struct RouteArguments {
    #[command(flatten)]
    prefix: Selection,
    /// Only this address family.
    #[arg(long, value_parser = ["ipv4-unicast", "ipv6-unicast"])]
    family: Option<String>,
    /// Only paths from this neighbour.
    #[arg(long, value_name = "ADDRESS", add = ArgValueCandidates::new(complete::neighbors))]
    neighbor: Option<IpAddr>,
    /// Only paths with this community: `65000:1`, `65000:100-199`, `65000:*`, `no-export`.
    #[arg(long, value_name = "A:B")]
    community: Option<CommunityPattern>,
    /// Only paths with this large community: `64512:10001:7`, `64512:10001-10099:*`.
    #[arg(long, value_name = "A:B:C")]
    large_community: Option<LargeCommunityPattern>,
    /// Only paths with a label of this VNI.
    #[arg(long)]
    vni: Option<u32>,
    /// Most routes to show.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

impl RouteArguments {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = self.prefix.query();
        let conditions = [
            ("family", self.family.clone()),
            ("neighbor", self.neighbor.map(|it| it.to_string())),
            ("community", self.community.map(|it| it.to_string())),
            (
                "large_community",
                self.large_community.map(|it| it.to_string()),
            ),
            ("vni", self.vni.map(|it| it.to_string())),
        ];
        query.extend(
            conditions
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        query
    }
}

/// Largest page that the API gives.
const PAGE: usize = 1000;

pub(super) struct Screen {
    client: Client,
    format: Format,
    output: Output,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let screen = Screen::new(&arguments.router)?;
    match arguments.what {
        What::Status => screen.show::<Status>(&["status"], bgp::status),
        What::Neighbors { address: None } => {
            screen.show::<Vec<Neighbor>>(&["neighbors"], bgp::neighbors)
        }
        What::Neighbors {
            address: Some(address),
        } => screen.show::<Neighbor>(&["neighbors", &address.to_string()], bgp::neighbor),
        What::Routes(arguments) => {
            let query = arguments.query();
            let page = screen.pages::<Route>(&["routes"], &query, arguments.limit)?;
            screen.print(&page, bgp::routes)
        }
        What::Tenants { name: None, .. } => {
            screen.show::<Vec<Tenant>>(&["tenants"], overlay::tenants)
        }
        What::Tenants {
            name: Some(name),
            prefix,
            limit,
        } => {
            let path = ["tenants", &name, "routes"];
            let page = screen.pages::<TenantRoute>(&path, &prefix.query(), limit)?;
            screen.print(&page, overlay::tenant_routes)
        }
        What::Labels { communities } if communities.is_empty() => {
            screen.show::<Vec<LabelUse>>(&["labels"], overlay::labels)
        }
        What::Labels { communities } => {
            let explained: Vec<_> = communities
                .into_iter()
                .map(weft_overlay::label::explain)
                .collect();
            screen.print(&explained[..], overlay::explanations)
        }
        What::Services { tenant } => {
            let query: Vec<_> = tenant.map(|name| ("tenant", name)).into_iter().collect();
            let services: Vec<Service> = screen.get(&["services"], &query)?;
            screen.print(&services[..], chains::services)
        }
        What::Chains { tenant } => {
            let query: Vec<_> = tenant.map(|name| ("tenant", name)).into_iter().collect();
            let chains: Vec<Chain> = screen.get(&["chains"], &query)?;
            screen.print(&chains[..], chains::chains)
        }
        What::Traffic { tenant } => {
            let query: Vec<_> = tenant.map(|name| ("tenant", name)).into_iter().collect();
            let traffic: Vec<Traffic> = screen.get(&["traffic"], &query)?;
            screen.print(&traffic[..], overlay::traffic)
        }
        What::Endpoints { tenant } => {
            let query: Vec<_> = tenant.map(|name| ("tenant", name)).into_iter().collect();
            let endpoints: Vec<Endpoint> = screen.get(&["endpoints"], &query)?;
            screen.print(&endpoints[..], overlay::endpoints)
        }
        What::Kernel { limit } => screen.kernel(limit),
    }
}

impl Screen {
    pub(super) fn new(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            client: target.reach.client(None)?,
            format: target.output,
            output: Output::stdout(),
        })
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        Ok(self.client.get(path, query)?)
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        Ok(self.client.post(path, query)?)
    }

    fn show<T: DeserializeOwned + Serialize>(
        &self,
        path: &[&str],
        view: fn(&T, View) -> String,
    ) -> anyhow::Result<()> {
        self.print(&self.client.get::<T>(path, &[])?, view)
    }

    pub(super) fn print<T: Serialize + ?Sized>(
        &self,
        value: &T,
        view: fn(&T, View) -> String,
    ) -> anyhow::Result<()> {
        let text = match self.format {
            Format::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
            Format::Table | Format::Wide => {
                view(value, self.output.view(self.format == Format::Wide))
            }
        };
        self.output.write(&text)
    }

    /// As many pages as `limit` takes, as one.
    pub(super) fn pages<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
        limit: usize,
    ) -> anyhow::Result<Page<T>> {
        collect(limit, |cursor, size| {
            let query = page_query(query, cursor, size);
            Ok(self.client.get::<Page<T>>(path, &query)?)
        })
    }

    fn kernel(&self, limit: usize) -> anyhow::Result<()> {
        let mut first: Option<Kernel> = None;
        let refused = collect(limit, |cursor, size| {
            let query = page_query(&[], cursor, size);
            let kernel: Kernel = self.client.get(&["kernel"], &query)?;
            let page = kernel.refused.clone();
            first.get_or_insert(kernel);
            Ok(page)
        })?;
        let mut kernel = first.context("the router answers with no page")?;
        kernel.refused = refused;
        self.print(&kernel, overlay::kernel)
    }
}

fn page_query<'q>(
    query: &[(&'q str, String)],
    cursor: Option<String>,
    size: usize,
) -> Vec<(&'q str, String)> {
    let mut query = query.to_vec();
    query.push(("limit", size.to_string()));
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    query
}

/// Fetches pages until there are `limit` items, or no more.
fn collect<T>(
    limit: usize,
    mut fetch: impl FnMut(Option<String>, usize) -> anyhow::Result<Page<T>>,
) -> anyhow::Result<Page<T>> {
    if limit == 0 {
        return Err(anyhow!("--limit is at least 1"));
    }
    let mut page = fetch(None, limit.min(PAGE))?;
    while page.items.len() < limit {
        let Some(cursor) = page.next_cursor.take() else {
            break;
        };
        let next = fetch(Some(cursor), (limit - page.items.len()).min(PAGE))?;
        if next.items.is_empty() {
            break;
        }
        page.items.extend(next.items);
        page.next_cursor = next.next_cursor;
    }
    Ok(page)
}

/// Says that there is more than was shown.
fn rest<T>(page: &Page<T>, what: &str) -> String {
    let shown = page.items.len() as u64;
    match page.next_cursor.is_some() {
        true => format!(
            "{} of {} {what}; --limit shows more\n",
            human::count(shown),
            human::count(page.total)
        ),
        false => String::new(),
    }
}
