//! The BGP-4 speaker's sockets, timers and tasks.
//!
//! One thread owns the [`Speaker`]; a reader and a writer task stand beside each connection. Octets go through bounded
//! channels in pieces of up to 64 KiB, so nothing is sent, locked or logged a route or a message.
//!
//! | channel | carries | when it is full |
//! |---|---|---|
//! | reader -> speaker | octets as they came | the reader stops reading, TCP pushes back on the neighbour |
//! | speaker -> writer | whole messages | the speaker does not ask the RIB for more; changes collapse there |
//! | speaker -> owner | [`BgpEvent`] | changed routes wait in the RIB, each prefix once |
//! | owner -> speaker | commands | the caller waits |

mod connection;
mod link;
mod listen;
mod quiet;
mod runtime;
mod secure;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

pub use listen::can_listen;
pub use runtime::BgpError;
pub use secure::can_sign;
pub use weft_bgp_core::session::{DownReason, Negotiated, State};
pub use weft_bgp_core::speaker::{
    Awaited, DynamicGroup, NeighborChanges, NeighborConfig, NeighborStatus, Password, Speaker,
    SpeakerConfig, Transition,
};
pub use weft_bgp_core::{policy, rib};
pub use weft_bgp_wire as wire;

/// Which packets of the host a speaker's sockets send and receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The mark of its packets (SO_MARK), which policy rules lead to a table by; 0 for the router's own speaker.
    pub mark: u32,
    /// The VRF that its sockets are bound to.
    pub device: Option<String>,
}

/// How the speaker is started.
#[derive(Clone, Debug)]
pub struct BgpConfig {
    /// This router.
    pub speaker: SpeakerConfig,
    /// Whose packets it speaks by.
    pub scope: Scope,
    /// Marks of tenants: what connects with one of them is never the router's own neighbour.
    pub tenant_marks: Range<u32>,
    /// Where neighbours may connect to; port 0 lets the kernel choose. Empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// Neighbours from the start.
    pub neighbors: Vec<NeighborConfig>,
    /// Groups that further neighbours join by connecting.
    pub dynamic: Vec<DynamicGroup>,
    /// Routes of our own from the start: announced before any End-of-RIB, so that neighbours that kept them over our
    /// restart do not drop them.
    pub routes: Vec<rib::Origination>,
}

/// What the speaker tells its owner.
#[derive(Debug)]
pub enum BgpEvent {
    /// Prefixes whose paths changed.
    Routes(rib::RouteBatch),
    /// Next hops to resolve from now on, and to forget; answered with [`Bgp::set_next_hops`].
    NextHops {
        /// To resolve, now and whenever it changes.
        track: Vec<IpAddr>,
        /// Not asked for any more.
        untrack: Vec<IpAddr>,
    },
    /// The neighbours have sent their routes, which have been told; where [`SpeakerConfig::awaits_routes`], ours are to follow,
    /// and then [`Speaker::routes_complete`].
    Heard,
    /// [`Speaker::helpers`] may be others now.
    Sessions,
    /// The neighbours have sent their routes (`complete`), or have been waited for long enough. Comes once, behind the
    /// routes themselves.
    Converged {
        /// Every neighbour has sent all of its routes.
        complete: bool,
    },
}

/// How a speaker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Connections just close: neighbours with graceful restart keep our routes and wait for us.
    Restart,
    /// Every session ends with Cease: neighbours drop our routes.
    Cease,
}

type Call = Box<dyn FnOnce(&mut Speaker, Instant) + Send>;

enum Command {
    Call(Call),
    Shutdown(ShutdownMode, oneshot::Sender<()>),
}

/// A handle to the running speaker; cheap to clone.
#[derive(Clone)]
pub struct Bgp {
    commands: mpsc::Sender<Command>,
    listening: std::sync::Arc<[SocketAddr]>,
    instances: listen::Instances,
}

impl Bgp {
    /// Binds the listeners and starts the tasks on the current runtime.
    ///
    /// # Errors
    /// Where a listener cannot be bound.
    pub async fn start(
        config: BgpConfig,
        hook: Box<dyn rib::ExportHook>,
    ) -> Result<(Self, mpsc::Receiver<BgpEvent>), BgpError> {
        runtime::start(config, hook, listen::Instances::default()).await
    }

    /// Starts another speaker, for the neighbours of [`BgpConfig::scope`]: it gets those connections to this speaker's
    /// listeners that have its mark, and needs no listeners of its own.
    ///
    /// # Errors
    /// Where a listener of its own cannot be bound, or its thread not be started.
    pub async fn start_instance(
        &self,
        config: BgpConfig,
        hook: Box<dyn rib::ExportHook>,
    ) -> Result<(Self, mpsc::Receiver<BgpEvent>), BgpError> {
        runtime::start(config, hook, self.instances.clone()).await
    }

    /// The addresses that it listens at, with their real ports.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Runs `call` in the speaker's thread and returns what it returns; `None` where the speaker has ended.
    pub async fn with<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Speaker, Instant) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |speaker, now| {
            // Who asked may have gone in the meantime.
            let _ = reply.send(call(speaker, now));
        });
        self.commands.send(Command::Call(call)).await.ok()?;
        answer.await.ok()
    }

    /// Has `call` run in the speaker's thread, without waiting for it; false, and it does not run, where the speaker has ended or too much
    /// waits for it.
    pub fn post(&self, call: impl FnOnce(&mut Speaker, Instant) + Send + 'static) -> bool {
        self.commands
            .try_send(Command::Call(Box::new(call)))
            .is_ok()
    }

    /// Announces or withdraws routes of our own.
    pub async fn originate(&self, routes: Vec<rib::Origination>) {
        self.with(move |speaker, _| speaker.originate(&routes))
            .await;
    }

    /// Says how next hops resolve: metric, or `None`.
    pub async fn set_next_hops(&self, next_hops: Vec<(IpAddr, Option<u32>)>) {
        self.with(move |speaker, now| speaker.set_next_hops(&next_hops, now))
            .await;
    }

    /// All neighbours as they are now.
    pub async fn neighbors(&self) -> Vec<NeighborStatus> {
        self.with(|speaker, _| speaker.neighbors())
            .await
            .unwrap_or_default()
    }

    /// Ends the speaker; returns when its last octets are with the kernel.
    pub async fn shutdown(&self, mode: ShutdownMode) {
        let (done, ended) = oneshot::channel();
        if self
            .commands
            .send(Command::Shutdown(mode, done))
            .await
            .is_ok()
        {
            let _ = ended.await;
        }
    }
}
