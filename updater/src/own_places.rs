//! The updater's own names in the free zone: what stands there and is of no use is out of the way before anything is written.
//!
//! On FAT one byte of an entry makes a file of a directory, or a directory of a file. All that is in [`paths::STATE_DIR`] can be
//! made again; what else has one of our names is set aside, as it may be somebody's.

use std::ops::ControlFlow;

use firmware_image::free_zone::{FreeZone, Kind};
use firmware_image::{ZoneError, paths};

use crate::error::EngineError;
use crate::quarantine;
use crate::zone_io::{self, parent};

/// Our directories in [`paths::STATE_DIR`], but for the mirrors'.
const DIRECTORIES: [&str; 5] =
    [paths::QUARANTINE_DIR, paths::STAGING_DIR, paths::UNDO_DIR, paths::TRUST_DIR, paths::ASIDE_DIR];
/// Our files with names that never change.
const FILES: [&str; 17] = [
    paths::JOURNAL,
    paths::RECORD_MIRROR,
    paths::RECORD_MIRROR_NEW,
    paths::BACKUP_MIRROR,
    paths::MANIFEST,
    paths::PREVIOUS_MANIFEST,
    paths::STATEMENT,
    paths::PREVIOUS_STATEMENT,
    paths::CHUNK_LIST,
    paths::CONFIG_COPY,
    paths::REFUSED_UPDATERS,
    paths::CLIENT_LOCK,
    paths::LOG,
    paths::OLD_LOG,
    paths::LAUNCHER_NOTE,
    crate::spool::SPOOL,
    crate::commit::COMMIT_PLAN,
];
/// What a file with the name of [`paths::STATE_DIR`] or [`paths::CLIENT_DIR`] is called from then on.
const FOUND: &str = "holdfast-found";
/// So many of those are kept.
const MAX_FOUND: usize = 100;

/// Clears the way to all of them. What was done to what a person may miss, in words.
///
/// # Errors
/// What the zone reports.
pub fn clear<F: FreeZone>(zone: &F) -> Result<Vec<String>, EngineError> {
    let mut told: Vec<String> = clear_state_dir(zone)?.into_iter().collect();
    told.extend(clear_directory(zone, paths::CLIENT_DIR)?);
    for directory in DIRECTORIES.into_iter().chain([parent(paths::RECORD_MIRROR)]) {
        let found = zone.metadata(directory);
        match found {
            Ok(None) | Err(ZoneError::Corrupt) => {}
            Ok(Some(found)) if found.kind == Kind::Directory => {}
            Ok(Some(_)) => {
                zone_io::remove(zone, directory)?;
            }
            Err(error) => return Err(EngineError::zone("read", directory)(error)),
        }
    }
    clear_files(zone, &mut told)?;
    remove_broken(zone)?;
    Ok(told)
}

/// Moves directories away that stand where a file of ours belongs.
fn clear_files<F: FreeZone>(zone: &F, told: &mut Vec<String>) -> Result<(), EngineError> {
    for directory in [paths::STATE_DIR, paths::STAGING_DIR, paths::TRUST_DIR, parent(paths::RECORD_MIRROR)] {
        let mut wrong = Vec::new();
        let listed = zone.list(directory, &mut |name, metadata| {
            let path = zone_io::joined(directory, name);
            if metadata.kind == Kind::Directory && FILES.contains(&path.as_str()) {
                wrong.push(path);
            }
            ControlFlow::Continue(())
        });
        if !matches!(listed, Ok(()) | Err(ZoneError::Corrupt)) {
            listed.map_err(EngineError::zone("list", directory))?;
        }
        for path in wrong {
            told.extend(make_way(zone, &path)?);
        }
    }
    Ok(())
}

/// Moves a directory away that stands where the file at `path` belongs. What was done, in words.
///
/// # Errors
/// What the zone reports.
pub fn make_way<F: FreeZone>(zone: &F, path: &str) -> Result<Option<String>, EngineError> {
    let found = zone.metadata(path).map_err(EngineError::zone("read", path))?;
    if found.is_none_or(|found| found.kind != Kind::Directory) {
        return Ok(None);
    }
    let place = quarantine::move_away(zone, path)?;
    Ok(Some(format!("{path} was a directory: it was moved to {place}")))
}

/// Takes what is no file out of the place of [`paths::DEVICE_LOCK`], which must be had before all else is looked at.
///
/// # Errors
/// What the zone reports.
pub fn clear_lock<F: FreeZone>(zone: &F) -> Result<(), EngineError> {
    let found = zone.metadata(paths::DEVICE_LOCK).map_err(EngineError::zone("read", paths::DEVICE_LOCK))?;
    match found.map(|found| found.kind) {
        Some(Kind::Directory) => make_way(zone, paths::DEVICE_LOCK).map(|_| ()),
        Some(Kind::Other) => zone_io::remove(zone, paths::DEVICE_LOCK).map(|_| ()),
        Some(Kind::File) | None => Ok(()),
    }
}

/// Takes what is no directory out of the place of [`paths::STATE_DIR`].
///
/// # Errors
/// What the zone reports.
pub fn clear_state_dir<F: FreeZone>(zone: &F) -> Result<Option<String>, EngineError> {
    clear_directory(zone, paths::STATE_DIR)
}

/// Takes what is no directory out of the place of one: an empty file goes, any other gets another name. What was done, in words, where
/// it matters.
fn clear_directory<F: FreeZone>(zone: &F, path: &str) -> Result<Option<String>, EngineError> {
    let found = match zone.metadata(path) {
        Err(ZoneError::Corrupt) => return Ok(None),
        found => found.map_err(EngineError::zone("read", path))?,
    };
    match found {
        Some(found) if found.kind == Kind::File && found.length > 0 => {
            let name = rename_found(zone, path)?;
            Ok(Some(format!("{path} was a file: it is {name} now")))
        }
        Some(found) if found.kind != Kind::Directory => zone_io::remove(zone, path).map(|_| None),
        _ => Ok(None),
    }
}

/// Gives a file that has the name of our directory another one.
fn rename_found<F: FreeZone>(zone: &F, path: &str) -> Result<String, EngineError> {
    for name in (1..=MAX_FOUND).map(|number| format!("{FOUND}-{number}")) {
        if zone.metadata(&name).map_err(EngineError::zone("read", &name))?.is_none() {
            zone.rename(path, &name).map_err(EngineError::zone("move", path))?;
            zone_io::sync_parents(zone, &name)?;
            return Ok(name);
        }
    }
    Err(EngineError::zone("move", path)(ZoneError::Full))
}

/// Removes what a cut has broken of the updater's own files: all of it can be made again.
fn remove_broken<F: FreeZone>(zone: &F) -> Result<(), EngineError> {
    for directory in [paths::STAGING_DIR, paths::UNDO_DIR, paths::TRUST_DIR, parent(paths::RECORD_MIRROR)] {
        if zone.list(directory, &mut |_, _| ControlFlow::Break(())) == Err(ZoneError::Corrupt) {
            zone_io::remove(zone, directory)?;
        }
        zone_io::remove_broken(zone, directory, |_| true)?;
    }
    // A journal that cannot be read stops everything: what it said is not known.
    let journal = paths::JOURNAL.trim_start_matches(paths::STATE_DIR).trim_start_matches('/');
    zone_io::remove_broken(zone, paths::STATE_DIR, |name| name != journal)?;
    zone_io::remove_broken(zone, "", |name| name.starts_with("updater-") && name.ends_with(crate::renewal::NEW_ENDING))
}
