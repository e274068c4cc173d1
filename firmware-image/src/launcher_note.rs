//! The launcher's note: what it must remember between two plug-ins, and tell the updater (postcard, behind a CRC-32;
//! `docs/formats/launcher-note.md`). It is advice, never trust: a note that is lost or forged costs one more try of a copy
//! that fails, or one undo of a release that works, and nothing else.

use serde::{Deserialize, Serialize};

use crate::free_zone::FreeZone;
use crate::storage::{read_exact_at, write_all_at};
use crate::{Digest, ZoneError, paths};

/// Updaters that a note remembers.
pub const MAX_FAILED: usize = 8;
/// The longest note, in bytes.
pub const MAX_NOTE_BYTES: usize = 1024;

/// How the client of an unproven release fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The release.
    pub serial: u64,
    /// Starts in a row that ended in a fault within the probation.
    pub failed_starts: u8,
    /// It ran well once.
    pub proven: bool,
}

/// The note.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherNote {
    /// Digests (of the signed executables) of updaters that were sound but would not start.
    pub failed_updaters: heapless::Vec<Digest, MAX_FAILED>,
    /// The release on probation.
    pub trial: Option<Trial>,
}

impl LauncherNote {
    /// Reads the note of a free zone; one that is missing or damaged is empty.
    ///
    /// # Errors
    /// What reading reports.
    pub fn read<F: FreeZone>(zone: &F) -> Result<Self, ZoneError> {
        let mut file = match zone.open(paths::LAUNCHER_NOTE) {
            Ok(Some(file)) => file,
            Ok(None) | Err(ZoneError::Corrupt) => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; MAX_NOTE_BYTES];
        match read_exact_at(&mut file, 0, &mut bytes) {
            Ok(()) => Ok(Self::decode(&bytes).unwrap_or_default()),
            Err(ZoneError::OutOfBounds | ZoneError::Corrupt) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Makes the note durable, in place.
    ///
    /// # Errors
    /// What writing reports.
    pub fn write<F: FreeZone>(&self, zone: &F) -> Result<(), ZoneError> {
        use embedded_io::Write as _;
        let mut file = match zone.open_rw(paths::LAUNCHER_NOTE) {
            // A file that the file system cannot follow any more.
            Err(ZoneError::Corrupt) => zone.create(paths::LAUNCHER_NOTE)?,
            file => file?,
        };
        write_all_at(&mut file, 0, &self.encode())?;
        file.flush()?;
        zone.sync_dir(paths::STATE_DIR)
    }

    /// Whether this updater would not start before.
    pub fn has_failed(&self, updater: &Digest) -> bool {
        self.failed_updaters.contains(updater)
    }

    /// Remembers that this updater would not start; forgets the oldest where there are too many.
    pub fn add_failed(&mut self, updater: Digest) {
        if self.has_failed(&updater) {
            return;
        }
        if self.failed_updaters.is_full() {
            self.failed_updaters.remove(0);
        }
        // There is room now.
        let _ = self.failed_updaters.push(updater);
    }

    fn encode(&self) -> [u8; MAX_NOTE_BYTES] {
        let mut bytes = [0; MAX_NOTE_BYTES];
        // 8 digests and a trial are some 280 bytes, the room 1,020.
        let length = postcard::to_slice(self, &mut bytes[6..]).map_or(0, |body| body.len());
        bytes[4..6].copy_from_slice(&(length as u16).to_le_bytes());
        let crc = crate::checksum::crc32(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; MAX_NOTE_BYTES]) -> Option<Self> {
        let crc = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if crate::checksum::crc32(&bytes[4..]) != crc {
            return None;
        }
        let length = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        let (note, _appended) = postcard::take_from_bytes(bytes[6..].get(..length)?).ok()?;
        Some(note)
    }
}
