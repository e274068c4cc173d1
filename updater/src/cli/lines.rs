//! Lines on standard output and standard error. A reader that has gone away (`updater status | head`, a terminal that was
//! closed) is no reason to stop half-way through a change to a device, so nothing here panics.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether data was lost on its way to whoever wanted it.
static LOST: AtomicBool = AtomicBool::new(false);

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
    if let Err(error) = writeln!(io::stdout().lock(), "{line}")
        && error.kind() != io::ErrorKind::BrokenPipe
        && !LOST.swap(true, Ordering::Relaxed)
    {
        err(format_args!("error: standard output cannot be written: {error}"));
    }
}

/// See `errln`.
pub fn err(line: fmt::Arguments<'_>) {
    // There is no other place to say it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether standard output could not be written, for another reason than that its reader has gone away.
pub fn were_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}
