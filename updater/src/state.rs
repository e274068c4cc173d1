//! The version record as the engine works on it: owned, and compared with what was read, so that nothing is written
//! when nothing changed.

use firmware_image::Digest;
use firmware_image::key_slot::DeviceId;
use firmware_image::record::{
    Health, MAX_MODULES, MAX_RECORD_BYTES, MAX_SKIPPED, ModuleVersion, Release as RecordRelease, StoredContentKey,
    VersionRecord,
};
use serde::{Deserialize, Serialize};

use crate::error::EngineError;

/// A release as the device remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRelease {
    /// Its serial.
    pub serial: u64,
    /// Its version, for people.
    pub version: String,
    /// SHA-256 of its encoded manifest.
    pub manifest: Digest,
    /// When it was published, seconds since 1970.
    pub published: u64,
}

impl From<&release_store::trust::Release> for KnownRelease {
    fn from(release: &release_store::trust::Release) -> Self {
        Self {
            serial: release.serial,
            version: release.version.clone(),
            manifest: release.manifest,
            published: u64::try_from(release.published).unwrap_or(0),
        }
    }
}

/// The record, owned. See [`VersionRecord`] for the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The device this record was made for.
    pub device_id: DeviceId,
    /// The installed release.
    pub release: Option<KnownRelease>,
    /// The release before it.
    pub previous: Option<KnownRelease>,
    /// Whether the installed release has proven itself.
    pub health: Health,
    /// A person chose the installed release.
    pub held: bool,
    /// Serials that are not taken again.
    pub skipped: Vec<u64>,
    /// Module ids and versions of the installed release.
    pub modules: Vec<(String, String)>,
    /// The generation of the backup that goes with the record.
    pub backup_generation: u64,
    /// The trailer that raised the floors.
    pub statement: Vec<u8>,
    /// The newest accepted TUF root.
    pub root: Vec<u8>,
    /// The newest accepted TUF timestamp.
    pub timestamp: Vec<u8>,
    /// The newest accepted TUF snapshot.
    pub snapshot: Vec<u8>,
    /// Content keys learned in the field.
    pub content_keys: Vec<StoredContentKey>,
}

impl State {
    /// The state of a device that has no release.
    pub fn new(device_id: DeviceId) -> Self {
        Self::from_record(&VersionRecord::new(device_id))
    }

    /// What a record says.
    pub fn from_record(record: &VersionRecord<'_>) -> Self {
        let owned = |release: &RecordRelease<'_>| KnownRelease {
            serial: release.serial,
            version: release.version.to_owned(),
            manifest: release.manifest,
            published: release.published,
        };
        Self {
            device_id: record.device_id,
            release: record.release.as_ref().map(owned),
            previous: record.previous.as_ref().map(owned),
            health: record.health,
            held: record.held,
            skipped: record.skipped.to_vec(),
            modules: record.modules.iter().map(|module| (module.id.to_owned(), module.version.to_owned())).collect(),
            backup_generation: record.backup_generation,
            statement: record.statement.to_vec(),
            root: record.root.to_vec(),
            timestamp: record.timestamp.to_vec(),
            snapshot: record.snapshot.to_vec(),
            content_keys: record.content_keys.to_vec(),
        }
    }

    /// The record's bytes. Where there are more modules than a record holds, the first ones: the list informs, the
    /// manifest decides.
    ///
    /// # Errors
    /// `Internal` where the record would be longer than a reader accepts.
    pub fn encode(&self) -> Result<Vec<u8>, EngineError> {
        fn borrowed(release: &KnownRelease) -> RecordRelease<'_> {
            RecordRelease {
                serial: release.serial,
                version: &release.version,
                manifest: release.manifest,
                published: release.published,
            }
        }
        let mut record = VersionRecord::new(self.device_id);
        record.release = self.release.as_ref().map(borrowed);
        record.previous = self.previous.as_ref().map(borrowed);
        record.health = self.health;
        record.held = self.held;
        record.skipped = self.skipped.iter().rev().take(MAX_SKIPPED).rev().copied().collect();
        record.modules =
            self.modules.iter().take(MAX_MODULES).map(|(id, version)| ModuleVersion { id, version }).collect();
        record.backup_generation = self.backup_generation;
        record.statement = &self.statement;
        record.root = &self.root;
        record.timestamp = &self.timestamp;
        record.snapshot = &self.snapshot;
        record.content_keys =
            self.content_keys.iter().copied().take(firmware_image::record::MAX_CONTENT_KEYS).collect();
        let mut out = vec![0; MAX_RECORD_BYTES];
        let encode = |record: &VersionRecord<'_>, out: &mut [u8]| record.encode(out).map(<[u8]>::len);
        let length = match encode(&record, &mut out) {
            Ok(length) => length,
            Err(_) => {
                // A store's metadata may be longer than a record: rather no floor from it than no record.
                record.snapshot = &[];
                record.timestamp = &[];
                encode(&record, &mut out).map_err(|_| EngineError::Internal("the version record is too long"))?
            }
        };
        out.truncate(length);
        Ok(out)
    }

    /// Whether `serial` failed here before.
    pub fn skips(&self, serial: u64) -> bool {
        self.skipped.contains(&serial)
    }

    /// Remembers that `serial` failed here; forgets the oldest where there are too many.
    pub fn skip(&mut self, serial: u64) {
        if self.skips(serial) {
            return;
        }
        if self.skipped.len() >= MAX_SKIPPED {
            self.skipped.remove(0);
        }
        self.skipped.push(serial);
    }
}
