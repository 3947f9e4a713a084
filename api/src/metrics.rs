//! What can be counted, for Prometheus: the OpenMetrics text format.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::types::{
    Chain, Endpoint, HealthCode, Kernel, Neighbor, Probes, Service, SessionState, Status, Tenant,
    Traffic,
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
        let labels = vec![
            ("name", status.name.clone()),
            ("version", status.version.clone()),
        ];
        out.write(
            MetricType::Gauge,
            "weft_router",
            "The router, its name and version.",
            [(labels, 1)],
        )?;
        out.gauge(
            "weft_uptime_seconds",
            "Time since the process started.",
            status.uptime,
        )?;
        out.gauge(
            "weft_resident_memory_bytes",
            "Resident memory of the process.",
            status.memory,
        )?;
        out.gauge(
            "weft_converged",
            "1 where the routes of all neighbours are there.",
            status.converged.into(),
        )?;
        out.gauge(
            "weft_attribute_sets",
            "Distinct sets of path attributes.",
            status.attribute_sets,
        )?;
        let prefixes = status.prefixes.iter();
        out.write(
            MetricType::Gauge,
            "weft_bgp_prefixes",
            "Prefixes in the Loc-RIB.",
            prefixes.map(|of| (vec![("family", of.family.as_str().to_owned())], of.count)),
        )?;
        let mut alarms: Vec<(&str, u64)> = vec![("overlap-hidden", 0)];
        for alarm in &status.alarms {
            match alarms.iter_mut().find(|(code, _)| *code == alarm.code) {
                Some((_, count)) => *count += 1,
                None => alarms.push((&alarm.code, 1)),
            }
        }
        out.write(
            MetricType::Gauge,
            "weft_alarms",
            "What an operator should look at, by kind.",
            alarms
                .into_iter()
                .map(|(code, count)| (vec![("code", code.to_owned())], count)),
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
        let counters: [Counter<Neighbor>; 5] = [
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
                "Prefixes that the import rules refused.",
                |neighbor| neighbor.rejected,
            ),
            (
                "weft_bgp_neighbor_treat_as_withdraw",
                "UPDATEs treated as withdraw (RFC 7606).",
                |neighbor| neighbor.treat_as_withdraw,
            ),
            (
                "weft_bgp_neighbor_attribute_discard",
                "Attributes discarded (RFC 7606).",
                |neighbor| neighbor.attribute_discard,
            ),
        ];
        for (name, help, value) in counters {
            out.write(MetricType::Counter, name, help, each(value))?;
        }
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
            "Paths held from the neighbour.",
            prefixes,
        )
    }

    fn tenants(&self, out: &mut Writer<'_>) -> fmt::Result {
        let tenants = self.tenants.iter();
        out.write(
            MetricType::Gauge,
            "weft_tenant_routes",
            "Prefixes of a tenant at other routers.",
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
            "1 where a tenant's interface is up.",
            attachments,
        )
    }

    fn kernel(&self, out: &mut Writer<'_>) -> fmt::Result {
        let kernel = &self.kernel;
        out.gauge(
            "weft_kernel_settled",
            "1 where the kernel holds what it should, and nothing else of ours.",
            kernel.settled.into(),
        )?;
        let objects = kernel.objects.iter();
        out.write(
            MetricType::Gauge,
            "weft_kernel_objects",
            "Objects of ours in the kernel.",
            objects.map(|object| (vec![("object", object.object.clone())], object.count)),
        )?;
        out.write(
            MetricType::Gauge,
            "weft_kernel_intended_objects",
            "Objects of ours that are to be in the kernel.",
            kernel
                .objects
                .iter()
                .map(|object| (vec![("object", object.object.clone())], object.intended)),
        )?;
        if let Some(drops) = kernel.drops {
            let drops = [
                ("unknown-vni", drops.unknown_vni),
                ("foreign-address", drops.foreign_address),
                ("foreign-attachment", drops.foreign_attachment),
            ];
            let each = drops
                .into_iter()
                .map(|(reason, count)| (vec![("reason", reason.to_owned())], count));
            out.write(
                MetricType::Counter,
                "weft_kernel_dropped_packets",
                "Packets dropped because they would have left their tenant.",
                each,
            )?;
        }
        out.gauge(
            "weft_kernel_refused_routes",
            "Routes that the kernel refused.",
            kernel.refused.total,
        )?;
        out.counter(
            "weft_kernel_requests",
            "Requests sent that change something.",
            kernel.requests,
        )?;
        out.counter(
            "weft_kernel_repairs",
            "How often what others had changed was repaired.",
            kernel.repairs,
        )?;
        out.counter(
            "weft_kernel_events_lost",
            "How often the kernel's events came faster than they were read.",
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
            "1 where a tunnel device is up.",
            each(|device| device.up.into()),
        )?;
        out.write(
            MetricType::Gauge,
            "weft_tunnel_device_mtu_bytes",
            "What a tenant's packet may have.",
            each(|device| device.mtu.into()),
        )
    }

    fn chains(&self, out: &mut Writer<'_>) -> fmt::Result {
        let of = |service: &Service| {
            vec![
                ("tenant", service.tenant.clone().unwrap_or_default()),
                ("service", service.name.clone().unwrap_or_default()),
                ("label", service.label.to_string()),
            ]
        };
        let attached = || self.services.iter().filter(|of| !of.arms.is_empty());
        out.write(
            MetricType::Gauge,
            "weft_service_healthy",
            "1 where the node of a service that is attached here works.",
            attached().map(|service| {
                let healthy = service.health.code == HealthCode::Healthy;
                (of(service), u64::from(healthy))
            }),
        )?;
        out.write(
            MetricType::Counter,
            "weft_service_dropped_packets",
            "Packets with a service's label that came from the overlay and were dropped.",
            attached().map(|service| (of(service), service.dropped)),
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
            "Packets that this router put on the way to a service, or past it.",
            steps(|step| step.packets),
        )?;
        out.write(
            MetricType::Counter,
            "weft_chain_step_dropped_packets",
            "Packets that this router dropped for want of a service.",
            steps(|step| step.dropped),
        )
    }

    fn traffic(&self, out: &mut Writer<'_>) -> fmt::Result {
        let each = |value: fn(&Traffic) -> u64| {
            self.traffic.iter().map(move |traffic| {
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
                "Packets that came through a tunnel.",
                |traffic| traffic.received_packets,
            ),
            (
                "weft_tunnel_received_bytes",
                "Octets that came through a tunnel, without its headers.",
                |traffic| traffic.received_octets,
            ),
            (
                "weft_tunnel_sent_packets",
                "Packets that went into a tunnel.",
                |traffic| traffic.sent_packets,
            ),
            (
                "weft_tunnel_sent_bytes",
                "Octets that went into a tunnel, without its headers.",
                |traffic| traffic.sent_octets,
            ),
        ];
        for (name, help, value) in counters {
            out.write(MetricType::Counter, name, help, each(value))?;
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
            "Echo requests to a tunnel's far end that were answered.",
            each(|probes| Some(probes.answered)),
        )?;
        out.write(
            MetricType::Counter,
            "weft_endpoint_probes_lost",
            "Echo requests to a tunnel's far end that were not.",
            each(|probes| Some(probes.lost)),
        )?;
        out.write(
            MetricType::Gauge,
            "weft_endpoint_round_trip_microseconds",
            "Mean round-trip time of the latest of them.",
            each(|probes| Some(probes.round_trip?.mean)),
        )
    }
}

/// What tells a neighbour from others: a tenant's own router from one of the same address elsewhere.
fn identity(neighbor: &Neighbor) -> Vec<(&'static str, String)> {
    let mut labels = vec![("neighbor", neighbor.address.to_string())];
    labels.extend(neighbor.tenant.clone().map(|tenant| ("tenant", tenant)));
    labels
}
