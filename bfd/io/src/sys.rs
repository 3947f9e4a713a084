//! System calls that nobody wraps as they are needed here: receiving in batches without allocation, waiting to the nanosecond, a thread's
//! scheduling class.

#![allow(unsafe_code, reason = "nobody wraps these system calls")]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Packets received by one system call.
pub(crate) const BATCH: usize = 32;
/// Octets kept of a packet: more than the longest authenticated one has.
const ROOM: usize = 64;
/// Octets of control messages: TTL, interface and time stamp, with their headers.
const CONTROL: usize = 128;

/// What wakes the thread for its commands.
pub(crate) struct Wake(EventFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    pub(crate) fn wake(&self) {
        // A counter that is full wakes, too.
        let _ = self.0.write(1);
    }

    /// Makes it wait again.
    pub(crate) fn clear(&self) {
        let _ = self.0.read();
    }

    pub(crate) fn raw(&self) -> i32 {
        use std::os::fd::AsFd as _;
        self.0.as_fd().as_raw_fd()
    }
}

/// Waits until one of `fds` can be read, or for `timeout`.
pub(crate) fn wait(fds: &[i32], timeout: Option<Duration>) {
    const MOST: usize = 8;
    let mut polled = [libc::pollfd {
        fd: -1,
        events: libc::POLLIN,
        revents: 0,
    }; MOST];
    for (place, fd) in polled.iter_mut().zip(fds) {
        place.fd = *fd;
    }
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(3600) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = fds.len().min(MOST) as libc::nfds_t;
    // SAFETY: there are `count` elements, and the kernel keeps no pointer. What it says of them is not needed: all are read.
    unsafe { libc::ppoll(polled.as_mut_ptr(), count, timeout, ptr::null()) };
}

/// Gives the calling thread a real-time class, its children none.
pub(crate) fn set_real_time(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads the parameters, and keeps no pointer to them.
    let failed = unsafe { libc::sched_setscheduler(0, policy, &parameters) };
    check(failed)
}

/// Sets the nice value of the calling thread.
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: no pointer is involved. On Linux 0 is the calling thread.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    check(failed)
}

fn check(failed: i32) -> io::Result<()> {
    match failed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The time of CLOCK_REALTIME, which time stamps are of.
pub(crate) fn real_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the time there, and keeps no pointer to it.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    duration(&time)
}

fn duration(time: &libc::timespec) -> Duration {
    // A clock before 1970 is as good as none.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A packet as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'b> {
    pub(crate) from: IpAddr,
    /// 0 where the kernel did not say.
    pub(crate) ttl: u8,
    /// The number of the interface that it came in by; 0 where the kernel did not say.
    pub(crate) interface: u32,
    /// By CLOCK_REALTIME; `None` where the kernel did not say.
    pub(crate) stamp: Option<Duration>,
    pub(crate) octets: &'b [u8],
}

/// An area of control messages, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Room for [`BATCH`] packets, taken once.
pub(crate) struct Batch {
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
    addresses: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    payloads: Vec<[u8; ROOM]>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: all of these are plain numbers and pointers, for which zero is a value.
        let (header, piece, address) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            headers: vec![header; BATCH],
            pieces: vec![piece; BATCH],
            addresses: vec![address; BATCH],
            controls: vec![Control([0; CONTROL]); BATCH],
            payloads: vec![[0; ROOM]; BATCH],
        }
    }

    /// Receives what is there, up to [`BATCH`] packets; how many it was.
    pub(crate) fn receive(&mut self, socket: &OwnedFd) -> usize {
        for at in 0..BATCH {
            self.pieces[at] = libc::iovec {
                iov_base: self.payloads[at].as_mut_ptr().cast(),
                iov_len: ROOM,
            };
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.addresses[at]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = ptr::from_mut(&mut self.pieces[at]);
            header.msg_iovlen = 1;
            header.msg_control = self.controls[at].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        // SAFETY: each header has just been pointed at its own element of vectors that are as long as `headers` and that nothing else
        // uses meanwhile; the kernel writes no more than the lengths say, and keeps no pointer.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        usize::try_from(count).unwrap_or_default()
    }

    /// A packet of the latest [`Batch::receive`], which has to have had more than `at`; `None` where it is from no address.
    pub(crate) fn datagram(&self, at: usize) -> Option<Datagram<'_>> {
        let header = self.headers.get(at)?;
        let Told {
            ttl,
            interface,
            stamp,
        } = control(&header.msg_hdr);
        let octets = &self.payloads[at][..(header.msg_len as usize).min(ROOM)];
        Some(Datagram {
            from: address(&self.addresses[at])?,
            ttl,
            interface,
            stamp,
            octets,
        })
    }
}

fn address(storage: &libc::sockaddr_storage) -> Option<IpAddr> {
    let storage = ptr::from_ref(storage);
    // SAFETY: `sockaddr_storage` is as long and as aligned as any address, and the family says which one the kernel wrote there.
    unsafe {
        match i32::from((*storage).ss_family) {
            libc::AF_INET => {
                let v4 = &*storage.cast::<libc::sockaddr_in>();
                Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
            }
            libc::AF_INET6 => {
                let v6 = &*storage.cast::<libc::sockaddr_in6>();
                Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// What the kernel tells of a packet, as [`Datagram`] has it.
#[derive(Default)]
struct Told {
    ttl: u8,
    interface: u32,
    stamp: Option<Duration>,
}

fn control(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the kernel has written `msg_controllen` octets of well-formed control messages to `msg_control`, which is in a [`Batch`] that
    // is borrowed still. What is read of each is what its kind has, unaligned as it may be.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    let hops = ptr::read_unaligned(data.cast::<libc::c_int>());
                    told.ttl = u8::try_from(hops).unwrap_or_default();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = ptr::read_unaligned(data.cast::<libc::timespec>());
                    told.stamp = Some(duration(&time));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in_pktinfo>());
                    told.interface = u32::try_from(info.ipi_ifindex).unwrap_or_default();
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = ptr::read_unaligned(data.cast::<libc::in6_pktinfo>());
                    told.interface = info.ipi6_ifindex as u32;
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    told
}

/// Packets that the kernel dropped at a socket: those that its filter refused, and those that found no room.
pub(crate) fn dropped(socket: &OwnedFd) -> u64 {
    /// Of linux/sock_diag.h.
    const VARIABLES: usize = 9;
    const DROPS: usize = 8;
    let mut variables = [0u32; VARIABLES];
    let mut size = mem::size_of_val(&variables) as libc::socklen_t;
    // SAFETY: the kernel writes no more octets than `size` says, and keeps no pointer.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            variables.as_mut_ptr().cast(),
            &mut size,
        )
    };
    variables[DROPS].into()
}
