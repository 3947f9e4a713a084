//! Network namespaces, and data planes in them.

use std::process::Command as Process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as channel;
use std::time::{Duration, Instant};

use super::super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(super) fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: data plane tests need root (CAP_NET_ADMIN, CAP_SYS_ADMIN)");
    }
    root
}

pub(super) fn ip(words: &str) {
    let output = Process::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Namespaces of one test, gone when it ends however it ends.
pub(super) struct Lab {
    tag: String,
    names: Vec<String>,
}

impl Lab {
    pub(super) fn new(names: &[&str]) -> Self {
        let tag = format!(
            "weft-dp-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut lab = Self {
            tag,
            names: Vec::new(),
        };
        for name in names {
            lab.add(name);
        }
        lab
    }

    /// One more namespace.
    pub(super) fn add(&mut self, name: &str) {
        ip(&format!("netns add {}", self.ns(name)));
        self.names.push(name.to_owned());
        ip(&format!("-n {} link set lo up", self.ns(name)));
    }

    pub(super) fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    pub(super) fn try_run(&self, name: &str, command: &str) -> std::process::Output {
        Process::new("ip")
            .args(["netns", "exec", &self.ns(name), "sh", "-c", command])
            .output()
            .unwrap()
    }

    pub(super) fn run(&self, name: &str, command: &str) -> String {
        let output = self.try_run(name, command);
        assert!(
            output.status.success(),
            "{name}: {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A link between two namespaces: `a:eth0 b:eth0`, with addresses. The attachments of tenants called blue have the index of a
    /// link that was made late in a router's life.
    pub(super) fn link(
        &self,
        (a, a_if, a_addr): (&str, &str, &str),
        (b, b_if, b_addr): (&str, &str, &str),
    ) {
        let late = if a_if.starts_with("blue") {
            "index 1000007"
        } else {
            ""
        };
        ip(&format!(
            "link add {a_if} netns {} {late} type veth peer name {b_if} netns {}",
            self.ns(a),
            self.ns(b)
        ));
        for (node, interface, address) in [(a, a_if, a_addr), (b, b_if, b_addr)] {
            // No shell: in a virtual machine each program that starts costs.
            let ns = self.ns(node);
            ip(&format!("-n {ns} addr add {address} dev {interface}"));
            ip(&format!("-n {ns} link set {interface} up"));
        }
    }

    /// Starts a data plane in a namespace, on a thread of its own.
    pub(super) fn start(&self, name: &str, config: DataplaneConfig) -> Router {
        let (calls, inbox) = channel::channel::<Call>();
        let namespace = self.ns(name);
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let (dataplane, mut events) = runtime.block_on(Dataplane::start(config)).unwrap();
            while let Ok(call) = inbox.recv() {
                runtime.block_on(call(&dataplane, &mut events));
            }
            runtime.block_on(dataplane.stop());
        });
        Router {
            calls: Some(calls),
            thread: Some(thread),
        }
    }

    /// Does something in a namespace, on a thread of its own.
    pub(super) fn inside<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let namespace = self.ns(name);
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Process::new("ip")
                .args(["netns", "del", &self.ns(name)])
                .output();
        }
    }
}

type Call = Box<
    dyn for<'a> FnOnce(
            &'a Dataplane,
            &'a mut mpsc::Receiver<DataplaneEvent>,
        ) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>
        + Send,
>;

pub(super) struct Router {
    calls: Option<channel::Sender<Call>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Router {
    fn call(&self, call: Call) {
        self.calls.as_ref().unwrap().send(call).unwrap();
    }

    pub(super) fn apply(&self, delta: IntentDelta) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.apply(delta).await })
        }));
    }

    pub(super) fn settle(&self) {
        self.call(Box::new(|dataplane, _| Box::pin(dataplane.settle())));
    }

    /// The process dies: nothing is cleaned up.
    pub(super) fn kill(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub(super) fn redistribute(&self, tenant: TenantId, connected: bool, protocols: &'static [u8]) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move {
                dataplane
                    .redistribute(tenant, connected, true, protocols)
                    .await;
            })
        }));
    }

    /// Waits until the status is as wanted.
    pub(super) fn wait(&self, wanted: impl Fn(&DataplaneStatus) -> bool) -> DataplaneStatus {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "{status:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn status(&self) -> DataplaneStatus {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move {
                reply.send(dataplane.status().await.unwrap()).unwrap();
            })
        }));
        answer.recv().unwrap()
    }

    /// What the kernel says of a packet whose next step is a service.
    pub(super) fn trace_step(
        &self,
        tenant: TenantId,
        label: Vni,
        packet: Packet,
    ) -> Option<KernelTrace> {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move {
                let trace = dataplane.trace_step(tenant, label, false, packet).await;
                reply.send(trace).unwrap();
            })
        }));
        answer.recv().unwrap()
    }

    pub(super) fn traffic(&self) -> Vec<Traffic> {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move {
                reply.send(dataplane.traffic().await).unwrap();
            })
        }));
        answer.recv().unwrap()
    }

    /// Takes events until one satisfies.
    pub(super) fn wait_for(&self, wanted: impl Fn(&DataplaneEvent) -> bool + Send + 'static) {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |_, events| {
            Box::pin(async move {
                let found = async {
                    while let Some(event) = events.recv().await {
                        if wanted(&event) {
                            return true;
                        }
                    }
                    false
                };
                let found = tokio::time::timeout(Duration::from_secs(10), found).await;
                reply.send(found.unwrap_or(false)).unwrap();
            })
        }));
        assert!(answer.recv().unwrap(), "the event did not come");
    }

    pub(super) fn track(&self, addresses: Vec<IpAddr>) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.track(addresses).await })
        }));
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.kill();
    }
}
