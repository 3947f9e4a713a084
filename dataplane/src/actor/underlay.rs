//! The underlay as the kernel has it: how next hops, far ends of tunnels and neighbours are reached, and the routes of ours that
//! follow from it.
//!
//! The kernel is asked, whatever changed: policy rules, other protocols' tables and metrics are its business. Events only say when
//! to ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use tracing::{info, warn};
use weft_overlay::intent::{TenantId, UnderlayRoute};

use super::{Actor, Purpose, Tracked};
use crate::condition::{ConditionKind, Severity};
use crate::model::{Carrier, RouteKey, RouteSpec, Way, underlay_metric};
use crate::netlink::links::put_link_mtu;
use crate::netlink::objects::{
    ForeignNextHop, Question, RTM_GETNEXTHOP, RouteAnswer, get_answer, get_foreign_next_hop,
    put_next_hop_query, route_query,
};
use crate::netlink::socket::Batch;
use crate::resolver::{Answer, Match, Placed};
use crate::{DataplaneEvent, Reach, snapshot};

const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
/// What our own routes hide from us is asked for once they are gone; more turns mean that they do not go.
const TURNS: usize = 4;

fn key(prefix: IpNet) -> RouteKey {
    RouteKey {
        table: MAIN,
        prefix,
        metric: underlay_metric(&prefix),
    }
}

impl Actor {
    /// Takes in which routes the underlay is to have.
    pub(super) fn set_underlay(&mut self, routes: Vec<UnderlayRoute>) {
        for route in routes {
            let placed = self.resolver.set(route.prefix, route.via.first().copied());
            if let Placed::Now(spec) = placed {
                self.place(route.prefix, spec);
            }
        }
        if self.resolver.is_open() {
            self.decide_underlay();
        }
    }

    /// A route of the underlay leads there from now on, or is not to be installed.
    fn place(&mut self, prefix: IpNet, spec: Option<RouteSpec>) {
        match spec {
            Some(spec) => self.want(key(prefix), spec),
            None => self.unwant(key(prefix)),
        }
    }

    /// The kernel has a route of ours that it had not, another one or none any more: what was asked about addresses in its prefix may be
    /// wrong, also where it was put back after somebody had deleted it.
    pub(super) fn outdate(&mut self, key: &RouteKey) {
        if key.table != MAIN {
            return;
        }
        let (first, last) = (key.prefix.network(), key.prefix.broadcast());
        for purpose in [Purpose::NextHop, Purpose::Endpoint] {
            let inside = self.tracked.range((purpose, first)..=(purpose, last));
            self.outdated.extend(inside.map(|(tracked, _)| *tracked));
        }
    }

    /// Asks the kernel what is not known of next hops, and changes the routes whose way is another one now.
    fn decide_underlay(&mut self) {
        for _ in 0..TURNS {
            // What is to go is not to be in the answers.
            self.flush();
            for (number, address) in self.resolver.questions() {
                let answer = self.ask_next_hop(address);
                self.resolver.answer(number, answer);
            }
            let decision = self.resolver.decide(&mut self.way_sets);
            for (prefix, spec) in decision.changed {
                self.place(prefix, spec);
            }
            if !decision.again {
                break;
            }
        }
        self.note_unresolved();
    }

    fn ask_next_hop(&mut self, address: IpAddr) -> Answer {
        let Some(answer) = self.ask_unicast(&address.into()) else {
            return Answer::Nothing;
        };
        let Some(prefix) = answer.prefix else {
            return Answer::Nothing;
        };
        let ours = answer.protocol == self.config.protocol && answer.table == MAIN;
        // What an earlier process left leads there as anybody's does, for as long as it stays.
        if ours && self.resolver.is_wanted(&prefix) {
            return Answer::Ours(prefix);
        }
        Answer::Foreign(Match {
            prefix,
            metric: answer.metric,
            ways: answer.ways,
        })
    }

    /// The kernel's answer with the ways that can be used, where it leads to another router or a link.
    fn ask_unicast(&mut self, question: &Question) -> Option<RouteAnswer> {
        let mut answer = self.ask(question).ok()?;
        if answer.kind != libc::RTN_UNICAST {
            return None;
        }
        if answer.ways.is_empty()
            && let Some(id) = answer.next_hop
        {
            answer.ways = self.ways_of(id);
        }
        let links = &self.links;
        answer
            .ways
            .retain(|way| links.get(&way.interface).is_none_or(|link| link.up));
        Some(answer)
    }

    /// The usable ways of anybody's next-hop object.
    fn ways_of(&mut self, id: u32) -> Vec<Way> {
        let mut one = |id| {
            let mut request = Vec::new();
            put_next_hop_query(&mut request, id);
            let answer = self.netlink.get(RTM_GETNEXTHOP, &request).ok()?.ok()?;
            get_foreign_next_hop(&answer)
        };
        match one(id) {
            Some(ForeignNextHop::Way(way)) => vec![way],
            // Groups have no groups in them.
            Some(ForeignNextHop::Group(members)) => members
                .into_iter()
                .filter_map(|(member, weight)| match one(member) {
                    Some(ForeignNextHop::Way(way)) => Some(Way { weight, ..way }),
                    _ => None,
                })
                .collect(),
            Some(ForeignNextHop::Nowhere) | None => Vec::new(),
        }
    }

    /// What the kernel would do with a packet; its own words where it would drop it.
    pub(super) fn ask(&mut self, question: &Question) -> Result<RouteAnswer, String> {
        let answer = self.netlink.get(libc::RTM_GETROUTE, &route_query(question));
        match answer {
            Ok(Ok(entry)) => {
                get_answer(&entry).ok_or_else(|| "an answer that is not understood".into())
            }
            Ok(Err(refusal)) => Err(refusal.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Goes after the underlay, of which something changed.
    pub(super) fn follow_underlay(&mut self) {
        self.resolver.ask_all();
        if self.resolver.is_open() {
            self.decide_underlay();
            // Before anybody is told: traffic takes another way as soon as it can.
            self.flush();
        }
        self.outdated.clear();
        let all: Vec<(Purpose, IpAddr)> = self.tracked.keys().copied().collect();
        for each in all {
            if !matches!(each.0, Purpose::Site(_)) {
                self.resolve_one(each);
            }
        }
        self.attach_anew(Purpose::Lifeline);
        self.note_unreachable();
        self.fit_mtu();
    }

    /// Asks again about tracked addresses that a route of our own leads to, or no longer.
    pub(super) fn resolve_outdated(&mut self) {
        if self.outdated.is_empty() {
            return;
        }
        for each in std::mem::take(&mut self.outdated) {
            if self.tracked.contains_key(&each) {
                self.resolve_one(each);
            }
        }
        self.note_unreachable();
        self.fit_mtu();
    }

    /// Asks how addresses are reached that are tracked for tenants' own sites.
    pub(super) fn resolve_sites(&mut self) {
        let sites: Vec<(Purpose, IpAddr)> = self
            .tracked
            .keys()
            .filter(|(purpose, _)| matches!(purpose, Purpose::Site(_)))
            .copied()
            .collect();
        for each in sites {
            self.resolve_one(each);
        }
    }

    /// Tracks addresses, and asks about them.
    pub(super) fn track(&mut self, purpose: Purpose, addresses: Vec<IpAddr>) {
        for address in addresses {
            let each = (purpose, address);
            let tracked = self.tracked.entry(each).or_insert(Tracked {
                users: 0,
                reach: None,
                links: Vec::new(),
            });
            self.underlay_changed |= tracked.users == 0;
            tracked.users += 1;
            // Who asks a second time wants an answer too.
            tracked.reach = None;
            self.resolve_one(each);
        }
        self.note_unreachable();
        self.fit_mtu();
    }

    /// Ends [`Actor::track`].
    pub(super) fn untrack(&mut self, purpose: Purpose, addresses: &[IpAddr]) {
        for address in addresses {
            let each = (purpose, *address);
            if let Some(tracked) = self.tracked.get_mut(&each) {
                tracked.users -= 1;
                if tracked.users == 0 {
                    self.underlay_changed = true;
                    self.tracked.remove(&each);
                }
            }
        }
        if purpose == Purpose::Endpoint {
            self.note_unreachable();
        }
    }

    fn resolve_one(&mut self, each: (Purpose, IpAddr)) {
        let (purpose, address) = each;
        if purpose == Purpose::Neighbor {
            return self.follow_neighbor(address);
        }
        let (reach, links) = match purpose {
            Purpose::Site(tenant) => self.lookup_on_link(tenant, address),
            _ => self.lookup(purpose, address),
        };
        let Some(tracked) = self.tracked.get_mut(&each) else {
            return;
        };
        tracked.links = links;
        if purpose == Purpose::Lifeline {
            return;
        }
        if tracked.reach != Some(reach) {
            tracked.reach = Some(reach);
            let news = self.reach_news.entry(purpose).or_default();
            news.push((address, reach));
        }
    }

    /// How an address is reached, and the links that it leaves by.
    fn lookup(&mut self, purpose: Purpose, address: IpAddr) -> (Option<Reach>, Vec<u32>) {
        let question = match purpose {
            Purpose::Endpoint => self.outer_question(address),
            _ => address.into(),
        };
        match self.ask(&question) {
            // A next hop that is this router itself leads nowhere (RFC 4271 section 6.3); a far end may be here.
            Ok(answer) if answer.kind == libc::RTN_LOCAL && purpose != Purpose::Endpoint => {
                (None, answer.interface.into_iter().collect())
            }
            Ok(answer) if answer.kind == libc::RTN_LOCAL => {
                let reach = Reach {
                    metric: answer.metric,
                    floor: u8::MAX,
                };
                (Some(reach), answer.interface.into_iter().collect())
            }
            _ => match self.ask_unicast(&question) {
                Some(answer) if !answer.ways.is_empty() => {
                    let links: Vec<u32> = answer.ways.iter().map(|way| way.interface).collect();
                    // Tunnels end at no tenant's host, whatever it has told the kernel.
                    let reach = match purpose == Purpose::Endpoint && self.lead_to_tenants(&links) {
                        true => None,
                        false => self.reach(&answer),
                    };
                    (reach, links)
                }
                _ => (None, Vec::new()),
            },
        }
    }

    fn reach(&self, answer: &RouteAnswer) -> Option<Reach> {
        let prefix = answer.prefix?;
        let ours = answer.protocol == self.config.protocol && answer.table == MAIN;
        let goes_first = ours || underlay_metric(&prefix) < answer.metric;
        Some(Reach {
            metric: answer.metric,
            floor: prefix.prefix_len() + u8::from(!goes_first),
        })
    }

    /// What the kernel is asked of the outer packet to a far end: from our own endpoint, to the tunnel's port, without a mark.
    pub(super) fn outer_question(&self, address: IpAddr) -> Question {
        let own = self.config.endpoint;
        let mut carriers = self.peers.keys();
        let carrier = carriers
            .find(|(_, peer, _)| *peer == address)
            .map_or_else(|| self.config.carrier(address), |(carrier, ..)| *carrier);
        Question {
            source: own.filter(|own| own.is_ipv4() == address.is_ipv4()),
            udp_port: carrier.port(),
            ..address.into()
        }
    }

    /// 0 and the link, where an address is on a link of the tenant's.
    fn lookup_on_link(&mut self, tenant: TenantId, address: IpAddr) -> (Option<Reach>, Vec<u32>) {
        let Some(table) = self.tenants.get(&tenant).map(|tenant| tenant.table) else {
            return (None, Vec::new());
        };
        let question = Question {
            mark: Some(table),
            ..address.into()
        };
        match self.ask_unicast(&question) {
            Some(answer)
                if answer.table == table
                    && answer.gateway.is_none()
                    && answer.next_hop.is_none()
                    && !answer.ways.is_empty() =>
            {
                let reach = Reach {
                    metric: 0,
                    floor: u8::MAX,
                };
                (Some(reach), answer.interface.into_iter().collect())
            }
            _ => (None, Vec::new()),
        }
    }

    /// Tells when the link to a neighbour that is on it loses its carrier, and when it is back.
    fn follow_neighbor(&mut self, address: IpAddr) {
        let each = (Purpose::Neighbor, address);
        let on_link = match self.ask_unicast(&address.into()) {
            Some(answer) => answer
                .ways
                .first()
                .filter(|way| way.gateway.is_none())
                .map(|way| way.interface),
            None => None,
        };
        let Some(tracked) = self.tracked.get_mut(&each) else {
            return;
        };
        let known = tracked.links.first().copied();
        // `reach` says whether its link was there when it was last told.
        let was_up = !matches!(tracked.reach, Some(None));
        let is_up = |index: u32| self.links.get(&index).is_some_and(|link| link.up);
        match (known, on_link) {
            (_, Some(link)) => {
                tracked.links = vec![link];
                tracked.reach = None;
                if !was_up {
                    self.tell_neighbor_link(address, None);
                }
            }
            // An address that goes and comes back is no loss of the link.
            (Some(link), None) if was_up && !is_up(link) => self.lose_neighbor(address, link),
            (Some(_) | None, None) => {}
        }
    }

    /// Tells of the neighbours on links that an event says are down, before anything is read; false where there are none. What the kernel
    /// says then stands in its place.
    pub(super) fn lose_neighbors(&mut self) -> bool {
        let carriers = &self.pending.carriers;
        if carriers.values().all(|carries| *carries) {
            return false;
        }
        let lost = self
            .tracked
            .iter()
            .filter_map(|((purpose, address), tracked)| {
                let link = tracked.links.first()?;
                let was_up = !matches!(tracked.reach, Some(None));
                let is_down = carriers.get(link) == Some(&false);
                (*purpose == Purpose::Neighbor && was_up && is_down).then_some((*address, *link))
            });
        let lost: Vec<(IpAddr, u32)> = lost.collect();
        for (address, link) in &lost {
            self.lose_neighbor(*address, *link);
        }
        !lost.is_empty()
    }

    fn lose_neighbor(&mut self, address: IpAddr, link: u32) {
        let name = self.links.get(&link).map(|link| link.name.clone());
        let name = name.unwrap_or_else(|| format!("interface {link}, which is gone,"));
        if let Some(tracked) = self.tracked.get_mut(&(Purpose::Neighbor, address)) {
            tracked.reach = Some(None);
        }
        self.tell_neighbor_link(address, Some(name));
    }

    /// Where somebody is to be told at once and cannot take it, all that follows comes as events, in order.
    fn tell_neighbor_link(&mut self, neighbor: IpAddr, lost: Option<String>) {
        let tell = self.tell_neighbor_link.as_ref();
        if !tell.is_some_and(|tell| tell(neighbor, lost.as_deref())) {
            self.tell_neighbor_link = None;
            let link = DataplaneEvent::NeighborLink { neighbor, lost };
            self.news.push(link);
        }
    }

    /// Takes note of what the kernel dropped without a word, when an address or a link went: routes over these links are read again, those of
    /// tenants' tables too. A link that blinks within one burst of events looks as it did before.
    pub(super) fn reread_routes(&mut self, links: &BTreeSet<u32>) {
        if links.is_empty() {
            return;
        }
        let mut over: BTreeMap<(u32, u32), Vec<RouteKey>> = BTreeMap::new();
        for (key, spec) in self.held.iter() {
            let mut note = |link: u32| {
                if links.contains(&link) {
                    over.entry((key.table, link)).or_default().push(*key);
                }
            };
            match spec {
                RouteSpec::Via { interface, .. } => interface.iter().copied().for_each(note),
                RouteSpec::OnLink { interface, .. } | RouteSpec::Connected { interface, .. } => {
                    note(*interface);
                }
                RouteSpec::Ways(set) => {
                    let ways = self.way_sets.get(*set).iter();
                    ways.for_each(|way| note(way.interface));
                }
                _ => {}
            }
        }
        for ((table, link), keys) in over {
            let protocol = self.config.protocol;
            let sets = &mut self.way_sets;
            let there = snapshot::routes_over(&mut self.netlink, sets, protocol, table, link);
            let there: BTreeSet<RouteKey> = match there {
                Ok(there) => there.into_iter().map(|(key, _)| key).collect(),
                Err(error) => {
                    warn!(%error, "cannot read the routes of a link");
                    continue;
                }
            };
            let lost = keys.into_iter().filter(|key| !there.contains(key));
            let lost: Vec<RouteKey> = lost.collect();
            if !lost.is_empty() {
                info!(
                    routes = lost.len(),
                    table, "the kernel dropped routes with a link or an address"
                );
            }
            for key in lost {
                self.held.remove(&key);
                self.queue.push(key);
            }
        }
    }

    /// Says which next hops of routes do not resolve.
    fn note_unresolved(&mut self) {
        let now = Instant::now();
        let mut wrong = BTreeSet::new();
        for each in self.resolver.unresolved() {
            let subject = each.address.to_string();
            let routes = each.routes;
            let detail = format!(
                "no route to the next hop {subject}: {routes} underlay routes that lead over it are not installed"
            );
            let remedy = format!("`ip route get {subject}` says what the kernel has");
            let what = (ConditionKind::NextHop, subject.as_str());
            self.conditions
                .set(now, what, Severity::Degraded, detail, Some(remedy));
            wrong.insert(subject);
        }
        for prefix in self.resolver.loops() {
            let subject = prefix.to_string();
            let detail = format!(
                "{subject} is the best route to its own next hop: it would lead to itself, and is not installed"
            );
            let what = (ConditionKind::NextHop, subject.as_str());
            self.conditions
                .set(now, what, Severity::Degraded, detail, None);
            wrong.insert(subject);
        }
        self.conditions
            .retain(now, ConditionKind::NextHop, |subject| {
                wrong.contains(subject)
            });
    }

    /// Says that this end of the tunnels is gone; true where it is.
    fn note_endpoint_address(&mut self, now: Instant) -> bool {
        let held = |endpoint: &IpAddr| self.addresses.iter().any(|held| held.address == *endpoint);
        let gone = self.config.endpoint.filter(|endpoint| !held(endpoint));
        if let Some(endpoint) = gone {
            let subject = endpoint.to_string();
            let detail = format!(
                "no interface has {endpoint}, where this router's tunnels end: nothing leaves or arrives by them"
            );
            let length = if endpoint.is_ipv4() { 32 } else { 128 };
            let remedy = format!(
                "`ip address add {endpoint}/{length} dev lo`; a router whose address is another one now is to be restarted with that"
            );
            let what = (ConditionKind::EndpointAddress, subject.as_str());
            self.conditions
                .set(now, what, Severity::Down, detail, Some(remedy));
        }
        self.conditions
            .retain(now, ConditionKind::EndpointAddress, |_| gone.is_some());
        gone.is_some()
    }

    /// Says which far ends of tunnels have no route.
    fn note_unreachable(&mut self) {
        let now = Instant::now();
        let gone = self.note_endpoint_address(now);
        let all = self
            .tracked
            .range((Purpose::Endpoint, IpAddr::from([0; 4]))..)
            .take_while(|((purpose, _), _)| *purpose == Purpose::Endpoint);
        // Without an address to leave from, the kernel has no route to any of them: that is said once.
        let without = all.filter(|(_, tracked)| !gone && tracked.reach == Some(None));
        let without: Vec<IpAddr> = without.map(|((_, address), _)| *address).collect();
        for address in &without {
            let subject = address.to_string();
            let remedy = if self.config.installs_underlay {
                format!("announce a route to {subject} in the underlay")
            } else {
                "`overlay.install_underlay: true` takes it from BGP".to_owned()
            };
            let detail =
                format!("no route to {subject}: tenants' routes that lead there are not installed");
            let what = (ConditionKind::Unreachable, subject.as_str());
            self.conditions
                .set(now, what, Severity::Degraded, detail, Some(remedy));
        }
        self.conditions
            .retain(now, ConditionKind::Unreachable, |subject| {
                without.iter().any(|address| address.to_string() == subject)
            });
    }

    /// Each device's MTU follows the narrowest link that its tunnels leave by.
    pub(super) fn fit_mtu(&mut self) {
        let mut narrowest: BTreeMap<Carrier, u32> = BTreeMap::new();
        for (carrier, endpoint, _) in self.peers.keys() {
            let Some(tracked) = self.tracked.get(&(Purpose::Endpoint, *endpoint)) else {
                continue;
            };
            for link in &tracked.links {
                let Some(link) = self.links.get(link) else {
                    continue;
                };
                let mtu = link.mtu.saturating_sub(carrier.overhead(*endpoint));
                let least = narrowest.entry(*carrier).or_insert(u32::MAX);
                *least = mtu.clamp(576, 65_000).min(*least);
            }
        }
        for (carrier, mtu) in narrowest {
            let Some(device) = self.devices.get_mut(&carrier) else {
                continue;
            };
            if mtu == device.mtu {
                continue;
            }
            let index = device.index;
            let mut batch = Batch::default();
            batch.push(libc::RTM_NEWLINK, 0, |out| put_link_mtu(out, index, mtu));
            match self.netlink.send(batch) {
                Ok(refused) if refused.is_empty() => {
                    info!(device = %carrier.name(), mtu, "MTU follows the underlay");
                    device.mtu = mtu;
                    self.paths.refit();
                    self.note_targets();
                }
                Ok(refused) => warn!(mtu, kernel = %refused[0].1, "the kernel refused the MTU"),
                Err(error) => warn!(mtu, %error, "cannot set the MTU"),
            }
        }
    }
}
