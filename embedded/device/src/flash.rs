//! Simulated flash over plain memory: blocks are erased whole, units are programmed once, and power can fail in the middle
//! of both.
//!
//! What no driver may do panics: programming a unit that is not erased, leaving the boundaries or the flash. After a cut
//! nothing answers any more, until the memory is given to a new [`SimFlash`]: the next start.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::table::ERASE_BYTES;

/// Bytes of a write unit: what ECC flash takes at least.
pub const UNIT_BYTES: usize = 8;
/// Bytes that are programmed in one operation.
pub const PAGE_BYTES: usize = 256;
const BLOCK_BYTES: usize = ERASE_BYTES as usize;

/// How far the operation got in which power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Not at all.
    Before,
    /// Half: a unit in the middle has some of its bits.
    Half,
    /// All but the last unit, which has some of its bits.
    Almost,
}

impl Tear {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Before, Self::Half, Self::Almost];

    /// Bytes that are done, of an operation on `bytes`.
    fn done(self, bytes: usize) -> usize {
        match self {
            Self::Before => 0,
            Self::Half => bytes / 2 / UNIT_BYTES * UNIT_BYTES,
            Self::Almost => bytes - UNIT_BYTES,
        }
    }
}

/// Power fails at an operation, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Which operation.
    pub at: u32,
    /// How far it gets.
    pub tear: Tear,
}

/// The flash does not answer: there is no power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPower;

impl NorFlashError for NoPower {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

/// Flash in memory.
pub struct SimFlash<'m> {
    bytes: &'m mut [u8],
    operations: u32,
    cut: Option<Cut>,
    powered: bool,
}

impl<'m> SimFlash<'m> {
    /// Flash with what `bytes` hold, whole erase blocks; power fails at `cut`.
    pub fn new(bytes: &'m mut [u8], cut: Option<Cut>) -> Self {
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES), "not whole erase blocks");
        Self { bytes, operations: 0, cut, powered: true }
    }

    /// Blocks erased and pages programmed so far, with the one in which power failed.
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// Whether power failed.
    pub fn is_cut(&self) -> bool {
        !self.powered
    }

    /// Counts an operation on `bytes`; how many of them are done: all, or fewer where power fails in it.
    fn begin(&mut self, bytes: usize) -> Option<Tear> {
        let tear = self.cut.filter(|cut| cut.at == self.operations).map(|cut| cut.tear);
        self.operations += 1;
        self.powered = tear.is_none();
        tear.filter(|tear| tear.done(bytes) < bytes)
    }

    fn powered(&self) -> Result<(), NoPower> {
        if self.powered { Ok(()) } else { Err(NoPower) }
    }
}

impl ErrorType for SimFlash<'_> {
    type Error = NoPower;
}

impl ReadNorFlash for SimFlash<'_> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NoPower> {
        self.powered()?;
        let at = offset as usize;
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for SimFlash<'_> {
    const WRITE_SIZE: usize = UNIT_BYTES;
    const ERASE_SIZE: usize = BLOCK_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NoPower> {
        let (from, to) = (from as usize, to as usize);
        assert!(from.is_multiple_of(BLOCK_BYTES) && to.is_multiple_of(BLOCK_BYTES), "an erase of {from}..{to}");
        for at in (from..to).step_by(BLOCK_BYTES) {
            self.powered()?;
            let tear = self.begin(BLOCK_BYTES);
            let block = &mut self.bytes[at..at + BLOCK_BYTES];
            let Some(tear) = tear else {
                block.fill(0xff);
                continue;
            };
            let done = tear.done(BLOCK_BYTES);
            block[..done].fill(0xff);
            if tear != Tear::Before {
                // Some bits are ones already.
                block[done..done + UNIT_BYTES].iter_mut().for_each(|byte| *byte |= 0xa5);
            }
        }
        self.powered()
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NoPower> {
        let mut at = offset as usize;
        assert!(at.is_multiple_of(UNIT_BYTES) && bytes.len().is_multiple_of(UNIT_BYTES), "a write at {at}");
        let mut rest = bytes;
        while !rest.is_empty() {
            self.powered()?;
            let (page, behind) = rest.split_at(rest.len().min(PAGE_BYTES - at % PAGE_BYTES));
            let tear = self.begin(page.len());
            let place = &mut self.bytes[at..at + page.len()];
            assert!(place.iter().all(|byte| *byte == 0xff), "programmed without being erased, at {at}");
            let done = tear.map_or(page.len(), |tear| tear.done(page.len()));
            place[..done].copy_from_slice(&page[..done]);
            if tear.is_some_and(|tear| tear != Tear::Before) {
                // Some bits are zeros already.
                for (byte, wanted) in place[done..done + UNIT_BYTES].iter_mut().zip(&page[done..]) {
                    *byte &= wanted | 0x5a;
                }
            }
            at += page.len();
            rest = behind;
        }
        self.powered()
    }
}
