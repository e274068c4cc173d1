//! Files of a store that nothing signed names, and since when: they are deleted once no device can be fetching them.
//!
//! `.gc.json` at the store's root is the writer's own. It says only since when; what may be deleted is what is found to be
//! unnamed at that moment, so a list that was lost or changed costs time, never a file that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::mirror::list;
use crate::store_files::{DOOMED, StoreWriter, TIMESTAMP, json, read_small, sync_dir};

/// The format's number.
const FORMAT: u32 = 1;
/// The longest list that is read, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// The list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Doomed {
    /// Since when nothing names a file, seconds since 1970, by its path.
    files: BTreeMap<String, i64>,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    format: u32,
    unnamed_since: BTreeMap<String, i64>,
}

impl Doomed {
    /// The list of the store at `root`; an empty one where there is none.
    ///
    /// # Errors
    /// `Malformed`, `UnknownFormat`, `Io`.
    pub(crate) fn read(root: &Path) -> Result<Self, StoreError> {
        let path = root.join(DOOMED);
        let Some(bytes) = read_small(&path, MAX_BYTES)? else { return Ok(Self::default()) };
        let object = || path.display().to_string();
        let encoded: Encoded = serde_json::from_slice(&bytes).map_err(|error| {
            StoreError::malformed(object(), format!("{error}; delete it, and the grace period begins anew"))
        })?;
        if encoded.format != FORMAT {
            let format = encoded.format.try_into().unwrap_or(u16::MAX);
            return Err(StoreError::UnknownFormat { object: object(), format });
        }
        Ok(Self { files: encoded.unnamed_since })
    }

    /// Whether the list has the file at `path`.
    pub(crate) fn lists(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The files on it.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.files.keys()
    }

    /// The list once just the files in `unnamed` are on it: those that are new to it since `now`.
    pub(crate) fn updated<'p>(&self, unnamed: impl Iterator<Item = &'p String>, now: i64) -> Self {
        let since = |path: &String| self.files.get(path).map_or(now, |since| now.min(*since));
        Self { files: unnamed.map(|path| (path.clone(), since(path))).collect() }
    }

    /// The files that have been on it for `grace_secs`.
    pub(crate) fn due(&self, now: i64, grace_secs: i64) -> BTreeSet<String> {
        let is_due = |since: &i64| now.saturating_sub(*since) >= grace_secs;
        self.files.iter().filter(|(_, since)| is_due(since)).map(|(path, _)| path.clone()).collect()
    }

    /// Writes it in place of the one that is there, `before`; where nothing is on it there is no file.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn write(&self, before: &Self, writer: &StoreWriter) -> Result<(), StoreError> {
        if self == before {
            return Ok(());
        }
        if self.files.is_empty() {
            return remove(&writer.at(DOOMED));
        }
        writer.replace(DOOMED, &json(&Encoded { format: FORMAT, unnamed_since: self.files.clone() }))
    }
}

/// Deletes the files at `paths`, and directories of packs that are empty then.
///
/// # Errors
/// `Io`.
pub(super) fn delete(writer: &StoreWriter, paths: &BTreeSet<String>) -> Result<(), StoreError> {
    let mut directories = BTreeSet::new();
    for path in paths {
        let place = writer.at(path);
        remove(&place)?;
        directories.extend(place.parent().map(Path::to_owned));
    }
    for directory in directories {
        let holds_packs = directory.parent() == Some(&writer.at("packs"));
        // One that still holds something stays.
        if !(holds_packs && fs::remove_dir(&directory).is_ok()) {
            sync_dir(&directory)?;
        }
    }
    Ok(())
}

fn remove(place: &Path) -> Result<(), StoreError> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", place)(error)),
        _ => Ok(()),
    }
}

/// The files of the store at `root`, with their lengths. What is foreign to a store is left out.
///
/// # Errors
/// `Io`.
pub(crate) fn files(root: &Path) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut found: BTreeMap<String, u64> = list(root)?.into_iter().map(|item| (item.path, item.bytes)).collect();
    let place = root.join(TIMESTAMP);
    match fs::metadata(&place) {
        Ok(metadata) => drop(found.insert(TIMESTAMP.to_owned(), metadata.len())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::io("read", &place)(error)),
    }
    Ok(found)
}

/// Whether signed metadata may no longer name the metadata file at `path`: not the timestamp, and none of the roots, which
/// lead devices from the one they were given to the newest.
pub(super) fn may_go(path: &str) -> bool {
    path != TIMESTAMP && !path.ends_with(".root.json")
}
