//! Where connections are accepted, and whose they are.
//!
//! One listener serves every speaker of the process. A connection belongs to the speaker whose mark its packets have
//! (`net.ipv4.tcp_fwmark_accept`), so that two tenants' neighbours may have the same address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::runtime::{BgpError, Event};

/// The speakers of the process, by mark.
#[derive(Clone, Default)]
pub(crate) struct Instances {
    by_mark: Arc<Mutex<HashMap<u32, mpsc::Sender<Event>>>>,
}

impl Instances {
    /// Connections with this mark go to a speaker from now on.
    pub(crate) fn register(&self, mark: u32, events: mpsc::Sender<Event>) {
        let mut by_mark = self.by_mark.lock().unwrap_or_else(PoisonError::into_inner);
        by_mark.insert(mark, events);
    }

    /// The speaker of a connection. What has the mark of no tenant's is the router's own speaker's.
    fn of(&self, mark: u32, tenants: &std::ops::Range<u32>) -> Option<mpsc::Sender<Event>> {
        let by_mark = self.by_mark.lock().unwrap_or_else(PoisonError::into_inner);
        let own = || by_mark.get(&0).filter(|_| !tenants.contains(&mark));
        by_mark.get(&mark).or_else(own).cloned()
    }
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
        tasks.spawn(accept(listener, tenants.clone(), instances.clone()));
    }
    Ok((listening.into(), tasks))
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

async fn accept(listener: TcpListener, tenants: std::ops::Range<u32>, instances: Instances) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => hand_over(stream, from, &tenants, &instances).await,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                // Out of file descriptors, most likely: give others time to close some.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn hand_over(
    stream: TcpStream,
    from: SocketAddr,
    tenants: &std::ops::Range<u32>,
    instances: &Instances,
) {
    let mark = SockRef::from(&stream).mark().unwrap_or(0);
    match instances.of(mark, tenants) {
        // A speaker that has ended accepts nothing.
        Some(events) => drop(events.send(Event::Accepted(stream, from)).await),
        None => info!(
            neighbor = %from.ip(),
            mark,
            "refused a connection from a tenant that has no neighbours"
        ),
    }
}
