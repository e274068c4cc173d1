//! Keeps a store from growing without end: older releases become patches on others, and what nothing needs any more goes.
//!
//! A [`Policy`] says which releases keep their chunks. Every other one is *thinned*: it is from then on made of the next newer
//! release by a step back, and its chunk list has only what that does not give; devices install it as before. Of the steps that
//! lead forward, each release keeps one. Whatever signed metadata no longer names is deleted by the first run
//! after a grace period, so that no device loses what it is just fetching.
//!
//! Order: steps back, packs, chunk lists, metadata with the timestamp last, the list of files that nothing names any more, deletions. A
//! cut at any moment leaves a sound store, and the next run goes on.

mod back;
mod decide;
pub(crate) mod doomed;
mod forward;
mod lines;
mod rewrite;
pub(crate) mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use firmware_image::Digest;

pub use forward::MAX_DETOUR_PERCENT;
pub use rewrite::MIN_NEEDED_PERCENT;

use crate::clock;
use crate::content_key::ContentKeys;
use crate::contents::{ContentReader, MAX_LINE};
use crate::error::StoreError;
use crate::keys::Passphrase;
use crate::repository::{Observer, Repository, Step, step};
use crate::store_files::{is_store, not_a_store};
use crate::transport::Directory;
use crate::trust::{ARCHIVE, MemoryCache, Releases, Trust};
use back::StepsBack;
use decide::{Decision, decide};
use doomed::Doomed;
use rewrite::{Rewritten, rewrite};
use survey::{Known, survey};

/// How long a file that nothing names any more stays unless told otherwise, in seconds: two weeks.
pub const DEFAULT_GRACE_SECS: i64 = 14 * 24 * 60 * 60;

/// Of how many releases in a row one keeps its chunks unless told otherwise.
pub const DEFAULT_WHOLE_EVERY: usize = 8;
/// The most releases in a row of which only one keeps its chunks: readers follow no longer lines.
pub const MAX_WHOLE_EVERY: usize = MAX_LINE;

/// What is kept, and how. Current releases are always kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// So many of the last releases of each channel that stand keep their chunks.
    pub whole: usize,
    /// Of so many releases of a channel in a row, one at least keeps its chunks: 1 to [`MAX_WHOLE_EVERY`].
    pub whole_every: usize,
    /// Versions that keep their chunks, in every channel.
    pub pins: Vec<String>,
    /// Releases of a channel that are older than so many of the last are forgotten, unless kept ones are made of them;
    /// `None`: none is.
    pub keep: Option<usize>,
    /// How long a file stays that nothing names any more, in seconds.
    pub grace_secs: i64,
    /// Threads that make patches; each may take ten times a file's bytes of memory.
    pub jobs: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            whole: 1,
            whole_every: DEFAULT_WHOLE_EVERY,
            pins: Vec::new(),
            keep: None,
            grace_secs: DEFAULT_GRACE_SECS,
            jobs: 1,
        }
    }
}

/// What becomes of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has chunks of all its contents.
    Whole,
    /// It is made of another release.
    Thinned {
        /// The serial of that one.
        base: u64,
    },
    /// The store no longer knows it.
    Forgotten,
}

/// What became of a release.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// Its serial.
    pub serial: u64,
    /// Its version.
    pub version: String,
    /// Its channel.
    pub channel: String,
    /// What it is now.
    pub fate: Fate,
    /// Whether this run made it that.
    pub is_new: bool,
}

/// What a run did, or would do.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Collected {
    /// The releases, oldest first.
    pub releases: Vec<Outcome>,
    /// Bytes of the store's files before.
    pub bytes_before: u64,
    /// Bytes of packs and chunk lists that were written.
    pub new_bytes: u64,
    /// Files that were deleted.
    pub deleted_files: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Files that wait for the end of the grace period.
    pub doomed_files: u64,
    /// Their bytes.
    pub doomed_bytes: u64,
    /// Bytes of the store's files once those are gone, too.
    pub bytes_after: u64,
    /// Whether releases changed, so that metadata was signed.
    pub is_changed: bool,
}

/// Tends the store: thins and forgets releases as `policy` says, and deletes what has not been named for long enough.
///
/// # Errors
/// `NoSuchRelease` for a pin; `Key`, `WrongPassphrase`, `Io`; whatever is wrong with the store, which is left as it is
/// then; `Stopped` where `observer` said so.
pub fn collect(
    repository: &mut Repository<'_>,
    passphrase: &Passphrase,
    policy: &Policy,
    now: i64,
    observer: &mut dyn Observer,
) -> Result<Collected, StoreError> {
    clock::check(now, repository.releases().newest_publication())?;
    let keys = repository.keys();
    let content_keys = keys.secrets(passphrase)?.content_keys;
    let (transport, product) = (repository.transport(), keys.product());
    let root = repository.writer().root().to_owned();
    let bytes_before = doomed::files(&root)?.values().sum();

    let releases = repository.releases().clone();
    let known = survey(&releases, &transport, product, &content_keys, observer)?;
    let reader = ContentReader::new(&releases, &transport, product, &content_keys)?;
    let back = StepsBack::new(reader, &content_keys, policy.jobs, Some(repository));
    let decisions = decide(&releases, &known, policy, &back, observer)?;
    drop(back);
    step(observer, Step::StepsWritten)?;
    let done = rewrite(&releases, &known, &decisions, &transport, &content_keys, Some(repository), observer)?;
    let is_changed = done.releases != releases;
    if is_changed || repository.awaits_new_keys() {
        check_thinned(&done.releases, &known, &decisions, &transport, product, &content_keys, observer)?;
        repository.set_releases(done.releases.clone(), passphrase, now, observer)?;
    }

    let before = list_of_doomed(&root, observer);
    let sweep = Sweep::new(&root, &done, &repository.metadata_versions(), &before, policy, now)?;
    sweep.list.write(&before, repository.writer())?;
    step(observer, Step::DoomedListed)?;
    doomed::delete(repository.writer(), &sweep.due)?;
    let waiting = sweep.unnamed.keys().filter(|path| !sweep.due.contains(*path));
    before.updated(waiting, now).write(&sweep.list, repository.writer())?;
    step(observer, Step::DoomedDeleted)?;
    Ok(sweep.collected(&known, &decisions, bytes_before, done.new_bytes, is_changed))
}

/// What [`collect`] would do now. Reads, and changes nothing.
///
/// # Errors
/// As [`collect`]; `Refused` where there is no store.
pub fn preview(
    root: &Path,
    trusted_root: &[u8],
    product: &str,
    keys: &ContentKeys,
    policy: &Policy,
    now: i64,
    observer: &mut dyn Observer,
) -> Result<Collected, StoreError> {
    if !is_store(root) {
        return Err(not_a_store(root));
    }
    let transport = Directory::new(root);
    let metadata = Trust::new(trusted_root, MemoryCache::new())?.offline_known(&transport)?;
    let releases = metadata.releases()?;
    if metadata.set.targets_role(ARCHIVE).is_none() {
        let reason = "its archive metadata is not here, and with it older releases: copy it from the store";
        return Err(StoreError::Refused(format!("{}: {reason}", root.display())));
    }
    let bytes_before = doomed::files(root)?.values().sum();
    let known = survey(&releases, &transport, product, keys, observer)?;
    let reader = ContentReader::new(&releases, &transport, product, keys)?;
    let decisions = decide(&releases, &known, policy, &StepsBack::new(reader, keys, policy.jobs, None), observer)?;
    let done = rewrite(&releases, &known, &decisions, &transport, keys, None, observer)?;
    let version = |role: &str| metadata.set.targets_role(role).map_or(0, |role| role.version);
    let snapshot = metadata.set.snapshot().map_or(0, |role| role.version);
    let versions = [("targets", version("targets")), (ARCHIVE, version(ARCHIVE)), ("snapshot", snapshot)];
    let before = list_of_doomed(root, observer);
    let sweep = Sweep::new(root, &done, &versions, &before, policy, now)?;
    Ok(sweep.collected(&known, &decisions, bytes_before, done.new_bytes, done.releases != releases))
}

/// The list of doomed files; one that cannot be read begins anew.
fn list_of_doomed(root: &Path, observer: &mut dyn Observer) -> Doomed {
    Doomed::read(root).unwrap_or_else(|error| {
        observer.note(&format!("the grace period of what nothing names begins anew: {error}"));
        Doomed::default()
    })
}

/// That every content which a release loses the chunks of can be made by patches: read before anything is signed.
fn check_thinned(
    releases: &Releases,
    known: &[Known],
    decisions: &BTreeMap<u64, Decision>,
    transport: &Directory,
    product: &str,
    keys: &ContentKeys,
    observer: &mut dyn Observer,
) -> Result<(), StoreError> {
    let mut reader = ContentReader::new(releases, transport, product, keys)?;
    let mut wanted: Vec<(u64, Digest, u64)> = Vec::new();
    for known in known {
        let serial = known.release.serial;
        let Some(decision) = decisions.get(&serial).filter(|decision| !decision.dropped.is_empty()) else { continue };
        let open = reader.release(serial)?;
        let made = known.manifest.contents().into_iter().filter(|(digest, _)| decision.dropped.contains(digest));
        wanted.extend(made.filter(|(digest, _)| open.is_patched(digest)).map(|(digest, size)| (serial, digest, size)));
    }
    let total = wanted.iter().map(|(_, _, size)| size).sum();
    let mut done = 0;
    for (serial, digest, size) in &wanted {
        reader.read(*serial, digest)?;
        done += size;
        observer.progress(done, total);
    }
    Ok(())
}

/// What nothing names, and what of it goes.
struct Sweep {
    /// The files that signed metadata does not name, with their lengths.
    unnamed: BTreeMap<String, u64>,
    /// Since when.
    list: Doomed,
    /// Those whose time has come.
    due: BTreeSet<String>,
    /// Bytes of what is named.
    named_bytes: u64,
}

impl Sweep {
    fn new(
        root: &Path,
        done: &Rewritten,
        versions: &[(&str, u64)],
        before: &Doomed,
        policy: &Policy,
        now: i64,
    ) -> Result<Self, StoreError> {
        let metadata: BTreeSet<String> =
            versions.iter().map(|(role, version)| format!("metadata/{version}.{role}.json")).collect();
        let stays = |path: &String| !doomed::may_go(path) || metadata.contains(path) || done.named.contains_key(path);
        let (named, unnamed): (BTreeMap<_, _>, BTreeMap<_, _>) =
            doomed::files(root)?.into_iter().partition(|(path, _)| stays(path));
        let list = before.updated(unnamed.keys(), now);
        let due = list.due(now, policy.grace_secs);
        // What a preview names need not be there yet.
        let kept = named.iter().filter(|(path, _)| !done.named.contains_key(*path)).map(|(_, bytes)| bytes);
        let named_bytes = kept.chain(done.named.values()).sum();
        Ok(Self { unnamed, list, due, named_bytes })
    }

    fn collected(
        &self,
        known: &[Known],
        decisions: &BTreeMap<u64, Decision>,
        bytes_before: u64,
        new_bytes: u64,
        is_changed: bool,
    ) -> Collected {
        let outcome = |known: &Known| {
            let release = &known.release;
            let fate = decisions.get(&release.serial).map_or(Fate::Whole, |decision| decision.fate);
            let is_new = match fate {
                Fate::Whole => false,
                Fate::Thinned { .. } => release.base.is_none(),
                Fate::Forgotten => true,
            };
            let (version, channel) = (release.version.clone(), release.channel.clone());
            Outcome { serial: release.serial, version, channel, fate, is_new }
        };
        let bytes = |due: bool| -> (u64, u64) {
            let files = self.unnamed.iter().filter(|(path, _)| self.due.contains(*path) == due);
            files.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes))
        };
        let ((deleted_files, deleted_bytes), (doomed_files, doomed_bytes)) = (bytes(true), bytes(false));
        Collected {
            releases: known.iter().map(outcome).collect(),
            bytes_before,
            new_bytes,
            deleted_files,
            deleted_bytes,
            doomed_files,
            doomed_bytes,
            bytes_after: self.named_bytes,
            is_changed,
        }
    }
}
