//! A disk that remembers what it was told, so that all of it can be looked for past the cache. Clones are views of the same disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::storage::{read_exact_at, seek_target, write_all_at};
use firmware_image::{RawZone, ZoneError};

use crate::error::ToolError;

/// What is remembered as one.
const BLOCK_BYTES: u64 = 4096;

struct Inner<Z> {
    disk: Z,
    /// What blocks hold since they were written to; `None` while nothing is remembered.
    blocks: Option<BTreeMap<u64, Vec<u8>>>,
    /// The first byte that was read and was not what had been written there: what is written on from such a read looks right
    /// afterwards.
    lie: Option<u64>,
}

/// A view. See the module.
pub(super) struct Recorder<Z> {
    inner: Rc<RefCell<Inner<Z>>>,
    length: u64,
    position: u64,
}

impl<Z: RawZone> Recorder<Z> {
    /// Over this disk; remembers nothing yet.
    pub(super) fn new(mut disk: Z) -> Result<Self, ZoneError> {
        let length = disk.len()?;
        Ok(Self { inner: Rc::new(RefCell::new(Inner { disk, blocks: None, lie: None })), length, position: 0 })
    }

    /// Remembers all that is written from now on, which should be little: it is kept in memory.
    pub(super) fn record(&mut self) {
        self.inner.borrow_mut().blocks = Some(BTreeMap::new());
    }

    /// Looks for all that was written since [`Self::record`] past the cache, and forgets it.
    pub(super) fn check(&mut self, target: &Path) -> Result<(), ToolError> {
        let inner = &mut *self.inner.borrow_mut();
        let failed = || ToolError::zone("read", target.display().to_string());
        inner.disk.flush().map_err(ToolError::zone("written", target.display().to_string()))?;
        inner.disk.drop_caches().map_err(failed())?;
        let mut back = [0; BLOCK_BYTES as usize];
        let numbers: Vec<u64> = inner.blocks.iter().flat_map(BTreeMap::keys).copied().collect();
        for number in numbers {
            let at = number * BLOCK_BYTES;
            let back = &mut back[..BLOCK_BYTES.min(self.length - at) as usize];
            read_exact_at(&mut inner.disk, at, back).map_err(failed())?;
            inner.compare(at, back);
        }
        inner.blocks = None;
        inner.lie.map_or(Ok(()), |offset| Err(ToolError::ReadBack { target: target.to_owned(), offset }))
    }

    /// What really failed, where `error` may come of a device that does not keep what is written to it.
    pub(super) fn cause(&self, error: ToolError, target: &Path) -> ToolError {
        let lie = self.inner.borrow().lie;
        lie.map_or(error, |offset| ToolError::ReadBack { target: target.to_owned(), offset })
    }

    fn room(&self, wanted: usize) -> usize {
        let left = self.length.saturating_sub(self.position);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl<Z: RawZone> Inner<Z> {
    /// Compares what was read with what is remembered.
    fn compare(&mut self, at: u64, bytes: &[u8]) {
        let (Some(blocks), None) = (&self.blocks, self.lie) else { return };
        let end = at + bytes.len() as u64;
        self.lie = blocks.range(at / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)).find_map(|(number, block)| {
            let start = number * BLOCK_BYTES;
            let from = at.max(start);
            let read = &bytes[(from - at) as usize..(end.min(start + BLOCK_BYTES) - at) as usize];
            let first = read.iter().zip(&block[(from - start) as usize..]).position(|(a, b)| a != b)?;
            Some(from + first as u64)
        });
    }

    fn remember(&mut self, at: u64, bytes: &[u8], length: u64) -> Result<(), ZoneError> {
        let Some(blocks) = &mut self.blocks else { return Ok(()) };
        let end = at + bytes.len() as u64;
        for number in at / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            let start = number * BLOCK_BYTES;
            let block = match blocks.entry(number) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let mut block = vec![0; BLOCK_BYTES.min(length - start) as usize];
                    read_exact_at(&mut self.disk, start, &mut block)?;
                    entry.insert(block)
                }
            };
            let (from, to) = (at.max(start), end.min(start + BLOCK_BYTES));
            block[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
        }
        Ok(())
    }
}

impl<Z> Clone for Recorder<Z> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner), length: self.length, position: 0 }
    }
}

impl<Z> ErrorType for Recorder<Z> {
    type Error = ZoneError;
}

impl<Z: RawZone> Read for Recorder<Z> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let take = self.room(buf.len());
        let mut inner = self.inner.borrow_mut();
        read_exact_at(&mut inner.disk, self.position, &mut buf[..take])?;
        inner.compare(self.position, &buf[..take]);
        self.position += take as u64;
        Ok(take)
    }
}

impl<Z: RawZone> Write for Recorder<Z> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let take = self.room(buf.len());
        if take == 0 {
            return if buf.is_empty() { Ok(0) } else { Err(ZoneError::OutOfBounds) };
        }
        let mut inner = self.inner.borrow_mut();
        inner.remember(self.position, &buf[..take], self.length)?;
        write_all_at(&mut inner.disk, self.position, &buf[..take])?;
        self.position += take as u64;
        Ok(take)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        self.inner.borrow_mut().disk.flush()
    }
}

impl<Z: RawZone> Seek for Recorder<Z> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}

impl<Z: RawZone> RawZone for Recorder<Z> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.length)
    }

    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.inner.borrow_mut().disk.drop_caches()
    }
}
