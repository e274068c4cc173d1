//! Directory operations by handles: every component is opened from its parent, never through a link.
//!
//! And in an order that a FAT volume survives. Linux' driver writes three things for a file, each when it likes: the entry
//! in the directory, where the file begins (with the file), and the table of clusters. A cut that leaves an entry over
//! clusters that the table calls free breaks the device in silence: a file's last cluster is read without a look at the
//! table, so that the file seems sound until another one is given its clusters. So here
//!
//! - a file that goes keeps its clusters until the entry without it is on the medium: it is held open meanwhile
//!   ([`Held`]), and clusters of an open file are not given back;
//! - a file that comes has its clusters first ([`Written::reserve`]), and is flushed after the table ([`Written::flush`]);
//! - a file that moves is flushed after both directories: until then what it replaces stands, with its clusters.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode as Permissions, OFlags, RawMode, Stat};
use rustix::io::Errno;

use crate::ZoneError;
use crate::free_zone::{Kind, Metadata};

/// The bits that `chmod +x` sets.
const EXECUTE_BITS: RawMode = 0o111;

/// So many removed files are held at most before their directories are written.
const MAX_HELD: usize = 64;

/// The zone's directory, held open.
pub struct Root {
    directory: OwnedFd,
    removed: Mutex<Vec<Held>>,
}

/// A file that was removed, with the directory whose entry for it may still be on the medium.
struct Held {
    parent: OwnedFd,
    directory: String,
    /// Dropped when `parent` was written: then its clusters are free.
    _file: Option<OwnedFd>,
}

/// A file open to be written, and the directory that is written before it.
pub struct Written {
    parent: OwnedFd,
    /// For a file of so many bytes the table of clusters is on the medium.
    covered: u64,
}

impl Written {
    /// Takes clusters and writes the table, before the driver writes an entry that leads to them. It does that when it likes,
    /// with a long file while it is being written.
    pub fn reserve(&mut self, file: &File, length: u64) -> Result<(), ZoneError> {
        if length <= self.covered {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length) {
            Ok(()) => self.cover(length)?,
            // Not with this file system: then its own ways have to do.
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(failed(error)),
        }
        #[cfg(not(target_os = "linux"))]
        let _ = file;
        Ok(())
    }

    /// Makes the file durable.
    pub fn flush(&mut self, file: &File) -> Result<(), ZoneError> {
        let length = file.metadata()?.len();
        if length > self.covered {
            self.cover(length)?;
        }
        Ok(file.sync_all()?)
    }

    /// Whatever is flushed, the driver writes the table with it; and the file itself not with its directory.
    fn cover(&mut self, length: u64) -> Result<(), ZoneError> {
        sync(&self.parent)?;
        self.covered = length;
        Ok(())
    }
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
        Ok(Self { directory, removed: Mutex::default() })
    }

    /// The directory at `path`, empty for the root.
    fn directory(&self, path: &str) -> Result<Parent, ZoneError> {
        let mut here = self.directory.try_clone()?;
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
        Ok((file, Written { parent, covered: length }))
    }

    /// Makes an empty file. One that was there is gone before that, durably.
    pub fn create(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let (parent, name) = self.parent(path)?.ok_or(ZoneError::BadPath)?;
        match stat(parent.as_fd(), name)? {
            Some(found) if kind(&found) == Kind::Directory => return Err(ZoneError::BadPath),
            Some(_) => {
                let held = hold(&parent, name);
                unlink(parent.as_fd(), name, AtFlags::empty())?;
                sync(&parent)?;
                drop(held);
            }
            None => {}
        }
        let file = open_to_write(&parent, name, OFlags::EXCL)?;
        Ok((file, Written { parent, covered: 0 }))
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
                Ok(name) => match stat(directory.as_fd(), name)? {
                    Some(found) => visit(name, metadata(&found)),
                    None => ControlFlow::Continue(()),
                },
                // Shown, but no path of this trait can name it.
                Err(_) => visit(&String::from_utf8_lossy(raw), Metadata { length: 0, kind: Kind::Other }),
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
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
                let held = Held { parent, directory, _file: held };
                let many = {
                    let mut removed = self.removed();
                    removed.push(held);
                    removed.len() >= MAX_HELD
                };
                if many {
                    self.write_all_removed()?;
                }
                Ok(removed)
            }
        }
    }

    fn removed(&self) -> MutexGuard<'_, Vec<Held>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the directories of all removed files, and gives their clusters back.
    fn write_all_removed(&self) -> Result<(), ZoneError> {
        let held = std::mem::take(&mut *self.removed());
        let mut written: Vec<&str> = Vec::new();
        for Held { parent, directory, .. } in &held {
            if !written.contains(&directory.as_str()) {
                sync(parent)?;
                written.push(directory);
            }
        }
        Ok(())
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        let (from_parent, from_name) = self.parent(from)?.ok_or(ZoneError::NotFound)?;
        let (to_parent, to_name) = self.parent(to)?.ok_or(ZoneError::BadPath)?;
        let replaced = hold(&to_parent, to_name);
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name).map_err(failed)?;
        sync(&from_parent)?;
        sync(&to_parent)?;
        // The driver writes where a file begins with the file, also after it has moved.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match open_to_read(to_parent.as_fd(), to_name, flags) {
            Ok(moved) => sync(&moved)?,
            // What may not be read, or is a link, is nothing of ours.
            Err(Errno::ACCESS | Errno::LOOP | Errno::NXIO) => {}
            Err(error) => return Err(failed(error)),
        }
        drop(replaced);
        Ok(())
    }

    pub fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        let mut here = self.directory.try_clone()?;
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
        self.removed().retain(|held| held.directory != path);
        Ok(())
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
        let _ = self.write_all_removed();
    }
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

/// Keeps what stands at a name from being given up when the name is. `None`: nothing stands there, or this system has no
/// such handle.
fn hold(parent: &OwnedFd, name: &str) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Permissions::empty()).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (parent, name);
        None
    }
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

/// Makes a directory. The driver writes a directory's blocks in the order in which they were changed, so the parent is
/// written before: then the new directory's first block comes before the entry that leads to it. The table comes between,
/// with a directory in which nothing changed; in the zone's root itself it comes last.
fn make_dir(root: &OwnedFd, parent: &OwnedFd, name: &str) -> Result<(), ZoneError> {
    sync(parent)?;
    match rustix::fs::mkdirat(parent, name, Permissions::from_raw_mode(0o777)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    sync(root)?;
    sync(parent)
}

fn sync(file: &OwnedFd) -> Result<(), ZoneError> {
    match rustix::fs::fsync(file) {
        // Some drivers keep no directory of their own to write out.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(failed(error)),
    }
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
