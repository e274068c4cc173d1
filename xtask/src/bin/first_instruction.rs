//! A stand-in for the updater in the benchmarks: says when its first instruction ran, reports ready, ends.

use std::io::Write as _;
use std::time::SystemTime;

fn main() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    // Keeps the place for the vendor key in the program, which every updater has.
    let stamped = firmware_image::stamp::vendor_key().is_some();
    if let Some(path) = std::env::var_os("HOLDFAST_FIRST_INSTRUCTION")
        && let Err(error) = std::fs::write(path, format!("{now} {stamped}"))
    {
        eprintln!("cannot say when: {error}");
    }
    report_ready();
}

#[cfg(unix)]
fn report_ready() {
    use std::os::fd::FromRawFd as _;
    let fd = std::env::var("HOLDFAST_READY_FD").ok().and_then(|fd| fd.parse().ok());
    if let Some(fd) = fd {
        // SAFETY: the launcher gave this descriptor to this process alone, and nothing else here uses it.
        let mut pipe = unsafe { std::fs::File::from_raw_fd(fd) };
        // A launcher that is gone needs no answer.
        let _ = pipe.write_all(b"R");
    }
}

#[cfg(not(unix))]
fn report_ready() {
    let _ = std::io::stdout().write_all(b"R");
}
