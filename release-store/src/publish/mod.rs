//! From a directory to a release.
//!
//! Order: chunks into a pack, chunk list, manifest, steps and their packs, then TUF metadata with the timestamp last (see [`crate::repository`]). A cut at any moment leaves the store as it was for everyone who reads it; the next
//! run finds what is complete by its name and makes the rest again. The same tree, keys and time give the same bytes.

mod index;
mod packer;
pub(crate) mod patches;
mod similar;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fastcdc::v2020::StreamCDC;
use firmware_image::Digest;
use firmware_image::digest::Hasher;
use firmware_image::signature::PublicKey;
use firmware_image::updater_image::{self, Floors, MAX_IMAGE_BYTES, MAX_TRAILER_BYTES, UpdaterVersion};

use crate::chunk_list::PackEntry;
use crate::clock;
use crate::contents::ContentReader;
use crate::error::StoreError;
use crate::frame::{FrameKind, FrameWriter};
use crate::ignore::IgnorePatterns;
use crate::keys::{KeyKind, Passphrase, SignedUpdater, sign_updater};
use crate::manifest::{
    FileEntry, Manifest, ModuleEntry, Policy, UpdaterEntry, check_channel, check_module, check_platform, check_version,
};
use crate::repository::{Observer, Repository, Step, step};
use crate::sealed;
use crate::stats::{self, UpdateStats};
use crate::store_files::{check_apart, read_small};
use crate::trust::{CHUNKS_PREFIX, MANIFEST_PREFIX, MAX_STEPS, Release, Releases};
use index::{Index, KnownUpdater};
use packer::Packer;
use patches::{NewBytes, NewContent, Patcher};
use tree::SourceFile;

/// The smallest chunk but a content's last, in bytes.
pub const MIN_CHUNK: usize = 16 << 10;
/// The chunk length aimed at, in bytes.
pub const AVERAGE_CHUNK: usize = 64 << 10;
/// The largest chunk, in bytes.
pub const MAX_CHUNK: usize = 256 << 10;
/// zstd's level unless told otherwise.
pub const DEFAULT_LEVEL: i32 = 19;
/// From how many of the last releases patches lead to a new one.
pub const DELTA_RELEASES: usize = 4;
/// Every so many releases of a channel, the first included, one is a keyframe: patches lead from the last one, too.
pub const KEYFRAME_RELEASES: usize = 16;
/// The channel unless told otherwise.
pub const DEFAULT_CHANNEL: &str = "stable";
/// The module unless told otherwise.
pub const DEFAULT_MODULE: &str = "client";

/// What to publish.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The directory that becomes the managed directory.
    pub tree: PathBuf,
    /// The release's version, for people.
    pub version: String,
    /// The channel.
    pub channel: String,
    /// The module that the files belong to.
    pub module: String,
    /// Patterns of files that are the user's own.
    pub ignore: Vec<String>,
    /// Updaters, by platform. Platforms that are not named keep the updater of the channel's newest release.
    pub updaters: Vec<(String, PathBuf)>,
    /// Platforms whose updater the release does not take over from there.
    pub dropped_updaters: Vec<String>,
    /// The version of updaters that are signed now; `None`: the one after the newest, unless nothing changed.
    pub updater_version: Option<UpdaterVersion>,
    /// What updaters signed now no longer let run.
    pub updater_floors: Floors,
    /// zstd's level.
    pub level: i32,
    /// Compressing threads.
    pub threads: usize,
    /// Which earlier releases patches are made from.
    pub deltas: DeltaFrom,
    /// Threads that make patches; each may take ten times a file's bytes of memory.
    pub jobs: usize,
    /// The time of publication, seconds since 1970.
    pub now: i64,
    /// That more than [`clock::MAX_PAUSE_SECS`] have passed since the newest release was published.
    pub after_long: bool,
}

/// Which earlier releases patches are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeltaFrom {
    /// The channel's last [`DELTA_RELEASES`], and its last keyframe.
    #[default]
    Recent,
    /// These versions of the channel, and no others.
    Versions(Vec<String>),
}

impl PublishRequest {
    /// A request with defaults for everything else.
    pub fn new(tree: impl Into<PathBuf>, version: impl Into<String>, now: i64) -> Self {
        Self {
            tree: tree.into(),
            version: version.into(),
            channel: DEFAULT_CHANNEL.into(),
            module: DEFAULT_MODULE.into(),
            ignore: Vec::new(),
            updaters: Vec::new(),
            dropped_updaters: Vec::new(),
            updater_version: None,
            updater_floors: Floors::default(),
            level: DEFAULT_LEVEL,
            threads: 2,
            deltas: DeltaFrom::Recent,
            jobs: 1,
            now,
            after_long: false,
        }
    }
}

/// What was published.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Published {
    /// The release.
    pub release: Release,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of its updaters.
    pub updater_bytes: u64,
    /// Chunks that no release had before.
    pub new_chunks: u64,
    /// Bytes of content of those.
    pub new_bytes: u64,
    /// Bytes of the pack they went into; 0 where there is none.
    pub pack_bytes: u64,
    /// The steps that lead to it.
    pub steps: Vec<StepMade>,
    /// What devices download to have it that have a release which patches were to be made from.
    pub updates: Vec<UpdateStats>,
    /// The updaters that travel with it.
    pub updaters: Vec<UpdaterEntry>,
}

/// A step that was made.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct StepMade {
    /// The serial of the release it leads from.
    pub from: u64,
    /// Bytes of the step itself.
    pub bytes: u64,
    /// The pack of its patches; `None`: it has none.
    pub pack: Option<PackEntry>,
}

/// Publishes a release.
///
/// # Errors
/// `AlreadyPublished`; `Path`, `NotAFile`, `Tree` for a tree that no release can hold; `Refused`, also for a clock that
/// cannot be right; `Key`, `WrongPassphrase`, `Io`; `Stopped` where `observer` said so. Nothing that was published changes.
pub fn publish(
    repository: &mut Repository<'_>,
    passphrase: &Passphrase,
    request: &PublishRequest,
    observer: &mut dyn Observer,
) -> Result<Published, StoreError> {
    check_version(&request.version).map_err(StoreError::Refused)?;
    check_channel(&request.channel).map_err(StoreError::Refused)?;
    check_module(&request.module).map_err(StoreError::Refused)?;
    let ignore = IgnorePatterns::new(&request.ignore)?;
    let newest = repository.releases().newest_publication();
    clock::check(request.now, newest)?;
    if !request.after_long {
        clock::check_pause(request.now, newest)?;
    }
    if let Some(known) = repository.releases().by_version(&request.channel, &request.version) {
        let (version, channel, serial) = (known.version.clone(), known.channel.clone(), known.serial);
        return Err(StoreError::AlreadyPublished { version, channel, serial });
    }
    let serial = repository.next_serial();
    let keys = repository.keys();
    check_apart(&request.tree, "the directory to publish", keys.path(), "the keys")?;
    check_apart(&request.tree, "the directory to publish", repository.writer().root(), "the store")?;
    let content_keys = keys.secrets(passphrase)?.content_keys;
    let key = content_keys.newest().ok_or_else(|| StoreError::Refused("there is no content key".into()))?;
    let bases: Vec<u64> = delta_bases(repository.releases(), request)?.iter().map(|base| base.serial).collect();

    let files = tree::scan(&request.tree)?;
    tree::check_no_keys(&request.tree, &files)?;
    let transport = repository.transport();
    let product = keys.product();
    let mut index = Index::read(repository.releases(), &transport, product, &request.channel, &content_keys)?;
    for platform in &request.dropped_updaters {
        if index.carried.remove(platform).is_none() {
            let reason =
                format!("the newest release of {} has no updater for {platform} to be dropped", request.channel);
            return Err(StoreError::Refused(reason));
        }
    }
    let updaters = make_updaters(repository, passphrase, request, &index)?;

    let total = files.iter().map(|file| file.size).chain(updaters.iter().map(|u| u.image.len() as u64)).sum();
    let mut packer = Packer::new(repository.writer(), key, request.level, request.threads, &index)?;
    let mut contents: BTreeMap<Digest, (u64, Vec<Digest>)> = BTreeMap::new();
    let mut done = 0;
    let mut digests = Vec::with_capacity(files.len());
    for file in &files {
        let source = File::open(&file.source).map_err(StoreError::io("open", &file.source))?;
        // One byte more than expected, so that growth shows.
        let (digest, size, chunks) = add_content(&mut packer, &mut index, source.take(file.size + 1), &file.source)?;
        if size != file.size {
            return Err(tree::changed(&file.source));
        }
        contents.insert(digest, (size, chunks));
        digests.push(digest);
        done += size;
        observer.progress(done, total);
    }
    tree::check_at_rest(&request.tree, &files)?;
    let mut carried = index.carried.clone();
    for updater in &updaters {
        let (digest, size, chunks) =
            add_content(&mut packer, &mut index, updater.image.as_slice(), Path::new("updater"))?;
        done += size;
        observer.progress(done, total);
        let entry = UpdaterEntry {
            platform: updater.platform.clone(),
            version: updater.version,
            size,
            stored_bytes: 0,
            sha256: digest,
        };
        carried.insert(updater.platform.clone(), KnownUpdater { entry, chunks });
    }
    packer.finish_chunks(&mut index)?;
    step(observer, Step::Chunked)?;
    let (new_chunks, new_bytes) = (packer.new_chunks, packer.new_bytes);
    let pack = packer.finish(&mut index)?;
    step(observer, Step::PackWritten)?;

    let mut updater_entries = Vec::new();
    for known in carried.into_values() {
        let stored_bytes = index.stored_bytes(&known.chunks);
        contents.insert(known.entry.sha256, (known.entry.size, known.chunks));
        updater_entries.push(UpdaterEntry { stored_bytes, ..known.entry });
    }
    let mut writer = FrameWriter::new(key, request.level)?;
    let list = index.chunk_list(&contents)?.encode()?;
    let sealed_list = sealed::seal(FrameKind::ChunkList, &mut writer, &list)?;
    let chunks = repository.write_object(&format!("{CHUNKS_PREFIX}{serial}"), &sealed_list)?;
    step(observer, Step::ChunkListWritten)?;

    let entries = files.iter().zip(&digests).map(|(file, digest)| file_entry(file, digest, &contents, &index, &ignore));
    let mut manifest = Manifest {
        product: product.to_owned(),
        channel: request.channel.clone(),
        serial,
        version: request.version.clone(),
        published: request.now,
        modules: vec![ModuleEntry { id: request.module.clone(), version: request.version.clone() }],
        files: entries.collect(),
        updaters: updater_entries.clone(),
        ignore: request.ignore.clone(),
        blind: [0; 16],
    };
    manifest.blind = writer.blind(&manifest.encode()?);
    let encoded = manifest.encode()?;
    let sealed_manifest = sealed::seal(FrameKind::Manifest, &mut writer, &encoded)?;
    let sealed = repository.write_object(&format!("{MANIFEST_PREFIX}{serial}"), &sealed_manifest)?;
    step(observer, Step::ManifestWritten)?;

    let mut patched: BTreeMap<Digest, NewContent<'static>> = BTreeMap::new();
    let mut add = |digest: Digest, name: &str, source: NewBytes<'static>, size: u64| {
        let chunk_bytes = contents.get(&digest).map_or(0, |(_, chunks)| index.stored_bytes(chunks));
        patched.entry(digest).or_insert(NewContent { name: name.to_owned(), source, size, chunk_bytes });
    };
    for (file, digest) in files.iter().zip(&digests) {
        add(*digest, &file.path, NewBytes::File(file.source.clone()), file.size);
    }
    for updater in updaters {
        let (digest, size) = (Digest::of(&updater.image), updater.image.len() as u64);
        add(digest, &updater.platform, NewBytes::Memory(Rc::new(updater.image)), size);
    }
    for carried in &updater_entries {
        add(carried.sha256, &carried.platform, NewBytes::Kept, carried.size);
    }
    let patcher = Patcher { key, contents: &patched, manifest: &manifest, jobs: request.jobs };
    let mut release = Release::new(&manifest, Digest::of(&encoded), sealed, chunks);
    let mut made = Vec::new();
    let reader = ContentReader::new(repository.releases(), &transport, product, &content_keys)?;
    let reader = RefCell::new(reader);
    for base in &bases {
        let Some(edge) = patcher.step(*base, &reader, observer)? else { continue };
        edge.write_pack(repository.writer())?;
        let object = repository.write_object(&release.step_name(*base), &edge.sealed)?;
        release.steps.push((*base, object));
        made.push(StepMade { from: *base, bytes: object.bytes, pack: edge.step.pack });
    }
    step(observer, Step::StepsWritten)?;
    let mut releases = repository.releases().clone();
    releases.put(release.clone());
    repository.set_releases(releases, passphrase, request.now, observer)?;
    // It is published by now, whatever is to be said of it.
    let updates = stats::updates_to(serial, &bases, repository, &content_keys).unwrap_or_else(|error| {
        observer.note(&format!("what updates download cannot be said: {error}"));
        Vec::new()
    });
    Ok(Published {
        files: files.len() as u64,
        bytes: manifest.total_bytes(),
        updater_bytes: updater_entries.iter().map(|updater| updater.size).sum(),
        new_chunks,
        new_bytes,
        pack_bytes: pack.map_or(0, |pack| pack.bytes),
        release,
        steps: made,
        updates,
        updaters: updater_entries,
    })
}

/// The releases that patches are made from, by serial.
fn delta_bases<'r>(releases: &'r Releases, request: &PublishRequest) -> Result<Vec<&'r Release>, StoreError> {
    let of_channel: Vec<&Release> = releases.iter().filter(|release| release.channel == request.channel).collect();
    match &request.deltas {
        DeltaFrom::Versions(versions) => {
            // One more is the step back that `gc` makes.
            if versions.len() >= MAX_STEPS {
                let (found, most) = (versions.len(), MAX_STEPS - 1);
                let reason = format!("{found} versions to make patches from, and at most {most} may be: name fewer");
                return Err(StoreError::Refused(reason));
            }
            for version in versions {
                if !of_channel.iter().any(|release| release.version == *version) {
                    return Err(StoreError::NoSuchRelease { wanted: version.clone() });
                }
            }
            Ok(of_channel.into_iter().filter(|release| versions.contains(&release.version)).collect())
        }
        DeltaFrom::Recent => {
            let recent = of_channel.len().saturating_sub(DELTA_RELEASES);
            let keyframe = of_channel.len().saturating_sub(1) / KEYFRAME_RELEASES * KEYFRAME_RELEASES;
            let wanted = |place: usize| place >= recent || place == keyframe;
            let bases = of_channel.into_iter().enumerate().filter(|(place, _)| wanted(*place));
            Ok(bases.map(|(_, release)| release).collect())
        }
    }
}

fn file_entry(
    file: &SourceFile,
    digest: &Digest,
    contents: &BTreeMap<Digest, (u64, Vec<Digest>)>,
    index: &Index,
    ignore: &IgnorePatterns,
) -> FileEntry {
    FileEntry {
        path: file.path.clone(),
        mode: file.mode,
        size: file.size,
        stored_bytes: contents.get(digest).map_or(0, |(_, chunks)| index.stored_bytes(chunks)),
        sha256: *digest,
        policy: if ignore.matches(&file.path) { Policy::Seed } else { Policy::Managed },
        module: 0,
    }
}

/// Cuts a content into chunks; returns its digest, its length and its chunks.
fn add_content<R: std::io::Read>(
    packer: &mut Packer<'_>,
    index: &mut Index,
    source: R,
    path: &Path,
) -> Result<(Digest, u64, Vec<Digest>), StoreError> {
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut chunks = Vec::new();
    for chunk in StreamCDC::new(source, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK) {
        let content = chunk.map_err(std::io::Error::from).map_err(StoreError::io("read", path))?.data;
        hasher.update(&content);
        size += content.len() as u64;
        let digest = Digest::of(&content);
        chunks.push(digest);
        packer.add(index, digest, content)?;
    }
    Ok((hasher.finish(), size, chunks))
}

/// The updaters named in the request, signed.
fn make_updaters(
    repository: &Repository<'_>,
    passphrase: &Passphrase,
    request: &PublishRequest,
    index: &Index,
) -> Result<Vec<SignedUpdater>, StoreError> {
    let floors = request.updater_floors;
    if request.updaters.is_empty() {
        if request.updater_version.is_some() || floors != Floors::default() {
            let reason = "an updater's version or floor is part of an updater: name those that are to have it";
            return Err(StoreError::Refused(reason.into()));
        }
        return Ok(Vec::new());
    }
    let keys = repository.keys();
    let key = keys.signing_key(KeyKind::Updater, passphrase)?;
    let mut made: Vec<SignedUpdater> = Vec::new();
    for (platform, path) in &request.updaters {
        check_platform(platform).map_err(StoreError::Refused)?;
        if made.iter().any(|other| other.platform == *platform) {
            return Err(StoreError::Refused(format!("the updater for {platform} is named twice")));
        }
        let program = read_small(path, MAX_IMAGE_BYTES)?;
        let program = program.ok_or_else(|| StoreError::Refused(format!("{} is not there", path.display())))?;
        let sign = |program, version| sign_updater(keys, &key, platform, program, version, floors);
        let newest = index.newest_updaters.get(platform);
        let updater = match (request.updater_version, newest) {
            (Some(version), _) => sign(program, version)?,
            (None, None) => sign(program, first_version())?,
            // Unchanged is only what its new floor admits.
            (None, Some(newest)) if newest.version < floors.version => sign(program, next_version(newest.version)?)?,
            (None, Some(newest)) => {
                // Signing is deterministic: an unchanged program gives the image that was published.
                let same = sign(program.clone(), newest.version)?;
                if !same.newly_signed || Digest::of(&same.image) == newest.sha256 {
                    same
                } else {
                    sign(program, next_version(newest.version)?)?
                }
            }
        };
        if !updater.newly_signed {
            check_signed_as_asked(&updater, request, keys.vendor_key(), path)?;
        }
        made.push(updater);
    }
    Ok(made)
}

/// Refuses an updater that was signed before with another version or floor than is asked for now.
fn check_signed_as_asked(
    updater: &SignedUpdater,
    request: &PublishRequest,
    vendor: &PublicKey,
    path: &Path,
) -> Result<(), StoreError> {
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = updater_image::verify_bytes(&updater.image, vendor, &mut buffer);
    let trailer = trailer.map_err(|error| StoreError::Refused(format!("{}: {error}", path.display())))?;
    let (version, floors) = (updater.version, trailer.body().floors);
    let asked = request.updater_floors;
    if request.updater_version.is_none_or(|asked| asked == version) && (asked == Floors::default() || asked == floors) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "{} is signed already, as version {version} with the floor {}: give the program as it was built, or ask for nothing else",
        path.display(),
        floors.version
    )))
}

/// The version of a product's first updater: this workspace's, which updaters are built from.
fn first_version() -> UpdaterVersion {
    UpdaterVersion::parse(env!("CARGO_PKG_VERSION")).unwrap_or(UpdaterVersion { major: 0, minor: 1, patch: 0 })
}

/// The version of an updater that differs from the newest one.
fn next_version(newest: UpdaterVersion) -> Result<UpdaterVersion, StoreError> {
    let patch = newest.patch.checked_add(1);
    let patch =
        patch.ok_or_else(|| StoreError::Refused("updater versions are used up: give --updater-version".into()))?;
    Ok(first_version().max(UpdaterVersion { patch, ..newest }))
}
