//! Signals, by the kernel's own calls: a set of them is a number with a bit for each.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Bytes of a set.
const SET_BYTES: usize = size_of::<u64>();

/// The set of one signal.
pub const fn only(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Changes which signals wait (rt_sigprocmask(2)).
///
/// # Errors
/// What the system reports.
pub fn mask(how: i32, signals: u64) -> io::Result<()> {
    let none = core::ptr::null_mut::<u64>();
    // SAFETY: a set that lives through the call.
    done(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const signals, none, SET_BYTES) }).map(drop)
}

/// Has a signal do what it does by default (rt_sigaction(2)).
///
/// # Errors
/// What the system reports.
pub fn by_default(signal: i32) -> io::Result<()> {
    // The kernel's structure: the handler, flags, a function to come back by, and a set; zero is the default.
    let default = [0_u64; 4];
    let none = core::ptr::null_mut::<u64>();
    // SAFETY: a structure that lives through the call, and with which no handler is called.
    done(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, SET_BYTES) }).map(drop)
}

/// A descriptor to read signals from, which never waits (signalfd(2)).
///
/// # Errors
/// What the system reports.
pub fn descriptor(signals: u64) -> io::Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: a set that lives through the call; the descriptor is new, and nobody else owns it.
    unsafe {
        let fd = done(libc::syscall(libc::SYS_signalfd4, -1, &raw const signals, SET_BYTES, flags))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// What a system call returned.
///
/// # Errors
/// What the system reports.
pub fn done(returned: libc::c_long) -> io::Result<libc::c_long> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
