//! How large packets to each far end may be (path MTU discovery, RFC 1191 and RFC 8201, RFC 8899), and what follows for tenants.
//!
//! The kernel learns it from routers on the way and keeps it to itself: a tenant's packet that is too large with its outer headers is
//! lost, and its sender never hears of it. So routes that lead there say it, and the kernel tells tenants: routes whose way is as wide
//! as the device say nothing and cost nothing. What the kernel learns makes no event: it is asked, far end by far end.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Bound;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tracing::{debug, info, warn};
use weft_overlay::EndpointId;
use weft_overlay::intent::{Group, GroupId};

use super::targets::PathLimits;
use super::{Actor, Purpose};
use crate::PathStatus;
use crate::condition::{ConditionKind, Severity};
use crate::model::{Carrier, Family, NextHop, RouteKey, RouteSpec};
use crate::netlink::links::{RTM_GETSTATS, get_sent_octets, stats_query};
use crate::netlink::objects::{KernelPath, get_path, learned_path_key, path_query};
use crate::netlink::socket::Batch;

/// What probes found holds so long, unless they say it again.
pub const PATH_LASTS: Duration = Duration::from_secs(1200);
/// What an earlier process's routes say holds so long: probes have found it by then.
const ADOPTED_LASTS: Duration = Duration::from_secs(60);
/// What the kernel has forgotten holds so long: probes look first whether the way is wide again, so that no tenant's packet has to.
const FORGOTTEN_LASTS: Duration = Duration::from_secs(3);
/// The kernel is asked about so many far ends, so often: each turn is a few hundred microseconds of work.
const TURN: Duration = Duration::from_millis(500);
const AT_ONCE: usize = 50;
/// Between two times that the kernel is made to forget what it has learned.
const FORGET: Duration = Duration::from_secs(5);
/// What every link of IPv4 has to take (RFC 791 section 3.2): no route says less.
const LEAST: u16 = 68;
/// Less no sender of IPv6 can be asked for (RFC 8200 section 5).
const LEAST_IPV6: u16 = 1280;
/// Far ends that a condition names.
const NAMED: usize = 3;

type Peer = (Carrier, IpAddr, Option<EndpointId>);

/// What is known of the way to a far end, octets with outer headers; nothing where it is as wide as the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Path {
    /// As the kernel has it: a router on the way told it, or its own route does.
    kernel: Option<KernelPath>,
    /// As probes found it, or as it was, and until when.
    found: Option<(u16, Instant)>,
}

impl Path {
    fn octets(&self) -> Option<u16> {
        let kernel = self.kernel.map(|kernel| kernel.octets);
        let found = self.found.map(|(octets, _)| octets);
        kernel.into_iter().chain(found).min()
    }
}

/// Far ends whose way is not known to be as wide as the link.
#[derive(Default)]
pub(super) struct Paths {
    known: BTreeMap<IpAddr, Path>,
    /// Who was asked about last.
    last: Option<Peer>,
    ask_at: Option<Instant>,
    /// The kernel is made to forget nothing before.
    forget_at: Option<Instant>,
    /// Some way has been narrow, as far as this process or the one before knows: routes that are as wide as the device may stand beside
    /// others.
    pub(super) ever_narrow: bool,
    /// Routes have to follow.
    changed: bool,
    /// What the classifier knows: octets of a tenant's packet.
    told: BTreeMap<IpAddr, u16>,
}

impl Paths {
    /// Devices are as wide as they were not before.
    pub(super) fn refit(&mut self) {
        self.changed |= !self.known.is_empty();
    }

    pub(super) fn forget(&mut self, endpoint: IpAddr) {
        self.changed |= self.known.remove(&endpoint).is_some();
    }

    fn set(&mut self, endpoint: IpAddr, path: Path) {
        let before = self.known.get(&endpoint).copied().unwrap_or_default();
        if path.octets().is_none() {
            self.known.remove(&endpoint);
        } else {
            self.ever_narrow = true;
            self.known.insert(endpoint, path);
        }
        self.changed |= before.octets() != path.octets();
    }
}

impl Actor {
    /// When a far end is to be asked about.
    pub(super) fn next_paths(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        self.paths.ask_at
    }

    /// Asks about the far ends whose turn it is, and has routes follow what is known.
    pub(super) fn look_at_paths(&mut self) {
        let now = Instant::now();
        if !self.peers.is_empty() && self.paths.ask_at.is_none_or(|at| at <= now) {
            self.paths.ask_at = Some(now + TURN);
            self.forget_old_paths(now);
            let after = self.paths.last.map_or(Bound::Unbounded, Bound::Excluded);
            let turn: Vec<Peer> = self
                .peers
                .range((after, Bound::Unbounded))
                .map(|(peer, _)| *peer)
                .take(AT_ONCE)
                .collect();
            // The rotation begins anew with its end.
            self.paths.last = turn.last().copied().filter(|_| turn.len() == AT_ONCE);
            for (_, endpoint, _) in turn {
                self.ask_path(endpoint);
            }
        }
        if std::mem::take(&mut self.paths.changed) {
            self.follow_paths(now);
        }
    }

    fn forget_old_paths(&mut self, now: Instant) {
        let old: Vec<IpAddr> = self
            .paths
            .known
            .iter()
            .filter(|(_, path)| path.found.is_some_and(|(_, until)| until <= now))
            .map(|(endpoint, _)| *endpoint)
            .collect();
        for endpoint in old {
            self.set_probed_path(endpoint, None);
        }
    }

    /// Asks the kernel how large a packet to a far end may be.
    pub(super) fn ask_path(&mut self, endpoint: IpAddr) {
        // What may be fragmented need not fit.
        if endpoint.is_ipv4() && !self.config.dont_fragment {
            return;
        }
        let question = self.outer_question(endpoint);
        // Of several ways each has its own.
        let tracked = self.tracked.get(&(Purpose::Endpoint, endpoint));
        let mut links = tracked.map_or_else(Vec::new, |tracked| tracked.links.clone());
        links.sort_unstable();
        links.dedup();
        let outs: Vec<Option<u32>> = match links.len() {
            0 | 1 => vec![None],
            _ => links.into_iter().map(Some).collect(),
        };
        let mut kernel = None;
        for out in outs {
            let query = path_query(&crate::netlink::objects::Question { out, ..question });
            // One that cannot be reached has no path; what is wrong then is said elsewhere.
            if let Ok(Ok(answer)) = self.netlink.get(libc::RTM_GETROUTE, &query)
                && let Some(path) = get_path(&answer)
            {
                kernel = Some(kernel.map_or(path, |least: KernelPath| least.min(path)));
            }
        }
        let mut path = self.paths.known.get(&endpoint).copied();
        if path.is_none() && kernel.is_none() {
            return;
        }
        let path = path.get_or_insert_default();
        if path.kernel == kernel {
            return;
        }
        if let (Some(before), None, None) = (path.kernel, kernel, path.found) {
            path.found = Some((before.octets, Instant::now() + FORGOTTEN_LASTS));
        }
        path.kernel = kernel;
        let path = *path;
        self.paths.set(endpoint, path);
        self.note_targets();
    }

    /// Takes what probes found.
    pub(super) fn set_probed_path(&mut self, endpoint: IpAddr, octets: Option<u16>) {
        if !self
            .peers
            .keys()
            .any(|(_, address, _)| *address == endpoint)
        {
            return;
        }
        let path = self.paths.known.get(&endpoint).copied().unwrap_or_default();
        let found = octets.map(|octets| (octets, Instant::now() + PATH_LASTS));
        self.paths.set(endpoint, Path { found, ..path });
    }

    /// Probes found that so many octets reach a far end, and the kernel lets fewer, as a router on the way once told it: it forgets that.
    pub(super) fn exceed_path(&mut self, endpoint: IpAddr, octets: u16) {
        let now = Instant::now();
        let known = self.paths.known.get(&endpoint).and_then(|path| path.kernel);
        let learned = known.is_some_and(|known| known.learned && known.octets < octets);
        if !learned || self.paths.forget_at.is_some_and(|at| now < at) {
            return;
        }
        self.paths.forget_at = Some(now + FORGET);
        if let Err(error) = self.forget_learned_path(endpoint) {
            debug!(%endpoint, %error, "the kernel keeps what it has learned of the way until it forgets by itself");
            return;
        }
        let links = self.devices.iter().map(|(carrier, device)| {
            let overhead = carrier.overhead(endpoint);
            u16::try_from(device.mtu + overhead).unwrap_or(u16::MAX)
        });
        // What is between is found by more probes, and not by tenants' packets.
        let found = links.max().filter(|link| octets < *link);
        let found = found.map(|_| (octets, now + PATH_LASTS));
        let path = Path {
            kernel: None,
            found,
        };
        self.paths.set(endpoint, path);
        self.note_targets();
        self.ask_path(endpoint);
    }

    /// Over IPv4 what the kernel has learned is forgotten of all ways at once, which costs one packet for each that is narrow: there is no
    /// request for one.
    fn forget_learned_path(&mut self, endpoint: IpAddr) -> io::Result<()> {
        if endpoint.is_ipv4() {
            return std::fs::write("/proc/sys/net/ipv4/route/flush", "1");
        }
        let query = path_query(&self.outer_question(endpoint));
        let answer = self.netlink.get(libc::RTM_GETROUTE, &query)?;
        let Some(key) = answer.ok().as_deref().and_then(learned_path_key) else {
            return Ok(());
        };
        let mut batch = Batch::default();
        batch.push(libc::RTM_DELROUTE, 0, |out| out.extend_from_slice(&key));
        match self.netlink.send(batch)?.first() {
            Some((_, refusal)) => Err(io::Error::other(refusal.to_string())),
            None => Ok(()),
        }
    }

    /// Octets that tenants have sent into tunnels since their devices were made.
    pub(super) fn tunnel_octets(&mut self) -> u64 {
        let devices: Vec<u32> = self.devices.values().map(|device| device.index).collect();
        let octets = devices.into_iter().filter_map(|index| {
            let answer = self.netlink.get(RTM_GETSTATS, &stats_query(index));
            get_sent_octets(&answer.ok()?.ok()?)
        });
        octets.sum()
    }

    /// Takes over what routes of an earlier process say, until it is known anew.
    pub(super) fn adopt_paths(&mut self) {
        let until = Instant::now() + ADOPTED_LASTS;
        let mut found: BTreeMap<IpAddr, u16> = BTreeMap::new();
        for (key, spec) in self.held.iter() {
            let RouteSpec::NextHop { id, mtu: Some(mtu) } = spec else {
                continue;
            };
            if Family::of(key.prefix) == Family::V6 && mtu.get() == LEAST_IPV6 {
                continue;
            }
            let members = match self.next_hops.get(*id) {
                Some(NextHop::Group { members, .. }) => members.iter().map(|(id, _)| *id).collect(),
                _ => vec![*id],
            };
            for id in members {
                let Some(NextHop::Tunnel(tunnel)) = self.next_hops.get(id) else {
                    continue;
                };
                let mut devices = self.devices.iter();
                let device = devices.find(|(_, device)| device.index == tunnel.interface);
                if let Some((carrier, _)) = device {
                    let overhead = carrier.overhead(tunnel.destination) as u16;
                    let octets = mtu.get().saturating_add(overhead);
                    // Of a group the narrowest counts: of its members this is the one whose own routes say no more.
                    let most = found.entry(tunnel.destination).or_default();
                    *most = octets.max(*most);
                }
            }
        }
        for (endpoint, octets) in found {
            let found = Some((octets, until));
            let path = Path {
                kernel: None,
                found,
            };
            self.paths.set(endpoint, path);
        }
    }

    /// What a tenant's packet to a far end may have, where the way there is narrower than the device.
    pub(super) fn inner_mtu(&self, carrier: Carrier, endpoint: IpAddr) -> Option<NonZeroU16> {
        let octets = self.paths.known.get(&endpoint)?.octets()?;
        let mtu = octets.saturating_sub(carrier.overhead(endpoint) as u16);
        let device = self.devices.get(&carrier)?;
        NonZeroU16::new(mtu.max(LEAST)).filter(|_| u32::from(mtu) < device.mtu)
    }

    /// The narrowest way of a group, where it is narrower than the device.
    pub(super) fn group_mtu(&self, group: &Group) -> Option<NonZeroU16> {
        if self.paths.known.is_empty() {
            return None;
        }
        let hops = group.hops.0.iter();
        let ways = hops.filter_map(|hop| {
            let carrier = Carrier::to(hop);
            self.inner_mtu(carrier, hop.address)
        });
        ways.min()
    }

    /// Routes over ways that are narrower or wider than they were are written again; others are not touched.
    fn follow_paths(&mut self, now: Instant) {
        let mut changed: FxHashMap<GroupId, Option<NonZeroU16>> = FxHashMap::default();
        for (id, shared) in &self.groups {
            let mtu = self.group_mtu(&shared.group);
            if mtu != shared.mtu {
                changed.insert(*id, mtu);
            }
        }
        if !changed.is_empty() {
            for (id, mtu) in &changed {
                if let Some(shared) = self.groups.get_mut(id) {
                    shared.mtu = *mtu;
                }
            }
            let all = self.group_of.iter();
            let routes: Vec<(RouteKey, GroupId)> = all
                .filter(|(_, group)| changed.contains_key(group))
                .map(|(key, group)| (*key, *group))
                .collect();
            info!(routes = routes.len(), "MTU of routes follows their paths");
            for (key, group) in routes {
                self.want_again(key, group);
            }
        }
        self.note_paths(now);
        self.note_targets();
    }

    /// Far ends whose way is narrower than the device that leads there.
    pub(super) fn narrow_paths(&self) -> Vec<PathStatus> {
        let mut narrow: BTreeMap<IpAddr, PathStatus> = BTreeMap::new();
        for (endpoint, path) in &self.paths.known {
            let carriers = self.devices.keys().copied();
            let used = carriers.filter(|carrier| {
                let first = (*carrier, *endpoint, None);
                let mut from = self.peers.range(first..);
                (from.next()).is_some_and(|((one, to, _), _)| one == carrier && to == endpoint)
            });
            let mtu = used.filter_map(|carrier| self.inner_mtu(carrier, *endpoint));
            if let (Some(mtu), Some(outer)) = (mtu.min(), path.octets()) {
                let status = PathStatus {
                    endpoint: *endpoint,
                    outer,
                    mtu: mtu.get(),
                    probed: path.kernel.is_none_or(|kernel| kernel.octets != outer),
                };
                narrow.insert(*endpoint, status);
            }
        }
        narrow.into_values().collect()
    }

    /// Octets that an outer packet to a far end may have as far as the kernel knows, which probes may find less than, and more than where
    /// it has learned it.
    pub(super) fn path_limits(&self, carrier: Carrier, endpoint: IpAddr) -> PathLimits {
        let device = self.devices.get(&carrier).map_or(0, |device| device.mtu);
        let link = u16::try_from(device + carrier.overhead(endpoint)).unwrap_or(u16::MAX);
        let path = self.paths.known.get(&endpoint);
        let kernel = path.and_then(|path| path.kernel);
        let known = kernel.map_or(link, |kernel| kernel.octets.min(link));
        let learned = kernel.is_some_and(|kernel| kernel.learned);
        PathLimits {
            known,
            link: if learned { link } else { known },
        }
    }

    /// Tells the classifier, and whoever asks for conditions.
    fn note_paths(&mut self, now: Instant) {
        let narrow = self.narrow_paths();
        let told: BTreeMap<IpAddr, u16> =
            narrow.iter().map(|one| (one.endpoint, one.mtu)).collect();
        if let Some(classifier) = &self.classifier {
            for endpoint in self.paths.told.keys().filter(|one| !told.contains_key(one)) {
                classifier.remove_path(*endpoint);
            }
            for (endpoint, mtu) in &told {
                if self.paths.told.get(endpoint) != Some(mtu)
                    && let Err(error) = classifier.set_path(*endpoint, *mtu)
                {
                    warn!(%endpoint, %error, "cannot tell the classifier of a path");
                }
            }
            self.paths.told = told;
        }
        let words = |one: &[&PathStatus]| {
            let named = one.iter().take(NAMED);
            let named: Vec<String> = named
                .map(|one| format!("{} ({} octets)", one.endpoint, one.mtu))
                .collect();
            match one.len() - named.len() {
                0 => named.join(", "),
                more => format!("{} and {more} more", named.join(", ")),
            }
        };
        let all: Vec<&PathStatus> = narrow.iter().collect();
        let too_narrow = narrow.iter().filter(|one| one.mtu < LEAST_IPV6);
        let too_narrow: Vec<&PathStatus> = too_narrow.collect();
        let found = [
            (
                "tunnels",
                Severity::Notice,
                format!(
                    "the way is narrower than the device: {}; tenants are told",
                    words(&all)
                ),
                "`weft show endpoints` has all of them; wider links on the way cost fewer packets",
                &all,
            ),
            (
                "IPv6",
                Severity::Degraded,
                format!(
                    "IPv6 needs {LEAST_IPV6} octets in the tunnel, and there are fewer: {}; larger packets are lost",
                    words(&too_narrow)
                ),
                "wider links on the way, or an encapsulation with less overhead; over IPv4 `overlay.dont_fragment: no` has routers on the way fragment",
                &too_narrow,
            ),
        ];
        for (subject, severity, detail, remedy, one) in found {
            let what = (ConditionKind::PathMtu, subject);
            if one.is_empty() {
                self.conditions.clear(now, what.0, what.1);
            } else {
                let remedy = Some(remedy.to_owned());
                self.conditions.set(now, what, severity, detail, remedy);
            }
        }
    }
}

/// What a route of a family may say: senders of IPv6 cannot be asked for less than 1280 octets.
pub(super) fn for_family(mtu: Option<NonZeroU16>, family: Family) -> Option<NonZeroU16> {
    const LEAST: NonZeroU16 = NonZeroU16::new(LEAST_IPV6).unwrap();
    match family {
        Family::V4 => mtu,
        Family::V6 => mtu.map(|mtu| mtu.max(LEAST)),
    }
}
