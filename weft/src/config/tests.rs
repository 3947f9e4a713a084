use weft_bgp_wire::Asn;
use weft_overlay::VniSet;

use super::neighbor::AddPath;
use super::node::Position;
use super::policy::PassingWords;
use super::router::GracefulRestart;
use super::*;

/// The configuration of the design's example.
const EXAMPLE: &str = "\
router: { name: a1, router_id: 192.0.2.11, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.11, encapsulation: vxlan }
tenants:
  - name: red
    vni: 10001
    interfaces: [red0]           # user attachments
    prefixes: [10.0.1.0/24]      # or redistribute: [connected, static]
neighbors:
  - { address: 198.51.100.2, asn: 64601, families: [ipv4-unicast] }
  - { address: 203.0.113.2, asn: 64999, accept_vnis: [10001-10002] }   # local_next_hop: self is the default here
api: { listen: 127.0.0.1:8179 }
";

/// Every key.
const EVERYTHING: &str = "\
router:
  name: r-1.example
  router_id: 192.0.2.1
  asn: 4200000000
  cluster_id: 192.0.2.99
  hold_time: 9
  graceful_restart: { restart_time: 30, deferral_time: 20 }
  default_policy: accept
  listen: { addresses: [192.0.2.1, \"2001:db8::1\"], port: 1179 }
prefix_lists:
  customers: [198.51.100.0/24, { prefix: 203.0.113.0/24, le: 28 }]
  one: 2001:db8::/32
as_paths:
  transit: [_64501_, 64496-64500, \"^64502( 64502)*$\"]
communities:
  customer: [\"65000:1\", \"65000:100-199\", \"64513:*:1\", \"rt:65000:*\", \"0x0004*\"]
policies:
  in:
    - { name: guard, call: hygiene }
    - match:
        prefixes: [customers, 192.0.2.0/24, { prefix: 10.0.0.0/8, ge: 16 }, too-long]
        as_path: [transit, bogons, _7_, 1-9]
        as_path_length: [1-3, 7]
        origin_as: 64501
        neighbor_as: [64501-64510]
        communities: { all: [customer, no-export] }
        vnis: [10001-10003]
        labels: [tenant, local-next-hop]
        origin: [igp, incomplete]
        local_pref: 100-
        med: 0
        next_hop: [192.0.2.1, 10.0.0.0/8]
        neighbors: \"2001:db8::2\"
        source: [ebgp, ibgp]
        families: ipv4-unicast
      unless: { communities: customer }
      set:
        local_pref: 200
        med: remove
        origin: egp
        prepend: { asn: 64500, times: 2 }
        next_hop: 192.0.2.9
        communities: { remove: [all, customer, \"65000:*\"], add: [\"65000:7\", no-export, \"65000:1:2\", \"rt:65000:1\"] }
        labels: remove
      then: next
  out:
    - { set: { med: 5, prepend: 3, next_hop: self }, then: accept }
overlay:
  global_administrator: 64512
  endpoint: 192.0.2.1
  encapsulation: vxlan-gpe
  install_underlay: true
  announce_locator: false
  probe_interval: 30
tenants:
  - name: red
    vni: 10001
    vnis: [10003, 10004]
    interfaces: [red0, red1]
    prefixes: [10.0.1.0/24, \"2001:db8:1::/48\"]
    redistribute: [connected, static, ospf, 200]
  - { name: blue, vni: 10002 }
neighbors:
  - address: 2001:db8::2
    asn: 64601
    description: transit of the north
    port: 1790
    local_address: 2001:db8::1
    local_address_v6: 2001:db8::1
    passive: true
    families: [ipv4-unicast, ipv6-unicast]
    add_path: { send: false }
    local_next_hop: strip
    strip_overlay: true
    accept_vnis: [10005, 10001-10002, 10003]
    announce_vnis: [10001]
    hold_time: 0
    connect_retry: 5
    ttl: 255
    max_prefixes: 1000000
    allow_own_as: 1
    import: [10.0.0.0/8, { prefix: 172.16.0.0/12, ge: 16 }, { prefix: 0.0.0.0/0, le: 24 }]
    export: []
    graceful_restart: false
  - { address: 192.0.2.7, asn: 64999, local_as: { asn: 7, hide_own: true }, private_as: replace, as_override: true }
  - { address: 192.0.2.2, asn: 4200000000, route_reflector_client: true, next_hop: unchanged, add_path: false, import: [bogons, in, accept], export: out }
discovery:
  - file: /etc/weft/peers.yaml
  - dns: { name: _bgp._tcp.example.com, servers: [\"127.0.0.1:5353\"] }
  - etcd: { endpoints: [\"https://127.0.0.1:2379\"], prefix: /peers, cacert: /ca.pem, cert: /c.pem, key: /c.key }
  - mdns: { interface: eth0 }
networks: [198.51.100.0/24]
install: [192.0.2.0/24]
api: { listen: /run/weft-a/api.sock, group: adm }
log: { level: debug, format: json }
";

pub(super) fn good(text: &str) -> Config {
    match Config::parse("r.yaml", text) {
        Ok(config) => config,
        Err(errors) => panic!("{errors}"),
    }
}

fn bad(text: &str) -> String {
    match Config::parse("r.yaml", text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn the_example_is_read_with_its_defaults() {
    let config = good(EXAMPLE);
    assert_eq!(config.router.asn, Asn(64601));
    let [red] = &config.tenants[..] else { panic!() };
    assert_eq!(
        (red.vni.get(), &red.interfaces[..]),
        (10001, &["red0".to_owned()][..])
    );
    let [ibgp, ebgp] = &config.neighbors[..] else {
        panic!()
    };
    assert_eq!(ibgp.accept_vnis, VniSet::all());
    assert_eq!(ebgp.accept_vnis.to_string(), "10001-10002");
    assert_eq!(ebgp.announce_vnis, VniSet::all());
    assert_eq!((ibgp.ttl, ebgp.ttl), (64, 1));
    assert_eq!((ibgp.session.hold_time, ibgp.session.port), (90, 179));
    assert_eq!(
        config.router.graceful_restart,
        Some(GracefulRestart::default())
    );
}

#[test]
fn every_key_is_read() {
    let config = good(EVERYTHING);
    let neighbor = &config.neighbors[0];
    assert_eq!(neighbor.accept_vnis.to_string(), "10001-10003,10005");
    assert_eq!(neighbor.announce_vnis.to_string(), "10001");
    assert_eq!(
        neighbor.add_path,
        AddPath {
            send: false,
            receive: true
        }
    );
    let passing = |said: &Option<Passing>| match &said.as_ref().unwrap().words {
        PassingWords::Prefixes(ranges) => ranges.clone(),
        other => panic!("{other:?}"),
    };
    let import = passing(&neighbor.session.import);
    let lengths: Vec<_> = import.iter().map(|range| (range.ge, range.le)).collect();
    assert_eq!(lengths, [(8, 8), (16, 32), (0, 24)]);
    assert_eq!(passing(&neighbor.session.export), []);
    assert_eq!(config.neighbors[1].session.hold_time, 9, "the router's");
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Debug,
            format: LogFormat::Json
        }
    );
}

const GROUPS: &str = "
router: { name: hub, router_id: 192.0.2.1, asn: 64601 }
policies: { in: [{ then: accept }] }
groups:
  - { name: transits, import: in, export: reject, bfd: true, hold_time: 30, shutdown: for now }
  - { name: spokes, asn: 64710, listen: [10.9.0.0/24, 2001:db8::/64], limit: 7, export: in, ttl: 9, families: [ipv4-unicast, ipv6-unicast] }
neighbors:
  - { address: 192.0.2.2, asn: 64999, group: transits, hold_time: 9, bfd: false, shutdown: false }
  - { address: 192.0.2.3, asn: 64998, group: transits }
  - { address: 192.0.2.4, group: spokes, import: reject }
";

#[test]
fn a_neighbour_has_from_its_group_what_it_does_not_say() {
    let config = good(GROUPS);
    let [own, plain, spoke] = &config.neighbors[..] else {
        panic!("{config:?}");
    };
    assert_eq!((own.session.hold_time, plain.session.hold_time), (9, 30));
    assert_eq!((own.bfd.is_some(), plain.bfd.is_some()), (false, true));
    assert_eq!(own.session.shutdown, None);
    assert_eq!(plain.session.shutdown.as_deref(), Some("for now"));
    assert_eq!(own.group.as_deref(), Some("transits"));
    assert_eq!((spoke.asn.0, spoke.ttl), (64710, 9));
    assert_eq!(spoke.session.families.len(), 2);
    let listening: Vec<_> = config.listening().collect();
    assert_eq!(listening.len(), 1);
    let (group, template) = listening[0];
    assert_eq!((group.limit, group.listen.len()), (Some(7), 2));
    assert_eq!(
        (template.asn.0, template.ttl, template.session.passive),
        (64710, 9, true)
    );
    assert_eq!(config.groups[0].limit, None);
    // RFC 8212, of dynamic neighbours too.
    let warnings = config.warnings().join("\n");
    assert!(
        warnings.contains("a neighbour of group spokes (AS 64710) has no `import`"),
        "{warnings}"
    );
    assert_eq!(warnings.matches("RFC 8212").count(), 1, "{warnings}");
    let printed = config.to_yaml().unwrap();
    assert_eq!(good(&printed), config, "{printed}");
}

#[test]
fn what_is_wrong_with_a_group_is_said_once_and_where() {
    for (old, new, place, message) in [
        (
            "hold_time: 30",
            "hold_time: 2",
            "groups[0].hold_time",
            "expected",
        ),
        (
            "bfd: true",
            "colour: red",
            "groups[0]",
            "unknown key `colour`",
        ),
        (
            "bfd: true",
            "address: 10.0.0.1",
            "groups[0]",
            "unknown key `address`",
        ),
        ("limit: 7", "limit: 0", "groups[1].limit", "1 to 10000"),
        (
            "groups:",
            "groups:\n  - { name: g1, asn: 1, listen: [10.1.0.0/16], limit: 10000 }
  - { name: g2, asn: 1, listen: [10.2.0.0/16], limit: 10000 }
  - { name: g3, asn: 1, listen: [10.3.0.0/16], limit: 10000 }
  - { name: g4, asn: 1, listen: [10.4.0.0/16], limit: 10000 }
  - { name: g5, asn: 1, listen: [10.5.0.0/16], limit: 10000 }
  - { name: g6, asn: 1, listen: [10.6.0.0/16], limit: 10000 }",
            "groups",
            "60010 neighbours",
        ),
        // A neighbour of it lacks the key too, each at its own place.
        (
            "asn: 64710, ",
            "",
            "groups[1] neighbors[2]",
            "the key `asn` is missing",
        ),
        (
            "2001:db8::/64",
            "10.9.0.0/24",
            "groups[1].listen[1]",
            "second time",
        ),
        (
            "hold_time: 30",
            "limit: 3",
            "groups[0].limit",
            "listens for none",
        ),
        ("name: spokes", "name: transits", "groups[1]", "second time"),
        (
            "group: spokes",
            "group: spoke",
            "neighbors[2].group",
            "expected the name of a group",
        ),
        (
            "asn: 64998, ",
            "",
            "neighbors[1]",
            "the key `asn` is missing",
        ),
    ] {
        let text = GROUPS.replacen(old, new, 1);
        let errors = Config::parse("test", &text).unwrap_err();
        let there = errors
            .problems
            .iter()
            .filter(|one| one.message.contains(message));
        let there: Vec<&str> = there.map(|one| one.path.as_str()).collect();
        assert_eq!(there.join(" "), place, "{new}: {errors}");
    }
}

#[test]
fn a_printed_configuration_reads_back_to_itself() {
    for text in [EXAMPLE, EVERYTHING, GROUPS] {
        let config = good(text);
        let printed = config.to_yaml().unwrap();
        assert_eq!(good(&printed), config, "{printed}");
    }
    let mut config = good(EXAMPLE);
    config.router.graceful_restart = None;
    assert_eq!(good(&config.to_yaml().unwrap()), config);
}

#[test]
fn the_schema_accepts_what_is_accepted() {
    let schema = jsonschema::validator_for(&Config::json_schema()).unwrap();
    let printed = good(EVERYTHING).to_yaml().unwrap();
    for text in [EXAMPLE, EVERYTHING, &printed, GROUPS] {
        let value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        let errors: Vec<String> = schema
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
    for text in [
        "{}",
        "router: { name: a1, router_id: 192.0.2.1, asn: 0 }",
        "router: { name: a1, router_id: 192.0.2.1, asn: 1, hold_time: 2 }",
        "router: { name: a1, router_id: 192.0.2.1, asn: 1, cluster_id: null }",
        "router: { name: a1, router_id: 192.0.2.1, asn: 1 }\noverlay: null",
        "router: { name: a1, router_id: 192.0.2.1, asn: 1, colour: red }",
    ] {
        let value: serde_json::Value = serde_yaml::from_str(text).unwrap();
        assert!(!schema.is_valid(&value), "{text}");
        bad(text);
    }
}

/// `WEFT_UPDATE=1 cargo test` writes the file anew.
#[test]
fn the_published_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.schema.json");
    let current = serde_json::to_string_pretty(&Config::json_schema()).unwrap() + "\n";
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == current,
        "docs/config.schema.json is not current: `WEFT_UPDATE=1 cargo test -p weft` writes it"
    );
}

#[test]
fn a_report_shows_the_line_and_all_errors() {
    let text = "\
router: { name: a1, router_id: 192.0.2.11, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.11, encapsulatoin: vxlan }
tenants:
  - name: red
    vni: 16777215
    prefixes: [10.0.1.7/24]
";
    assert_eq!(
        bad(text),
        "\
error: overlay: unknown key `encapsulatoin`, allowed are `global_administrator`, `endpoint`, `encapsulation`, `port`, `segmentation`, `code_point`, `bandwidth`, `resilient`, `dont_fragment`, `install_underlay`, `uplinks`, `announce_locator`, `probe_interval` and `unknown_origins`
 --> r.yaml:2:63
  |
2 | overlay: { global_administrator: 64512, endpoint: 192.0.2.11, encapsulatoin: vxlan }
  |                                                               ^^^^^^^^^^^^^
  = help: did you mean `encapsulation`?

error: tenants[0].vni: found `16777215`, expected a VNI, 1 to 16777214
 --> r.yaml:5:10
  |
5 |     vni: 16777215
  |          ^^^^^^^^

error: tenants[0].prefixes[0]: found `10.0.1.7/24`, which has bits set behind its length
 --> r.yaml:6:16
  |
6 |     prefixes: [10.0.1.7/24]
  |                ^^^^^^^^^^^
  = help: did you mean 10.0.1.0/24?

r.yaml: 3 errors"
    );
}

pub(super) const ROUTER: &str = "router: { name: a1, router_id: 192.0.2.11, asn: 64601 }\n";
pub(super) const OVERLAY: &str = "overlay: { global_administrator: 64512, endpoint: 192.0.2.11 }\n";

/// Place, key, message and help of every problem, one a line.
pub(super) fn lines(text: &str) -> Vec<String> {
    let errors = Config::parse("r.yaml", text).unwrap_err();
    let problems = errors.problems.iter();
    problems
        .map(|problem| {
            let Position { line, column } = problem.position;
            let path = match problem.path.as_str() {
                "" => String::new(),
                path => format!("{path}: "),
            };
            let help = problem.help.as_ref().map(|help| format!(" ({help})"));
            format!(
                "{line}:{column} {path}{}{}",
                problem.message,
                help.unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn the_document_itself_may_be_wrong() {
    let cases = [
        ("", "1:1 the file is empty, expected a configuration"),
        (
            "# nothing\n",
            "1:1 the file is empty, expected a configuration",
        ),
        (
            "[]",
            "1:1 found a list, expected a mapping with `router` and what else is configured",
        ),
        (
            "a: 1\n---\nb: 1\n",
            "2:1 this is not YAML: a second document: a file holds one",
        ),
        (
            "a: *b\n",
            "1:4 this is not YAML: while parsing node, found unknown anchor",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(lines(text), [message], "{text}");
    }
    assert_eq!(
        lines(&"[".repeat(40)),
        ["1:33 this is not YAML: nested too deep"]
    );
    assert_eq!(lines(&"[".repeat(100_000)).len(), 1);
}

#[test]
fn nested_aliases_do_not_fill_the_memory() {
    let mut text = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("b{level}: &a{level} [{items}]\n");
    }
    let [message] = &lines(&text)[..] else {
        panic!()
    };
    assert!(
        message.ends_with("more values than a configuration can have"),
        "{message}"
    );
}

#[test]
fn wrong_values_say_what_is_allowed() {
    let cases = [
        (
            "router: { name: a1, router_id: 192.0.2.11 }",
            "1:9 router: the key `asn` is missing (the AS number of this router)",
        ),
        (
            "router: { name: a1, router_id: 0.0.0.0, asn: 1 }",
            "1:32 router.router_id: found `0.0.0.0`, expected an id in the form of an IPv4 address, not 0.0.0.0",
        ),
        (
            "router: { name: a1, router_id: 192.0.2.1, asn: 4294967295 }",
            "1:48 router.asn: found `4294967295`, expected an AS number, 1 to 4294967294",
        ),
        (
            "router: { name: a1, router_id: 192.0.2.1, asn: 23456 }",
            "1:48 router.asn: found `23456`, expected an AS number, but not AS_TRANS",
        ),
        (
            "router: { name: a1, router_id: 192.0.2.1, asn: \"1\" }",
            "1:48 router.asn: found the text \"1\", expected an AS number, 1 to 4294967294",
        ),
        (
            "router: { name: a 1, router_id: 192.0.2.1, asn: 1 }",
            "1:17 router.name: found `a 1`, expected a name of letters, digits, `-`, `_` and `.`, at most 63, the first a letter or digit",
        ),
        (
            "router: { name: a1, router_id: 192.0.2.1, asn: 1, hold_time: 2 }",
            "1:62 router.hold_time: found `2`, expected 0 (no keepalives), or 3 to 65535 seconds (RFC 4271 section 4.2)",
        ),
        (
            "router: { name: a1, router_id: 192.0.2.1, asn: 1, graceful_restart: yes }",
            "1:69 router.graceful_restart: found `yes`, expected true, false, or a mapping with `restart_time` and `deferral_time`",
        ),
        (
            "router: { name: a1, name: a2, router_id: 192.0.2.1, asn: 1 }",
            "1:21 router: the key `name` stands here for a second time (the first is on line 1)",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(lines(text), [message], "{text}");
    }
    let cases = [
        (
            "neighbours: []",
            "2:1 unknown key `neighbours`, allowed are `controller`, `router`, `overlay`, `prefix_lists`, `as_paths`, `communities`, `policies`, `tenants`, `groups`, `discovery`, `neighbors`, `networks`, `install`, `api` and `log` (did you mean `neighbors`?)",
        ),
        (
            "tenants:",
            "2:8 tenants: found nothing, expected a list of tenants",
        ),
        (
            "networks: [10.0.0.0/33]",
            "2:12 networks[0]: found `10.0.0.0/33`, expected a prefix such as 10.0.1.0/24 or 2001:db8::/48",
        ),
        (
            "networks: [10.0.0.0/8, 10.0.0.0/8]",
            "2:24 networks[1]: this stands in the list for a second time (the first is on line 2)",
        ),
        (
            "api: { listen: 8179 }",
            "2:16 api.listen: found `8179`, expected the absolute path of a Unix socket, or an address and a port, such as 127.0.0.1:8179 or [::1]:8179",
        ),
        (
            "api: { listen: \"[::]:8179\" }",
            "2:16 api.listen: other hosts reach [::]:8179, which takes TLS and tokens (listen at a Unix socket or the loopback, or say `tls: { certificate: FILE, key: FILE, tokens: FILE }`: `weft api certificate` and `weft api token create` make what is in them)",
        ),
        (
            "api: { listen: 127.0.0.1:8179, group: weft }",
            "2:39 api.group: a TCP port has no group",
        ),
        (
            "api: { listen: [/run/weft/api.sock, 192.0.2.1:8179], tls: { certificate: api.pem, key: /k, tokens: /t } }",
            "2:74 api.tls.certificate: found `api.pem`, expected the absolute path of a file",
        ),
        (
            "api: { listen: [127.0.0.1:8179, 192.0.2.1:8179] }",
            "2:16 api.listen: other hosts reach 192.0.2.1:8179, which takes TLS and tokens (listen at a Unix socket or the loopback, or say `tls: { certificate: FILE, key: FILE, tokens: FILE }`: `weft api certificate` and `weft api token create` make what is in them)",
        ),
        (
            "log: { level: warning }",
            "2:15 log.level: found `warning`, expected `error`, `warn`, `info`, `debug` or `trace`",
        ),
        (
            "log: { format: josn }",
            "2:16 log.format: found `josn`, expected `text` or `json` (did you mean `json`?)",
        ),
        (
            "discovery: [{ file: x, mdns: { interface: eth0 } }]",
            "2:13 discovery[0]: found a mapping, expected one of `file: PATH`, `dns: { name: NAME }`, `etcd: { endpoints: [URL] }` or `mdns: { interface: NAME }`",
        ),
        (
            "discovery: [{ dns: { name: x, servers: [localhost] } }]",
            "2:41 discovery[0].dns.servers[0]: found `localhost`, expected a name server, such as 127.0.0.1:53",
        ),
        (
            "overlay: { global_administrator: 64512, endpoint: \"fe80::1\" }",
            "2:51 overlay.endpoint: found the text \"fe80::1\", expected a unicast address of this router that others reach",
        ),
        (
            "overlay: { global_administrator: 64512, endpoint: \"2001:db8::1\" }\nneighbors: [{ address: 10.255.1.2, asn: 64601 }]",
            "3:12 neighbors: the IPv6 endpoint is announced in ipv6-unicast, and no neighbour exchanges that (add `families: [ipv4-unicast, ipv6-unicast]` to the neighbours)",
        ),
        (
            "neighbors: [{ address: 192.0.2.2, asn: 64601, private_as: remove }]",
            "2:59 neighbors[0].private_as: what becomes of private AS numbers is for eBGP neighbours (remove it, or correct the neighbour's `asn`)",
        ),
        (
            "neighbors: [{ address: 192.0.2.2, asn: 64602, local_as: 64602 }]",
            "2:57 neighbors[0].local_as: found `64602`, expected another AS number than the router's and the neighbour's",
        ),
        (
            "overlay: { endpoint: 192.0.2.1 }",
            "2:10 overlay: the key `global_administrator` is missing (the AS number that runs the overlay, the same in every domain)",
        ),
        (
            "tenants: [{ name: red, vni: 1 }]",
            "2:10 tenants: tenants need an overlay, and there is none (add `overlay: { global_administrator: ASN, endpoint: ADDRESS }`)",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(lines(&format!("{ROUTER}{text}\n")), [message], "{text}");
    }
}

/// What is never announced is told before anybody waits for it.
#[test]
fn a_family_that_is_never_announced_is_warned_of() {
    let warnings = |endpoint: &str, prefixes: &str, neighbors: &str| {
        let text = format!(
            "router: {{ name: a, router_id: 192.0.2.1, asn: 64601 }}
overlay: {{ global_administrator: 64512, endpoint: \"{endpoint}\" }}
tenants: [{{ name: red, vni: 10001, prefixes: [{prefixes}] }}]
neighbors: [{neighbors}]
"
        );
        good(&text).warnings()
    };
    const SIX: &str = "\"2001:db8:1::/64\"";
    let both = "families: [ipv4-unicast, ipv6-unicast]";
    let over_v4 = format!("{{ address: 198.51.100.2, asn: 64601, {both} }}");
    assert_eq!(
        warnings("192.0.2.1", SIX, &over_v4),
        [
            "neighbour 198.51.100.2: nothing of this router's is announced in ipv6-unicast, since the session has no next hop for it: set its `local_address_v6`"
        ]
    );
    // RFC 8950.
    let over_v6 = format!("{{ address: \"2001:db8::2\", asn: 64601, {both} }}");
    assert_eq!(
        warnings("2001:db8::1", "10.0.1.0/24", &over_v6),
        [] as [String; 0]
    );
    let v4_alone = "{ address: 198.51.100.2, asn: 64601 }";
    assert_eq!(
        warnings("192.0.2.1", SIX, v4_alone),
        [
            "what this router has in ipv6-unicast is announced to nobody: no neighbour has ipv6-unicast in its `families`"
        ]
    );
    // All is well, or there is nothing to announce.
    let named = format!(
        "{{ address: 198.51.100.2, asn: 64601, {both}, local_address_v6: \"2001:db8::1\" }}"
    );
    for (prefixes, neighbors) in [
        (SIX, &*named),
        ("10.0.1.0/24", &*over_v4),
        ("10.0.1.0/24", v4_alone),
        (SIX, ""),
    ] {
        assert_eq!(
            warnings("192.0.2.1", prefixes, neighbors),
            [] as [String; 0]
        );
    }
}

#[test]
fn a_controller_says_what_is_left_out() {
    let secret = "a".repeat(64);
    let token = format!("weft.0123456789.abcdef.{secret}");
    let config = good(&format!(
        "router: {{ name: a1 }}\ncontroller: {{ address: ctl.example, token: {token} }}\noverlay: {{ install_underlay: true }}\n"
    ));
    let controller = config.controller.clone().unwrap();
    assert_eq!(
        (controller.address.as_str(), controller.state.to_str()),
        ("ctl.example", Some("/var/lib/weft"))
    );
    assert_eq!(good(&config.to_yaml().unwrap()), config);
    let cases = [
        (
            "controller: { token: weft.a.b.c }",
            "2:13 controller: the key `address` is missing (where the controller is, HOST:PORT)\n\
             2:22 controller.token: found `weft.a.b.c`, expected a join token, weft.ID.SECRET.FINGERPRINT, as `weft token create` prints it",
        ),
        (
            "controller: { address: ctl, state: here }",
            "2:36 controller.state: found `here`, expected the absolute path of a folder",
        ),
        (
            "controller: { address: ctl }\ntenants: [{ name: red, vni: 1 }]\noverlay: {}",
            "3:10 tenants: with a controller, tenants are what it says (leave this out, and tell the controller)",
        ),
    ];
    for (text, messages) in cases {
        let found = lines(&format!("router: {{ name: a1 }}\n{text}\n"));
        assert_eq!(found.join("\n"), messages, "{text}");
    }
    // Without one they are all needed.
    let missing = lines("router: { name: a1 }\n");
    assert_eq!(missing.len(), 2, "{missing:?}");
}

#[test]
fn tenants_must_not_share() {
    let cases = [
        (
            "- { name: red }",
            "4:3 tenants[0]: the key `vni` is missing (the tenant's global VNI, 1 to 16777214, the same on every router)",
        ),
        (
            "- { name: red, vni: 1 }\n- { name: red, vni: 2 }",
            "5:11 tenants[1].name: the tenant `red` stands here for a second time (the first is on line 4)",
        ),
        (
            "- { name: red, vni: 1 }\n- { name: blue, vni: 1 }",
            "5:22 tenants[1].vni: the VNI 1 belongs to one tenant only (the first is on line 4, tenant `red`)",
        ),
        (
            "- { name: red, vni: 1, vnis: [2, 1] }",
            "4:34 tenants[0].vnis[1]: the VNI 1 belongs to one tenant only (the first is on line 4, tenant `red`)",
        ),
        (
            "- { name: red, vni: 1, interfaces: [e0] }\n- { name: blue, vni: 2, interfaces: [e0] }",
            "5:38 tenants[1].interfaces[0]: the interface `e0` belongs to one tenant only (the first is on line 4, tenant `red`)",
        ),
        (
            "- { name: red, vni: 1, interfaces: [a-name-of-16-oct] }",
            "4:37 tenants[0].interfaces[0]: found `a-name-of-16-oct`, expected a name of an interface: letters, digits, `-`, `_`, `.`, `+` and `@`, at most 15, the first a letter, a digit or `_` (`ip link set dev OLD name NEW` gives it one)",
        ),
        (
            "- { name: red, vni: 1, interfaces: ['eth*'] }",
            "4:37 tenants[0].interfaces[0]: found the text \"eth*\", expected a name of an interface: letters, digits, `-`, `_`, `.`, `+` and `@`, at most 15, the first a letter, a digit or `_` (`ip link set dev OLD name NEW` gives it one)",
        ),
        (
            "- { name: red, vni: 1, interfaces: [default] }",
            "4:37 tenants[0].interfaces[0]: found `default`, expected an interface: the kernel knows every interface's settings by this name",
        ),
        (
            "- { name: red, vni: 1, redistribute: [87] }",
            "4:39 tenants[0].redistribute[0]: found `87`, expected `connected`, `static`, ra, zebra, bird, dhcp, keepalived, babel, openr, bgp, isis, ospf, rip, eigrp, or the number of a route protocol, 5 to 255",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(
            lines(&format!("{ROUTER}{OVERLAY}tenants:\n{text}\n")),
            [message],
            "{text}"
        );
    }
}

#[test]
fn neighbors_must_make_sense() {
    let cases = [
        (
            "{ asn: 1 }",
            "4:3 neighbors[0]: the key `address` is missing (the neighbour's IP address)",
        ),
        (
            "{ address: 224.0.0.1, asn: 1 }",
            "4:14 neighbors[0].address: found `224.0.0.1`, expected a unicast address",
        ),
        (
            "{ address: 192.0.2.2, asn: 1 }\n- { address: 192.0.2.2, asn: 2 }",
            "5:14 neighbors[1].address: the neighbour 192.0.2.2 stands here for a second time (the first is on line 4)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, local_address: 192.0.2.2 }",
            "4:48 neighbors[0].local_address: found `192.0.2.2`, expected an address of this router, not the neighbour's own",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, local_address: \"::1\" }",
            "4:48 neighbors[0].local_address: found the text \"::1\", expected an IPv4 address, as the neighbour's is",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, route_reflector_client: true }",
            "4:57 neighbors[0].route_reflector_client: a route reflector's client is in the same AS (remove it, or correct the neighbour's `asn`)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, next_hop: unchanged }",
            "4:43 neighbors[0].next_hop: towards an eBGP neighbour the next hop is always `self`",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, families: [] }",
            "4:43 neighbors[0].families: found a list, expected at least one of `ipv4-unicast` and `ipv6-unicast`",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, families: [ipv4_unicast] }",
            "4:44 neighbors[0].families[0]: found `ipv4_unicast`, expected `ipv4-unicast` or `ipv6-unicast` (did you mean `ipv4-unicast`?)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, accept_vnis: [9-3] }",
            "4:47 neighbors[0].accept_vnis[0]: found `9-3`, a range that ends before it starts (did you mean 3-9?)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, accept_kinds: [tenant, locators] }",
            "4:56 neighbors[0].accept_kinds[1]: found `locators`, expected `tenant`, `service`, `local-next-hop` or `locator` (did you mean `locator`?)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, overlay: transit, accept_endpoints: [192.0.2.0/24] }",
            "4:69 neighbors[0].accept_endpoints: what is carried on whole is accepted by VNI only (leave this out, or `overlay: transit`)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, accept_vnis: some }",
            "4:46 neighbors[0].accept_vnis: found `some`, expected `all`, `none`, or a list such as [10001-10002, 10005]",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, accept_vnis: [1-16777215] }",
            "4:47 neighbors[0].accept_vnis[0]: found `1-16777215`, expected a VNI or a range such as 10001-10002, within 1 to 16777214",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, import: [{ prefix: 10.0.0.0/8, ge: 4 }] }",
            "4:68 neighbors[0].import[0].ge: found `4`, expected a prefix length, 8 to 32",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, import: [{ prefix: 10.0.0.0/8, ge: 24, le: 16 }] }",
            "4:76 neighbors[0].import[0].le: found `16`, expected a prefix length, 24 to 32",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, ttl: 0 }",
            "4:38 neighbors[0].ttl: found `0`, expected a TTL, 1 to 255",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, ttl: 2, ttl_security: true }",
            "4:55 neighbors[0].ttl_security: with `ttl_security` the TTL is 255 (remove `ttl`; over several hops, say how many: `ttl_security: 2`)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, ttl_security: 0 }",
            "4:47 neighbors[0].ttl_security: found `0`, expected true, or a number of hops, 1 to 254",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, bfd: yes }",
            "4:38 neighbors[0].bfd: found `yes`, expected true, false, or a mapping such as `{ interval: 300ms, multiplier: 3 }`",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, bfd: { interval: 49ms } }",
            "4:50 neighbors[0].bfd.interval: found `49ms`, expected a time such as `300ms`, from 50ms to 60s",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, bfd: { interval: 61s } }",
            "4:50 neighbors[0].bfd.interval: found `61s`, expected a time such as `300ms`, from 50ms to 60s",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, bfd: { multiplier: 0 } }",
            "4:52 neighbors[0].bfd.multiplier: found `0`, expected a number of intervals, 1 to 255",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, bfd: { multihop: false, minimum_ttl: 250 } }",
            "4:70 neighbors[0].bfd.minimum_ttl: packets from a neighbour on the link come with TTL 255, or are discarded (RFC 5881) (remove it, or `multihop: false`)",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, password_file: keys/a }",
            "4:48 neighbors[0].password_file: found `keys/a`, expected the absolute path of a file with the secret",
        ),
        (
            "{ address: 192.0.2.2, asn: 1, passive: maybe }",
            "4:42 neighbors[0].passive: found `maybe`, expected true or false",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(
            lines(&format!("{ROUTER}{OVERLAY}neighbors:\n- {text}\n")),
            [message],
            "{text}"
        );
    }
    let alone =
        format!("{ROUTER}neighbors: [{{ address: 192.0.2.2, asn: 1, accept_vnis: all }}]\n");
    assert_eq!(
        lines(&alone),
        ["2:56 neighbors[0].accept_vnis: labels are accepted into an overlay, and there is none"]
    );
}

const CHAINS: &str = "\
router: { name: r1, router_id: 192.0.2.1, asn: 64601 }
overlay: { global_administrator: 64512, endpoint: 192.0.2.1 }
tenants:
  - name: red
    vni: 10001
    interfaces: [red0]
    services:
      - name: firewall
        label: 20001
        interface: fw0
        node: [169.254.1.2, \"fd00:1::2\"]
        outside: { interface: fw1, node: 169.254.2.2 }
        on_failure: over
        rewrites: true
        selection: pinned
        probe: { kind: http, port: 8080, path: /health, interval: 500 }
      - { name: meter, label: 20002, on_failure: open }
    chains:
      - name: web
        priority: 10
        match:
          source: [10.0.1.0/24]
          destination: [10.0.2.0/24, \"2001:db8:2::/48\"]
          protocol: tcp
          destination_ports: [80, 8000-8100]
          dscp: 46
        services: [firewall, meter]
        symmetric: true
      - { name: rest, services: [meter] }
";

#[test]
fn services_and_chains_are_read_and_printed() {
    let config = good(CHAINS);
    assert_eq!(good(&config.to_yaml().unwrap()), config);
    let tenant = &config.tenants[0];
    let services = services(tenant);
    let attachment = services[0].attachment.as_ref().unwrap();
    let arms: Vec<&str> = attachment
        .arms()
        .map(|one| one.interface.as_str())
        .collect();
    assert_eq!(arms, ["fw0", "fw1"]);
    // Both directions meet in one place.
    assert_eq!(
        services[1].selection,
        weft_overlay::chain::Selection::Pinned
    );
    let chains = chains(tenant);
    let names: Vec<&str> = chains.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["web", "rest"]);
    assert_eq!(chains[0].matches.destination_ports, [80..=80, 8000..=8100]);
    let schema = jsonschema::validator_for(&Config::json_schema()).unwrap();
    let value: serde_json::Value = serde_yaml::from_str(CHAINS).unwrap();
    assert!(schema.is_valid(&value));
}

#[test]
fn chains_that_cannot_work_say_why() {
    let with = |from: &str, to: &str| {
        assert!(CHAINS.contains(from), "{from}");
        bad(&CHAINS.replace(from, to))
    };
    for (from, to, said) in [
        (
            "services: [firewall, meter]",
            "services: [firewall, meter, firewall]",
            "`firewall` stands twice in the chain",
        ),
        (
            "services: [firewall, meter]",
            "services: [firewal]",
            "`firewal` is no service of this tenant",
        ),
        (
            "          source: [10.0.1.0/24]\n          destination: [10.0.2.0/24, \"2001:db8:2::/48\"]\n          protocol: tcp\n          destination_ports: [80, 8000-8100]\n",
            "",
            "nothing tells the directions of the symmetric chain apart",
        ),
        (
            "selection: pinned",
            "selection: nearest",
            "both directions of a symmetric chain meet in one place",
        ),
        (
            "          protocol: tcp\n",
            "",
            "ports are of a protocol that has them",
        ),
        (
            "label: 20002",
            "label: 10001",
            "label 10001 is a VNI of the tenant `red`",
        ),
        (
            "label: 20002",
            "label: 20001",
            "label 20001 is the service `firewall` of the tenant `red`",
        ),
        (
            "interface: fw1",
            "interface: red0",
            "the interface `red0` belongs to one tenant only",
        ),
        (
            "        interface: fw0\n",
            "",
            "this is of a service that is attached here",
        ),
        (
            "endpoint: 192.0.2.1",
            "endpoint: 192.0.2.1, announce_locator: false",
            "announced with the locator",
        ),
        (
            "endpoint: 192.0.2.1",
            "endpoint: 192.0.2.1, announce_locator: false, port: 8472",
            "others learn of UDP port 8472 by the locator only",
        ),
        (
            "endpoint: 192.0.2.1",
            "endpoint: 192.0.2.1, encapsulation: gre, port: 8472",
            "GRE has no ports",
        ),
        (
            "endpoint: 192.0.2.1",
            "endpoint: 192.0.2.1, port: 0",
            "expected a UDP port, 1 to 65535",
        ),
        (
            "endpoint: 192.0.2.1",
            "endpoint: 192.0.2.1, port: 3784",
            "UDP port 3784 is BFD's",
        ),
        (
            "      - { name: rest, services: [meter] }",
            "      - { name: rest, services: [firewall] }",
            "an attachment for this chain",
        ),
    ] {
        let errors = with(from, to);
        assert!(errors.contains(said), "{to}: {errors}");
    }
    // Another tenant's service.
    let text = format!(
        "{CHAINS}  - {{ name: blue, vni: 10002, services: [{{ name: mine, label: 20001 }}], chains: [{{ name: all, services: [mine] }}] }}\n"
    );
    let errors = bad(&text);
    assert!(
        errors.contains("label 20001 is the service `firewall` of the tenant `red`"),
        "{errors}"
    );
}

/// The report on octets that are no good configuration.
fn refused(octets: &[u8]) -> String {
    let errors = Config::decode("r.yaml", octets.to_vec()).unwrap_err();
    errors.render(false)
}

const MINIMAL: &str = "router: { name: r, router_id: 192.0.2.1, asn: 64601 }\n";

#[test]
fn another_encoding_is_named_with_its_place_and_remedy() {
    let units = |big: bool| -> Vec<u8> {
        let units = MINIMAL.encode_utf16();
        let octets = units.map(|unit| match big {
            true => unit.to_be_bytes(),
            false => unit.to_le_bytes(),
        });
        octets.flatten().collect()
    };
    for (octets, name) in [
        ([&[0xff, 0xfe], &units(false)[..]].concat(), "UTF-16"),
        ([&[0xfe, 0xff], &units(true)[..]].concat(), "UTF-16"),
        (units(false), "UTF-16LE"),
        (units(true), "UTF-16BE"),
    ] {
        let report = refused(&octets);
        for part in [
            &format!("the file is {name}, "),
            "r.yaml:1:1",
            "1 | router: { name: r",
            "^^^^",
            &format!("iconv -f {name} -t UTF-8"),
        ] {
            assert!(report.contains(part), "no `{part}` in: {report}");
        }
    }
    let report = refused(b"router:\n  name: caf\xe9\n");
    for part in [
        "r.yaml:2:12",
        "0xe9",
        "in Latin-1 it is `\u{e9}`",
        "2 |   name: caf\u{e9}\n  |            ^\n",
        "iconv -f LATIN1 -t UTF-8",
    ] {
        assert!(report.contains(part), "no `{part}` in: {report}");
    }
    // A byte order mark of UTF-8 is none of the text.
    let marked = [b"\xef\xbb\xbf", MINIMAL.as_bytes()].concat();
    assert!(Config::decode("r.yaml", marked).is_ok());
}

#[test]
fn what_looks_like_a_blank_and_is_none_is_shown() {
    for (text, place, what, meant) in [
        (
            "router:\n\u{a0}\u{a0}name: r\n",
            "r.yaml:2:1",
            "a no-break space (U+00A0)",
            "a blank",
        ),
        (
            "router: { name: r\u{200b}, router_id: 192.0.2.1, asn: 64601 }\n",
            "r.yaml:1:18",
            "a character without width (U+200B)",
            "nothing",
        ),
        (
            "router: { name: \u{201c}r\u{201d}, router_id: 192.0.2.1, asn: 64601 }\n",
            "r.yaml:1:17",
            "a quote of typography (U+201C)",
            "`\"`",
        ),
    ] {
        let report = refused(text.as_bytes());
        for part in [place, what, &format!("write {meant} in its place")] {
            assert!(report.contains(part), "no `{part}` in: {report}");
        }
    }
    // In a comment or a description it harms nobody, and nothing is said of it.
    let text = format!("{MINIMAL}neighbors: x # a\u{a0}b\n");
    let report = refused(text.as_bytes());
    assert!(
        report.contains("r.yaml:2:12") && !report.contains("U+00A0"),
        "{report}"
    );
}

#[test]
fn an_as_number_in_another_notation_is_told_how_it_is_written() {
    for (text, number) in [
        ("1.10", "65546"),
        ("AS64601", "64601"),
        ("0.64601", "64601"),
    ] {
        let report = refused(MINIMAL.replace("64601", text).as_bytes());
        for part in ["r.yaml:1:47", text, &format!("write {number}")] {
            assert!(report.contains(part), "no `{part}` in: {report}");
        }
    }
}

/// What nobody limits is limited by whom it comes from.
#[test]
fn prefixes_are_limited_by_who_announces_them() {
    let config = good(&format!(
        "{ROUTER}{OVERLAY}tenants:\n  - name: red\n    vni: 1\n    interfaces: [red0]\n    neighbors:\n      - {{ address: 10.0.0.2, asn: 65001 }}\n\
         neighbors:\n  - {{ address: 192.0.2.1, asn: 64601 }}\n  - {{ address: 192.0.2.2, asn: 64602 }}\n  - {{ address: 192.0.2.3, asn: 64602, max_prefixes: 5 }}\n"
    ));
    let limits: Vec<Option<u32>> = config
        .neighbors
        .iter()
        .map(|neighbor| neighbor.session.max_prefixes)
        .collect();
    assert_eq!(limits, [None, Some(2_000_000), Some(5)]);
    let site = &config.tenants[0].neighbors[0];
    assert_eq!(site.session.max_prefixes, Some(100_000));
}

#[test]
fn a_session_is_shut_down_with_or_without_words() {
    let shutdown = |value: &str| {
        let config = good(&format!(
            "{ROUTER}neighbors:\n  - {{ address: 192.0.2.1, asn: 64602{value} }}\n"
        ));
        let again = good(&config.to_yaml().unwrap());
        assert_eq!(again.neighbors, config.neighbors, "printed and read again");
        config.neighbors[0].session.shutdown.clone()
    };
    assert_eq!(shutdown(""), None);
    assert_eq!(shutdown(", shutdown: false"), None);
    assert_eq!(shutdown(", shutdown: true"), Some(String::new()));
    assert_eq!(
        shutdown(", shutdown: \"new cables\""),
        Some("new cables".to_owned())
    );
    let long =
        format!("{ROUTER}neighbors:\n  - address: 192.0.2.1\n    asn: 64602\n    shutdown: ");
    for value in ["[a]".to_owned(), "é".repeat(128)] {
        assert_eq!(
            lines(&format!("{long}{value}"))[0]
                .split_once("expected")
                .unwrap()
                .1,
            " true, false, or a text of one line, at most 255 octets"
        );
    }
}

/// RFC 9234.
#[test]
fn roles_are_of_ebgp_neighbours() {
    use super::session::Role;
    for (word, role) in [
        ("provider", Role::Provider),
        ("customer", Role::Customer),
        ("peer", Role::Peer),
        ("rs", Role::Rs),
        ("rs-client", Role::RsClient),
    ] {
        let config = good(&format!(
            "{ROUTER}neighbors:\n  - {{ address: 192.0.2.1, asn: 64602, role: {word}, role_strict: true }}\n"
        ));
        let session = &config.neighbors[0].session;
        assert_eq!((session.role, session.role_strict), (Some(role), true));
        assert_eq!(weft_bgp_wire::Role::from(role).to_string(), word);
        assert_eq!(good(&config.to_yaml().unwrap()), config);
    }
    let neighbor =
        |rest: &str| format!("{ROUTER}neighbors:\n  - {{ address: 192.0.2.1, {rest} }}\n");
    assert_eq!(
        lines(&neighbor("asn: 64601, role: peer")),
        [
            "3:45 neighbors[0].role: routers of one AS have no roles towards each other (RFC 9234) (remove it, or correct the neighbour's `asn`)"
        ]
    );
    assert_eq!(
        lines(&neighbor("asn: 64602, role_strict: true")),
        [
            "3:52 neighbors[0].role_strict: the neighbour has to say its role, and this router has none towards it (add `role`, what this router is to the neighbour)"
        ]
    );
}
