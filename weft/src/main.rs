//! The `weft` binary.

mod cli;
mod config;
mod lab;
mod router;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
