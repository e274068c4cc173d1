//! What the engine does with files of the free zone: bounded reads, durable writes, copies that are checked while they
//! are made.

use std::ops::ControlFlow;

use embedded_io::{Read, Write as _};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, Kind, Metadata, ZoneFile};
use firmware_image::{Digest, ZoneError};

use crate::error::EngineError;

/// Bytes read or written at a time.
pub const BUFFER_BYTES: usize = 256 << 10;
/// Files whose room is taken at once where many are made.
const BATCH: usize = 16;
/// The most that such files have in all, in bytes, where they are more than one.
const BATCH_BYTES: u64 = 4 << 20;
/// The deepest directory that a walk enters.
pub const MAX_DEPTH: usize = 64;
/// The longest path of a directory that a walk enters, in bytes: longer than any that a release can have.
pub const MAX_PATH_BYTES: usize = 1024;
/// The most entries that a walk takes in.
pub const MAX_ENTRIES: usize = 262_144;

/// Reads a whole file of at most `limit` bytes. `None`: missing, longer, or damaged: what a cut left of a file is no better
/// than none, and writing it anew is the cure.
///
/// # Errors
/// What reading reports, but for damage of the file.
pub fn read_small<F: FreeZone>(zone: &F, path: &str, limit: u64) -> Result<Option<Vec<u8>>, EngineError> {
    let read = || {
        let Some(mut file) = zone.open(path)? else { return Ok(None) };
        let length = file.len()?;
        if length > limit {
            return Ok(None);
        }
        // The limits of callers are far below what fits into memory.
        let mut bytes = vec![0; length as usize];
        let whole = read_full(&mut file, &mut bytes)? == bytes.len();
        Ok(whole.then_some(bytes))
    };
    match read() {
        Err(error) if is_damage(error) => Ok(None),
        read => read.map_err(EngineError::zone("read", path)),
    }
}

/// Reads until `buf` is full or the file ends; how much there was.
///
/// # Errors
/// What reading reports.
pub fn read_full<R: Read<Error = ZoneError> + ?Sized>(file: &mut R, buf: &mut [u8]) -> Result<usize, ZoneError> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read(&mut buf[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Writes all of `bytes`.
///
/// # Errors
/// `Full` where the file takes no more, else what writing reports.
pub fn write_all<W: embedded_io::Write<Error = ZoneError> + ?Sized>(
    file: &mut W,
    mut bytes: &[u8],
) -> Result<(), ZoneError> {
    while !bytes.is_empty() {
        match file.write(bytes)? {
            0 => return Err(ZoneError::Full),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// The directory of `path`, empty for the zone's root.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A name in a directory, which is empty for the zone's root.
pub fn joined(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Makes the names on the way to `path` durable, from the file's own directory up to the root.
///
/// # Errors
/// What syncing reports.
pub fn sync_parents<F: FreeZone>(zone: &F, path: &str) -> Result<(), EngineError> {
    let mut directory = path;
    while !directory.is_empty() {
        directory = parent(directory);
        zone.sync_dir(directory).map_err(EngineError::zone("sync", directory))?;
    }
    Ok(())
}

/// Writes a file in place and makes it and its name durable. A cut leaves it torn: only for what can be made again, or
/// is written under a name that nothing relies on yet.
///
/// # Errors
/// What writing reports.
pub fn write_durable<F: FreeZone>(zone: &F, path: &str, bytes: &[u8]) -> Result<(), EngineError> {
    let failed = || EngineError::zone("write", path);
    let mut file = zone.create(path).map_err(failed())?;
    write_all(&mut file, bytes).map_err(failed())?;
    file.flush().map_err(failed())?;
    drop(file);
    sync_parents(zone, path)
}

/// Writes a file unless it has these bytes already. Whether anything was written.
///
/// # Errors
/// What reading and writing report.
pub fn write_if_changed<F: FreeZone>(zone: &F, path: &str, bytes: &[u8]) -> Result<bool, EngineError> {
    if read_small(zone, path, bytes.len() as u64)?.as_deref() == Some(bytes) {
        return Ok(false);
    }
    write_durable(zone, path, bytes)?;
    Ok(true)
}

/// Length and digest of a file; `None` where there is no regular file.
///
/// # Errors
/// What reading reports.
pub fn digest_file<F: FreeZone>(
    zone: &F,
    path: &str,
    buffer: &mut [u8],
    advance: &dyn Fn(u64),
) -> Result<Option<(u64, Digest)>, ZoneError> {
    let Some(mut file) = zone.open(path)? else { return Ok(None) };
    let mut hasher = Hasher::new();
    let mut length = 0;
    loop {
        let n = read_full(&mut file, buffer)?;
        hasher.update(&buffer[..n]);
        length += n as u64;
        advance(n as u64);
        if n < buffer.len() {
            return Ok(Some((length, hasher.finish())));
        }
    }
}

/// Whether a file of this length stands at `path`.
///
/// # Errors
/// What reading reports.
pub fn is_there<F: FreeZone>(zone: &F, path: &str, length: u64) -> Result<bool, EngineError> {
    let found = zone.metadata(path).map_err(EngineError::zone("read", path))?;
    Ok(found == Some(Metadata { length, kind: Kind::File }))
}

/// Whether the file at `path` has this length and digest. A damaged one has not.
///
/// # Errors
/// What reading reports, but for damage of the file.
pub fn file_is<F: FreeZone>(zone: &F, path: &str, length: u64, digest: &Digest) -> Result<bool, EngineError> {
    let failed = || EngineError::zone("read", path);
    if !is_there(zone, path, length)? {
        return Ok(false);
    }
    let mut buffer = vec![0; buffer_bytes(length)];
    match digest_file(zone, path, &mut buffer, &|_| {}) {
        Ok(found) => Ok(found == Some((length, *digest))),
        Err(error) if is_damage(error) => Ok(false),
        Err(error) => Err(failed()(error)),
    }
}

/// A buffer that suits a file of `length` bytes.
pub fn buffer_bytes(length: u64) -> usize {
    // One byte more than the file, so that one read sees its end.
    usize::try_from(length).unwrap_or(BUFFER_BYTES).saturating_add(1).min(BUFFER_BYTES)
}

/// What a copy came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The copy is whole, flushed, and has the wanted digest.
    Whole,
    /// The source is missing, damaged, or not what was wanted. The copy is to be thrown away.
    WrongSource,
}

/// A copy to be made.
#[derive(Debug, Clone)]
pub struct CopyJob<'a> {
    /// What is copied.
    pub from: &'a str,
    /// What stands there is replaced.
    pub to: String,
    /// The length that the source must have.
    pub length: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Copies a file over what stands at `to`, checking it on the way, and flushes it. Its name is not yet durable.
///
/// # Errors
/// What reading and writing report.
pub fn copy_checked<F: FreeZone>(
    zone: &F,
    from: &str,
    to: &str,
    length: u64,
    digest: &Digest,
    advance: &dyn Fn(u64),
) -> Result<Copied, EngineError> {
    let Some(mut source) = open_source(zone, from, length)? else { return Ok(Copied::WrongSource) };
    let failed = || EngineError::zone("write", to);
    let mut target = zone.create(to).map_err(failed())?;
    target.reserve(length).map_err(failed())?;
    let copied = fill(&mut source, from, &mut target, to, length, digest, advance)?;
    if copied == Copied::Whole {
        target.flush().map_err(failed())?;
    }
    Ok(copied)
}

/// Copies several files, as [`copy_checked`] does one, and takes the room for many of them at once. `done` is called after each.
/// What is returned is the first whose source is wrong: neither it nor what is behind it was copied.
///
/// # Errors
/// What reading and writing report, and `done`.
pub fn copy_all<F: FreeZone>(
    zone: &F,
    copies: &[CopyJob<'_>],
    advance: &dyn Fn(u64),
    done: &mut dyn FnMut(&CopyJob<'_>) -> Result<(), EngineError>,
) -> Result<Option<usize>, EngineError> {
    let mut before = 0;
    while before < copies.len() {
        let batch = &copies[before..][..batch_of(copies[before..].iter().map(|copy| copy.length))];
        let mut progress = Progress::default();
        let result = copy_batch(zone, batch, &mut progress, advance, done);
        if !matches!(result, Ok(Copied::Whole)) {
            // A part of it would keep room that others need.
            let begun = &batch[progress.copied..progress.created];
            let removed: Result<Vec<_>, _> = begun.iter().map(|copy| remove(zone, &copy.to)).collect();
            result?;
            removed?;
            return Ok(Some(before + progress.copied));
        }
        before += batch.len();
    }
    Ok(None)
}

/// How many of the files of these lengths are made together: one at least. A cut may lose the room that is taken for a batch until
/// the file system is checked, so that large files go alone.
pub fn batch_of(lengths: impl Iterator<Item = u64>) -> usize {
    let mut bytes = 0_u64;
    let fits = lengths.take(BATCH).take_while(|length| {
        bytes = bytes.saturating_add(*length);
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}

/// How far a batch has come.
#[derive(Default)]
struct Progress {
    /// Files whose place was taken for the new one.
    created: usize,
    /// Files that are there, whole.
    copied: usize,
}

fn copy_batch<F: FreeZone>(
    zone: &F,
    batch: &[CopyJob<'_>],
    progress: &mut Progress,
    advance: &dyn Fn(u64),
    done: &mut dyn FnMut(&CopyJob<'_>) -> Result<(), EngineError>,
) -> Result<Copied, EngineError> {
    // Nothing is replaced by what is not there.
    let mut sources = Vec::with_capacity(batch.len());
    for copy in batch {
        let Some(source) = open_source(zone, copy.from, copy.length)? else { break };
        sources.push(source);
    }
    let sound = &batch[..sources.len()];
    let mut targets = Vec::with_capacity(sound.len());
    for copy in sound {
        targets.push((zone.create(&copy.to).map_err(EngineError::zone("write", &copy.to))?, copy.length));
        progress.created += 1;
    }
    let mut rooms = targets.iter_mut().map(|(file, length)| (file, *length));
    let first = batch.first().map_or("", |copy| &copy.to);
    zone.reserve_all(&mut rooms).map_err(EngineError::zone("write", first))?;
    // Flushed one behind the other, the later ones have little left to write.
    let mut filled = 0;
    let mut result = Ok(if sound.len() == batch.len() { Copied::Whole } else { Copied::WrongSource });
    for ((copy, mut source), (target, length)) in sound.iter().zip(sources).zip(&mut targets) {
        match fill(&mut source, copy.from, target, &copy.to, *length, &copy.digest, advance) {
            Ok(Copied::Whole) => filled += 1,
            stopped => {
                result = stopped;
                break;
            }
        }
    }
    for (copy, (mut target, _)) in sound.iter().zip(targets).take(filled) {
        target.flush().map_err(EngineError::zone("write", &copy.to))?;
        drop(target);
        progress.copied += 1;
        done(copy)?;
    }
    result
}

/// The source of a copy; `None`: it is missing, damaged, or of another length.
fn open_source<'z, F: FreeZone>(zone: &'z F, from: &str, length: u64) -> Result<Option<F::File<'z>>, EngineError> {
    let mut source = match zone.open(from) {
        Ok(Some(source)) => source,
        Ok(None) => return Ok(None),
        Err(error) if is_damage(error) => return Ok(None),
        Err(error) => return Err(EngineError::zone("read", from)(error)),
    };
    let found = source.len().map_err(EngineError::zone("read", from))?;
    Ok((found == length).then_some(source))
}

/// Copies what `source` holds into `target`. It is not flushed yet.
fn fill<S: ZoneFile, T: ZoneFile>(
    source: &mut S,
    from: &str,
    target: &mut T,
    to: &str,
    length: u64,
    digest: &Digest,
    advance: &dyn Fn(u64),
) -> Result<Copied, EngineError> {
    let mut buffer = vec![0; buffer_bytes(length)];
    let mut hasher = Hasher::new();
    loop {
        let n = match read_full(source, &mut buffer) {
            Err(error) if is_damage(error) => return Ok(Copied::WrongSource),
            read => read.map_err(EngineError::zone("read", from))?,
        };
        hasher.update(&buffer[..n]);
        write_all(target, &buffer[..n]).map_err(EngineError::zone("write", to))?;
        advance(n as u64);
        if n < buffer.len() {
            break;
        }
    }
    Ok(if hasher.finish() == *digest { Copied::Whole } else { Copied::WrongSource })
}

/// An entry that a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, relative to where the walk began.
    pub path: String,
    /// What it is.
    pub metadata: Metadata,
}

/// What a walk found.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    /// Every entry that was seen, directories included, in the order of their paths.
    pub entries: Vec<Entry>,
    /// Directories that were not looked through, or not to their end: deeper than [`MAX_DEPTH`], beyond
    /// [`MAX_ENTRIES`], or not to be read. No release makes such; a damaged or planted tree does.
    pub skipped: Vec<String>,
}

/// All entries below `root`, links not followed. What no release can have made is passed over and named, so that nobody
/// can stop an update by planting it.
///
/// # Errors
/// What listing `root` reports, and for directories in it what is no damage of theirs.
pub fn walk<F: FreeZone>(zone: &F, root: &str) -> Result<Walked, EngineError> {
    let mut found: Vec<Entry> = Vec::new();
    let mut skipped = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(directory) = pending.pop() {
        let at = if directory.is_empty() { root.to_owned() } else { format!("{root}/{directory}") };
        let is_too_deep = directory.len() > MAX_PATH_BYTES || directory.split('/').count() > MAX_DEPTH;
        if is_too_deep || found.len() >= MAX_ENTRIES {
            skipped.push(directory);
            continue;
        }
        let mut too_many = false;
        let listed = zone.list(&at, &mut |name, metadata| {
            if found.len() >= MAX_ENTRIES {
                too_many = true;
                return ControlFlow::Break(());
            }
            let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
            if metadata.kind == Kind::Directory {
                pending.push(path.clone());
            }
            found.push(Entry { path, metadata });
            ControlFlow::Continue(())
        });
        match listed {
            Ok(()) if !too_many => {}
            Ok(()) => skipped.push(directory),
            Err(error) if !directory.is_empty() && is_damage(error) => skipped.push(directory),
            Err(error) => return Err(EngineError::zone("list", &at)(error)),
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    skipped.sort();
    Ok(Walked { entries: found, skipped })
}

/// Whether an error speaks of what stands there, and not of the zone as a whole.
pub fn is_damage(error: ZoneError) -> bool {
    matches!(error, ZoneError::Corrupt | ZoneError::OutOfBounds | ZoneError::BadPath | ZoneError::Io(_))
}

/// The names of the files in a directory.
///
/// # Errors
/// What listing reports.
pub fn files_in<F: FreeZone>(zone: &F, directory: &str) -> Result<Vec<(String, u64)>, EngineError> {
    let mut files = Vec::new();
    zone.list(directory, &mut |name, metadata| {
        if metadata.kind == Kind::File && files.len() < MAX_ENTRIES {
            files.push((name.to_owned(), metadata.length));
        }
        ControlFlow::Continue(())
    })
    .map_err(EngineError::zone("list", directory))?;
    Ok(files)
}

/// Removes a file or an empty directory, durably.
///
/// # Errors
/// What removing and syncing report.
pub fn remove<F: FreeZone>(zone: &F, path: &str) -> Result<bool, EngineError> {
    let removed = zone.remove(path).map_err(EngineError::zone("remove", path))?;
    if removed {
        let directory = parent(path);
        zone.sync_dir(directory).map_err(EngineError::zone("sync", directory))?;
    }
    Ok(removed)
}

/// Removes files of one directory, durably.
///
/// On FAT a removed file has an entry and clusters to give up. Drivers write the freed clusters with the next file that is
/// flushed, and the entry with its directory. An entry that is left over clusters that are free, and may be another file's
/// by the time somebody removes it, costs that file: so the directory is synced before anything else is flushed.
///
/// # Errors
/// What removing and syncing report.
pub fn remove_all<F: FreeZone>(
    zone: &F,
    directory: &str,
    names: impl IntoIterator<Item = String>,
) -> Result<(), EngineError> {
    let mut any = false;
    for name in names {
        let path = joined(directory, &name);
        any |= zone.remove(&path).map_err(EngineError::zone("remove", &path))?;
    }
    if any {
        zone.sync_dir(directory).map_err(EngineError::zone("sync", directory))?;
    }
    Ok(())
}

/// Removes those of `ours` in a directory that cannot be read because a cut has broken them, before anything new is written to
/// where they seem to stand. A directory that cannot be read is left alone.
///
/// # Errors
/// What removing reports.
pub fn remove_broken<F: FreeZone>(zone: &F, directory: &str, ours: impl Fn(&str) -> bool) -> Result<(), EngineError> {
    let Ok(files) = files_in(zone, directory) else { return Ok(()) };
    let broken = |name: &String| ours(name) && zone.open(&joined(directory, name)).err() == Some(ZoneError::Corrupt);
    let broken: Vec<String> = files.into_iter().map(|(name, _)| name).filter(broken).collect();
    remove_all(zone, directory, broken)
}
