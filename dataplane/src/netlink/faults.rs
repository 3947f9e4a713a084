//! Refusals that this kernel has no reason for now, for tests.

use std::io;
use std::sync::{Arc, Mutex};

use super::socket::Refusal;

#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<Planned>>);

#[derive(Debug, Default)]
struct Planned {
    /// Kind of a message, the error that it gets, and how many do.
    refusals: Vec<(u16, i32, usize)>,
    /// The next batches are not sent, for this error each.
    failures: Vec<i32>,
    /// This process may not use BPF.
    no_bpf: bool,
}

impl Faults {
    pub(crate) fn refuse(&self, kind: u16, errno: i32, count: usize) {
        self.0.lock().unwrap().refusals.push((kind, errno, count));
    }

    pub(crate) fn fail(&self, errno: i32) {
        self.0.lock().unwrap().failures.push(errno);
    }

    pub(crate) fn refuse_bpf(&self) {
        self.0.lock().unwrap().no_bpf = true;
    }

    pub(crate) fn refuses_bpf(&self) -> bool {
        self.0.lock().unwrap().no_bpf
    }

    /// Makes nothing of the messages that are to be refused: the kernel skips them.
    pub(super) fn inject(
        &self,
        octets: &mut [u8],
        starts: &[usize],
        refused: &mut Vec<(usize, Refusal)>,
    ) -> io::Result<()> {
        let mut planned = self.0.lock().unwrap();
        if let Some(errno) = planned.failures.pop() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        for (number, at) in starts.iter().enumerate() {
            let kind = u16::from_ne_bytes([octets[at + 4], octets[at + 5]]);
            let mut due = planned.refusals.iter_mut();
            if let Some((_, errno, left)) = due.find(|one| one.0 == kind && one.2 > 0) {
                *left -= 1;
                octets[at + 4..at + 6].copy_from_slice(&(libc::NLMSG_NOOP as u16).to_ne_bytes());
                let (errno, text) = (*errno, None);
                refused.push((number, Refusal { errno, text }));
            }
        }
        Ok(())
    }
}
