//! The `weft` binary.

mod cli;
mod config;
mod lab;
mod router;
mod service_manager;

use std::process::ExitCode;

/// Gives memory back by itself: after a full table has gone, the process is as small as before it came.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
