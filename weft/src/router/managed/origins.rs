//! Where labels may lead, as the controller says it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weft_discovery::proto::{Host, item::Item};
use weft_discovery::view::View;
use weft_overlay::label::Endpoint;
use weft_overlay::origins::Origins;
use weft_overlay::{EndpointId, Vni};

use crate::config::{Config, UnknownOrigins};

fn id(number: u32) -> EndpointId {
    EndpointId(Ipv4Addr::from(number))
}

/// `None` where it is no address.
fn host(one: &Host) -> Option<(EndpointId, IpAddr)> {
    let octets = one.endpoint.as_slice();
    let v4 = || Some(IpAddr::V4(<[u8; 4]>::try_from(octets).ok()?.into()));
    let v6 = || Some(IpAddr::V6(<[u8; 16]>::try_from(octets).ok()?.into()));
    Some((id(one.router_id), v4().or_else(v6)?))
}

/// `None` where it says nothing of that. What makes no sense of what it says is nobody's endpoint.
pub(super) fn read(view: &View, config: &Config) -> Option<Arc<Origins>> {
    let told = view.values().any(|item| match &item.item {
        Some(Item::Settings(settings)) => settings.origins,
        _ => false,
    });
    let overlay = config.overlay.as_ref().filter(|_| told)?;
    let accept_unknown = overlay.unknown_origins == UnknownOrigins::Accept;
    let mut origins = Origins::new(accept_unknown);
    for item in view.values() {
        match &item.item {
            Some(Item::Origins(said)) => {
                for one in &said.hosts {
                    let same = one.addresses.iter();
                    let same = same.map(|address| (id(*address), Ipv4Addr::from(*address).into()));
                    let others = one.others.iter().filter_map(host);
                    if let Ok(vni) = Vni::new(one.vni) {
                        origins.add_near(vni, same.chain(others));
                    }
                }
            }
            Some(Item::Beyond(said)) => {
                for one in &said.far {
                    let addresses = one.addresses.iter();
                    let addresses = addresses.map(|address| Endpoint::V4((*address).into()));
                    let ids = one.ids.iter().map(|number| Endpoint::Id(id(*number)));
                    if let Ok(vni) = Vni::new(one.vni) {
                        origins.add_far(vni, addresses.chain(ids), one.open);
                    }
                }
            }
            _ => {}
        }
    }
    Some(Arc::new(origins))
}

#[cfg(test)]
mod tests {
    use weft_discovery::proto;

    use super::*;

    /// The same word in another file is judged otherwise.
    #[test]
    fn the_file_says_what_becomes_of_labels_of_which_the_controller_says_nothing() {
        let settings = proto::Settings {
            origins: true,
            ..proto::Settings::default()
        };
        let item = proto::Item {
            item: Some(Item::Settings(settings)),
        };
        let view = View::from([("settings".to_owned(), item)]);
        let read = |unknown: &str| {
            let text = format!(
                "router: {{ name: r, router_id: 192.0.2.1, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: 192.0.2.1, unknown_origins: {unknown} }}"
            );
            read(&view, &Config::parse("test", &text).unwrap()).unwrap()
        };
        let (reject, accept) = (read("reject"), read("accept"));
        assert_ne!(reject, accept);
        let changed = Origins::changed(Some(&reject), Some(&accept));
        assert!(changed.vnis.contains(Vni::new(10_001).unwrap()));
    }
}
