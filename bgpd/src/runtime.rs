//! The thread that owns the speaker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};
use weft_bgp_core::rib::{ExportHook, PeerId};
use weft_bgp_core::session::{ConnectionId, DownReason, State};
use weft_bgp_core::speaker::{Action, DynamicRefusal, LocalEnd, NeighborConfig, Password, Speaker};
use weft_bgp_wire::Family;

use crate::connection::{self, Writer};
use crate::link;
use crate::listen::{self, Instances};
use crate::quiet::{Quiet, Topic};
use crate::{Bgp, BgpConfig, BgpEvent, Command, Scope, ShutdownMode, secure};

/// Events handled before timers are looked at again: a full table must not starve a keepalive.
const SLICE: usize = 16;

/// How often it is looked at whether neighbours that go over to another key are heard.
const LOOK: Duration = Duration::from_millis(500);

/// The speaker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    /// A listener could not be bound.
    #[error("cannot listen for BGP at {address}: {source}{}", hint(.source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The speaker's thread could not be started.
    #[error("cannot start the thread of the BGP speaker: {0}")]
    Thread(std::io::Error),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: setcap cap_net_bind_service,cap_net_admin,cap_net_raw+ep on the weft binary, or run it as root"
        }
        std::io::ErrorKind::AddrInUse => "; another BGP speaker runs here: `ss -ltnp` names it",
        std::io::ErrorKind::AddrNotAvailable => "; no interface has this address",
        _ => "",
    }
}

/// What reaches the speaker from its sockets.
pub(crate) enum Event {
    Accepted(TcpStream, SocketAddr),
    Octets(ConnectionId, Bytes),
    /// A writer has room again: the loop hands it more.
    Writable,
    Closed(ConnectionId, String),
}

pub(crate) async fn start(
    config: BgpConfig,
    hook: Box<dyn ExportHook>,
    instances: Instances,
) -> Result<(Bgp, mpsc::Receiver<BgpEvent>), BgpError> {
    let (event_sender, events) = mpsc::channel(64);
    instances.register(config.scope.mark, event_sender.clone());
    let (command_sender, commands) = mpsc::channel(64);
    // Batches of some thousand prefixes: what waits here is bounded to a few MiB.
    let (report, reports) = mpsc::channel(4);
    let (listening, tasks) = listen::start(&config.listen, &config.tenant_marks, &instances)?;
    let now = Instant::now();
    let mut speaker = Speaker::new(config.speaker, hook, now);
    speaker.originate(&config.routes);
    for neighbor in config.neighbors {
        speaker.add_neighbor(neighbor, now);
    }
    speaker.set_dynamic(config.dynamic);
    speaker.expect_dynamic(now);
    speaker.handle_timeout(now);
    let runtime = Runtime {
        speaker,
        connections: HashMap::new(),
        closing: Vec::new(),
        next_id: 1,
        event_sender,
        track: Vec::new(),
        untrack: Vec::new(),
        sessions: false,
        heard: false,
        converged: None,
        dials: JoinSet::new(),
        dialling: HashMap::new(),
        io: Handle::current(),
        scope: config.scope,
        instances: instances.clone(),
        admitted: 0,
        signed: BTreeMap::new(),
        look: None,
        quiet: Quiet::default(),
        _listeners: tasks,
    };
    // A thread of its own: on a shared one, readers and writers would take turns with the speaker that they feed.
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(BgpError::Thread)?;
    std::thread::Builder::new()
        .name("weft-bgp".into())
        .spawn(move || own.block_on(runtime.run(events, commands, report)))
        .map_err(BgpError::Thread)?;
    Ok((
        Bgp {
            commands: command_sender,
            listening,
            instances,
        },
        reports,
    ))
}

enum Wake<'a> {
    Timer,
    Command(Option<Command>),
    Dialled(Result<Dialled, tokio::task::JoinError>),
    Report(mpsc::Permit<'a, BgpEvent>),
    Events,
}

/// For whom, which attempt of theirs, and what came of it.
type Dialled = (PeerId, u64, std::io::Result<TcpStream>);

/// A connection, as far as the speaker's thread has to do with it.
struct Connection {
    peer: PeerId,
    writer: Writer,
    /// The same socket as the reader's and the writer's.
    socket: Option<socket2::Socket>,
}

struct Runtime {
    speaker: Speaker,
    connections: HashMap<ConnectionId, Connection>,
    /// Writers of connections that the speaker has let go of.
    closing: Vec<JoinHandle<()>>,
    next_id: u64,
    event_sender: mpsc::Sender<Event>,
    track: Vec<IpAddr>,
    untrack: Vec<IpAddr>,
    sessions: bool,
    heard: bool,
    converged: Option<bool>,
    dials: JoinSet<Dialled>,
    /// The latest attempt to connect to each, and to where: a neighbour may have gone meanwhile, and another have its number.
    dialling: HashMap<PeerId, (u64, IpAddr)>,
    /// Where sockets are read and written.
    io: Handle,
    scope: Scope,
    instances: Instances,
    /// [`Speaker::membership`] when listeners were told last who may connect.
    admitted: u64,
    /// What connections from where were signed with then.
    signed: BTreeMap<IpNet, Password>,
    /// When it is to be looked at next whether neighbours that go over to another key are heard.
    look: Option<Instant>,
    quiet: Quiet,
    _listeners: JoinSet<()>,
}

/// Our end of a connection to this neighbour.
fn local_end(config: &NeighborConfig, address: IpAddr) -> LocalEnd {
    let next_hop = match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => config.local_address_v6,
    };
    LocalEnd {
        address,
        shared_link: next_hop
            .filter(|_| config.families.contains(&Family::Ipv6Unicast))
            .and_then(|next_hop| link::shared(address, config.address, next_hop)),
    }
}

impl Runtime {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut commands: mpsc::Receiver<Command>,
        report: mpsc::Sender<BgpEvent>,
    ) {
        let mut batch = Vec::with_capacity(SLICE);
        loop {
            // What packets follow comes before what neighbours are told.
            if self.has_report()
                && let Ok(permit) = report.try_reserve()
                && let Some(event) = self.next_report()
            {
                permit.send(event);
            }
            self.admit();
            self.act();
            self.transmit();
            let due = self.speaker.poll_timeout().into_iter();
            let due = due.chain(self.look).min();
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let has_report = self.has_report();
            let wake = tokio::select! {
                biased;
                () = timer => Wake::Timer,
                command = commands.recv() => Wake::Command(command),
                Some(dialled) = self.dials.join_next() => Wake::Dialled(dialled),
                Ok(permit) = report.reserve(), if has_report => Wake::Report(permit),
                _ = events.recv_many(&mut batch, SLICE) => Wake::Events,
            };
            match wake {
                Wake::Timer => {}
                Wake::Command(Some(Command::Call(call))) => call(&mut self.speaker, Instant::now()),
                Wake::Command(Some(Command::Shutdown(mode, done))) => {
                    self.shut_down(mode).await;
                    // Who asked may have gone.
                    let _ = done.send(());
                    return;
                }
                // The owner has let go of the last handle.
                Wake::Command(None) => return,
                Wake::Dialled(Ok(dialled)) => self.dialled(dialled),
                // A task that opens a connection neither panics nor is aborted.
                Wake::Dialled(Err(_)) => {}
                Wake::Report(permit) => {
                    if let Some(event) = self.next_report() {
                        permit.send(event);
                    }
                }
                Wake::Events => {
                    for event in batch.drain(..) {
                        self.handle(event);
                    }
                }
            }
            let now = Instant::now();
            if self.speaker.poll_timeout().is_some_and(|due| due <= now) {
                self.speaker.handle_timeout(now);
            }
            if self.look.is_some_and(|look| look <= now) {
                self.look(now);
            }
        }
    }

    /// Sees whether neighbours that go over to another key are heard.
    fn look(&mut self, now: Instant) {
        let changing: BTreeMap<PeerId, bool> = self.speaker.changing_keys().collect();
        let own = self.connections.values();
        let own = own.filter(|one| changing.get(&one.peer).is_some_and(|stands| *stands));
        let heard = own.filter(|one| one.socket.as_ref().is_none_or(secure::is_heard));
        let heard: BTreeSet<PeerId> = heard.map(|one| one.peer).collect();
        for peer in changing.keys() {
            let heard = heard.contains(peer);
            self.speaker.handle_heard_signed(*peer, heard, now);
        }
        self.look = (!changing.is_empty()).then(|| now + LOOK);
    }

    /// Tells the listeners who may connect, and whom to ask for signatures.
    fn admit(&mut self) {
        if self.speaker.membership() == self.admitted {
            return;
        }
        self.admitted = self.speaker.membership();
        self.sessions = true;
        let addresses = self.speaker.addresses().into_iter();
        let neighbors = addresses.map(|(_, address)| address).collect();
        let prefixes = self.speaker.listening().map(|(prefix, _)| prefix).collect();
        self.instances.admit(self.scope.mark, neighbors, prefixes);
        let groups = self.speaker.listening();
        let groups =
            groups.filter_map(|(prefix, group)| Some((prefix, group.template.password.clone()?)));
        let wanted = self.speaker.passwords();
        let wanted = wanted.map(|(address, password)| (address.into(), password.clone()));
        let wanted: BTreeMap<IpNet, Password> = groups.chain(wanted).collect();
        if wanted != self.signed {
            let before = std::mem::replace(&mut self.signed, wanted.clone());
            self.instances.sign(self.scope.mark, wanted);
            self.sign_again(&before);
        }
        if self.look.is_none() && self.speaker.changing_keys().next().is_some() {
            self.look = Some(Instant::now() + LOOK);
        }
    }

    /// Connections that are there have other keys from now on.
    fn sign_again(&mut self, before: &BTreeMap<IpNet, Password>) {
        for (peer, address) in self.speaker.addresses() {
            let key = self.signed.get(&address.into());
            if before.get(&address.into()) == key {
                continue;
            }
            for one in self.connections.values().filter(|one| one.peer == peer) {
                let Some(socket) = &one.socket else { continue };
                let signed = secure::sign_again(socket, address, key);
                if let Err(error) = signed
                    && let Some(more) =
                        self.quiet
                            .admits(Some(address), Topic::Unsigned, Instant::now())
                {
                    warn!(neighbor = %address, %error, more, "a connection keeps its former key, until the session starts anew");
                }
            }
        }
    }

    fn has_report(&mut self) -> bool {
        let (track, untrack) = self.speaker.rib.poll_next_hops();
        self.track.extend(track);
        self.untrack.extend(untrack);
        !self.track.is_empty()
            || !self.untrack.is_empty()
            || self.sessions
            || self.heard
            || self.converged.is_some()
            || self.speaker.rib.has_report()
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Octets(id, octets) => self.speaker.handle_octets(id, &octets, now),
            Event::Writable => {}
            Event::Closed(id, error) => {
                self.connections.remove(&id);
                self.speaker.handle_closed(id, error, now);
            }
            Event::Accepted(stream, from) => {
                let Some(peer) = self.neighbor_at(from.ip().to_canonical(), now) else {
                    return;
                };
                let Some(config) = self.speaker.config_of(peer) else {
                    return;
                };
                // One that was opened before the listener knew of the neighbour has to be signed from now on.
                if let Some(password) = self.speaker.password_of(peer)
                    && let Err(error) = secure::sign_connection(&stream, config.address, password)
                {
                    let neighbor = config.address;
                    if let Some(more) = self.quiet.admits(Some(neighbor), Topic::Unsigned, now) {
                        warn!(%neighbor, %error, more, "refused a connection that cannot be signed");
                    }
                    return;
                }
                let prepared = connection::prepare(&stream, config)
                    .and_then(|()| stream.set_nodelay(true))
                    .and_then(|()| stream.local_addr());
                match prepared {
                    Ok(local) => {
                        let local = local_end(config, local.ip().to_canonical());
                        let id = self.adopt(peer, stream);
                        self.speaker.handle_accepted(peer, id, local, now);
                    }
                    Err(error) => {
                        debug!(neighbor = %from.ip(), %error, "an accepted connection broke at once")
                    }
                }
            }
        }
        self.act();
    }

    /// The neighbour that connects from this address, or one that joins its group by that. A neighbour that has gone since is one no
    /// more.
    fn neighbor_at(&mut self, address: IpAddr, now: Instant) -> Option<PeerId> {
        if let Some(peer) = self.speaker.find(address) {
            return Some(peer);
        }
        match self.speaker.accept_dynamic(address, now) {
            Ok(peer) => Some(peer),
            Err(DynamicRefusal::NoGroup) => None,
            Err(DynamicRefusal::Full { group, limit }) => {
                if let Some(more) = self.quiet.admits(None, Topic::Full, now) {
                    warn!(neighbor = %address, %group, limit, more, "refused a connection: its group has as many neighbours as it may have");
                }
                None
            }
        }
    }

    fn dialled(&mut self, (peer, attempt, result): Dialled) {
        let latest = self.dialling.get(&peer).copied();
        let address = self.speaker.config_of(peer).map(|config| config.address);
        let password = self.speaker.password_of(peer);
        if latest != address.map(|address| (attempt, address)) {
            return;
        }
        let now = Instant::now();
        // The key may have changed while it was opened.
        let signed = result.and_then(|stream| {
            if let Some((address, password)) = address.zip(password) {
                secure::sign_connection(&stream, address, password)?;
            }
            Ok((stream.local_addr()?.ip(), stream))
        });
        match signed {
            Ok((local, stream)) => {
                let local = match self.speaker.config_of(peer) {
                    Some(config) => local_end(config, local),
                    None => local.into(),
                };
                let id = self.adopt(peer, stream);
                self.speaker.handle_connected(peer, id, local, now);
            }
            Err(error) => self.speaker.handle_connect_failed(peer, &error, now),
        }
        self.act();
    }

    fn adopt(&mut self, peer: PeerId, stream: TcpStream) -> ConnectionId {
        let hold = self.speaker.config_of(peer).map(|config| config.hold_time);
        let send_hold = connection::send_hold_time(hold.unwrap_or_default());
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        // Without it the connection keeps the key that it has.
        let socket = socket2::SockRef::from(&stream).try_clone().ok();
        let writer = connection::spawn(&self.io, id, stream, send_hold, self.event_sender.clone());
        let connection = Connection {
            peer,
            writer,
            socket,
        };
        self.connections.insert(id, connection);
        id
    }

    /// Does what the speaker wants.
    fn act(&mut self) {
        while let Some(action) = self.speaker.poll_action() {
            match action {
                Action::Connect(peer) => {
                    if let Some(config) = self.speaker.config_of(peer).cloned() {
                        let password = self.speaker.password_of(peer).cloned();
                        let config = NeighborConfig { password, ..config };
                        let scope = self.scope.clone();
                        let attempt = self.next_id;
                        self.next_id += 1;
                        self.dialling.insert(peer, (attempt, config.address));
                        let dial = async move {
                            (peer, attempt, connection::connect(config, scope).await)
                        };
                        self.dials.spawn_on(dial, &self.io);
                    }
                }
                Action::Close(id) => {
                    let last = self.speaker.take_closing(id);
                    if let Some(connection) = self.connections.remove(&id) {
                        self.closing.retain(|writer| !writer.is_finished());
                        self.closing.push(connection.writer.close(last));
                    }
                }
                Action::Neighbor {
                    peer,
                    state,
                    reason,
                } => {
                    let Some(config) = self.speaker.config_of(peer) else {
                        continue;
                    };
                    let (neighbor, asn) = (config.address, config.asn);
                    self.sessions = true;
                    match (state, reason) {
                        (State::Established, _) => info!(%neighbor, %asn, "session established"),
                        (_, Some(reason)) => warn!(%neighbor, %asn, %reason, "session down"),
                        (_, None) => {}
                    }
                }
                Action::Problems(peer, problems) => {
                    let Some(config) = self.speaker.config_of(peer) else {
                        continue;
                    };
                    let neighbor = config.address;
                    for problem in problems {
                        let topic = Topic::Problem(problem.code, problem.kind, problem.treatment);
                        if let Some(more) = self.quiet.admits(Some(neighbor), topic, Instant::now())
                        {
                            warn!(%neighbor, %problem, more, "malformed UPDATE");
                        }
                    }
                }
                Action::Refused(peer, reason) => self.log_refused(peer, &reason),
                Action::NearLimit(peer, near) => {
                    let Some(config) = self.speaker.config_of(peer) else {
                        continue;
                    };
                    let (neighbor, now) = (config.address, Instant::now());
                    let (family, paths, most) = (near.family, near.accepted, near.limit);
                    if let Some(more) = self.quiet.admits(Some(neighbor), Topic::NearLimit, now) {
                        warn!(%neighbor, %family, paths, most, more, "the neighbour announces nearly as much as it may; more than max_prefixes ends the session");
                    }
                }
                Action::Heard => self.heard = true,
                Action::Converged { complete } => {
                    self.sessions = true;
                    self.converged = Some(complete);
                }
            }
        }
    }

    /// Says why a neighbour's session does not come up.
    fn log_refused(&mut self, peer: PeerId, reason: &DownReason) {
        let Some(config) = self.speaker.config_of(peer) else {
            return;
        };
        let (by_us, notification) = match reason {
            DownReason::NotificationSent(notification) => (true, notification),
            DownReason::NotificationReceived(notification) => (false, notification),
            _ => return,
        };
        let topic = Topic::Refused {
            by_us,
            code: notification.code,
            subcode: notification.subcode,
        };
        let (neighbor, asn) = (config.address, config.asn);
        if let Some(more) = self.quiet.admits(Some(neighbor), topic, Instant::now()) {
            warn!(%neighbor, %asn, %reason, more, "the session does not come up");
        }
    }

    /// Hands octets to every writer that has room.
    fn transmit(&mut self) {
        for id in self.speaker.wanting() {
            let Some(connection) = self.connections.get(&id) else {
                continue;
            };
            while let Ok(permit) = connection.writer.pieces.try_reserve() {
                match self.speaker.poll_transmit(id) {
                    Some(octets) => permit.send(octets),
                    None => break,
                }
            }
        }
    }

    fn next_report(&mut self) -> Option<BgpEvent> {
        if !self.track.is_empty() || !self.untrack.is_empty() {
            let (track, untrack) = (
                std::mem::take(&mut self.track),
                std::mem::take(&mut self.untrack),
            );
            return Some(BgpEvent::NextHops { track, untrack });
        }
        if let Some(batch) = self.speaker.poll_report() {
            return Some(BgpEvent::Routes(batch));
        }
        if std::mem::take(&mut self.sessions) {
            return Some(BgpEvent::Sessions);
        }
        if std::mem::take(&mut self.heard) {
            return Some(BgpEvent::Heard);
        }
        self.converged
            .take()
            .map(|complete| BgpEvent::Converged { complete })
    }

    async fn shut_down(&mut self, mode: ShutdownMode) {
        let now = Instant::now();
        match mode {
            ShutdownMode::Cease => self.speaker.shut_down("shutting down", now),
            ShutdownMode::Restart => self.speaker.take_leave("shutting down", now),
        }
        self.act();
        let open = self.connections.drain();
        let writers: Vec<_> = open
            .map(|(_, connection)| connection.writer.finish())
            .chain(self.closing.drain(..))
            .collect();
        let written = async {
            for writer in writers {
                // One that panicked has nothing more to write.
                let _ = writer.await;
            }
        };
        // A neighbour that does not read learns of it from TCP.
        let _ = tokio::time::timeout(connection::CLOSE_TIMEOUT, written).await;
    }
}
