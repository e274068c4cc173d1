//! A simulated disk: strict, recording, faulty on demand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use super::medium::Medium;
use super::recording::{Op, Recording};
use crate::storage::seek_target;
use crate::{RawZone, ZoneError};

/// What wears out as one, in bytes.
const SECTOR_BYTES: u64 = 512;
/// What a disk says that is gone or will not: Linux' `EIO`.
const FAILED: ZoneError = ZoneError::Io(5);

/// What is wrong with a disk. Writes and reads are counted from 0 since the faults were set.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Power fails at this write, of which so many bytes still arrive; nothing works afterwards.
    pub cut: Option<(usize, usize)>,
    /// These writes fail, and leave the medium as it was.
    pub failing_writes: Range<usize>,
    /// These reads fail.
    pub failing_reads: Range<usize>,
    /// These reads give bit 0 of the byte in their middle wrongly.
    pub lying_reads: Range<usize>,
    /// From this read on, all fail that touch what it asked for.
    pub bad_from: Option<usize>,
    /// From this write on, all are refused.
    pub read_only_from: Option<usize>,
    /// Each sector takes so many writes, and then no more.
    pub endurance: Option<u32>,
    /// Of each write that is longer, the bit 0 of this byte is kept wrongly.
    pub lying_at: Option<usize>,
}

struct Inner {
    medium: Medium,
    faults: Faults,
    writes: usize,
    reads: usize,
    /// Bytes that went bad: [`Faults::bad_from`].
    bad: Range<u64>,
    dead: bool,
    worn: HashMap<u64, u32>,
    before: Medium,
    ops: Vec<Op>,
}

/// A view of a disk, with a position of its own; clones are views of the same disk. See the module.
#[derive(Clone)]
pub struct SimDisk {
    inner: Rc<RefCell<Inner>>,
    length: u64,
    position: u64,
    writable: bool,
}

impl SimDisk {
    /// A sound disk on which this stands.
    pub fn new(medium: Medium) -> Self {
        let length = medium.length();
        let (faults, ops, worn) = (Faults::default(), Vec::new(), HashMap::new());
        let inner =
            Inner { before: medium.clone(), medium, faults, writes: 0, reads: 0, bad: 0..0, dead: false, worn, ops };
        Self { inner: Rc::new(RefCell::new(inner)), length, position: 0, writable: true }
    }

    /// The same with these faults.
    pub fn faulty(medium: Medium, faults: Faults) -> Self {
        let disk = Self::new(medium);
        disk.inner.borrow_mut().faults = faults;
        disk
    }

    /// A view through which a write is misuse, and panics.
    pub fn for_reading(&self) -> Self {
        Self { position: 0, writable: false, ..self.clone() }
    }

    /// What stands on it, whatever was flushed.
    pub fn medium(&self) -> Medium {
        self.inner.borrow().medium.clone()
    }

    /// Writes that it was told, those that failed included.
    pub fn writes(&self) -> usize {
        self.inner.borrow().writes
    }

    /// Reads that it was asked for, those that failed included.
    pub fn reads(&self) -> usize {
        self.inner.borrow().reads
    }

    /// What it was told since it was made or last asked.
    pub fn recording(&self) -> Recording {
        let mut inner = self.inner.borrow_mut();
        let after = inner.medium.clone();
        let before = std::mem::replace(&mut inner.before, after);
        Recording::new(before, std::mem::take(&mut inner.ops))
    }

    fn room(&self, wanted: usize) -> usize {
        assert!(self.position <= self.length, "byte {} of a disk of {}", self.position, self.length);
        usize::try_from(self.length - self.position).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Inner {
    fn alive(&self) -> Result<(), ZoneError> {
        if self.dead { Err(FAILED) } else { Ok(()) }
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        self.medium.write(at, bytes);
        self.ops.push(Op::Write { at, bytes: bytes.into() });
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        self.alive()?;
        let (number, end) = (self.reads, at + buf.len() as u64);
        self.reads += 1;
        if self.faults.bad_from == Some(number) {
            self.bad = at..end;
        }
        if self.faults.failing_reads.contains(&number) || (at < self.bad.end && self.bad.start < end) {
            return Err(FAILED);
        }
        self.medium.read(at, buf);
        if self.faults.lying_reads.contains(&number)
            && let Some(byte) = buf.get_mut(buf.len() / 2)
        {
            *byte ^= 1;
        }
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), ZoneError> {
        self.alive()?;
        let number = self.writes;
        self.writes += 1;
        if self.faults.read_only_from.is_some_and(|from| number >= from) {
            return Err(ZoneError::ReadOnly);
        }
        if let Some((_, kept)) = self.faults.cut.filter(|(write, _)| *write == number) {
            self.keep(at, &bytes[..kept.min(bytes.len())]);
            self.dead = true;
            return Err(FAILED);
        }
        if self.faults.failing_writes.contains(&number) {
            return Err(FAILED);
        }
        if let Some(endurance) = self.faults.endurance {
            for sector in at / SECTOR_BYTES..(at + bytes.len() as u64).div_ceil(SECTOR_BYTES) {
                let worn = self.worn.entry(sector).or_default();
                *worn += 1;
                if *worn > endurance {
                    return Err(FAILED);
                }
            }
        }
        match self.faults.lying_at.filter(|place| *place < bytes.len()) {
            Some(place) => {
                let mut other = bytes.to_vec();
                other[place] ^= 1;
                self.keep(at, &other);
            }
            None => self.keep(at, bytes),
        }
        Ok(())
    }
}

impl ErrorType for SimDisk {
    type Error = ZoneError;
}

impl Read for SimDisk {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let take = self.room(buf.len());
        self.inner.borrow_mut().read(self.position, &mut buf[..take])?;
        self.position += take as u64;
        Ok(take)
    }
}

impl Write for SimDisk {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        assert!(self.writable, "{} bytes written at {} through a view for reading", buf.len(), self.position);
        let room = self.room(buf.len());
        assert!(room == buf.len(), "{} bytes written at {} of a disk of {}", buf.len(), self.position, self.length);
        self.inner.borrow_mut().write(self.position, buf)?;
        self.position += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        let mut inner = self.inner.borrow_mut();
        inner.alive()?;
        if !matches!(inner.ops.last(), None | Some(Op::Flush)) {
            inner.ops.push(Op::Flush);
        }
        Ok(())
    }
}

impl Seek for SimDisk {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}

impl RawZone for SimDisk {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.length)
    }
}
