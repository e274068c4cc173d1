//! Lines on standard output and standard error. A reader that has gone away (`inspect | head`, a terminal that was closed) is no
//! reason to stop half-way through a change to a device or a store, so nothing here panics; what else keeps data from being
//! written is told once, at the end, by [`were_lost`].

#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

/// Why standard output takes no more.
static FAULT: OnceLock<io::Error> = OnceLock::new();

/// Prints a line of data on standard output, written as for [`println!`].
#[macro_export]
macro_rules! outln {
    ($($arg:tt)*) => { $crate::out(format_args!($($arg)*)) };
}

/// Prints a line for people on standard error, written as for [`eprintln!`].
#[macro_export]
macro_rules! errln {
    ($($arg:tt)*) => { $crate::err(format_args!($($arg)*)) };
}

/// See [`outln!`].
pub fn out(line: fmt::Arguments<'_>) {
    bytes(format!("{line}\n").as_bytes());
}

/// Puts data on standard output; `false`: it takes no more.
pub fn bytes(bytes: &[u8]) -> bool {
    keep_fault(|| io::stdout().lock().write_all(bytes))
}

/// See [`errln!`].
pub fn err(line: fmt::Arguments<'_>) {
    // There is no other place to say it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether somebody did not get data who wants it, which is told here. A reader that has gone away wants none.
pub fn were_lost() -> bool {
    keep_fault(|| io::stdout().flush());
    let Some(error) = FAULT.get().filter(|error| error.kind() != ErrorKind::BrokenPipe) else { return false };
    errln!("error: standard output cannot be written: {error}");
    true
}

fn keep_fault(write: impl FnOnce() -> io::Result<()>) -> bool {
    if FAULT.get().is_none()
        && let Err(error) = write()
    {
        // The first fault is the one to tell.
        let _ = FAULT.set(error);
    }
    FAULT.get().is_none()
}
