//! Makes the Linux kernel forward what the overlay intends.
//!
//! The data plane is declarative: it is handed changes of the intent ([`weft_overlay::intent`]) and makes the kernel
//! equal to their sum. Everything of ours carries our route protocol number; nothing else is touched. Nothing is
//! flushed: a new process reads the kernel, adopts what is there, sends only what differs, and removes leftovers when
//! [`Dataplane::settle`] says that the intent is whole. Forwarding goes on when the process dies.
//!
//! One thread owns the state and talks netlink; another one reads the kernel's events.

mod actor;
mod bpf;
mod condition;
pub mod doctor;
mod echo;
mod health;
mod host;
mod model;
mod monitor;
mod netlink;
mod next_hops;
mod nftables;
mod path_search;
mod probe;
mod proof;
mod resolver;
mod ruleset_watch;
mod sift;
mod snapshot;
mod stamp;
mod status;
mod steps;
mod teardown;
#[cfg(test)]
mod tests;
mod tunnel_echo;
mod upkeep;
mod ways;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use weft_overlay::intent::{IntentDelta, TenantId};
use weft_overlay::{Encapsulation, EndpointId, Vni};

pub use actor::paths::PATH_LASTS;
pub use actor::targets::{PathLimits, ProbeTargets, ProbedTenant};
pub use condition::{Condition, ConditionKind, Conditions, Severity, Verdict, verdict};
pub use echo::Echo;
pub use health::{NodeQuestion, ask_node};
pub use path_search::PathSearch;
pub use probe::{Probe, ProbeAnswer, ProbeHop, largest, probe};
pub use stamp::{STAMP_PORT, Stamp};
pub use status::{
    DataplaneStatus, DeviceStatus, Drops, Intended, KernelMatch, KernelRoute, KernelTrace, Packet,
    PathStatus, RefusedRoute, TenantTable, Traffic, TunnelTrace,
};
pub use steps::{StepCounter, StepCounts};
pub use teardown::{TeardownReport, teardown};
pub use tunnel_echo::{FarEnd, Heard, TunnelEcho};

/// Our route protocol number, as `ip route` shows it. Nobody else has it: 186, the kernel's name for BGP, is what FRR's
/// zebra marks its routes with, and what is not ours is never touched.
pub const PROTOCOL: u8 = weft_overlay::words::OWN_PROTOCOL;

/// The upper octet of everything of ours that has a number of 32 bits: tables, marks, next-hop objects.
pub(crate) const RANGE: u32 = 0x5700_0000;

/// How tenants are kept apart in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// VRFs where the kernel has them.
    #[default]
    Auto,
    /// A VRF device a tenant, with its attachments as members: what runs on the router can be bound to it.
    Vrf,
    /// A routing table a tenant, and policy rules that lead into it.
    Table,
}

/// Which of the two differentiated services code points of a packet in a tunnel holds when it leaves (RFC 2983). On the way in
/// the packet's is copied to the outer header either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodePoint {
    /// The packet's: what the underlay does to the outer one stays outside.
    #[default]
    Pipe,
    /// The outer one: where the underlay is one's own, and marks anew.
    Uniform,
}

/// The mark of a tenant's packets, which is its table's number too, by its primary VNI.
pub fn tenant_mark(primary_vni: Vni) -> u32 {
    RANGE + primary_vni.get()
}

/// Marks of tenants.
pub const TENANT_MARKS: std::ops::Range<u32> = RANGE..RANGE + (1 << 24);

/// Marks of packets that tenants' hosts have sent: those of tenants, and those of steps of their chains. No neighbour's packet has one.
pub const HOST_MARKS: std::ops::Range<u32> = RANGE..steps::STEPS + !steps::STEPS_MASK + 1;

/// The VRF device of a tenant, where tenants are VRFs.
pub fn tenant_vrf(primary_vni: Vni) -> String {
    format!("vrf-{primary_vni}")
}

/// How the data plane is started.
#[derive(Clone, Debug)]
pub struct DataplaneConfig {
    /// Where our tunnels end; `None` for a router without an overlay.
    pub endpoint: Option<IpAddr>,
    /// What stands for an IPv6 endpoint.
    pub endpoint_id: EndpointId,
    /// How packets come to us.
    pub encapsulation: Encapsulation,
    /// The UDP port that they come to, where that is not the encapsulation's own; of GRE nothing.
    pub port: Option<NonZeroU16>,
    /// How tenants are kept apart.
    pub segmentation: Segmentation,
    /// Octets of the kernel's events that may wait for us. What comes when it is full is lost, and everything is read again.
    pub event_buffer: usize,
    /// Interfaces that are never tenants', by name: the operator's own.
    pub uplinks: BTreeSet<String>,
    /// Interfaces that tenants may attach: nothing passes one that none of them has.
    pub granted: BTreeSet<String>,
    /// Interfaces that were tenants' once, as [`Dataplane::attachments`] said to an earlier process, with the last day (since 1970) on which
    /// they were there: nothing passes one that no tenant has.
    pub former: BTreeMap<String, u64>,
    /// Routes to far ends of tunnels are taken from BGP.
    pub installs_underlay: bool,
    /// Flows keep their way among equal ones when others come or go.
    pub resilient: bool,
    /// Outer packets over IPv4 are not fragmented on their way: their senders are told what fits. Over IPv6 they never are.
    pub dont_fragment: bool,
    /// What becomes of the code point that a packet comes in with from the overlay.
    pub code_point: CodePoint,
    /// How long a router may go on sending that nothing names any more: routers that it sends through learn of that one after
    /// the other, and BGP may hold news back for 30 seconds at each domain's edge (RFC 4271 section 9.2.1.1).
    pub sender_grace: Duration,
    /// How often the kernel is read and compared with the intent, should an event have been missed.
    pub audit: Duration,
    /// Route protocol number of everything of ours: [`PROTOCOL`] unless another router shares the namespace.
    pub protocol: u8,
    /// A tenant's table is this plus its primary VNI, so that a restarted router finds it again.
    pub table_base: u32,
    #[cfg(test)]
    faults: netlink::faults::Faults,
}

impl DataplaneConfig {
    /// The device that packets to this router come in by, where its endpoint is this.
    pub(crate) fn carrier(&self, endpoint: IpAddr) -> model::Carrier {
        let port = self.port.map(NonZeroU16::get);
        model::Carrier::of(self.encapsulation, endpoint, port)
    }
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            endpoint_id: EndpointId(std::net::Ipv4Addr::UNSPECIFIED),
            encapsulation: Encapsulation::Vxlan,
            port: None,
            segmentation: Segmentation::Auto,
            event_buffer: 4 << 20,
            uplinks: BTreeSet::new(),
            granted: BTreeSet::new(),
            former: BTreeMap::new(),
            installs_underlay: false,
            resilient: false,
            dont_fragment: true,
            code_point: CodePoint::Pipe,
            sender_grace: Duration::from_secs(60),
            audit: Duration::from_secs(60),
            protocol: PROTOCOL,
            table_base: RANGE,
            #[cfg(test)]
            faults: netlink::faults::Faults::default(),
        }
    }
}

/// What the data plane tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataplaneEvent {
    /// How addresses tracked with [`Dataplane::track`] are reached, or `None`.
    Reachability(Vec<(IpAddr, Option<Reach>)>),
    /// How far ends of tunnels are reached that are tracked with [`Dataplane::track_endpoints`]: metric of the route, or `None`.
    EndpointReachability(Vec<(IpAddr, Option<u32>)>),
    /// The link to a neighbour of [`Dataplane::watch_neighbors`] has lost its carrier, or has it again.
    NeighborLink {
        /// The neighbour.
        neighbor: IpAddr,
        /// The interface that lost it; `None` where the neighbour is on a link that has it.
        lost: Option<String>,
    },
    /// The same for addresses tracked with [`Dataplane::track_site`]: 0 where one is on a link of the tenant's.
    SiteReachability {
        /// Whose.
        tenant: TenantId,
        /// Address and metric.
        changes: Vec<(IpAddr, Option<u32>)>,
    },
    /// Prefixes of which the kernel refuses a route that is wanted, with the tables, or of which it refuses none any more. Where a route
    /// of somebody else stands in the place of ours, that one forwards.
    Refused(Vec<(IpNet, Option<RefusedIn>)>),
    /// An interface that a tenant names is up, or is not.
    Attachment {
        /// Its name.
        name: String,
        /// Administratively up, with carrier.
        up: bool,
    },
    /// A route of the kernel on a tenant's attachment, to be announced or no longer.
    Redistributed {
        /// Whose.
        tenant: TenantId,
        /// The prefix.
        prefix: IpNet,
        /// It is there.
        present: bool,
    },
}

/// Tables in which the kernel refuses a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedIn {
    /// The main table.
    pub main: bool,
    /// Those of the tenants with these VNIs.
    pub vnis: BTreeSet<Vni>,
}

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Metric of the route.
    pub metric: u32,
    /// A route of ours that contains the address, with a prefix as long as this or longer, would be the best match for the address
    /// itself: one that has the address as its next hop would lead to itself (RFC 4271 section 9.1.2.1).
    pub floor: u8,
}

/// The data plane could not be started, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not configure the network.
    #[error(
        "missing privilege CAP_NET_ADMIN: run as root, or grant it with `setcap cap_net_admin,cap_net_raw,cap_net_bind_service+ep {0}`"
    )]
    Privilege(String),
    /// A device of our name that is not ours.
    #[error("a device {0} exists that weft did not make: rename or remove it (`ip link del {0}`)")]
    ForeignDevice(String),
    /// What listens there is needed.
    #[error("UDP port {0} is BFD's")]
    BfdPort(u16),
    /// Each port takes a device.
    #[error(
        "devices lead to {0} ports already that are not their encapsulation's own, and no more are made"
    )]
    TooManyPorts(usize),
    /// Tunnels need one.
    #[error("this router has no tunnel endpoint")]
    NoEndpoint,
    /// The port at which its packets come in is somebody else's.
    #[error(
        "UDP port {port}, at which {device} takes packets, is taken: `ss -ulnp 'sport = :{port}'` or `ip -d link show type vxlan` says by whom; `overlay.port` chooses another one"
    )]
    PortTaken {
        /// The tunnel device.
        device: String,
        /// The port.
        port: u16,
    },
    /// The kernel does not make a device.
    #[error("the kernel refused the device {what}: {kernel}; `weft doctor` says what it can do")]
    Refused {
        /// Its name.
        what: String,
        /// The kernel's word.
        kernel: String,
    },
    /// The kernel refused something that nothing works without.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

impl Error {
    fn kernel(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                let binary = std::env::current_exe().map(|path| path.display().to_string());
                Self::Privilege(binary.unwrap_or_else(|_| "weft".into()))
            }
            _ => Self::Kernel { what, source },
        }
    }
}

/// Is told of the link to a neighbour: that it was lost, and its name, or that it is back. False where it could not take that.
pub type TellNeighborLink = Box<dyn Fn(IpAddr, Option<&str>) -> bool + Send>;

enum Command {
    Apply(IntentDelta),
    Settle,
    Track(actor::Purpose, Vec<IpAddr>),
    Untrack(actor::Purpose, Vec<IpAddr>),
    TellNeighborLinks(TellNeighborLink),
    Interfaces {
        uplinks: BTreeSet<String>,
        granted: BTreeSet<String>,
    },
    Redistribute(TenantId, actor::Redistribution),
    Status(oneshot::Sender<DataplaneStatus>),
    LearnedPath(IpAddr),
    ProbedPath(IpAddr, Option<u16>),
    ExceededPath(IpAddr, u16),
    TunnelOctets(oneshot::Sender<u64>),
    Traffic(oneshot::Sender<Vec<Traffic>>),
    ProbeTargets(u64, oneshot::Sender<Option<ProbeTargets>>),
    Trace(
        TenantId,
        Option<(Vni, bool)>,
        Packet,
        oneshot::Sender<Option<KernelTrace>>,
    ),
    Routes(TenantId, oneshot::Sender<Vec<(IpNet, KernelRoute)>>),
    Stop(oneshot::Sender<()>),
}

/// A handle to the running data plane; cheap to clone.
#[derive(Clone)]
pub struct Dataplane {
    commands: mpsc::Sender<Command>,
    found_state: bool,
    targets: watch::Receiver<u64>,
    attachments: watch::Receiver<BTreeMap<String, u64>>,
    reserved: watch::Receiver<BTreeMap<String, String>>,
}

impl Dataplane {
    /// Reads the kernel and starts the threads, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Without the privilege, where a foreign device stands in the way, or where netlink fails.
    pub async fn start(
        config: DataplaneConfig,
    ) -> Result<(Self, mpsc::Receiver<DataplaneEvent>), Error> {
        // Batches of the overlay are large: a few of them in flight are enough, then the overlay waits.
        let (commands, inbox) = mpsc::channel(16);
        // Rare events; the data plane waits for its owner, who never waits for an event to be taken.
        let (events, outbox) = mpsc::channel(1024);
        let (version, targets) = watch::channel(1);
        let (record, attachments) = watch::channel(config.former.clone());
        let (unfit, reserved) = watch::channel(BTreeMap::new());
        let said = actor::Said {
            targets: version,
            record,
            reserved: unfit,
        };
        let found_state = actor::spawn(config, inbox, events, said).await?;
        Ok((
            Self {
                commands,
                found_state,
                targets,
                attachments,
                reserved,
            },
            outbox,
        ))
    }

    /// The kernel held routes of ours already: an earlier process left them, and they forward.
    pub fn found_state(&self) -> bool {
        self.found_state
    }

    async fn send(&self, command: Command) {
        // A data plane that has stopped takes no orders.
        let _ = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await;
        answer.await.ok()
    }

    /// Changes the intent.
    pub async fn apply(&self, delta: IntentDelta) {
        self.send(Command::Apply(delta)).await;
    }

    /// The intent is whole: what is ours in the kernel and not in it goes.
    pub async fn settle(&self) {
        self.send(Command::Settle).await;
    }

    /// Says how these far ends of tunnels are reached by outer packets, which have our endpoint as their source, now and whenever it
    /// changes, as [`DataplaneEvent::EndpointReachability`].
    pub async fn track_endpoints(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Track(actor::Purpose::Endpoint, addresses))
            .await;
    }

    /// Ends [`Dataplane::track_endpoints`].
    pub async fn untrack_endpoints(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Untrack(actor::Purpose::Endpoint, addresses))
            .await;
    }

    /// Has `tell` called in the data plane's thread in place of [`DataplaneEvent::NeighborLink`], so that no thread stands between a link that
    /// is lost and those whom it concerns. It does not wait; from when it says false on, events come again.
    pub async fn tell_neighbor_links(&self, tell: TellNeighborLink) {
        self.send(Command::TellNeighborLinks(tell)).await;
    }

    /// Says when the links to these neighbours, which are on them, lose their carrier and have it again, as
    /// [`DataplaneEvent::NeighborLink`].
    pub async fn watch_neighbors(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Track(actor::Purpose::Neighbor, addresses))
            .await;
    }

    /// Ends [`Dataplane::watch_neighbors`].
    pub async fn unwatch_neighbors(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Untrack(actor::Purpose::Neighbor, addresses))
            .await;
    }

    /// The router lives by these, neighbours over several hops and controllers: what leads to them is no tenant's, unless it was one's
    /// before.
    pub async fn live_by(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Track(actor::Purpose::Lifeline, addresses))
            .await;
    }

    /// Ends [`Dataplane::live_by`].
    pub async fn live_without(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Untrack(actor::Purpose::Lifeline, addresses))
            .await;
    }

    /// Other interfaces are the operator's own, and others tenants may attach, than [`DataplaneConfig`] said.
    pub async fn set_interfaces(&self, uplinks: BTreeSet<String>, granted: BTreeSet<String>) {
        self.send(Command::Interfaces { uplinks, granted }).await;
    }

    /// What the next start is to know as [`DataplaneConfig::former`].
    pub fn attachments(&self) -> watch::Receiver<BTreeMap<String, u64>> {
        self.attachments.clone()
    }

    /// Interfaces that no tenant can have, each with the reason: the router lives by them.
    pub fn reserved(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.reserved.clone()
    }

    /// Says how these next hops are reached, now and whenever it changes.
    pub async fn track(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Track(actor::Purpose::NextHop, addresses))
            .await;
    }

    /// The same of addresses on the links of a tenant's attachments, as [`DataplaneEvent::SiteReachability`].
    pub async fn track_site(&self, tenant: TenantId, addresses: Vec<IpAddr>) {
        self.send(Command::Track(actor::Purpose::Site(tenant), addresses))
            .await;
    }

    /// Ends [`Dataplane::track_site`].
    pub async fn untrack_site(&self, tenant: TenantId, addresses: Vec<IpAddr>) {
        self.send(Command::Untrack(actor::Purpose::Site(tenant), addresses))
            .await;
    }

    /// Ends [`Dataplane::track`]; an address that was asked for twice is untracked twice.
    pub async fn untrack(&self, addresses: Vec<IpAddr>) {
        self.send(Command::Untrack(actor::Purpose::NextHop, addresses))
            .await;
    }

    /// Reports routes of the kernel on a tenant's attachments: networks of their addresses, what an administrator set,
    /// and routes of further protocols by their numbers.
    pub async fn redistribute(
        &self,
        tenant: TenantId,
        connected: bool,
        statics: bool,
        protocols: &[u8],
    ) {
        let statics = actor::links::STATIC.into_iter().filter(|_| statics);
        let redistribution = actor::Redistribution {
            connected,
            protocols: statics.chain(protocols.iter().copied()).collect(),
        };
        self.send(Command::Redistribute(tenant, redistribution))
            .await;
    }

    /// The kernel has learned how large packets to a far router may be: it is asked at once, and not only when its turn comes.
    pub async fn learned_path(&self, far_router: IpAddr) {
        self.send(Command::LearnedPath(far_router)).await;
    }

    /// Probes found that packets of so many octets at most reach a far router, outer headers included; `None` where as many as its
    /// device and the kernel say. Holds for [`PATH_LASTS`], unless it is said again.
    pub async fn probed_path(&self, far_router: IpAddr, path: Option<u16>) {
        self.send(Command::ProbedPath(far_router, path)).await;
    }

    /// Probes found that packets of so many octets reach a far router, and the kernel lets no more than what a router on the way told it
    /// ([`PathLimits::known`]): it is made to forget that.
    pub async fn exceeded_path(&self, far_router: IpAddr, octets: u16) {
        self.send(Command::ExceededPath(far_router, octets)).await;
    }

    /// Octets that tenants have sent into tunnels, outer headers left out, since the tunnel devices were made. `None` where the data plane
    /// has stopped.
    pub async fn tunnel_octets(&self) -> Option<u64> {
        self.ask(Command::TunnelOctets).await
    }

    /// What is in the kernel, in numbers, and what was refused. `None` where the data plane has stopped.
    pub async fn status(&self) -> Option<DataplaneStatus> {
        self.ask(Command::Status).await
    }

    /// What was carried for each VNI to and from each router, by VNI and address; none where the kernel does not count.
    pub async fn traffic(&self) -> Vec<Traffic> {
        self.ask(Command::Traffic).await.unwrap_or_default()
    }

    /// Changes with what [`Dataplane::probe_targets`] answers, to that version.
    pub fn probe_targets_version(&self) -> watch::Receiver<u64> {
        self.targets.clone()
    }

    /// What probes inside the tunnels can be sent to; `None` where that is what version `known` said. 0 is none.
    pub async fn probe_targets(&self, known: u64) -> Option<ProbeTargets> {
        self.ask(|reply| Command::ProbeTargets(known, reply))
            .await
            .flatten()
    }

    /// What the kernel would do with a tenant's packet. `None` where the tenant is not there.
    pub async fn trace(&self, tenant: TenantId, packet: Packet) -> Option<KernelTrace> {
        self.ask(|reply| Command::Trace(tenant, None, packet, reply))
            .await
            .flatten()
    }

    /// What the kernel would do with a tenant's packet whose next step is the service of a label; `reverse` in the other direction
    /// of a symmetric chain.
    pub async fn trace_step(
        &self,
        tenant: TenantId,
        label: Vni,
        reverse: bool,
        packet: Packet,
    ) -> Option<KernelTrace> {
        self.ask(|reply| Command::Trace(tenant, Some((label, reverse)), packet, reply))
            .await
            .flatten()
    }

    /// A tenant's table: each prefix with what the kernel holds.
    pub async fn routes(&self, tenant: TenantId) -> Vec<(IpNet, KernelRoute)> {
        self.ask(|reply| Command::Routes(tenant, reply))
            .await
            .unwrap_or_default()
    }

    /// Ends the threads; forwarding stays as it is.
    pub async fn stop(&self) {
        self.ask(Command::Stop).await;
    }
}
