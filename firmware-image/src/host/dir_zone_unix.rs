//! Directory operations by handles: every component is opened from its parent, never through a link, by one call where the
//! system has one for that.
//! In what order a FAT volume survives stands in [`order`].

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::prelude::v1::*;

#[cfg(target_os = "linux")]
use rustix::fs::ResolveFlags;
use rustix::fs::{AtFlags, Dir, FileType, Mode as Permissions, OFlags, RawMode, Stat};
use rustix::io::Errno;

use crate::ZoneError;
use crate::free_zone::{Kind, Metadata};

#[path = "dir_zone_order.rs"]
mod order;

pub use order::Written;
use order::{Removed, hold, make_dir, sync};

/// The bits that `chmod +x` sets.
const EXECUTE_BITS: RawMode = 0o111;

/// The zone's directory, held open.
pub struct Root {
    directory: OwnedFd,
    removed: Removed,
}

/// What the walk to a parent found.
enum Parent {
    Found(OwnedFd),
    /// Missing, or a file stands where a directory should.
    Missing,
}

impl Root {
    pub fn open(directory: &Path) -> Result<Self, ZoneError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open_to_read(rustix::fs::CWD, directory, flags).map_err(failed)?;
        Ok(Self { directory, removed: Removed::default() })
    }

    /// The directory at `path`, empty for the root.
    fn directory(&self, path: &str) -> Result<Parent, ZoneError> {
        match open_beneath(&self.directory, path) {
            Some(Ok(directory)) => return Ok(Parent::Found(directory)),
            Some(Err(Errno::NOENT)) => return Ok(Parent::Missing),
            // What stands in the way, or that the system cannot be asked so, step by step.
            Some(Err(_)) | None => {}
        }
        let mut here = rustix::io::fcntl_dupfd_cloexec(&self.directory, 0).map_err(failed)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            here = match open_to_read(here.as_fd(), name, flags) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(Parent::Missing),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return match stat(here.as_fd(), name)? {
                        Some(found) if kind(&found) == Kind::Other => Err(ZoneError::BadPath),
                        _ => Ok(Parent::Missing),
                    };
                }
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(Parent::Found(here))
    }

    fn parent<'p>(&self, path: &'p str) -> Result<Option<(OwnedFd, &'p str)>, ZoneError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(match self.directory(parent)? {
            Parent::Found(directory) => Some((directory, name)),
            Parent::Missing => None,
        })
    }

    /// Opens a file to be read. `None`: there is no regular file of that name.
    pub fn open_file(&self, path: &str) -> Result<Option<File>, ZoneError> {
        let Some((parent, name)) = self.parent(path)? else { return Ok(None) };
        let file = match open_to_read(parent.as_fd(), name, PLAIN | OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let found = rustix::fs::fstat(&file).map_err(failed)?;
        Ok((kind(&found) == Kind::File).then(|| File::from(file)))
    }

    /// Opens a file to be written as it is, or an empty one.
    pub fn open_rw(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let (parent, name) = self.parent(path)?.ok_or(ZoneError::BadPath)?;
        let file = open_to_write(&parent, name, OFlags::empty())?;
        let length = file.metadata()?.len();
        // A cut may have left it more clusters than its length tells, which its driver would take for damage when it grows.
        file.set_len(length)?;
        Ok((file, Written::new(parent, length, None)))
    }

    /// Makes an empty file. One that was there gives its clusters back when its entry is gone for good.
    pub fn create(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let (parent, name) = self.parent(path)?.ok_or(ZoneError::BadPath)?;
        let replaced = match stat(parent.as_fd(), name)? {
            Some(found) if kind(&found) == Kind::Directory => return Err(ZoneError::BadPath),
            Some(_) => {
                let held = hold(&parent, name);
                unlink(parent.as_fd(), name, AtFlags::empty())?;
                held
            }
            None => None,
        };
        let mut written = Written::new(parent, 0, replaced);
        let mut file = open_to_write(written.parent(), name, OFlags::EXCL);
        if file.as_ref().err() == Some(&ZoneError::Full) && written.give_way()? {
            file = open_to_write(written.parent(), name, OFlags::EXCL);
        }
        Ok((file?, written))
    }

    pub fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        let Some((parent, name)) = self.parent(path)? else { return Ok(None) };
        Ok(stat(parent.as_fd(), name)?.as_ref().map(metadata))
    }

    pub fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        let Parent::Found(directory) = self.directory(path)? else { return Ok(()) };
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let raw = entry.file_name().to_bytes();
            if raw == b"." || raw == b".." {
                continue;
            }
            let flow = match entry.file_name().to_str() {
                // Gone since the directory was read: not an entry any more.
                Ok(name) if crate::free_zone::check_path(name).is_ok() => match stat(directory.as_fd(), name)? {
                    Some(found) => visit(name, metadata(&found)),
                    None => ControlFlow::Continue(()),
                },
                // Shown, but no path of this trait can name it.
                _ => visit(&String::from_utf8_lossy(raw), Metadata { length: 0, kind: Kind::Other }),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        let Some((parent, name)) = self.parent(path)? else { return Ok(false) };
        match stat(parent.as_fd(), name)? {
            None => Ok(false),
            Some(found) if kind(&found) == Kind::Directory => unlink(parent.as_fd(), name, AtFlags::REMOVEDIR),
            Some(_) => {
                let held = hold(&parent, name);
                let removed = unlink(parent.as_fd(), name, AtFlags::empty())?;
                self.removed.add(parent, directory_of(path), held, &self.directory)?;
                Ok(removed)
            }
        }
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        let (from_parent, from_name) = self.parent(from)?.ok_or(ZoneError::NotFound)?;
        let (to_parent, to_name) = self.parent(to)?.ok_or(ZoneError::BadPath)?;
        let replaced = hold(&to_parent, to_name);
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name).map_err(failed)?;
        // The driver writes where a file begins with the file, also after it has moved.
        let sync_moved = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match open_to_read(to_parent.as_fd(), to_name, flags) {
                Ok(moved) => sync(&moved),
                // What may not be read, or is a link, is nothing of ours.
                Err(Errno::ACCESS | Errno::LOOP | Errno::NXIO) => Ok(()),
                Err(error) => Err(failed(error)),
            }
        };
        let done = if directory_of(from) == directory_of(to) {
            sync(&to_parent).and_then(|()| sync_moved())
        } else if replaced.is_some() {
            sync(&from_parent).and_then(|()| sync(&to_parent)).and_then(|()| sync_moved())
        } else {
            // Somebody's own, put out of the way: a cut may leave it under both names, and never under none.
            sync_moved().and_then(|()| sync(&to_parent)).and_then(|()| sync(&from_parent))
        };
        if done.is_err() && replaced.is_some() {
            self.removed.add(to_parent, directory_of(to), replaced, &self.directory)?;
        }
        done
    }

    pub fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        if let Some(Ok(_)) = open_beneath(&self.directory, path) {
            return Ok(());
        }
        let mut here = rustix::io::fcntl_dupfd_cloexec(&self.directory, 0).map_err(failed)?;
        for name in path.split('/') {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |parent: &OwnedFd| rustix::fs::openat(parent, name, flags, Permissions::empty());
            let opened = match open(&here) {
                Err(Errno::NOENT) => {
                    make_dir(&self.directory, &here, name)?;
                    open(&here)
                }
                opened => opened,
            };
            here = opened.map_err(|error| match error {
                Errno::NOTDIR | Errno::LOOP => ZoneError::BadPath,
                error => failed(error),
            })?;
        }
        Ok(())
    }

    pub fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        let Parent::Found(directory) = self.directory(path)? else { return Err(ZoneError::NotFound) };
        sync(&directory)?;
        self.removed.give_back(path, &self.directory)
    }

    pub fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        let file = self.open_file(path)?.ok_or(ZoneError::NotFound)?;
        let mode = rustix::fs::fstat(&file).map_err(failed)?.st_mode as RawMode & 0o7777;
        let wanted = if executable { mode | (mode & 0o444) >> 2 } else { mode & !EXECUTE_BITS };
        if wanted == mode {
            return Ok(());
        }
        match rustix::fs::fchmod(&file, Permissions::from_raw_mode(wanted)) {
            // FAT and its kin hold no such bit: the mount's options decide.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    pub fn free_bytes(&self) -> Result<u64, ZoneError> {
        let found = rustix::fs::fstatvfs(&self.directory).map_err(failed)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Nobody is left to be told of a directory that cannot be written.
        let _ = self.removed.give_all_back(&self.directory);
    }
}

/// The directory of a path, empty for the root.
fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// NONBLOCK: opening a pipe must not hang. It means nothing to regular files.
const PLAIN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

fn open_to_write(parent: &OwnedFd, name: &str, flags: OFlags) -> Result<File, ZoneError> {
    let flags = PLAIN | OFlags::RDWR | OFlags::CREATE | flags;
    let file = match rustix::fs::openat(parent, name, flags, Permissions::from_raw_mode(0o666)) {
        Ok(file) => file,
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(ZoneError::BadPath),
        Err(error) => return Err(failed(error)),
    };
    let found = rustix::fs::fstat(&file).map_err(failed)?;
    if kind(&found) == Kind::File { Ok(File::from(file)) } else { Err(ZoneError::BadPath) }
}

/// Opens what is only read, so that reading leaves no trace: FAT keeps the day of the last access, and its driver writes it,
/// also on a mount with `relatime`. Who does not own the file may not ask for that, and reads it all the same.
fn open_to_read<P: rustix::path::Arg + Copy>(parent: BorrowedFd<'_>, path: P, flags: OFlags) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    match rustix::fs::openat(parent, path, flags | OFlags::NOATIME, Permissions::empty()) {
        Err(Errno::PERM) => {}
        opened => return opened,
    }
    rustix::fs::openat(parent, path, flags, Permissions::empty())
}

/// Opens a directory below `root` in one call, if there is one that follows no link on the way. `None`: this system has none.
fn open_beneath(root: &OwnedFd, path: &str) -> Option<Result<OwnedFd, Errno>> {
    #[cfg(target_os = "linux")]
    if !path.is_empty() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let open = |flags| rustix::fs::openat2(root, path, flags, Permissions::empty(), resolve);
        // As in `open_to_read`.
        return Some(match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags),
            opened => opened,
        });
    }
    let _ = (root, path);
    None
}

fn stat(parent: BorrowedFd<'_>, name: &str) -> Result<Option<Stat>, ZoneError> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn unlink(parent: BorrowedFd<'_>, name: &str, flags: AtFlags) -> Result<bool, ZoneError> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn kind(found: &Stat) -> Kind {
    match FileType::from_raw_mode(found.st_mode as RawMode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

fn metadata(found: &Stat) -> Metadata {
    let kind = kind(found);
    let length = if kind == Kind::File { u64::try_from(found.st_size).unwrap_or(0) } else { 0 };
    Metadata { length, kind }
}

fn failed(error: Errno) -> ZoneError {
    std::io::Error::from(error).into()
}
