//! What becomes of each release: kept whole, kept as patches on a newer one, or forgotten.
//!
//! Devices want the newest release, so that one has its chunks, and older ones are made of it: each of the next newer one, by a
//! step back. A decision that was made before is never taken back: a release that is held as patches stays so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use firmware_image::Digest;

use super::back::StepsBack;
use super::forward::forward_steps;
use super::lines::Lines;
use super::survey::{Known, KnownStep};
use super::{Fate, Policy};
use crate::chunk_list::ChunkEntry;
use crate::error::StoreError;
use crate::repository::Observer;
use crate::trust::{MAX_STEPS, Releases};

/// What becomes of one release.
#[derive(Debug)]
pub(super) struct Decision {
    pub fate: Fate,
    /// The releases whose steps to it stay.
    pub steps: BTreeSet<u64>,
    /// The step from its base, where this run made it.
    pub made: Option<KnownStep>,
    /// The contents that leave its chunk list.
    pub dropped: BTreeSet<Digest>,
}

/// The frames that chunk lists need: where they are, and how long.
#[derive(Debug, Default)]
pub(super) struct Frames(HashMap<(Digest, u64), u64>);

impl Frames {
    /// Adds the frames of those contents of `known` that `wanted` picks.
    fn add(&mut self, known: &Known, wanted: impl Fn(&Digest) -> bool) {
        self.0.extend(frames(known, wanted));
    }

    /// Bytes of the frames that are missing for those contents of `known` that `wanted` picks.
    pub(super) fn missing(&self, known: &Known, wanted: impl Fn(&Digest) -> bool) -> u64 {
        let frames: HashMap<_, _> = frames(known, wanted).collect();
        frames.iter().filter(|(place, _)| !self.0.contains_key(*place)).map(|(_, bytes)| bytes).sum()
    }
}

/// The frames of those contents of `known` that `wanted` picks.
fn frames(known: &Known, wanted: impl Fn(&Digest) -> bool) -> impl Iterator<Item = ((Digest, u64), u64)> {
    let contents = known.list.contents.iter().filter(move |content| wanted(&content.digest));
    let chunks = contents.flat_map(|content| known.list.chunks_of(content));
    let place = |chunk: &ChunkEntry| {
        let pack = known.list.pack_of(chunk).ok()?;
        Some(((pack.digest, chunk.offset), u64::from(chunk.stored_len)))
    };
    chunks.filter_map(move |(_, chunk)| place(chunk))
}

/// Decides on all releases of a store, which are `known`, oldest first; the steps back that it takes are made and kept by
/// `back`.
///
/// # Errors
/// `NoSuchRelease` for a pin; `Malformed` where what the store says of its releases cannot be; as making steps reports.
pub(super) fn decide(
    releases: &Releases,
    known: &[Known],
    policy: &Policy,
    back: &StepsBack<'_>,
    observer: &mut dyn Observer,
) -> Result<BTreeMap<u64, Decision>, StoreError> {
    let current = releases.current();
    let pinned = pinned(known, policy)?;
    let mut lines = Lines::of(known)?;
    let kept = kept(known, policy, &lines, &current | &pinned);
    let whole = whole(known, policy, &kept, &current | &pinned);
    for known in known.iter().filter(|known| pinned.contains(&known.release.serial) && known.release.base.is_some()) {
        let version = &known.release.version;
        observer.note(&format!(
            "{version} is held as patches since an earlier run, and stays so: it can be installed as before"
        ));
    }
    let mut needed = Frames::default();
    for known in known.iter().filter(|known| kept.contains(&known.release.serial)) {
        if known.release.base.is_some() || whole.contains(&known.release.serial) {
            needed.add(known, |_| true);
        }
    }

    let mut decisions = BTreeMap::new();
    let mut newer: BTreeMap<&str, &Known> = BTreeMap::new();
    for known in known.iter().rev() {
        let serial = known.release.serial;
        let mut decision = Decision { fate: Fate::Whole, steps: BTreeSet::new(), made: None, dropped: BTreeSet::new() };
        if !kept.contains(&serial) {
            decision.fate = Fate::Forgotten;
            decisions.insert(serial, decision);
            continue;
        }
        let base = newer.insert(&known.release.channel, known);
        if let Some(base) = known.release.base {
            decision.fate = Fate::Thinned { base };
            decision.steps.insert(base);
        } else if let Some(base) = base.filter(|_| !whole.contains(&serial)) {
            let length = lines.depth(base.release.serial) + 1 + lines.height(serial);
            let leads_round = lines.below(base.release.serial).any(|at| at == serial);
            // Whoever can read a release need not have the keys of newer ones.
            let is_readable = base.list_key == known.list_key;
            // Readers refuse a release with more steps; all that there are may stay.
            let has_room = known.steps.len() < MAX_STEPS;
            let may_thin = length < policy.whole_every && is_readable && has_room && !leads_round;
            if may_thin && let Some(thinned) = back.thin(base, known, &needed, observer)? {
                let base = base.release.serial;
                lines.put(serial, base);
                decision.fate = Fate::Thinned { base };
                decision.steps.insert(base);
                (decision.made, decision.dropped) = (thinned.made, thinned.given);
            }
        }
        needed.add(known, |digest| !decision.dropped.contains(digest));
        decisions.insert(serial, decision);
    }
    for (to, from) in forward_steps(releases, known, &kept, &lines) {
        if let Some(decision) = decisions.get_mut(&to) {
            decision.steps.extend(from);
        }
    }
    Ok(decisions)
}

/// The releases that the policy pins.
fn pinned(known: &[Known], policy: &Policy) -> Result<BTreeSet<u64>, StoreError> {
    let mut pinned = BTreeSet::new();
    for version in &policy.pins {
        let found = known.iter().filter(|known| known.release.version == *version);
        let found: BTreeSet<u64> = found.map(|known| known.release.serial).collect();
        if found.is_empty() {
            return Err(StoreError::NoSuchRelease { wanted: format!("{version}, which is to be pinned") });
        }
        pinned.extend(found);
    }
    Ok(pinned)
}

/// The channels, and their releases by serial.
pub(super) fn channels<'k>(known: impl Iterator<Item = &'k Known>) -> BTreeMap<&'k str, Vec<&'k Known>> {
    let mut channels: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
    for known in known {
        channels.entry(known.release.channel.as_str()).or_default().push(known);
    }
    channels
}

/// The releases that are not forgotten: `bound` and the last of each channel, and what they are made of.
fn kept(known: &[Known], policy: &Policy, lines: &Lines, bound: BTreeSet<u64>) -> BTreeSet<u64> {
    let mut kept = bound;
    for releases in channels(known.iter()).values() {
        let forgotten = policy.keep.map_or(0, |keep| releases.len().saturating_sub(keep));
        kept.extend(releases[forgotten..].iter().map(|known| known.release.serial));
    }
    let below: Vec<u64> = kept.iter().flat_map(|serial| lines.below(*serial)).collect();
    kept.extend(below);
    kept
}

/// The releases that the policy keeps whole: `bound`, and the last that stand.
fn whole(known: &[Known], policy: &Policy, kept: &BTreeSet<u64>, bound: BTreeSet<u64>) -> BTreeSet<u64> {
    let mut whole = bound;
    for releases in channels(known.iter().filter(|known| kept.contains(&known.release.serial))).values() {
        let standing = releases.iter().rev().filter(|known| known.release.withdrawn.is_none());
        whole.extend(standing.take(policy.whole).map(|known| known.release.serial));
    }
    whole
}
