//! Where connections are accepted, and whose they are.
//!
//! One listener serves every speaker of the process. A connection belongs to the speaker whose mark its packets have
//! (`net.ipv4.tcp_fwmark_accept`), so that two tenants' neighbours may have the same address.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use weft_bgp_core::speaker::Password;

use crate::quiet::{Quiet, Topic};
use crate::runtime::{BgpError, Event};
use crate::secure;

/// The speakers of the process, by mark, and where they are connected to.
#[derive(Clone, Default)]
pub(crate) struct Instances {
    by_mark: Arc<Mutex<HashMap<u32, Instance>>>,
    signed: Arc<Mutex<Signed>>,
}

/// A speaker, as far as connections to it are concerned.
struct Instance {
    events: mpsc::Sender<Event>,
    /// Who may connect.
    neighbors: HashSet<IpAddr>,
    /// Where else somebody may connect from.
    prefixes: Vec<IpNet>,
}

/// Connections that have to be signed.
#[derive(Default)]
struct Signed {
    listeners: Vec<Arc<TcpListener>>,
    /// With the mark of the speaker whose neighbours they are.
    by_prefix: BTreeMap<IpNet, (u32, Password)>,
    /// It has been said that the kernel has no room for all of them.
    no_room: bool,
}

impl Instances {
    /// Connections with this mark go to a speaker from now on.
    pub(crate) fn register(&self, mark: u32, events: mpsc::Sender<Event>) {
        let mut by_mark = self.by_mark.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = Instance {
            events,
            neighbors: HashSet::new(),
            prefixes: Vec::new(),
        };
        by_mark.insert(mark, instance);
    }

    /// Who may connect to a speaker from now on.
    pub(crate) fn admit(&self, mark: u32, neighbors: HashSet<IpAddr>, prefixes: Vec<IpNet>) {
        let mut by_mark = self.by_mark.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = by_mark.get_mut(&mark) {
            (instance.neighbors, instance.prefixes) = (neighbors, prefixes);
        }
    }

    /// These neighbours of a speaker, and no others of it, have to sign their connections. What the kernel does not let us ask for is
    /// asked for once more when a connection is there, and the connection refused.
    pub(crate) fn sign(&self, mark: u32, wanted: BTreeMap<IpNet, Password>) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let Signed {
            listeners,
            by_prefix,
            no_room,
        } = &mut *signed;
        let others = by_prefix.values().filter(|(owner, _)| *owner != mark);
        let keys = others.count() + wanted.len();
        if let Err(error) = secure::make_room(keys)
            && !std::mem::replace(no_room, true)
        {
            warn!(%error, keys, "the kernel may have no room for all keys of neighbours: those without open no connections, and wait for ours");
        }
        let mut refused = Vec::new();
        let mut ask = |prefix: IpNet, password: Option<&Password>| {
            for listener in listeners.iter() {
                let bound = listener.local_addr();
                if bound.is_ok_and(|bound| bound.is_ipv4() == prefix.addr().is_ipv4())
                    && let Err(error) = secure::sign_listener(listener, prefix, password)
                {
                    refused.push((prefix.addr(), error));
                }
            }
        };
        by_prefix.retain(|prefix, (owner, _)| {
            let keep = *owner != mark || wanted.contains_key(prefix);
            if !keep {
                ask(*prefix, None);
            }
            keep
        });
        for (prefix, password) in wanted {
            match by_prefix.get(&prefix) {
                Some((owner, known)) if *owner != mark && *known != password => warn!(
                    neighbor = %prefix.addr(),
                    "another tenant has a neighbour of this address, with another password: this one cannot connect to us"
                ),
                Some((_, known)) if *known == password => {}
                _ => {
                    ask(prefix, Some(&password));
                    by_prefix.insert(prefix, (mark, password));
                }
            }
        }
        if let Some((neighbor, error)) = refused.first() {
            let more = refused.len() - 1;
            warn!(%neighbor, %error, more, "cannot ask for signed connections: it cannot connect to us");
        }
    }

    /// The speaker that a connection is for, where it is from one of its neighbours. What has the mark of no tenant's is the router's own
    /// speaker's.
    fn admits(
        &self,
        mark: u32,
        tenants: &std::ops::Range<u32>,
        from: IpAddr,
    ) -> Result<mpsc::Sender<Event>, Refusal> {
        let by_mark = self.by_mark.lock().unwrap_or_else(PoisonError::into_inner);
        let own = || by_mark.get(&0).filter(|_| !tenants.contains(&mark));
        let instance = by_mark.get(&mark).or_else(own).ok_or(Refusal::NoSpeaker)?;
        let admitted = instance.neighbors.contains(&from)
            || instance.prefixes.iter().any(|one| one.contains(&from));
        match admitted {
            true => Ok(instance.events.clone()),
            false => Err(Refusal::NoNeighbor),
        }
    }
}

/// Why a connection goes to nobody.
enum Refusal {
    NoSpeaker,
    NoNeighbor,
}

/// Accepts connections at these addresses; says which they are, and gives the tasks, which end when they are dropped.
pub(crate) fn start(
    addresses: &[SocketAddr],
    tenants: &std::ops::Range<u32>,
    instances: &Instances,
) -> Result<(Arc<[SocketAddr]>, JoinSet<()>), BgpError> {
    let mut tasks = JoinSet::new();
    let mut listening = Vec::new();
    for address in addresses.iter().copied() {
        let failed = |source| BgpError::Listen { address, source };
        let listener = listen(address).map_err(failed)?;
        listening.push(listener.local_addr().map_err(failed)?);
        let listener = Arc::new(listener);
        let mut signed = instances
            .signed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        signed.listeners.push(listener.clone());
        tasks.spawn(accept(listener, tenants.clone(), instances.clone()));
    }
    Ok((listening.into(), tasks))
}

/// Finds out whether connections could be accepted at these addresses, before anything else is done that would have to be undone.
///
/// # Errors
/// The first address that is taken, or not there.
pub fn can_listen(addresses: &[SocketAddr]) -> Result<(), BgpError> {
    for address in addresses.iter().copied() {
        listen(address).map_err(|source| BgpError::Listen { address, source })?;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(256)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: Arc<TcpListener>, tenants: std::ops::Range<u32>, instances: Instances) {
    let mut quiet = Quiet::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => hand_over(stream, from, &tenants, &instances, &mut quiet).await,
            Err(error) => {
                if let Some(more) = quiet.admits(None, Topic::Accept, Instant::now()) {
                    warn!(%error, more, "cannot accept a connection");
                }
                // Out of file descriptors, most likely: give others time to close some.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn hand_over(
    stream: TcpStream,
    from: SocketAddr,
    tenants: &std::ops::Range<u32>,
    instances: &Instances,
    quiet: &mut Quiet,
) {
    let mark = SockRef::from(&stream).mark().unwrap_or(0);
    let admitted = instances.admits(mark, tenants, from.ip().to_canonical());
    let refusal = match admitted {
        // A speaker that has ended accepts nothing.
        Ok(events) => return drop(events.send(Event::Accepted(stream, from)).await),
        Err(refusal) => refusal,
    };
    // Whoever it is may come as often as it likes: it costs no speaker anything, and ends without a state of TCP that waits.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    if let Some(more) = quiet.admits(None, Topic::Stranger, Instant::now()) {
        let neighbor = from.ip();
        match refusal {
            Refusal::NoNeighbor => info!(
                %neighbor,
                more,
                "refused a connection from an address that is no neighbour"
            ),
            Refusal::NoSpeaker => info!(
                %neighbor,
                mark,
                more,
                "refused a connection from a tenant that has no neighbours"
            ),
        }
    }
}
