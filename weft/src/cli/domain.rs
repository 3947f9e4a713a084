//! `weft domain`: other domains, and what is shared with them.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use clap_complete::engine::ArgValueCandidates;
use serde_json::{Value, json};

use super::complete;
use super::controller::Access;
use super::human;
use super::output::Output;
use super::table::{Cell, Table, Tone, View};

#[derive(Subcommand)]
pub(super) enum DomainCommand {
    /// Print what another domain's operator trusts this one by. Nothing of it is secret.
    Introduction {
        #[command(flatten)]
        access: Access,
    },
    /// Trust another domain by its introduction. When its operator does the same, both tell each other what is public.
    Add {
        #[command(flatten)]
        access: Access,
        /// What `weft domain introduction` prints there: weft://DOMAIN@HOST:PORT/FINGERPRINT.
        introduction: String,
        /// One of our edges and one of theirs that speak with each other, OURS=THEIRS; may be repeated. Every one with every one
        /// without it.
        #[arg(long = "pair", value_parser = pair)]
        pairs: Vec<(String, String)>,
        /// Hops between the edges, 1 where they are on one link.
        #[arg(long, default_value_t = 1)]
        ttl: u8,
    },
    /// List other domains: what is held of them, whether it is stale, and who asks to be trusted.
    List {
        #[command(flatten)]
        access: Access,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let another domain know of a tenant: its name and VNI. Labels of it are taken from its edges.
    Share {
        #[command(flatten)]
        access: Access,
        /// The domain.
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
        /// The tenant.
        #[arg(add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: String,
    },
    /// Let it know of that no more.
    Unshare {
        #[command(flatten)]
        access: Access,
        /// The domain.
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
        /// The tenant.
        #[arg(add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: String,
    },
    /// Trust a domain no more: what it said is forgotten, and the sessions with its edges end.
    Remove {
        #[command(flatten)]
        access: Access,
        /// The domain.
        #[arg(add = ArgValueCandidates::new(complete::domains))]
        domain: String,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=');
    let (ours, theirs) = split.ok_or_else(|| format!("`{text}` is no pair: OURS=THEIRS"))?;
    Ok((ours.to_owned(), theirs.to_owned()))
}

pub(super) fn run(command: DomainCommand) -> anyhow::Result<ExitCode> {
    let output = Output::stdout();
    match command {
        DomainCommand::Introduction { access } => {
            let said = access.ask("GET", "introduction", None)?;
            let introduction = said["introduction"].as_str();
            let introduction = introduction.context("the controller does not introduce itself")?;
            output.write(&format!("{introduction}\n"))?;
        }
        DomainCommand::Add {
            access,
            introduction,
            pairs,
            ttl,
        } => {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(edge, peer)| json!({ "edge": edge, "peer": peer }));
            let pairs: Vec<Value> = pairs.collect();
            let body = json!({ "introduction": introduction, "ttl": ttl, "pairs": pairs });
            let trust = access.ask("POST", "domains", Some(&body))?;
            let name = trust["name"].as_str().unwrap_or_default();
            output.write(&format!(
                "domain {name} is trusted. It tells what is public when its operator trusts this one too (weft domain introduction)\n"
            ))?;
        }
        DomainCommand::List { access, json } => {
            let list = access.ask("GET", "domains", None)?;
            output.write(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&list)?),
                false => list_view(&list, output.view(false)),
            })?;
        }
        DomainCommand::Share {
            access,
            domain,
            tenant,
        } => {
            access.ask("PUT", &format!("domains/{domain}/shared/{tenant}"), None)?;
        }
        DomainCommand::Unshare {
            access,
            domain,
            tenant,
        } => {
            access.ask("DELETE", &format!("domains/{domain}/shared/{tenant}"), None)?;
        }
        DomainCommand::Remove { access, domain } => {
            access.ask("DELETE", &format!("domains/{domain}"), None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list_view(list: &Value, view: View) -> String {
    let items = |key: &str| list[key].as_array().map_or(&[][..], Vec::as_slice);
    let mut text = table(items("items"), view);
    for stranger in items("asking") {
        let one = |key: &str| stranger[key].as_str().unwrap_or_default();
        text.push_str(&format!(
            "\nasks and is not trusted: {}, authority {}\n",
            one("name"),
            one("fingerprint")
        ));
    }
    text
}

/// How the exchange with other domains does.
pub(super) fn table(domains: &[Value], view: View) -> String {
    let mut table = Table::new(&[
        "DOMAIN",
        "EXCHANGE",
        "REVISION",
        "HEARD",
        "EDGES",
        "TENANTS",
        "SHARED",
        "FOLLOWED BY",
        "",
    ]);
    for domain in domains {
        let text = |key: &str| domain[key].as_str().unwrap_or_default().to_owned();
        let tone = match domain["exchange"].as_str() {
            Some("current") => Tone::Good,
            Some("stale") => Tone::Bad,
            _ => Tone::Warning,
        };
        let heard = match domain["lag"].as_u64() {
            Some(lag) => format!("{} ago", human::duration(lag)).into(),
            None => Cell::new("never", Tone::Dim),
        };
        table.row([
            Cell::new(text("name"), Tone::Strong),
            Cell::new(text("exchange"), tone),
            domain["revision"].to_string().into(),
            heard,
            domain["routers"].to_string().into(),
            domain["tenants"].to_string().into(),
            domain["shared"].to_string().into(),
            domain["followed"].to_string().into(),
            Cell::new(text("error"), tone),
        ]);
    }
    table.render(view)
}
