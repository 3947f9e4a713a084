//! `weft show`: the state of a running router, from its API.

pub(super) mod bgp;
pub(super) mod chains;
mod overlay;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_api::Client;
use weft_api::types::{
    Chain, Endpoint, Kernel, LabelUse, Neighbor, Page, Route, Service, Status, Tenant, TenantRoute,
    Traffic,
};
use weft_bgp_wire::LargeCommunity;

use super::human;
use super::output::Output;

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
    /// Where the router's API is.
    #[arg(
        long,
        global = true,
        env = "WEFT_API",
        default_value = "http://127.0.0.1:8179",
        value_name = "URL"
    )]
    api: String,
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
        address: Option<IpAddr>,
    },
    /// BGP routes with all of their paths: the best marked `>`, kept over a restart `s`.
    Routes(RouteArguments),
    /// Tenants, or the table of one of them.
    Tenants {
        /// Its name.
        name: Option<String>,
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
        tenant: Option<String>,
    },
    /// Service chains: what happens at each step, and how many packets took it on this router.
    Chains {
        /// Only this tenant's.
        tenant: Option<String>,
    },
    /// What tunnels carried, by tenant, VNI and router at the far end.
    Traffic {
        /// Only this tenant.
        tenant: Option<String>,
    },
    /// Routers that tunnels lead to, with round-trip times and loss.
    Endpoints {
        /// Only this tenant's.
        tenant: Option<String>,
    },
    /// What the kernel holds of ours, and what it refused.
    Kernel {
        /// Most refused routes to show.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
}

#[derive(Args)]
struct RouteArguments {
    /// Only this prefix.
    prefix: Option<String>,
    /// The prefix and what it covers.
    #[arg(long, requires = "prefix", conflicts_with = "shorter")]
    longer: bool,
    /// The prefix and what covers it.
    #[arg(long, requires = "prefix")]
    shorter: bool,
    /// Only this family: ipv4-unicast or ipv6-unicast.
    #[arg(long)]
    family: Option<String>,
    /// Only paths from this neighbour.
    #[arg(long, value_name = "ADDRESS")]
    neighbor: Option<IpAddr>,
    /// Only paths with this large community.
    #[arg(long, value_name = "A:B:C")]
    large_community: Option<LargeCommunity>,
    /// Only paths with a label of this VNI.
    #[arg(long)]
    vni: Option<u32>,
    /// Most routes to show.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

impl RouteArguments {
    fn query(&self) -> Vec<(&'static str, String)> {
        let text = |value: &dyn ToString| value.to_string();
        let prefix_match = match (self.longer, self.shorter) {
            (true, _) => Some("longer".to_owned()),
            (_, true) => Some("shorter".to_owned()),
            _ => None,
        };
        [
            ("prefix", self.prefix.clone()),
            ("match", prefix_match),
            ("family", self.family.clone()),
            ("neighbor", self.neighbor.as_ref().map(|value| text(value))),
            (
                "large_community",
                self.large_community.as_ref().map(|value| text(value)),
            ),
            ("vni", self.vni.as_ref().map(|value| text(value))),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
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
    let screen = Screen::new(&arguments.router);
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
            limit,
        } => {
            let page = screen.pages::<TenantRoute>(&["tenants", &name, "routes"], &[], limit)?;
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

/// What a view is told beside its data.
#[derive(Clone, Copy)]
pub(super) struct View {
    wide: bool,
    pub(super) colours: bool,
}

impl Screen {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            client: Client::new(&target.api),
            format: target.output,
            output: Output::stdout(),
        }
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        Ok(self.client.get(path, query)?)
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
                let wide = self.format == Format::Wide;
                let colours = self.output.colours();
                view(value, View { wide, colours })
            }
        };
        self.output.write(&text)
    }

    /// As many pages as `limit` takes, as one.
    fn pages<T: DeserializeOwned>(
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
