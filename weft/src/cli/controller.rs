//! `weft controller`, `weft token` and `weft join`: a domain and who is in it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use weft_discovery::client::{Membership, PORT, Rest};
use weft_discovery::controller::{Folder, Settings, serve};
use weft_discovery::model::{Domain, Role};
use weft_discovery::pki::TokenText;
use weft_discovery::{EtcdTls, duration};

use super::complete;
use super::human;
use super::output::Output;
use super::table::{Cell, Table, Tone, View};
use crate::config::{Log, defaults, other_notation};

/// Where a controller keeps its domain.
const FOLDER: &str = "/var/lib/weft-controller";

#[derive(Subcommand)]
pub(super) enum ControllerCommand {
    /// Make a domain: its certificate authority, its datastore, the first operator's token.
    Init {
        /// The folder for all of it.
        #[arg(long, default_value = FOLDER)]
        folder: PathBuf,
        /// The domain's name, unique among domains that know each other.
        #[arg(long)]
        name: String,
        /// The AS number of its routers.
        #[arg(long, value_parser = asn)]
        asn: u32,
        /// Global Administrator of the label communities, the same in every domain.
        #[arg(long, value_parser = asn)]
        administrator: u32,
        /// The VNIs that the domain gives to tenants, FIRST-LAST.
        #[arg(long, value_parser = range)]
        vnis: (u32, u32),
        /// A name or address that the controller is reached by; may be repeated, the first is what commands use.
        #[arg(long = "address", required = true)]
        addresses: Vec<String>,
        /// Where it listens.
        #[arg(long, default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
        listen: SocketAddr,
        /// A member of the etcd cluster that the domain is kept in, http://HOST:2379 or https://HOST:2379; may be repeated. In a file of
        /// the folder without one.
        #[arg(long)]
        etcd: Vec<String>,
        /// The authority that has signed the certificates of members at https, PEM.
        #[arg(long, requires = "etcd")]
        etcd_cacert: Option<PathBuf>,
        /// The certificate that is shown to them, PEM.
        #[arg(long, requires = "etcd_key")]
        etcd_cert: Option<PathBuf>,
        /// Its key, PEM.
        #[arg(long, requires = "etcd_cert")]
        etcd_key: Option<PathBuf>,
        /// How long a router that is not heard of stays in what others discover.
        #[arg(long, default_value = "30s", value_parser = duration)]
        lease: Duration,
        /// How long a router's certificate is good; it is renewed at two thirds.
        #[arg(long, default_value = "24h", value_parser = duration)]
        certificate: Duration,
        /// How long a VNI rests before another tenant gets it.
        #[arg(long, default_value = "24h", value_parser = duration)]
        quarantine: Duration,
    },
    /// Run the controller.
    Run {
        /// The folder that `init` made.
        #[arg(long, default_value = FOLDER)]
        folder: PathBuf,
    },
    /// Show the routers of the domain, who lags behind its latest revision, and the other domains that it trusts.
    Status {
        #[command(flatten)]
        access: Access,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Carry the tenants of a router that has run by its own file into the domain: with their VNIs, and what they have at that router, which
    /// has joined (weft join). Says what could not be carried, by line. It may be repeated.
    Import {
        #[command(flatten)]
        access: Access,
        /// The router's configuration.
        file: PathBuf,
        /// The router's name in the domain; by default the one of the file.
        #[arg(long)]
        name: Option<String>,
    },
    #[command(flatten)]
    Tenancy(super::tenancy::TenancyCommand),
    /// Have routers take what the datastore holds that were told of more, before it was restored from an older copy.
    Resume {
        #[command(flatten)]
        access: Access,
    },
}

#[derive(Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant, and print its VNI.
    Create {
        #[command(flatten)]
        access: Access,
        /// Its name, unique in the domain.
        name: String,
        /// Its VNI, which nobody has: where it had one before. The next free one where absent.
        #[arg(long)]
        vni: Option<u32>,
        /// The domain that gave the VNI, where that is another one.
        #[arg(long)]
        home: Option<String>,
        /// For humans.
        #[arg(long)]
        description: Option<String>,
    },
}

pub(super) fn tenant(command: TenantCommand) -> anyhow::Result<ExitCode> {
    let TenantCommand::Create {
        access,
        name,
        vni,
        home,
        description,
    } = command;
    let body = json!({ "name": name, "vni": vni, "home": home, "description": description });
    let made = access.ask("POST", "tenants", Some(&body))?;
    Output::stdout().write(&format!("{}\n", made["vni"]))?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, and print it for the only time.
    Create {
        #[command(flatten)]
        access: Access,
        /// A router joins with it, in this role.
        #[arg(long, group = "scope", value_parser = role())]
        role: Option<Role>,
        /// It may do everything.
        #[arg(long, group = "scope")]
        operator: bool,
        /// It may look at everything.
        #[arg(long, group = "scope")]
        reader: bool,
        /// It may look at this tenant and change it.
        #[arg(long, group = "scope", add = ArgValueCandidates::new(complete::domain_tenants))]
        tenant: Option<String>,
        /// Only a router of this name joins with it.
        #[arg(long, requires = "role")]
        name: Option<String>,
        /// How long it is good: 90s, 15m, 1h, 7d. For ever where absent; 1h for one to join with.
        #[arg(long, value_parser = duration)]
        ttl: Option<Duration>,
        /// How often it may be used; any number where absent, once for one to join with.
        #[arg(long)]
        uses: Option<u32>,
    },
    /// List tokens.
    List {
        #[command(flatten)]
        access: Access,
    },
    /// Take a token back.
    Revoke {
        #[command(flatten)]
        access: Access,
        /// Its id.
        id: String,
    },
}

/// How a controller is asked.
#[derive(Args)]
pub(super) struct Access {
    /// The controller, HOST:PORT; by default the one of --folder.
    #[arg(long, env = "WEFT_CONTROLLER")]
    controller: Option<String>,
    /// A file with an operator's token; by default the one of --folder.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The controller's own folder, on its machine.
    #[arg(long, default_value = FOLDER)]
    folder: PathBuf,
}

#[derive(Args)]
pub(super) struct Join {
    /// The controller, HOST:PORT.
    controller: String,
    /// The token, from `weft token create --role`.
    token: String,
    /// The router's name, unique in the domain.
    #[arg(long)]
    name: String,
    /// Where the router keeps its certificate and what it knows, in a folder of its name.
    #[arg(long, default_value_os_t = defaults::state())]
    state: PathBuf,
}

/// The roles, which a shell completes.
fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(["router", "edge", "reflector"]).try_map(|text| text.parse::<Role>())
}

/// An AS number in asplain; in another notation it is told how it is written.
fn asn(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number != 0);
    number.ok_or_else(|| match other_notation(text) {
        Some(number) => format!("write {number}"),
        None => "an AS number is 1 to 4294967295".to_owned(),
    })
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("`{text}` is no range: FIRST-LAST, such as 10000-19999");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    Ok((number(first)?, number(last)?))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

impl Default for Access {
    /// As on a command line that says nothing of it.
    fn default() -> Self {
        Self {
            controller: std::env::var("WEFT_CONTROLLER").ok(),
            token_file: None,
            folder: FOLDER.into(),
        }
    }
}

impl Access {
    /// What a GET answers, at most so much later.
    pub(super) fn ask_within(&self, patience: Duration, path: &str) -> anyhow::Result<Value> {
        let rest = self.rest()?;
        let answer = async {
            let answer = rest.ask("GET".parse()?, path, None);
            Ok(tokio::time::timeout(patience, answer).await??)
        };
        runtime()?.block_on(answer)
    }

    fn rest(&self) -> anyhow::Result<Rest> {
        let folder = Folder::new(&self.folder);
        let address = match &self.controller {
            Some(address) => address.clone(),
            None => {
                let settings = folder.settings().context(
                    "which controller? --controller HOST:PORT and --token-file FILE, or --folder DIRECTORY on its machine",
                )?;
                let mut reached = settings.reached(settings.listen.port()).into_iter();
                reached.next().context("the controller has no address")?
            }
        };
        let file = self.token_file.clone().unwrap_or_else(|| folder.operator());
        let token = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read the token in {}", file.display()))?;
        let token: TokenText = token.parse()?;
        Ok(Rest::new(&address, token))
    }

    /// Makes a token where the controller's folder is here and the controller does not run.
    fn create_token(&self, new: &Value) -> anyhow::Result<Option<TokenText>> {
        let folder = Folder::new(&self.folder);
        if self.controller.is_some() || folder.settings().is_err() {
            return Ok(None);
        }
        let new = serde_json::from_value(new.clone())?;
        Ok(runtime()?.block_on(folder.create_token(new))?)
    }

    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let rest = self.rest()?;
        let method = method.parse()?;
        Ok(runtime()?.block_on(rest.ask(method, path, body))?)
    }
}

pub(super) fn run(command: ControllerCommand) -> anyhow::Result<ExitCode> {
    match command {
        ControllerCommand::Init {
            folder,
            name,
            asn,
            administrator,
            vnis,
            addresses,
            listen,
            etcd,
            etcd_cacert,
            etcd_cert,
            etcd_key,
            lease,
            quarantine,
            certificate,
        } => {
            let seconds = |one: Duration| u32::try_from(one.as_secs()).unwrap_or(u32::MAX);
            let domain = Domain {
                name,
                asn,
                global_administrator: administrator,
                first_vni: vnis.0,
                last_vni: vnis.1,
                lease: seconds(lease),
                quarantine: seconds(quarantine),
                hold_time: defaults::hold_time(),
                certificate: seconds(certificate),
                resumed: 0,
            };
            let settings = Settings {
                listen,
                names: addresses,
                etcd,
                etcd_tls: EtcdTls {
                    cacert: etcd_cacert.map(std::path::absolute).transpose()?,
                    cert: etcd_cert.map(std::path::absolute).transpose()?,
                    key: etcd_key.map(std::path::absolute).transpose()?,
                },
            };
            init(&folder, domain, &settings)?;
        }
        ControllerCommand::Run { folder } => {
            super::logging::start(&Log::default())?;
            runtime()?.block_on(run_controller(&folder))?;
        }
        ControllerCommand::Import { access, file, name } => {
            return super::import::run(&access, &file, name.as_deref());
        }
        ControllerCommand::Tenancy(command) => return super::tenancy::run(command),
        ControllerCommand::Resume { access } => {
            access.ask("POST", "resume", None)?;
        }
        ControllerCommand::Status { access, json } => {
            let status = access.ask("GET", "status", None)?;
            let output = Output::stdout();
            output.write(&match json {
                true => format!("{}\n", serde_json::to_string_pretty(&status)?),
                false => status_view(&status, output.view(false)),
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn init(folder: &Path, domain: Domain, settings: &Settings) -> anyhow::Result<()> {
    let opened = Folder::new(folder);
    let name = domain.name.clone();
    runtime()?.block_on(opened.create(domain, settings))?;
    let shown = folder.display();
    Output::stdout().write(&format!(
        "domain {name}: made in {shown}\n\
         run it:                weft controller run --folder {shown}\n\
         let a router join:     weft token create --folder {shown} --role router\n\
         the API:               curl --cacert {} -H \"Authorization: Bearer $(cat {})\" https://{}:{}/api/v1/status\n",
        opened.authority().display(),
        opened.operator().display(),
        settings.names.first().map_or("", String::as_str),
        settings.listen.port(),
    ))
}

async fn run_controller(folder: &Path) -> anyhow::Result<()> {
    // A file descriptor a router: the default is for a thousand.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::warn!(%error, "cannot have more files open");
    }
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let ready = |_| crate::service_manager::ready("serves its domain");
    Ok(serve(&Folder::new(folder), ready, stop).await?)
}

fn status_view(status: &Value, view: View) -> String {
    let mut table = Table::new(&["ROUTER", "ROLE", "STATE", "ENDPOINT", "RUNS", "SENT", ""]);
    let text = |one: &Value| one.as_str().unwrap_or("-").to_owned();
    // What takes more than a cell.
    let mut below = String::new();
    let routers = status["routers"].as_array().map_or(&[][..], Vec::as_slice);
    for router in routers {
        let flag = |key: &str| router[key] == true;
        let (state, tone) = match (flag("attached"), flag("expired")) {
            (true, _) => ("attached", Tone::Good),
            (false, false) => ("away", Tone::Warning),
            (false, true) => ("expired", Tone::Bad),
        };
        let lags = flag("lags") && flag("attached");
        let refused = router["refused"].as_array().map_or(&[][..], Vec::as_slice);
        for one in refused {
            let (name, item) = (text(&router["name"]), text(&one["item"]));
            let _ = writeln!(below, "{name} refuses {item}: {}", text(&one["reason"]));
        }
        let remark = match (refused.len(), lags) {
            (0, false) => Cell::default(),
            (0, true) => Cell::new("lags", Tone::Warning),
            (count, _) => Cell::new(format!("refuses {count}, see below"), Tone::Bad),
        };
        table.row([
            Cell::new(text(&router["name"]), Tone::Strong),
            text(&router["role"]).into(),
            Cell::new(state, tone),
            text(&router["endpoint"]).into(),
            router["runs"].to_string().into(),
            router["sent"].to_string().into(),
            remark,
        ]);
    }
    let domains = status["domains"].as_array().map_or(&[][..], Vec::as_slice);
    let domains = match domains {
        [] => String::new(),
        domains => format!("\n{}", super::domain::table(domains, view)),
    };
    let warnings = status["warnings"].as_array();
    for warning in warnings.into_iter().flatten() {
        let _ = writeln!(below, "warning: {}", text(warning));
    }
    if !below.is_empty() {
        below.insert(0, '\n');
    }
    format!(
        "domain {}, revision {}\n\n{}{domains}{below}",
        text(&status["domain"]),
        status["revision"],
        table.render(view)
    )
}

pub(super) fn token(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::Create {
            access,
            role,
            operator,
            reader,
            tenant,
            name,
            ttl,
            uses,
        } => {
            let joins = role.is_some();
            let scope = match (role, operator, reader, tenant) {
                (Some(role), ..) => json!({ "kind": "join", "role": role, "name": name }),
                (_, true, ..) => json!({ "kind": "operator" }),
                (_, _, true, _) => json!({ "kind": "reader" }),
                (.., Some(tenant)) => json!({ "kind": "tenant", "tenant": tenant }),
                _ => {
                    bail!("what is it good for? --role ROLE, --tenant NAME, --operator or --reader")
                }
            };
            // What is good for one router is not good for all for ever.
            let ttl = ttl.map(|ttl| ttl.as_secs()).or(joins.then_some(3600));
            let uses = uses.or(joins.then_some(1));
            let body = json!({ "scope": scope, "ttl": ttl, "uses": uses });
            let token = match access.create_token(&body)? {
                Some(token) => token.to_string(),
                None => {
                    let created = access.ask("POST", "tokens", Some(&body))?;
                    let token = created["token"].as_str();
                    token.context("the controller gave no token")?.to_owned()
                }
            };
            Output::stdout().write(&format!("{token}\n"))?;
        }
        TokenCommand::List { access } => {
            let list = access.ask("GET", "tokens", None)?;
            let output = Output::stdout();
            output.write(&tokens_view(&list, output.view(false)))?;
        }
        TokenCommand::Revoke { access, id } => {
            access.ask("DELETE", &format!("tokens/{id}"), None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tokens_view(list: &Value, view: View) -> String {
    let mut table = Table::new(&["ID", "GOOD FOR", "UNTIL", "USES LEFT", "MADE BY"]);
    let now = weft_discovery::model::now();
    for token in list["items"].as_array().map_or(&[][..], Vec::as_slice) {
        let scope = &token["scope"];
        let text = |key: &str| scope[key].as_str().unwrap_or_default().to_owned();
        let purpose = match scope["kind"].as_str() {
            Some("join") => format!("joining: {} {}", text("role"), text("name")),
            Some("tenant") => format!("tenant {}", text("tenant")),
            _ => text("kind"),
        };
        let until = match token["expires_at"].as_u64() {
            None => Cell::new("for ever", Tone::Dim),
            Some(at) if at <= now => Cell::new("expired", Tone::Bad),
            Some(at) => human::duration((at - now) / 1000).into(),
        };
        let uses = token["uses_left"].as_u64();
        table.row([
            Cell::new(token["id"].as_str().unwrap_or_default(), Tone::Strong),
            purpose.into(),
            until,
            uses.map_or_else(
                || Cell::new("any", Tone::Dim),
                |uses| uses.to_string().into(),
            ),
            token["created_by"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
                .into(),
        ]);
    }
    table.render(view)
}

/// What root has put below a folder of somebody else's is theirs, as all that is there: the router's user has to read it.
fn give_to_owner(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, lchown};
    let Some(above) = folder.parent().filter(|_| nix::unistd::geteuid().is_root()) else {
        return Ok(());
    };
    let above = std::fs::metadata(above)?;
    let (user, group) = (Some(above.uid()), Some(above.gid()));
    lchown(folder, user, group)?;
    for file in std::fs::read_dir(folder)? {
        lchown(file?.path(), user, group)?;
    }
    Ok(())
}

pub(super) fn join(one: &Join) -> anyhow::Result<ExitCode> {
    let token: TokenText = one.token.parse()?;
    let folder = crate::router::managed::folder(&one.state, &one.name);
    let joined = Membership::join(&one.controller, &token, &one.name, &folder);
    let membership = runtime()?.block_on(joined)?;
    give_to_owner(&folder)?;
    Output::stdout().write(&format!(
        "joined domain {} as {}. The router's whole configuration:\n\n\
         controller: {{ address: \"{}\" }}\nrouter: {{ name: {} }}\n",
        membership.domain(),
        membership.name(),
        membership.controller(),
        membership.name(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
