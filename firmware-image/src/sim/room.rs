//! A free zone whose room is gone at the n-th change, as if somebody else had filled it.
//!
//! A change is what takes room: a new entry, a reservation, what is written behind a file's end and was not reserved.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use crate::ZoneError;
use crate::free_zone::{FreeZone, Metadata, ZoneFile};
use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

/// What room there is.
#[derive(Debug)]
pub struct Room {
    /// Changes until the zone is full.
    changes: Cell<u64>,
    /// Bytes that can be taken once it is.
    free: Cell<u64>,
    /// Whether somebody else takes at once what is given back.
    greedy: bool,
    /// A file for which the medium has no sound place.
    bad: Option<&'static str>,
    /// A file that nobody may read until it is made anew.
    forbidden: Cell<Option<&'static str>>,
}

impl Room {
    /// Room for `changes` changes, and then for nothing but what is given back; where others are `greedy`, not even for
    /// that.
    pub fn for_changes(changes: u64, greedy: bool) -> Rc<Self> {
        Rc::new(Self { changes: Cell::new(changes), free: Cell::new(0), greedy, bad: None, forbidden: Cell::new(None) })
    }

    /// Room that does not end, and what was used of it.
    pub fn endless() -> Rc<Self> {
        Self::for_changes(u64::MAX, false)
    }

    /// Room that does not end, but none for the file at this path, which fails whenever it is written.
    pub fn without_a_place_for(path: &'static str) -> Rc<Self> {
        Rc::new(Self {
            changes: Cell::new(u64::MAX),
            free: Cell::new(0),
            greedy: false,
            bad: Some(path),
            forbidden: Cell::new(None),
        })
    }

    /// Lets nobody read the file at this path until it is made anew, as scanners do with what they take for infected.
    pub fn forbid(&self, path: &'static str) {
        self.forbidden.set(Some(path));
    }

    fn is_bad(&self, path: &str) -> Result<(), ZoneError> {
        if self.bad == Some(path) { Err(ZoneError::Io(5)) } else { Ok(()) }
    }

    /// Changes made in endless room.
    pub fn used(&self) -> u64 {
        u64::MAX - self.changes.get()
    }

    /// Whether there is none left but what was given back.
    pub fn is_full(&self) -> bool {
        self.changes.get() == 0
    }

    /// Takes the room of a change, `bytes`; how much of it there is.
    fn take(&self, bytes: u64) -> u64 {
        if !self.is_full() {
            self.changes.set(self.changes.get() - 1);
            return bytes;
        }
        let taken = bytes.min(self.free.get());
        self.free.set(self.free.get() - taken);
        taken
    }

    fn give_back(&self, bytes: u64) {
        if self.is_full() && !self.greedy {
            self.free.set(self.free.get() + bytes);
        }
    }

    /// Takes the room of a new entry.
    fn entry(&self) -> Result<(), ZoneError> {
        if self.take(1) == 1 { Ok(()) } else { Err(ZoneError::Full) }
    }
}

/// A free zone that becomes full. See the module.
pub struct FullZone<'z, F>(pub &'z F, pub Rc<Room>);

/// A file of it.
pub struct FullFile<T> {
    file: T,
    room: Rc<Room>,
    /// Where it is read or written next.
    position: u64,
    /// Room behind its end that was taken for it and is not used yet.
    reserved: u64,
}

impl<F: FreeZone> FullZone<'_, F> {
    fn file<T: ZoneFile>(&self, file: T) -> FullFile<T> {
        FullFile { file, room: self.1.clone(), position: 0, reserved: 0 }
    }
    fn length(&self, path: &str) -> Result<Option<u64>, ZoneError> {
        Ok(self.0.metadata(path)?.map(|found| found.length))
    }
}

impl<F: FreeZone> FreeZone for FullZone<'_, F> {
    type File<'a>
        = FullFile<F::File<'a>>
    where
        Self: 'a;

    fn open(&self, path: &str) -> Result<Option<Self::File<'_>>, ZoneError> {
        if self.1.forbidden.get() == Some(path) {
            return Err(ZoneError::Denied);
        }
        Ok(self.0.open(path)?.map(|file| self.file(file)))
    }
    fn open_rw(&self, path: &str) -> Result<Self::File<'_>, ZoneError> {
        if self.length(path)?.is_none() {
            self.1.entry()?;
        }
        Ok(self.file(self.0.open_rw(path)?))
    }
    fn create(&self, path: &str) -> Result<Self::File<'_>, ZoneError> {
        self.1.is_bad(path)?;
        self.1.forbidden.set(self.1.forbidden.get().filter(|forbidden| *forbidden != path));
        match self.length(path)? {
            Some(length) => self.1.give_back(length),
            None => self.1.entry()?,
        }
        Ok(self.file(self.0.create(path)?))
    }
    fn reserve_all<'f: 'h, 'h>(
        &'f self,
        files: &mut dyn Iterator<Item = (&'h mut Self::File<'f>, u64)>,
    ) -> Result<(), ZoneError>
    where
        Self::File<'f>: 'h,
    {
        // Those before the one for which there is no room have theirs.
        let mut taken = Ok(());
        self.0.reserve_all(&mut files.map_while(|(file, length)| {
            taken = file.take(length);
            taken.is_ok().then_some((&mut file.file, length))
        }))?;
        taken
    }
    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        self.0.metadata(path)
    }
    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        self.0.list(path, visit)
    }
    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        self.1.give_back(self.length(path)?.unwrap_or(0));
        self.0.remove(path)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        self.1.is_bad(to)?;
        self.1.give_back(self.length(to)?.unwrap_or(0));
        self.0.rename(from, to)
    }
    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        if self.0.metadata(path)?.is_none() {
            self.1.entry()?;
        }
        self.0.create_dir_all(path)
    }
    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        self.0.sync_dir(path)
    }
    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        self.0.set_executable(path, executable)
    }
    fn free_bytes(&self) -> Result<u64, ZoneError> {
        if self.1.is_full() { Ok(self.1.free.get()) } else { self.0.free_bytes() }
    }
}

impl<T: ZoneFile> FullFile<T> {
    /// Takes the room that a file of `length` bytes needs beside what it has.
    fn take(&mut self, length: u64) -> Result<(), ZoneError> {
        let needed = length.saturating_sub(ZoneFile::len(&mut self.file)? + self.reserved);
        if needed == 0 {
            return Ok(());
        }
        let taken = self.room.take(needed);
        if taken < needed {
            self.room.give_back(taken);
            return Err(ZoneError::Full);
        }
        self.reserved += taken;
        Ok(())
    }
}

impl<T> Drop for FullFile<T> {
    /// What was not used is nobody's any more.
    fn drop(&mut self) {
        self.room.give_back(self.reserved);
    }
}

impl<T> ErrorType for FullFile<T> {
    type Error = ZoneError;
}

impl<T: ZoneFile> Read for FullFile<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let n = self.file.read(buf)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl<T: ZoneFile> Write for FullFile<T> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        // What stands already is overwritten without taking room, and what was reserved is there.
        let bytes = buf.len() as u64;
        let inside = ZoneFile::len(&mut self.file)?.saturating_sub(self.position).min(bytes);
        let reserved = self.reserved.min(bytes - inside);
        let wanted = bytes - inside - reserved;
        let room = inside + reserved + if wanted > 0 { self.room.take(wanted) } else { 0 };
        if room == 0 && !buf.is_empty() {
            return Err(ZoneError::Full);
        }
        let n = self.file.write(&buf[..room as usize])?;
        self.reserved -= reserved;
        self.position += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        self.file.flush()
    }
}

impl<T: ZoneFile> Seek for FullFile<T> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

impl<T: ZoneFile> ZoneFile for FullFile<T> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        ZoneFile::len(&mut self.file)
    }
    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        let now = ZoneFile::len(&mut self.file)?;
        self.take(length)?;
        self.file.set_len(length)?;
        // What was reserved behind the new end is given back, too.
        self.room.give_back((now + std::mem::take(&mut self.reserved)).saturating_sub(length));
        Ok(())
    }
    fn reserve(&mut self, length: u64) -> Result<(), ZoneError> {
        self.take(length)?;
        self.file.reserve(length)
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.file.drop_caches()
    }
}
