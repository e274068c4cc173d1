//! Directories of the launcher's own on this computer: to run from, and to mount at.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use rustix::fs::StatVfsMountFlags;

/// Makes a directory of mode 0700 on a mount from which programs run.
///
/// # Errors
/// What the last place tried reports.
pub fn private_directory() -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for base in bases() {
        match rustix::fs::statvfs(&base) {
            Ok(found) if found.f_flag.contains(StatVfsMountFlags::NOEXEC) => continue,
            Ok(_) => {}
            Err(_) => continue,
        }
        for _ in 0..16 {
            let path = base.join(format!("holdfast-{:016x}", random()?));
            match make(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    Err(last)
}

/// The directory for the mounts of the device `name`: systemd's own for the unit, which it removes afterwards; else one of
/// mode 0700 that is found again, so that what a pulled device leaves behind is two empty directories at most.
///
/// # Errors
/// What the last place tried reports.
pub fn mounting_place(name: &OsStr) -> io::Result<PathBuf> {
    if let Some(place) = runtime_directory().filter(|place| is_own(place)) {
        return Ok(place);
    }
    let mut called = OsString::from("holdfast-plugged-");
    called.push(name);
    called.push(format!("-{}", rustix::process::geteuid().as_raw()));
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for base in bases() {
        let path = base.join(&called);
        match make(&path) {
            Ok(()) => return Ok(path),
            // In a place for everybody, somebody else may have taken the name.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_own(&path) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// systemd.exec(5): paths separated by colons; the first is this unit's.
fn runtime_directory() -> Option<PathBuf> {
    let all = std::env::var_os("RUNTIME_DIRECTORY")?;
    let first = std::env::split_paths(&all).next()?;
    first.is_absolute().then_some(first)
}

fn bases() -> impl Iterator<Item = PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let of_user = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let fixed = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from);
    runtime_directory().into_iter().chain(session).chain([of_user, std::env::temp_dir()]).chain(fixed)
}

/// A directory, and no link to one, that belongs to this user and that nobody else may change.
fn is_own(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0
    })
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
