//! What is in a store, and what devices download from it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;

use firmware_image::Digest;

use crate::content_key::ContentKeys;
use crate::contents::MAX_LINE;
use crate::error::StoreError;
use crate::gc::doomed;
use crate::gc::survey::{Known, KnownStep, survey};
use crate::repository::{NoObserver, Observer, Repository};
use crate::store_files::{is_store, not_a_store};
use crate::transport::Directory;
use crate::trust::{ARCHIVE, MemoryCache, Releases, Trust};
use crate::update_cost::{by_chunks, by_steps, whole};

/// Numbers of a store.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Its releases, oldest first.
    pub releases: Vec<ReleaseStats>,
    /// What each release costs a device that has it and takes the newest of its channel.
    pub updates: Vec<UpdateStats>,
    /// Bytes of content of all releases.
    pub content_bytes: u64,
    /// Bytes of all chunks that releases name.
    pub chunk_bytes: u64,
    /// Bytes of all steps, with their patches.
    pub step_bytes: u64,
    /// What the same updates would cost by chunks.
    pub instead_of_step_bytes: u64,
    /// Bytes of all files of the store.
    pub store_bytes: u64,
}

impl StoreStats {
    /// How many times the chunks the content of all releases is.
    pub fn dedup_ratio(&self) -> Option<f64> {
        (self.chunk_bytes > 0).then(|| self.content_bytes as f64 / self.chunk_bytes as f64)
    }

    /// What steps cost, as a part of what their updates would cost by chunks.
    pub fn delta_ratio(&self) -> Option<f64> {
        (self.instead_of_step_bytes > 0).then(|| self.step_bytes as f64 / self.instead_of_step_bytes as f64)
    }
}

/// Numbers of a release.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReleaseStats {
    /// Its serial.
    pub serial: u64,
    /// Its version.
    pub version: String,
    /// Its channel.
    pub channel: String,
    /// Whether it was withdrawn.
    pub withdrawn: bool,
    /// The release that it is made of.
    pub base: Option<u64>,
    /// Its files.
    pub files: u64,
    /// Bytes of its files and updaters.
    pub content_bytes: u64,
    /// Bytes of the chunks that no older release names.
    pub new_chunk_bytes: u64,
    /// The steps that lead to it.
    pub steps: u64,
    /// Their bytes, with their patches.
    pub step_bytes: u64,
    /// Bytes of its sealed manifest.
    pub manifest_bytes: u64,
    /// Bytes of its chunk list.
    pub chunk_list_bytes: u64,
}

/// How a device comes to the newest release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By so many steps.
    Steps(usize),
    /// By the chunks that it lacks.
    Chunks,
}

/// What a device downloads that has one release and takes the newest one of its channel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UpdateStats {
    /// The channel.
    pub channel: String,
    /// The release that it has.
    pub serial: u64,
    /// Its version.
    pub version: String,
    /// The version of the newest.
    pub to: String,
    /// How.
    pub way: Way,
    /// What it downloads, metadata included.
    pub bytes: u64,
    /// What it would download if it had nothing.
    pub whole_bytes: u64,
}

/// Reads the store at `root`: metadata, manifests, chunk lists and steps; no pack.
///
/// # Errors
/// `Refused` where there is no store; whatever is wrong with what is read.
pub fn stats(
    root: &Path,
    trusted_root: &[u8],
    product: &str,
    keys: &ContentKeys,
    observer: &mut dyn Observer,
) -> Result<StoreStats, StoreError> {
    if !is_store(root) {
        return Err(not_a_store(root));
    }
    let transport = Directory::new(root);
    let metadata = Trust::new(trusted_root, MemoryCache::new())?.offline_known(&transport)?;
    let releases = metadata.releases()?;
    let known = survey(&releases, &transport, product, keys, observer)?;
    let by_serial: HashMap<u64, &Known> = known.iter().map(|known| (known.release.serial, known)).collect();
    let mut stats = StoreStats { store_bytes: doomed::files(root)?.values().sum(), ..StoreStats::default() };
    let mut named: HashSet<(Digest, u64)> = HashSet::new();
    for known in &known {
        let release = numbers(known, &mut named);
        stats.content_bytes += release.content_bytes;
        stats.chunk_bytes += release.new_chunk_bytes;
        for step in &known.steps {
            if let Some(before) = by_serial.get(&step.from) {
                stats.step_bytes += step.bytes();
                stats.instead_of_step_bytes += by_chunks(before, known);
            }
        }
        stats.releases.push(release);
    }
    let lengths = Lengths {
        fresh: (metadata.timestamp.len() + metadata.snapshot.len() + metadata.targets.len()) as u64,
        archive: if metadata.set.targets_role(ARCHIVE).is_some() { metadata.archive.len() as u64 } else { 0 },
    };
    for known in &known {
        let newest = releases.newest(&known.release.channel).and_then(|newest| by_serial.get(&newest.serial));
        if let Some(newest) = newest.filter(|newest| newest.release.serial != known.release.serial) {
            stats.updates.push(update(known, newest, &releases, &by_serial, &lengths));
        }
    }
    Ok(stats)
}

/// What devices download that have one of the releases numbered `from`, and take the one numbered `to`, the newest of its channel.
pub(crate) fn updates_to(
    to: u64,
    from: &[u64],
    repository: &Repository<'_>,
    keys: &ContentKeys,
) -> Result<Vec<UpdateStats>, StoreError> {
    let releases = repository.releases();
    let ways = from.iter().filter_map(|from| chain(releases, *from, to)).flatten();
    let wanted: BTreeSet<u64> =
        ways.flat_map(|(before, after)| [before, after]).chain([to]).chain(from.iter().copied()).collect();
    let mut on_the_way = releases.clone();
    releases
        .iter()
        .filter(|release| !wanted.contains(&release.serial))
        .for_each(|other| on_the_way.remove(other.serial));
    let known = survey(&on_the_way, &repository.transport(), repository.keys().product(), keys, &mut NoObserver)?;
    let by_serial: HashMap<u64, &Known> = known.iter().map(|known| (known.release.serial, known)).collect();
    let missing = || StoreError::NoSuchRelease { wanted: format!("with the serial {to}") };
    let newest = by_serial.get(&to).ok_or_else(missing)?;
    let old = from.iter().filter_map(|from| by_serial.get(from));
    Ok(old.map(|old| update(old, newest, releases, &by_serial, &repository.lengths())).collect())
}

/// The lengths of the metadata that devices ask for.
pub(crate) struct Lengths {
    /// At every update: timestamp, snapshot, targets.
    pub fresh: u64,
    /// Where no step leads to the newest release directly.
    pub archive: u64,
}

fn numbers(known: &Known, named: &mut HashSet<(Digest, u64)>) -> ReleaseStats {
    let Known { release, manifest, list, steps, .. } = known;
    let mut is_new = |pack: &Digest, offset: u64| named.insert((*pack, offset));
    let frames = list.chunks.iter().filter_map(|chunk| Some((list.pack_of(chunk).ok()?.digest, chunk)));
    let new_chunk_bytes =
        frames.filter(|(pack, chunk)| is_new(pack, chunk.offset)).map(|(_, chunk)| u64::from(chunk.stored_len)).sum();
    ReleaseStats {
        serial: release.serial,
        version: release.version.clone(),
        channel: release.channel.clone(),
        withdrawn: release.withdrawn.is_some(),
        base: release.base,
        files: manifest.files.len() as u64,
        content_bytes: manifest.total_bytes() + manifest.updaters.iter().map(|updater| updater.size).sum::<u64>(),
        new_chunk_bytes,
        steps: steps.len() as u64,
        step_bytes: steps.iter().map(KnownStep::bytes).sum(),
        manifest_bytes: release.sealed.bytes,
        chunk_list_bytes: release.chunks.bytes,
    }
}

/// What a device that has `old` downloads to have `new`.
fn update(
    old: &Known,
    new: &Known,
    releases: &Releases,
    by_serial: &HashMap<u64, &Known>,
    lengths: &Lengths,
) -> UpdateStats {
    // Nothing is looked for that leads back.
    let looks_for_a_chain = old.release.serial < new.release.serial && new.step(old.release.serial).is_none();
    let metadata = lengths.fresh + if looks_for_a_chain { lengths.archive } else { 0 };
    let chunks = metadata + by_chunks(old, new);
    let steps = chain(releases, old.release.serial, new.release.serial)
        .and_then(|chain| Some((chain.len(), metadata + by_steps(old, new, &chain, by_serial)?)));
    let (way, bytes) = match steps {
        Some((count, bytes)) if bytes <= chunks => (Way::Steps(count), bytes),
        _ => (Way::Chunks, chunks),
    };
    UpdateStats {
        channel: old.release.channel.clone(),
        serial: old.release.serial,
        version: old.release.version.clone(),
        to: new.release.version.clone(),
        way,
        bytes,
        whole_bytes: lengths.fresh + whole(new),
    }
}

/// The fewest steps from the release `from` to the release `to`, as devices look for them, those that only lead forward before
/// any: pairs of from and to.
fn chain(releases: &Releases, from: u64, to: u64) -> Option<Vec<(u64, u64)>> {
    let forward = |before: u64, after: u64| before < after;
    chain_by(releases, from, to, forward).or_else(|| chain_by(releases, from, to, |_, _| true))
}

fn chain_by(releases: &Releases, from: u64, to: u64, may_be: impl Fn(u64, u64) -> bool) -> Option<Vec<(u64, u64)>> {
    let mut next: HashMap<u64, u64> = HashMap::new();
    let mut queue = VecDeque::from([(to, 0)]);
    while let Some((at, depth)) = queue.pop_front() {
        let Some(release) = releases.by_serial(at).filter(|_| depth < MAX_LINE) else { continue };
        for (before, _) in release.steps.iter().rev().filter(|(before, _)| may_be(*before, at)) {
            if *before != to && !next.contains_key(before) {
                next.insert(*before, at);
                queue.push_back((*before, depth + 1));
            }
        }
        if next.contains_key(&from) {
            break;
        }
    }
    let mut chain = Vec::new();
    let mut at = from;
    while at != to {
        let after = *next.get(&at)?;
        chain.push((at, after));
        at = after;
    }
    Some(chain)
}
