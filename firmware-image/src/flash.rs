//! NOR flash as a zone: any driver that speaks `embedded-storage`'s [`NorFlash`] carries slots and regions.
//!
//! Flash erases whole blocks and writes each unit once until the next erase. So nothing here is read, changed and written
//! back: whoever writes gives up what stands there ([`RawZone::erase`]) and then writes each byte once, forward. That is
//! what [`slot::Write`](crate::slot::Write) and [`region::write`](crate::region::write) do anyway, and it takes no memory
//! but one write unit.

use core::cell::{RefCell, RefMut};
use core::ops::Range;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use embedded_storage::nor_flash::{NorFlash, NorFlashError, NorFlashErrorKind};

use crate::ZoneError;
use crate::region::FOOTER_BYTES;
use crate::storage::{RawZone, seek_target};

/// The largest unit of reading, in bytes. A unit of writing is at most a footer, and divides it.
pub const MAX_UNIT_BYTES: usize = 64;

/// A driver's flash as a zone. Any number of zones may stand on one driver: each call borrows it for as long as it takes.
///
/// A flash whose write units do not divide a [footer](FOOTER_BYTES) does not compile: a region would lose its file at the first
/// restore, since no footer could be written behind it.
///
/// A write begins on a write unit or where the last one ended. `flush` fills the unit that was begun with ones; nothing
/// can be written behind them before the next erase.
pub struct FlashZone<'f, F> {
    flash: &'f RefCell<F>,
    position: u64,
    /// The unit that was begun: where it starts, and how many bytes of it there are.
    begun: Option<(u64, usize)>,
    unit: [u8; MAX_UNIT_BYTES],
}

impl<'f, F: NorFlash> FlashZone<'f, F> {
    const UNITS_FIT: () = assert!(
        F::READ_SIZE <= MAX_UNIT_BYTES && FOOTER_BYTES.is_multiple_of(F::WRITE_SIZE),
        "this flash's read units are larger than MAX_UNIT_BYTES, or a region's footer is not whole write units"
    );

    /// The whole of `flash`.
    pub fn new(flash: &'f RefCell<F>) -> Self {
        let () = Self::UNITS_FIT;
        Self { flash, position: 0, begun: None, unit: [0xff; MAX_UNIT_BYTES] }
    }

    fn driver(&self) -> Result<RefMut<'f, F>, ZoneError> {
        self.flash.try_borrow_mut().map_err(|_| ZoneError::Busy)
    }

    /// Writes the unit that was begun, its rest as ones.
    fn finish_unit(&mut self) -> Result<(), ZoneError> {
        let Some((start, length)) = self.begun.take() else { return Ok(()) };
        self.unit[length..].fill(0xff);
        self.driver()?.write(offset(start)?, &self.unit[..F::WRITE_SIZE]).map_err(flash_error)
    }

    fn room(&self, wanted: usize) -> Result<usize, ZoneError> {
        let left = (self.driver()?.capacity() as u64).saturating_sub(self.position);
        Ok(usize::try_from(left).unwrap_or(usize::MAX).min(wanted))
    }
}

fn offset(at: u64) -> Result<u32, ZoneError> {
    u32::try_from(at).map_err(|_| ZoneError::OutOfBounds)
}

fn flash_error(error: impl NorFlashError) -> ZoneError {
    match error.kind() {
        NorFlashErrorKind::NotAligned => ZoneError::Misaligned,
        NorFlashErrorKind::OutOfBounds => ZoneError::OutOfBounds,
        _ => ZoneError::Io(0),
    }
}

impl<F> ErrorType for FlashZone<'_, F> {
    type Error = ZoneError;
}

impl<F: NorFlash> Read for FlashZone<'_, F> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let room = self.room(buf.len())?;
        if room == 0 {
            return Ok(0);
        }
        let unit = F::READ_SIZE as u64;
        let within = (self.position % unit) as usize;
        let whole = room / F::READ_SIZE * F::READ_SIZE;
        let n = if within == 0 && whole > 0 {
            self.driver()?.read(offset(self.position)?, &mut buf[..whole]).map_err(flash_error)?;
            whole
        } else {
            let mut bytes = [0; MAX_UNIT_BYTES];
            let start = offset(self.position - within as u64)?;
            self.driver()?.read(start, &mut bytes[..F::READ_SIZE]).map_err(flash_error)?;
            let n = room.min(F::READ_SIZE - within);
            buf[..n].copy_from_slice(&bytes[within..within + n]);
            n
        };
        self.position += n as u64;
        Ok(n)
    }
}

impl<F: NorFlash> Write for FlashZone<'_, F> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let room = self.room(buf.len())?;
        if buf.is_empty() {
            return Ok(0);
        }
        if room == 0 {
            return Err(ZoneError::OutOfBounds);
        }
        if self.begun.is_some_and(|(start, length)| start + length as u64 != self.position) {
            self.finish_unit()?;
        }
        let whole = room / F::WRITE_SIZE * F::WRITE_SIZE;
        let n = match self.begun {
            None if !self.position.is_multiple_of(F::WRITE_SIZE as u64) => return Err(ZoneError::Misaligned),
            None if whole > 0 => {
                self.driver()?.write(offset(self.position)?, &buf[..whole]).map_err(flash_error)?;
                whole
            }
            begun => {
                let (start, length) = begun.unwrap_or((self.position, 0));
                let n = room.min(F::WRITE_SIZE - length);
                self.unit[length..length + n].copy_from_slice(&buf[..n]);
                self.begun = Some((start, length + n));
                if length + n == F::WRITE_SIZE {
                    self.finish_unit()?;
                }
                n
            }
        };
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        self.finish_unit()
    }
}

impl<F: NorFlash> Seek for FlashZone<'_, F> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.driver()?.capacity() as u64)?;
        Ok(self.position)
    }
}

impl<F: NorFlash> RawZone for FlashZone<'_, F> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.driver()?.capacity() as u64)
    }

    /// Erases the blocks of `range`, which are whole ones, the first one first.
    fn erase(&mut self, range: Range<u64>) -> Result<(), ZoneError> {
        // What was begun and is not written yet was not flushed: nobody relies on it.
        self.begun = None;
        self.driver()?.erase(offset(range.start)?, offset(range.end)?).map_err(flash_error)
    }
}
