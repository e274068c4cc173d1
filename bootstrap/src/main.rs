//! The launcher: checks the updater, restores it, runs it, then runs the client.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(bootstrap::launcher::main(std::env::args_os().skip(1)))
}
