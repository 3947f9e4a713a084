//! The handlers over a router that exists only here.

mod document;
mod samples;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::TraceQuery;
use crate::listen::serve;
use crate::query::{KernelQuery, RouteQuery, TenantRouteQuery};
use crate::server::{RouterState, Unavailable, router};
use crate::types::*;
use crate::{Address, Client, ClientError, Listener, Secrets};

/// A router with one neighbour, one tenant, and five routes 10.0.0.0/24 to 10.0.4.0/24.
struct Fake {
    stopping: bool,
}

impl Fake {
    fn answer<T>(&self, value: T) -> Result<T, Unavailable> {
        match self.stopping {
            true => Err(Unavailable("the router is stopping".to_owned())),
            false => Ok(value),
        }
    }
}

fn neighbor() -> Neighbor {
    Neighbor {
        address: Ipv4Addr::new(192, 0, 2, 2).into(),
        group: Some("transits".into()),
        dynamic: true,
        tenant: None,
        asn: 64999,
        kind: NeighborKind::Ebgp,
        local_as: Some(64998),
        description: None,
        source: Some("peers.yaml".into()),
        source_stale: None,
        signed: false,
        unsigned: None,
        ttl_security: None,
        bfd: Some(samples::bfd_session()),
        state: SessionState::Active,
        since: Some(7),
        flaps: 1,
        down: Some(Why::new(DownCode::ConnectFailed, "no connection: refused")),
        shutdown: None,
        max_prefixes: None,
        role: None,
        stale: false,
        negotiated: Some(samples::negotiated()),
        prefixes: vec![NeighborPrefixes {
            family: Family::Ipv6Unicast,
            received: 7,
            advertised: 3,
        }],
        updates: 0,
        rejected: 0,
        mute: vec![],
        route_leaks: 0,
        policy_rejected: 0,
        import: PolicyUse::default(),
        export: PolicyUse::default(),
        treat_as_withdraw: 0,
        attribute_discard: 0,
        stripped: Stripped::default(),
        refused_labels: RefusedLabels::default(),
        too_large: 0,
    }
}

impl RouterState for Fake {
    async fn status(&self) -> Result<Status, Unavailable> {
        self.answer(Status {
            name: "a1".to_owned(),
            router_id: Ipv4Addr::new(192, 0, 2, 11),
            asn: 64601,
            version: "0.1.0".to_owned(),
            uptime: 60,
            converged: true,
            awaited: None,
            overlay: Some(OverlayStatus {
                global_administrator: 64512,
                endpoint: Ipv4Addr::new(192, 0, 2, 11).into(),
                encapsulation: Encapsulation::Vxlan,
            }),
            neighbors: 1,
            neighbors_established: 0,
            prefixes: vec![FamilyCount {
                family: Family::Ipv4Unicast,
                count: 5,
            }],
            attribute_sets: 0,
            tenants: 1,
            tenant_routes: 0,
            kernel_routes: 0,
            kernel_refused: 0,
            bfd: Some(samples::bfd_status()),
            signatures: None,
            memory: 1 << 20,
            forwarding: samples::forwarding(),
            alarms: vec![Alarm {
                code: "overlap-hidden".to_owned(),
                text: "10.0.1.0/24: two tenants have it".to_owned(),
            }],
        })
    }

    async fn config(&self) -> Result<Value, Unavailable> {
        self.answer(json!({ "router": { "name": "a1" } }))
    }

    async fn neighbors(&self) -> Result<Vec<Neighbor>, Unavailable> {
        self.answer(vec![neighbor()])
    }

    async fn routes(&self, query: RouteQuery) -> Result<Page<Route>, Unavailable> {
        let nets = (0..5).map(|third| format!("10.0.{third}.0/24").parse().unwrap());
        let matching: Vec<ipnet::IpNet> = nets
            .filter(|net: &ipnet::IpNet| {
                let wanted = query.prefix;
                wanted.is_none_or(|wanted| query.prefix_match.selects(net, &wanted))
            })
            .collect();
        let behind = matching
            .iter()
            .filter(|net| query.after.is_none_or(|after| **net > after));
        let items: Vec<Route> = behind
            .take(query.limit)
            .map(|net| Route {
                prefix: *net,
                paths: vec![samples::path()],
            })
            .collect();
        let last = items.last().map(|route| route.prefix);
        self.answer(Page {
            total: matching.len() as u64,
            next_cursor: last
                .filter(|last| Some(last) != matching.last())
                .map(|last| last.to_string()),
            items,
        })
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, Unavailable> {
        self.answer(vec![Tenant {
            name: "red".to_owned(),
            vni: 10001,
            vnis: vec![10001],
            table: Some(7001),
            attachments: vec![Attachment {
                interface: "red0".to_owned(),
                up: true,
                missing: false,
            }],
            prefixes: vec!["10.0.1.0/24".parse().unwrap()],
            routes: 0,
            verdict: Verdict::default(),
            stitched: false,
        }])
    }

    async fn tenant_routes(
        &self,
        tenant: String,
        _: TenantRouteQuery,
    ) -> Result<Option<Page<TenantRoute>>, Unavailable> {
        self.answer((tenant == "red").then(|| Page {
            items: vec![samples::tenant_route()],
            total: 1,
            next_cursor: None,
        }))
    }

    async fn labels(&self) -> Result<Vec<LabelUse>, Unavailable> {
        self.answer(vec![LabelUse {
            label: samples::label(),
            tenant: Some("red".to_owned()),
            prefixes: 2,
        }])
    }

    async fn trace(&self, tenant: String, query: TraceQuery) -> Result<Option<Trace>, Unavailable> {
        self.answer((tenant == "red").then(|| Trace {
            tenant,
            destination: query.destination,
            verdict: Why::new(
                TraceCode::NoRoute,
                format!("from {:?}, dscp {}", query.from, query.dscp),
            ),
            ..samples::trace()
        }))
    }

    async fn services(&self, _: Option<String>) -> Result<Vec<Service>, Unavailable> {
        self.answer(vec![samples::service()])
    }

    async fn chains(&self, _: Option<String>) -> Result<Vec<Chain>, Unavailable> {
        self.answer(vec![samples::chain()])
    }

    async fn traffic(&self) -> Result<Vec<Traffic>, Unavailable> {
        let each = |tenant: &str, vni| Traffic {
            tenant: Some(tenant.to_owned()),
            vni,
            endpoint: [192, 0, 2, 11].into(),
            received_packets: 7,
            received_octets: 700,
            sent_packets: 8,
            sent_octets: 800,
        };
        self.answer(vec![each("red", 10001), each("blue", 10002)])
    }

    async fn endpoints(&self, tenant: Option<String>) -> Result<Vec<Endpoint>, Unavailable> {
        let each = |last, probes| Endpoint {
            address: [192, 0, 2, last].into(),
            port: None,
            reachable: true,
            path: None,
            probes,
        };
        let probes = Probes {
            answered: 30,
            lost: 10,
            recent: 32,
            recent_lost: 8,
            round_trip: Some(RoundTrip {
                last: 900,
                least: 800,
                mean: 1000,
                most: 1500,
            }),
        };
        let mut all = vec![each(11, Some(probes)), each(12, None)];
        all.truncate(if tenant.is_some() { 1 } else { 2 });
        self.answer(all)
    }

    async fn kernel(&self, query: KernelQuery) -> Result<Kernel, Unavailable> {
        assert_eq!(query.offset, 0);
        self.answer(samples::kernel())
    }
}

async fn send(fake: Fake, request: Request<Body>) -> (u16, String, Value) {
    let response = router(Arc::new(fake)).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let content_type = response.headers()[header::CONTENT_TYPE]
        .to_str()
        .unwrap()
        .to_owned();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, content_type, serde_json::from_slice(&body).unwrap())
}

async fn get(path: &str) -> (u16, Value) {
    let request = Request::get(format!("/api/v1{path}"))
        .body(Body::empty())
        .unwrap();
    let (status, content_type, body) = send(Fake { stopping: false }, request).await;
    let expected = match status {
        200 => "application/json",
        _ => "application/problem+json",
    };
    assert_eq!(content_type, expected, "{path}");
    if status != 200 {
        assert_eq!(body["status"], status, "{path}");
        assert_eq!(body["type"], "about:blank", "{path}");
    }
    (status, body)
}

#[tokio::test]
async fn every_path_answers() {
    for path in [
        "/status",
        "/neighbors",
        "/neighbors/192.0.2.2",
        "/routes",
        "/tenants",
        "/tenants/red",
        "/tenants/red/routes",
        "/tenants/red/trace?destination=10.0.2.10",
        "/labels",
        "/services?tenant=red",
        "/chains?tenant=red",
        "/traffic",
        "/endpoints",
        "/kernel",
        "/openapi.json",
    ] {
        assert_eq!(get(path).await.0, 200, "{path}");
    }
    let (_, body) = get("/neighbors/192.0.2.2").await;
    assert_eq!(body["state"], "active");
    assert_eq!(
        body["down"],
        json!({ "code": "connect-failed", "text": "no connection: refused" })
    );
}

#[tokio::test]
async fn what_is_not_there_is_404_with_a_reason() {
    for (path, detail) in [
        ("/neighbors/192.0.2.9", "192.0.2.9 is not a neighbour"),
        ("/tenants/green", "`green` is not a tenant of this router"),
        (
            "/tenants/green/routes",
            "`green` is not a tenant of this router",
        ),
        (
            "/nothing",
            "/api/v1/nothing is not a path of this API; /api/v1/openapi.json describes all of them",
        ),
    ] {
        let (status, body) = get(path).await;
        assert_eq!((status, &body["detail"]), (404, &json!(detail)));
    }
    let (status, body) = get("/neighbors/bob").await;
    assert_eq!(
        (status, &body["detail"]),
        (400, &json!("`bob` is not an IP address"))
    );
}

#[tokio::test]
async fn a_bad_query_says_what_is_allowed() {
    for (path, name, found, reason, allowed) in [
        ("/status?x=1", "x", "1", "unknown parameter", "no parameter"),
        (
            "/labels?vni=1",
            "vni",
            "1",
            "unknown parameter",
            "no parameter",
        ),
        (
            "/routes?famly=x",
            "famly",
            "x",
            "unknown parameter",
            "family, prefix, match, neighbor, community, large_community, vni, cursor, limit",
        ),
        (
            "/routes?family=ipv5",
            "family",
            "ipv5",
            "not a value of this parameter",
            "ipv4-unicast, ipv6-unicast",
        ),
        (
            "/routes?prefix=10.0.0",
            "prefix",
            "10.0.0",
            "not a value of this parameter",
            "a prefix such as 10.0.1.0/24, or an address",
        ),
        (
            "/routes?prefix=10.0.0.1/24",
            "prefix",
            "10.0.0.1/24",
            "bits are set behind the prefix length",
            "10.0.0.0/24",
        ),
        (
            "/routes?match=near",
            "match",
            "near",
            "not a value of this parameter",
            "exact, longer, shorter, longest",
        ),
        (
            "/routes?neighbor=a",
            "neighbor",
            "a",
            "not a value of this parameter",
            "the IP address of a neighbour",
        ),
        (
            "/routes?large_community=1:2",
            "large_community",
            "1:2",
            "not a value of this parameter",
            "A:B:C, each 0 to 4294967295, a range such as 10001-10099, or *",
        ),
        (
            "/tenants/red/trace",
            "destination",
            "",
            "missing",
            "an IP address",
        ),
        (
            "/tenants/red/trace?destination=10.0.2.10&dscp=64",
            "dscp",
            "64",
            "not a value of this parameter",
            "0 to 63",
        ),
        (
            "/routes?vni=0",
            "vni",
            "0",
            "not a value of this parameter",
            "1 to 16777214",
        ),
        (
            "/routes?limit=1001",
            "limit",
            "1001",
            "not a value of this parameter",
            "1 to 1000",
        ),
        (
            "/routes?cursor=x",
            "cursor",
            "x",
            "not a value of this parameter",
            "the next_cursor of the page before",
        ),
        (
            "/routes?vni=1&vni=2",
            "vni",
            "2",
            "given twice",
            "one value",
        ),
        (
            "/tenants/red/routes?vni=1",
            "vni",
            "1",
            "unknown parameter",
            "prefix, match, cursor, limit",
        ),
        (
            "/kernel?cursor=-1",
            "cursor",
            "-1",
            "not a value of this parameter",
            "the next_cursor of the page before",
        ),
    ] {
        let (status, body) = get(path).await;
        assert_eq!(status, 400, "{path}");
        let expected =
            json!([{ "name": name, "found": found, "reason": reason, "allowed": allowed }]);
        assert_eq!(body["invalid_parameters"], expected, "{path}");
        let detail = format!("{name}={found}: {reason}, allowed: {allowed}");
        assert_eq!(body["detail"], detail, "{path}");
    }
    let (_, body) = get("/routes?vni=0&family=x&y=1").await;
    assert_eq!(
        body["invalid_parameters"].as_array().unwrap().len(),
        3,
        "all at once"
    );
}

#[tokio::test]
async fn pages_follow_the_cursor_to_the_end() {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, body) = get(&format!("/routes?limit=2{cursor}")).await;
        assert_eq!((status, &body["total"]), (200, &json!(5)));
        for route in body["items"].as_array().unwrap() {
            seen.push(route["prefix"].as_str().unwrap().to_owned());
        }
        match body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(
        seen,
        [
            "10.0.0.0/24",
            "10.0.1.0/24",
            "10.0.2.0/24",
            "10.0.3.0/24",
            "10.0.4.0/24"
        ]
    );
}

#[tokio::test]
async fn traffic_is_told_by_tenant_and_everything_counts_as_metrics() {
    let (_, all) = get("/traffic").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let (_, endpoints) = get("/endpoints?tenant=red").await;
    assert_eq!(endpoints.as_array().unwrap().len(), 1, "{endpoints}");
    assert_eq!(endpoints[0]["probes"]["round_trip"]["mean"], 1000);
    let (_, red) = get("/traffic?tenant=red").await;
    assert_eq!(red.as_array().unwrap().len(), 1);
    assert_eq!(red[0]["received_octets"], 700);
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = router(Arc::new(Fake { stopping: false }))
        .oneshot(request)
        .await
        .unwrap();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    for line in [
        "# TYPE weft_tunnel_received_packets counter",
        "weft_tunnel_received_packets_total{tenant=\"red\",vni=\"10001\",router=\"192.0.2.11\"} 7",
        "weft_tunnel_sent_bytes_total{tenant=\"blue\",vni=\"10002\",router=\"192.0.2.11\"} 800",
        "weft_alarms{code=\"overlap-hidden\"} 1",
        "weft_build_info{version=\"0.1.0\"} 1",
        "weft_endpoint_round_trip_seconds{router=\"192.0.2.11\"} 0.001",
        "weft_kernel_objects{object=\"underlay-routes\"} 2",
        "weft_tenant_sent_bytes_total{tenant=\"red\"} 800",
        "weft_bgp_neighbor_up{neighbor=\"192.0.2.2\",asn=\"64999\"} 0",
        "weft_tenant_routes{tenant=\"red\"} 0",
        "weft_uptime_seconds 60",
        "weft_bfd_sessions{state=\"up\"} 1",
        "weft_bfd_session_up{neighbor=\"192.0.2.2\"} 1",
        "weft_bfd_packets_discarded_total{reason=\"stranger\"} 3",
        "weft_bfd_lateness_seconds_bucket{le=\"0.0001\"} 5",
        "weft_bfd_lateness_seconds_bucket{le=\"+Inf\"} 6",
        "weft_bfd_lateness_seconds_count 6",
        "# EOF",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
}

/// The rules of OpenMetrics that Prometheus and promtool hold us to.
#[tokio::test]
async fn metrics_follow_the_rules_of_openmetrics() {
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let response = router(Arc::new(Fake { stopping: false }))
        .oneshot(request)
        .await
        .unwrap();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let (mut kinds, mut series) = (HashMap::new(), HashSet::new());
    let mut family = String::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{name} twice"
            );
            family = name.to_owned();
        } else if let Some(help) = line.strip_prefix("# HELP ") {
            let (_, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
        } else if line != "# EOF" {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffixes: &[&str] = match kinds[&family].as_str() {
                "counter" => &["_total"],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let suffix = name.strip_prefix(&family);
            assert!(
                suffix.is_some_and(|suffix| suffixes.contains(&suffix)),
                "{line}"
            );
            let (labels, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(labels.to_owned()), "{line} twice");
            // Seconds and bytes; a label's value is a word.
            for unit in ["microseconds", "milliseconds", "octets", "kilobytes"] {
                assert!(!name.contains(unit), "{line}");
            }
            for value in labels.split('"').skip(1).step_by(2) {
                assert!(!value.is_empty() && !value.contains(' '), "{line}");
            }
        }
    }
    for family in kinds.keys() {
        for reserved in ["_total", "_info", "_count", "_sum", "_bucket", "_created"] {
            assert!(!family.ends_with(reserved), "{family}");
        }
    }
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
}

#[tokio::test]
async fn an_address_asks_for_the_longest_prefix_that_covers_it() {
    for (query, expected) in [
        ("prefix=10.0.2.7", vec!["10.0.2.0/24"]),
        ("prefix=10.0.2.7&match=longest", vec!["10.0.2.0/24"]),
        ("prefix=10.0.2.7&match=exact", vec![]),
        ("prefix=10.0.2.128/25&match=longest", vec!["10.0.2.0/24"]),
        (
            "prefix=10.0.2.0/23&match=longer",
            vec!["10.0.2.0/24", "10.0.3.0/24"],
        ),
        ("prefix=2001:db8::1", vec![]),
    ] {
        let (status, body) = get(&format!("/routes?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        let items = body["items"].as_array().unwrap().iter();
        let prefixes: Vec<&str> = items
            .map(|route| route["prefix"].as_str().unwrap())
            .collect();
        assert_eq!(prefixes, expected, "{query}");
    }
    for pattern in ["64512:*:*", "64512:10001-10002:*", "*:*:*"] {
        assert_eq!(
            get(&format!("/routes?large_community={pattern}")).await.0,
            200
        );
    }
    assert_eq!(get("/routes?community=65000:*").await.0, 200);
    assert_eq!(get("/routes?community=64512:10001:*").await.0, 200);
    let (status, body) = get("/routes?match=longest").await;
    assert_eq!(status, 400);
    assert_eq!(
        body["invalid_parameters"][0]["reason"], "selects by a prefix, and there is none",
        "{body}"
    );
}

#[tokio::test]
async fn other_methods_and_a_stopping_router_are_problems_too() {
    let post = Request::post("/api/v1/status").body(Body::empty()).unwrap();
    let (status, content_type, body) = send(Fake { stopping: false }, post).await;
    assert_eq!(
        (status, content_type.as_str()),
        (405, "application/problem+json")
    );
    assert_eq!(
        body["detail"],
        "/api/v1/status does not take POST, allowed: GET, HEAD"
    );
    let ask = Request::get("/api/v1/status").body(Body::empty()).unwrap();
    let (status, _, body) = send(Fake { stopping: true }, ask).await;
    assert_eq!(
        (status, &body["detail"]),
        (503, &json!("the router is stopping"))
    );
}

fn client(base: &str) -> Client {
    Client::new(base, &Secrets::default()).unwrap()
}

#[tokio::test]
async fn the_client_speaks_with_the_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let listener = Listener::Tcp(listener, None);
    let server = tokio::spawn(serve(
        vec![listener],
        Arc::new(Fake { stopping: false }),
        stopped,
    ));
    let url = base.clone();
    tokio::task::spawn_blocking(move || {
        let client = client(&url);
        let status: Status = client.get(&["status"], &[]).unwrap();
        assert_eq!(status.name, "a1");
        let page: Page<Route> = client
            .get(
                &["routes"],
                &[
                    ("prefix", "10.0.0.0/22".to_owned()),
                    ("match", "longer".to_owned()),
                ],
            )
            .unwrap();
        assert_eq!(page.items.len(), 4);
        let error = client
            .get::<Tenant>(&["tenants", "a/b c"], &[])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`a/b c` is not a tenant of this router (Not Found)"
        );
        let error = client.get::<Tenant>(&["status"], &[]).unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    server.await.unwrap();
    let error = tokio::task::spawn_blocking(move || client(&base).get::<Status>(&["status"], &[]))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("no router answers at http://127.0.0.1:"),
        "{error}"
    );
}

/// A server at a Unix socket of this test's own, which ends with the test's runtime.
async fn at_a_socket(name: &str) -> (std::path::PathBuf, Address) {
    let folder = std::env::temp_dir().join(format!("weft-api-{}-{name}", std::process::id()));
    let path = folder.join("api.sock");
    let address: Address = path.to_str().unwrap().parse().unwrap();
    let listener = address.listen(None, None).await.unwrap();
    let never = std::future::pending();
    tokio::spawn(serve(
        vec![listener],
        Arc::new(Fake { stopping: false }),
        never,
    ));
    (folder, address)
}

/// What comes back for these octets until the other end closes.
async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    octets: &[u8],
) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(octets).await.unwrap();
    let mut said = Vec::new();
    // A connection that is reset is closed, too.
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_the_client_speaks_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, address) = at_a_socket("owner").await;
    let path = folder.join("api.sock");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let place = path.to_str().unwrap().to_owned();
    tokio::task::spawn_blocking(move || {
        let client = client(&place);
        let status: Status = client.get(&["status"], &[]).unwrap();
        assert_eq!(status.name, "a1");
        let error = client.get::<Tenant>(&["tenants", "a/b"], &[]).unwrap_err();
        assert!(matches!(error, ClientError::Problem(_)), "{error}");
    })
    .await
    .unwrap();
    // A second one is told that the first is there.
    let error = address.listen(None, None).await.unwrap_err().to_string();
    assert_eq!(error, "another program listens there");
    // A file of something else is left alone.
    let other = folder.join("file");
    std::fs::write(&other, "").unwrap();
    let error = Address::Unix(other.clone())
        .listen(None, None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no socket"), "{error}");
    assert!(other.exists());
    // What a process left that is no more is taken away; the file goes with its listener.
    let stale = folder.join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let listener = Address::Unix(stale.clone())
        .listen(None, None)
        .await
        .unwrap();
    drop(listener);
    assert!(!stale.exists());
    let error = Address::Unix(stale)
        .listen(Some("no-such-group"), None)
        .await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("there is no group `no-such-group`"),
        "{error}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn nobody_answers_at_a_socket_that_is_not_there() {
    let error =
        tokio::task::spawn_blocking(|| client("/nowhere/api.sock").get::<Status>(&["status"], &[]));
    let error = error.await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("no router answers at /nowhere/api.sock: "),
        "{error}"
    );
}

#[tokio::test]
async fn what_a_browser_sends_for_another_site_is_refused_at_a_port() {
    let ask = async |headers: &[(&str, &str)]| {
        let state = Arc::new(Fake { stopping: false });
        let app = crate::guard::tcp(crate::router(state));
        let request = headers
            .iter()
            .fold(Request::get("/api/v1/status"), |request, (name, value)| {
                request.header(*name, *value)
            });
        let request = request.body(Body::empty()).unwrap();
        let answer = app.oneshot(request).await.unwrap();
        answer.status().as_u16()
    };
    for host in [
        "127.0.0.1:8179",
        "127.0.0.1",
        "localhost:9000",
        "LOCALHOST",
        "[::1]:8179",
    ] {
        assert_eq!(ask(&[("host", host)]).await, 200, "{host}");
        let origin = format!("http://{host}");
        let same = [("host", host), ("origin", origin.as_str())];
        assert_eq!(ask(&same).await, 200, "{host}");
        for origin in [
            "http://evil.example",
            "null",
            "https://127.0.0.1:8179",
            "http://127.0.0.1:1",
        ] {
            let other = [("host", host), ("origin", origin)];
            assert_eq!(ask(&other).await, 403, "{host} {origin}");
        }
    }
    // A name that somebody points at this host.
    for host in [
        "evil.example:8179",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@127.0.0.1",
        "192.0.2.1:8179",
        "",
    ] {
        assert_eq!(ask(&[("host", host)]).await, 421, "{host}");
    }
    assert_eq!(ask(&[]).await, 421);
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(ask(&twice).await, 421);
}

#[tokio::test]
async fn sending_packets_takes_post() {
    let ask = async |request: axum::http::request::Builder| {
        let request = request.body(Body::empty()).unwrap();
        let state = Arc::new(Fake { stopping: false });
        crate::router(state).oneshot(request).await.unwrap()
    };
    let path = "/api/v1/tenants/red/trace?destination=10.0.2.10";
    let refused = ask(Request::get(format!("{path}&live=true"))).await;
    assert_eq!(refused.status().as_u16(), 405);
    assert_eq!(refused.headers()["allow"], "POST");
    assert_eq!(
        ask(Request::get(format!("{path}&size=1400")))
            .await
            .status(),
        405
    );
    assert_eq!(ask(Request::get(path)).await.status(), 200);
    assert_eq!(ask(Request::post(path)).await.status(), 200);
    assert_eq!(
        ask(Request::post(format!("{path}&live=true&size=1400")))
            .await
            .status(),
        200
    );
    assert_eq!(
        ask(Request::post(format!("{path}&live=false")))
            .await
            .status(),
        400
    );
}

#[tokio::test]
async fn silent_and_slow_connections_end_and_bodies_are_bounded() {
    let (folder, _) = at_a_socket("bounds").await;
    let path = folder.join("api.sock");
    let connect = async || tokio::net::UnixStream::connect(&path).await.unwrap();
    let large = format!(
        "POST /api/v1/tenants/red/trace?destination=10.0.2.10 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        crate::bounds::BODY + 1
    );
    let said = exchange(connect().await, large.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    // Of the machine's own clock: a connection that says nothing, one that stops in the head, one in the body.
    let slow = "POST /api/v1/tenants/red/trace?destination=10.0.2.10 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    let (silent, head, body) = tokio::join!(
        exchange(connect().await, b""),
        exchange(connect().await, b"GET / HTTP/1.1\r\nHost:"),
        exchange(connect().await, slow.as_bytes()),
    );
    assert_eq!(silent, "");
    assert!(!head.contains(" 200 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 "), "{body}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_port_has_so_many_connections_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let never = std::future::pending();
    let state = Arc::new(Fake { stopping: false });
    tokio::spawn(serve(vec![Listener::Tcp(listener, None)], state, never));
    let connect = async || tokio::net::TcpStream::connect(address).await.unwrap();
    let ask = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // Those that ask for nothing give way, the oldest first: nobody is kept out by them.
    let mut held = Vec::new();
    for _ in 0..3 * crate::listen::CONNECTIONS_EACH {
        held.push(connect().await);
    }
    let said = exchange(connect().await, ask).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    let oldest = exchange(held.remove(0), b"").await;
    assert_eq!(oldest, "", "it is closed");
}

/// `WEFT_UPDATE=1 cargo test` writes the file anew.
#[test]
fn the_published_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let current = serde_json::to_string_pretty(&crate::document()).unwrap() + "\n";
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &current).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == current,
        "docs/openapi.json is not current: `WEFT_UPDATE=1 cargo test -p weft-api` writes it"
    );
}

#[test]
fn the_document_is_openapi_3_1_and_complete() {
    let document = crate::document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["paths"].as_object().unwrap().len(), 16);
    let text = document.to_string();
    for (at, _) in text.match_indices("#/components/schemas/") {
        let name = text[at..]
            .trim_start_matches("#/components/schemas/")
            .split('"')
            .next()
            .unwrap();
        assert!(
            !document["components"]["schemas"][name].is_null(),
            "{name} is not defined"
        );
    }
}
