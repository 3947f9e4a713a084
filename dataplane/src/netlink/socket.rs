//! A NETLINK_ROUTE socket: dumps, single requests, batches.

use std::fmt;
use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::octets::{Message, attributes, message, messages};

const NLM_F_REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const NLM_F_ACK: u16 = libc::NLM_F_ACK as u16;
const NLM_F_DUMP: u16 = libc::NLM_F_DUMP as u16;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Octets sent at once: some thousand routes. The kernel refuses what its send buffer does not hold, 208 KiB by default.
const CHUNK: usize = 96 * 1024;
const RECEIVE: usize = 1 << 20;
/// A dump that the kernel says was interrupted by changes is taken again, this often.
const DUMPS: usize = 8;

/// What the kernel refused, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: i32,
    /// The extended acknowledgement, where there is one.
    pub(crate) text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno).to_string();
        let error = error.split(" (os error").next().unwrap_or_default();
        match &self.text {
            Some(text) => write!(f, "{error}: {text}"),
            None => f.write_str(error),
        }
    }
}

/// Requests to be sent together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    octets: Vec<u8>,
    /// Where each message starts.
    starts: Vec<usize>,
}

impl Batch {
    /// Adds a request. Its number in the batch is the count so far.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        self.starts.push(self.octets.len());
        message(&mut self.octets, kind, NLM_F_REQUEST | flags, 0, body);
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }
}

pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    /// Requests sent that change something.
    pub(crate) sent: u64,
    #[cfg(test)]
    pub(crate) faults: super::faults::Faults,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        // As much as we are allowed: a batch that is refused whole answers with a message each.
        socket.set_rx_buf_sz(8_i32 << 20)?;
        Ok(Self {
            socket,
            sequence: 1,
            sent: 0,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        })
    }

    /// The number that the kernel knows this socket by.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(RECEIVE);
        self.socket.recv(&mut buffer, 0)?;
        Ok(buffer)
    }

    /// Dumps a kind of object. `start` is called before each attempt: what an interrupted dump said is forgotten.
    pub(crate) fn dump<T: Default>(
        &mut self,
        kind: u16,
        request: &[u8],
        mut each: impl FnMut(&mut T, &Message<'_>),
    ) -> io::Result<T> {
        for _ in 0..DUMPS {
            let mut result = T::default();
            if self.dump_once(kind, request, |message| each(&mut result, message))? {
                return Ok(result);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's tables change too fast to be read",
        ))
    }

    /// False where the dump was interrupted by a change.
    fn dump_once(
        &mut self,
        kind: u16,
        request: &[u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        self.sequence += 1;
        let mut out = Vec::new();
        message(
            &mut out,
            kind,
            NLM_F_REQUEST | NLM_F_DUMP,
            self.sequence,
            |out| out.extend_from_slice(request),
        );
        self.socket.send(&out, 0)?;
        let mut whole = true;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram).filter(|message| message.sequence == self.sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(whole),
                    libc::NLMSG_ERROR => {
                        if let Some(refusal) = refusal(message.payload) {
                            return Err(io::Error::from_raw_os_error(refusal.errno));
                        }
                    }
                    _ => each(&message),
                }
            }
        }
    }

    /// One request that is answered with one message.
    pub(crate) fn get(
        &mut self,
        kind: u16,
        request: &[u8],
    ) -> io::Result<Result<Vec<u8>, Refusal>> {
        self.sequence += 1;
        let mut out = Vec::new();
        message(&mut out, kind, NLM_F_REQUEST, self.sequence, |out| {
            out.extend_from_slice(request)
        });
        self.socket.send(&out, 0)?;
        loop {
            let datagram = self.receive()?;
            for message in messages(&datagram).filter(|message| message.sequence == self.sequence) {
                if i32::from(message.kind) != libc::NLMSG_ERROR {
                    return Ok(Ok(message.payload.to_vec()));
                }
                if let Some(refusal) = refusal(message.payload) {
                    return Ok(Err(refusal));
                }
            }
        }
    }

    /// Sends a batch; returns what was refused, by number. Every message is tried, whatever became of those before.
    pub(crate) fn send(&mut self, mut batch: Batch) -> io::Result<Vec<(usize, Refusal)>> {
        let mut refused = Vec::new();
        let count = batch.len();
        #[cfg(test)]
        self.faults
            .inject(&mut batch.octets, &batch.starts, &mut refused)?;
        self.sent += count as u64;
        let mut first = 0;
        while first < count {
            let start = batch.starts[first];
            let mut last = first;
            while last + 1 < count && batch.starts[last + 1] - start < CHUNK {
                last += 1;
            }
            let end = batch
                .starts
                .get(last + 1)
                .copied()
                .unwrap_or(batch.octets.len());
            let base = self.sequence + 1;
            self.sequence += (last - first) as u32 + 1;
            for number in first..=last {
                let at = batch.starts[number];
                let sequence = base + (number - first) as u32;
                batch.octets[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
                if number == last {
                    let flags = u16::from_ne_bytes([batch.octets[at + 6], batch.octets[at + 7]])
                        | NLM_F_ACK;
                    batch.octets[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
                }
            }
            self.socket.send(&batch.octets[start..end], 0)?;
            let mut done = false;
            while !done {
                let datagram = self.receive()?;
                for message in messages(&datagram) {
                    let number = message.sequence.wrapping_sub(base) as usize;
                    if i32::from(message.kind) != libc::NLMSG_ERROR || number > last - first {
                        continue;
                    }
                    if let Some(refusal) = refusal(message.payload) {
                        refused.push((first + number, refusal));
                    }
                    done |= number == last - first;
                }
            }
            first = last + 1;
        }
        #[cfg(test)]
        refused.sort_by_key(|(number, _)| *number);
        Ok(refused)
    }
}

/// What an NLMSG_ERROR says; `None` for an acknowledgement.
fn refusal(payload: &[u8]) -> Option<Refusal> {
    let errno = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    if errno == 0 {
        return None;
    }
    // With NETLINK_CAP_ACK the request's header follows, then the attributes.
    let text = attributes(payload.get(4 + super::octets::HEADER..).unwrap_or_default())
        .find(|(kind, _)| *kind == 1)
        .map(|(_, text)| {
            String::from_utf8_lossy(text)
                .trim_end_matches('\0')
                .to_owned()
        });
    Some(Refusal {
        errno: -errno,
        text,
    })
}
