//! The scheduling class of the thread: what else runs must not keep it from the processor for long.

use std::fmt;
use std::io;

use crate::sys;

/// Above what is batched, below what the kernel itself needs.
const PRIORITY: i32 = 10;
const NICE: i32 = -10;

/// How the kernel schedules the thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// SCHED_FIFO: before everything that is not real time.
    RealTime,
    /// The ordinary class, with more of the processor than others.
    Nice,
    /// The ordinary class.
    #[default]
    Ordinary,
}

impl Scheduling {
    /// Takes the best class that is permitted to the calling thread.
    pub(crate) fn take() -> Self {
        if sys::set_real_time(PRIORITY).is_ok() {
            return Self::RealTime;
        }
        match sys::set_nice(NICE) {
            Ok(()) => Self::Nice,
            Err(io::Error { .. }) => Self::Ordinary,
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RealTime => write!(f, "SCHED_FIFO, priority {PRIORITY}"),
            Self::Nice => write!(f, "nice {NICE}: real-time scheduling is not permitted"),
            Self::Ordinary => f.write_str(
                "as any other: neither real-time scheduling nor a lower nice value is permitted",
            ),
        }
    }
}
