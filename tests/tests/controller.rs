//! A controller that is killed, and one whose disk is full: what was acknowledged is there.

#![allow(clippy::unwrap_used, reason = "a test: a panic is its verdict")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_discovery::client::Rest;
use weft_tests::{need, output, weft};

struct Controller {
    folder: PathBuf,
    address: String,
    child: Option<Child>,
    /// A file system that is gone with it.
    mounted: bool,
}

impl Controller {
    fn new(name: &str, mount: Option<&str>) -> Self {
        let folder = std::env::temp_dir().join(format!("weft-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(options) = mount {
            output(
                Command::new("mount")
                    .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                    .arg(&folder),
            );
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        output(
            Command::new(weft())
                .args([
                    "controller",
                    "init",
                    "--name",
                    "t",
                    "--asn",
                    "64601",
                    "--administrator",
                    "64512",
                ])
                .args([
                    "--vnis",
                    "10000-99999",
                    "--address",
                    "127.0.0.1",
                    "--listen",
                    &address,
                    "--folder",
                ])
                .arg(folder.join("c")),
        );
        let mut controller = Self {
            folder,
            address,
            child: None,
            mounted: mount.is_some(),
        };
        controller.start();
        controller
    }

    fn start(&mut self) {
        let mut command = Command::new(weft());
        command
            .args(["controller", "run", "--folder"])
            .arg(self.folder.join("c"));
        let log = std::fs::File::create(self.log()).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// What it writes, beside the folder: a disk that is full is full of other things.
    fn log(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn rest(&self) -> Rest {
        let token = std::fs::read_to_string(self.folder.join("c/operator.token")).unwrap();
        Rest::new(&self.address, token.parse().unwrap())
    }

    async fn up(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while get(&self.rest(), "status").await.is_none() {
            assert!(Instant::now() < end, "the controller does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
        if self.mounted {
            let _ = Command::new("umount").arg(&self.folder).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_file(self.log());
    }
}

async fn get(rest: &Rest, path: &str) -> Option<Value> {
    rest.ask("GET".parse().unwrap(), path, None).await.ok()
}

/// The VNI of a new tenant, or why there is none.
async fn create(rest: &Rest, name: &str, description: &str) -> Result<u64, String> {
    let body = json!({ "name": name, "description": description });
    let created = rest
        .ask("POST".parse().unwrap(), "tenants", Some(&body))
        .await;
    created
        .map(|one| one["vni"].as_u64().unwrap())
        .map_err(|error| error.to_string())
}

/// Names and VNIs of all tenants.
async fn tenants(rest: &Rest) -> Vec<(String, u64)> {
    let all = get(rest, "tenants").await.unwrap();
    let all = all["items"].as_array().unwrap().iter();
    all.map(|one| {
        (
            one["name"].as_str().unwrap().to_owned(),
            one["vni"].as_u64().unwrap(),
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_controller_acknowledged_is_there_and_nothing_half() {
    let mut controller = Controller::new("killed", None);
    controller.up().await;
    let acknowledged = Arc::new(AtomicU32::new(0));
    let writes = (0..1000).map(|number| {
        let (rest, acknowledged) = (controller.rest(), acknowledged.clone());
        tokio::spawn(async move {
            let name = format!("t{number}");
            let vni = create(&rest, &name, "").await.ok()?;
            acknowledged.fetch_add(1, Ordering::Relaxed);
            Some((name, vni))
        })
    });
    let writes: Vec<_> = writes.collect();
    let end = Instant::now() + Duration::from_secs(60);
    while acknowledged.load(Ordering::Relaxed) < 300 {
        assert!(Instant::now() < end, "no progress");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    controller.kill();
    let mut log = Vec::new();
    for write in writes {
        log.extend(write.await.unwrap());
    }
    assert!(
        log.len() >= 300 && log.len() < 1000,
        "killed in the middle: {}",
        log.len()
    );
    controller.start();
    controller.up().await;
    let rest = controller.rest();
    let there: BTreeSet<(String, u64)> = tenants(&rest).await.into_iter().collect();
    for write in &log {
        assert!(
            there.contains(write),
            "{write:?} was acknowledged, and is lost"
        );
    }
    // A tenant and its VNI came together: no two have one, and the next one gets another.
    let vnis: BTreeSet<u64> = there.iter().map(|(_, vni)| *vni).collect();
    assert_eq!(vnis.len(), there.len());
    let next = create(&rest, "next", "").await.unwrap();
    assert!(!vnis.contains(&next));
    let status = get(&rest, "status").await.unwrap();
    // One that made the domain, one the operator's token, one each tenant.
    assert_eq!(
        status["revision"].as_u64().unwrap() as usize,
        2 + there.len() + 1
    );
}

fn fill(path: &Path) {
    let octets = vec![0u8; 64 << 10];
    let mut file = std::fs::File::create(path).unwrap();
    while std::io::Write::write_all(&mut file, &octets).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_and_loses_none() {
    if !need(&["mount"]) || !nix::unistd::geteuid().is_root() {
        return;
    }
    let controller = Controller::new("full", Some("size=8m"));
    controller.up().await;
    let rest = controller.rest();
    create(&rest, "before", "").await.unwrap();
    fill(&controller.folder.join("filler"));
    // It finds room in its own file for a while.
    let much = "x".repeat(20_000);
    let mut made = vec!["before".to_owned()];
    let refused = loop {
        let name = format!("t{}", made.len());
        match create(&rest, &name, &much).await {
            Ok(_) => made.push(name),
            Err(error) => break error,
        }
        assert!(made.len() < 2000, "the disk is not full");
    };
    assert!(refused.contains("No space left"), "{refused}");
    // It answers, and refuses what it cannot keep.
    let names = async || -> Vec<String> {
        let mut names: Vec<String> = tenants(&rest)
            .await
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names
    };
    made.sort();
    assert_eq!(names().await, made);
    // Room again: it goes on as if nothing had been.
    std::fs::remove_file(controller.folder.join("filler")).unwrap();
    create(&rest, "after", &much).await.unwrap();
    made.push("after".into());
    made.sort();
    assert_eq!(names().await, made);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_what_from_where_is_in_the_log_and_refusals_at_a_rate() {
    let controller = Controller::new("audit", None);
    controller.up().await;
    let rest = controller.rest();
    create(&rest, "red", "").await.unwrap();
    let operator = std::fs::read_to_string(controller.folder.join("c/operator.token")).unwrap();
    let parts: Vec<&str> = operator.trim().split('.').collect();
    let [weft, id, secret, fingerprint] = parts[..] else {
        panic!("{operator}");
    };
    // Somebody tries secrets, far faster than a log is to grow.
    let wrong = format!(
        "{weft}.{id}.{}.{fingerprint}",
        secret.replace(|_| true, "0")
    );
    let stranger = Rest::new(&controller.address, wrong.parse().unwrap());
    for _ in 0..200 {
        assert_eq!(get(&stranger, "tenants").await, None);
    }
    create(&rest, "blue", "").await.unwrap();
    let log = std::fs::read_to_string(controller.log()).unwrap();
    let lines = |words: &[&str]| {
        let lines = log.lines();
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .count()
    };
    let who = format!("who=\"token {id} (operator)\"");
    let done = [
        "audit",
        &who,
        "POST /api/v1/tenants",
        "201",
        "from=\"127.0.0.1:",
    ];
    assert_eq!(lines(&done), 2, "{log}");
    let refused = lines(&["audit: refused", "GET /api/v1/tenants", "401"]);
    assert!((20..100).contains(&refused), "{log}");
    assert!(!log.contains(secret), "a secret is in the log");
}
