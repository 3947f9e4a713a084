//! `weft router`: assembles BGP, overlay, data plane and API into one process.
//!
//! | module | what it is |
//! |---|---|
//! | [`setup`] | the configuration as the crates want it |
//! | [`hook`] | what the overlay has to say when BGP announces a route |
//! | [`bfd`] | BFD towards neighbours, which BGP follows |
//! | [`chains`] | services and chains, for the API |
//! | [`core`] | the loop that owns the overlay, between BGP and the data plane |
//! | [`history`] | chains that ran before, here, and may run elsewhere still |
//! | [`health`] | whether service nodes answer |
//! | [`sites`] | BGP with tenants' own routers |
//! | [`lock`] | one router in a network namespace |
//! | [`managed`] | the controller's word becomes the configuration |
//! | [`reload`] | another configuration while it runs |
//! | [`sources`] | neighbours from a file, DNS, etcd or the link |
//! | [`told`] | what others tell the router to be, and how that went |
//! | [`state`] | answers of the REST API, from BGP, overlay and data plane |
//! | [`endpoints`] | how far the routers are that tunnels lead to |
//! | [`tunnels`] | whether tunnels carry, in each tenant |
//! | [`performance`] | how the router does, for a controller that asks |

mod attachments;
mod bfd;
mod chains;
mod core;
pub(crate) mod difference;
mod endpoints;
mod health;
mod helpers;
pub(crate) mod history;
mod hook;
mod lock;
pub(crate) mod managed;
mod performance;
mod record;
mod reload;
mod setup;
mod sites;
mod sources;
mod state;
mod told;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use weft_api::Listener;
use weft_bgp::{Bgp, BgpEvent, ShutdownMode};
use weft_dataplane::{Dataplane, DataplaneConfig, DataplaneEvent, PROTOCOL};
use weft_overlay::origins::Origins;
use weft_overlay::table::Overlay;

use self::endpoints::Endpoints;
use self::helpers::Before;
use self::history::History;
use self::lock::Lock;
pub(crate) use self::lock::is_running;
use self::managed::Managed;
use self::performance::Reporter;
use self::record::Record;
use self::setup::SessionKeys;
use self::sites::{SiteSpeakers, Sites};
use self::sources::Sources;
use self::tunnels::Tunnels;
use crate::config::Config;
use crate::service_manager;

/// Runs the router until it is told to stop. Forwarding stays, and neighbours with graceful restart keep our routes.
/// SIGHUP reads the file again. `state` is a folder for what a restart has to know.
pub(crate) fn run(file: &Path, config: Config, state: Option<&Path>) -> anyhow::Result<()> {
    let _lock = Lock::take()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let records = Records {
        helpers: helpers::record(&config, state),
        attachments: attachments::record(&config, state),
    };
    let folder = state.map(Path::to_owned);
    // A controller sees to its chains itself.
    let state = state.filter(|_| config.controller.is_none());
    let name = &config.router.name;
    let history = History::open(state, name).unwrap_or_else(|error| {
        warn!("what chains ran before is not known: {error:#}");
        History::new(state, name)
    });
    history.keep_private();
    history.check(&config)?;
    runtime.block_on(run_router(
        file.to_owned(),
        config,
        folder,
        history,
        records,
    ))
}

/// What the process before left on disk, and this one leaves for the next.
struct Records {
    helpers: Record<BTreeSet<IpAddr>>,
    attachments: Record<BTreeMap<String, u64>>,
}

async fn run_router(
    file: PathBuf,
    config: Config,
    folder: Option<PathBuf>,
    mut history: History,
    records: Records,
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    let (publisher, told) = told::channel();
    if config.controller.is_some() {
        // It may take its time: a router that waits is not one that failed to start.
        service_manager::ready("waits for its controller");
    }
    let (filer, filed) = watch::channel(Arc::new(config.clone()));
    let (managed, config) = match config.controller {
        // Whoever stops the router meanwhile stops it.
        Some(_) => tokio::select! {
            started = Managed::start(config, publisher.clone()) => {
                let (managed, config) = started?;
                (Some(managed), config)
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            never = service_manager::wait() => match never {},
        },
        None => (None, config),
    };
    let mut sources = Sources::start(&config, publisher)?;
    // What the kernel has of chains is from before, and packets are in their nodes: it begins with them, and goes over as on a reload.
    let (config, wanted) = match history.before(&config) {
        Some(before) => (before, Some(config)),
        None => (config, None),
    };
    history.add(&config);
    // What else may be in the way is found out before the kernel is touched.
    let listeners = setup::api(&config.api).await?;
    let secure = listeners.iter().find_map(Listener::secure).cloned();
    weft_bgp::can_listen(&setup::listen(&config))?;
    let granted = managed.as_ref().map(Managed::granted).unwrap_or_default();
    let former = records.attachments.read(None).unwrap_or_default();
    let settings = DataplaneConfig {
        granted: granted.clone(),
        former,
        ..setup::dataplane(&config)
    };
    let (dataplane, mut dataplane_events) = Dataplane::start(settings).await?;
    attachments::keep(records.attachments, dataplane.attachments());
    if let Some(managed) = &managed {
        managed.report(dataplane.reserved());
    }
    let first = !dataplane.found_state();
    let helpers = records.helpers.read(None);
    let before = Before::new(&config, dataplane.found_state(), helpers);
    let origins = managed.as_ref().and_then(Managed::origins);
    let keys = managed.as_ref().map(Managed::keys).unwrap_or_default();
    let events = &mut dataplane_events;
    let started = assemble(config, before, (origins, &keys), &dataplane, events).await;
    let Started {
        config,
        overlay,
        classes,
        bgp,
        bgp_events,
        sites,
        site_speakers,
    } = match started {
        Ok(started) => started,
        Err(error) => {
            dataplane.stop().await;
            // What an earlier process left forwards, and stays.
            if first && let Err(error) = weft_dataplane::teardown(PROTOCOL) {
                warn!(%error, "cannot remove what was made: `weft down` does");
            }
            return Err(error);
        }
    };
    info!(
        name = config.router.name,
        asn = %config.router.asn,
        bgp = ?bgp.listening(),
        api = config.api.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        "router started"
    );
    service_manager::ready("started");
    let bfd = bfd::start(bgp.clone());
    let (core, queries) = core::Core::new(
        config.clone(),
        (classes, keys),
        (overlay, granted),
        (bgp.clone(), bfd.clone()),
        dataplane.clone(),
        sites,
        helpers::keep(records.helpers),
    );
    let endpoints = Endpoints::start(&config, queries.clone());
    let tunnels = Tunnels::start(
        &config,
        folder.as_deref(),
        dataplane.clone(),
        queries.clone(),
    );
    let state = Arc::new(state::LiveState::new(
        config,
        (bgp.clone(), bfd.clone()),
        site_speakers.clone(),
        dataplane.clone(),
        queries.clone(),
        endpoints,
        tunnels,
        told,
        filed,
        secure,
    ));
    let mut managed = managed.map(|managed| (managed, Reporter::start(state.clone())));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let api = tokio::spawn(weft_api::serve(listeners, state.clone(), async {
        // A sender that is gone says stop, too.
        let _ = stopped.await;
    }));
    let core = tokio::spawn(core.run(bgp_events, dataplane_events));
    tokio::spawn(service_manager::watch(state));
    tokio::pin!(core);
    if let Some(wanted) = wanted {
        history.add(&wanted);
        queries.reload(wanted).await;
    }
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                info!("told to stop: forwarding stays");
                break;
            }
            _ = interrupt.recv() => {
                info!("interrupted: forwarding stays");
                break;
            }
            _ = hangup.recv() => {
                service_manager::reloading();
                reload(&file, managed.as_mut().map(|(managed, _)| managed), sources.as_mut(), &queries, &mut history, &filer).await;
                service_manager::ready("reloaded");
            }
            standing = found(sources.as_mut()) => if let Some(sources) = &mut sources {
                sources.handle(standing, &queries).await;
            },
            event = said(managed.as_mut().map(|(managed, _)| managed)) => if let Some((managed, reporter)) = &mut managed {
                managed.handle(event, &queries, reporter).await;
            },
            _ = &mut core => anyhow::bail!("the router's core ended: this is a bug"),
        }
    }
    service_manager::stopping();
    bgp.shutdown(ShutdownMode::Restart).await;
    site_speakers.shutdown(ShutdownMode::Restart).await;
    // After BGP: a neighbour that takes this for a failure has no session left to end.
    bfd.stop().await;
    dataplane.stop().await;
    drop(stop);
    // Requests in flight get a moment, not more.
    let _ = tokio::time::timeout(Duration::from_secs(1), api).await;
    Ok(())
}

/// Everything behind the data plane that may fail to start.
struct Started {
    config: Config,
    overlay: Overlay,
    classes: hook::Classes,
    bgp: Bgp,
    bgp_events: mpsc::Receiver<BgpEvent>,
    sites: Sites,
    site_speakers: SiteSpeakers,
}

/// Starts the speakers: the tenants' attachments and prefixes come first, since what this router announces follows from them.
async fn assemble(
    config: Config,
    before: Before,
    (origins, keys): (Option<Arc<Origins>>, &SessionKeys),
    dataplane: &Dataplane,
    events: &mut mpsc::Receiver<DataplaneEvent>,
) -> anyhow::Result<Started> {
    let mut overlay = setup::overlay(&config);
    overlay.set_origins(origins);
    let routes = core::prepare(&config, &mut overlay, dataplane, events).await;
    for warning in config.warnings() {
        warn!("{warning}");
    }
    let mut classes = hook::Classes::new();
    let speaker = setup::bgp(&config, &mut classes, keys, before, routes);
    let hook = hook::LabelHook::boxed(&config, &overlay, &classes);
    let (bgp, bgp_events) = Bgp::start(speaker, hook).await?;
    let (sites, site_speakers) = Sites::start(&config, &overlay, dataplane, &bgp).await?;
    Ok(Started {
        config,
        overlay,
        classes,
        bgp,
        bgp_events,
        sites,
        site_speakers,
    })
}

/// What sources say next; never, where there are none.
async fn found(sources: Option<&mut Sources>) -> weft_discovery::source::Standing {
    match sources {
        Some(sources) => sources.next().await,
        None => std::future::pending().await,
    }
}

/// What the controller says next; never, where there is none.
async fn said(managed: Option<&mut Managed>) -> weft_discovery::client::Event {
    match managed {
        Some(managed) => managed.next().await,
        None => std::future::pending().await,
    }
}

/// Reads the configuration again. What is wrong with it is told, and the router goes on as it is.
async fn reload(
    file: &Path,
    mut managed: Option<&mut Managed>,
    sources: Option<&mut Sources>,
    queries: &core::Queries,
    history: &mut History,
    filer: &watch::Sender<Arc<Config>>,
) {
    let read = Config::read(file);
    let said = read.as_ref().ok().cloned();
    // A controller sees to its chains itself.
    let file_is_all = managed.is_none();
    let config = read.and_then(|config| match (managed.as_deref_mut(), sources) {
        (Some(managed), _) => managed.refile(config),
        (None, Some(sources)) => sources.refile(config),
        (None, None) if config.controller.is_some() || !config.discovery.is_empty() => {
            anyhow::bail!("discovery that was not there before takes a restart")
        }
        (None, None) => Ok(config),
    });
    let config = config.and_then(|config| {
        if file_is_all {
            history.check(&config)?;
            history.add(&config);
        }
        Ok(config)
    });
    match config {
        Ok(config) => {
            if let Some(managed) = managed {
                managed.judge_anew(queries).await;
            }
            queries.reload(config).await;
            if let Some(said) = said {
                filer.send_replace(Arc::new(said));
            }
        }
        Err(error) => error!(
            "the configuration stays as it was: {}",
            crate::cli::words(&error)
        ),
    }
}

/// Removes everything of ours from the kernel; says what that was. A router that runs would make it again, so that it is not done
/// under one unless that is wanted.
pub(crate) fn down(force: bool) -> anyhow::Result<String> {
    let _lock = match Lock::take() {
        Ok(lock) => Some(lock),
        Err(_) if force => None,
        Err(error) => {
            return Err(error.context("nothing was removed (--force removes it all the same)"));
        }
    };
    let report = weft_dataplane::teardown(PROTOCOL)?;
    Ok(format!(
        "removed {} routes, {} next-hop objects, {} rules, {} devices\n",
        report.routes, report.next_hops, report.rules, report.devices
    ))
}
