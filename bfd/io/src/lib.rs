//! Bidirectional Forwarding Detection on the network: one thread, with a real-time class where that is permitted, owns all sessions
//! ([`weft_bfd::Engine`]), their sockets and their clock. It shares no lock with anybody, allocates nothing for a packet, writes no log,
//! and sleeps until a packet comes or something is due.
//!
//! | module | what it is |
//! |---|---|
//! | `thread` | the loop: packets in, what is due, packets out, what is to be told |
//! | `sockets` | where packets come in (UDP 3784 and 4784), and one socket per session that they go out by |
//! | `links` | which interface leads to a neighbour |
//! | `pace` | how much is read before the thread rests |
//! | `schedule` | the thread's scheduling class |
//! | `lateness` | how late the thread was woken |
//! | `sys` | system calls that nobody wraps |

mod lateness;
mod links;
mod pace;
mod schedule;
mod sockets;
mod sys;
mod thread;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use sockets::Receivers;

pub use lateness::{BOUNDS, Lateness};
pub use schedule::Scheduling;
pub use weft_bfd::{
    Change, Config, Counters, Diagnostic, Discard, Down, DownReason, Event, Path, State, Status,
};

/// What the thread tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The thread runs, in this class.
    Started(Scheduling),
    /// A session has come Up, or has left Up.
    Session(Event),
    /// Packets cannot be received, or those of a neighbour not be sent; it is tried again each second.
    Problem(String),
}

/// How BFD does.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The thread's class.
    pub scheduling: Scheduling,
    /// The sessions.
    pub sessions: Vec<SessionSnapshot>,
    /// Packets discarded, in the order of [`Discard::ALL`].
    pub discarded: [u64; Discard::ALL.len()],
    /// Packets that the kernel dropped before they were read: those of single-hop sessions that had come over a router (RFC 5082), those
    /// with a mark that no neighbour's has, and those that found no room.
    pub dropped: u64,
    /// How late the thread was woken for what was due.
    pub lateness: Lateness,
    /// What keeps packets from coming in.
    pub problem: Option<String>,
}

/// A session as it is now.
#[derive(Clone, Debug)]
pub struct SessionSnapshot {
    /// What the protocol says.
    pub status: Status,
    /// Packets that could not be sent.
    pub unsent: u64,
    /// Why the latest packet could not be sent, where it could not.
    pub problem: Option<String>,
}

/// Commands that wait for the thread.
const COMMANDS: usize = 16;

pub(crate) enum Command {
    Set(Vec<Config>),
    Snapshot(oneshot::Sender<Snapshot>),
    Stop(oneshot::Sender<()>),
}

struct Running {
    commands: mpsc::Sender<Command>,
    wake: Arc<sys::Wake>,
}

/// A handle to the thread, which starts with the first session; cheap to clone.
#[derive(Clone)]
pub struct Bfd {
    running: Arc<Mutex<Option<Running>>>,
    reports: mpsc::Sender<Report>,
    refused_marks: Range<u32>,
}

impl Bfd {
    /// One without sessions. Packets with one of these marks (SO_MARK) are nobody's: whoever marks what comes in knows that no neighbour has
    /// sent them. Where nobody takes a report, sessions wait to be told of, each with its latest failure.
    pub fn new(refused_marks: Range<u32>) -> (Self, mpsc::Receiver<Report>) {
        let (reports, inbox) = mpsc::channel(64);
        let bfd = Self {
            running: Arc::default(),
            reports,
            refused_marks,
        };
        (bfd, inbox)
    }

    /// Brings the sessions in line with these, of which there is one for each neighbour and kind of path. What is the same in both stays as
    /// it is; what goes says that it is administratively down.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub async fn set(&self, sessions: Vec<Config>) -> io::Result<()> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            if sessions.is_empty() {
                return Ok(());
            }
            let (commands, inbox) = mpsc::channel(COMMANDS);
            let wake = Arc::new(sys::Wake::new()?);
            let receivers = Receivers::new(self.refused_marks.clone());
            thread::start(receivers, inbox, wake.clone(), self.reports.clone())?;
            *running = Some(Running { commands, wake });
        }
        if let Some(running) = &*running {
            running.send(Command::Set(sessions)).await;
        }
        Ok(())
    }

    /// How it does; `None` where there never was a session.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let answer = {
            let running = self.running.lock().await;
            let (reply, answer) = oneshot::channel();
            running.as_ref()?.send(Command::Snapshot(reply)).await;
            answer
        };
        answer.await.ok()
    }

    /// Tells all neighbours that their sessions are administratively down, and ends the thread.
    pub async fn stop(&self) {
        let Some(running) = self.running.lock().await.take() else {
            return;
        };
        let (done, ended) = oneshot::channel();
        running.send(Command::Stop(done)).await;
        let _ = ended.await;
    }
}

impl Running {
    async fn send(&self, command: Command) {
        // A thread that has ended takes none.
        let _ = self.commands.send(command).await;
        self.wake.wake();
    }
}
