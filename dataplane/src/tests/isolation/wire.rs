//! Raw sockets: many frames at once out of a device, and whatever comes into one.
#![allow(
    unsafe_code,
    reason = "nix has no addresses of links, and no batches of raw frames"
)]

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::super::lab::Lab;
use super::packets::MARK;

/// Frames that are handed to the kernel at once.
const BATCH: usize = 64;

fn raw(device: u32) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let raw = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: device as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: a whole `sockaddr_ll`, which outlives the call.
    let bound = unsafe {
        libc::bind(
            raw.as_raw_fd(),
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
    raw
}

fn option(socket: &OwnedFd, level: i32, name: i32, value: i32) {
    // SAFETY: the value is there and as long as is said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as u32,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Sends frames out of a device of a node.
pub(super) fn send(
    lab: &Lab,
    node: &str,
    device: u32,
    count: usize,
    mut next: impl FnMut() -> Vec<u8> + Send + 'static,
) {
    lab.inside(node, move || {
        let socket = raw(device);
        let mut left = count;
        while left > 0 {
            let frames: Vec<Vec<u8>> = (0..left.min(BATCH)).map(|_| next()).collect();
            batch(&socket, &frames);
            left -= frames.len();
        }
    });
}

fn batch(socket: &OwnedFd, frames: &[Vec<u8>]) {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all zeros is an empty message.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut sent = 0;
    while sent < messages.len() {
        let rest = &mut messages[sent..];
        // SAFETY: the messages and what they point to outlive the call.
        let count =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        if count < 0 {
            let error = std::io::Error::last_os_error();
            // The device's queue is full.
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{error}");
            continue;
        }
        sent += count as usize;
    }
}

/// What has come into a device, by the mark's fourth octet and what carried it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) frames: BTreeMap<(u8, Carried), u64>,
    /// The first of each, for who has to find out why.
    pub(super) first: BTreeMap<(u8, Carried), Vec<u8>>,
}

/// What the outermost packet of a frame is, so far as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Carried {
    /// Its protocol, where it is of IP and no later fragment.
    pub(super) protocol: Option<u8>,
    /// It is one by which routers speak with each other.
    pub(super) control: bool,
    /// The mark is its own, and not of something that it carries or complains of.
    pub(super) own: bool,
}

const GRE: u8 = 47;
/// Ports of TCP and of UDP by which routers speak with each other.
const CONTROL_TCP: [u16; 1] = [179];
const CONTROL_UDP: [u16; 5] = [862, 3784, 4784, 4789, 4790];

fn carried(frame: &[u8]) -> Carried {
    let (protocol, header) = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x08, 0x00, packet @ ..] if packet.len() >= 20 => {
            if packet[6] & 0x1f != 0 || packet[7] != 0 {
                return Carried::default();
            }
            (packet[9], packet.get(usize::from(packet[0] & 15) * 4..))
        }
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, packet @ ..] if packet.len() >= 40 => {
            (packet[6], packet.get(40..))
        }
        _ => return Carried::default(),
    };
    let control = match (protocol, header) {
        (6 | 17, Some([_, _, high, low, ..])) => {
            let port = u16::from_be_bytes([*high, *low]);
            match protocol {
                6 => CONTROL_TCP.contains(&port),
                _ => CONTROL_UDP.contains(&port),
            }
        }
        _ => protocol == GRE,
    };
    let own = header.and_then(|header| header.get(8..11)) == Some(&MARK);
    Carried {
        protocol: Some(protocol),
        control,
        own,
    }
}

/// Looks at what comes into a device, until it is told to stop.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    pub(super) fn start(lab: &Lab, node: &str, device: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let socket = lab.inside(node, move || {
            let socket = raw(device);
            // What goes out is no arrival; and nothing is to be lost.
            option(&socket, libc::SOL_PACKET, 23, 1);
            option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 256 << 20);
            let wait = libc::timeval {
                tv_sec: 0,
                tv_usec: 20_000,
            };
            // SAFETY: the value is there and as long as is said.
            let set = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_RCVTIMEO,
                    (&raw const wait).cast(),
                    size_of_val(&wait) as u32,
                )
            };
            assert_eq!(set, 0);
            socket
        });
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut octets = vec![0; 65536];
            loop {
                // What came before it was told to stop is looked at.
                let last = told.load(Ordering::SeqCst);
                while let Ok(len) = nix::sys::socket::recv(
                    socket.as_raw_fd(),
                    &mut octets,
                    nix::sys::socket::MsgFlags::empty(),
                ) {
                    seen.note(&octets[..len]);
                }
                if last {
                    assert_eq!(lost(&socket), 0, "frames that nobody looked at");
                    return seen;
                }
            }
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn note(&mut self, frame: &[u8]) {
        let marks = frame.windows(4).filter(|four| four[..3] == MARK);
        let Some(mark) = marks
            .map(|four| four[3])
            .find(|mark| (1..=8).contains(mark))
        else {
            return;
        };
        let key = (mark, carried(frame));
        *self.frames.entry(key).or_default() += 1;
        self.first.entry(key).or_insert_with(|| frame.to_vec());
    }
}

/// Frames that found no place in the socket's queue.
fn lost(socket: &OwnedFd) -> u32 {
    let mut counts = [0_u32; 2];
    let mut len = size_of_val(&counts) as u32;
    // SAFETY: there is as much place as is said.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            counts.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    assert_eq!(got, 0);
    counts[1]
}
