//! Raw stretches of storage: a partition, a region of flash, an image file, a slot in any of them.
//!
//! Everything raw is read and written through [`embedded_io`]'s `Read`, `Write` and `Seek`. `flush` is durable: when it
//! returns, what was written before it survives a loss of power.

use core::ops::Range;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write, WriteFmtError};

use crate::ZoneError;

/// Raw storage of a fixed length. `flush` makes what was written durable.
pub trait RawZone: Read + Write + Seek + ErrorType<Error = ZoneError> {
    /// The length in bytes.
    fn len(&mut self) -> Result<u64, ZoneError>;

    /// Makes later reads come from the medium and not from a cache, where the platform can. Call it after `flush`.
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        Ok(())
    }

    /// Gives up what stands in `range`, so that each byte of it can be written once. Flash erases; storage that can be
    /// written over has nothing to do.
    ///
    /// # Errors
    /// `Misaligned` for a range that is not of whole erase blocks, or what the storage reports.
    fn erase(&mut self, range: Range<u64>) -> Result<(), ZoneError> {
        let _ = range;
        Ok(())
    }

    /// Whether the storage has no bytes at all.
    fn is_empty(&mut self) -> Result<bool, ZoneError> {
        Ok(self.len()? == 0)
    }
}

impl<Z: RawZone + ?Sized> RawZone for &mut Z {
    fn len(&mut self) -> Result<u64, ZoneError> {
        (**self).len()
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        (**self).drop_caches()
    }
    fn erase(&mut self, range: Range<u64>) -> Result<(), ZoneError> {
        (**self).erase(range)
    }
}

/// Reads exactly `buf.len()` bytes at `offset`.
///
/// # Errors
/// `OutOfBounds` where the storage ends before that, else what the storage reports.
pub fn read_exact_at<Z>(zone: &mut Z, offset: u64, mut buf: &mut [u8]) -> Result<(), ZoneError>
where
    Z: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    zone.seek(SeekFrom::Start(offset))?;
    while !buf.is_empty() {
        match zone.read(buf)? {
            0 => return Err(ZoneError::OutOfBounds),
            n => buf = &mut buf[n..],
        }
    }
    Ok(())
}

/// Writes all of `buf` at `offset`; not durable before a `flush`.
///
/// # Errors
/// `Full` where the storage takes no more, else what the storage reports.
pub fn write_all_at<Z>(zone: &mut Z, offset: u64, mut buf: &[u8]) -> Result<(), ZoneError>
where
    Z: Write + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    zone.seek(SeekFrom::Start(offset))?;
    while !buf.is_empty() {
        match zone.write(buf)? {
            0 => return Err(ZoneError::Full),
            n => buf = &buf[n..],
        }
    }
    Ok(())
}

/// A window of `length` bytes at `start` of another storage. Nothing outside it can be reached.
pub struct Window<Z> {
    inner: Z,
    start: u64,
    length: u64,
    position: u64,
}

impl<Z: RawZone> Window<Z> {
    /// The window `start..start + length` of `inner`.
    ///
    /// # Errors
    /// `OutOfBounds` where `inner` ends before the window does.
    pub fn new(mut inner: Z, start: u64, length: u64) -> Result<Self, ZoneError> {
        let end = start.checked_add(length).ok_or(ZoneError::OutOfBounds)?;
        if end > inner.len()? {
            return Err(ZoneError::OutOfBounds);
        }
        Ok(Self { inner, start, length, position: 0 })
    }

    /// How many of `wanted` bytes fit between the position and the window's end.
    fn room(&self, wanted: usize) -> usize {
        let left = self.length.saturating_sub(self.position);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl<Z> ErrorType for Window<Z> {
    type Error = ZoneError;
}

impl<Z: RawZone> Read for Window<Z> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let room = self.room(buf.len());
        if room == 0 {
            return Ok(0);
        }
        self.inner.seek(SeekFrom::Start(self.start + self.position))?;
        let n = self.inner.read(&mut buf[..room])?;
        self.position += n as u64;
        Ok(n)
    }
}

impl<Z: RawZone> Write for Window<Z> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let room = self.room(buf.len());
        if room == 0 && !buf.is_empty() {
            return Err(ZoneError::OutOfBounds);
        }
        self.inner.seek(SeekFrom::Start(self.start + self.position))?;
        let n = self.inner.write(&buf[..room])?;
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        self.inner.flush()
    }

    /// Nobody formats text into raw storage. The provided method would put the formatter behind every `dyn RawZone`: 2 kB of a
    /// microcontroller's flash.
    fn write_fmt(&mut self, _: core::fmt::Arguments<'_>) -> Result<(), WriteFmtError<ZoneError>> {
        Err(WriteFmtError::FmtError)
    }
}

impl<Z: RawZone> Seek for Window<Z> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}

impl<Z: RawZone> RawZone for Window<Z> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.length)
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.inner.drop_caches()
    }
    fn erase(&mut self, range: Range<u64>) -> Result<(), ZoneError> {
        if range.start > range.end || range.end > self.length {
            return Err(ZoneError::OutOfBounds);
        }
        self.inner.erase(self.start + range.start..self.start + range.end)
    }
}

/// Storage in memory: tests, small flash, a body that was read whole.
pub struct MemoryZone<'a> {
    bytes: &'a mut [u8],
    position: u64,
}

impl<'a> MemoryZone<'a> {
    /// Storage over `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn rest(&mut self) -> &mut [u8] {
        let at = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.bytes.len());
        &mut self.bytes[at..]
    }
}

impl ErrorType for MemoryZone<'_> {
    type Error = ZoneError;
}

impl Read for MemoryZone<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let rest = self.rest();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Write for MemoryZone<'_> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let rest = self.rest();
        let n = rest.len().min(buf.len());
        if n == 0 && !buf.is_empty() {
            return Err(ZoneError::OutOfBounds);
        }
        rest[..n].copy_from_slice(&buf[..n]);
        self.position += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        Ok(())
    }
}

impl Seek for MemoryZone<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.bytes.len() as u64)?;
        Ok(self.position)
    }
}

impl RawZone for MemoryZone<'_> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.bytes.len() as u64)
    }
}

/// Where a seek ends up, for storage of a fixed `length`.
///
/// # Errors
/// `OutOfBounds` before the start; past the end is allowed, as in POSIX.
pub fn seek_target(to: SeekFrom, position: u64, length: u64) -> Result<u64, ZoneError> {
    match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::End(by) => length.checked_add_signed(by),
        SeekFrom::Current(by) => position.checked_add_signed(by),
    }
    .ok_or(ZoneError::OutOfBounds)
}

/// Reads bytes in memory through the same face as a file.
pub struct SliceReader<'a> {
    bytes: &'a [u8],
    position: u64,
}

impl<'a> SliceReader<'a> {
    /// A reader of `bytes`, at their start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }
}

impl ErrorType for SliceReader<'_> {
    type Error = ZoneError;
}

impl Read for SliceReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let at = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.bytes.len());
        let rest = &self.bytes[at..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for SliceReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.bytes.len() as u64)?;
        Ok(self.position)
    }
}
