//! Systems that nobody has brought the updater to yet: it works on images and directories, without their locks.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use updater::host::Probe;

use super::{Locked, Pipes};

/// Nothing to set.
pub fn prepare() {}

/// No lock that this program knows of.
///
/// # Errors
/// None.
pub fn lock_directory(_directory: &Path) -> io::Result<Locked> {
    Ok(Locked::Held(None))
}

/// Nobody that this program knows of.
pub fn in_use_by(_directory: &Path) -> Vec<String> {
    Vec::new()
}

/// The file of this very program.
///
/// # Errors
/// What the operating system reports.
pub fn own_image() -> io::Result<File> {
    File::open(std::env::current_exe()?)
}

/// Whether a launcher started this program and has verified what runs: there is none here yet.
pub fn is_launched() -> bool {
    false
}

/// No launcher runs here.
pub fn launcher_pipes() -> Pipes {
    Pipes::default()
}

/// No image is tried here.
pub fn probe(_image: &mut dyn Read, _args: &[OsString], _limit: Duration) -> Probe {
    Probe::NotTried("not on this system".into())
}
