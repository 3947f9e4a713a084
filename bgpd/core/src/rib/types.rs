//! What goes into a RIB and what comes out.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use weft_bgp_policy::RoutePolicy;
use weft_bgp_wire::{
    Asn, AttributesBuilder, AttributesView, CommunityPattern, Family, LargeCommunityPattern,
    NextHop, Notification, Origin, Role, RouterId,
};

/// A neighbour's number in this process, dense from 1; 0 is this router itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PeerId(pub u16);

impl PeerId {
    /// The source of routes that this router originates.
    pub const LOCAL: Self = Self(0);

    /// Index into tables by neighbour.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What this router is.
#[derive(Clone, Debug)]
pub struct RibConfig {
    /// Its AS.
    pub asn: Asn,
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Cluster id of a route reflector (RFC 4456 section 7); the router id where none is configured.
    pub cluster_id: std::net::Ipv4Addr,
    /// Global Administrator of large communities that make a path a labelled one; such a path is eligible whatever its
    /// NEXT_HOP resolves to.
    pub overlay_administrator: Option<u32>,
    /// Prefixes whose unlabelled routes are reported too, with everything that is more specific: for the main table.
    pub report: Vec<IpNet>,
    /// Makes the hash of what neighbours choose another one in each process: nobody outside may foresee it.
    pub seed: u64,
}

/// What a neighbour is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// In another AS.
    Ebgp,
    /// In our AS.
    Ibgp,
    /// In our AS, and we reflect for it (RFC 4456).
    IbgpClient,
}

/// What the configuration says of a neighbour.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// eBGP, iBGP or a reflector's client.
    pub kind: PeerKind,
    /// Its AS.
    pub asn: Asn,
    /// Its address, the last tie-break of the decision process.
    pub address: IpAddr,
    /// Towards iBGP: replace the next hop of routes learned by eBGP by our address.
    pub next_hop_self: bool,
    /// Which routes are taken from it, and as what.
    pub import: RoutePolicy,
    /// Which routes are announced to it, and as what.
    pub export: RoutePolicy,
    /// Most prefixes of one family; more end the session (RFC 4486 subcode 1).
    pub max_prefixes: Option<u32>,
    /// Most paths of one prefix (RFC 7911); further ones are refused, since each costs a walk over the others.
    pub max_paths: u32,
    /// How often our own AS may stand in a path from it.
    pub allow_own_as: usize,
    /// What an eBGP neighbour sends is taken only where its AS is the first of AS_PATH (RFC 4271 section 6.3); a route server's is not.
    pub enforce_first_as: bool,
    /// Take prefixes too that no packet may be sent to ([`weft_bgp_wire::Prefix::is_martian`]).
    pub accept_martians: bool,
    /// Handed to the [`ExportHook`] with routes from it.
    pub import_class: u32,
    /// Handed to the [`ExportHook`] with routes to it.
    pub export_class: u32,
    /// What we are to it (RFC 9234): routes that it leaks are refused, and ours are marked.
    pub role: Option<Role>,
    /// AS_PATH on the way to it, where it is an eBGP neighbour.
    pub as_path: AsPathEdit,
}

/// What becomes of AS_PATH on the way to an eBGP neighbour, beside that the AS which we are to it is put in front.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsPathEdit {
    /// The AS that we are to it, where that is not our own (RFC 7705).
    pub local_as: Option<LocalAs>,
    /// AS numbers for private use (RFC 6996).
    pub private: PrivateAs,
    /// Our AS stands in the place of the neighbour's own, so that sites with one AS number take each other's routes.
    pub overrides: bool,
}

/// An AS that we are to one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAs {
    /// Its number.
    pub asn: Asn,
    /// It stands in the place of our own ("Replace Old AS", RFC 7705 section 3.3), and not in front of it.
    pub replaces_own: bool,
}

/// What becomes of AS numbers for private use in front of which another AS is put. The neighbour's own stays: by it, it finds loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateAs {
    /// They are told.
    #[default]
    Keep,
    /// They are left out.
    Remove,
    /// The AS that we are to the neighbour stands in their place: the path stays as long as it is.
    Replace,
}

impl AsPathEdit {
    /// The AS that we are to the neighbour.
    pub fn presented(&self, own: Asn) -> Asn {
        self.local_as.map_or(own, |local| local.asn)
    }
}

/// What a session negotiated.
#[derive(Clone, Debug)]
pub struct PeerUp {
    /// Families of both ends.
    pub families: Vec<Family>,
    /// AS numbers have 4 octets.
    pub four_octet_as: bool,
    /// Longest message that we may send.
    pub max_message_len: usize,
    /// ADD-PATH towards it, by [`Family::index`].
    pub add_path_send: [bool; 2],
    /// ADD-PATH from it.
    pub add_path_receive: [bool; 2],
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// It knows the marks of RFC 7313 before and behind what is sent again.
    pub enhanced_refresh: bool,
    /// Both ends take IPv6 next hops of IPv4 prefixes (RFC 8950).
    pub extended_next_hop: bool,
    /// Our address of the session: the next hop that we name.
    pub local_address: IpAddr,
    /// Our IPv6 address for IPv6 routes where the session runs over IPv4.
    pub local_address_v6: Option<std::net::Ipv6Addr>,
    /// The link that it is on, where our next hop of IPv6 routes and the neighbour are on one.
    pub shared_link: Option<SharedLink>,
}

/// A link of ours and a neighbour's: what is said to it of next hops there has link-local addresses too (RFC 2545 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLink {
    /// Global addresses on it.
    pub subnet: Ipv6Net,
    /// Our link-local address on it.
    pub link_local: Ipv6Addr,
}

/// What becomes of a neighbour's routes when its session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerDown {
    /// They go.
    Flush,
    /// Those of these families stay, marked stale; the others go (RFC 4724 section 4.2).
    KeepStale {
        /// Whose.
        families: Vec<Family>,
        /// What is stale from an earlier end of the session stays too (RFC 8538 section 4.1).
        older: bool,
    },
}

/// What an UPDATE came to.
#[derive(Debug, Default)]
pub struct UpdateOutcome {
    /// The End-of-RIB marker of this family (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// It brought the neighbour near its limit; said once, until it is well below.
    pub near_limit: Option<NearLimit>,
    /// What was wrong with it, for the log; empty in nearly every case.
    pub problems: Vec<weft_bgp_wire::Problem>,
}

/// A neighbour announces more than four fifths of the prefixes that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearLimit {
    /// Of which family.
    pub family: Family,
    /// Paths held from it.
    pub accepted: u32,
    /// [`PeerConfig::max_prefixes`].
    pub limit: u32,
}

/// Why the session must end.
pub type Reset = Notification;

/// A route of our own.
#[derive(Clone, Debug)]
pub struct Origination {
    /// Its prefix.
    pub prefix: IpNet,
    /// Tells several paths of one prefix apart.
    pub path_id: u32,
    /// Canonical octets; `None` withdraws.
    pub attributes: Option<Vec<u8>>,
}

/// A set of attributes with its next hop. Its octets are shared by all routes that carry it.
#[derive(Clone, Debug)]
pub struct AttributeSet {
    pub(crate) key: AttributeKey,
    pub(crate) next_hop: NextHop,
    pub(crate) octets: Arc<[u8]>,
}

impl AttributeSet {
    /// The attributes, NEXT_HOP apart.
    pub fn view(&self) -> AttributesView<'_> {
        AttributesView::new(&self.octets)
    }

    /// The next hop as received; unspecified on routes of our own.
    pub fn next_hop(&self) -> NextHop {
        self.next_hop
    }

    /// What the decision process compares.
    pub fn key(&self) -> &AttributeKey {
        &self.key
    }
}

/// What the decision process and the export rules look at, decoded once a set of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeKey {
    /// LOCAL_PREF, or 100.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC, or 0 (RFC 4271 section 9.1.2.2 c).
    pub med: u32,
    /// The AS that it was learned from; 0 for the empty path.
    pub neighbor_as: u32,
    /// ORIGINATOR_ID.
    pub originator_id: Option<RouterId>,
    /// Length of AS_PATH.
    pub as_path_length: u16,
    /// Length of CLUSTER_LIST.
    pub cluster_list_length: u8,
    /// How often our own AS stands in AS_PATH.
    pub own_as: u8,
    /// ORIGINATOR_ID or CLUSTER_LIST names us (RFC 4456 section 8).
    pub reflection_loop: bool,
    /// ORIGIN.
    pub origin: Origin,
    /// ONLY_TO_CUSTOMER.
    pub only_to_customer: Option<Asn>,
    /// Carries a large community of the overlay.
    pub labelled: bool,
    /// Carries NO_ADVERTISE.
    pub no_advertise: bool,
    /// Carries NO_EXPORT or NO_EXPORT_SUBCONFED.
    pub no_export: bool,
}

/// Why a path is not the best, in the order of the decision process (RFC 4271 section 9.1.2, RFC 4456 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The next hop does not resolve.
    NextHopUnreachable,
    /// Another is our own route.
    NotLocal,
    /// Packets may not reach the neighbour, whose routes are kept with LOCAL_PREF 0 in case that it restarts.
    LastResort,
    /// Another has a higher LOCAL_PREF.
    LocalPref,
    /// Another has a shorter AS_PATH.
    AsPathLength,
    /// Another has a lower ORIGIN.
    Origin,
    /// Another from the same AS has a lower MULTI_EXIT_DISC.
    Med,
    /// Another was learned by eBGP.
    Ibgp,
    /// The next hop of another is nearer.
    IgpMetric,
    /// Another comes from a lower BGP Identifier (or ORIGINATOR_ID).
    RouterId,
    /// Another has a shorter CLUSTER_LIST.
    ClusterListLength,
    /// Another comes from a lower neighbour address.
    PeerAddress,
    /// Another has a lower path identifier.
    PathId,
}

/// What the export of a route depends on beside its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportContext {
    /// [`PeerConfig::export_class`] of the neighbour that it goes to.
    pub export_class: u32,
    /// What that neighbour is.
    pub target: PeerKind,
    /// [`PeerConfig::import_class`] of the neighbour that it came from.
    pub import_class: u32,
    /// What that neighbour is; `None` for a route of our own.
    pub source: Option<PeerKind>,
}

/// Communities of the overlay that a neighbour may not announce, and that were taken from its routes, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stripped {
    /// Of a VNI that is not accepted from it.
    pub vni: u64,
    /// Of a kind that is not accepted from it, or that nobody knows.
    pub kind: u64,
    /// Of an endpoint that is not accepted from it.
    pub endpoint: u64,
}

impl std::ops::AddAssign for Stripped {
    fn add_assign(&mut self, more: Self) {
        self.vni += more.vni;
        self.kind += more.kind;
        self.endpoint += more.endpoint;
    }
}

/// What the overlay has to say when a route comes in or goes out. Results are cached by everything in [`ExportContext`] and the
/// attributes, so they must depend on nothing else; [`crate::rib::Rib::set_hook`] empties the cache.
pub trait ExportHook: Send {
    /// Edits the attributes; false keeps the route back.
    fn export(
        &self,
        context: &ExportContext,
        attributes: AttributesView<'_>,
        edit: &mut AttributesBuilder,
    ) -> bool;

    /// Routes of a neighbour of this import class may lose communities of the overlay: [`ExportHook::import`] is asked.
    fn strips(&self, _import_class: u32) -> bool {
        false
    }

    /// Takes from `edit`, what a neighbour of this import class announces of these prefixes, the communities of the overlay that it
    /// may not announce. Called for routes that have some, and before anything else sees them.
    fn import(
        &self,
        _import_class: u32,
        _prefixes: &mut dyn Iterator<Item = IpNet>,
        _edit: &mut AttributesBuilder,
    ) -> Stripped {
        Stripped::default()
    }

    /// Adds to `edit` (a route already edited by [`ExportHook::export`]) the labels of the other paths of its prefix that
    /// originate in our domain too. Called for sessions with other domains, and for those without ADD-PATH.
    fn join(
        &self,
        others: &mut dyn Iterator<Item = (ExportContext, AttributesView<'_>)>,
        edit: &mut AttributesBuilder,
    );

    /// All labels of these attributes are of such VNIs.
    fn has_labels_of_these_alone(&self, _: AttributesView<'_>, _vnis: &BTreeSet<u32>) -> bool {
        false
    }

    /// Takes from `edit`, which has been joined, what the neighbour is not to know; false keeps the route back.
    fn restrict(&self, _: &ExportContext, _: &mut AttributesBuilder) -> bool {
        true
    }
}

/// Where packets to a prefix cannot be forwarded, since the kernel refuses the route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unforwardable {
    /// By the main table, which routes without labels lead packets to.
    pub underlay: bool,
    /// By the tables of these VNIs.
    pub vnis: BTreeSet<u32>,
}

/// The hook of a speaker without an overlay.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainBgp;

impl ExportHook for PlainBgp {
    fn export(&self, _: &ExportContext, _: AttributesView<'_>, _: &mut AttributesBuilder) -> bool {
        true
    }

    fn join(
        &self,
        _: &mut dyn Iterator<Item = (ExportContext, AttributesView<'_>)>,
        _: &mut AttributesBuilder,
    ) {
    }
}

/// One valid path of a reported prefix.
#[derive(Clone, Debug)]
pub struct ReportedPath {
    /// Who it came from.
    pub source: PeerId,
    /// Tells the paths of one prefix apart.
    pub path_id: u32,
    /// The best one of its prefix by the rules of BGP.
    pub best: bool,
    /// Learned by eBGP.
    pub ebgp: bool,
    /// The session carries several paths of a prefix (RFC 7911).
    pub add_path: bool,
    /// Eligible for the decision process.
    pub eligible: bool,
    /// Packets may not reach the neighbour that it came from: its LOCAL_PREF is 0 ([`super::Rib::set_last_resort`]).
    pub last_resort: bool,
    /// Metric of the route to its next hop.
    pub igp_metric: u32,
    /// Its attributes.
    pub attributes: AttributeSet,
}

/// Prefixes whose paths changed, each with all of its paths now: labelled prefixes, and those that
/// [`RibConfig::report`] names.
#[derive(Clone, Debug, Default)]
pub struct RouteBatch {
    /// Prefix and its range in `paths`; an empty one says that it is gone.
    pub prefixes: Vec<(IpNet, Range<u32>)>,
    /// The paths of all prefixes, the best first.
    pub paths: Vec<ReportedPath>,
}

impl RouteBatch {
    /// Each prefix with its paths.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &[ReportedPath])> {
        self.prefixes.iter().map(|(prefix, range)| {
            (
                *prefix,
                &self.paths[range.start as usize..range.end as usize],
            )
        })
    }

    /// True where nothing changed.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

/// How a prefix selects routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefixSelection {
    /// That prefix alone.
    #[default]
    Exact,
    /// It and the more specific ones.
    Longer,
    /// It and the less specific ones.
    Shorter,
    /// The most specific of it and the less specific ones: what a packet to it would take.
    Longest,
}

/// Which routes a query wants; every condition must hold.
#[derive(Clone, Debug, Default)]
pub struct RouteFilter {
    /// Only this family.
    pub family: Option<Family>,
    /// Only this prefix, or what [`RouteFilter::select`] says.
    pub prefix: Option<IpNet>,
    /// How [`RouteFilter::prefix`] selects.
    pub select: PrefixSelection,
    /// Only paths from this neighbour.
    pub peer: Option<PeerId>,
    /// Only paths with a community of this pattern.
    pub community: Option<CommunityPattern>,
    /// Only paths with a large community of this pattern.
    pub large_community: Option<LargeCommunityPattern>,
    /// Only paths with a large community of the overlay whose Local Data 1 ends with this VNI.
    pub vni: Option<u32>,
    /// Only prefixes behind this one: the cursor of a page.
    pub after: Option<IpNet>,
}

/// One path of a queried prefix.
#[derive(Clone, Debug)]
pub struct RoutePath {
    /// Who it came from.
    pub source: PeerId,
    /// Path identifier as received.
    pub path_id: u32,
    /// `None` for the best path.
    pub lost: Option<Reason>,
    /// Kept over the neighbour's restart.
    pub stale: bool,
    /// Learned by eBGP.
    pub ebgp: bool,
    /// Its attributes.
    pub attributes: AttributeSet,
}

/// A queried prefix.
#[derive(Clone, Debug)]
pub struct Route {
    /// The prefix.
    pub prefix: IpNet,
    /// The paths that the filter let pass, the best first.
    pub paths: Vec<RoutePath>,
}

/// A page of routes.
#[derive(Clone, Debug, Default)]
pub struct RoutePage {
    /// Sorted by family, then by prefix.
    pub routes: Vec<Route>,
    /// All prefixes that match, those on other pages too.
    pub total: usize,
}

/// Counters of one neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Paths held from it, by [`Family::index`].
    pub accepted: [u32; 2],
    /// Prefixes announced by it that the import rules refused: own AS, another AS in front, reflection loop, martian, policy, too many paths of one
    /// prefix.
    pub rejected: u64,
    /// Of these, those that the neighbour leaks: its role and ONLY_TO_CUSTOMER forbid it to announce them (RFC 9234).
    pub route_leaks: u64,
    /// Of these, those that the import policy rejected.
    pub policy_rejected: u64,
    /// UPDATEs treated as withdraw (RFC 7606).
    pub treat_as_withdraw: u64,
    /// Attributes discarded (RFC 7606).
    pub attribute_discard: u64,
    /// Communities of the overlay that were taken from its routes.
    pub stripped: Stripped,
    /// Prefixes announced to it, by [`Family::index`].
    pub advertised: [u32; 2],
    /// Routes kept back because their attributes leave no room for a prefix in a message.
    pub too_large: u64,
}
