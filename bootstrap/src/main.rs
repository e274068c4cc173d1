//! The launcher: checks the updater, restores it, runs it, then runs the client.
#![cfg_attr(windows, windows_subsystem = "windows")]
#![cfg_attr(all(target_os = "linux", not(feature = "std")), no_std, no_main)]

#[cfg(all(target_os = "linux", not(feature = "std")))]
extern crate tiny_std as std;

fn run() -> i32 {
    bootstrap::launcher::main(std::env::args_os().skip(1))
}

#[cfg(all(target_os = "linux", not(feature = "std")))]
tiny_std::start!(run);

#[cfg(not(all(target_os = "linux", not(feature = "std"))))]
fn main() {
    std::process::exit(run());
}
