//! Network namespaces, and data planes in them.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command as Process, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as channel;
use std::time::{Duration, Instant};

use weft_overlay::VniSet;

use super::super::*;
use crate::netlink::socket::{Batch, Netlink};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(super) fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: data plane tests need root (CAP_NET_ADMIN, CAP_SYS_ADMIN)");
    }
    root
}

/// Lines of `ip` by one process: in a virtual machine each program that starts costs more than what it does.
fn batch(words: &[&str], lines: &str) -> Output {
    let mut process = Process::new("ip")
        .args(words)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended at a line that it does not understand; what it says is looked at.
    let _ = process.stdin.take().unwrap().write_all(lines.as_bytes());
    process.wait_with_output().unwrap()
}

fn expect(output: &Output, what: &str) {
    assert!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An end of a link: the namespace, the interface, its address.
type End<'a> = (&'a str, &'a str, &'a str);

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
        lab.add(names);
        lab
    }

    /// More namespaces.
    pub(super) fn add(&mut self, names: &[&str]) {
        let lines = names
            .iter()
            .map(|name| format!("netns add {}\n", self.ns(name)));
        let lines: String = lines.collect();
        self.names
            .extend(names.iter().map(|name| (*name).to_owned()));
        expect(&batch(&[], &lines), &lines);
        for name in names {
            self.inside(name, || {
                const LOOPBACK: u32 = 1;
                let up = (libc::IFF_UP as u32).to_ne_bytes();
                let mut change = Batch::default();
                change.push(libc::RTM_NEWLINK, libc::NLM_F_ACK as u16, |out| {
                    out.extend_from_slice(&[0; 4]);
                    out.extend_from_slice(&LOOPBACK.to_ne_bytes());
                    out.extend_from_slice(&up);
                    out.extend_from_slice(&up);
                });
                let refused = Netlink::open().unwrap().send(change).unwrap();
                assert!(refused.is_empty(), "{refused:?}");
            });
        }
    }

    pub(super) fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    /// Runs a command in a namespace; by a shell only where it has to.
    pub(super) fn try_run(&self, name: &str, command: &str) -> Output {
        let command = command.to_owned();
        self.inside(name, move || {
            let mut words = command.split_whitespace();
            let mut process = if command.contains(['\'', '"', ';', '|', '&', '<', '>', '$']) {
                let mut shell = Process::new("sh");
                shell.args(["-c", &command]);
                shell
            } else {
                let mut plain = Process::new(words.next().unwrap());
                plain.args(words);
                plain
            };
            process.output().unwrap()
        })
    }

    pub(super) fn run(&self, name: &str, command: &str) -> String {
        let output = self.try_run(name, command);
        expect(&output, &format!("{name}: {command}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs lines of `ip` in a namespace, of a family (`-4`, `-6`) where addresses do not tell it.
    pub(super) fn batch(&self, name: &str, family: Option<&str>, lines: &str) {
        let namespace = self.ns(name);
        let mut words = vec!["-n", &namespace];
        words.extend(family);
        expect(&batch(&words, lines), &format!("{name}: {lines}"));
    }

    /// A link between two namespaces: `a:eth0 b:eth0`, with addresses. The attachments of tenants called blue have the index of a
    /// link that was made late in a router's life.
    pub(super) fn link(&self, a: End<'_>, b: End<'_>) {
        self.links(&[(a, b)], &[]);
    }

    /// Links as `link` makes each, and lines of `ip` for namespaces when their links are there.
    pub(super) fn links(&self, links: &[(End<'_>, End<'_>)], more: &[(&str, String)]) {
        let mut made = String::new();
        let mut inside: BTreeMap<&str, String> = BTreeMap::new();
        for ((a, a_if, a_addr), (b, b_if, b_addr)) in links {
            let late = if a_if.starts_with("blue") {
                "index 1000007"
            } else {
                ""
            };
            let (a_ns, b_ns) = (self.ns(a), self.ns(b));
            made += &format!(
                "link add {a_if} netns {a_ns} {late} type veth peer name {b_if} netns {b_ns}\n"
            );
            for (node, interface, address) in [(a, a_if, a_addr), (b, b_if, b_addr)] {
                *inside.entry(node).or_default() +=
                    &format!("addr add {address} dev {interface}\nlink set {interface} up\n");
            }
        }
        expect(&batch(&[], &made), &made);
        for (node, lines) in more {
            *inside.entry(node).or_default() += lines;
        }
        for (node, lines) in inside {
            self.batch(node, None, &lines);
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
        let lines = self.names.iter();
        let lines: String = lines
            .map(|name| format!("netns del {}\n", self.ns(name)))
            .collect();
        batch(&["-force"], &lines);
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

    /// Hands the intent over. Routers that tunnels lead to may send everything, unless it says itself who may send.
    pub(super) fn apply(&self, mut delta: IntentDelta) {
        if delta.senders.is_empty() {
            let groups = delta.groups.iter().filter_map(|(_, group)| group.as_ref());
            let hops = groups.flat_map(|group| &group.hops.0);
            let senders = hops.map(|hop| (hop.address, Some(VniSet::all())));
            delta.senders = senders.collect();
        }
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

    /// What the kernel says of a tenant's packet.
    pub(super) fn trace(&self, tenant: TenantId, packet: Packet) -> Option<KernelTrace> {
        let (reply, answer) = channel::channel();
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move {
                reply.send(dataplane.trace(tenant, packet).await).unwrap();
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

    pub(super) fn probed_path(&self, far_router: IpAddr, path: Option<u16>) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.probed_path(far_router, path).await })
        }));
    }

    pub(super) fn exceeded_path(&self, far_router: IpAddr, octets: u16) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.exceeded_path(far_router, octets).await })
        }));
    }

    pub(super) fn track_endpoints(&self, addresses: Vec<IpAddr>) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.track_endpoints(addresses).await })
        }));
    }

    pub(super) fn watch_neighbors(&self, addresses: Vec<IpAddr>) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.watch_neighbors(addresses).await })
        }));
    }

    pub(super) fn live_by(&self, addresses: Vec<IpAddr>) {
        self.call(Box::new(move |dataplane, _| {
            Box::pin(async move { dataplane.live_by(addresses).await })
        }));
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
