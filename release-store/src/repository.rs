//! The signed state of a store: its TUF metadata, read, verified and signed anew.
//!
//! Write order: what is named before what names it. `N.targets.json`, then `N.snapshot.json`, then `timestamp.json` in
//! place of the old one, in one rename: that is the moment at which devices see anything. A file once written under a
//! number is never changed: where an interrupted run left one, the next number is taken.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value, json};
use sigstore_tuf::metadata::Role as _;

use crate::error::StoreError;
use crate::keys::{KeyDir, KeyKind, Passphrase};
use crate::store_files::StoreWriter;
use crate::transport::Directory;
use crate::trust::{MANIFEST_PREFIX, MAX_TARGETS_BYTES, MemoryCache, Release, ReleaseStatement, Releases, Trust};
use crate::tuf;

/// The longest reason of a withdrawal, in bytes.
pub const MAX_REASON_BYTES: usize = 500;

/// A step that was done; the store is sound after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The tree was read through; new chunks are in a temporary file.
    Chunked,
    /// The new chunks' pack has its name.
    PackWritten,
    /// The chunk list's pack has its name.
    ChunkListWritten,
    /// The packs of patches have their names.
    PatchesWritten,
    /// The sealed manifest has its name.
    ManifestWritten,
    /// New targets metadata.
    TargetsWritten,
    /// New snapshot metadata.
    SnapshotWritten,
    /// The new timestamp stands: it is published.
    TimestampWritten,
}

/// Watches long work, and may stop it.
pub trait Observer {
    /// `done` of `total` bytes were worked on.
    fn progress(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// Something that whoever publishes should know, and that stops nothing.
    fn note(&mut self, text: &str) {
        let _ = text;
    }

    /// A step was done. `Break` stops the work; the store is sound and can be worked on again.
    fn step(&mut self, step: Step) -> ControlFlow<()> {
        let _ = step;
        ControlFlow::Continue(())
    }
}

/// Watches nothing.
#[derive(Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}

pub(crate) fn step(observer: &mut dyn Observer, step: Step) -> Result<(), StoreError> {
    match observer.step(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(StoreError::Stopped),
    }
}

/// A store, locked for writing, whose metadata was verified against a product's keys.
#[derive(Debug)]
pub struct Repository<'k> {
    writer: StoreWriter,
    keys: &'k KeyDir,
    state: State,
}

#[derive(Debug)]
struct State {
    root_version: u64,
    root_expires: jiff::Timestamp,
    targets: Map<String, Value>,
    targets_version: u64,
    targets_expires: jiff::Timestamp,
    targets_file: Vec<u8>,
    snapshot_version: u64,
    snapshot_expires: jiff::Timestamp,
    snapshot_file: Vec<u8>,
    timestamp_version: u64,
    timestamp_expires: jiff::Timestamp,
    releases: Releases,
}

/// What [`Repository::renew`] signed again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// A new root: the old one's validity was more than half over.
    pub root: bool,
    /// The root's validity is more than half over, and its key is not at hand.
    pub root_is_due: bool,
    /// New targets.
    pub targets: bool,
    /// A new snapshot.
    pub snapshot: bool,
    /// Until when the store is fresh, RFC 3339.
    pub fresh_until: String,
}

impl<'k> Repository<'k> {
    /// Makes an empty store at `root` (created where it does not exist). Goes on where an interrupted `init` stopped.
    ///
    /// # Errors
    /// `Refused` where there is a store already.
    pub fn init(root: &Path, keys: &'k KeyDir, passphrase: &Passphrase, now: i64) -> Result<Self, StoreError> {
        std::fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
        let writer = StoreWriter::lock(root)?;
        if writer.at("metadata/timestamp.json").exists() {
            let root = root.display();
            return Err(StoreError::Refused(format!("{root} is a store already: `list {root}` shows what is in it")));
        }
        let online = keys.tuf_key(KeyKind::Online, passphrase)?;
        let targets_key = keys.tuf_key(KeyKind::Targets, passphrase)?;
        let root_json = keys.root_json()?;
        let version = sigstore_tuf::Metadata::<sigstore_tuf::Root>::from_slice(&root_json)
            .map_err(|source| StoreError::Tuf { role: "root".into(), source })?
            .signed()
            .version;
        writer.write_once(&format!("metadata/{version}.root.json"), &root_json, None)?;
        let no_targets = Map::new();
        let (targets_version, targets) = write_numbered(&writer, "targets", 1, |version| {
            targets_key.sign(&tuf::targets(version, now, &no_targets))
        })?;
        let (snapshot_version, snapshot) = write_numbered(&writer, "snapshot", 1, |version| {
            online.sign(&tuf::snapshot(version, now, targets_version, &targets))
        })?;
        let timestamp = online.sign(&tuf::timestamp(1, now, snapshot_version, &snapshot));
        writer.replace("metadata/timestamp.json", &timestamp)?;
        let state = State::read(&writer, keys)?;
        Ok(Self { writer, keys, state })
    }

    /// Locks the store at `root` and verifies its metadata against `keys`.
    ///
    /// # Errors
    /// `Refused` where there is no store, `Locked`, `Tuf`.
    pub fn open(root: &Path, keys: &'k KeyDir) -> Result<Self, StoreError> {
        if !root.join("metadata/timestamp.json").is_file() {
            let root = root.display();
            return Err(StoreError::Refused(format!("{root} is not a store: make one with `init {root}`")));
        }
        let writer = StoreWriter::lock(root)?;
        let state = State::read(&writer, keys)?;
        Ok(Self { writer, keys, state })
    }

    /// The releases in it.
    pub fn releases(&self) -> &Releases {
        &self.state.releases
    }

    /// The keys it belongs to.
    pub fn keys(&self) -> &'k KeyDir {
        self.keys
    }

    /// The store to read from.
    pub fn transport(&self) -> Directory {
        Directory::new(self.writer.root())
    }

    pub(crate) fn writer(&self) -> &StoreWriter {
        &self.writer
    }

    /// Until when devices take it as fresh, RFC 3339.
    pub fn fresh_until(&self) -> String {
        let state = &self.state;
        let first = state.timestamp_expires.min(state.snapshot_expires).min(state.targets_expires);
        first.min(state.root_expires).to_string()
    }

    /// Signs the timestamp again, and whatever else is more than half over.
    ///
    /// # Errors
    /// `Key`, `WrongPassphrase`, `Io`.
    pub fn renew(&mut self, passphrase: &Passphrase, now: i64) -> Result<Renewed, StoreError> {
        let state = &self.state;
        let root_is_half_over = tuf::is_half_over(state.root_expires, now, tuf::ROOT_DAYS);
        let targets = tuf::is_half_over(state.targets_expires, now, tuf::TARGETS_DAYS);
        let snapshot = targets || tuf::is_half_over(state.snapshot_expires, now, tuf::TARGETS_DAYS);
        let root = root_is_half_over && self.keys.has(KeyKind::Root);
        if root {
            let key = self.keys.tuf_key(KeyKind::Root, passphrase)?;
            let [root, targets, online] = self.keys.tuf_keys();
            let version = state.root_version + 1;
            let file = key.sign(&tuf::root(version, now, root, targets, online));
            self.writer.write_once(&format!("metadata/{version}.root.json"), &file, None)?;
            self.keys.replace_root(&file)?;
        }
        let change = targets.then(|| self.state.targets.clone());
        self.commit(change, snapshot, passphrase, now, &mut NoObserver)?;
        let (root_is_due, fresh_until) = (root_is_half_over && !root, self.fresh_until());
        Ok(Renewed { root, root_is_due, targets, snapshot, fresh_until })
    }

    /// Withdraws a release, with a reason that may be empty, or lets a withdrawn one stand again (`None`). Devices that
    /// run a withdrawn release go to the newest that stands.
    ///
    /// # Errors
    /// `NoSuchRelease`; `Refused` where it is so already, or the reason is not one line; `Key`, `WrongPassphrase`, `Io`.
    pub fn withdraw(
        &mut self,
        channel: &str,
        version: &str,
        reason: Option<&str>,
        passphrase: &Passphrase,
        now: i64,
    ) -> Result<Release, StoreError> {
        let release = self.state.releases.by_version(channel, version);
        let release = release.ok_or_else(|| StoreError::NoSuchRelease { wanted: format!("{version} in {channel}") })?;
        match (&release.withdrawn, reason) {
            (None, None) => {
                return Err(StoreError::Refused(format!("release {version} in {channel} is not withdrawn")));
            }
            (Some(known), Some(reason)) if known == reason => {
                return Err(StoreError::Refused(format!("release {version} in {channel} is withdrawn already")));
            }
            _ => {}
        }
        if let Some(reason) = reason.filter(|text| text.len() > MAX_REASON_BYTES || text.chars().any(char::is_control))
        {
            let length = reason.len();
            return Err(StoreError::Refused(format!(
                "a reason is one line of at most {MAX_REASON_BYTES} bytes, this one has {length}"
            )));
        }
        let serial = release.serial;
        let mut targets = self.state.targets.clone();
        let statement = targets
            .get_mut(&format!("{MANIFEST_PREFIX}{serial}"))
            .and_then(|target| target.get_mut("custom")?.get_mut("holdfast")?.as_object_mut())
            .ok_or_else(|| StoreError::malformed("the TUF targets", "the release's statement is missing"))?;
        match reason {
            Some(reason) => statement.insert("withdrawn".into(), reason.into()),
            None => statement.remove("withdrawn"),
        };
        self.commit(Some(targets), true, passphrase, now, &mut NoObserver)?;
        let wanted = || StoreError::NoSuchRelease { wanted: format!("serial {serial}") };
        self.state.releases.by_serial(serial).cloned().ok_or_else(wanted)
    }

    /// Adds a release whose sealed manifest is `sealed`.
    pub(crate) fn add_release(
        &mut self,
        release: &Release,
        sealed: &[u8],
        passphrase: &Passphrase,
        now: i64,
        observer: &mut dyn Observer,
    ) -> Result<(), StoreError> {
        let digest = release.manifest_digest;
        self.writer.write_once(&release.manifest_path(), sealed, Some(&digest))?;
        step(observer, Step::ManifestWritten)?;
        let statement = ReleaseStatement {
            serial: release.serial,
            version: release.version.clone(),
            channel: release.channel.clone(),
            published: release.published,
            withdrawn: None,
        };
        let mut targets = self.state.targets.clone();
        targets.insert(
            format!("{MANIFEST_PREFIX}{}", release.serial),
            json!({
                "custom": {"holdfast": statement},
                "hashes": {"sha256": digest.to_string()},
                "length": release.manifest_bytes,
            }),
        );
        self.commit(Some(targets), true, passphrase, now, observer)
    }

    /// Signs and writes: targets where they changed, a snapshot where it must or should be new, always a timestamp.
    fn commit(
        &mut self,
        targets: Option<Map<String, Value>>,
        new_snapshot: bool,
        passphrase: &Passphrase,
        now: i64,
        observer: &mut dyn Observer,
    ) -> Result<(), StoreError> {
        let state = &self.state;
        let online = self.keys.tuf_key(KeyKind::Online, passphrase)?;
        let (mut targets_version, mut targets_file) = (state.targets_version, state.targets_file.clone());
        if let Some(targets) = &targets {
            let key = self.keys.tuf_key(KeyKind::Targets, passphrase)?;
            (targets_version, targets_file) =
                write_numbered(&self.writer, "targets", state.targets_version + 1, |version| {
                    key.sign(&tuf::targets(version, now, targets))
                })?;
            step(observer, Step::TargetsWritten)?;
        }
        let (mut snapshot_version, mut snapshot_file) = (state.snapshot_version, state.snapshot_file.clone());
        if new_snapshot {
            (snapshot_version, snapshot_file) =
                write_numbered(&self.writer, "snapshot", state.snapshot_version + 1, |version| {
                    online.sign(&tuf::snapshot(version, now, targets_version, &targets_file))
                })?;
            step(observer, Step::SnapshotWritten)?;
        }
        let timestamp =
            online.sign(&tuf::timestamp(state.timestamp_version + 1, now, snapshot_version, &snapshot_file));
        self.writer.replace("metadata/timestamp.json", &timestamp)?;
        self.state = State::read(&self.writer, self.keys)?;
        step(observer, Step::TimestampWritten)
    }
}

impl State {
    fn read(writer: &StoreWriter, keys: &KeyDir) -> Result<Self, StoreError> {
        let trust = Trust::new(&keys.root_json()?, MemoryCache::new())?;
        let known = trust.offline_known(&Directory::new(writer.root()))?;
        let missing = || StoreError::NothingKnown;
        let targets = known.set.targets_role("targets").ok_or_else(missing)?;
        let snapshot = known.set.snapshot().ok_or_else(missing)?;
        let timestamp = known.set.timestamp().ok_or_else(missing)?;
        let mut signed = tuf::signed_part(&known.targets, "the TUF targets")?;
        let map = signed.get_mut("targets").map(Value::take);
        let Some(Value::Object(map)) = map else {
            return Err(StoreError::malformed("the TUF targets", "they hold no targets"));
        };
        Ok(Self {
            root_version: known.set.root().version,
            root_expires: known.set.root().expires(),
            targets: map,
            targets_version: targets.version,
            targets_expires: targets.expires(),
            targets_file: known.targets,
            snapshot_version: snapshot.version,
            snapshot_expires: snapshot.expires(),
            snapshot_file: known.snapshot,
            timestamp_version: timestamp.version,
            timestamp_expires: timestamp.expires(),
            releases: Releases::from_targets(targets)?,
        })
    }
}

/// Writes `metadata/N.ROLE.json` under the first number from `first` on that is free or holds just these bytes.
fn write_numbered(
    writer: &StoreWriter,
    role: &str,
    first: u64,
    make: impl Fn(u64) -> Vec<u8>,
) -> Result<(u64, Vec<u8>), StoreError> {
    let mut version = first;
    loop {
        let file = make(version);
        if role == "targets" && file.len() as u64 > MAX_TARGETS_BYTES {
            let (object, limit, found) = ("the TUF targets".into(), MAX_TARGETS_BYTES, file.len() as u64);
            return Err(StoreError::TooLarge { object, what: "their length", limit, found });
        }
        let path = format!("metadata/{version}.{role}.json");
        match writer.write_once(&path, &file, None) {
            Ok(_) => return Ok((version, file)),
            // Left by an interrupted run: nothing signed names it.
            Err(StoreError::Refused(_)) => version += 1,
            Err(error) => return Err(error),
        }
    }
}
