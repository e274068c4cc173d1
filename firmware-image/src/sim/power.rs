//! Files and raw zones that lose power at the n-th change, over a body whose own writes nobody sees: a mounted directory.
//!
//! A change is what may have happened or not when the power is gone: a piece written, a flush, a new name, a removal, another length,
//! room taken for a file. What is two changes on FAT is two here: a file that is made anew loses its content first, a
//! rename removes its target first. A write that is cut has arrived by half.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use crate::free_zone::{FreeZone, Metadata, ZoneFile};
use crate::{RawZone, ZoneError};

/// What is said once the power is gone: Linux' `EIO`.
const DEAD: ZoneError = ZoneError::Io(5);

/// What power is left.
#[derive(Debug, Clone)]
pub struct Power(Rc<Supply>);

#[derive(Debug)]
struct Supply {
    changes: Cell<u64>,
    comes_back: bool,
}

impl Power {
    /// Power that ends in the middle of the last of `changes` changes.
    pub fn for_changes(changes: u64) -> Self {
        Self(Rc::new(Supply { changes: Cell::new(changes), comes_back: false }))
    }

    /// Power with which the last of `changes` changes fails, and everything works again afterwards.
    pub fn failing_at(changes: u64) -> Self {
        Self(Rc::new(Supply { changes: Cell::new(changes), comes_back: true }))
    }

    /// Power that does not end.
    pub fn endless() -> Self {
        Self::for_changes(u64::MAX)
    }

    /// Changes made under endless power.
    pub fn used(&self) -> u64 {
        u64::MAX - self.0.changes.get()
    }

    /// Whether it is gone.
    pub fn is_out(&self) -> bool {
        self.0.changes.get() == 0
    }

    fn alive(&self) -> Result<(), ZoneError> {
        if self.is_out() { Err(DEAD) } else { Ok(()) }
    }

    /// Takes power for a change; `false`: it ends in the middle of this one.
    fn change(&self) -> Result<bool, ZoneError> {
        self.alive()?;
        self.0.changes.set(self.0.changes.get() - 1);
        let out = self.is_out();
        if out && self.0.comes_back {
            self.0.changes.set(u64::MAX);
        }
        Ok(!out)
    }

    /// Makes a change that is done whole or not at all.
    fn whole<R>(&self, change: impl FnOnce() -> Result<R, ZoneError>) -> Result<R, ZoneError> {
        if self.change()? { change() } else { Err(DEAD) }
    }

    fn look<R>(&self, look: impl FnOnce() -> Result<R, ZoneError>) -> Result<R, ZoneError> {
        self.alive()?;
        look()
    }
}

/// A free zone that loses power. See the module.
pub struct CutZone<'z, F>(pub &'z F, pub Power);

/// A file of it, or a raw zone, that does.
pub struct Cut<T>(pub T, pub Power);

impl<F: FreeZone> FreeZone for CutZone<'_, F> {
    type File<'a>
        = Cut<F::File<'a>>
    where
        Self: 'a;

    fn open(&self, path: &str) -> Result<Option<Self::File<'_>>, ZoneError> {
        Ok(self.1.look(|| self.0.open(path))?.map(|file| Cut(file, self.1.clone())))
    }
    fn open_rw(&self, path: &str) -> Result<Self::File<'_>, ZoneError> {
        Ok(Cut(self.1.whole(|| self.0.open_rw(path))?, self.1.clone()))
    }
    fn create(&self, path: &str) -> Result<Self::File<'_>, ZoneError> {
        if self.metadata(path)?.is_some() {
            self.1.whole(|| self.0.remove(path))?;
        }
        Ok(Cut(self.1.whole(|| self.0.create(path))?, self.1.clone()))
    }
    fn reserve_all<'z: 'f, 'f>(
        &'z self,
        files: &mut dyn Iterator<Item = (&'f mut Self::File<'z>, u64)>,
    ) -> Result<(), ZoneError>
    where
        Self::File<'z>: 'f,
    {
        // A change for each file: those before a cut have their room, those after it have none.
        let mut power = self.1.alive();
        self.0.reserve_all(&mut files.map_while(|(file, length)| {
            power = self.1.whole(|| Ok(()));
            power.is_ok().then_some((&mut file.0, length))
        }))?;
        power
    }
    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        self.1.look(|| self.0.metadata(path))
    }
    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        self.1.look(|| self.0.list(path, visit))
    }
    fn spells_exactly(&self) -> bool {
        self.0.spells_exactly()
    }
    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        self.1.whole(|| self.0.remove(path))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        if self.metadata(to)?.is_some() {
            self.1.whole(|| self.0.remove(to))?;
        }
        self.1.whole(|| self.0.rename(from, to))
    }
    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.create_dir_all(path))
    }
    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.sync_dir(path))
    }
    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.set_executable(path, executable))
    }
    fn free_bytes(&self) -> Result<u64, ZoneError> {
        self.1.look(|| self.0.free_bytes())
    }
}

impl<T> ErrorType for Cut<T> {
    type Error = ZoneError;
}

impl<T: Read<Error = ZoneError>> Read for Cut<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        self.1.look(|| self.0.read(buf))
    }
}

impl<T: Write<Error = ZoneError>> Write for Cut<T> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        if !self.1.change()? {
            self.0.write(&buf[..buf.len() / 2])?;
            return Err(DEAD);
        }
        self.0.write(buf)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.flush())
    }
}

impl<T: Seek<Error = ZoneError>> Seek for Cut<T> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.1.look(|| self.0.seek(to))
    }
}

impl<T: ZoneFile> ZoneFile for Cut<T> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        self.1.look(|| ZoneFile::len(&mut self.0))
    }
    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.set_len(length))
    }
    fn reserve(&mut self, length: u64) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.reserve(length))
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.1.look(|| self.0.drop_caches())
    }
}

impl<T: RawZone> RawZone for Cut<T> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        self.1.look(|| RawZone::len(&mut self.0))
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.1.look(|| self.0.drop_caches())
    }
    fn erase(&mut self, range: Range<u64>) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.erase(range))
    }
}
