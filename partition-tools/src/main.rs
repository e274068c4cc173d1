//! Builds, writes, checks, reads and mends device images and devices.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
