//! Packs and chunk lists as decisions leave them.
//!
//! A pack of which little is needed is written anew: its frames are copied as they are, since a frame does not depend on
//! where it lies, and the chunk lists that name them are sealed anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use firmware_image::Digest;
use firmware_image::digest::Hasher;

use super::Fate;
use super::decide::Decision;
use super::survey::Known;
use crate::chunk_list::{ChunkEntry, ChunkList, ContentEntry, MAX_PACK_BYTES, PackEntry};
use crate::content_key::ContentKeys;
use crate::contents::{key_of, read_frame};
use crate::error::StoreError;
use crate::frame::{FrameKind, FrameReader, FrameWriter};
use crate::publish::DEFAULT_LEVEL;
use crate::repository::{Observer, Repository, Step, step};
use crate::sealed::{self, ObjectRef};
use crate::store_files::{StoreWriter, digest_of};
use crate::transport::Directory;
use crate::trust::Releases;

/// A pack of which less is needed, in percent of its bytes, is written anew.
pub const MIN_NEEDED_PERCENT: u64 = 95;

/// What comes of it.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The releases that are left, with their new chunk lists.
    pub releases: Releases,
    /// The packs, manifests, chunk lists and steps that they name, with their lengths.
    pub named: BTreeMap<String, u64>,
    /// Bytes of packs and chunk lists that are new.
    pub new_bytes: u64,
}

/// Where a frame is: the pack, and its place in it.
type Place = (Digest, u64);

/// Writes packs and chunk lists; with no `repository`, only says what would come of it.
pub(super) fn rewrite(
    releases: &Releases,
    known: &[Known],
    decisions: &BTreeMap<u64, Decision>,
    transport: &Directory,
    keys: &ContentKeys,
    repository: Option<&Repository<'_>>,
    observer: &mut dyn Observer,
) -> Result<Rewritten, StoreError> {
    let kept: Vec<(&Known, &Decision)> = known
        .iter()
        .filter_map(|known| Some((known, decisions.get(&known.release.serial)?)))
        .filter(|(_, decision)| decision.fate != Fate::Forgotten)
        .collect();
    let moved = move_frames(&kept, transport, keys, repository.map(Repository::writer), observer)?;
    if repository.is_some() {
        step(observer, Step::PackWritten)?;
    }
    let mut result = Rewritten { releases: releases.clone(), named: BTreeMap::new(), new_bytes: moved.new_bytes };
    for release in
        releases.iter().filter(|release| !kept.iter().any(|(known, _)| known.release.serial == release.serial))
    {
        result.releases.remove(release.serial);
    }
    for (known, decision) in &kept {
        let mut release = known.release.clone();
        release.steps.retain(|(from, _)| decision.steps.contains(from));
        if let Fate::Thinned { base } = decision.fate {
            release.base = Some(base);
        }
        if let Some(step) = &decision.made {
            release.steps.push((step.from, step.object));
            release.steps.sort_by_key(|(from, _)| *from);
            result.new_bytes += step.bytes();
        }
        let list = rebuild(&known.list, &decision.dropped, &moved.places)?;
        if list != known.list {
            // Under the key that it was: whoever could read the release still can.
            let number = known.list_key;
            let unknown = || StoreError::UnknownKey { object: release.chunks_name(), number };
            let mut writer = FrameWriter::new(keys.get(number).ok_or_else(unknown)?, DEFAULT_LEVEL)?;
            let sealed = sealed::seal(FrameKind::ChunkList, &mut writer, &list.encode()?)?;
            release.chunks = match repository {
                Some(repository) => repository.write_object(&release.chunks_name(), &sealed)?,
                None => ObjectRef::of(&sealed),
            };
            result.new_bytes += release.chunks.bytes;
        }
        let steps = known.steps.iter().chain(&decision.made);
        let packs = steps.filter(|step| decision.steps.contains(&step.from)).filter_map(|step| step.step.pack);
        result.named.extend(packs.chain(list.packs).map(|pack| (pack.path(), pack.bytes)));
        result.named.insert(release.manifest_path(), release.sealed.bytes);
        result.named.insert(release.chunks.path(&release.chunks_name()), release.chunks.bytes);
        result
            .named
            .extend(release.steps.iter().map(|(from, step)| (step.path(&release.step_name(*from)), step.bytes)));
        result.releases.put(release);
    }
    if repository.is_some() {
        step(observer, Step::ChunkListWritten)?;
    }
    Ok(result)
}

/// Where frames are that were moved.
#[derive(Default)]
struct Moved {
    places: HashMap<Place, (PackEntry, u64)>,
    new_bytes: u64,
}

/// Copies what is needed out of the packs of which little is.
fn move_frames(
    kept: &[(&Known, &Decision)],
    transport: &Directory,
    keys: &ContentKeys,
    writer: Option<&StoreWriter>,
    observer: &mut dyn Observer,
) -> Result<Moved, StoreError> {
    // In the order in which releases name them, so that what was published together lies together.
    let mut packs: Vec<PackEntry> = Vec::new();
    let mut needed: HashMap<Digest, BTreeMap<u64, ChunkEntry>> = HashMap::new();
    for (known, decision) in kept {
        let contents = known.list.contents.iter().filter(|content| !decision.dropped.contains(&content.digest));
        for (_, chunk) in contents.flat_map(|content| known.list.chunks_of(content)) {
            let pack = known.list.pack_of(chunk)?;
            let frames = needed.entry(pack.digest).or_insert_with(|| {
                packs.push(*pack);
                BTreeMap::new()
            });
            frames.insert(chunk.offset, *chunk);
        }
    }
    let bytes_of = |pack: &PackEntry| -> u64 {
        needed.get(&pack.digest).into_iter().flatten().map(|(_, chunk)| u64::from(chunk.stored_len)).sum()
    };
    packs.retain(|pack| bytes_of(pack).saturating_mul(100) < pack.bytes.saturating_mul(MIN_NEEDED_PERCENT));
    // A pack is sealed under one key.
    packs.sort_by_key(|pack| pack.key);
    let total = packs.iter().map(bytes_of).sum();
    let (mut moved, mut done) = (Moved::default(), 0);
    let mut frames = FrameReader::new()?;
    let mut pack: Option<NewPack<'_>> = None;
    for old in &packs {
        if let Some(full) = pack.take_if(|new| new.key != old.key || new.bytes + bytes_of(old) > MAX_PACK_BYTES) {
            full.finish(&mut moved)?;
        }
        let new = match &mut pack {
            Some(new) => new,
            None => pack.insert(NewPack::begin(old.key, writer)?),
        };
        for chunk in needed.get(&old.digest).into_iter().flat_map(BTreeMap::values) {
            let frame = read_frame(transport, old, chunk.range())?;
            // What is damaged is not carried on under a sound name.
            frames.open(key_of(keys, old)?, &chunk.frame_id(), &frame)?;
            new.append((old.digest, chunk.offset), &frame)?;
            done += frame.len() as u64;
            observer.progress(done, total);
        }
    }
    if let Some(last) = pack {
        last.finish(&mut moved)?;
    }
    Ok(moved)
}

/// A pack that is being written; only hashed where there is no writer.
struct NewPack<'w> {
    key: u32,
    file: Option<(&'w StoreWriter, File, PathBuf)>,
    hasher: Hasher,
    bytes: u64,
    frames: Vec<(Place, u64)>,
}

impl<'w> NewPack<'w> {
    fn begin(key: u32, writer: Option<&'w StoreWriter>) -> Result<Self, StoreError> {
        let file = match writer {
            Some(writer) => {
                let (file, path) = writer.temporary("moved.pack")?;
                Some((writer, file, path))
            }
            None => None,
        };
        Ok(Self { key, file, hasher: Hasher::new(), bytes: 0, frames: Vec::new() })
    }

    fn append(&mut self, from: Place, frame: &[u8]) -> Result<(), StoreError> {
        if let Some((_, file, path)) = &mut self.file {
            file.write_all(frame).map_err(StoreError::io("write", &*path))?;
        }
        self.hasher.update(frame);
        self.frames.push((from, self.bytes));
        self.bytes += frame.len() as u64;
        Ok(())
    }

    fn finish(self, moved: &mut Moved) -> Result<(), StoreError> {
        let entry = PackEntry { digest: self.hasher.finish(), bytes: self.bytes, key: self.key };
        if let Some((writer, file, temporary)) = self.file {
            let place = writer.at(&entry.path());
            // An interrupted run may have left it, complete.
            if !place.is_file() || digest_of(&place)? != entry.digest {
                writer.place(file, &temporary, &entry.path())?;
            }
        }
        moved.places.extend(self.frames.into_iter().map(|(from, at)| (from, (entry, at))));
        moved.new_bytes += entry.bytes;
        Ok(())
    }
}

/// `list` without the contents that are dropped, and with frames where they are now.
fn rebuild(
    list: &ChunkList,
    dropped: &BTreeSet<Digest>,
    moved: &HashMap<Place, (PackEntry, u64)>,
) -> Result<ChunkList, StoreError> {
    let mut new = ChunkList::default();
    let mut packs: HashMap<Digest, u32> = HashMap::new();
    let mut places: HashMap<u32, u32> = HashMap::new();
    for content in list.contents.iter().filter(|content| !dropped.contains(&content.digest)) {
        let mut chunks = Vec::with_capacity(content.chunks.len());
        for (old_place, chunk) in list.chunks_of(content) {
            if let Some(place) = places.get(&old_place) {
                chunks.push(*place);
                continue;
            }
            let pack = *list.pack_of(chunk)?;
            let (pack, offset) = moved.get(&(pack.digest, chunk.offset)).copied().unwrap_or((pack, chunk.offset));
            let pack = *packs.entry(pack.digest).or_insert_with(|| {
                new.packs.push(pack);
                // No more than the list had, or than were written.
                (new.packs.len() - 1) as u32
            });
            let place = new.chunks.len() as u32;
            new.chunks.push(ChunkEntry { pack, offset, ..*chunk });
            places.insert(old_place, place);
            chunks.push(place);
        }
        new.contents.push(ContentEntry { digest: content.digest, size: content.size, chunks });
    }
    Ok(new)
}
