//! Puts a verified copy into the free zone: written beside, flushed, read back past the cache, renamed, the directory
//! flushed.
//!
//! Invariant: at every cut the installed name holds what it held before, the whole verified copy, or (where the driver's
//! rename is not atomic, or room had to be made) nothing; each of these is healed by the next start.

use embedded_io::Write as _;
use firmware_image::storage::read_exact_at;
use firmware_image::{FreeZone, ZoneError, ZoneFile, paths};

use crate::verified::{SealedBytes, VerifiedCopy};

/// Bytes written and read back at a time.
const PIECE_BYTES: usize = 16 << 10;

/// What stands under the installed name now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing, or nothing that could ever run: it may be removed to make room.
    Worthless,
    /// Something that stays until the new copy stands whole beside it.
    Kept,
}

/// Why the copy is not installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is no free zone to write to.
    NoFreeZone,
    /// The free zone does not return what was written to it.
    ReadBack,
    /// It cannot be written.
    Zone(ZoneError),
}

impl core::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoFreeZone => f.write_str("there is no free zone in reach"),
            Self::ReadBack => f.write_str("the free zone does not return what was written to it"),
            Self::Zone(error) => write!(f, "the free zone cannot be written: {error}"),
        }
    }
}

impl core::error::Error for RestoreError {}

impl From<ZoneError> for RestoreError {
    fn from(error: ZoneError) -> Self {
        Self::Zone(error)
    }
}

/// Installs `copy` as the updater for `platform`.
///
/// # Errors
/// See [`RestoreError`]; what was begun beside is removed again where that is possible.
pub fn restore<F: FreeZone, I: SealedBytes>(
    free: &F,
    platform: &str,
    copy: &VerifiedCopy<I>,
    present: Present,
) -> Result<(), RestoreError> {
    let name = paths::updater_name(platform);
    let mut beside = heapless::String::<72>::new();
    // 64 bytes and 4 fit.
    let _ = beside.push_str(&name);
    let _ = beside.push_str(".new");
    let mut written = write_beside(free, &beside, copy.bytes());
    if written == Err(RestoreError::Zone(ZoneError::Full)) && present == Present::Worthless {
        free.remove(&beside)?;
        if free.remove(&name)? {
            // Before another file is flushed: FAT must not keep an entry over clusters that are free.
            free.sync_dir("")?;
            written = write_beside(free, &beside, copy.bytes());
        }
    }
    let installed = written.and_then(|()| {
        free.set_executable(&beside, true)?;
        free.rename(&beside, &name)?;
        Ok(free.sync_dir("")?)
    });
    if installed.is_err() {
        // Best effort: on a zone that refuses writes the removal fails as well, and the first error says why.
        let _ = free.remove(&beside);
    }
    installed
}

fn write_beside<F: FreeZone>(free: &F, beside: &str, bytes: &[u8]) -> Result<(), RestoreError> {
    let mut file = free.create(beside)?;
    file.reserve(bytes.len() as u64)?;
    for mut piece in bytes.chunks(PIECE_BYTES) {
        while !piece.is_empty() {
            match file.write(piece)? {
                0 => return Err(ZoneError::Full.into()),
                n => piece = &piece[n..],
            }
        }
    }
    file.flush()?;
    file.drop_caches()?;
    if file.len()? != bytes.len() as u64 {
        return Err(RestoreError::ReadBack);
    }
    // Equal to verified bytes is verified.
    let mut back = [0; PIECE_BYTES];
    for (i, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let back = &mut back[..piece.len()];
        read_exact_at(&mut file, (i * PIECE_BYTES) as u64, back)?;
        if back != piece {
            return Err(RestoreError::ReadBack);
        }
    }
    Ok(())
}
