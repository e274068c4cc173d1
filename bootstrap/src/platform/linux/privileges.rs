//! Giving up what an ordinary user does not have, for good (capabilities(7), prctl(2)).

use std::io;

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Whether root runs this.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root() || rustix::process::geteuid().is_root()
}

/// Gives up every capability of this process, in all five sets as far as they may be changed, and the way to get one by
/// starting a program: neither this process nor any that it starts ever has one again, whatever user they run as.
///
/// # Errors
/// Something was not given up; nothing from a device may be used then.
pub fn give_up_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::clear_ambient_capability_set()?;
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // EPERM: without CAP_SETPCAP the set stays, and serves nobody: with no_new_privs no program gets what is not
            // permitted already. EINVAL: this kernel does not know the capability.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    let left = rustix::thread::capabilities(None)?;
    let gone = left.effective.is_empty() && left.permitted.is_empty() && left.inheritable.is_empty();
    if gone && rustix::thread::no_new_privs()? {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "capabilities cannot be given up"))
    }
}
