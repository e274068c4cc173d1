//! The signed state of a store: its TUF metadata, read, verified and signed anew.
//!
//! Write order: what is named before what names it. `N.archive.json`, `N.targets.json`, then `N.snapshot.json`, then
//! `timestamp.json` in place of the old one, in one rename: that is the moment at which devices see anything. A file once written under a
//! number is never changed: where an interrupted run left one, the next number is taken.

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};
use sigstore_tuf::metadata::Role as _;

use crate::clock;
use crate::error::StoreError;
use crate::keys::signed::SignedLast;
use crate::keys::{KeyDir, KeyKind, Passphrase};
use crate::mirror;
use crate::sealed::ObjectRef;
use crate::stats::Lengths;
use crate::store_files::{StoreWriter, TIMESTAMP, check_apart, is_store, read_small};
use crate::transport::{Directory, Transport};
use crate::trust::{
    ARCHIVE, Known, MAX_ARCHIVE_BYTES, MAX_ROOT_BYTES, MAX_TARGETS_BYTES, MemoryCache, Release, Releases, Trust,
};
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
    /// The chunk list has its name.
    ChunkListWritten,
    /// The steps and their packs of patches have their names.
    StepsWritten,
    /// The sealed manifest has its name.
    ManifestWritten,
    /// New targets and archive metadata.
    TargetsWritten,
    /// New snapshot metadata.
    SnapshotWritten,
    /// The new timestamp stands: it is published.
    TimestampWritten,
    /// It is written down which files nothing names any more.
    DoomedListed,
    /// Those whose time has come are gone.
    DoomedDeleted,
    /// New keys stand beside the old ones.
    KeysPrepared,
    /// One more of these files is in its place, or none is left.
    KeysPlaced,
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
    /// What was signed last: every number that is given out is higher.
    signed: SignedLast,
    /// Why the keys do not remember what was signed.
    not_remembered: Option<String>,
    /// Whether what stood in it was signed with new keys.
    signed_with_new_keys: bool,
    _held: Option<std::fs::File>,
}

/// A targets role's file.
#[derive(Debug, Clone)]
struct Signed {
    version: u64,
    expires: jiff::Timestamp,
    file: Vec<u8>,
}

#[derive(Debug)]
struct State {
    /// Whether it is signed with keys that were changed since.
    is_under_older_keys: bool,
    root_version: u64,
    root_expires: jiff::Timestamp,
    targets: Signed,
    archive: Signed,
    snapshot_version: u64,
    snapshot_expires: jiff::Timestamp,
    snapshot_file: Vec<u8>,
    timestamp_version: u64,
    timestamp_expires: jiff::Timestamp,
    timestamp_bytes: u64,
    releases: Releases,
}

/// What [`Repository::renew`] signed again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// All of it, with keys that are new: the store was signed with those before them.
    pub new_keys: bool,
    /// A new root: the old one's validity was more than half over.
    pub root: bool,
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
        check_new(root, keys.path())?;
        let online = keys.tuf_key(KeyKind::Online, passphrase)?;
        let targets_key = keys.tuf_key(KeyKind::Targets, passphrase)?;
        std::fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
        let held = keys.hold()?;
        let writer = StoreWriter::lock(root)?;
        check_new(root, keys.path())?;
        // Devices that knew a store which was lost here take only what is newer.
        let signed = keys.signed_last(root).unwrap_or_default();
        check_line(&keys.roots()?, keys)?;
        write_roots(&writer, keys)?;
        let none = Map::new();
        let (archive_version, archive) = write_numbered(&writer, ARCHIVE, signed.archive + 1, |version| {
            targets_key.sign(&tuf::archive(version, now, &none))
        })?;
        let (targets_version, targets) = write_numbered(&writer, "targets", signed.targets + 1, |version| {
            targets_key.sign(&tuf::targets(
                version,
                now,
                &none,
                &Releases::default().statement(),
                &targets_key.public(),
            ))
        })?;
        let (snapshot_version, snapshot) = write_numbered(&writer, "snapshot", signed.snapshot + 1, |version| {
            online.sign(&tuf::snapshot(version, now, (targets_version, &targets), (archive_version, &archive)))
        })?;
        let timestamp = online.sign(&tuf::timestamp(signed.timestamp + 1, now, snapshot_version, &snapshot));
        writer.replace(TIMESTAMP, &timestamp)?;
        let state = State::read(&writer, keys)?;
        let mut new =
            Self { writer, keys, state, signed, not_remembered: None, signed_with_new_keys: false, _held: held };
        new.remember();
        Ok(new)
    }

    /// Locks the store at `root` and verifies its metadata against `keys`.
    ///
    /// # Errors
    /// `Refused` where there is no store, or one that is older than what was signed for it last; `Locked`, `Tuf`.
    pub fn open(root: &Path, keys: &'k KeyDir) -> Result<Self, StoreError> {
        let opened = Self::open_restored(root, keys)?;
        if opened.is_behind() {
            return Err(StoreError::Refused(format!(
                "{0} is older than what was signed last in this place (timestamp {2}, and {3} was): devices that saw that refuse this. \
                 If it was put back, copy the newer one back, from the file server or a backup; only if that is lost, or this is \
                 another store or a copy to try things on, go on with it: `renew {0} --keys {1} --restored`",
                root.display(),
                keys.path().display(),
                opened.state.timestamp_version,
                opened.signed.timestamp,
            )));
        }
        Ok(opened)
    }

    /// As [`Repository::open`], and takes a store that was put back from an older copy. What is signed next has higher numbers than
    /// what was lost: [`Repository::renew`] has to come first.
    ///
    /// # Errors
    /// `Refused` where there is no store, `Locked`, `Tuf`.
    pub fn open_restored(root: &Path, keys: &'k KeyDir) -> Result<Self, StoreError> {
        if !is_store(root) {
            let is_a_part = !mirror::list(root)?.iter().all(|item| item.path.starts_with("metadata/"));
            let new = || format!("{0} is not a store: make one with `init {0}`", root.display());
            return Err(StoreError::Refused(if is_a_part { without_timestamp(root) } else { new() }));
        }
        check_apart(root, "the store", keys.path(), "the keys")?;
        let held = keys.hold()?;
        let writer = StoreWriter::lock(root)?;
        check_roots(&writer, keys)?;
        let state = State::read(&writer, keys)?;
        if !state.is_under_older_keys {
            write_roots(&writer, keys)?;
        }
        let signed = keys.signed_last(root).unwrap_or_default();
        Ok(Self { writer, keys, state, signed, not_remembered: None, signed_with_new_keys: false, _held: held })
    }

    /// The releases in it.
    pub fn releases(&self) -> &Releases {
        &self.state.releases
    }

    /// What was signed last for it; after [`Repository::init`] what was before, where a store was lost.
    pub fn signed_last(&self) -> SignedLast {
        self.signed
    }

    /// The number of the next release: higher than any that was given out.
    pub(crate) fn next_serial(&self) -> u64 {
        self.numbers().max(self.signed).serial + 1
    }

    /// Why the keys do not remember what was signed: a directory of keys that nobody may write is no reason to publish nothing.
    pub fn not_remembered(&self) -> Option<&str> {
        self.not_remembered.as_deref()
    }

    /// The numbers that the store has.
    fn numbers(&self) -> SignedLast {
        let state = &self.state;
        SignedLast {
            timestamp: state.timestamp_version,
            snapshot: state.snapshot_version,
            targets: state.targets.version,
            archive: state.archive.version,
            serial: state.releases.iter().next_back().map_or(0, |release| release.serial),
            root: state.root_version,
        }
    }

    /// Whether anything in it is older than what was signed last.
    fn is_behind(&self) -> bool {
        let numbers = SignedLast { serial: self.signed.serial, ..self.numbers() };
        numbers.max(self.signed) != numbers
    }

    /// Whether it is signed with keys that were changed since: the next signature is over all of it.
    pub fn awaits_new_keys(&self) -> bool {
        self.state.is_under_older_keys
    }

    /// Has the keys remember what is signed.
    fn remember(&mut self) {
        self.signed = self.signed.max(self.numbers());
        let remembered = self.keys.remember_signed(self.writer.root(), self.signed);
        self.not_remembered = remembered.err().map(|error| error.to_string());
    }

    /// Whether all that stood in it was signed with new keys.
    pub fn signed_with_new_keys(&self) -> bool {
        self.signed_with_new_keys
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

    /// The numbers of the targets, archive and snapshot files that count.
    pub(crate) fn metadata_versions(&self) -> [(&'static str, u64); 3] {
        let state = &self.state;
        [("targets", state.targets.version), (ARCHIVE, state.archive.version), ("snapshot", state.snapshot_version)]
    }

    pub(crate) fn lengths(&self) -> Lengths {
        let state = &self.state;
        let fresh = state.timestamp_bytes + (state.snapshot_file.len() + state.targets.file.len()) as u64;
        Lengths { fresh, archive: state.archive.file.len() as u64 }
    }

    /// Until when devices take it as fresh, RFC 3339.
    pub fn fresh_until(&self) -> String {
        let state = &self.state;
        let first = state.timestamp_expires.min(state.snapshot_expires).min(state.targets.expires);
        first.min(state.archive.expires).min(state.root_expires).to_string()
    }

    /// Whether the root's validity is more than half over at `now`: [`Self::renew`] with the root's key is due.
    pub fn root_is_due(&self, now: i64) -> bool {
        tuf::is_half_over(self.state.root_expires, now, tuf::ROOT_DAYS)
    }

    /// Signs the timestamp again, and whatever else is more than half over.
    ///
    /// # Errors
    /// `Key`, `WrongPassphrase`, `Io`.
    pub fn renew(&mut self, passphrase: &Passphrase, now: i64) -> Result<Renewed, StoreError> {
        let state = &self.state;
        let new_keys = state.is_under_older_keys;
        let root = self.root_is_due(now) && self.keys.has(KeyKind::Root) && !new_keys;
        let first = state.targets.expires.min(state.archive.expires);
        let targets = new_keys || self.is_behind() || tuf::is_half_over(first, now, tuf::TARGETS_DAYS);
        let snapshot = targets || tuf::is_half_over(state.snapshot_expires, now, tuf::TARGETS_DAYS);
        if root {
            // Another store's command may have made it meanwhile.
            if tuf::root_version(&self.keys.root_json()?)? <= state.root_version {
                let key = self.keys.tuf_key(KeyKind::Root, passphrase)?;
                let [root, targets, online] = self.keys.tuf_keys();
                let version = after(state.root_version)?;
                self.keys.replace_root(&key.sign(&tuf::root(version, now, root, targets, online)))?;
            }
            write_roots(&self.writer, self.keys)?;
        }
        let change = targets.then(|| self.state.releases.clone());
        self.commit(change, snapshot, passphrase, now, &mut NoObserver)?;
        Ok(Renewed { new_keys, root, targets, snapshot, fresh_until: self.fresh_until() })
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
        if reason.is_some_and(|text| text.chars().any(char::is_control)) {
            let problem = "a reason is one line, without line ends, tabs or other control characters";
            return Err(StoreError::Refused(problem.into()));
        }
        if let Some(length) = reason.map(str::len).filter(|length| *length > MAX_REASON_BYTES) {
            let problem = format!("a reason has at most {MAX_REASON_BYTES} bytes, this one has {length}");
            return Err(StoreError::Refused(problem));
        }
        let mut changed = release.clone();
        changed.withdrawn = reason.map(str::to_owned);
        let mut releases = self.state.releases.clone();
        releases.put(changed.clone());
        self.commit(Some(releases), true, passphrase, now, &mut NoObserver)?;
        Ok(changed)
    }

    /// Writes a sealed object under its name.
    pub(crate) fn write_object(&self, name: &str, sealed: &[u8]) -> Result<ObjectRef, StoreError> {
        let object = ObjectRef::of(sealed);
        self.writer.write_once(&object.path(name), sealed, Some(&object.digest))?;
        Ok(object)
    }

    /// Signs and writes metadata for `releases`, whose objects are all there.
    pub(crate) fn set_releases(
        &mut self,
        releases: Releases,
        passphrase: &Passphrase,
        now: i64,
        observer: &mut dyn Observer,
    ) -> Result<(), StoreError> {
        self.commit(Some(releases), true, passphrase, now, observer)
    }

    /// Signs and writes: targets and archive where they changed, a snapshot where it must or should be new, always a
    /// timestamp.
    fn commit(
        &mut self,
        releases: Option<Releases>,
        new_snapshot: bool,
        passphrase: &Passphrase,
        now: i64,
        observer: &mut dyn Observer,
    ) -> Result<(), StoreError> {
        let (state, signed) = (&self.state, self.signed);
        clock::check(now, state.releases.newest_publication())?;
        // Under new keys all of it is signed anew.
        let releases = releases.or_else(|| state.is_under_older_keys.then(|| state.releases.clone()));
        let new_snapshot = new_snapshot || state.is_under_older_keys;
        let online = self.keys.tuf_key(KeyKind::Online, passphrase)?;
        let (mut targets, mut archive) = (state.targets.clone(), state.archive.clone());
        if let Some(releases) = releases {
            let key = self.keys.tuf_key(KeyKind::Targets, passphrase)?;
            let ([current, older], statement) = (targets_of(&releases), releases.statement());
            (archive.version, archive.file) =
                write_numbered(&self.writer, ARCHIVE, after(archive.version.max(signed.archive))?, |version| {
                    key.sign(&tuf::archive(version, now, &older))
                })?;
            (targets.version, targets.file) =
                write_numbered(&self.writer, "targets", after(targets.version.max(signed.targets))?, |version| {
                    key.sign(&tuf::targets(version, now, &current, &statement, &key.public()))
                })?;
            step(observer, Step::TargetsWritten)?;
        }
        let (mut snapshot_version, mut snapshot_file) = (state.snapshot_version, state.snapshot_file.clone());
        if new_snapshot {
            let (targets, archive) = ((targets.version, &*targets.file), (archive.version, &*archive.file));
            (snapshot_version, snapshot_file) = write_numbered(
                &self.writer,
                "snapshot",
                after(state.snapshot_version.max(signed.snapshot))?,
                |version| online.sign(&tuf::snapshot(version, now, targets, archive)),
            )?;
            step(observer, Step::SnapshotWritten)?;
        }
        let version = after(state.timestamp_version.max(signed.timestamp))?;
        let timestamp = online.sign(&tuf::timestamp(version, now, snapshot_version, &snapshot_file));
        self.writer.replace(TIMESTAMP, &timestamp)?;
        if state.is_under_older_keys {
            // Last: a device that had the new root before the timestamp could no longer tell what it has installed.
            write_roots(&self.writer, self.keys)?;
            self.signed_with_new_keys = true;
        }
        self.state = State::read(&self.writer, self.keys)?;
        self.remember();
        step(observer, Step::TimestampWritten)
    }
}

/// Refuses a place where no store can be made with the keys that are, or are to be, in `keys`.
///
/// # Errors
/// `Refused`, also where there is a store already; `Io`.
pub fn check_new(root: &Path, keys: &Path) -> Result<(), StoreError> {
    let name = root.display();
    if root.exists() && !root.is_dir() {
        return Err(StoreError::Refused(format!("{name} is no directory: name a new one")));
    }
    if is_store(root) {
        return Err(StoreError::Refused(format!("{name} is a store already: `list {name}` shows what is in it")));
    }
    // What an interrupted `init` leaves is metadata and nothing else.
    if !mirror::list(root)?.iter().all(|item| item.path.starts_with("metadata/")) {
        return Err(StoreError::Refused(without_timestamp(root)));
    }
    check_apart(root, "the store", keys, "the keys")
}

/// The targets of the releases that are current, and of all others.
fn targets_of(releases: &Releases) -> [Map<String, Value>; 2] {
    let current = releases.current();
    let mut parts = [Map::new(), Map::new()];
    for release in releases.iter() {
        parts[usize::from(!current.contains(&release.serial))].extend(release.targets());
    }
    parts
}

/// What is said of a store whose timestamp is not there: made anew, it would be empty, and devices would refuse it.
fn without_timestamp(root: &Path) -> String {
    let root = root.display();
    format!(
        "{root} has a store's files, but no {TIMESTAMP}, which is copied last: run the `mirror` that was interrupted once more, \
         or put that file back from a copy of the store or from the file server"
    )
}

impl State {
    fn read(writer: &StoreWriter, keys: &KeyDir) -> Result<Self, StoreError> {
        let roots = keys.roots()?;
        let (newest, older) = roots.split_first().ok_or(StoreError::NothingKnown)?;
        let (known, is_under_older_keys) = match under(&newest.1, &Directory::new(writer.root())) {
            Ok(known) => (known, false),
            Err(error) => {
                check_line(&roots, keys)?;
                (known_before(writer.root(), older, keys).ok_or(error)?, true)
            }
        };
        if !is_under_older_keys {
            check_keys(known.set.root(), keys, writer.root())?;
            // Made where these keys were used from another place. A help, and no condition.
            known.roots.iter().try_for_each(|(_, root)| keys.replace_root(root)).ok();
        }
        let missing = || StoreError::NothingKnown;
        let snapshot = known.set.snapshot().ok_or_else(missing)?;
        let timestamp = known.set.timestamp().ok_or_else(missing)?;
        let signed = |role: &str, file: &Vec<u8>| {
            let signed = known.set.targets_role(role).ok_or_else(missing)?;
            Ok::<_, StoreError>(Signed { version: signed.version, expires: signed.expires(), file: file.clone() })
        };
        if known.set.targets_role(ARCHIVE).is_none() {
            let pin = snapshot.meta.get("archive.json").ok_or_else(missing)?;
            let path = format!("metadata/{}.{ARCHIVE}.json", pin.version);
            let reason = format!("{path} is not here: without it older releases would be lost; copy it from the store");
            return Err(StoreError::Refused(reason));
        }
        Ok(Self {
            is_under_older_keys,
            root_version: known.set.root().version,
            root_expires: known.set.root().expires(),
            targets: signed("targets", &known.targets)?,
            archive: signed(ARCHIVE, &known.archive)?,
            snapshot_version: snapshot.version,
            snapshot_expires: snapshot.expires(),
            timestamp_version: timestamp.version,
            timestamp_expires: timestamp.expires(),
            timestamp_bytes: known.timestamp.len() as u64,
            releases: known.releases()?,
            snapshot_file: known.snapshot,
        })
    }
}

/// What the store at `store` says under a root.
fn under(root: &[u8], store: &dyn Transport) -> Result<Known, StoreError> {
    Trust::new(root, MemoryCache::new())?.offline_known(store)
}

/// What a store says that is signed with the keys of before, under one of these roots from then. What it has of newer roots does
/// not count for it.
fn known_before(store: &Path, older: &[(u64, Vec<u8>)], keys: &KeyDir) -> Option<Known> {
    let others = older.iter().filter(|(_, root)| names_others(root, keys));
    others.into_iter().find_map(|(_, root)| under(root, &mirror::View::without_roots(store)).ok())
}

/// Whether the store at `store` is signed with keys that were changed since, so that these keys do not vouch for it before it is
/// signed anew.
pub fn awaits_new_keys(store: &Path, keys: &KeyDir) -> bool {
    let Ok(roots) = keys.roots() else { return false };
    let Some((newest, older)) = roots.split_first() else { return false };
    under(&newest.1, &Directory::new(store)).is_err() && known_before(store, older, keys).is_some()
}

/// Refuses `roots` of which one is missing in the line from the first to the newest.
fn check_line(roots: &[(u64, Vec<u8>)], keys: &KeyDir) -> Result<(), StoreError> {
    let newest = roots.first().map_or(0, |(version, _)| *version);
    let missing = (1..newest).find(|version| roots.iter().all(|(known, _)| known != version));
    missing.map_or(Ok(()), |version| {
        Err(StoreError::Refused(format!(
            "{0}/root-{version}.json is not there, and devices that have an older root could not follow: bring it back from \
             a copy of {0}, or of a store's metadata/{version}.root.json",
            keys.path().display()
        )))
    })
}

/// Whether this root names other keys for what a store says than there are now.
fn names_others(root: &[u8], keys: &KeyDir) -> bool {
    let [_, targets_key, online_key] = keys.tuf_keys();
    let parsed = sigstore_tuf::Metadata::<sigstore_tuf::Root>::from_slice(root);
    parsed.is_ok_and(|root| {
        !tuf::names(root.signed(), "targets", targets_key) || !tuf::names(root.signed(), "timestamp", online_key)
    })
}

/// The next number.
fn after(version: u64) -> Result<u64, StoreError> {
    version.checked_add(1).ok_or_else(|| {
        StoreError::Refused(
            "the numbers of the metadata are used up, which no vendor does: put the store back from a copy, and go on with \
             `renew --restored`"
                .into(),
        )
    })
}

/// Refuses keys of which the store's root does not speak: they were changed elsewhere.
fn check_keys(root: &sigstore_tuf::Root, keys: &KeyDir, store: &Path) -> Result<(), StoreError> {
    let [root_key, targets_key, online_key] = keys.tuf_keys();
    let roles = [("root", root_key), ("targets", targets_key), ("snapshot", online_key), ("timestamp", online_key)];
    if roles.iter().all(|(role, key)| tuf::names(root, role, key)) {
        return Ok(());
    }
    Err(not_its_keys(keys, store))
}

/// Refuses keys with a root that is another than the store's of the same version.
fn check_roots(writer: &StoreWriter, keys: &KeyDir) -> Result<(), StoreError> {
    for (version, root) in keys.roots()? {
        let found = read_small(&writer.at(&format!("metadata/{version}.root.json")), MAX_ROOT_BYTES)?;
        if found.is_some_and(|found| found != root) {
            return Err(not_its_keys(keys, writer.root()));
        }
    }
    Ok(())
}

fn not_its_keys(keys: &KeyDir, store: &Path) -> StoreError {
    StoreError::Refused(format!(
        "{} does not belong to the keys in {}: they are another product's, or were changed in another copy of that directory, \
         of which the newest counts",
        store.display(),
        keys.path().display()
    ))
}

/// Writes every root that the keys know under its number, where it is not there, the newest first: devices go from the one that
/// they have to the newest, one by one, and find none before all are there.
fn write_roots(writer: &StoreWriter, keys: &KeyDir) -> Result<(), StoreError> {
    keys.roots()?.iter().try_for_each(|(_, root)| write_root(writer, root))
}

/// Writes a root under its number, where it is not there.
fn write_root(writer: &StoreWriter, root: &[u8]) -> Result<(), StoreError> {
    writer.write_once(&format!("metadata/{}.root.json", tuf::root_version(root)?), root, None).map(drop)
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
        let limit = if role == "targets" { MAX_TARGETS_BYTES } else { MAX_ARCHIVE_BYTES };
        if file.len() as u64 > limit {
            let (object, found) = (format!("the TUF {role}"), file.len() as u64);
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
