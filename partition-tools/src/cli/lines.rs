//! Lines on standard output and standard error. A reader that has gone away (`inspect | head`, a terminal that was closed) is no
//! reason to stop half-way through a change to a device, so nothing here panics; what else keeps data from being written is told
//! once, at the end.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

/// Why standard output takes no more.
static FAULT: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of data on standard output.
macro_rules! outln {
    ($($arg:tt)*) => { $crate::cli::lines::out(format_args!($($arg)*)) };
}

/// Prints a line for people on standard error.
macro_rules! errln {
    ($($arg:tt)*) => { $crate::cli::lines::err(format_args!($($arg)*)) };
}

/// See `outln`.
pub fn out(line: fmt::Arguments<'_>) {
    bytes(format!("{line}\n").as_bytes());
}

/// Puts data on standard output; `false`: it takes no more.
pub fn bytes(bytes: &[u8]) -> bool {
    if FAULT.get().is_none()
        && let Err(error) = io::stdout().lock().write_all(bytes)
    {
        // The first fault is the one to report.
        let _ = FAULT.set(error);
    }
    FAULT.get().is_none()
}

/// See `errln`.
pub fn err(line: fmt::Arguments<'_>) {
    // There is no other place to say it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// How a program ends that would end with `status`: 1 where somebody did not get the data who wants it.
pub fn end(status: ExitCode) -> ExitCode {
    if let Err(error) = io::stdout().flush() {
        let _ = FAULT.set(error);
    }
    match FAULT.get() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            errln!("error: standard output cannot be written: {error}");
            ExitCode::from(1)
        }
        _ => status,
    }
}
