//! Lines to stdout and stderr. Whoever reads them may go away: that stops no work and changes no status.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// A line of data, to stdout. Fails where it cannot be written and somebody would read it.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::streams::write_line(format_args!($($text)*)) };
}

/// A line for people, to stderr.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::streams::say_line(format_args!($($text)*)) };
}

pub(super) use {out, say};

pub(super) fn write_line(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

pub(super) fn say_line(text: fmt::Arguments<'_>) {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "{text}");
}
