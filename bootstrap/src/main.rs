//! The launcher: checks the updater, restores it, runs it, then runs the client.
#![cfg_attr(windows, windows_subsystem = "windows")]

fn main() {
    std::process::exit(bootstrap::launcher::main(std::env::args_os().skip(1)));
}
