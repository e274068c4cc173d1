//! Checks, downloads, stages, commits, repairs and rolls back the client on a device.
#![deny(unsafe_code)]

mod cli;
mod platform;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::main())
}
