//! From the trusted root to verified releases (TUF 1.0, section 5).
//!
//! [`Trust`] holds what a device was given at the factory (the trusted `root.json`) and what it accepted since (a
//! [`TrustCache`], and an [`Accepted`] that its sealed record keeps). Three ways lead to [`Releases`]:
//!
//! - [`Trust::refresh`] asks a store and tells what is newest. Nothing new costs two requests, the next root and the
//!   timestamp, and stores nothing.
//! - [`Trust::cached`] and [`Trust::offline`] verify without asking for freshness: what they yield is authentic, it may
//!   be old. Expiry decides freshness only; a release once signed stays installable.
//!
//! A fourth leads to any targets of any repository: [`Trust::to_the_letter`] follows the specification where a device has
//! rules of its own, for the public conformance suite and whoever wants a plain TUF client.
//!
//! Who holds old metadata may only withhold news: rollback below what was accepted is refused, a frozen timestamp ends
//! in [`StoreError::Expired`].

mod cache;
pub(crate) mod crypto;
mod releases;
mod search;

use firmware_image::Digest;
use jiff::Timestamp;
use sigstore_tuf::{Metadata, Root, Targets, TrustedMetadataSet};

pub use cache::{MemoryCache, TrustCache};
pub use releases::{CHUNKS_PREFIX, MANIFEST_PREFIX, MAX_STEPS, Release, Releases, STEP_PREFIX, VerifiedManifest};
pub use search::{MAX_DELEGATIONS, MAX_TARGET_BYTES, Target, TargetSearch, percent_encoded};

use crate::error::StoreError;
use crate::transport::{Transport, TransportError, get_all, get_all_with_outcome};

/// The longest root metadata, in bytes.
pub const MAX_ROOT_BYTES: u64 = 64 << 10;
/// The longest timestamp metadata, in bytes.
pub const MAX_TIMESTAMP_BYTES: u64 = 16 << 10;
/// The longest snapshot metadata, in bytes.
pub const MAX_SNAPSHOT_BYTES: u64 = 64 << 10;
/// The longest targets metadata, in bytes: the current releases of some thousand channels.
pub const MAX_TARGETS_BYTES: u64 = 4 << 20;
/// The longest archive metadata, in bytes: some sixteen thousand releases.
pub const MAX_ARCHIVE_BYTES: u64 = 16 << 20;
/// The delegated role that vouches for the releases that are not current.
pub const ARCHIVE: &str = "archive";
/// The most new roots that one refresh follows. They are kept, so that the next one goes on from there.
pub const MAX_NEW_ROOTS: u32 = 32;
/// The most roots that are followed in a cache.
pub const MAX_KEPT_ROOTS: u32 = 1024;

/// A time before every expiry: with it, verification shows authenticity and leaves freshness aside.
const NO_TIME: Timestamp = Timestamp::UNIX_EPOCH;

/// The metadata that was accepted last, for whoever keeps it where no one else can write. Given back to
/// [`Trust::remember`] it keeps older metadata from being accepted, also after the cache was wiped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The newest root.
    pub root: Vec<u8>,
    /// The newest timestamp.
    pub timestamp: Vec<u8>,
    /// The snapshot it names.
    pub snapshot: Vec<u8>,
}

/// What a refresh found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refreshed {
    /// The store's releases.
    pub releases: Releases,
    /// What was accepted.
    pub accepted: Accepted,
    /// Whether anything differs from what was known before.
    pub changed: bool,
    /// The clock said that the metadata expired and the server's own time (seconds since 1970) said that it had not:
    /// the server was believed. Worth an alarm.
    pub clock_disputed: Option<i64>,
    /// The cache could not keep something.
    pub cache_error: Option<std::io::Error>,
}

/// What a device trusts, and what it knows.
#[derive(Debug)]
pub struct Trust<C> {
    root: Vec<u8>,
    cache: C,
    remembered: Accepted,
    rules: Rules,
}

/// Whose rules decide where the specification and the needs of a device differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// A server's clock may speak against an expiry, metadata is kept when all of it is there, and a store must have
    /// consistent snapshots.
    Device,
    /// Expiry is decided by the own clock, each role is kept as soon as it is accepted, and any repository will do.
    Specification,
}

/// The timestamp that the kept snapshot was accepted under. Another may have been kept since, whose snapshot never came:
/// without this one, the snapshot would no longer be the floor for the next.
const SNAPSHOT_TIMESTAMP: &str = "snapshot.timestamp";

/// Metadata verified so far, with the bytes it came from.
pub(crate) struct Known {
    pub(crate) set: TrustedMetadataSet,
    /// Newer roots than the trusted one, with their versions.
    pub(crate) roots: Vec<(u64, Vec<u8>)>,
    pub(crate) timestamp: Vec<u8>,
    pub(crate) snapshot: Vec<u8>,
    pub(crate) targets: Vec<u8>,
    pub(crate) archive: Vec<u8>,
}

impl Known {
    /// Where the store has `role` in `version`.
    fn path(&self, role: &str, version: u64) -> String {
        let role = percent_encoded(role);
        match self.set.root().consistent_snapshot {
            true => format!("metadata/{version}.{role}.json"),
            false => format!("metadata/{role}.json"),
        }
    }

    /// The releases that what is known vouches for.
    pub(crate) fn releases(&self) -> Result<Releases, StoreError> {
        let targets = self.set.targets_role("targets").ok_or(StoreError::NothingKnown)?;
        Releases::from_targets([Some(targets), self.set.targets_role(ARCHIVE)].into_iter().flatten())
    }
}

impl<C: TrustCache> Trust<C> {
    /// Trust in `root` (the `root.json` that the factory put into `device.cfg`), with what `cache` kept.
    ///
    /// # Errors
    /// `Tuf` where `root` is no root that signs itself, `Malformed` where it has no consistent snapshots.
    pub fn new(root: &[u8], cache: C) -> Result<Self, StoreError> {
        Self::with_rules(root, cache, Rules::Device)
    }

    /// Trust in `root`, by the letter of the specification: expiry is decided by the clock alone (5.3.10, 5.4.4, 5.5.6,
    /// 5.6.5), each role is kept as soon as it is accepted (5.4.5, 5.5.7, 5.6.6), and repositories without consistent
    /// snapshots will do. What it leads to is [`Trust::search`].
    ///
    /// # Errors
    /// `Tuf` where `root` is no root that signs itself.
    pub fn to_the_letter(root: &[u8], cache: C) -> Result<Self, StoreError> {
        Self::with_rules(root, cache, Rules::Specification)
    }

    fn with_rules(root: &[u8], cache: C, rules: Rules) -> Result<Self, StoreError> {
        crypto::install();
        let set = TrustedMetadataSet::from_root(root).map_err(tuf("root"))?;
        let trust = Self { root: root.to_vec(), cache, remembered: Accepted::default(), rules };
        trust.check_root(&set, || "the trusted root".into())?;
        Ok(trust)
    }

    /// Refuses a root that the rules do not allow.
    fn check_root(&self, set: &TrustedMetadataSet, name: impl FnOnce() -> String) -> Result<(), StoreError> {
        if self.rules == Rules::Device && !set.root().consistent_snapshot {
            return Err(StoreError::malformed(name(), "it has no consistent snapshots"));
        }
        Ok(())
    }

    /// Adds what was accepted before and kept elsewhere.
    #[must_use]
    pub fn remember(mut self, accepted: Accepted) -> Self {
        self.remembered = accepted;
        self
    }

    /// The cache.
    pub fn cache(&self) -> &C {
        &self.cache
    }

    /// Asks the store for what is newest; `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `Transport` where the store cannot be asked; `Expired` where it says nothing newer and what it says is stale;
    /// `Rollback` and `Tuf` for metadata that is not accepted. What was known before stays known: see
    /// [`Trust::cached`].
    pub fn refresh<T: Transport + ?Sized>(&self, transport: &T, now: i64) -> Result<Refreshed, StoreError> {
        let mut renewed = self.renew(transport, now)?;
        let known = &mut renewed.known;
        self.take_known_archive(known);
        let releases = known.releases()?;
        self.keep(known, &mut renewed.kept);
        let known = renewed.known;
        let accepted =
            Accepted { root: known.set.root_bytes().to_vec(), timestamp: known.timestamp, snapshot: known.snapshot };
        let (Kept { changed, failure }, clock_disputed) = (renewed.kept, renewed.clock.disputed);
        Ok(Refreshed { releases, accepted, changed, clock_disputed, cache_error: failure })
    }

    /// The newest metadata that the store offers, down to the top-level targets (TUF 5.3 to 5.6).
    fn renew<T: Transport + ?Sized>(&self, transport: &T, now: i64) -> Result<Renewed, StoreError> {
        let mut known = self.start()?;
        let followed = self.follow_roots(&mut known, transport, MAX_NEW_ROOTS);
        // At once (TUF 5.3.8): a root that takes trust from a stolen key counts, whatever becomes of the rest.
        let mut kept = Kept::default();
        self.keep_roots(&known, &mut kept);
        followed?;
        self.check_remembered_root(&known)?;
        self.seed(&mut known);
        let mut clock = Clock { now: time(now), server: None, disputed: None };
        let newest_known = match self.rules {
            Rules::Device => known.releases().ok().and_then(|releases| releases.newest_publication()),
            Rules::Specification => {
                clock.check("root", |now| known.set.check_root_expired(now))?;
                None
            }
        };
        clock.now = time(now.max(newest_known.unwrap_or(now)));

        let path = "metadata/timestamp.json";
        let (timestamp, outcome) = get_all_with_outcome(transport, path, MAX_TIMESTAMP_BYTES)?;
        if self.rules == Rules::Device {
            clock.server = outcome.date.filter(|date| newest_known.is_none_or(|known| *date >= known)).map(time);
        }
        clock.check("root", |now| known.set.check_root_expired(now))?;
        let accepted = clock.check("timestamp", |now| match known.set.update_timestamp(&timestamp, now) {
            Ok(()) => Ok(true),
            // The version is known: keep what is known, whatever these bytes are.
            Err(sigstore_tuf::Error::EqualVersion { .. }) => Ok(false),
            Err(error) => Err(error),
        })?;
        if accepted {
            known.timestamp = timestamp;
        }
        clock.check("timestamp", |now| known.set.check_timestamp_expired(now))?;
        self.keep_early(&known, &mut kept);

        self.take_snapshot(&mut known, transport, &mut clock)?;
        if self.rules == Rules::Specification {
            self.keep_one(SNAPSHOT_TIMESTAMP, &known.timestamp, &mut kept);
        }
        self.keep_early(&known, &mut kept);
        self.take_targets(&mut known, transport, &mut clock)?;
        self.keep_early(&known, &mut kept);
        Ok(Renewed { known, clock, kept })
    }

    /// The releases as the last refresh found them, from the cache alone: authentic, maybe stale.
    ///
    /// # Errors
    /// `NothingKnown` where the cache holds no complete, verifiable metadata.
    pub fn cached(&self) -> Result<Releases, StoreError> {
        let mut known = self.start()?;
        self.seed(&mut known);
        known.set.targets_role("targets").ok_or(StoreError::NothingKnown)?;
        known.releases()
    }

    /// All releases that the last refresh's metadata vouch for, also those that are not current: one request where the
    /// archive at hand is another one.
    ///
    /// # Errors
    /// `NothingKnown` before a refresh; `Transport`, `Tuf`, `Malformed`. What was known before stays known.
    pub fn archive<T: Transport + ?Sized>(&self, transport: &T) -> Result<Releases, StoreError> {
        let mut known = self.start()?;
        self.seed(&mut known);
        if known.set.targets_role("targets").is_none() {
            // The cache did not keep all of what the last refresh accepted.
            known.set.snapshot().ok_or(StoreError::NothingKnown)?;
            let mut clock = Clock { now: NO_TIME, server: None, disputed: None };
            self.take_targets(&mut known, transport, &mut clock)?;
        }
        if known.set.targets_role(ARCHIVE).is_none() {
            self.take_archive(&mut known, transport)?;
            // Where it cannot be kept it is asked for again.
            self.keep(&known, &mut Kept::default());
        }
        known.releases()
    }

    /// The releases that `metadata` speaks of, a targets or archive file of any age, if the newest root known vouches
    /// for whoever signed it. Whoever kept the file that a release was taken from needs no newer one to trust it.
    pub fn vouched(&self, metadata: &[u8]) -> Option<Releases> {
        let known = self.start().ok()?;
        let root = known.set.root();
        let metadata = Metadata::<Targets>::from_slice(metadata).ok()?;
        metadata.verify_threshold(&root.keys, root.role("targets")?, "targets").ok()?;
        Releases::from_targets([metadata.signed()]).ok()
    }

    /// Whether `metadata`, a targets or archive file of any age, vouches for the release numbered `serial` with the encoded
    /// manifest `manifest`.
    pub fn vouches(&self, metadata: &[u8], serial: u64, manifest: &Digest) -> bool {
        let found = self.vouched(metadata);
        found.is_some_and(|found| found.by_serial(serial).is_some_and(|release| release.manifest == *manifest))
    }

    /// The file of the cache that vouches for a release: what the last refresh left, or what whoever keeps the cache put
    /// beside it when the release was installed (`installed.json`, `previous.json`).
    pub fn statement(&self, serial: u64, manifest: &Digest) -> Option<Vec<u8>> {
        let names = ["targets.json", "archive.json", "installed.json", "previous.json"];
        let mut kept = names.into_iter().filter_map(|name| self.cache.load(name));
        kept.find(|bytes| self.vouches(bytes, serial, manifest))
    }

    /// The releases of a store, whatever its age: authentic under the newest root known, maybe stale. For a copy of a
    /// store that the device carries with it. Stores nothing.
    ///
    /// # Errors
    /// `Transport`, `Tuf`, `Malformed`.
    pub fn offline<T: Transport + ?Sized>(&self, transport: &T) -> Result<Releases, StoreError> {
        self.offline_known(transport)?.releases()
    }

    /// What [`Trust::offline`] verifies, with the bytes it came from.
    pub(crate) fn offline_known<T: Transport + ?Sized>(&self, transport: &T) -> Result<Known, StoreError> {
        let mut known = self.follow_all_roots(transport)?;
        let timestamp = get_all(transport, "metadata/timestamp.json", MAX_TIMESTAMP_BYTES)?;
        known.set.update_timestamp(&timestamp, NO_TIME).map_err(tuf("timestamp"))?;
        known.timestamp = timestamp;
        let mut clock = Clock { now: NO_TIME, server: None, disputed: None };
        self.take_snapshot(&mut known, transport, &mut clock)?;
        self.take_targets(&mut known, transport, &mut clock)?;
        match self.take_archive(&mut known, transport) {
            // A copy of some releases has no use for the others.
            Ok(()) | Err(StoreError::Transport(TransportError::NotFound { .. })) => Ok(known),
            Err(error) => Err(error),
        }
    }

    /// The newest root that a store leads to, with those on the way.
    pub(crate) fn follow_all_roots<T: Transport + ?Sized>(&self, transport: &T) -> Result<Known, StoreError> {
        let mut known = self.start()?;
        // Nothing is kept of it, so that no later one could go on from there.
        self.follow_roots(&mut known, transport, MAX_KEPT_ROOTS)?;
        Ok(known)
    }

    /// From the trusted root to the newest that the cache leads to.
    fn start(&self) -> Result<Known, StoreError> {
        let set = TrustedMetadataSet::from_root(&self.root).map_err(tuf("root"))?;
        let mut known =
            Known { set, roots: vec![], timestamp: vec![], snapshot: vec![], targets: vec![], archive: vec![] };
        for _ in 0..MAX_KEPT_ROOTS {
            let next = known.set.root().version.saturating_add(1);
            let kept = self.cache.load(&root_name(next));
            let candidates = [kept.as_deref(), Some(self.remembered.root.as_slice())];
            let accepted = candidates.into_iter().flatten().find(|bytes| known.set.update_root(bytes).is_ok());
            let Some(bytes) = accepted else { break };
            known.roots.push((next, bytes.to_vec()));
        }
        Ok(known)
    }

    /// Follows the store's roots, one by one, until there is no next one (TUF 5.3).
    fn follow_roots<T: Transport + ?Sized>(
        &self,
        known: &mut Known,
        transport: &T,
        limit: u32,
    ) -> Result<(), StoreError> {
        for followed in 0..=limit {
            let next = known.set.root().version.saturating_add(1);
            let bytes = match get_all(transport, &format!("metadata/{}", root_name(next)), MAX_ROOT_BYTES) {
                Ok(bytes) => bytes,
                Err(TransportError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if followed == limit {
                break;
            }
            known.set.update_root(&bytes).map_err(tuf("root"))?;
            self.check_root(&known.set, || root_name(next))?;
            known.roots.push((next, bytes));
        }
        Err(StoreError::TooLarge {
            object: "the TUF root".into(),
            what: "the number of new versions",
            limit: limit.into(),
            found: u64::from(limit) + 1,
        })
    }

    /// Refuses a store that hides a root which was accepted before, where the root known now can vouch for that one.
    fn check_remembered_root(&self, known: &Known) -> Result<(), StoreError> {
        let Ok(remembered) = Metadata::<Root>::from_slice(&self.remembered.root) else { return Ok(()) };
        let root = known.set.root();
        let vouched =
            root.role("root").is_some_and(|keys| remembered.verify_threshold(&root.keys, keys, "root").is_ok());
        if vouched && remembered.signed().version > root.version {
            let (known, offered) = (remembered.signed().version, root.version);
            return Err(StoreError::Rollback { role: "root".into(), known, offered });
        }
        Ok(())
    }

    /// Takes in what was accepted before, as the floor below which nothing is accepted. What does not verify under the
    /// root, because the root changed its keys or the bytes are torn, counts for nothing.
    fn seed(&self, known: &mut Known) {
        let kept = |name| self.cache.load(name).unwrap_or_default();
        let early = (self.rules == Rules::Specification).then(|| (kept(SNAPSHOT_TIMESTAMP), kept("snapshot.json")));
        let pairs = [
            Some((self.remembered.timestamp.clone(), self.remembered.snapshot.clone())),
            early,
            Some((kept("timestamp.json"), kept("snapshot.json"))),
        ];
        for (timestamp, snapshot) in pairs.into_iter().flatten() {
            if known.set.update_timestamp(&timestamp, NO_TIME).is_ok() {
                known.timestamp = timestamp;
            }
            if known.set.update_snapshot(&snapshot, NO_TIME).is_ok() {
                known.snapshot = snapshot;
            }
        }
        let targets = kept("targets.json");
        if known.set.update_targets(&targets, NO_TIME).is_ok() {
            known.targets = targets;
            self.take_known_archive(known);
        }
    }

    /// The archive at hand, where it is the one that the snapshot names.
    fn take_known_archive(&self, known: &mut Known) {
        let archive = self.cache.load("archive.json").unwrap_or_default();
        if known.set.update_delegated_targets(&archive, ARCHIVE, "targets", NO_TIME).is_ok() {
            known.archive = archive;
        }
    }

    /// The store's archive that the snapshot names. Freshness is the timestamp's affair.
    fn take_archive<T: Transport + ?Sized>(&self, known: &mut Known, transport: &T) -> Result<(), StoreError> {
        let pin = known.set.snapshot().and_then(|snapshot| snapshot.meta.get("archive.json"));
        let pin = pin.ok_or_else(|| StoreError::malformed("the TUF snapshot", "it names no archive"))?;
        let (version, limit) = (pin.version, pin.length.unwrap_or(MAX_ARCHIVE_BYTES).min(MAX_ARCHIVE_BYTES));
        let bytes = get_all(transport, &known.path(ARCHIVE, version), limit)?;
        known.set.update_delegated_targets(&bytes, ARCHIVE, "targets", NO_TIME).map_err(tuf(ARCHIVE))?;
        known.archive = bytes;
        Ok(())
    }

    /// The snapshot that the timestamp names: the known one where it is that, else the store's (TUF 5.5).
    fn take_snapshot<T: Transport + ?Sized>(
        &self,
        known: &mut Known,
        transport: &T,
        clock: &mut Clock,
    ) -> Result<(), StoreError> {
        let pin = known.set.timestamp().and_then(|timestamp| timestamp.snapshot_meta());
        let pin = pin.ok_or_else(|| StoreError::malformed("the TUF timestamp", "it names no snapshot"))?;
        let (version, limit) = (pin.version, pin.length.unwrap_or(MAX_SNAPSHOT_BYTES).min(MAX_SNAPSHOT_BYTES));
        let mut bytes = std::mem::take(&mut known.snapshot);
        if known.set.clone().update_snapshot(&bytes, NO_TIME).is_err() {
            bytes = get_all(transport, &known.path("snapshot", version), limit)?;
        }
        clock.check("snapshot", |now| known.set.update_snapshot(&bytes, now))?;
        known.snapshot = bytes;
        Ok(())
    }

    /// The targets that the snapshot names: the known ones where they are those, else the store's (TUF 5.6).
    fn take_targets<T: Transport + ?Sized>(
        &self,
        known: &mut Known,
        transport: &T,
        clock: &mut Clock,
    ) -> Result<(), StoreError> {
        let pin = known.set.snapshot().and_then(|snapshot| snapshot.meta.get("targets.json"));
        let pin = pin.ok_or_else(|| StoreError::malformed("the TUF snapshot", "it names no targets"))?;
        let (version, limit) = (pin.version, pin.length.unwrap_or(MAX_TARGETS_BYTES).min(MAX_TARGETS_BYTES));
        let mut bytes = std::mem::take(&mut known.targets);
        if known.set.update_targets(&bytes, NO_TIME).is_err() {
            bytes = get_all(transport, &known.path("targets", version), limit)?;
        }
        clock.check("targets", |now| known.set.update_targets(&bytes, now).map(|_| ()))?;
        known.targets = bytes;
        Ok(())
    }

    /// Gives the cache the roots that it lacks.
    fn keep_roots(&self, known: &Known, kept: &mut Kept) {
        for (version, bytes) in &known.roots {
            self.keep_one(&root_name(*version), bytes, kept);
        }
    }

    /// Gives the cache what it lacks but roots.
    fn keep(&self, known: &Known, kept: &mut Kept) {
        let files = [
            ("archive.json", &known.archive),
            ("targets.json", &known.targets),
            ("snapshot.json", &known.snapshot),
            ("timestamp.json", &known.timestamp),
        ];
        // An archive that is not at hand is no reason to lose an older one: it may vouch for what is installed.
        for (name, bytes) in files.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            self.keep_one(name, bytes, kept);
        }
    }

    /// Keeps what was accepted so far, where the rules do not wait for the rest.
    fn keep_early(&self, known: &Known, kept: &mut Kept) {
        if self.rules == Rules::Specification {
            self.keep(known, kept);
        }
    }

    /// Gives the cache `bytes` where it does not have them.
    fn keep_one(&self, name: &str, bytes: &[u8], kept: &mut Kept) {
        if self.cache.load(name).as_deref() != Some(bytes) {
            kept.changed = true;
            if let Err(error) = self.cache.store(name, bytes) {
                kept.failure.get_or_insert(error);
            }
        }
    }
}

/// What became of what was given to the cache.
#[derive(Debug, Default)]
struct Kept {
    /// Whether it lacked anything.
    changed: bool,
    /// The first failure.
    failure: Option<std::io::Error>,
}

/// The newest metadata, the time that decided its freshness, and what the cache made of it.
struct Renewed {
    known: Known,
    clock: Clock,
    kept: Kept,
}

/// The time that decides freshness.
struct Clock {
    now: Timestamp,
    server: Option<Timestamp>,
    disputed: Option<i64>,
}

impl Clock {
    /// Runs `step` at the clock's time; where that finds something expired, at the server's time, if that differs.
    fn check<R>(
        &mut self,
        role: &str,
        mut step: impl FnMut(Timestamp) -> Result<R, sigstore_tuf::Error>,
    ) -> Result<R, StoreError> {
        let at = self.disputed.map_or(self.now, time);
        match step(at) {
            Err(sigstore_tuf::Error::Expired { role: expired, expires }) => {
                if let Some(server) = self.server.filter(|server| self.disputed.is_none() && *server <= expires) {
                    self.disputed = Some(server.as_second());
                    return step(server).map_err(tuf(role));
                }
                Err(StoreError::Expired { role: expired, expires: expires.to_string() })
            }
            other => other.map_err(tuf(role)),
        }
    }
}

/// Seconds since 1970 as a time; what lies outside of the calendar as its ends.
fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

fn root_name(version: u64) -> String {
    format!("{version}.root.json")
}

fn tuf(role: &str) -> impl FnOnce(sigstore_tuf::Error) -> StoreError + use<'_> {
    move |error| match error {
        sigstore_tuf::Error::Rollback { role, trusted, new } => {
            StoreError::Rollback { role, known: trusted, offered: new }
        }
        sigstore_tuf::Error::Expired { role, expires } => StoreError::Expired { role, expires: expires.to_string() },
        source => StoreError::Tuf { role: role.to_owned(), source },
    }
}
