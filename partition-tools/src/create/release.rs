//! A release out of a store: verified from the keys' root, installed into the free zone, listed for the virtual zone.
//!
//! What the updater finds afterwards is what it would have left itself: the files under `client/`, the accepted metadata,
//! the manifest and the sealed chunk list under `.holdfast/trust/`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use embedded_io::Write as _;
use firmware_image::digest::Hasher;
use firmware_image::free_zone::FreeZone;
use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::paths;
use release_store::chunk_list::ChunkList;
use release_store::contents::ContentReader;
use release_store::frame::FrameReader;
use release_store::keys::{KeySource, ProductSecrets};
use release_store::manifest::{Manifest, UpdaterEntry};
use release_store::transport::{Directory, GetOutcome, Sink, Transport, get_range};
use release_store::trust::{Accepted, MemoryCache, Release, Releases, Trust, TrustCache as _, VerifiedManifest};
use release_store::{Digest, StoreError, TransportError};

use super::Request;
use crate::error::ToolError;
use crate::progress::Progress;

/// Room that a directory entry and part of a cluster take, at most.
const FILE_OVERHEAD_BYTES: u64 = 33 * 1024;

/// Pieces of content between the thread that opens frames and the one that writes: at most 16 MiB.
const QUEUED_PIECES: usize = 64;
/// The pieces that a content is cut into which comes in one, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Why writing ended early.
enum Stopped {
    /// The thread that reads has ended.
    ReaderGone,
    /// Writing failed.
    Failed(ToolError),
}

/// What was preinstalled.
#[derive(Debug, Clone)]
pub struct Preinstalled {
    /// The release's version.
    pub version: String,
    /// Its serial.
    pub serial: u64,
    /// Files installed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A verified release, with the way to its contents.
pub(super) struct Opened {
    store: Recording,
    trust: Trust<MemoryCache>,
    releases: Releases,
    accepted: Accepted,
    verified: VerifiedManifest,
    manifest: Manifest,
    sealed_list: Vec<u8>,
    list: ChunkList,
    keys: release_store::ContentKeys,
}

impl Opened {
    /// Opens the release of `version` in the store at `path`.
    ///
    /// # Errors
    /// `Store`: not a store, another product's, no such release, damaged.
    pub fn open(
        path: &Path,
        version: &str,
        request: &Request,
        keys: &KeySource,
        secrets: &ProductSecrets,
    ) -> Result<Self, ToolError> {
        let store = Recording::new(path);
        let trust = Trust::new(&keys.root_json()?, MemoryCache::new())?;
        // The factory's clock decides nothing: what counts is that the release is authentic. Time stands still before
        // every expiry, so that an old store can be preinstalled and the device learns at home what is newer.
        let refreshed = trust.refresh(&store, 0)?;
        let channel = request.channel.as_deref().unwrap_or(release_store::publish::DEFAULT_CHANNEL);
        let mut releases = refreshed.releases;
        if releases.by_version(channel, version).is_none() {
            releases = trust.archive(&store)?;
        }
        let release = releases.by_version(channel, version).ok_or_else(|| {
            let known: Vec<&str> =
                releases.iter().filter(|one| one.channel == channel).map(|one| &*one.version).collect();
            ToolError::Refused(format!(
                "the store {} has no release {version} in the channel {channel}; it has: {}",
                path.display(),
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ))
        })?;
        if let Some(reason) = &release.withdrawn {
            return Err(ToolError::Refused(format!("release {version} was withdrawn: {reason}")));
        }
        let serial = release.serial;
        if release.base.is_some() {
            // What it is made of may be there.
            releases = trust.archive(&store)?;
        }
        let missing = || StoreError::NoSuchRelease { wanted: version.to_owned() };
        let release = releases.by_serial(serial).ok_or_else(missing)?;
        let keys_of_product = secrets.content_keys.clone();
        let verified = VerifiedManifest::fetch(release, &store, &keys_of_product)?;
        let manifest = verified.open(keys.product())?;
        let sealed_list = release.chunks.fetch(&release.chunks_name(), &store)?;
        let list = ChunkList::open(&sealed_list, release, &manifest, &keys_of_product)?;
        let accepted = refreshed.accepted;
        Ok(Self { store, trust, releases, accepted, verified, manifest, sealed_list, list, keys: keys_of_product })
    }

    pub fn release(&self) -> &Release {
        self.verified.release()
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    pub fn version(&self) -> &str {
        &self.release().version
    }

    pub fn published(&self) -> i64 {
        self.release().published
    }

    /// Bytes of the free zone that installing takes, at most.
    pub fn install_bytes(&self) -> u64 {
        let files: u64 = self.manifest.files.iter().map(|file| file.size + FILE_OVERHEAD_BYTES).sum();
        files + self.sealed_list.len() as u64 + self.verified.bytes().len() as u64
    }

    /// Says where a client command names what the release does not hold.
    pub fn check_commands(&self, commands: &[(String, String)], warnings: &mut Vec<String>) {
        for (_, command) in commands {
            let program = command.split(' ').next().unwrap_or_default();
            let inside = program.strip_prefix(paths::CLIENT_DIR).and_then(|rest| rest.strip_prefix('/'));
            match inside.map(|path| self.manifest.file(path)) {
                None => warnings.push(format!("the client command '{program}' is not in client/")),
                Some(None) => warnings.push(format!("release {} holds no '{program}'", self.version())),
                Some(Some(file)) if !file.is_executable() => {
                    warnings.push(format!("'{program}' is not marked executable in release {}", self.version()));
                }
                Some(Some(_)) => {}
            }
        }
    }

    /// An updater that travels with the release.
    ///
    /// # Errors
    /// `Store`.
    pub fn updater_image(&self, entry: &UpdaterEntry) -> Result<Vec<u8>, ToolError> {
        let mut image = Vec::new();
        self.content(&mut None, &entry.sha256, entry.size, &mut |bytes| {
            image.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(image)
    }

    /// Installs the release into an empty free zone.
    ///
    /// # Errors
    /// `Store` for contents that do not verify, `Zone`.
    pub fn install<F: FreeZone>(&self, free: &F, progress: &mut dyn Progress) -> Result<Preinstalled, ToolError> {
        progress.begin("client", self.manifest.total_bytes());
        // One thread opens and checks frames, this one writes: each takes about half of the time.
        let bytes = std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUED_PIECES);
            let reading = scope.spawn(move || self.send_contents(&sender));
            let written = self.write_contents(free, &receiver, progress);
            // Whoever waits to send must see that nobody takes it any more.
            drop(receiver);
            let sent = reading.join().unwrap_or(Err(ToolError::Refused("reading the release was stopped".into())));
            match (written, sent) {
                // The writer misses what the reader could not give: the reader knows why.
                (Err(Stopped::ReaderGone), Err(error)) | (Ok(_), Err(error)) => Err(error),
                (Err(Stopped::Failed(error)), _) => Err(error),
                (Err(Stopped::ReaderGone), Ok(())) => Err(ToolError::Refused("the release ended too early".into())),
                (Ok(bytes), Ok(())) => Ok(bytes),
            }
        })?;
        let cache = self.trust.cache();
        let mut kept = vec![
            (paths::MANIFEST.to_owned(), self.verified.bytes().to_vec()),
            (paths::CHUNK_LIST.to_owned(), self.sealed_list.clone()),
        ];
        if let Some(statement) = self.trust.statement(self.release().serial, &self.release().manifest) {
            kept.push((paths::STATEMENT.to_owned(), statement));
        }
        let names = ["timestamp.json", "snapshot.json", "targets.json", "archive.json"].map(str::to_owned);
        let roots =
            (2..=u64::from(release_store::trust::MAX_NEW_ROOTS) + 2).map(|version| format!("{version}.root.json"));
        for name in names.into_iter().chain(roots) {
            if let Some(bytes) = cache.load(&name) {
                kept.push((format!("{}/{name}", paths::TRUST_DIR), bytes));
            }
        }
        for (path, bytes) in kept {
            crate::identity::put_file(free, &path, &mut bytes.as_slice(), |_| {})?;
        }
        let release = self.release();
        let files = self.manifest.files.len() as u64;
        Ok(Preinstalled { version: release.version.clone(), serial: release.serial, files, bytes })
    }

    /// Sends every file's contents, piece by piece, with an empty piece after each file that was verified as a whole.
    fn send_contents(&self, sender: &std::sync::mpsc::SyncSender<Vec<u8>>) -> Result<(), ToolError> {
        let gone = || ToolError::Refused("nobody takes the release's contents".into());
        let mut patched = None;
        for entry in &self.manifest.files {
            self.content(&mut patched, &entry.sha256, entry.size, &mut |part| {
                sender.send(part.to_vec()).map_err(|_| gone())
            })?;
            sender.send(Vec::new()).map_err(|_| gone())?;
        }
        Ok(())
    }

    fn write_contents<F: FreeZone>(
        &self,
        free: &F,
        receiver: &std::sync::mpsc::Receiver<Vec<u8>>,
        progress: &mut dyn Progress,
    ) -> Result<u64, Stopped> {
        let mut bytes = 0;
        for entry in &self.manifest.files {
            let path = format!("{}/{}", paths::CLIENT_DIR, entry.path);
            let failed =
                |source| Stopped::Failed(ToolError::zone("written", format!("{path} in the free zone"))(source));
            let mut file = free.create(&path).map_err(failed)?;
            loop {
                let part = receiver.recv().map_err(|_| Stopped::ReaderGone)?;
                if part.is_empty() {
                    break;
                }
                file.write_all(&part).map_err(failed)?;
                progress.advance(part.len() as u64);
            }
            drop(file);
            if entry.is_executable() {
                free.set_executable(&path, true).map_err(failed)?;
            }
            bytes += entry.size;
        }
        Ok(bytes)
    }

    /// The store's files that this release needs, for the virtual zone.
    ///
    /// # Errors
    /// `Store`: a pack is missing; `Refused` for a release that the store holds as patches on another one.
    pub fn offline_files(&self) -> Result<Vec<IsoFile>, ToolError> {
        if self.release().base.is_some() {
            return Err(ToolError::Refused(format!(
                "the store {} holds release {} as patches on another one, so it cannot be carried along: \
                 take one that `release-store list` calls whole, or leave out --offline-source",
                self.store.root().display(),
                self.version()
            )));
        }
        let mut wanted = self.store.seen();
        // The trusted root itself was given, not asked for; a person who copies the store by hand wants it.
        if self.store.root().join("metadata/1.root.json").is_file() {
            wanted.insert("metadata/1.root.json".into());
        }
        for pack in &self.list.packs {
            wanted.insert(pack.path());
        }
        let mut files = Vec::new();
        for path in wanted {
            let host = self.store.root().join(&path);
            std::fs::metadata(&host).map_err(ToolError::host("read", &host))?;
            files.push(IsoFile::new(format!("{}/{path}", paths::OFFLINE_STORE_DIR), Source::File(host)));
        }
        Ok(files)
    }

    /// Gives the content of `digest` to `sink`, verified piece by piece and as a whole. What there are no chunks of comes
    /// from `patched`, which is opened where it is wanted first.
    fn content<'a>(
        &'a self,
        patched: &mut Option<ContentReader<'a, Recording>>,
        digest: &Digest,
        size: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), ToolError>,
    ) -> Result<(), ToolError> {
        let mut hasher = Hasher::new();
        if size > 0 {
            let Some(content) = self.list.content(digest) else {
                let reader = match patched {
                    Some(reader) => reader,
                    None => {
                        let product = &self.manifest.product;
                        patched.insert(ContentReader::new(&self.releases, &self.store, product, &self.keys)?)
                    }
                };
                let bytes = reader.read(self.release().serial, digest)?;
                return bytes.chunks(PIECE_BYTES).try_for_each(sink);
            };
            let mut reader = FrameReader::new()?;
            for (_, chunk) in self.list.chunks_of(content) {
                let pack = self.list.pack_of(chunk)?;
                let unknown = || StoreError::UnknownKey { object: pack.path(), number: pack.key };
                let key = self.keys.get(pack.key).ok_or_else(unknown)?;
                let mut stored = Vec::with_capacity(chunk.stored_len as usize);
                get_range(&self.store, &pack.path(), chunk.range(), pack.bytes, &mut |_, piece| {
                    stored.extend_from_slice(piece);
                    Ok(())
                })
                .map_err(StoreError::from)?;
                let frame = reader.open(key, &chunk.frame_id(), &stored)?;
                hasher.update(frame.bytes());
                sink(frame.bytes())?;
            }
        }
        let found = hasher.finish();
        if found == *digest {
            return Ok(());
        }
        Err(StoreError::WrongDigest { object: "a file of the release".into(), expected: *digest, found }.into())
    }
}

/// A store in a directory that remembers which objects it gave.
struct Recording {
    inner: Directory,
    root: PathBuf,
    seen: Mutex<BTreeSet<String>>,
}

impl Recording {
    fn new(root: &Path) -> Self {
        Self { inner: Directory::new(root), root: root.to_owned(), seen: Mutex::default() }
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Transport for Recording {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        let outcome = self.inner.get(path, range, max_bytes, sink)?;
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(path.to_owned());
        Ok(outcome)
    }
}
