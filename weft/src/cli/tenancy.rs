//! `weft controller tenants`, `quota`, `grant`, `revoke`, `keys`, `replace-keys`: who may have what of a domain and how much of it he has,
//! and what its sessions are signed with.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use serde_json::{Value, json};
use weft_discovery::quotas::{Limits, NewQuota};

use super::controller::Access;
use super::output::Output;
use super::table::{Cell, Table, Tone, View};
use super::{complete, human};

/// From this share of a limit on a tenant is shown to be nearly at it, in hundredths.
const NEARLY: u64 = 80;

#[derive(Subcommand)]
pub(super) enum TenancyCommand {
    /// Show the tenants of the domain: what each has of what it may have, and the interfaces that are granted to it.
    Tenants {
        #[command(flatten)]
        access: Access,
        /// Only this one.
        #[arg(add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say how much a tenant may have, and show it; what is not said stays. Operators go beyond it.
    Quota {
        #[command(flatten)]
        access: Access,
        /// The tenant.
        #[arg(add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: String,
        #[command(flatten)]
        limits: Box<NewLimits>,
        /// It may have what everybody may.
        #[arg(long, conflicts_with = "limits")]
        reset: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Grant interfaces of a router to a tenant: its administrators may attach them, and have nodes of services there.
    Grant {
        #[command(flatten)]
        access: Access,
        /// The tenant.
        #[arg(add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: String,
        /// The router.
        #[arg(add = ArgValueCandidates::new(complete::domain_routers))]
        router: String,
        /// The interfaces, beside those that it has been granted there.
        #[arg(required = true)]
        interfaces: Vec<String>,
    },
    /// Take back what was granted to a tenant at a router. What uses it stays until somebody changes that.
    Revoke {
        #[command(flatten)]
        access: Access,
        /// The tenant.
        #[arg(add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: String,
        /// The router.
        #[arg(add = ArgValueCandidates::new(complete::domain_routers))]
        router: String,
        /// The interfaces; all of them where none is named.
        interfaces: Vec<String>,
    },
    /// Show which sessions between routers of the domain are signed, and who does not sign. Keys are shown to nobody.
    Keys {
        #[command(flatten)]
        access: Access,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have the keys of all sessions replaced, some of them at a time. No session ends.
    ReplaceKeys {
        #[command(flatten)]
        access: Access,
    },
}

/// How much a tenant may have.
#[derive(Args)]
#[group(id = "limits", multiple = true)]
pub(super) struct NewLimits {
    /// Routers that it is attached to.
    #[arg(long)]
    attachments: Option<u32>,
    /// Interfaces at one of them.
    #[arg(long)]
    interfaces: Option<u32>,
    /// Prefixes that it announces at one of them.
    #[arg(long)]
    prefixes: Option<u32>,
    /// Its own routers at one of them.
    #[arg(long)]
    neighbors: Option<u32>,
    /// Services.
    #[arg(long)]
    services: Option<u32>,
    /// Routers with a node of one service.
    #[arg(long)]
    nodes: Option<u32>,
    /// VNIs of services, with those that rest.
    #[arg(long)]
    vnis: Option<u32>,
    /// Chains.
    #[arg(long)]
    chains: Option<u32>,
    /// Networks and ports that one chain asks for.
    #[arg(long)]
    matches: Option<u32>,
}

impl NewLimits {
    fn any(&self) -> bool {
        self.onto(NewQuota::default()) != NewQuota::default()
    }

    /// What was said, with what is said now.
    fn onto(&self, before: NewQuota) -> NewQuota {
        NewQuota {
            attachments: self.attachments.or(before.attachments),
            interfaces: self.interfaces.or(before.interfaces),
            prefixes: self.prefixes.or(before.prefixes),
            neighbors: self.neighbors.or(before.neighbors),
            services: self.services.or(before.services),
            nodes: self.nodes.or(before.nodes),
            vnis: self.vnis.or(before.vnis),
            chains: self.chains.or(before.chains),
            matches: self.matches.or(before.matches),
        }
    }
}

pub(super) fn run(command: TenancyCommand) -> anyhow::Result<ExitCode> {
    let output = Output::stdout();
    match command {
        TenancyCommand::Tenants {
            access,
            tenant,
            json,
        } => {
            let tenants = tenants(&access, tenant.as_deref())?;
            output.write(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&tenants)?),
                false => tenants_view(&tenants, output.view(false)),
            })?;
        }
        TenancyCommand::Quota {
            access,
            tenant,
            limits,
            reset,
            json,
        } => {
            let quota = quota(&access, &tenant, &limits, reset)?;
            output.write(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&quota)?),
                false => quota_view(&quota, output.view(false)),
            })?;
        }
        TenancyCommand::Grant {
            access,
            tenant,
            router,
            interfaces,
        } => {
            let mut granted = granted(&access, &tenant, &router)?;
            granted.extend(interfaces);
            put_grant(&access, &tenant, &router, &granted)?;
        }
        TenancyCommand::Revoke {
            access,
            tenant,
            router,
            interfaces,
        } => revoke(&access, &tenant, &router, &interfaces)?,
        TenancyCommand::Keys { access, json } => {
            let keys = access.ask("GET", "session-keys", None)?;
            output.write(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&keys)?),
                false => keys_view(&keys, output.view(false)),
            })?;
        }
        TenancyCommand::ReplaceKeys { access } => {
            access.ask("POST", "session-keys/replace", None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// All tenants or one, each with `quota` and `grants`.
fn tenants(access: &Access, only: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let mut all = match only {
        Some(name) => vec![access.ask("GET", &format!("tenants/{name}"), None)?],
        None => list(&access.ask("GET", "tenants", None)?, "items").to_vec(),
    };
    for tenant in &mut all {
        let path = format!("tenants/{}", text(&tenant["name"]));
        tenant["quota"] = access.ask("GET", &format!("{path}/quota"), None)?;
        let grants = access.ask("GET", &format!("{path}/grants"), None)?;
        tenant["grants"] = list(&grants, "items").into();
    }
    Ok(all)
}

/// Says how much a tenant may have, where something is said; gives what it may have and has.
fn quota(access: &Access, tenant: &str, new: &NewLimits, reset: bool) -> anyhow::Result<Value> {
    let path = format!("tenants/{tenant}/quota");
    let quota = access.ask("GET", &path, None)?;
    if reset {
        access.ask("DELETE", &path, None)?;
        return access.ask("GET", &path, None);
    }
    if !new.any() {
        return Ok(quota);
    }
    let limits: Limits = serde_json::from_value(quota["limits"].clone())?;
    let said = new.onto(limits.said());
    access.ask("PUT", &path, Some(&serde_json::to_value(said)?))
}

/// What is granted to a tenant at a router.
fn granted(access: &Access, tenant: &str, router: &str) -> anyhow::Result<BTreeSet<String>> {
    let grants = access.ask("GET", &format!("tenants/{tenant}/grants"), None)?;
    let grants = list(&grants, "items").iter();
    let here = grants.filter(|one| one["router"] == router);
    let interfaces = here.flat_map(|one| list(one, "interfaces"));
    Ok(interfaces.map(|one| text(one).to_owned()).collect())
}

fn put_grant(
    access: &Access,
    tenant: &str,
    router: &str,
    interfaces: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let path = format!("tenants/{tenant}/grants/{router}");
    match interfaces.is_empty() {
        true => access.ask("DELETE", &path, None)?,
        false => access.ask("PUT", &path, Some(&json!({ "interfaces": interfaces })))?,
    };
    Ok(())
}

fn revoke(
    access: &Access,
    tenant: &str,
    router: &str,
    interfaces: &[String],
) -> anyhow::Result<()> {
    let mut left = granted(access, tenant, router)?;
    for interface in interfaces {
        anyhow::ensure!(
            left.remove(interface),
            "interface `{interface}` of router `{router}` is not granted to tenant `{tenant}`: nothing was taken back"
        );
    }
    if interfaces.is_empty() {
        left.clear();
    }
    put_grant(access, tenant, router, &left)
}

/// So many of so many.
fn share(quota: &Value, what: &str) -> Cell {
    let used = quota["used"][what].as_u64().unwrap_or(0);
    let most = quota["limits"][what].as_u64().unwrap_or(0);
    let tone = match used {
        used if used >= most => Tone::Bad,
        used if used * 100 >= most * NEARLY => Tone::Warning,
        _ => Tone::Plain,
    };
    Cell::new(format!("{used}/{most}"), tone)
}

fn tenants_view(tenants: &[Value], view: View) -> String {
    let mut table = Table::new(&[
        "TENANT",
        "VNI",
        "ATTACHMENTS",
        "SERVICES",
        "VNIS",
        "CHAINS",
        "GRANTED",
    ]);
    for tenant in tenants {
        let quota = &tenant["quota"];
        let grants = list(tenant, "grants").iter().map(|one| {
            let interfaces: Vec<&str> = list(one, "interfaces").iter().map(text).collect();
            format!("{}: {}", text(&one["router"]), interfaces.join(" "))
        });
        let grants: Vec<String> = grants.collect();
        table.row([
            Cell::new(text(&tenant["name"]), Tone::Strong),
            tenant["vni"].to_string().into(),
            share(quota, "attachments"),
            share(quota, "services"),
            share(quota, "vnis"),
            share(quota, "chains"),
            grants.join(", ").into(),
        ]);
    }
    table.render(view)
}

fn quota_view(quota: &Value, view: View) -> String {
    let mut table = Table::new(&["WHAT", "HAS", "MAY HAVE", "OF"]);
    let tenant = format!("tenant {}", text(&quota["tenant"]));
    for (what, of_what) in [
        ("attachments", tenant.as_str()),
        ("interfaces", "each attachment"),
        ("prefixes", "each attachment"),
        ("neighbors", "each attachment"),
        ("services", tenant.as_str()),
        ("nodes", "each service"),
        ("vnis", tenant.as_str()),
        ("chains", tenant.as_str()),
        ("matches", "each chain"),
    ] {
        let has = match quota["used"][what].as_u64() {
            Some(used) => used.to_string().into(),
            None => Cell::new("-", Tone::Dim),
        };
        table.row([
            what.into(),
            has,
            quota["limits"][what].to_string().into(),
            of_what.into(),
        ]);
    }
    table.render(view)
}

fn keys_view(keys: &Value, view: View) -> String {
    let mut table = Table::new(&["ROUTERS", "SESSION", "KEY", "AGE", ""]);
    for one in list(keys, "keys") {
        let names = |key: &str| {
            let names: Vec<&str> = list(one, key).iter().map(text).collect();
            names.join(", ")
        };
        let (state, tone) = match one["signed"] == true {
            true => ("signed", Tone::Good),
            false => ("not signed yet", Tone::Warning),
        };
        let age = one["age"].as_u64().map(human::duration);
        let waits = match names("waits_for") {
            waits if waits.is_empty() => String::new(),
            waits => format!("the next key waits for {waits}"),
        };
        table.row([
            names("routers").into(),
            Cell::new(state, tone),
            one["number"]
                .as_u64()
                .map_or("-".to_owned(), |one| one.to_string())
                .into(),
            age.unwrap_or_else(|| "-".to_owned()).into(),
            waits.into(),
        ]);
    }
    let mut shown = table.render(view);
    for (_, why) in keys["unsigned"].as_object().into_iter().flatten() {
        shown.push_str(&format!("\nnot signed: {}\n", text(why)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: View = View {
        wide: false,
        colours: false,
        width: None,
    };

    #[test]
    fn what_is_not_said_stays_and_is_not_fixed_where_it_is_everybodys() {
        let before = NewQuota {
            services: Some(5),
            ..NewQuota::default()
        };
        let limits = Limits::from(&before);
        let new = NewLimits {
            attachments: None,
            interfaces: None,
            prefixes: None,
            neighbors: None,
            services: None,
            nodes: None,
            vnis: None,
            chains: Some(7),
            matches: None,
        };
        let wanted = NewQuota {
            chains: Some(7),
            ..before
        };
        assert_eq!(new.onto(limits.said()), wanted);
    }

    #[test]
    fn tenants_are_shown_with_how_full_they_are() {
        let tenant = json!({
            "name": "red",
            "vni": 10_000,
            "quota": {
                "limits": { "attachments": 2, "services": 32, "vnis": 64, "chains": 500 },
                "used": { "attachments": 2, "services": 1, "vnis": 1, "chains": 0 },
            },
            "grants": [{ "router": "a1", "interfaces": ["red0", "red1"] }],
        });
        let shown = tenants_view(&[tenant], PLAIN);
        for part in ["red", "10000", "2/2", "1/32", "0/500", "a1: red0 red1"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn keys_are_shown_with_who_is_waited_for_and_who_does_not_sign() {
        let keys = json!({
            "keys": [
                { "routers": ["a1", "a2"], "signed": true, "age": 3600, "number": 2 },
                { "routers": ["a1", "a3"], "signed": false, "waits_for": ["a3"] },
            ],
            "unsigned": { "a4": "router `a4` (weft 0.0.9) takes no keys" },
        });
        let shown = keys_view(&keys, PLAIN);
        for part in ["a1, a2", "1h", "waits for a3", "not signed: router `a4`"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}
