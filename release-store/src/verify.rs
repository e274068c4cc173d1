//! Whether a store is whole: every target and pack is what its name says, every frame decrypts to what its manifest says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use firmware_image::Digest;
use firmware_image::digest::Hasher;

use crate::chunk_list::{ChunkEntry, ChunkList};
use crate::content_key::ContentKeys;
use crate::contents::{ContentReader, key_of, read_frame};
use crate::error::StoreError;
use crate::frame::FrameReader;
use crate::gc::doomed::Doomed;
use crate::manifest::Manifest;
use crate::mirror::is_writers_own;
use crate::repository::Observer;
use crate::step::Step;
use crate::store_files::{TIMESTAMP, digest_of, is_store, not_a_store};
use crate::transport::Directory;
use crate::trust::{ARCHIVE, MemoryCache, Release, Trust, VerifiedManifest};

/// What [`verify`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Releases looked at.
    pub releases: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Frames opened.
    pub frames: u64,
    /// Bytes of content that were checked against a manifest.
    pub bytes: u64,
    /// What is wrong: the object, and why.
    pub damage: Vec<(String, StoreError)>,
    /// Files that no release names: left by interrupted runs, or foreign. Harmless.
    pub orphans: Vec<String>,
    /// Files that no release names any more, and that a coming `gc` deletes.
    pub doomed: u64,
}

/// Checks the whole store at `root`. Damage is collected, not returned.
///
/// # Errors
/// Where the metadata itself is not to be had or not accepted: nothing can be said about the rest.
pub fn verify(
    root: &Path,
    trusted_root: &[u8],
    product: &str,
    keys: &ContentKeys,
    observer: &mut dyn Observer,
) -> Result<Verified, StoreError> {
    if !is_store(root) {
        return Err(not_a_store(root));
    }
    let transport = Directory::new(root);
    let known = Trust::new(trusted_root, MemoryCache::new())?.offline_known(&transport)?;
    let releases = known.releases()?;
    let mut check = Check {
        transport,
        keys,
        reader: FrameReader::new()?,
        result: Verified::default(),
        named: BTreeSet::new(),
        contents: BTreeSet::new(),
        packs: BTreeMap::new(),
        total: 0,
    };
    if known.set.targets_role(ARCHIVE).is_none() {
        // A copy of some releases may do without; a store without it has lost all older ones.
        let pin = known.set.snapshot().and_then(|snapshot| snapshot.meta.get("archive.json"));
        let path = format!("metadata/{}.{ARCHIVE}.json", pin.map_or(0, |pin| pin.version));
        let missing = crate::transport::TransportError::NotFound { path: path.clone() };
        check.result.damage.push((path, missing.into()));
    }
    let (mut lists, mut steps) = (Vec::new(), Vec::new());
    let mut manifests: BTreeMap<u64, Manifest> = BTreeMap::new();
    for release in releases.iter() {
        check.result.releases += 1;
        check.named.insert(release.manifest_path());
        check.named.insert(release.chunks.path(&release.chunks_name()));
        let manifest = VerifiedManifest::fetch(release, &check.transport, keys).and_then(|found| found.open(product));
        let Some(manifest) = check.note(release.manifest_path(), manifest) else { continue };
        let list = ChunkList::fetch(release, &manifest, &check.transport, keys).and_then(|list| {
            check_costs(&manifest, &list)?;
            Ok(list)
        });
        for (from, object) in &release.steps {
            let name = release.step_name(*from);
            check.named.insert(object.path(&name));
            let step = object.fetch(&name, &check.transport).and_then(|sealed| Step::open(&sealed, keys));
            let Some(step) = check.note(object.path(&name), step) else { continue };
            if let Some(pack) = &step.pack {
                check.packs.insert(pack.digest, pack.bytes);
            }
            steps.push((release, *from, object.path(&name), step));
        }
        let list = check.note(release.chunks.path(&release.chunks_name()), list);
        manifests.insert(release.serial, manifest);
        let Some(list) = list else { continue };
        check.total += list.contents.iter().map(|content| content.size).sum::<u64>();
        for pack in &list.packs {
            check.packs.insert(pack.digest, pack.bytes);
        }
        lists.push((release.serial, list));
    }
    for (release, from, path, step) in &steps {
        if let (Some(old), Some(new)) = (manifests.get(from), manifests.get(&release.serial)) {
            let checked = check.step(step, old, new, release);
            check.note(path.clone(), checked);
        }
    }
    check.packs();
    for (serial, list) in &lists {
        check.contents(*serial, list, observer);
    }
    let transport = Directory::new(root);
    let mut reader = ContentReader::new(&releases, &transport, product, keys)?;
    for release in releases.iter().filter(|release| release.base.is_some()) {
        check.made(release, &mut reader, observer);
    }
    let versions = [
        ("targets", known.set.targets_role("targets").map(|role| role.version)),
        (ARCHIVE, known.set.targets_role(ARCHIVE).map(|role| role.version)),
        ("snapshot", known.set.snapshot().map(|role| role.version)),
    ];
    for (role, version) in versions {
        // Old metadata is history, not an orphan: only numbers above the current ones were left by interrupted runs.
        for version in 0..=version.unwrap_or(0) {
            check.named.insert(format!("metadata/{version}.{role}.json"));
        }
    }
    for version in 0..=known.set.root().version {
        check.named.insert(format!("metadata/{version}.root.json"));
    }
    check.named.insert(TIMESTAMP.into());
    check.orphans(root, "")?;
    // A list that cannot be read spares nothing from being called an orphan.
    let doomed = Doomed::read(root).unwrap_or_default();
    check.result.orphans.retain(|path| !doomed.lists(path));
    let is_unnamed = |path: &&String| path.starts_with("metadata/") || !check.named.contains(*path);
    check.result.doomed = doomed.paths().filter(is_unnamed).filter(|path| root.join(path).is_file()).count() as u64;
    Ok(check.result)
}

struct Check<'a> {
    transport: Directory,
    keys: &'a ContentKeys,
    reader: FrameReader,
    result: Verified,
    named: BTreeSet<String>,
    contents: BTreeSet<Digest>,
    packs: BTreeMap<Digest, u64>,
    total: u64,
}

impl Check<'_> {
    fn note<T>(&mut self, object: String, result: Result<T, StoreError>) -> Option<T> {
        result.map_err(|error| self.result.damage.push((object, error))).ok()
    }

    /// That a step gives the manifest, and that every frame of its patches is what it says.
    fn step(&mut self, step: &Step, old: &Manifest, new: &Manifest, release: &Release) -> Result<(), StoreError> {
        VerifiedManifest::accept(release, step.manifest(old)?.encode()?)?;
        for patch in step.patches(old, new)? {
            let key = key_of(self.keys, &patch.pack)?;
            let mut at = patch.offset;
            for part in &patch.parts {
                let end = at + u64::from(part.stored_len);
                let frame = read_frame(&self.transport, &patch.pack, at..end)?;
                self.reader.open(key, &part.frame_id(), &frame)?;
                self.result.frames += 1;
                at = end;
            }
        }
        Ok(())
    }

    fn packs(&mut self) {
        for (digest, bytes) in self.packs.clone() {
            let path = crate::manifest::pack_path(&digest);
            self.named.insert(path.clone());
            self.result.packs += 1;
            let checked = check_pack(&self.transport.root().join(&path), &path, digest, bytes);
            self.note(path, checked);
        }
    }

    fn contents(&mut self, serial: u64, list: &ChunkList, observer: &mut dyn Observer) {
        for content in &list.contents {
            if self.contents.insert(content.digest) {
                let mut hasher = Hasher::new();
                let object = format!("content {} of release {serial}", content.digest);
                let mut whole = true;
                for (_, chunk) in list.chunks_of(content) {
                    let opened = self.chunk(list, chunk, &mut hasher);
                    if self.note(object.clone(), opened).is_none() {
                        whole = false;
                        break;
                    }
                }
                let found = hasher.finish();
                if whole && found != content.digest {
                    let error = StoreError::WrongDigest { object: object.clone(), expected: content.digest, found };
                    self.result.damage.push((object, error));
                }
            }
            self.result.bytes += content.size;
            observer.progress(self.result.bytes, self.total);
        }
    }

    /// That every content is to be had of a release that is made of another one.
    fn made(&mut self, release: &Release, reader: &mut ContentReader<'_, Directory>, observer: &mut dyn Observer) {
        let object = format!("release {}, made of release {}", release.serial, release.base.unwrap_or_default());
        let opened = reader.release(release.serial);
        let Some(open) = self.note(object, opened) else { return };
        for (digest, size) in open.manifest.contents() {
            if open.list.content(&digest).is_some() {
                continue;
            }
            let object = format!("content {digest} of release {}", release.serial);
            if !open.has(&digest) {
                let wanted = release.version.clone();
                self.result.damage.push((object, StoreError::MissingContent { digest, wanted }));
            } else if self.contents.insert(digest) {
                let read = reader.read(release.serial, &digest);
                self.note(object, read);
            }
            self.result.bytes += size;
            self.total = self.total.max(self.result.bytes);
            observer.progress(self.result.bytes, self.total);
        }
    }

    fn chunk(&mut self, list: &ChunkList, chunk: &ChunkEntry, hasher: &mut Hasher) -> Result<(), StoreError> {
        let pack = list.pack_of(chunk)?;
        let frame = read_frame(&self.transport, pack, chunk.range())?;
        let key = key_of(self.keys, pack)?;
        hasher.update(self.reader.open(key, &chunk.frame_id(), &frame)?.bytes());
        self.result.frames += 1;
        Ok(())
    }

    fn orphans(&mut self, root: &Path, directory: &str) -> Result<(), StoreError> {
        let path = root.join(directory);
        for entry in fs::read_dir(&path).map_err(StoreError::io("read", &path))? {
            let entry = entry.map_err(StoreError::io("read", &path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if directory.is_empty() && is_writers_own(&name) {
                continue;
            }
            let below = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if entry.file_type().map_err(StoreError::io("read", entry.path()))?.is_dir() {
                self.orphans(root, &below)?;
            } else if !self.named.contains(&below) {
                self.result.orphans.push(below);
            }
        }
        self.result.orphans.sort();
        Ok(())
    }
}

fn check_pack(place: &Path, path: &str, expected: Digest, bytes: u64) -> Result<(), StoreError> {
    let metadata = fs::metadata(place).map_err(StoreError::io("read", place))?;
    if metadata.len() != bytes {
        let found = metadata.len();
        return Err(StoreError::WrongLength { object: path.to_owned(), expected: bytes, found });
    }
    let found = digest_of(place)?;
    if found != expected {
        return Err(StoreError::WrongDigest { object: path.to_owned(), expected, found });
    }
    Ok(())
}

/// What the manifest says that files cost must be what their frames take.
fn check_costs(manifest: &Manifest, list: &ChunkList) -> Result<(), StoreError> {
    let files = manifest.files.iter().map(|file| (&file.path, &file.sha256, file.stored_bytes));
    let updaters = manifest.updaters.iter().map(|updater| (&updater.platform, &updater.sha256, updater.stored_bytes));
    for (name, digest, stored_bytes) in files.chain(updaters) {
        // A release that is based on another one has not all.
        let found = list.content(digest).map_or(stored_bytes, |content| list.stored_bytes(content));
        if found != stored_bytes {
            let object = format!("the frames of {name:?}");
            return Err(StoreError::WrongLength { object, expected: stored_bytes, found });
        }
    }
    Ok(())
}
