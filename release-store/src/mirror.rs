//! A copy of a store elsewhere, at every moment a sound one: what is named first, the timestamp last.
//!
//! Needs no keys: packs and targets are named by their digests, and the metadata must hang together under the store's
//! own first root. Which packs there have to be is sealed, so only who has the keys can tell that one is missing. A copy
//! that is newer than its source, or of another store, is refused.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::path::Path;

use firmware_image::Digest;
use firmware_image::digest::Hasher;
use sigstore_tuf::{Metadata, Timestamp};

use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::gc::survey::survey;
use crate::keys::KeyDir;
use crate::repository::{NoObserver, Observer};
use crate::store_files::{
    DOOMED, LOCK, StoreWriter, TEMPORARY, TIMESTAMP, check_apart, check_not_in, digest_of, is_store, not_a_store,
    read_small,
};
use crate::transport::{Directory, GetOutcome, Sink, Transport, TransportError};
use crate::trust::{MAX_ROOT_BYTES, MAX_TIMESTAMP_BYTES, MemoryCache, Release, Releases, Trust};

/// What a mirror run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mirrored {
    /// Files copied.
    pub files: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Files that were there already.
    pub kept: u64,
}

/// The directories of a store, in the order in which their files may appear.
const PARTS: [&str; 3] = ["packs", "targets", "metadata"];

/// A file of a store, and where its name says what it is.
pub(crate) struct Item {
    pub path: String,
    pub bytes: u64,
    digest: Option<Digest>,
}

/// Brings `destination` (created where it does not exist) in step with `source`. With `check`, files that are there
/// already are read and put right where they are damaged. With `keys`, the product and its content keys, a copy that would
/// lack a pack gets no timestamp.
///
/// # Errors
/// `WrongDigest` for a damaged source; `Refused` for one that lacks something, for a copy that is newer or of another store, and
/// for a directory that is no copy or lies where none may; `Io`.
pub fn mirror(
    source: &Path,
    destination: &Path,
    check: bool,
    keys: Option<(&str, &ContentKeys)>,
    observer: &mut dyn Observer,
) -> Result<Mirrored, StoreError> {
    // Read first: all that it names is there by now, whatever is published meanwhile.
    let timestamp = read_small(&source.join(TIMESTAMP), MAX_TIMESTAMP_BYTES)?.ok_or_else(|| not_a_store(source))?;
    check_place(source, destination)?;
    let root = first_root(source)?;
    Trust::new(&root, MemoryCache::new())?.offline(&Directory::new(source))?;

    fs::create_dir_all(destination).map_err(StoreError::io("create", destination))?;
    let writer = StoreWriter::lock(destination)?;
    let items = list(source)?;
    if let Some(known) = read_small(&destination.join(TIMESTAMP), MAX_TIMESTAMP_BYTES)? {
        let (from, to) = (source.display(), destination.display());
        if first_root(destination)? != root {
            return Err(StoreError::Refused(format!(
                "{to} is a copy of another store than {from}: name a new directory"
            )));
        }
        // Where a run was cut between timestamp and roots, the source has them.
        let trust = Trust::new(&root, MemoryCache::new())?;
        let under = |roots: u64| trust.offline(&View { roots, ..View::of(source, destination) }).ok();
        let roots = items.iter().filter_map(|item| root_number(&item.path));
        let found =
            trust.offline(&Directory::new(destination)).or_else(|error| roots.rev().find_map(under).ok_or(error));
        match found {
            Ok(_) => {
                let (known, offered) = (timestamp_version(&known)?, timestamp_version(&timestamp)?);
                if known > offered {
                    return Err(StoreError::Refused(format!(
                        "{to} is newer than {from} (timestamp {known}, not {offered}): bring {from} in step first, \
                         `mirror {to} {from}`, then do this again"
                    )));
                }
                check_same_history(source, destination, &items)?;
            }
            // Nobody can go by what it says of itself.
            Err(_) if check => {}
            Err(error) => {
                return Err(StoreError::Refused(format!(
                    "the metadata in {to} is damaged ({error}): `mirror --check` from a sound store puts it right"
                )));
            }
        }
    }
    // A root that changes keys comes last: a device that had it before the timestamp could no longer tell what it has installed.
    let is_copy = destination.join(TIMESTAMP).is_file();
    let is_new_root = |item: &Item| is_copy && is_root(&item.path) && !destination.join(&item.path).is_file();
    let (mut new_roots, others): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| is_new_root(item));
    // The newest first: devices go from one to the next, and find none before all are there.
    new_roots.sort_by_key(|item| std::cmp::Reverse(root_number(&item.path)));
    let total = items.iter().map(|item| item.bytes).sum();
    let mut done = 0;
    let mut result = Mirrored::default();
    let mut bring = |item: &Item, result: &mut Mirrored| {
        if is_there(source, &writer, item, check)? {
            result.kept += 1;
        } else {
            copy(source, &writer, item)?;
            result.files += 1;
            result.bytes += item.bytes;
        }
        done += item.bytes;
        observer.progress(done, total);
        Ok::<_, StoreError>(())
    };
    for item in others {
        bring(item, &mut result)?;
    }
    // What devices will see must hang together, before they see it.
    let promised = View { timestamp: Some(&timestamp), ..View::of(source, destination) };
    let releases = Trust::new(&root, MemoryCache::new())?.offline(&promised)?;
    check_objects(source, destination, &releases)?;
    if let Some((product, keys)) = keys {
        check_packs(source, &promised, &releases, product, keys)?;
    }
    if read_small(&destination.join(TIMESTAMP), MAX_TIMESTAMP_BYTES)?.as_ref() != Some(&timestamp) {
        writer.replace(TIMESTAMP, &timestamp)?;
        result.files += 1;
        result.bytes += timestamp.len() as u64;
    }
    for item in new_roots {
        bring(item, &mut result)?;
    }
    Ok(result)
}

/// Whether a store's file is a root.
fn is_root(path: &str) -> bool {
    root_number(path).is_some()
}

/// A root's version, by its name in a store.
fn root_number(path: &str) -> Option<u64> {
    path.strip_prefix("metadata/")?.strip_suffix(".root.json")?.parse().ok()
}

/// Refuses a copy that has other metadata under a number than its source: somebody else publishes into one of them.
fn check_same_history(source: &Path, destination: &Path, items: &[Item]) -> Result<(), StoreError> {
    for item in items.iter().filter(|item| item.digest.is_none()) {
        let there = destination.join(&item.path);
        if there.is_file() && digest_of(&there)? != digest_of(&source.join(&item.path))? {
            let (from, to, path) = (source.display(), destination.display(), &item.path);
            return Err(StoreError::Refused(format!(
                "{path} in {to} is another than in {from}: two stores were published into under the same keys, and one of \
                 them would be lost; find out which one devices are to have, and name a new directory for its copy"
            )));
        }
    }
    Ok(())
}

/// Refuses a copy inside the store, or the other way round, one among keys, and one in a directory with something else in it.
fn check_place(source: &Path, destination: &Path) -> Result<(), StoreError> {
    check_apart(source, "the store", destination, "its copy")?;
    check_not_in(destination, "the copy", |above| KeyDir::open(above).is_ok(), "a directory of keys")?;
    let entries = match fs::read_dir(destination) {
        Ok(entries) if !is_store(destination) => entries,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::io("read", destination)(error));
        }
        _ => return Ok(()),
    };
    // What an interrupted run leaves is gone on with.
    let is_a_copys = |name: &str| is_writers_own(name) || PARTS.contains(&name);
    let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find(|name| !is_a_copys(name)).map_or(Ok(()), |name| {
        let to = destination.display();
        Err(StoreError::Refused(format!("{to} is no copy of a store, and {name:?} is in it: name a new directory")))
    })
}

/// Refuses a copy that lacks what its metadata names. Which packs there have to be is sealed.
fn check_objects(source: &Path, destination: &Path, releases: &Releases) -> Result<(), StoreError> {
    for release in releases.iter() {
        let steps = release.steps.iter().map(|(from, object)| object.path(&release.step_name(*from)));
        let objects = [release.manifest_path(), release.chunks.path(&release.chunks_name())].into_iter().chain(steps);
        if let Some(missing) = objects.into_iter().find(|path| !destination.join(path).is_file()) {
            return Err(lacks(source, &missing, release));
        }
    }
    Ok(())
}

/// Refuses a copy that lacks a pack which a chunk list or a step names.
fn check_packs(
    source: &Path,
    copy: &View<'_>,
    releases: &Releases,
    product: &str,
    keys: &ContentKeys,
) -> Result<(), StoreError> {
    for known in survey(releases, copy, product, keys, &mut NoObserver)? {
        let of_steps = known.steps.iter().filter_map(|step| step.step.pack.as_ref());
        for pack in known.list.packs.iter().chain(of_steps) {
            if !copy.copy.root().join(pack.path()).is_file() {
                return Err(lacks(source, &pack.path(), &known.release));
            }
        }
    }
    Ok(())
}

fn lacks(source: &Path, missing: &str, release: &Release) -> StoreError {
    let (from, version) = (source.display(), &release.version);
    StoreError::Refused(format!(
        "{missing} of release {version} is not in {from}: the store is damaged (see `verify`), and its copy stays as it was"
    ))
}

/// A copy with its source's roots, up to this one, and with another timestamp: as it will be when these stand.
pub(crate) struct View<'a> {
    roots: u64,
    copy: Directory,
    source: Directory,
    timestamp: Option<&'a [u8]>,
}

impl View<'_> {
    fn of(source: &Path, copy: &Path) -> Self {
        Self { copy: Directory::new(copy), source: Directory::new(source), roots: u64::MAX, timestamp: None }
    }

    /// A store as whoever knows all its roots reads it.
    pub(crate) fn without_roots(store: &Path) -> Self {
        Self { roots: 0, ..Self::of(store, store) }
    }
}

impl Transport for View<'_> {
    fn describe(&self) -> String {
        self.copy.describe()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        match self.timestamp {
            Some(timestamp) if path == TIMESTAMP => {
                sink(0, timestamp)?;
                Ok(GetOutcome::new(0, timestamp.len() as u64))
            }
            _ => match root_number(path) {
                Some(version) if version > self.roots => Err(TransportError::NotFound { path: path.into() }),
                Some(_) => self.source.get(path, range, max_bytes, sink),
                None => self.copy.get(path, range, max_bytes, sink),
            },
        }
    }
}

/// [`mirror`] with nobody watching.
///
/// # Errors
/// As there.
pub fn mirror_quietly(source: &Path, destination: &Path) -> Result<Mirrored, StoreError> {
    mirror(source, destination, false, None, &mut NoObserver)
}

/// The lowest root of a store: what its copies are told apart by, and what whoever has no trusted root must take.
///
/// # Errors
/// `Refused` where there is none; `Io`.
pub fn first_root(store: &Path) -> Result<Vec<u8>, StoreError> {
    let directory = store.join("metadata");
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_a_store(store)),
        entries => entries.map_err(StoreError::io("read", &directory))?,
    };
    let versions = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".root.json")?.parse::<u64>().ok());
    let first = versions.min();
    let missing = || StoreError::Refused(format!("{} has no root metadata: copy it from the store", store.display()));
    let path = directory.join(format!("{}.root.json", first.ok_or_else(missing)?));
    read_small(&path, MAX_ROOT_BYTES)?.ok_or_else(missing)
}

fn timestamp_version(bytes: &[u8]) -> Result<u64, StoreError> {
    let metadata = Metadata::<Timestamp>::from_slice(bytes);
    let metadata = metadata.map_err(|source| StoreError::Tuf { role: "timestamp".into(), source })?;
    Ok(metadata.signed().version)
}

/// All immutable files of a store, in the order in which they may appear: packs, targets, metadata.
pub(crate) fn list(store: &Path) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::new();
    for directory in PARTS {
        let mut found = Vec::new();
        walk(store, directory, &mut found)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        items.extend(found);
    }
    // Roots first: a device asks for them before all else.
    items.sort_by_key(|item| match item.path.as_str() {
        path if path.ends_with(".targets.json") => 2,
        path if path.ends_with(".snapshot.json") => 3,
        path if path.starts_with("metadata/") => 1,
        _ => 0,
    });
    Ok(items)
}

fn walk(store: &Path, directory: &str, items: &mut Vec<Item>) -> Result<(), StoreError> {
    let path = store.join(directory);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", &path))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = entry.metadata().map_err(StoreError::io("read", entry.path()))?;
        let below = format!("{directory}/{name}");
        if metadata.is_symlink() {
            let path = entry.path();
            return Err(StoreError::NotAFile { path, kind: "a symbolic link" });
        }
        if metadata.is_dir() {
            walk(store, &below, items)?;
        } else if metadata.is_file() && is_of_a_store(&below) {
            items.push(Item { digest: named_digest(&below), path: below, bytes: metadata.len() });
        }
    }
    Ok(())
}

/// Whether a file belongs to a store and never changes.
pub(crate) fn is_of_a_store(path: &str) -> bool {
    let immutable_metadata = path.starts_with("metadata/")
        && [".root.json", ".archive.json", ".targets.json", ".snapshot.json"].iter().any(|end| path.ends_with(end));
    named_digest(path).is_some() || immutable_metadata
}

/// The digest that a pack's or target's name states.
pub(crate) fn named_digest(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    let stem = if path.starts_with("packs/") {
        name.strip_suffix(".pack")?
    } else if path.starts_with("targets/") {
        name.split('.').next()?
    } else {
        return None;
    };
    Digest::from_hex(stem)
}

fn is_there(source: &Path, writer: &StoreWriter, item: &Item, check: bool) -> Result<bool, StoreError> {
    let path = writer.at(&item.path);
    match fs::metadata(&path) {
        // Another length, of a file that never changes, is damage: copy it again.
        Ok(metadata) if metadata.len() != item.bytes => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    }
    match item.digest {
        _ if !check => Ok(true),
        Some(digest) => Ok(digest_of(&path)? == digest),
        // Metadata has no digest in its name: the source says what it is.
        None => Ok(digest_of(&path)? == digest_of(&source.join(&item.path))?),
    }
}

fn copy(source: &Path, writer: &StoreWriter, item: &Item) -> Result<(), StoreError> {
    let from = source.join(&item.path);
    let mut input = File::open(&from).map_err(StoreError::io("open", &from))?;
    let (mut output, temporary) = writer.temporary("copy")?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = input.read(&mut buffer).map_err(StoreError::io("read", &from))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        output.write_all(&buffer[..n]).map_err(StoreError::io("write", &temporary))?;
    }
    let found = hasher.finish();
    if let Some(expected) = item.digest.filter(|expected| *expected != found) {
        return Err(StoreError::WrongDigest { object: from.display().to_string(), expected, found });
    }
    writer.place(output, &temporary, &item.path)
}

/// Whether a directory entry at the top of a store is the writer's own.
pub(crate) fn is_writers_own(name: &str) -> bool {
    [LOCK, TEMPORARY, DOOMED].contains(&name)
}
