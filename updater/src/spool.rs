//! The spool: every fetched frame, kept at once, so that no interruption makes one be fetched twice (F3, X4).
//!
//! One append-only file, `.holdfast/staging/spool`. Frames stay as they came, sealed.
//!
//! ```text
//! magic "HOLDSPL1" 8 │ entry …
//! entry: digest 32 │ content length u32 │ frame length u32 │ content key u32 │ check 16 │ frame
//! ```
//! `check` is the first half of the SHA-256 over the entry without it. Reading ends at the first entry that does not
//! hold, or behind [`MAX_FRAMES`]: what a cut tore is overwritten by the next frame. A frame was opened before it came
//! here, and is opened again when it is used.

use std::collections::HashMap;

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::storage::read_exact_at;
use firmware_image::{Digest, ZoneError};
use release_store::frame::{FrameId, FrameKind, MAX_CHUNK_BYTES, max_stored_len};

use crate::error::EngineError;
use crate::zone_io::{self, write_all};

/// Where the spool stands.
pub const SPOOL: &str = ".holdfast/staging/spool";
/// Bytes of an entry before its frame.
pub const ENTRY_BYTES: usize = 32 + 4 + 4 + 4 + CHECK_BYTES;
/// At most so many bytes are at risk: the file is flushed when as many have been added.
pub const SYNC_BYTES: u64 = 1 << 20;

/// The most frames that are read of a spool: more than the longest list of a release's chunks can name.
pub const MAX_FRAMES: usize = 1 << 19;

const MAGIC: [u8; 8] = *b"HOLDSPL1";
const CHECK_BYTES: usize = 16;

/// Where a frame stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    raw_len: u32,
    stored_len: u32,
    key: u32,
}

/// The spool of a free zone.
pub struct Spool<'z, F: FreeZone + 'z> {
    zone: &'z F,
    file: Option<F::File<'z>>,
    writable: bool,
    frames: HashMap<Digest, Place>,
    end: u64,
    unsynced: u64,
    /// Room was taken for so many.
    reserved: u64,
}

impl<'z, F: FreeZone> Spool<'z, F> {
    /// Reads what is there. Writes nothing. A spool that is damaged counts as empty.
    ///
    /// # Errors
    /// What reading reports, but for damage of the file.
    pub fn open(zone: &'z F) -> Result<Self, EngineError> {
        let mut spool =
            Self { zone, file: None, writable: false, frames: HashMap::new(), end: 0, unsynced: 0, reserved: 0 };
        match spool.scan() {
            Err(error) if zone_io::is_damage(error) => {
                // The next frame makes a new file in its place.
                spool.frames.clear();
                spool.end = 0;
            }
            scanned => scanned.map_err(EngineError::zone("read", SPOOL))?,
        }
        Ok(spool)
    }

    fn scan(&mut self) -> Result<(), ZoneError> {
        let Some(mut file) = self.zone.open(SPOOL)? else { return Ok(()) };
        let length = file.len()?;
        let mut magic = [0; MAGIC.len()];
        if length < MAGIC.len() as u64 {
            return Ok(());
        }
        read_exact_at(&mut file, 0, &mut magic)?;
        if magic != MAGIC {
            return Ok(());
        }
        self.end = MAGIC.len() as u64;
        let mut frame = Vec::new();
        while length - self.end >= ENTRY_BYTES as u64 && self.frames.len() < MAX_FRAMES {
            let mut head = [0; ENTRY_BYTES];
            read_exact_at(&mut file, self.end, &mut head)?;
            let Some((digest, place)) = read_head(&head, self.end + ENTRY_BYTES as u64) else { break };
            let next = place.at + u64::from(place.stored_len);
            if next > length {
                break;
            }
            frame.resize(place.stored_len as usize, 0);
            read_exact_at(&mut file, place.at, &mut frame)?;
            if head[ENTRY_BYTES - CHECK_BYTES..] != check(&head, &frame) {
                break;
            }
            self.frames.insert(digest, place);
            self.end = next;
        }
        Ok(())
    }

    /// Whether the frame of this content is here.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.frames.contains_key(digest)
    }

    /// How many frames are here.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The digests of the contents that are here.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.frames.keys()
    }

    /// Bytes that the file has.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Adds a frame that was opened and found good.
    ///
    /// # Errors
    /// What writing reports.
    pub fn append(&mut self, id: &FrameId, key: u32, frame: &[u8]) -> Result<(), EngineError> {
        if self.contains(&id.digest) {
            return Ok(());
        }
        self.try_append(id, key, frame).map_err(EngineError::zone("write", SPOOL))?;
        if self.unsynced >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }

    fn try_append(&mut self, id: &FrameId, key: u32, frame: &[u8]) -> Result<(), ZoneError> {
        let fresh = self.end == 0;
        if !self.writable {
            self.writable = true;
            self.file = Some(if fresh { self.zone.create(SPOOL)? } else { self.zone.open_rw(SPOOL)? });
        }
        let Some(file) = &mut self.file else { return Err(ZoneError::NotFound) };
        if fresh {
            write_all(file, &MAGIC)?;
            self.end = MAGIC.len() as u64;
        }
        let mut entry = Vec::with_capacity(ENTRY_BYTES + frame.len());
        entry.extend_from_slice(&id.digest.0);
        entry.extend_from_slice(&id.raw_len.to_le_bytes());
        entry.extend_from_slice(&id.stored_len.to_le_bytes());
        entry.extend_from_slice(&key.to_le_bytes());
        let sum = check(&entry, frame);
        entry.extend_from_slice(&sum);
        entry.extend_from_slice(frame);
        let end = self.end + entry.len() as u64;
        if end > self.reserved {
            self.reserved = end.next_multiple_of(SYNC_BYTES);
            match file.reserve(self.reserved) {
                // What is added may fit all the same.
                Ok(()) | Err(ZoneError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        file.seek(SeekFrom::Start(self.end))?;
        write_all(file, &entry)?;
        let place = Place { at: self.end + ENTRY_BYTES as u64, raw_len: id.raw_len, stored_len: id.stored_len, key };
        self.frames.insert(id.digest, place);
        self.end += entry.len() as u64;
        self.unsynced += entry.len() as u64;
        Ok(())
    }

    /// Makes all that was added durable.
    ///
    /// # Errors
    /// What flushing reports.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            file.flush().map_err(EngineError::zone("flush", SPOOL))?;
        }
        zone_io::sync_parents(self.zone, SPOOL)?;
        self.unsynced = 0;
        Ok(())
    }

    /// Gives back the room that was taken for more.
    ///
    /// # Errors
    /// What writing reports.
    pub fn settle(&mut self) -> Result<(), EngineError> {
        self.sync()?;
        if self.reserved > self.end
            && let Some(file) = &mut self.file
        {
            file.set_len(self.end).map_err(EngineError::zone("write", SPOOL))?;
        }
        self.reserved = 0;
        Ok(())
    }

    /// Reads the frame of a content, which is of this `kind`, into `frame`; what it must be, and the number of its key.
    /// `None`: not here.
    ///
    /// # Errors
    /// What reading reports.
    pub fn read(
        &mut self,
        kind: FrameKind,
        digest: &Digest,
        frame: &mut Vec<u8>,
    ) -> Result<Option<(FrameId, u32)>, EngineError> {
        let Some(place) = self.frames.get(digest).copied() else { return Ok(None) };
        let failed = || EngineError::zone("read", SPOOL);
        if self.file.is_none() {
            self.file = self.zone.open(SPOOL).map_err(failed())?;
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        frame.resize(place.stored_len as usize, 0);
        read_exact_at(file, place.at, frame).map_err(failed())?;
        let Place { raw_len, stored_len, key, .. } = place;
        Ok(Some((FrameId { kind, digest: *digest, raw_len, stored_len }, key)))
    }

    /// Drops the file and all that is in it.
    ///
    /// # Errors
    /// What removing reports.
    pub fn clear(&mut self) -> Result<(), EngineError> {
        self.file = None;
        self.writable = false;
        self.frames.clear();
        self.end = 0;
        self.unsynced = 0;
        self.reserved = 0;
        if self.zone.metadata(SPOOL).map_err(EngineError::zone("read", SPOOL))?.is_some() {
            zone_io::remove(self.zone, SPOOL)?;
        }
        Ok(())
    }
}

fn read_head(head: &[u8; ENTRY_BYTES], at: u64) -> Option<(Digest, Place)> {
    let mut digest = [0; 32];
    digest.copy_from_slice(&head[..32]);
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let place = Place { at, raw_len: word(32), stored_len: word(36), key: word(40) };
    let sane = place.raw_len <= MAX_CHUNK_BYTES && (1..=max_stored_len(place.raw_len)).contains(&place.stored_len);
    sane.then_some((Digest(digest), place))
}

fn check(head: &[u8], frame: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Hasher::new();
    hasher.update(&head[..ENTRY_BYTES - CHECK_BYTES]);
    hasher.update(frame);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finish().0[..CHECK_BYTES]);
    check
}
