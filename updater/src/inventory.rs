//! What stands in the managed directory, compared with what a release wants there (D5, F2, P2).
//!
//! Names are compared as FAT and Windows do, without case, wherever the zone itself does so. Files that match the
//! release's ignore patterns, and files with the policy *seed* that exist, are the user's own: they are not even read.

use std::collections::{HashMap, HashSet};

use firmware_image::free_zone::{FreeZone, Kind};
use firmware_image::{Digest, ZoneError, paths};
use release_store::Manifest;
use release_store::manifest::{FileEntry, Policy};
use release_store::paths::fold;

use crate::error::EngineError;
use crate::hash::HashFiles;
use crate::host::Watch;
use crate::zone_io::{self, Entry};

/// How a file stands to the release that is wanted (P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// As the release has it.
    Current,
    /// The user's own.
    Ignored,
    /// As the installed release has it; the wanted one has another.
    Outdated,
    /// Not there.
    Missing,
    /// Changed by somebody else: an alarm.
    Modified,
}

impl std::fmt::Display for FileState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Current => "current",
            Self::Ignored => "ignored",
            Self::Outdated => "outdated",
            Self::Missing => "missing",
            Self::Modified => "modified",
        })
    }
}

/// A file of the wanted release.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its place in the manifest's files.
    pub file: usize,
    /// How it stands.
    pub state: FileState,
    /// What stands at its path: length and, where it was computed, digest.
    pub found: Option<(u64, Option<Digest>)>,
}

/// A file that the release does not list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlisted {
    /// Its path below the managed directory.
    pub path: String,
    /// Its length.
    pub length: u64,
    /// Why it counts as a program; `None`: it does not, and is left alone.
    pub executable: Option<&'static str>,
}

/// A file of the installed release that the wanted one has no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its path below the managed directory, as it stands there.
    pub path: String,
    /// Its length.
    pub length: u64,
    /// What the installed release has there; the file itself was not read.
    pub believed: Digest,
}

/// The managed directory against a release.
#[derive(Debug, Default)]
pub struct Inventory {
    /// One item a file of the release, in the manifest's order.
    pub items: Vec<Item>,
    /// What the release has no more.
    pub gone: Vec<Gone>,
    /// What no release lists.
    pub unlisted: Vec<Unlisted>,
    /// Files of the release that stand there in another spelling, on a zone that keeps spellings.
    pub misspelled: Vec<String>,
    /// How many files and directories there are.
    pub entries: usize,
    /// Directories that no release can have made, and that were not looked through.
    pub skipped: Vec<String>,
}

impl Inventory {
    /// Whether the release stands there whole.
    pub fn is_whole(&self) -> bool {
        let whole = |item: &Item| matches!(item.state, FileState::Current | FileState::Ignored);
        self.items.iter().all(whole)
    }

    /// Paths of what no release lists and could be run.
    pub fn unlisted_programs(&self) -> Vec<String> {
        let programs = self.unlisted.iter().filter(|file| file.executable.is_some());
        programs.map(|file| file.path.clone()).collect()
    }

    /// How many files are in a state.
    pub fn count(&self, state: FileState) -> usize {
        self.items.iter().filter(|item| item.state == state).count()
    }
}

/// The path in the zone of a path below the managed directory.
pub fn client_path(path: &str) -> String {
    format!("{}/{path}", paths::CLIENT_DIR)
}

/// Compares the managed directory with `goal`. `installed` tells outdated files from modified ones, and what is gone.
///
/// # Errors
/// What reading reports.
pub fn survey<F: FreeZone>(
    zone: &F,
    goal: &Manifest,
    installed: Option<&Manifest>,
    hash: HashFiles<F>,
    watch: &dyn Watch,
) -> Result<Inventory, EngineError> {
    let ignore = goal.ignore_patterns()?;
    let zone_io::Walked { mut entries, skipped } = zone_io::walk(zone, paths::CLIENT_DIR)?;
    if !skipped.is_empty() {
        add_unseen(zone, &mut entries, goal.files.iter().chain(installed.into_iter().flat_map(|old| &old.files)));
    }
    let exact: HashMap<&str, usize> = entries.iter().enumerate().map(|(at, entry)| (entry.path.as_str(), at)).collect();
    let mut folded: HashMap<String, usize> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        folded.entry(fold(&entry.path)).or_insert(at);
    }
    // Where a path stands: under its own spelling, or under another one that the zone takes for the same.
    let locate = |path: &str| -> Result<Option<usize>, EngineError> {
        if let Some(at) = exact.get(path) {
            return Ok(Some(*at));
        }
        let Some(at) = folded.get(&fold(path)) else { return Ok(None) };
        let full = client_path(path);
        let same = match zone.metadata(&full) {
            Ok(found) => found.is_some(),
            Err(ZoneError::BadPath) => false,
            Err(error) => return Err(EngineError::zone("read", &full)(error)),
        };
        Ok(same.then_some(*at))
    };

    let mut inventory = Inventory { skipped, entries: entries.len(), ..Inventory::default() };
    let mut listed = HashSet::new();
    let mut to_hash: Vec<String> = Vec::new();
    let mut hashed_items: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for (file, wanted) in goal.files.iter().enumerate() {
        let at = locate(&wanted.path)?;
        listed.extend(at);
        if zone.spells_exactly() && at.is_some_and(|at| entries[at].path != wanted.path) {
            inventory.misspelled.push(wanted.path.clone());
        }
        let standing = at.map(|at| entries[at].metadata).filter(|metadata| metadata.kind == Kind::File);
        let own = wanted.policy == Policy::Seed || ignore.matches(&wanted.path);
        let old = installed.and_then(|manifest| manifest.file(&wanted.path));
        let (state, found) = match standing {
            None if at.is_some() && own => (FileState::Ignored, None),
            None if at.is_some() => (FileState::Modified, None),
            None => (FileState::Missing, None),
            Some(metadata) if own => (FileState::Ignored, Some((metadata.length, None))),
            Some(metadata) => {
                let length = metadata.length;
                if length == wanted.size || old.is_some_and(|old| old.size == length) {
                    hashed_items.push(inventory.items.len());
                    to_hash.push(client_path(&wanted.path));
                    bytes += length;
                }
                (FileState::Modified, Some((length, None)))
            }
        };
        inventory.items.push(Item { file, state, found });
    }

    watch.begin("Comparing files", bytes);
    let hashes = hash(zone, &to_hash, watch);
    watch.end();
    for ((item, path), hashed) in hashed_items.into_iter().zip(&to_hash).zip(hashes) {
        let item = &mut inventory.items[item];
        let wanted = &goal.files[item.file];
        let old = installed.and_then(|manifest| manifest.file(&wanted.path));
        match hashed {
            Ok(Some((length, digest))) => {
                item.found = Some((length, Some(digest)));
                item.state = if digest == wanted.sha256 && length == wanted.size {
                    FileState::Current
                } else if old.is_some_and(|old| old.sha256 == digest) {
                    FileState::Outdated
                } else {
                    FileState::Modified
                };
            }
            Ok(None) => (item.state, item.found) = (FileState::Missing, None),
            // A sector that cannot be read is damage like any other, and so is what a scanner lets nobody read: writing the file
            // anew is the cure.
            Err(ZoneError::Io(_) | ZoneError::Corrupt | ZoneError::OutOfBounds | ZoneError::Denied) => {}
            Err(error) => return Err(EngineError::zone("read", path)(error)),
        }
    }

    for old in installed.into_iter().flat_map(|manifest| &manifest.files) {
        if old.policy == Policy::Seed || ignore.matches(&old.path) || goal.file(&old.path).is_some() {
            continue;
        }
        let Some(at) = locate(&old.path)? else { continue };
        if entries[at].metadata.kind == Kind::File && listed.insert(at) {
            let (path, length) = (entries[at].path.clone(), entries[at].metadata.length);
            inventory.gone.push(Gone { path, length, believed: old.sha256 });
        }
    }

    for (at, entry) in entries.iter().enumerate() {
        if entry.metadata.kind == Kind::Directory || listed.contains(&at) || ignore.matches(&entry.path) {
            continue;
        }
        let executable = match entry.metadata.kind {
            Kind::File => crate::quarantine::is_program(zone, &entry.path),
            // A link leads wherever it likes.
            Kind::Other | Kind::Directory => crate::quarantine::program_ending(&entry.path),
        };
        let (path, length) = (entry.path.clone(), entry.metadata.length);
        inventory.unlisted.push(Unlisted { path, length, executable });
    }
    Ok(inventory)
}

/// Adds the files of releases that a walk did not get to see, because something else used up what a walk may take in.
fn add_unseen<'m, F: FreeZone>(zone: &F, entries: &mut Vec<Entry>, files: impl Iterator<Item = &'m FileEntry>) {
    let mut seen: HashSet<String> = entries.iter().map(|entry| fold(&entry.path)).collect();
    for file in files {
        if !seen.insert(fold(&file.path)) {
            continue;
        }
        // What cannot be asked for counts as missing, and writing it says why.
        if let Ok(Some(metadata)) = zone.metadata(&client_path(&file.path)) {
            entries.push(Entry { path: file.path.clone(), metadata });
        }
    }
}
