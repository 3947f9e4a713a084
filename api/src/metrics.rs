//! What can be counted, for Prometheus: the OpenMetrics text format.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::types::{
    BfdLateness, BfdSession, BfdState, Chain, Endpoint, HealthCode, Kernel, Neighbor, Probes,
    Service, SessionState, Status, Tenant, Traffic, Verdict,
};

pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the router said of itself, all at once.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) status: Status,
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) kernel: Kernel,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) services: Vec<Service>,
    pub(crate) chains: Vec<Chain>,
}

impl Snapshot {
    pub(crate) fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

/// Labels of one value, and the value.
type Sample<'a> = (Vec<(&'static str, String)>, u64);

/// Name and help of a counter, and where its value is.
type Counter<T> = (&'static str, &'static str, fn(&T) -> u64);

/// Pairs of a VNI and a router at the far end that have counters of their own, those that carried most; the counters of a tenant are of
/// all its pairs. With 4,000 tenants and 2,000 routers there would be millions.
const TUNNELS: usize = 1000;

struct Writer<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Writer<'_> {
    fn write(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'static>>,
    ) -> fmt::Result {
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        let write = |value: u64, encoder: MetricEncoder<'_>| match kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
        };
        for (labels, value) in samples {
            if labels.is_empty() {
                return write(value, encoder);
            }
            write(value, encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A metric that has always the value 1, and says all by its labels.
    fn info(&mut self, name: &str, help: &str, labels: Vec<(&'static str, String)>) -> fmt::Result {
        let encoder = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Info)?;
        Info::new(labels).encode(encoder)
    }

    /// Times in microseconds, written in seconds.
    fn seconds(
        &mut self,
        name: &str,
        help: &str,
        micros: impl IntoIterator<Item = Sample<'static>>,
    ) -> fmt::Result {
        let mut encoder = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, micros) in micros {
            let seconds = micros as f64 / 1e6;
            ConstGauge::new(seconds).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram of times, which are written in seconds.
    fn lateness(&mut self, name: &str, help: &str, lateness: &BfdLateness) -> fmt::Result {
        let mut encoder =
            self.encoder
                .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let classes = lateness.classes.iter();
        let buckets: Vec<(f64, u64)> = classes
            .map(|class| {
                let bound = class.at_most.map_or(f64::MAX, |micros| micros as f64 / 1e6);
                (bound, class.times)
            })
            .collect();
        let count = buckets.iter().map(|(_, times)| times).sum();
        let sum = lateness.sum as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write(MetricType::Gauge, name, help, [(Vec::new(), value)])
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write(MetricType::Counter, name, help, [(Vec::new(), value)])
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer { encoder };
        self.router(&mut writer)?;
        self.neighbors(&mut writer)?;
        self.groups(&mut writer)?;
        self.bfd(&mut writer)?;
        self.tenants(&mut writer)?;
        self.kernel(&mut writer)?;
        self.traffic(&mut writer)?;
        self.endpoints(&mut writer)?;
        self.chains(&mut writer)
    }
}

impl Snapshot {
    fn router(&self, out: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        out.info(
            "weft_build",
            "The software that runs.",
            vec![("version", status.version.clone())],
        )?;
        out.info(
            "weft_router",
            "The router: its name, BGP Identifier and AS number.",
            vec![
                ("name", status.name.clone()),
                ("router_id", status.router_id.to_string()),
                ("asn", status.asn.to_string()),
            ],
        )?;
        out.gauge(
            "weft_uptime_seconds",
            "Time since the process started, in seconds.",
            status.uptime,
        )?;
        if let Some(refused) = status.signatures {
            let refused = [
                ("missing", refused.missing),
                ("unexpected", refused.unexpected),
                ("wrong", refused.wrong),
            ];
            out.write(
                MetricType::Counter,
                "weft_tcp_refused_signatures",
                "TCP segments that the kernel has refused for their signatures (TCP MD5) in this network namespace, by reason.",
                refused.map(|(reason, count)| (vec![("reason", reason.to_owned())], count)),
            )?;
        }
        out.gauge(
            "weft_resident_memory_bytes",
            "Resident memory of the process, in bytes.",
            status.memory,
        )?;
        out.write(
            MetricType::Gauge,
            "weft_forwarding",
            "1 for the verdict that holds, 0 for the others: forwarding, degraded or down.",
            Verdict::ALL.map(|verdict| {
                let labels = vec![("verdict", verdict.as_str().to_owned())];
                (labels, u64::from(verdict == status.forwarding.verdict))
            }),
        )?;
        let mut conditions: BTreeMap<&str, u64> = BTreeMap::new();
        let conditions_now = status.forwarding.conditions.iter();
        // Those that cost nothing are no faults.
        for condition in conditions_now.filter(|one| one.severity != Verdict::Forwarding) {
            *conditions.entry(&condition.code).or_default() += 1;
        }
        out.write(
            MetricType::Gauge,
            "weft_conditions",
            "Faults that keep packets from their destination now, by kind.",
            conditions
                .into_iter()
                .map(|(code, count)| (vec![("code", code.to_owned())], count)),
        )?;
        out.gauge(
            "weft_converged",
            "1 when initial convergence is done: every neighbour has sent End-of-RIB, or was waited for long enough.",
            status.converged.into(),
        )?;
        out.gauge(
            "weft_attribute_sets",
            "Distinct sets of BGP path attributes in memory.",
            status.attribute_sets,
        )?;
        let prefixes = status.prefixes.iter();
        out.write(
            MetricType::Gauge,
            "weft_bgp_prefixes",
            "Prefixes in the Loc-RIB, by address family.",
            prefixes.map(|item| {
                (
                    vec![("family", item.family.as_str().to_owned())],
                    item.count,
                )
            }),
        )?;
        let mut alarms: Vec<(&str, u64)> = vec![
            ("invalid-origin", 0),
            ("locator-conflict", 0),
            ("overlap-hidden", 0),
        ];
        for alarm in &status.alarms {
            match alarms.iter_mut().find(|(code, _)| *code == alarm.code) {
                Some((_, count)) => *count += 1,
                None => alarms.push((&alarm.code, 1)),
            }
        }
        out.write(
            MetricType::Gauge,
            "weft_alarms",
            "Alarms that are raised now, by kind.",
            alarms
                .into_iter()
                .map(|(code, count)| (vec![("code", code.to_owned())], count)),
        )
    }

    fn bfd(&self, out: &mut Writer<'_>) -> fmt::Result {
        let Some(bfd) = &self.status.bfd else {
            return Ok(());
        };
        let sessions = || {
            let neighbors = self.neighbors.iter();
            neighbors.filter_map(|neighbor| Some((identity(neighbor), neighbor.bfd.as_ref()?)))
        };
        let in_state = |state: BfdState| {
            let count = sessions().filter(|(_, one)| one.state == state).count();
            (vec![("state", state.as_str().to_owned())], count as u64)
        };
        out.write(
            MetricType::Gauge,
            "weft_bfd_sessions",
            "BFD sessions, by their state here.",
            BfdState::ALL.iter().map(|state| in_state(*state)),
        )?;
        out.write(
            MetricType::Gauge,
            "weft_bfd_session_up",
            "1 where BFD with the neighbour is up.",
            sessions().map(|(labels, one)| (labels, u64::from(one.state == BfdState::Up))),
        )?;
        let counters: [Counter<BfdSession>; 7] = [
            (
                "weft_bfd_session_ups",
                "How often BFD with the neighbour came up.",
                |one| one.ups,
            ),
            (
                "weft_bfd_session_downs",
                "How often BFD with the neighbour left up.",
                |one| one.downs,
            ),
            (
                "weft_bfd_packets_received",
                "BFD packets from the neighbour.",
                |one| one.received,
            ),
            (
                "weft_bfd_packets_sent",
                "BFD packets to the neighbour.",
                |one| one.sent,
            ),
            (
                "weft_bfd_packets_unsent",
                "BFD packets to the neighbour that could not be sent.",
                |one| one.unsent,
            ),
            (
                "weft_bfd_packets_sent_late",
                "BFD packets sent late by half an interval and more.",
                |one| one.sent_late,
            ),
            (
                "weft_bfd_detection_extended",
                "How often the neighbour was given more time, since this router looked late itself.",
                |one| one.late,
            ),
        ];
        for (name, help, value) in counters {
            let samples = sessions().map(|(labels, one)| (labels, value(one)));
            out.write(MetricType::Counter, name, help, samples)?;
        }
        let discarded = bfd.discarded.iter();
        out.write(
            MetricType::Counter,
            "weft_bfd_packets_discarded",
            "BFD packets discarded, by reason.",
            discarded.map(|one| (vec![("reason", one.reason.clone())], one.packets)),
        )?;
        out.counter(
            "weft_bfd_packets_dropped",
            "BFD packets that the kernel dropped before they were read: come over a router where none may be, or too many at once.",
            bfd.dropped,
        )?;
        out.lateness(
            "weft_bfd_lateness_seconds",
            "How late the thread of BFD was woken for what was due, in seconds.",
            &bfd.lateness,
        )
    }

    fn neighbors(&self, out: &mut Writer<'_>) -> fmt::Result {
        let each = |value: fn(&Neighbor) -> u64| {
            self.neighbors.iter().map(move |neighbor| {
                let mut labels = identity(neighbor);
                labels.push(("asn", neighbor.asn.to_string()));
                (labels, value(neighbor))
            })
        };
        out.write(
            MetricType::Gauge,
            "weft_bgp_neighbor_up",
            "1 where the session is established.",
            each(|neighbor| u64::from(neighbor.state == SessionState::Established)),
        )?;
        let counters: [Counter<Neighbor>; 6] = [
            (
                "weft_bgp_neighbor_flaps",
                "How often the session went down.",
                |neighbor| neighbor.flaps,
            ),
            (
                "weft_bgp_neighbor_updates",
                "UPDATE messages received.",
                |neighbor| neighbor.updates,
            ),
            (
                "weft_bgp_neighbor_rejected",
                "Prefixes from the neighbour that import rules rejected.",
                |neighbor| neighbor.rejected,
            ),
            (
                "weft_bgp_neighbor_route_leaks",
                "Of these, prefixes that roles and ONLY_TO_CUSTOMER forbid it to announce (RFC 9234).",
                |neighbor| neighbor.route_leaks,
            ),
            (
                "weft_bgp_neighbor_treat_as_withdraw",
                "UPDATE messages that were malformed and treated as withdraw (RFC 7606).",
                |neighbor| neighbor.treat_as_withdraw,
            ),
            (
                "weft_bgp_neighbor_attribute_discard",
                "Malformed path attributes that were discarded (RFC 7606).",
                |neighbor| neighbor.attribute_discard,
            ),
        ];
        for (name, help, value) in counters {
            out.write(MetricType::Counter, name, help, each(value))?;
        }
        let stripped = self.neighbors.iter().flat_map(|neighbor| {
            let stripped = neighbor.stripped;
            [
                ("vni", stripped.vni),
                ("kind", stripped.kind),
                ("endpoint", stripped.endpoint),
            ]
            .map(|(reason, count)| {
                let mut labels = identity(neighbor);
                labels.push(("reason", reason.to_owned()));
                (labels, count)
            })
        });
        out.write(
            MetricType::Counter,
            "weft_bgp_neighbor_stripped_communities",
            "Communities of the overlay that the neighbour may not announce, taken from its routes, by reason.",
            stripped,
        )?;
        let refused = self.neighbors.iter().flat_map(|neighbor| {
            let refused = neighbor.refused_labels;
            [("invalid", refused.invalid), ("unknown", refused.unknown)].map(|(origin, count)| {
                let mut labels = identity(neighbor);
                labels.push(("origin", origin.to_owned()));
                (labels, count)
            })
        });
        out.write(
            MetricType::Gauge,
            "weft_overlay_refused_labels",
            "Labels on the neighbour's routes that are not used, since the controller does not say that they may lead where they do, by \
             their origin.",
            refused,
        )?;
        let prefixes = self.neighbors.iter().flat_map(|neighbor| {
            neighbor.prefixes.iter().map(|prefixes| {
                let mut labels = identity(neighbor);
                labels.push(("family", prefixes.family.as_str().to_owned()));
                (labels, prefixes.received)
            })
        });
        out.write(
            MetricType::Gauge,
            "weft_bgp_neighbor_paths",
            "Paths accepted from the neighbour, by address family.",
            prefixes,
        )
    }

    fn groups(&self, out: &mut Writer<'_>) -> fmt::Result {
        let mut dynamic: BTreeMap<&str, u64> = BTreeMap::new();
        for neighbor in self.neighbors.iter().filter(|one| one.dynamic) {
            *dynamic
                .entry(neighbor.group.as_deref().unwrap_or_default())
                .or_default() += 1;
        }
        out.write(
            MetricType::Gauge,
            "weft_bgp_dynamic_neighbors",
            "Neighbours that joined the group by connecting, with or without a session.",
            dynamic
                .into_iter()
                .map(|(group, count)| (vec![("group", group.to_owned())], count)),
        )
    }

    fn tenants(&self, out: &mut Writer<'_>) -> fmt::Result {
        let tenants = self.tenants.iter();
        out.write(
            MetricType::Gauge,
            "weft_tenant_routes",
            "Prefixes in the tenant's table that other routers announce.",
            tenants.map(|tenant| (vec![("tenant", tenant.name.clone())], tenant.routes)),
        )?;
        let attachments = self.tenants.iter().flat_map(|tenant| {
            tenant.attachments.iter().map(|attachment| {
                let labels = vec![
                    ("tenant", tenant.name.clone()),
                    ("interface", attachment.interface.clone()),
                ];
                (labels, u64::from(attachment.up))
            })
        });
        out.write(
            MetricType::Gauge,
            "weft_tenant_attachment_up",
            "1 while the tenant's attachment interface is up, else 0.",
            attachments,
        )
    }

    fn kernel(&self, out: &mut Writer<'_>) -> fmt::Result {
        let kernel = &self.kernel;
        out.gauge(
            "weft_kernel_settled",
            "1 while the kernel holds exactly the routes, next hops and devices that this router intends.",
            kernel.settled.into(),
        )?;
        let objects = kernel.objects.iter();
        out.write(
            MetricType::Gauge,
            "weft_kernel_objects",
            "Objects that this router holds in the kernel, by kind.",
            objects.map(|object| (vec![("object", word(&object.object))], object.count)),
        )?;
        out.write(
            MetricType::Gauge,
            "weft_kernel_intended_objects",
            "Objects that this router intends to hold in the kernel, by kind.",
            kernel
                .objects
                .iter()
                .map(|object| (vec![("object", word(&object.object))], object.intended)),
        )?;
        if let Some(drops) = kernel.drops {
            let drops = [
                ("unknown-vni", drops.unknown_vni),
                ("foreign-address", drops.foreign_address),
                ("foreign-attachment", drops.foreign_attachment),
                ("other-protocol", drops.other_protocol),
                ("untranslated", drops.untranslated),
                ("unknown-sender", drops.unknown_sender),
            ];
            let each = drops
                .into_iter()
                .map(|(reason, count)| (vec![("reason", reason.to_owned())], count));
            out.write(
                MetricType::Counter,
                "weft_kernel_dropped_packets",
                "Packets dropped because they would have crossed from one tenant to another, by reason.",
                each,
            )?;
        }
        out.gauge(
            "weft_kernel_refused_routes",
            "Routes that the kernel refuses now.",
            kernel.refused.total,
        )?;
        out.counter(
            "weft_kernel_requests",
            "Netlink requests that change something.",
            kernel.requests,
        )?;
        out.counter(
            "weft_kernel_repairs",
            "Repairs of objects that somebody else had changed or removed.",
            kernel.repairs,
        )?;
        out.counter(
            "weft_kernel_events_lost",
            "Overruns of the kernel's event socket; each leads to a full resynchronization.",
            kernel.events_lost,
        )?;
        let each = |value: fn(&crate::types::Device) -> u64| {
            kernel
                .devices
                .iter()
                .map(move |device| (vec![("device", device.name.clone())], value(device)))
        };
        out.write(
            MetricType::Gauge,
            "weft_tunnel_device_up",
            "1 while the tunnel device is up, else 0.",
            each(|device| device.up.into()),
        )?;
        out.write(
            MetricType::Gauge,
            "weft_tunnel_device_mtu_bytes",
            "Largest packet of a tenant that the tunnel device takes, in bytes.",
            each(|device| device.mtu.into()),
        )
    }

    fn chains(&self, out: &mut Writer<'_>) -> fmt::Result {
        let item = |service: &Service| {
            vec![
                ("tenant", service.tenant.clone().unwrap_or_default()),
                ("service", service.name.clone().unwrap_or_default()),
                ("label", service.label.to_string()),
            ]
        };
        let attached = || self.services.iter().filter(|item| !item.arms.is_empty());
        out.write(
            MetricType::Gauge,
            "weft_service_healthy",
            "1 while the service node that is attached here passes its health check, else 0.",
            attached().map(|service| {
                let healthy = service.health.code == HealthCode::Healthy;
                (item(service), u64::from(healthy))
            }),
        )?;
        out.write(
            MetricType::Counter,
            "weft_service_dropped_packets",
            "Packets from the overlay with the service's label that were dropped: the node is down, or no chain here has it.",
            attached().map(|service| (item(service), service.dropped)),
        )?;
        let steps = |value: fn(&crate::types::ChainStep) -> u64| {
            self.chains.iter().flat_map(move |chain| {
                chain.steps.iter().enumerate().map(move |(at, step)| {
                    let labels = vec![
                        ("tenant", chain.tenant.clone()),
                        ("chain", chain.name.clone()),
                        ("direction", chain.direction.clone()),
                        ("step", (at + 1).to_string()),
                        ("service", step.service.clone()),
                    ];
                    (labels, value(step))
                })
            })
        };
        out.write(
            MetricType::Counter,
            "weft_chain_step_packets",
            "Packets that this router sent to the service of this step, or past it.",
            steps(|step| step.packets),
        )?;
        out.write(
            MetricType::Counter,
            "weft_chain_step_dropped_packets",
            "Packets that this router dropped because the service of this step is down.",
            steps(|step| step.dropped),
        )
    }

    fn traffic(&self, out: &mut Writer<'_>) -> fmt::Result {
        let busiest = busiest(&self.traffic, TUNNELS);
        let tenants = by_tenant(&self.traffic);
        let each = |value: fn(&Traffic) -> u64| {
            busiest.iter().map(move |traffic| {
                let labels = vec![
                    ("tenant", traffic.tenant.clone().unwrap_or_default()),
                    ("vni", traffic.vni.to_string()),
                    ("router", traffic.endpoint.to_string()),
                ];
                (labels, value(traffic))
            })
        };
        let counters: [Counter<Traffic>; 4] = [
            (
                "weft_tunnel_received_packets",
                "Packets received from a remote tunnel endpoint, for the pairs of VNI and endpoint that carry most.",
                |traffic| traffic.received_packets,
            ),
            (
                "weft_tunnel_received_bytes",
                "Bytes received from a remote tunnel endpoint, without tunnel headers, for the pairs that carry most.",
                |traffic| traffic.received_octets,
            ),
            (
                "weft_tunnel_sent_packets",
                "Packets sent to a remote tunnel endpoint, for the pairs of VNI and endpoint that carry most.",
                |traffic| traffic.sent_packets,
            ),
            (
                "weft_tunnel_sent_bytes",
                "Bytes sent to a remote tunnel endpoint, without tunnel headers, for the pairs that carry most.",
                |traffic| traffic.sent_octets,
            ),
        ];
        for (name, help, value) in counters {
            out.write(MetricType::Counter, name, help, each(value))?;
        }
        let sums: [(&str, &str, usize); 4] = [
            (
                "weft_tenant_received_packets",
                "Packets of the tenant received through all tunnels.",
                0,
            ),
            (
                "weft_tenant_received_bytes",
                "Bytes of the tenant received through all tunnels, without tunnel headers.",
                1,
            ),
            (
                "weft_tenant_sent_packets",
                "Packets of the tenant sent into all tunnels.",
                2,
            ),
            (
                "weft_tenant_sent_bytes",
                "Bytes of the tenant sent into all tunnels, without tunnel headers.",
                3,
            ),
        ];
        for (name, help, at) in sums {
            let each = tenants
                .iter()
                .map(|(tenant, sums)| (vec![("tenant", (*tenant).to_owned())], sums[at]));
            out.write(MetricType::Counter, name, help, each)?;
        }
        Ok(())
    }

    fn endpoints(&self, out: &mut Writer<'_>) -> fmt::Result {
        let each = |value: fn(&Probes) -> Option<u64>| {
            self.endpoints.iter().filter_map(move |endpoint| {
                let labels = vec![("router", endpoint.address.to_string())];
                Some((labels, value(endpoint.probes.as_ref()?)?))
            })
        };
        out.write(
            MetricType::Counter,
            "weft_endpoint_probes_answered",
            "Underlay probes to a remote tunnel endpoint that were answered.",
            each(|probes| Some(probes.answered)),
        )?;
        out.write(
            MetricType::Counter,
            "weft_endpoint_probes_lost",
            "Underlay probes to a remote tunnel endpoint that were lost.",
            each(|probes| Some(probes.lost)),
        )?;
        out.seconds(
            "weft_endpoint_round_trip_seconds",
            "Mean round-trip time of the latest underlay probes to a remote tunnel endpoint, in seconds.",
            each(|probes| Some(probes.round_trip?.mean)),
        )?;
        let narrow = self.endpoints.iter().filter_map(|endpoint| {
            let labels = vec![("router", endpoint.address.to_string())];
            Some((labels, endpoint.path?.mtu.into()))
        });
        out.write(
            MetricType::Gauge,
            "weft_endpoint_path_mtu_bytes",
            "Largest packet of a tenant that the way to a remote tunnel endpoint takes, in bytes, where that is less than the device takes.",
            narrow,
        )
    }
}

/// What tells a neighbour from others: a tenant's own router from one of the same address elsewhere.
fn identity(neighbor: &Neighbor) -> Vec<(&'static str, String)> {
    let mut labels = vec![("neighbor", neighbor.address.to_string())];
    labels.extend(neighbor.tenant.clone().map(|tenant| ("tenant", tenant)));
    labels
}

/// A text as a label's value: `underlay routes` is `underlay-routes`.
fn word(text: &str) -> String {
    text.to_lowercase().replace(' ', "-")
}

/// The `most` pairs that carried the most octets, in a stable order.
fn busiest(traffic: &[Traffic], most: usize) -> Vec<&Traffic> {
    let mut all: Vec<&Traffic> = traffic.iter().collect();
    let octets = |one: &Traffic| one.received_octets.saturating_add(one.sent_octets);
    if all.len() > most {
        all.sort_by_key(|one| (std::cmp::Reverse(octets(one)), one.vni, one.endpoint));
        all.truncate(most);
    }
    all.sort_by_key(|one| (one.vni, one.endpoint));
    all
}

/// Received packets and octets, sent packets and octets, of each tenant that is here.
fn by_tenant(traffic: &[Traffic]) -> BTreeMap<&str, [u64; 4]> {
    let mut sums: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
    for one in traffic {
        let Some(tenant) = &one.tenant else { continue };
        let sum = sums.entry(tenant).or_default();
        let values = [
            one.received_packets,
            one.received_octets,
            one.sent_packets,
            one.sent_octets,
        ];
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum = sum.saturating_add(value);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(tenant: &str, vni: u32, last: u8, octets: u64) -> Traffic {
        Traffic {
            tenant: Some(tenant.to_owned()),
            vni,
            endpoint: [192, 0, 2, last].into(),
            received_packets: 1,
            received_octets: octets,
            sent_packets: 2,
            sent_octets: octets,
        }
    }

    #[test]
    fn the_busiest_pairs_have_counters_and_a_tenant_is_summed_over_all() {
        let traffic = [
            carried("red", 10001, 1, 10),
            carried("red", 10001, 2, 30),
            carried("blue", 10002, 1, 20),
        ];
        let shown = |most| -> Vec<u64> {
            let busiest = busiest(&traffic, most);
            busiest.iter().map(|one| one.sent_octets).collect()
        };
        assert_eq!(shown(3), [10, 30, 20], "by VNI and far end");
        assert_eq!(shown(2), [30, 20]);
        let sums: Vec<_> = by_tenant(&traffic).into_iter().collect();
        assert_eq!(sums, [("blue", [1, 20, 2, 20]), ("red", [2, 40, 4, 40])]);
    }
}
