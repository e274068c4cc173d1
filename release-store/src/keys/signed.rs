//! What was signed last with a directory of keys, for each store: `KEYS/signed.json`.
//!
//! A device refuses whatever is older than what it has seen. So a store that was put back from a backup, or made anew where one
//! was lost, would reach no device any more, and nothing in it says so: the keys' side has to remember.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{KeyDir, write_public};
use crate::error::StoreError;
use crate::store_files::{json, read_small, sync_dir};

const SIGNED_FILE: &str = "signed.json";
const MAX_SIGNED_FILE_BYTES: u64 = 1 << 20;
/// So many stores are remembered; of more, those that are no longer there are forgotten.
const MAX_STORES: usize = 200;
const FORMAT: u16 = 1;

/// The highest numbers that were signed for a store; 0: none was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedLast {
    /// Of its timestamp.
    pub timestamp: u64,
    /// Of its snapshot.
    pub snapshot: u64,
    /// Of its targets.
    pub targets: u64,
    /// Of its archive.
    pub archive: u64,
    /// Of a release.
    pub serial: u64,
    /// Of the root whose keys signed.
    pub root: u64,
}

#[derive(Serialize, Deserialize)]
struct SignedFile {
    format: u16,
    /// By the store's path, without links.
    stores: BTreeMap<String, SignedLast>,
}

impl SignedLast {
    /// The higher of each of the numbers.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            timestamp: self.timestamp.max(other.timestamp),
            snapshot: self.snapshot.max(other.snapshot),
            targets: self.targets.max(other.targets),
            archive: self.archive.max(other.archive),
            serial: self.serial.max(other.serial),
            root: self.root.max(other.root),
        }
    }
}

impl KeyDir {
    /// What was signed last for the store at `store`. Nothing where no file says so, or one that is damaged: it is a help, and no
    /// condition.
    ///
    /// # Errors
    /// `Io`.
    pub fn signed_last(&self, store: &Path) -> Result<SignedLast, StoreError> {
        Ok(self.signed()?.remove(&key_of(store)?).unwrap_or_default())
    }

    /// The stores that something was signed for, by path.
    ///
    /// # Errors
    /// `Io`.
    pub fn stores_signed(&self) -> Result<Vec<PathBuf>, StoreError> {
        Ok(self.signed()?.into_keys().map(PathBuf::from).collect())
    }

    /// Remembers what was signed for the store at `store`.
    pub(crate) fn remember_signed(&self, store: &Path, signed: SignedLast) -> Result<(), StoreError> {
        let (mut stores, key) = (self.signed()?, key_of(store)?);
        if stores.get(&key) == Some(&signed) {
            return Ok(());
        }
        stores.insert(key, signed);
        if stores.len() > MAX_STORES {
            stores.retain(|path, _| Path::new(path).exists());
        }
        // Another store's command may be at it, too.
        let beside = self.path().join(format!("{SIGNED_FILE}.{}", std::process::id()));
        let path = self.path().join(SIGNED_FILE);
        write_public(&beside, &json(&SignedFile { format: FORMAT, stores }))?;
        fs::rename(&beside, &path).map_err(StoreError::io("rename", &path))?;
        sync_dir(self.path())
    }

    fn signed(&self) -> Result<BTreeMap<String, SignedLast>, StoreError> {
        let path = self.path().join(SIGNED_FILE);
        let Some(bytes) = read_small(&path, MAX_SIGNED_FILE_BYTES)? else { return Ok(BTreeMap::new()) };
        let file = serde_json::from_slice::<SignedFile>(&bytes).ok().filter(|file| file.format == FORMAT);
        Ok(file.map(|file| file.stores).unwrap_or_default())
    }
}

fn key_of(store: &Path) -> Result<String, StoreError> {
    let path = fs::canonicalize(store).map_err(StoreError::io("find", store))?;
    Ok(path.to_string_lossy().into_owned())
}
