//! The order of writes that a mounted FAT volume survives.
//!
//! Linux' driver writes three things for a file, each when it likes: the entry in the directory, where the file begins (with
//! the file), and the table of clusters. A cut that leaves an entry over clusters that the table calls free breaks the
//! device in silence: a file's last cluster is read without a look at the table, so that the file seems sound until another
//! one is given its clusters. So here
//!
//! - a file that goes keeps its clusters until the entry without it is on the medium: it is held open meanwhile
//!   ([`Removed`]), and clusters of an open file are not given back;
//! - a file that comes has its clusters first ([`Written::reserve`]), and is flushed after the table ([`Written::flush`]).
//!
//! `fsync` of a directory writes its entries, then the table, and not the files in it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::prelude::v1::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Mode as Permissions;
#[cfg(target_os = "linux")]
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::failed;
use crate::ZoneError;

/// So many removed files are held at most before their directories are written.
const MAX_HELD: usize = 64;

/// A file open to be written, and the directory that is written before it.
pub struct Written {
    parent: OwnedFd,
    /// For a file of so many bytes the table of clusters is on the medium.
    covered: u64,
    /// What stood there before, whose entry may still be on the medium.
    replaced: Option<OwnedFd>,
}

impl Written {
    /// A file of `covered` bytes in `parent`, in place of `replaced`.
    pub fn new(parent: OwnedFd, covered: u64, replaced: Option<OwnedFd>) -> Self {
        Self { parent, covered, replaced }
    }

    /// The file's directory.
    pub fn parent(&self) -> &OwnedFd {
        &self.parent
    }

    /// Takes clusters and writes the table, before the driver writes an entry that leads to them. It does that when it likes,
    /// with a long file while it is being written.
    pub fn reserve(&mut self, file: &File, length: u64) -> Result<(), ZoneError> {
        let mut taken = self.take(file, length);
        if taken == Err(ZoneError::Full) && self.give_way()? {
            taken = self.take(file, length);
        }
        if taken? { self.cover(length) } else { Ok(()) }
    }

    /// As [`Written::reserve`] for several files, whose directories are written once for all of them. The entries in them lead
    /// nowhere yet: where a file begins is written with the file.
    pub fn reserve_all<'f>(files: &mut dyn Iterator<Item = (&'f mut Self, &'f File, u64)>) -> Result<(), ZoneError> {
        let mut taken: Vec<(&mut Self, u64)> = Vec::new();
        for (written, file, length) in files {
            let mut took = written.take(file, length);
            if took == Err(ZoneError::Full) {
                // What those in front replace gives way as well.
                Self::cover_all(&mut taken)?;
                written.give_way()?;
                took = written.take(file, length);
            }
            if took? {
                taken.push((written, length));
            }
        }
        Self::cover_all(&mut taken)
    }

    /// Takes clusters; `false`: there are enough, or this file system takes none beforehand.
    fn take(&self, file: &File, length: u64) -> Result<bool, ZoneError> {
        #[cfg(target_os = "linux")]
        if length > self.covered {
            return match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
                Ok(()) => Ok(true),
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => {
                    // The driver keeps what it could take; cut to its own length the file gives that back.
                    let _ = file.metadata().and_then(|found| file.set_len(found.len()));
                    Err(failed(error))
                }
                // Not with this file system: then its own ways have to do.
                Err(_) => Ok(false),
            };
        }
        let _ = (file, length);
        Ok(false)
    }

    fn cover_all(taken: &mut Vec<(&mut Self, u64)>) -> Result<(), ZoneError> {
        let mut written: Vec<(u64, u64)> = Vec::new();
        for (file, length) in taken.drain(..) {
            let found = rustix::fs::fstat(&file.parent).map_err(failed)?;
            let directory = (found.st_dev, found.st_ino);
            if written.contains(&directory) {
                file.covered_by_its_directory(length);
            } else {
                file.cover(length)?;
                written.push(directory);
            }
        }
        Ok(())
    }

    /// Gives back what stood there before, for want of room; `false`: there is nothing to give.
    pub fn give_way(&mut self) -> Result<bool, ZoneError> {
        if self.replaced.is_none() {
            return Ok(false);
        }
        sync(&self.parent)?;
        self.replaced = None;
        Ok(true)
    }

    /// Makes the file durable.
    pub fn flush(&mut self, file: &File) -> Result<(), ZoneError> {
        let length = file.metadata()?.len();
        if length > self.covered || self.replaced.is_some() {
            self.cover(length)?;
        }
        Ok(file.sync_all()?)
    }

    fn cover(&mut self, length: u64) -> Result<(), ZoneError> {
        sync(&self.parent)?;
        self.covered_by_its_directory(length);
        Ok(())
    }

    /// The directory was written, and the table with it.
    fn covered_by_its_directory(&mut self, length: u64) {
        self.covered = self.covered.max(length);
        self.replaced = None;
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // Never flushed: nobody relies on it, and nobody is left to be told.
        let _ = self.give_way();
    }
}

/// Files that were removed, until their directories were written.
#[derive(Default)]
pub struct Removed(Mutex<Vec<Held>>);

/// A file that was removed, with the directory whose entry for it may still be on the medium.
struct Held {
    parent: OwnedFd,
    directory: String,
    /// Dropped when `parent` was written: then its clusters are free.
    _file: Option<OwnedFd>,
}

impl Removed {
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a removed file of `directory`; where there are many, their directories are written.
    pub fn add(
        &self,
        parent: OwnedFd,
        directory: &str,
        file: Option<OwnedFd>,
        root: &OwnedFd,
    ) -> Result<(), ZoneError> {
        let many = {
            let mut held = self.held();
            held.push(Held { parent, directory: directory.to_owned(), _file: file });
            held.len() >= MAX_HELD
        };
        if many { self.give_all_back(root) } else { Ok(()) }
    }

    /// Gives back the clusters of files in `directory`, which was written.
    pub fn give_back(&self, directory: &str, root: &OwnedFd) -> Result<(), ZoneError> {
        let before = self.held().len();
        self.held().retain(|held| held.directory != directory);
        // The table, so that the room is there after a cut as well.
        if self.held().len() < before { sync(root) } else { Ok(()) }
    }

    /// Writes the directories of all of them, and gives their clusters back but where that fails.
    pub fn give_all_back(&self, root: &OwnedFd) -> Result<(), ZoneError> {
        let all = std::mem::take(&mut *self.held());
        let (mut done, mut faulty): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut result = Ok(());
        for held in &all {
            if done.contains(&held.directory) || faulty.contains(&held.directory) {
                continue;
            }
            match sync(&held.parent) {
                Ok(()) => done.push(held.directory.clone()),
                Err(error) => {
                    faulty.push(held.directory.clone());
                    result = result.and(Err(error));
                }
            }
        }
        self.held().extend(all.into_iter().filter(|held| faulty.contains(&held.directory)));
        if done.is_empty() { result } else { result.and(sync(root)) }
    }
}

/// Keeps what stands at a name from being given up when the name is. `None`: nothing stands there, or this system has no
/// such handle.
pub fn hold(parent: &OwnedFd, name: &str) -> Option<OwnedFd> {
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

/// Makes a directory. The driver writes a directory's blocks in the order in which they were changed, so the parent is
/// written before: then the new directory's first block comes before the entry that leads to it. The table comes between,
/// with a directory in which nothing changed; in the zone's root itself it comes last.
pub fn make_dir(root: &OwnedFd, parent: &OwnedFd, name: &str) -> Result<(), ZoneError> {
    sync(parent)?;
    match rustix::fs::mkdirat(parent, name, Permissions::from_raw_mode(0o777)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    sync(root)?;
    sync(parent)
}

/// Makes a file or directory durable.
pub fn sync(file: &OwnedFd) -> Result<(), ZoneError> {
    match rustix::fs::fsync(file) {
        // Some drivers keep no directory of their own to write out.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
