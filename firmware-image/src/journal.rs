//! The commit journal: one preallocated file of two slots, by which a commit is either not begun, open, or done
//! (`docs/formats/journal.md`).
//!
//! ```text
//! slot (4,096 bytes, twice): magic 8 │ format u16 │ body length u16 │ sequence u64 │ body (postcard) │ zeros │ CRC-32 at 4092
//! ```
//! An entry is written over the older slot and flushed; the highest sequence whose checksum holds is the state. A cut
//! tears at most the slot being written, and the state is then what it was before. The file is made once, with both
//! slots, and never again changes its length, so that no write of it touches a directory or an allocation table.
//!
//! A slot whose checksum holds and that this program cannot read was written by a later one: that is an error, never
//! idle, or a commit under way would be forgotten.

use serde::{Deserialize, Serialize};

use embedded_io::Write as _;

use crate::free_zone::{FreeZone, ZoneFile};
use crate::storage::{read_exact_at, write_all_at};
use crate::{Digest, ZoneError, paths};

/// Bytes of a slot.
pub const JOURNAL_SLOT_BYTES: usize = 4096;
/// The first bytes of a slot.
pub const JOURNAL_MAGIC: [u8; 8] = *b"HOLDFJNL";
/// The format's number.
pub const JOURNAL_FORMAT: u16 = 1;

const HEAD_BYTES: usize = 20;
const CRC_AT: usize = JOURNAL_SLOT_BYTES - 4;

/// What the engine is in the middle of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing: the managed directory is one whole release, or was never filled.
    #[default]
    Idle,
    /// The managed directory is being changed; the plan says how, and everything that it needs is on the device.
    Committing {
        /// SHA-256 of the plan's file.
        plan: Digest,
        /// The release that it leads to.
        serial: u64,
    },
    /// The managed directory is whole again; what the commit needed is being cleared away.
    Cleaning {
        /// The release that is installed.
        serial: u64,
    },
}

impl State {
    /// Whether the managed directory may be a mixture: no client may be started from it.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Committing { .. })
    }
}

/// The journal's newest entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Journal {
    sequence: u64,
    state: State,
}

impl Journal {
    /// Reads the journal of a free zone. One that is missing, or of which no slot holds, is idle: nothing is changed
    /// before a journal stands whole.
    ///
    /// # Errors
    /// What reading reports; `LaterFormat` for an entry of one.
    pub fn read<F: FreeZone>(zone: &F) -> Result<Self, ZoneError> {
        let Some(mut file) = zone.open(paths::JOURNAL)? else { return Ok(Self::default()) };
        let mut newest = Self::default();
        for slot in 0..2 {
            let mut bytes = [0; JOURNAL_SLOT_BYTES];
            match read_exact_at(&mut file, slot * JOURNAL_SLOT_BYTES as u64, &mut bytes) {
                Ok(()) => {}
                Err(ZoneError::OutOfBounds) => continue,
                Err(error) => return Err(error),
            }
            if let Some(entry) = Self::decode(&bytes)?.filter(|entry| entry.sequence >= newest.sequence) {
                newest = entry;
            }
        }
        Ok(newest)
    }

    /// What the engine is in the middle of.
    pub fn state(&self) -> State {
        self.state
    }

    /// Makes `state` durable. On return it is the state; after a cut it is this or the one before.
    ///
    /// # Errors
    /// What writing reports.
    pub fn advance<F: FreeZone>(&mut self, zone: &F, state: State) -> Result<(), ZoneError> {
        let mut file = zone.open_rw(paths::JOURNAL)?;
        if file.len()? != 2 * JOURNAL_SLOT_BYTES as u64 {
            for slot in 0..2 {
                write_all_at(&mut file, slot * JOURNAL_SLOT_BYTES as u64, &self.encode())?;
            }
            file.set_len(2 * JOURNAL_SLOT_BYTES as u64)?;
            file.flush()?;
            zone.sync_dir(paths::STATE_DIR)?;
        }
        let next = match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, state },
            // No device gets there: the journal was forged, and must not hold its state for ever. The highest number
            // stands until slot 1 is written over, and slot 0 says the same by then.
            None => {
                write_entry(&mut file, &Self { sequence: 0, state })?;
                Self { sequence: 1, state }
            }
        };
        write_entry(&mut file, &next)?;
        *self = next;
        Ok(())
    }

    /// A slot's bytes.
    pub fn encode(&self) -> [u8; JOURNAL_SLOT_BYTES] {
        let mut bytes = [0; JOURNAL_SLOT_BYTES];
        // The state is some 50 bytes, the room 4,072.
        let length = postcard::to_slice(&self.state, &mut bytes[HEAD_BYTES..CRC_AT]).map_or(0, |body| body.len());
        bytes[..8].copy_from_slice(&JOURNAL_MAGIC);
        bytes[8..10].copy_from_slice(&JOURNAL_FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&(length as u16).to_le_bytes());
        bytes[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crate::checksum::crc32(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a slot; `None` for one that is empty, torn or damaged.
    ///
    /// # Errors
    /// `LaterFormat` for one that is whole and of a format that this program does not know.
    pub fn decode(bytes: &[u8; JOURNAL_SLOT_BYTES]) -> Result<Option<Self>, ZoneError> {
        let crc = u32::from_le_bytes([bytes[CRC_AT], bytes[CRC_AT + 1], bytes[CRC_AT + 2], bytes[CRC_AT + 3]]);
        if bytes[..8] != JOURNAL_MAGIC || crate::checksum::crc32(&bytes[..CRC_AT]) != crc {
            return Ok(None);
        }
        if u16::from_le_bytes([bytes[8], bytes[9]]) != JOURNAL_FORMAT {
            return Err(ZoneError::LaterFormat);
        }
        let length = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        let body = bytes[HEAD_BYTES..CRC_AT].get(..length).ok_or(ZoneError::LaterFormat)?;
        let (state, _appended) = postcard::take_from_bytes(body).map_err(|_| ZoneError::LaterFormat)?;
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&bytes[12..20]);
        Ok(Some(Self { sequence: u64::from_le_bytes(sequence), state }))
    }
}

/// Writes an entry into its slot, durably.
fn write_entry<T: ZoneFile>(file: &mut T, entry: &Journal) -> Result<(), ZoneError> {
    write_all_at(file, entry.sequence % 2 * JOURNAL_SLOT_BYTES as u64, &entry.encode())?;
    file.flush()
}
