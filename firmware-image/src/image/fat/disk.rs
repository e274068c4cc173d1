//! What `fatfs` reads and writes: the shared cache, with a guard before the table.
//!
//! `fatfs` computes with any number that a table holds. A number that is no cluster of the volume is therefore an error
//! already when it is read, so that none of its arithmetic can overflow and its explicit panic (`Fat32::set` of a
//! reserved cluster number) cannot be reached.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::boot_sector::Geometry;
use crate::image::block_cache::{BlockCache, into_io, stream_target};
use crate::{RawZone, ZoneError};

/// A stream over the volume. See the module.
pub(crate) struct Disk<Z: RawZone> {
    pub cache: Rc<RefCell<BlockCache<Z>>>,
    pub geometry: Rc<Geometry>,
    position: u64,
}

impl<Z: RawZone> Disk<Z> {
    pub fn new(cache: Rc<RefCell<BlockCache<Z>>>, geometry: Rc<Geometry>) -> Self {
        Self { cache, geometry, position: 0 }
    }

    /// Whether four bytes read at the position are one entry of the table that is not about a reserved number.
    fn reads_link(&self, length: usize) -> bool {
        let start = self.geometry.fat_start;
        length == 4 && self.position >= start + 8 && self.position < start + self.geometry.fat_bytes
    }
}

impl<Z: RawZone> io::Read for Disk<Z> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut cache = self.cache.borrow_mut();
        let left = cache.length().saturating_sub(self.position);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        cache.read_at(self.position, &mut buf[..take]).map_err(into_io)?;
        drop(cache);
        if self.reads_link(take) {
            let value = u32::from_le_bytes([buf[0], buf[1], buf[2], buf[3]]) & 0x0FFF_FFFF;
            if value != 0 && value < 0x0FFF_FFF7 && !self.geometry.holds(value) {
                return Err(into_io(ZoneError::Corrupt));
            }
        }
        self.position += take as u64;
        Ok(take)
    }
}

impl<Z: RawZone> io::Write for Disk<Z> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.cache.borrow_mut().write_at(self.position, buf).map_err(into_io)?;
        self.position += buf.len() as u64;
        Ok(buf.len())
    }

    /// Nothing: `fatfs` calls it wherever a file is dropped. Durability is the zone's business.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<Z: RawZone> io::Seek for Disk<Z> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let length = self.cache.borrow().length();
        self.position = stream_target(to, self.position, length)?;
        Ok(self.position)
    }
}
