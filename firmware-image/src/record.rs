//! The version record: what a device knows of its release and of what it must never go below (postcard, sealed in a
//! record slot; `docs/formats/hidden-zone.md`).
//!
//! A record is sealed, not signed: whoever holds the whole device could forge one. So nothing in it counts that lowers
//! or raises a limit, except by the signed statement it carries: the floors by an updater's trailer, the versions of
//! TUF's roles by the metadata files themselves.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::key_slot::DeviceId;
use crate::signature::PublicKey;
use crate::updater_image::{self, Floors};

/// The longest record that a reader accepts, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 << 10;
/// Modules in a record.
pub const MAX_MODULES: usize = 16;
/// Serials that a device skips.
pub const MAX_SKIPPED: usize = 16;
/// Content keys in a record, besides the factory's.
pub const MAX_CONTENT_KEYS: usize = 8;

/// A release as a device remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release<'a> {
    /// Grows by one with each publication; what is compared.
    pub serial: u64,
    /// What people call it.
    pub version: &'a str,
    /// SHA-256 of the encoded manifest, as its signed statement names it.
    pub manifest: Digest,
    /// When it was published, in seconds since 1970 (UTC).
    pub published: u64,
}

/// A module's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleVersion<'a> {
    /// The module.
    pub id: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// A content key learned in the field.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredContentKey {
    /// Its number.
    pub number: u32,
    /// The key.
    #[serde(with = "crate::byte_array")]
    pub key: [u8; 32],
}

impl core::fmt::Debug for StoredContentKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "StoredContentKey({}, …)", self.number)
    }
}

/// Whether the installed release has shown that it works (X8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// Not yet; so many starts have failed.
    Unproven {
        /// Starts in a row that ended in a fault.
        failed_starts: u8,
    },
    /// It has run well once.
    Proven,
}

/// The version record. New fields are appended; a reader skips what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord<'a> {
    /// The device this record was made for.
    pub device_id: DeviceId,
    /// The installed release; `None` before the first.
    #[serde(borrow)]
    pub release: Option<Release<'a>>,
    /// The release before it, to go back to.
    pub previous: Option<Release<'a>>,
    /// Whether the installed release has proven itself.
    pub health: Health,
    /// A person chose the installed release: nothing newer is taken by itself.
    pub held: bool,
    /// Serials that failed here and are not taken again.
    pub skipped: heapless::Vec<u64, MAX_SKIPPED>,
    /// Module versions of the installed release.
    pub modules: heapless::Vec<ModuleVersion<'a>, MAX_MODULES>,
    /// The generation of the backup that goes with this record; a hint.
    pub backup_generation: u64,
    /// The trailer of the updater image that raised the floors; empty: none has.
    pub statement: &'a [u8],
    /// The newest accepted TUF root, timestamp and snapshot, as they were served; empty: none yet.
    pub root: &'a [u8],
    /// See `root`.
    pub timestamp: &'a [u8],
    /// See `root`.
    pub snapshot: &'a [u8],
    /// Content keys learned in the field.
    pub content_keys: heapless::Vec<StoredContentKey, MAX_CONTENT_KEYS>,
}

/// The bytes are not a version record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedRecord;

impl<'a> VersionRecord<'a> {
    /// A record of a device that has no release yet.
    pub fn new(device_id: DeviceId) -> Self {
        Self {
            device_id,
            release: None,
            previous: None,
            health: Health::Proven,
            held: false,
            skipped: heapless::Vec::new(),
            modules: heapless::Vec::new(),
            backup_generation: 0,
            statement: &[],
            root: &[],
            timestamp: &[],
            snapshot: &[],
            content_keys: heapless::Vec::new(),
        }
    }

    /// Reads a record; fields that a later format appended are skipped.
    ///
    /// # Errors
    /// [`MalformedRecord`].
    #[inline(never)]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MalformedRecord> {
        postcard::take_from_bytes(bytes).map(|(record, _appended)| record).map_err(|_| MalformedRecord)
    }

    /// Writes the record into `out` and returns the part that it fills.
    ///
    /// # Errors
    /// [`MalformedRecord`] where `out` is too small or the record longer than [`MAX_RECORD_BYTES`].
    pub fn encode<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], MalformedRecord> {
        let written = postcard::to_slice(self, out).map_err(|_| MalformedRecord)?;
        if written.len() > MAX_RECORD_BYTES { Err(MalformedRecord) } else { Ok(written) }
    }

    /// The floors that this record's signed statement raises; zero where it carries none that holds.
    pub fn floors(&self, vendor: &PublicKey, product: &str) -> Floors {
        match updater_image::authenticate(self.statement, vendor) {
            Ok(trailer) if trailer.body().product == product => trailer.body().floors,
            _ => Floors::default(),
        }
    }
}
