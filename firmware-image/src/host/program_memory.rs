//! Memory that a program runs from.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;

/// An empty file in memory, which can be sealed and run, also where the system makes such files not to be run if nobody says
/// otherwise (`vm.memfd_noexec=1`).
///
/// # Errors
/// What the system reports: `PermissionDenied` where it forbids it altogether.
pub fn program_memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create("updater", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag, and always allow it.
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create("updater", flags)?),
        made => Ok(made?),
    }
}
