#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]
use std::collections::BTreeMap;

use weft_discovery::proto::{self, Item as Told, Settings};

use super::*;

#[test]
fn what_the_controller_says_of_services_and_chains_is_a_configuration() {
    let settings = Settings {
        domain: "a".into(),
        asn: 64601,
        global_administrator: 64512,
        router_id: "192.0.2.1".into(),
        role: "router".into(),
        hold_time: 90,
        origins: true,
        granted: Vec::new(),
    };
    let arm = |interface: &str, node: &str| Arm {
        interface: interface.into(),
        node: vec![node.into()],
    };
    let tenant = Tenant {
        name: "red".into(),
        vni: 10001,
        services: vec![
            Service {
                name: "firewall".into(),
                label: 20001,
                on_failure: "over".into(),
                rewrites: true,
                selection: "pinned".into(),
                attachment: Some(proto::ServiceAttachment {
                    inside: Some(arm("fw0", "169.254.1.2")),
                    outside: Some(arm("fw1", "169.254.2.2")),
                    probe: Some(proto::Probe {
                        kind: "http".into(),
                        port: Some(8080),
                        path: Some("/health".into()),
                        interval: Some(500),
                    }),
                }),
            },
            Service {
                name: "meter".into(),
                label: 20002,
                on_failure: "closed".into(),
                ..Service::default()
            },
        ],
        chains: vec![Chain {
            name: "web".into(),
            priority: 10,
            source: vec!["10.0.1.0/24".into()],
            protocol: Some("tcp".into()),
            destination_ports: vec!["80".into(), "8000-8100".into()],
            dscp: Some(46),
            services: vec!["firewall".into(), "meter".into()],
            symmetric: true,
            ..Chain::default()
        }],
        ..Tenant::default()
    };
    let view: View = BTreeMap::from([
        (
            "settings".to_owned(),
            Told {
                item: Some(Item::Settings(settings)),
            },
        ),
        (
            "tenant/red".to_owned(),
            Told {
                item: Some(Item::Tenant(tenant)),
            },
        ),
    ]);
    let text = "router: { name: r1 }\ncontroller: { address: ctl.example }\n";
    let template = Config::parse("r1.yaml", text).unwrap();
    let facts = Facts {
        router_id: None,
        bgp_address: [192, 0, 2, 1].into(),
        endpoint: [192, 0, 2, 1].into(),
        encapsulations: vec!["vxlan".into()],
        capacity: 0,
        session_keys: false,
    };
    let (config, refused) = compose(&template, &facts, &BTreeMap::new(), &view, &template).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let services = crate::config::services(&config.tenants[0]);
    let firewall = services[0].attachment.as_ref().unwrap();
    let arms: Vec<&str> = firewall.arms().map(|one| one.interface.as_str()).collect();
    assert_eq!(arms, ["fw0", "fw1"]);
    assert!(services[0].rewrites && services[1].attachment.is_none());
    let chain = &crate::config::chains(&config.tenants[0])[0];
    assert_eq!(chain.matches.destination_ports, [80..=80, 8000..=8100]);
    assert_eq!(
        (chain.matches.protocol, chain.matches.dscp),
        (Some(6), Some(46))
    );
    assert!(chain.symmetric && chain.services.len() == 2);
}

fn settings() -> Settings {
    Settings {
        domain: "a".into(),
        asn: 64601,
        global_administrator: 64512,
        router_id: "192.0.2.1".into(),
        role: "router".into(),
        hold_time: 90,
        origins: true,
        granted: Vec::new(),
    }
}

fn view(items: Vec<(&str, Item)>) -> View {
    let settings = ("settings", Item::Settings(settings()));
    let items = items.into_iter().chain([settings]);
    items
        .map(|(key, item)| (key.to_owned(), Told { item: Some(item) }))
        .collect()
}

fn template() -> Config {
    let text = "router: { name: r1 }\ncontroller: { address: ctl.example }\n";
    Config::parse("r1.yaml", text).unwrap()
}

fn facts_of(number: u8) -> Facts {
    Facts {
        router_id: None,
        bgp_address: [192, 0, 2, number].into(),
        endpoint: [192, 0, 2, number].into(),
        encapsulations: vec!["vxlan".into()],
        capacity: 0,
        session_keys: false,
    }
}

fn neighbor_at(address: &str) -> Item {
    Item::Neighbor(Neighbor {
        name: "a2".into(),
        address: address.into(),
        asn: 64601,
        ..Neighbor::default()
    })
}

/// What was known before the router's address changed is enough to begin as what it is now: nothing of it waits for a restart.
#[test]
fn a_router_that_has_moved_begins_by_its_old_view_as_what_it_is_now() {
    let known = view(vec![("neighbor/a2", neighbor_at("192.0.2.2"))]);
    let none = BTreeMap::new();
    let (moved, refused) = compose(&template(), &facts_of(7), &none, &known, &template()).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(moved.router.router_id.0.to_string(), "192.0.2.7");
    let local = moved.neighbors[0].session.local_address.unwrap();
    assert_eq!(local.to_string(), "192.0.2.7");
    // The controller's next word says the same of the router itself.
    let mut next = known;
    let mut settings = settings();
    settings.router_id = "192.0.2.7".into();
    next.insert(
        "settings".into(),
        Told {
            item: Some(Item::Settings(settings)),
        },
    );
    let (later, _) = compose(&template(), &facts_of(7), &none, &next, &template()).unwrap();
    assert_eq!((later.router, later.overlay), (moved.router, moved.overlay));
}

#[test]
fn one_bad_item_costs_that_item() {
    let tenant = |interfaces: &[&str], word: &str| {
        Item::Tenant(Tenant {
            name: "red".into(),
            vni: 10001,
            interfaces: interfaces.iter().map(|one| (*one).to_owned()).collect(),
            prefixes: vec!["10.0.1.0/24".into(), "10.0.1.0/24".into()],
            redistribute: vec![word.into(), "connected".into()],
            neighbors: vec![SiteNeighbor {
                address: "10.0.1.2".into(),
                asn: 65001,
                as_override: true,
                ttl: Some(2),
                ..SiteNeighbor::default()
            }],
            breakout: Some(proto::Breakout {
                interface: "wan0".into(),
                source_nat: false,
            }),
            ..Tenant::default()
        })
    };
    let told = view(vec![
        ("neighbor/a2", neighbor_at("0.0.0.0")),
        ("neighbor/a3", neighbor_at("192.0.2.3")),
        ("tenant/red", tenant(&["red0", "eth0", "a:b"], "everything")),
    ]);
    let reserved = BTreeMap::from([("eth0".to_owned(), "the router lives there".to_owned())]);
    let (config, refused) =
        compose(&template(), &facts_of(1), &reserved, &told, &template()).unwrap();
    assert_eq!(config.neighbors.len(), 1);
    let red = &config.tenants[0];
    assert_eq!(red.interfaces, ["red0"]);
    assert_eq!((red.prefixes.len(), red.redistribute.len()), (1, 1));
    assert!(red.neighbors[0].as_override && red.neighbors[0].ttl == 2);
    assert_eq!(red.breakout.as_ref().map(|one| one.source_nat), Some(false));
    let items: Vec<&str> = refused.iter().map(|one| one.item.as_str()).collect();
    assert_eq!(
        items.iter().filter(|one| **one == "tenant/red").count(),
        4,
        "{refused:#?}"
    );
    assert!(items.contains(&"neighbor/a2"), "{refused:#?}");
    assert!(
        refused
            .iter()
            .any(|one| one.reason.contains("the router lives there"))
    );
}

#[test]
fn a_token_of_another_domain_is_told_with_both_names() {
    let folder = std::env::temp_dir().join(format!("weft-foreign-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [
        (
            "member.json",
            r#"{"name": "a1", "domain": "a", "controller": "ctl.example"}"#,
        ),
        ("router.key", "key"),
        ("router.der", "certificate"),
        ("authority.der", "authority"),
    ];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let membership = Membership::load(&folder).unwrap().unwrap();
    let own = membership.fingerprint();
    let token = |fingerprint: &str| -> TokenText {
        format!("weft.id.secret.{fingerprint}").parse().unwrap()
    };
    assert!(check_authority(&membership, None).is_ok());
    assert!(check_authority(&membership, Some(&token(&own))).is_ok());
    let other = "f".repeat(64);
    let error = check_authority(&membership, Some(&token(&other)))
        .unwrap_err()
        .to_string();
    for word in [
        own.as_str(),
        other.as_str(),
        "domain `a`",
        folder.to_str().unwrap(),
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_the_controller_says_of_origins_is_what_labels_are_judged_by() {
    use weft_discovery::proto::{Beyond, Far, Host, Hosts, Origins};
    use weft_overlay::label::{Endpoint, Label, LabelKind};
    use weft_overlay::origins::Origin;
    use weft_overlay::{Encapsulation, EndpointId, Vni};

    let number = |text: &str| u32::from(text.parse::<Ipv4Addr>().unwrap());
    let v6: std::net::Ipv6Addr = "2001:db8::3".parse().unwrap();
    let told = Origins {
        hosts: vec![Hosts {
            vni: 10_001,
            addresses: vec![number("192.0.2.1")],
            others: vec![
                Host {
                    endpoint: v6.octets().to_vec(),
                    router_id: number("192.0.2.3"),
                },
                // Of three octets.
                Host {
                    endpoint: vec![192, 0, 2],
                    router_id: number("192.0.2.4"),
                },
            ],
        }],
    };
    let far = Far {
        vni: 10_001,
        addresses: vec![number("203.0.113.1")],
        ids: vec![number("203.0.113.2")],
        open: false,
    };
    let beyond = Beyond { far: vec![far] };
    let items = vec![
        ("origins/red", Item::Origins(told)),
        ("beyond/red", Item::Beyond(beyond)),
    ];
    let mut view = view(items);
    let template = template();
    let facts = facts_of(1);
    let (config, refused) = compose(&template, &facts, &BTreeMap::new(), &view, &template).unwrap();
    assert_eq!(refused, []);
    let origins = origins::read(&view, &config).unwrap();
    let judge = |vni, endpoint, ebgp| {
        let label = Label {
            kind: LabelKind::Tenant,
            vni: Vni::new(vni).unwrap(),
            encapsulation: Encapsulation::Vxlan,
            endpoint,
        };
        origins.judge(&label, endpoint, ebgp)
    };
    let v4 = |text: &str| Endpoint::V4(text.parse().unwrap());
    let id = |text: &str| Endpoint::Id(EndpointId(text.parse().unwrap()));
    for (endpoint, ebgp) in [
        (v4("192.0.2.1"), false),
        (id("192.0.2.3"), false),
        (v4("203.0.113.1"), true),
        (id("203.0.113.2"), true),
    ] {
        assert_eq!(judge(10_001, endpoint, ebgp), Origin::Valid, "{endpoint}");
        assert_eq!(
            judge(10_001, endpoint, !ebgp),
            Origin::Invalid,
            "{endpoint}"
        );
    }
    let unknown = Origin::Unknown { permitted: false };
    assert_eq!(judge(10_002, v4("192.0.2.1"), false), unknown);
    // A controller that says nothing of it: labels are used as they come.
    let mut settings = settings();
    settings.origins = false;
    let settings = Told {
        item: Some(Item::Settings(settings)),
    };
    view.insert("settings".into(), settings);
    assert_eq!(origins::read(&view, &config), None);
}

/// A router of the domain names itself alone; an edge or a reflector says what others do. Secrets of files are of other domains' routers.
#[test]
fn what_neighbours_may_name_and_what_signs_their_sessions() {
    let inner = Neighbor {
        name: "a2".into(),
        address: "192.0.2.2".into(),
        asn: 64601,
        endpoint: "192.0.2.2".into(),
        router_id: "192.0.2.2".into(),
        ..Neighbor::default()
    };
    let far = Neighbor {
        name: "eb of domain b".into(),
        address: "198.51.100.2".into(),
        asn: 64602,
        external: true,
        ..Neighbor::default()
    };
    let known = view(vec![
        ("neighbor/a2", Item::Neighbor(inner)),
        ("neighbor/e1", neighbor_at("192.0.2.3")),
        ("peer/b/eb", Item::Neighbor(far)),
    ]);
    let text = "router: { name: r1 }\ncontroller:\n  address: ctl.example\n  password_files: { 198.51.100.2: /etc/weft/b.key, 192.0.2.2: /etc/weft/none }\n";
    let template = Config::parse("r1.yaml", text).unwrap();
    let none = BTreeMap::new();
    let (config, refused) = compose(&template, &facts_of(1), &none, &known, &template).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let found: Vec<_> = config
        .neighbors
        .iter()
        .map(|one| {
            let endpoints = one.accept_endpoints.as_ref().map(|all| all[0].to_string());
            let file = one.session.password_file.as_ref();
            (endpoints, file.map(|file| file.display().to_string()))
        })
        .collect();
    let own = Some("192.0.2.2/32".to_owned());
    let secret = Some("/etc/weft/b.key".to_owned());
    assert_eq!(found, [(own, None), (None, None), (None, secret)]);
}
