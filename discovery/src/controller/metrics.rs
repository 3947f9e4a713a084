//! What can be counted of a domain, for Prometheus (OpenMetrics), and whether the controller lives and can work.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Controller;
use super::hub::Attached;
use crate::database::Rejection;
use crate::model::{Router, State};
use crate::pki::validity_of;

/// What the answer is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of one value, and the value.
type Sample = (Vec<(&'static str, String)>, i64);

/// What there is to tell, all at once.
#[derive(Debug)]
struct Snapshot {
    domain: String,
    revision: u64,
    writes: u64,
    failed: u64,
    refused: u64,
    joined: i64,
    connected: i64,
    lagging: i64,
    refusing: i64,
    routers: Vec<Sample>,
    certificates: Vec<Sample>,
}

impl Snapshot {
    fn new(controller: &Controller, state: &State) -> Self {
        let attached = controller.hub.attached();
        let each = |router: &Router| attached.get(&router.name);
        let behind = |each: &Attached| each.runs < each.sent;
        let count = |wanted: &dyn Fn(&Attached) -> bool| {
            let routers = state.routers().filter_map(each);
            routers.filter(|each| wanted(each)).count() as i64
        };
        let name = |router: &Router| vec![("router", router.name.clone())];
        let end = |what: &str, until: i64| (vec![("certificate", what.to_owned())], until);
        let authority = validity_of(controller.authority.certificate());
        let authority = authority.map(|(_, until)| end("authority", until));
        let own = controller.certificate_end();
        let routers = controller.hub.certificates().into_iter();
        let routers = routers.map(|(name, until)| end(&format!("router {name}"), until));
        Self {
            domain: state
                .domain()
                .map(|each| each.name.clone())
                .unwrap_or_default(),
            revision: state.revision,
            writes: controller.database.written(),
            failed: controller.database.failed(),
            refused: controller.audit.refused(),
            joined: state.routers().count() as i64,
            connected: count(&|_| true),
            lagging: count(&behind),
            refusing: count(&|each| !each.refused.is_empty()),
            routers: state
                .routers()
                .map(|router| (name(router), i64::from(each(router).is_some())))
                .collect(),
            certificates: authority
                .into_iter()
                .chain([end("controller", own)])
                .chain(routers)
                .collect(),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let build = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("domain", self.domain.clone()),
        ];
        let number = |each: u64| i64::try_from(each).unwrap_or(i64::MAX);
        let one = |value: i64| vec![(Vec::new(), value)];
        let gauges = [
            (
                "weft_controller_build_info",
                "The controller: its version and domain.",
                None,
                vec![(build, 1)],
            ),
            (
                "weft_controller_revision",
                "The domain's latest revision.",
                None,
                one(number(self.revision)),
            ),
            (
                "weft_controller_routers_joined",
                "Routers of the domain.",
                None,
                one(self.joined),
            ),
            (
                "weft_controller_routers_connected",
                "Routers that are attached to this controller.",
                None,
                one(self.connected),
            ),
            (
                "weft_controller_routers_lagging",
                "Of those, routers that do not run yet what they were sent.",
                None,
                one(self.lagging),
            ),
            (
                "weft_controller_routers_refusing",
                "Of those, routers that refuse a part of what they were sent.",
                None,
                one(self.refusing),
            ),
            (
                "weft_controller_router_connected",
                "1 where the router is attached to this controller.",
                None,
                self.routers.clone(),
            ),
            (
                "weft_controller_certificate_end_timestamp",
                "When a certificate ends, since 1970.",
                Some(Unit::Seconds),
                self.certificates.clone(),
            ),
        ];
        for (name, help, unit, samples) in gauges {
            let mut family =
                encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (labels, value) in samples {
                let gauge = ConstGauge::new(value);
                match labels.is_empty() {
                    true => {
                        gauge.encode(family)?;
                        break;
                    }
                    false => gauge.encode(family.encode_family(&labels)?)?,
                }
            }
        }
        let counters = [
            (
                "weft_controller_writes",
                "Changes of the domain that this controller has written.",
                self.writes,
            ),
            (
                "weft_controller_failed_writes",
                "Changes that the datastore did not take.",
                self.failed,
            ),
            (
                "weft_controller_refused_requests",
                "Requests that were refused for who asked.",
                self.refused,
            ),
        ];
        for (name, help, value) in counters {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(family)?;
        }
        Ok(())
    }
}

impl Controller {
    /// What can be counted, as OpenMetrics.
    pub(super) fn metrics(&self) -> Result<String, Rejection> {
        let mut registry = Registry::default();
        let snapshot = Snapshot::new(self, &self.database.state());
        registry.register_collector(Box::new(snapshot));
        let mut out = String::new();
        text::encode(&mut out, &registry)
            .map_err(|error| Rejection::Unavailable(error.to_string()))?;
        Ok(out)
    }

    /// Whether the datastore works.
    pub(super) async fn check(&self) -> Result<(), Rejection> {
        self.database.alive(self.hub.id()).await.map(drop)
    }
}
