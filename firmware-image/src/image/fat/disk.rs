//! What `fatfs` reads and writes: the shared cache, with a guard before the table.
//!
//! `fatfs` computes with any number that a table holds. A number that is no cluster of the volume is therefore read as the
//! end of a chain, so that none of its arithmetic can overflow and its explicit panic (`Fat32::set` of a
//! reserved cluster number) cannot be reached. It is no error: whoever looks for a free cluster reads what is not its own.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::walk::Link;
use crate::RawZone;
use crate::boot_sector::{FIRST_CLUSTER, Geometry};
use crate::image::block_cache::{BlockCache, into_io, stream_target};

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

    /// What the bytes read at the position say of a cluster, if they are one entry of the table that is not about a reserved number.
    fn link(&self, read: &[u8]) -> Option<Link> {
        let (start, entry_bytes) = (self.geometry.fat_start, self.geometry.entry_bytes());
        let first = start + u64::from(FIRST_CLUSTER) * entry_bytes;
        let is_entry =
            read.len() as u64 == entry_bytes && (first..start + self.geometry.fat_bytes).contains(&self.position);
        is_entry.then(|| Link::parse(read))
    }
}

impl<Z: RawZone> io::Read for Disk<Z> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut cache = self.cache.borrow_mut();
        let left = cache.length().saturating_sub(self.position);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        cache.read_at(self.position, &mut buf[..take]).map_err(into_io)?;
        drop(cache);
        if let Some(Link::Next(next)) = self.link(&buf[..take])
            && !self.geometry.holds(next)
        {
            Link::end(&mut buf[..take]);
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
