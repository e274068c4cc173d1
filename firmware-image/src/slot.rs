//! A slot: a header of 4,096 bytes and a sealed body. Records and backups are slots, in the hidden zone, in their
//! mirrors, and at the tail of a CD (`docs/formats/hidden-zone.md`).
//!
//! ```text
//! magic 8 │ format u16 │ kind u8 │ segment log2 u8 │ 0 u32 │ generation u64 │ body bytes u64 │ device id 16 │ salt 32
//! │ key slots 4 × 96 │ zeros │ CRC-32 u32 at 4092
//! body: segments of 2^n bytes, each followed by its tag of 16 bytes; the last one may be shorter
//! ```
//! Invariant: a header is written only after the body it describes was flushed, read back past the cache and opened.
//! Whatever is cut, a slot either opens whole or does not open.

use argon2::Block;
use embedded_io::{ErrorType, Read, Seek, SeekFrom};

use crate::digest::Hasher;
use crate::key_slot::{DEVICE_ID_BYTES, DeviceId, Identity, KEY_SLOT_BYTES, KEY_SLOTS, KeySlot, SlotKind, UnlockError};
use crate::seal::{BodyCipher, Purpose, SALT_BYTES, TAG_BYTES, synthetic_salt};
use crate::storage::{RawZone, read_exact_at, seek_target, write_all_at};
use crate::{Digest, ZoneError};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 4096;
/// The first bytes of a header.
pub const SLOT_MAGIC: [u8; 8] = *b"HOLDFSLT";
/// The format's number.
pub const SLOT_FORMAT: u16 = 1;
/// The smallest segment, as a power of two: 4 KiB.
pub const MIN_SEGMENT_LOG2: u8 = 12;
/// The largest segment, as a power of two: 64 KiB.
pub const MAX_SEGMENT_LOG2: u8 = 16;
/// Bytes of a buffer that holds any segment with its tag.
pub const SEGMENT_BUFFER_BYTES: usize = segment_buffer_bytes(MAX_SEGMENT_LOG2);

const SALT_AT: usize = 48;
const SLOTS_AT: usize = SALT_AT + SALT_BYTES;
/// Behind the last field; zeros from here to the checksum.
const FIELDS_BYTES: usize = SLOTS_AT + KEY_SLOTS * KEY_SLOT_BYTES;
const CRC_AT: usize = HEADER_BYTES - 4;

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A version record.
    Record,
    /// The updaters.
    Backup,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Backup => 2,
        }
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Record => Purpose::Record,
            Self::Backup => Purpose::Backup,
        }
    }
}

/// Why a slot does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// No header there, or a damaged one.
    NoHeader,
    /// A header of a format that this program does not know.
    UnknownFormat(u16),
    /// A slot of the other kind.
    WrongKind,
    /// The header contradicts itself or its place.
    Malformed,
    /// No key slot opens.
    Locked(UnlockError),
    /// A segment of the body is not what was sealed.
    Damaged {
        /// Which segment.
        segment: u32,
    },
    /// The body does not fit its slot or the caller's buffer.
    TooLong,
    /// The caller's buffer is too small for a segment of `2^n` bytes with its tag.
    Segment(u8),
    /// The medium does not return what was written to it.
    ReadBack,
    /// The body was another one when it was read the second time.
    Changed,
    /// It could not be read or written.
    Zone(ZoneError),
}

impl core::fmt::Display for SlotError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoHeader => f.write_str("empty, or its header is damaged"),
            Self::UnknownFormat(format) => write!(f, "of the unknown format {format}"),
            Self::WrongKind => f.write_str("holds something else"),
            Self::Malformed => f.write_str("its header contradicts itself"),
            Self::Locked(UnlockError::Memory(kib)) => write!(f, "its key slot needs {kib} KiB of memory"),
            Self::Locked(UnlockError::Cost) => f.write_str("its key slot asks for more than is allowed"),
            Self::Locked(_) => f.write_str("no key of this product opens it"),
            Self::Damaged { segment } => write!(f, "its segment {segment} is damaged"),
            Self::TooLong => f.write_str("its content is too long"),
            Self::Segment(log2) => write!(f, "its segments need {} bytes of memory", segment_buffer_bytes(*log2)),
            Self::ReadBack => f.write_str("the medium does not return what was written"),
            Self::Changed => f.write_str("its content changed while it was sealed"),
            Self::Zone(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for SlotError {}

impl From<ZoneError> for SlotError {
    fn from(error: ZoneError) -> Self {
        Self::Zone(error)
    }
}

/// A header whose checksum and fields are sound; nothing of it is authentic before a segment has opened.
#[derive(Clone)]
pub struct Header {
    /// Everything before the zeros.
    bytes: [u8; FIELDS_BYTES],
    /// Of all before the checksum.
    digest: Digest,
}

impl Header {
    /// Reads the header at the start of `zone`, which must be a slot of this kind.
    ///
    /// # Errors
    /// `NoHeader`, `UnknownFormat`, `WrongKind`, `Malformed`, or what reading reports.
    pub fn read<Z: RawZone + ?Sized>(zone: &mut Z, kind: Kind) -> Result<Self, SlotError> {
        let length = zone.len()?;
        if length < HEADER_BYTES as u64 {
            return Err(SlotError::NoHeader);
        }
        let mut bytes = [0; HEADER_BYTES];
        read_exact_at(zone, 0, &mut bytes)?;
        let stored = u32::from_le_bytes([bytes[CRC_AT], bytes[CRC_AT + 1], bytes[CRC_AT + 2], bytes[CRC_AT + 3]]);
        if bytes[..8] != SLOT_MAGIC || stored != checksum(&bytes) {
            return Err(SlotError::NoHeader);
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format != SLOT_FORMAT {
            return Err(SlotError::UnknownFormat(format));
        }
        if bytes[10] != kind.code() {
            return Err(SlotError::WrongKind);
        }
        if !(MIN_SEGMENT_LOG2..=MAX_SEGMENT_LOG2).contains(&bytes[11]) {
            return Err(SlotError::Malformed);
        }
        let header = Self::of(&bytes);
        let stored_bytes = header.stored_bytes().ok_or(SlotError::Malformed)?;
        if stored_bytes > length - HEADER_BYTES as u64 { Err(SlotError::Malformed) } else { Ok(header) }
    }

    fn of(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut fields = [0; FIELDS_BYTES];
        fields.copy_from_slice(&bytes[..FIELDS_BYTES]);
        Self { bytes: fields, digest: Digest::of(&bytes[..CRC_AT]) }
    }

    /// The whole header of these fields.
    fn whole(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..FIELDS_BYTES].copy_from_slice(&self.bytes);
        let crc = checksum(&bytes);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn word(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(word)
    }

    /// Grows with each write; the highest that opens is the newest.
    pub fn generation(&self) -> u64 {
        self.word(16)
    }

    /// Bytes of the body, unsealed.
    pub fn body_bytes(&self) -> u64 {
        self.word(24)
    }

    /// Whose body it is.
    pub fn device_id(&self) -> DeviceId {
        let mut id = [0; DEVICE_ID_BYTES];
        id.copy_from_slice(&self.bytes[32..SALT_AT]);
        DeviceId(id)
    }

    /// Who can open it.
    pub fn key_slots(&self) -> [KeySlot; KEY_SLOTS] {
        let mut slots = [KeySlot::EMPTY; KEY_SLOTS];
        for (i, slot) in slots.iter_mut().enumerate() {
            let at = SLOTS_AT + i * KEY_SLOT_BYTES;
            slot.0.copy_from_slice(&self.bytes[at..at + KEY_SLOT_BYTES]);
        }
        slots
    }

    /// Bytes that header and body take in the slot; `None` where the header says nonsense.
    pub fn slot_bytes(&self) -> Option<u64> {
        self.stored_bytes()?.checked_add(HEADER_BYTES as u64)
    }

    fn segment_bytes(&self) -> u64 {
        1 << self.bytes[11]
    }

    fn segments(&self) -> u64 {
        self.body_bytes().div_ceil(self.segment_bytes()).max(1)
    }

    fn stored_bytes(&self) -> Option<u64> {
        u32::try_from(self.segments()).ok()?;
        self.body_bytes().checked_add(self.segments() * TAG_BYTES as u64)
    }

    fn salt(&self) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&self.bytes[SALT_AT..SLOTS_AT]);
        salt
    }

    fn cipher(&self, kind: Kind, identity: &Identity) -> BodyCipher {
        BodyCipher::new(&identity.device_key, kind.purpose(), &self.salt(), &self.digest)
    }

    /// Unlocks the identity with the product secret.
    ///
    /// # Errors
    /// `Locked`.
    #[inline(never)]
    pub fn unlock(&self, product_secret: &[u8], blocks: &mut [Block]) -> Result<Identity, SlotError> {
        let slots = self.key_slots();
        let identity =
            Identity::unlock(&slots, SlotKind::Unattended, product_secret, blocks).map_err(SlotError::Locked)?;
        if identity.device_id == self.device_id() { Ok(identity) } else { Err(SlotError::Malformed) }
    }
}

fn checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    // A table would be made on the stack each time, and take a kilobyte of it.
    crate::checksum::crc32(&header[..CRC_AT])
}

/// A sealed body, opened: reads and seeks over the plaintext, decrypting a segment at a time.
pub struct OpenSlot<'b, Z> {
    zone: Z,
    header: Header,
    cipher: BodyCipher,
    buffer: &'b mut [u8],
    loaded: Option<u32>,
    position: u64,
    fault: Option<SlotError>,
}

impl<'b, Z: RawZone> OpenSlot<'b, Z> {
    /// Opens the body under `header`, read from the start of `zone`. Each segment is authenticated when it is read, in
    /// `buffer`, which holds one with its tag ([`segment_buffer_bytes`]).
    pub fn new(zone: Z, kind: Kind, header: Header, identity: &Identity, buffer: &'b mut [u8]) -> Self {
        let cipher = header.cipher(kind, identity);
        Self { zone, header, cipher, buffer, loaded: None, position: 0, fault: None }
    }

    /// The header it was opened with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What a `read` that failed with `ZoneError::Corrupt` failed on.
    pub fn fault(&self) -> Option<SlotError> {
        self.fault
    }

    /// Reads the whole body, and so authenticates all of it.
    ///
    /// # Errors
    /// `Damaged`, or what reading reports.
    pub fn verify(&mut self) -> Result<(), SlotError> {
        (0..self.header.segments()).try_for_each(|segment| self.load(segment as u32).map(|_| ()))
    }

    /// Reads the whole body into `out` and returns the part that it fills.
    ///
    /// # Errors
    /// `TooLong` where `out` is too small, `Damaged`, or what reading reports.
    pub fn read_whole<'o>(&mut self, out: &'o mut [u8]) -> Result<&'o [u8], SlotError> {
        let length = usize::try_from(self.header.body_bytes()).map_err(|_| SlotError::TooLong)?;
        let out = out.get_mut(..length).ok_or(SlotError::TooLong)?;
        if length == 0 {
            // Even an empty body has a segment that authenticates it.
            self.load(0)?;
        }
        read_exact_at(self, 0, out).map_err(|error| self.fault.unwrap_or(SlotError::Zone(error)))?;
        Ok(out)
    }

    /// Decrypts a segment into the buffer; its plaintext length.
    fn load(&mut self, segment: u32) -> Result<usize, SlotError> {
        let segment_bytes = self.header.segment_bytes();
        let start = u64::from(segment) * segment_bytes;
        let length = (self.header.body_bytes() - start).min(segment_bytes) as usize;
        if self.loaded == Some(segment) {
            return Ok(length);
        }
        self.loaded = None;
        let too_small = SlotError::Segment(self.header.bytes[11]);
        let stored = self.buffer.get_mut(..length + TAG_BYTES).ok_or(too_small)?;
        let at = HEADER_BYTES as u64 + u64::from(segment) * (segment_bytes + TAG_BYTES as u64);
        read_exact_at(&mut self.zone, at, stored)?;
        let (text, tag_bytes) = stored.split_at_mut(length);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(tag_bytes);
        let last = u64::from(segment) + 1 == self.header.segments();
        self.cipher.open_segment(segment, last, text, &tag).map_err(|_| SlotError::Damaged { segment })?;
        self.loaded = Some(segment);
        Ok(length)
    }
}

impl<Z> ErrorType for OpenSlot<'_, Z> {
    type Error = ZoneError;
}

impl<Z: RawZone> Read for OpenSlot<'_, Z> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        if self.position >= self.header.body_bytes() || buf.is_empty() {
            return Ok(0);
        }
        let segment_bytes = self.header.segment_bytes();
        let segment = u32::try_from(self.position / segment_bytes).map_err(|_| ZoneError::OutOfBounds)?;
        let length = self.load(segment).map_err(|error| {
            self.fault = Some(error);
            if let SlotError::Zone(error) = error { error } else { ZoneError::Corrupt }
        })?;
        let within = (self.position % segment_bytes) as usize;
        let n = (length - within).min(buf.len());
        buf[..n].copy_from_slice(&self.buffer[within..within + n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl<Z: RawZone> Seek for OpenSlot<'_, Z> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.header.body_bytes())?;
        Ok(self.position)
    }
}

/// A plaintext that can be read twice: once for its digest, once to seal it.
pub trait Body {
    /// Bytes of the plaintext.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// What reading reports.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError>;
}

impl Body for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        let start = usize::try_from(offset).map_err(|_| ZoneError::OutOfBounds)?;
        let end = start.checked_add(buf.len()).ok_or(ZoneError::OutOfBounds)?;
        buf.copy_from_slice(self.get(start..end).ok_or(ZoneError::OutOfBounds)?);
        Ok(())
    }
}

/// Bytes that a slot takes for a body of `body_bytes` in segments of `2^segment_log2`.
pub fn slot_bytes(body_bytes: u64, segment_log2: u8) -> u64 {
    HEADER_BYTES as u64 + body_bytes + body_bytes.div_ceil(1 << segment_log2).max(1) * TAG_BYTES as u64
}

/// Bytes of a buffer that holds a segment of `2^segment_log2` with its tag.
pub const fn segment_buffer_bytes(segment_log2: u8) -> usize {
    (1 << segment_log2) + TAG_BYTES
}

/// What is written into a slot.
pub struct Write<'a> {
    /// Record or backup.
    pub kind: Kind,
    /// Higher than that of every slot this one is to supersede.
    pub generation: u64,
    /// Whose body it is.
    pub identity: &'a Identity,
    /// The segment size as a power of two, [`MIN_SEGMENT_LOG2`] to [`MAX_SEGMENT_LOG2`].
    pub segment_log2: u8,
}

impl Write<'_> {
    /// Seals `body` into the slot that is all of `zone`: erased where it has to be, body, flush, read back past the cache
    /// and opened, header, flush, read back. Every byte is written once. `buffer` holds a segment with its tag. Returns the
    /// bytes written.
    ///
    /// # Errors
    /// `TooLong` where the slot is too small, `Segment` where the buffer is, `ReadBack` where the medium lies, `Changed` where the body does, or what
    /// they report. There is no new header then.
    pub fn write<Z: RawZone>(&self, zone: &mut Z, body: &mut dyn Body, buffer: &mut [u8]) -> Result<u64, SlotError> {
        self.write_checked(zone, body, buffer, |open| open.verify())
    }

    /// As [`Self::write`], for a body of which more must hold than that it is read back as it was sealed: `check` does the
    /// reading back. It must read the whole body, and refuse one that may not stand in a slot; there is no new header then.
    ///
    /// # Errors
    /// As [`Self::write`], and what `check` returns.
    pub fn write_checked<Z: RawZone>(
        &self,
        zone: &mut Z,
        body: &mut dyn Body,
        buffer: &mut [u8],
        check: impl FnOnce(&mut OpenSlot<'_, &mut Z>) -> Result<(), SlotError>,
    ) -> Result<u64, SlotError> {
        if !(MIN_SEGMENT_LOG2..=MAX_SEGMENT_LOG2).contains(&self.segment_log2) {
            return Err(SlotError::Malformed);
        }
        if buffer.len() < segment_buffer_bytes(self.segment_log2) {
            return Err(SlotError::Segment(self.segment_log2));
        }
        let (header, plaintext) = self.header(body, buffer)?;
        let total = header.slot_bytes().ok_or(SlotError::TooLong)?;
        let zone_bytes = zone.len()?;
        if total > zone_bytes {
            return Err(SlotError::TooLong);
        }
        zone.erase(0..zone_bytes)?;
        let cipher = header.cipher(self.kind, self.identity);
        let segment_bytes = header.segment_bytes();
        let segments = header.segments();
        let mut hasher = Hasher::new();
        for segment in 0..segments {
            let start = segment * segment_bytes;
            let length = (header.body_bytes() - start).min(segment_bytes) as usize;
            body.read_at(start, &mut buffer[..length])?;
            hasher.update(&buffer[..length]);
            let tag = cipher.seal_segment(segment as u32, segment + 1 == segments, &mut buffer[..length]);
            buffer[length..length + TAG_BYTES].copy_from_slice(&tag);
            let at = HEADER_BYTES as u64 + segment * (segment_bytes + TAG_BYTES as u64);
            write_all_at(zone, at, &buffer[..length + TAG_BYTES])?;
        }
        // The key follows from the plaintext: other bytes under it would be a second message for one key and nonce.
        if hasher.finish() != plaintext {
            return Err(SlotError::Changed);
        }
        zone.flush()?;
        zone.drop_caches()?;
        let mut open = OpenSlot::new(&mut *zone, self.kind, header.clone(), self.identity, buffer);
        check(&mut open).map_err(|error| match open.fault().unwrap_or(error) {
            SlotError::Damaged { .. } => SlotError::ReadBack,
            _ => error,
        })?;
        let bytes = header.whole();
        write_all_at(zone, 0, &bytes)?;
        zone.flush()?;
        zone.drop_caches()?;
        let mut back = [0; 512];
        for (i, written) in bytes.chunks(back.len()).enumerate() {
            read_exact_at(zone, (i * back.len()) as u64, &mut back)?;
            if back != *written {
                return Err(SlotError::ReadBack);
            }
        }
        Ok(total)
    }

    /// The header for `body`, and the digest of the plaintext from which its salt was made.
    fn header(&self, body: &mut dyn Body, buffer: &mut [u8]) -> Result<(Header, Digest), SlotError> {
        let mut hasher = Hasher::new();
        let mut offset = 0;
        while offset < body.len() {
            let take = (body.len() - offset).min(buffer.len() as u64) as usize;
            body.read_at(offset, &mut buffer[..take])?;
            hasher.update(&buffer[..take]);
            offset += take as u64;
        }
        let plaintext: Digest = hasher.finish();
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&SLOT_MAGIC);
        bytes[8..10].copy_from_slice(&SLOT_FORMAT.to_le_bytes());
        bytes[10] = self.kind.code();
        bytes[11] = self.segment_log2;
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&body.len().to_le_bytes());
        bytes[32..SALT_AT].copy_from_slice(&self.identity.device_id.0);
        for (i, slot) in self.identity.slots.iter().enumerate() {
            let at = SLOTS_AT + i * KEY_SLOT_BYTES;
            bytes[at..at + KEY_SLOT_BYTES].copy_from_slice(&slot.0);
        }
        let salt = synthetic_salt(&self.identity.device_key, self.kind.purpose(), &bytes[..CRC_AT], &plaintext);
        bytes[SALT_AT..SLOTS_AT].copy_from_slice(&salt);
        Ok((Header::of(&bytes), plaintext))
    }
}
