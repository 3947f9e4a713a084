//! Who changes our nftables tables: a thread that reads nf_tables' events and says when it was not this process.
//!
//! A transaction is told as one message for each object and one at its end. What this process loads makes the table anew, with a
//! word of its own as the table's comment: a transaction that touches a table of ours without that word is somebody else's. One that puts
//! the table to sleep has the comment that the table has, and is somebody else's all the same.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;
use tokio::sync::mpsc;

use crate::monitor::{self, Changes};
use crate::netlink::octets::{self, attributes};
use crate::nftables;
use crate::upkeep::{Repairs, Turn};

/// Events of nf_tables.
const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// The end of a transaction.
const NFT_MSG_NEWGEN: u16 = 15;
/// A table is made or changed; which there are.
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
/// Objects with names: counters, that is. Reading them may reset them, which changes no wall.
const NFT_MSG_OBJECTS: std::ops::RangeInclusive<u16> = 18..=21;
/// The table's name is the first attribute of every object.
const NFTA_TABLE: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
/// No packet is asked about.
const NFT_TABLE_F_DORMANT: u32 = 1;
const NLMSG_HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// Octets of events that may wait: what loads a table is told as a whole, some 10 KiB per chain of services.
const BUFFER: usize = 64 << 20;
/// Events that were lost may have been anybody's. They are taken for a change by somebody else, at a falling rate: what is loaded then may
/// be what they are lost by.
#[derive(Debug, Default)]
struct Doubts {
    waits: bool,
    repairs: Repairs,
}

impl Doubts {
    /// Events were lost.
    fn raise(&mut self) {
        self.waits = true;
    }

    /// Whether it is to be told now.
    fn poll(&mut self, now: Instant) -> bool {
        let told = self.waits && !matches!(self.repairs.turn(now, "events"), Turn::Wait(_));
        self.waits &= !told;
        told
    }
}

/// What this process signs its tables with.
pub(crate) fn signature() -> &'static str {
    static SIGNATURE: OnceLock<String> = OnceLock::new();
    SIGNATURE.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id());
        format!("weft-{random:016x}")
    })
}

/// What is known of the transaction that is being told.
#[derive(Debug, Default)]
struct Transaction {
    touches: bool,
    signed: bool,
    /// A table of ours sleeps from now on.
    sleeps: bool,
}

impl Transaction {
    /// Reads messages; true where one ended that was somebody else's and touched a table of ours.
    fn read(&mut self, datagram: &[u8], signature: &str) -> bool {
        let mut foreign = false;
        let mut rest = datagram;
        while let Some(header) = rest.get(..NLMSG_HEADER) {
            let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let message = rest.get(NLMSG_HEADER..len).unwrap_or_default();
            if kind >> 8 == NFNL_SUBSYS_NFTABLES {
                match kind & 0xff {
                    NFT_MSG_NEWGEN => {
                        let ended = std::mem::take(self);
                        foreign |= ended.touches && (!ended.signed || ended.sleeps);
                    }
                    kind if NFT_MSG_OBJECTS.contains(&kind) => {}
                    kind if is_ours(message) => {
                        self.touches = true;
                        self.sleeps |= kind == NFT_MSG_NEWTABLE && is_dormant(message);
                        let mut words = message.windows(signature.len());
                        self.signed |= words.any(|word| word == signature.as_bytes());
                    }
                    _ => {}
                }
            }
            rest = rest
                .get(len.max(NLMSG_HEADER).next_multiple_of(4)..)
                .unwrap_or_default();
        }
        foreign
    }
}

/// The object is in a table of ours.
fn is_ours(message: &[u8]) -> bool {
    let mut attributes = attributes(message.get(NFGENMSG..).unwrap_or_default());
    let name = attributes.find(|(kind, _)| *kind == NFTA_TABLE);
    name.is_some_and(|(_, name)| {
        let name = name.split(|octet| *octet == 0).next().unwrap_or_default();
        nftables::TABLES.iter().any(|ours| ours.as_bytes() == name)
    })
}

fn is_dormant(table: &[u8]) -> bool {
    let mut attributes = attributes(table.get(NFGENMSG..).unwrap_or_default());
    let flags = attributes.find(|(kind, _)| *kind == NFTA_TABLE_FLAGS);
    let flags = flags.and_then(|(_, value)| value.try_into().ok());
    flags.is_some_and(|flags| u32::from_be_bytes(flags) & NFT_TABLE_F_DORMANT != 0)
}

/// Whether a table of ours is there that the kernel asks nothing.
///
/// # Errors
/// Where the kernel has no nf_tables, or does not answer.
pub(crate) fn any_dormant() -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    SockRef::from(&socket).set_read_timeout(Some(monitor::LOOK))?;
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut request = Vec::new();
    octets::message(&mut request, kind, flags, 1, |out| {
        out.resize(out.len() + NFGENMSG, 0);
    });
    socket.send(&request, 0)?;
    let (mut buffer, mut found) = (Vec::with_capacity(1 << 16), false);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        for message in octets::messages(&buffer) {
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => found |= is_ours(message.payload) && is_dormant(message.payload),
            }
        }
    }
}

/// Starts the thread, which tells of walls that somebody else changed; it ends within a second when the receiver is gone.
///
/// # Errors
/// Where the kernel has no nf_tables, or does not let us listen.
pub(crate) fn start(sender: mpsc::Sender<Changes>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    monitor::set_buffer(&socket, BUFFER)?;
    socket.add_membership(NFNLGRP_NFTABLES)?;
    SockRef::from(&socket).set_read_timeout(Some(monitor::LOOK))?;
    thread::Builder::new()
        .name("weft-ruleset".into())
        .spawn(move || run(&socket, &sender))?;
    Ok(())
}

fn run(socket: &Socket, sender: &mpsc::Sender<Changes>) {
    let mut buffer = Vec::with_capacity(1 << 17);
    let mut transaction = Transaction::default();
    let mut doubts = Doubts::default();
    loop {
        buffer.clear();
        let foreign = match socket.recv(&mut buffer, 0) {
            Ok(_) => transaction.read(&buffer, signature()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                transaction = Transaction::default();
                doubts.raise();
                false
            }
            Err(_) if sender.is_closed() => return,
            Err(error) if monitor::is_nothing(&error) => false,
            Err(error) => {
                tracing::error!(%error, "nftables' events can no longer be read");
                return;
            }
        };
        let changes = Changes {
            walls: true,
            ..Changes::default()
        };
        let foreign = foreign || doubts.poll(Instant::now());
        if foreign && sender.blocking_send(changes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(kind: u16, table: &str, more: &[u8]) -> Vec<u8> {
        let mut attribute = table.as_bytes().to_vec();
        attribute.push(0);
        let mut body = vec![1, 0, 0, 0];
        body.extend((attribute.len() as u16 + 4).to_ne_bytes());
        body.extend(NFTA_TABLE.to_ne_bytes());
        body.extend(&attribute);
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(more);
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        let mut out = (NLMSG_HEADER as u32 + body.len() as u32)
            .to_ne_bytes()
            .to_vec();
        out.extend(kind.to_ne_bytes());
        out.resize(NLMSG_HEADER, 0);
        out.extend(body);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn lost_events_are_told_of_at_a_falling_rate() {
        let start = Instant::now();
        let mut doubts = Doubts::default();
        assert!(!doubts.poll(start));
        // Whatever is done about it, events are lost again.
        let mut told = Vec::new();
        for tenth in 0..6000 {
            doubts.raise();
            let now = start + Duration::from_millis(100 * tenth);
            told.extend(doubts.poll(now).then_some(tenth));
        }
        assert_eq!(told[0], 0);
        assert!(told.len() < 20, "{told:?}");
        let later = start + Duration::from_secs(1000);
        doubts.raise();
        assert!(doubts.poll(later));
    }

    #[test]
    fn only_what_somebody_else_does_to_our_tables_is_told() {
        let end = || message(NFT_MSG_NEWGEN, "", b"");
        let mut transaction = Transaction::default();
        let mut told = |messages: &[Vec<u8>]| {
            let mut foreign = false;
            for one in messages {
                foreign |= transaction.read(one, "weft-1234");
            }
            foreign
        };
        assert!(!told(&[message(2, "other", b""), end()]));
        assert!(!told(&[
            message(2, "weft", b""),
            message(0, "weft", b"..weft-1234."),
            end()
        ]));
        assert!(told(&[message(2, "weft", b""), end()]));
        assert!(told(&[message(8, "weft-chains", b""), end()]));
        assert!(!told(&[message(20, "weft", b""), end()]), "a counter");
        assert!(!told(&[message(8, "weft", b"")]), "it may yet be signed");
        // `flags dormant`, with the comment that the table has had.
        let asleep = [&[8, 0, 2, 0, 0, 0, 0, 1][..], b"..weft-1234."].concat();
        assert!(told(&[message(0, "weft", &asleep), end()]));
        let awake = [&[8, 0, 2, 0, 0, 0, 0, 0][..], b"..weft-1234."].concat();
        assert!(!told(&[message(0, "weft", &awake), end()]));
        let together = [message(0, "weft", b"weft-1234"), end()].concat();
        assert!(!told(&[together]));
    }
}
