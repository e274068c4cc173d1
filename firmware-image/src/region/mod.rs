//! The *region* profile: flash without partitions, divided by a fixed table that factory and device programs share
//! (`docs/formats/device-image.md`). The hidden zone is one region; a file stands alone in each of the others.
//!
//! ```text
//! file │ ones │ footer, the region's last 32 bytes: magic 8 │ format u16 │ 0 u16 │ length u32 │ 0 × 12 │ CRC-32 u32
//! ```
//! Invariant: the footer is written last, when the file in front of it was flushed and read back. A region without a
//! footer holds no file. The file itself carries its signature; the footer only says where it ends.

use embedded_io::{ErrorType, Read, Seek};

use crate::ZoneError;
use crate::storage::{RawZone, Window, read_exact_at, write_all_at};

pub mod layout;

#[cfg(feature = "sign")]
pub mod factory;

pub use layout::{Extent, RegionLayout};

/// Bytes of a footer: whole write units of any flash that has units of up to 32 bytes.
pub const FOOTER_BYTES: usize = 32;
/// The first bytes of a footer.
pub const FOOTER_MAGIC: [u8; 8] = *b"HOLDFREG";
/// The format's number.
pub const FOOTER_FORMAT: u16 = 1;

/// Bytes copied at a time.
const PIECE_BYTES: usize = 256;
const CRC_AT: usize = FOOTER_BYTES - 4;

/// The footer of a file of `length` bytes.
fn footer(length: u32) -> [u8; FOOTER_BYTES] {
    let mut footer = [0; FOOTER_BYTES];
    footer[..8].copy_from_slice(&FOOTER_MAGIC);
    footer[8..10].copy_from_slice(&FOOTER_FORMAT.to_le_bytes());
    footer[12..16].copy_from_slice(&length.to_le_bytes());
    let crc = crate::checksum::crc32(&footer[..CRC_AT]);
    footer[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    footer
}

/// Bytes of the file in the region that is all of `zone`.
///
/// # Errors
/// `NotFound` where there is no footer, or one that is damaged, of an unknown format, or of a longer file than the region
/// holds; what reading reports.
pub fn file_bytes<Z: RawZone + ?Sized>(zone: &mut Z) -> Result<u64, ZoneError> {
    let at = zone.len()?.checked_sub(FOOTER_BYTES as u64).ok_or(ZoneError::NotFound)?;
    let mut found = [0; FOOTER_BYTES];
    read_exact_at(zone, at, &mut found)?;
    let length = u32::from_le_bytes([found[12], found[13], found[14], found[15]]);
    if found == footer(length) && u64::from(length) <= at { Ok(length.into()) } else { Err(ZoneError::NotFound) }
}

/// The file in the region that is all of `zone`, as storage of its own.
///
/// # Errors
/// As [`file_bytes`].
pub fn file<Z: RawZone>(mut zone: Z) -> Result<Window<Z>, ZoneError> {
    let length = file_bytes(&mut zone)?;
    Window::new(zone, 0, length)
}

/// Reads the file in the region that is all of `zone` into `out` and returns the part that it fills.
///
/// # Errors
/// As [`file_bytes`]; `Full` where `out` is too small.
pub fn read<'o, Z: RawZone + ?Sized>(zone: &mut Z, out: &'o mut [u8]) -> Result<&'o [u8], ZoneError> {
    let length = usize::try_from(file_bytes(zone)?).map_err(|_| ZoneError::Full)?;
    let out = out.get_mut(..length).ok_or(ZoneError::Full)?;
    read_exact_at(zone, 0, out)?;
    Ok(out)
}

/// Writes a file of `length` bytes into the region that is all of `zone`, in place of what stands there: erased, written,
/// flushed, read back and compared, then the footer, flushed. `source` is read twice.
///
/// # Errors
/// `Full` where the region is too small (nothing is erased then), `Corrupt` where the medium does not return what was
/// written, or what source and medium report. There is no footer then.
#[inline(never)] // A microcontroller's stack need not hold these buffers while the source is verified.
pub fn write<Z, R>(zone: &mut Z, source: &mut R, length: u64) -> Result<(), ZoneError>
where
    Z: RawZone + ?Sized,
    R: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    let region_bytes = zone.len()?;
    let footer_at = region_bytes.checked_sub(FOOTER_BYTES as u64).filter(|at| length <= *at).ok_or(ZoneError::Full)?;
    let footer = footer(u32::try_from(length).map_err(|_| ZoneError::Full)?);
    zone.erase(0..region_bytes)?;
    each_piece(source, length, |at, piece| write_all_at(zone, at, piece))?;
    zone.flush()?;
    zone.drop_caches()?;
    let mut back = [0; PIECE_BYTES];
    each_piece(source, length, |at, piece| {
        let back = &mut back[..piece.len()];
        read_exact_at(zone, at, back)?;
        if back == piece { Ok(()) } else { Err(ZoneError::Corrupt) }
    })?;
    write_all_at(zone, footer_at, &footer)?;
    zone.flush()
}

/// Calls `use_piece` with each piece of the first `length` bytes of `source`.
fn each_piece<R>(
    source: &mut R,
    length: u64,
    mut use_piece: impl FnMut(u64, &[u8]) -> Result<(), ZoneError>,
) -> Result<(), ZoneError>
where
    R: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    let mut piece = [0; PIECE_BYTES];
    let mut at = 0;
    while at < length {
        let take = usize::try_from(length - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        read_exact_at(source, at, &mut piece[..take])?;
        use_piece(at, &piece[..take])?;
        at += take as u64;
    }
    Ok(())
}
