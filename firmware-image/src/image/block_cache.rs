//! A write-back cache of blocks over raw storage, with `std::io`'s traits for libraries that make a call per few bytes.
//!
//! Invariants: memory is bounded by `capacity` blocks and one run buffer; the storage sees writes in ascending order
//! within one flush, neighbouring blocks as one write; after [`BlockCache::flush_blocks`] nothing is dirty; a block
//! written whole is never read first. `std::io::Write::flush` does nothing: who needs durability calls
//! [`BlockCache::sync`].

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use crate::storage::{read_exact_at, write_all_at};
use crate::{RawZone, ZoneError};

/// The size of a block in bytes unless told otherwise.
pub const BLOCK_BYTES: usize = 4096;
/// Blocks held unless told otherwise: 8 MiB.
pub const CAPACITY_BLOCKS: usize = 2048;
/// The longest single write or read of neighbouring blocks.
const MAX_RUN_BYTES: usize = 1024 * 1024;
/// Blocks read at once when reads follow each other.
const READ_AHEAD_BLOCKS: usize = 64;

struct Slot {
    block: u64,
    /// What part of `data` is known; the rest is still only on the storage.
    known: (usize, usize),
    dirty: bool,
    /// Second-chance bit: used since the clock's hand came by.
    used: bool,
}

/// A cache of `Z`. See the module.
pub struct BlockCache<Z: RawZone> {
    inner: Z,
    length: u64,
    block_bytes: usize,
    capacity: usize,
    index: HashMap<u64, usize>,
    slots: Vec<Slot>,
    data: Vec<u8>,
    hand: usize,
    dirty: usize,
    last: Option<(u64, usize)>,
    next_sequential: u64,
    run: Vec<u8>,
    ahead: Vec<u8>,
    fault: Option<ZoneError>,
}

impl<Z: RawZone> BlockCache<Z> {
    /// A cache with the usual sizes.
    ///
    /// # Errors
    /// What the storage reports for its length.
    pub fn new(inner: Z) -> Result<Self, ZoneError> {
        Self::with_sizes(inner, BLOCK_BYTES, CAPACITY_BLOCKS)
    }

    /// A cache of `capacity` blocks of `block_bytes`, both at least 1.
    ///
    /// # Errors
    /// What the storage reports for its length.
    pub fn with_sizes(mut inner: Z, block_bytes: usize, capacity: usize) -> Result<Self, ZoneError> {
        let length = inner.len()?;
        Ok(Self {
            inner,
            length,
            block_bytes: block_bytes.max(1),
            capacity: capacity.max(1),
            index: HashMap::new(),
            slots: Vec::new(),
            data: Vec::with_capacity(capacity.max(1) * block_bytes.max(1)),
            hand: 0,
            dirty: 0,
            last: None,
            next_sequential: u64::MAX,
            run: Vec::new(),
            ahead: vec![0; READ_AHEAD_BLOCKS * block_bytes.max(1)],
            fault: None,
        })
    }

    /// The storage's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads exactly `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `OutOfBounds` past the end, else what the storage reports.
    pub fn read_at(&mut self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), ZoneError> {
        self.check(offset, buf.len())?;
        while !buf.is_empty() {
            let (block, within) = self.locate(offset);
            let take = (self.block_bytes - within).min(buf.len());
            let slot = self.slot_for_read(block, within, within + take)?;
            let start = slot * self.block_bytes + within;
            buf[..take].copy_from_slice(&self.data[start..start + take]);
            buf = &mut buf[take..];
            offset += take as u64;
        }
        Ok(())
    }

    /// Writes all of `buf` at `offset`, into the cache.
    ///
    /// # Errors
    /// `OutOfBounds` past the end, else what the storage reports when older blocks must make room.
    pub fn write_at(&mut self, mut offset: u64, mut buf: &[u8]) -> Result<(), ZoneError> {
        self.check(offset, buf.len())?;
        while !buf.is_empty() {
            let (block, within) = self.locate(offset);
            let take = (self.block_bytes - within).min(buf.len());
            let slot = self.slot_for_write(block, within, within + take)?;
            let start = slot * self.block_bytes + within;
            self.data[start..start + take].copy_from_slice(&buf[..take]);
            if !self.slots[slot].dirty {
                self.slots[slot].dirty = true;
                self.dirty += 1;
            }
            buf = &buf[take..];
            offset += take as u64;
        }
        Ok(())
    }

    /// Writes every dirty block, in ascending order. Not durable before [`BlockCache::sync`].
    ///
    /// # Errors
    /// What the storage reports; what was not written stays dirty.
    pub fn flush_blocks(&mut self) -> Result<(), ZoneError> {
        if self.dirty == 0 {
            return Ok(());
        }
        let order = (0..self.slots.len()).filter(|&slot| self.slots[slot].dirty).collect();
        self.flush_slots(order)
    }

    /// Makes every dirty block durable in turns: first those for which `phase` (given the block's bytes on the storage)
    /// says 0, and when they are durable those for which it says 1, then 2 and more.
    ///
    /// # Errors
    /// What the storage reports; what was not written stays dirty.
    pub fn sync_ordered(&mut self, phase: &dyn Fn(Range<u64>) -> u8) -> Result<(), ZoneError> {
        let size = self.block_bytes as u64;
        for turn in 0..3 {
            let of = |slot: &Slot| phase(slot.block * size..(slot.block + 1) * size).min(2);
            let order: Vec<usize> =
                (0..self.slots.len()).filter(|&slot| self.slots[slot].dirty && of(&self.slots[slot]) == turn).collect();
            if !order.is_empty() || turn == 0 {
                self.flush_slots(order)?;
                self.inner.flush()?;
            }
        }
        Ok(())
    }

    fn flush_slots(&mut self, mut order: Vec<usize>) -> Result<(), ZoneError> {
        order.sort_unstable_by_key(|&slot| self.slots[slot].block);
        let mut from = 0;
        while from < order.len() {
            let first = &self.slots[order[from]];
            let start = first.block * self.block_bytes as u64 + first.known.0 as u64;
            self.run.clear();
            let mut to = from;
            while to < order.len() && self.run.len() < MAX_RUN_BYTES {
                let slot = &self.slots[order[to]];
                let at = slot.block * self.block_bytes as u64 + slot.known.0 as u64;
                if at != start + self.run.len() as u64 {
                    break;
                }
                let base = order[to] * self.block_bytes;
                self.run.extend_from_slice(&self.data[base + slot.known.0..base + slot.known.1]);
                to += 1;
            }
            write_all_at(&mut self.inner, start, &self.run)?;
            for &slot in &order[from..to] {
                self.slots[slot].dirty = false;
                self.dirty -= 1;
            }
            from = to;
        }
        Ok(())
    }

    /// Writes every dirty block and makes all of it durable.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn sync(&mut self) -> Result<(), ZoneError> {
        self.flush_blocks()?;
        self.inner.flush()
    }

    /// Forgets every clean block and asks the storage to do the same.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.flush_blocks()?;
        self.index.clear();
        self.slots.clear();
        self.data.clear();
        self.hand = 0;
        self.last = None;
        self.next_sequential = u64::MAX;
        self.inner.drop_caches()
    }

    /// The last fault that a stream over the cache met, for libraries that pass on less than that.
    pub fn take_fault(&mut self) -> Option<ZoneError> {
        self.fault.take()
    }

    fn note(&mut self, fault: ZoneError) -> io::Error {
        self.fault = Some(fault);
        into_io(fault)
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), ZoneError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(ZoneError::OutOfBounds),
        }
    }

    fn locate(&self, offset: u64) -> (u64, usize) {
        let size = self.block_bytes as u64;
        (offset / size, (offset % size) as usize)
    }

    /// How many bytes of `block` the storage has.
    fn extent(&self, block: u64) -> usize {
        let left = self.length.saturating_sub(block * self.block_bytes as u64);
        usize::try_from(left).unwrap_or(usize::MAX).min(self.block_bytes)
    }

    fn find(&mut self, block: u64) -> Option<usize> {
        if let Some((last, slot)) = self.last
            && last == block
        {
            return Some(slot);
        }
        let slot = *self.index.get(&block)?;
        self.last = Some((block, slot));
        self.slots[slot].used = true;
        Some(slot)
    }

    fn slot_for_read(&mut self, block: u64, from: usize, to: usize) -> Result<usize, ZoneError> {
        if let Some(slot) = self.find(block) {
            let known = self.slots[slot].known;
            if known.0 > from || known.1 < to {
                self.complete(slot)?;
            }
            return Ok(slot);
        }
        let wanted = if block == self.next_sequential { READ_AHEAD_BLOCKS.min(self.capacity / 4).max(1) } else { 1 };
        let mut count = 1;
        while count < wanted
            && self.extent(block + count as u64) > 0
            && !self.index.contains_key(&(block + count as u64))
        {
            count += 1;
        }
        let bytes = (count - 1) * self.block_bytes + self.extent(block + count as u64 - 1);
        read_exact_at(&mut self.inner, block * self.block_bytes as u64, &mut self.ahead[..bytes])?;
        // Backwards, so that the block asked for is the one taken last and cannot be evicted by its successors.
        for i in (0..count).rev() {
            let slot = self.claim(block + i as u64)?;
            let (from, length) = (i * self.block_bytes, self.extent(block + i as u64));
            let base = slot * self.block_bytes;
            self.data[base..base + length].copy_from_slice(&self.ahead[from..from + length]);
            self.slots[slot].known = (0, length);
        }
        self.next_sequential = block + count as u64;
        self.find(block).ok_or(ZoneError::Io(0))
    }

    fn slot_for_write(&mut self, block: u64, from: usize, to: usize) -> Result<usize, ZoneError> {
        let slot = match self.find(block) {
            Some(slot) => slot,
            None => {
                let slot = self.claim(block)?;
                self.slots[slot].known = (from, from);
                slot
            }
        };
        let known = self.slots[slot].known;
        if from > known.1 || to < known.0 {
            // The new bytes would leave a gap: what lies between comes from the storage.
            self.complete(slot)?;
        }
        let known = &mut self.slots[slot].known;
        *known = (known.0.min(from), known.1.max(to));
        Ok(slot)
    }

    /// Reads what is not known of a block around what is.
    fn complete(&mut self, slot: usize) -> Result<(), ZoneError> {
        let (block, known, base) = (self.slots[slot].block, self.slots[slot].known, slot * self.block_bytes);
        let (start, end) = (block * self.block_bytes as u64, self.extent(block));
        if known.0 > 0 {
            read_exact_at(&mut self.inner, start, &mut self.data[base..base + known.0])?;
        }
        if known.1 < end {
            read_exact_at(&mut self.inner, start + known.1 as u64, &mut self.data[base + known.1..base + end])?;
        }
        self.slots[slot].known = (0, end);
        Ok(())
    }

    /// A slot for a block that is not held, with unknown content.
    fn claim(&mut self, block: u64) -> Result<usize, ZoneError> {
        let slot = if self.slots.len() < self.capacity {
            let slot = self.slots.len();
            self.slots.push(Slot { block, known: (0, 0), dirty: false, used: true });
            // Within the capacity: what is not used is never touched.
            self.data.resize(self.slots.len() * self.block_bytes, 0);
            slot
        } else {
            let slot = self.victim()?;
            self.index.remove(&self.slots[slot].block);
            if self.last.is_some_and(|(_, last)| last == slot) {
                self.last = None;
            }
            self.slots[slot] = Slot { block, known: (0, 0), dirty: false, used: true };
            slot
        };
        self.index.insert(block, slot);
        Ok(slot)
    }

    /// The clock's next block that is clean and was not used of late; where dirty ones are many, all are written.
    fn victim(&mut self) -> Result<usize, ZoneError> {
        if self.dirty * 4 >= self.slots.len() * 3 {
            self.flush_blocks()?;
        }
        for _ in 0..2 * self.slots.len() + 1 {
            let slot = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if self.slots[slot].dirty {
                continue;
            }
            if std::mem::take(&mut self.slots[slot].used) {
                continue;
            }
            return Ok(slot);
        }
        self.flush_blocks()?;
        let slot = self.hand;
        self.hand = (self.hand + 1) % self.slots.len();
        Ok(slot)
    }
}

impl<Z: RawZone> Drop for BlockCache<Z> {
    fn drop(&mut self) {
        // A last resort for callers that ended early by an error of their own; who needs to know calls `sync`.
        let _ = self.flush_blocks();
    }
}

/// The cache as one stream with a position of its own.
pub struct CacheStream<'c, Z: RawZone> {
    cache: &'c mut BlockCache<Z>,
    position: u64,
}

impl<'c, Z: RawZone> CacheStream<'c, Z> {
    /// A stream at position 0.
    pub fn new(cache: &'c mut BlockCache<Z>) -> Self {
        Self { cache, position: 0 }
    }
}

impl<Z: RawZone> io::Read for CacheStream<'_, Z> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.cache.length.saturating_sub(self.position);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.cache.read_at(self.position, &mut buf[..take]).map_err(|fault| self.cache.note(fault))?;
        self.position += take as u64;
        Ok(take)
    }
}

impl<Z: RawZone> io::Write for CacheStream<'_, Z> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.cache.write_at(self.position, buf).map_err(|fault| self.cache.note(fault))?;
        self.position += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<Z: RawZone> io::Seek for CacheStream<'_, Z> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.position = stream_target(to, self.position, self.cache.length)?;
        Ok(self.position)
    }
}

/// Where a `std::io` seek ends up.
pub(crate) fn stream_target(to: io::SeekFrom, position: u64, length: u64) -> io::Result<u64> {
    let target = match to {
        io::SeekFrom::Start(at) => Some(at),
        io::SeekFrom::End(by) => length.checked_add_signed(by),
        io::SeekFrom::Current(by) => position.checked_add_signed(by),
    };
    target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// A zone's fault inside a `std::io::Error`, from which [`from_io`] takes it out again.
pub(crate) fn into_io(error: ZoneError) -> io::Error {
    let kind = match error {
        ZoneError::NotFound => io::ErrorKind::NotFound,
        ZoneError::Full => io::ErrorKind::StorageFull,
        ZoneError::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
        ZoneError::Denied => io::ErrorKind::PermissionDenied,
        ZoneError::OutOfBounds => io::ErrorKind::UnexpectedEof,
        ZoneError::Corrupt => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The zone's fault that a `std::io::Error` carries, or the nearest one.
pub(crate) fn from_io(error: io::Error) -> ZoneError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ZoneError>()) {
        Some(inner) => *inner,
        None => error.into(),
    }
}
