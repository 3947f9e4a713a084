//! A controller in a process of its own, with its datastore.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_discovery::EtcdTls;
use weft_discovery::client::Rest;
use weft_discovery::database::Database;
use weft_discovery::store::{Etcd, Redb};

/// Where a domain is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    File,
    Etcd,
}

/// A controller; it ends with the value, and what it kept is gone.
pub(crate) struct Controller {
    child: Option<Child>,
    etcd: Option<(Child, String)>,
    /// Its folder is below this one.
    pub(crate) folder: PathBuf,
    pub(crate) address: String,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop();
        if let Some((etcd, _)) = &mut self.etcd {
            // It may have ended.
            let _ = etcd.kill();
            let _ = etcd.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The weft beside this program.
fn weft() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("weft");
    ensure!(
        path.exists(),
        "no {}: cargo build --release -p weft",
        path.display()
    );
    Ok(path)
}

/// A free port on the loopback interface.
fn port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

impl Controller {
    /// Makes a domain; nobody serves it yet. `None` where etcd is to keep it and is not installed.
    pub(crate) async fn create(name: &str, kept: Kept) -> Result<Option<Self>> {
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut controller = Self {
            child: None,
            etcd: None,
            address: format!("127.0.0.1:{}", port()?),
            folder,
        };
        if kept == Kept::Etcd {
            match controller.start_etcd()? {
                Some(etcd) => controller.etcd = Some(etcd),
                None => return Ok(None),
            }
        }
        let mut init = Command::new(weft()?);
        init.args(["controller", "init", "--name", "bench", "--asn", "64601"])
            .args(["--administrator", "64512", "--vnis", "10000-999999"])
            .args(["--address", "127.0.0.1", "--listen", &controller.address])
            .arg("--folder")
            .arg(controller.folder.join("controller"));
        if let Some((_, endpoint)) = &controller.etcd {
            init.args(["--etcd", endpoint]);
        }
        let end = Instant::now() + Duration::from_secs(10);
        while !init
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?
            .success()
        {
            ensure!(Instant::now() < end, "weft controller init");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Some(controller))
    }

    fn start_etcd(&self) -> Result<Option<(Child, String)>> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(port()?), url(port()?));
        let started = Command::new("etcd")
            .args(["--name", "bench", "--logger", "zap", "--data-dir"])
            .arg(self.folder.join("etcd"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(started.ok().map(|etcd| (etcd, client)))
    }

    /// The datastore, which nobody else may have open.
    pub(crate) async fn database(&self) -> Result<Database> {
        Ok(match &self.etcd {
            None => Database::start(Redb::open(&self.file())?).await?,
            Some((_, endpoint)) => {
                let tls = EtcdTls::default();
                let members = [endpoint.clone()];
                let store = Etcd::connect(&members, &tls, "/weft/bench");
                Database::start(store?).await?
            }
        })
    }

    /// The file of the datastore.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("controller/domain.redb")
    }

    /// Serves the domain; returns when it answers.
    pub(crate) async fn start(&mut self) -> Result<Rest> {
        let child = Command::new(weft()?)
            .args(["controller", "run", "--folder"])
            .arg(self.folder.join("controller"))
            .stderr(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        let operator = std::fs::read_to_string(self.folder.join("controller/operator.token"))?;
        let rest = Rest::new(&self.address, operator.parse()?);
        let end = Instant::now() + Duration::from_secs(60);
        while rest.ask("GET".parse()?, "domain", None).await.is_err() {
            ensure!(Instant::now() < end, "the controller does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(rest)
    }

    /// Serves it no more.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The process that serves it.
    pub(crate) fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("a controller")?.id())
    }
}

/// Memory of a process, octets: `VmRSS` now, or `VmHWM` at most.
pub(crate) fn memory(pid: u32, what: &str) -> Result<u64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(number.context("memory")?.parse::<u64>()? * 1024)
}
