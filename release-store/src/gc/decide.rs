//! What becomes of each release: kept whole, kept as patches on another one, or forgotten.
//!
//! A decision that was made before is never taken back: a release that is held as patches stays so, and one that others
//! are made of stays as it is, since what they are made of was settled with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use firmware_image::Digest;

use super::survey::Known;
use super::{Fate, Policy};
use crate::contents::given;
use crate::error::StoreError;
use crate::publish::KEYFRAME_RELEASES;
use crate::repository::Observer;
use crate::trust::{Releases, VerifiedManifest};

/// The most steps from a release that stands by itself to one that is made of it.
pub const MAX_CHAIN: usize = 4;

/// What becomes of one release.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub fate: Fate,
    /// The releases whose steps to it stay.
    pub steps: BTreeSet<u64>,
    /// The contents that leave its chunk list.
    pub dropped: BTreeSet<Digest>,
}

/// The frames that chunk lists need: where they are, and how long.
type Frames = HashMap<(Digest, u64), u64>;

/// Decides on all releases of a store, which are `known`, oldest first.
///
/// # Errors
/// `NoSuchRelease` for a pin; `Malformed` where what the store says of its releases cannot be.
pub(super) fn decide(
    releases: &Releases,
    known: &[Known],
    policy: &Policy,
    observer: &mut dyn Observer,
) -> Result<BTreeMap<u64, Decision>, StoreError> {
    let current = releases.current();
    let pinned = pinned(known, policy)?;
    let mut bound = pinned.clone();
    bound.extend(&current);
    let kept = kept(known, policy, bound)?;
    let whole = whole(known, policy, &kept, &current, &pinned);

    let has_base = |known: &&Known| known.release.base.is_some() && kept.contains(&known.release.serial);
    let made_of: BTreeSet<u64> = known.iter().filter(has_base).filter_map(|known| known.release.base).collect();
    for known in known.iter().filter(has_base).filter(|known| pinned.contains(&known.release.serial)) {
        let version = &known.release.version;
        observer.note(&format!(
            "{version} is held as patches since an earlier run, and stays so: it can be installed as before"
        ));
    }
    let mut needed = Frames::new();
    for known in known.iter().filter(|known| kept.contains(&known.release.serial)) {
        let serial = known.release.serial;
        if known.release.base.is_some() || whole.contains(&serial) || made_of.contains(&serial) {
            needed.extend(frames(known, |_| true));
        }
    }
    let mut chooser = Chooser { by_serial: HashMap::new(), lines: HashMap::new(), needed };
    let mut decisions = BTreeMap::new();
    for known in known {
        let serial = known.release.serial;
        if !kept.contains(&serial) {
            let (steps, dropped) = Default::default();
            decisions.insert(serial, Decision { fate: Fate::Forgotten, steps, dropped });
            continue;
        }
        let may_thin = known.release.base.is_none() && !whole.contains(&serial) && !made_of.contains(&serial);
        let mut decision = chooser.choose(known, may_thin)?;
        if current.contains(&serial) {
            decision.steps = known.steps.iter().map(|step| step.from).collect();
        }
        decisions.insert(serial, decision);
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
fn channels<'k>(known: impl Iterator<Item = &'k Known>) -> BTreeMap<&'k str, Vec<&'k Known>> {
    let mut channels: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
    for known in known {
        channels.entry(known.release.channel.as_str()).or_default().push(known);
    }
    channels
}

/// The releases that are not forgotten: `bound` and the last of each channel, and what they are made of.
fn kept(known: &[Known], policy: &Policy, bound: BTreeSet<u64>) -> Result<BTreeSet<u64>, StoreError> {
    let mut kept = bound;
    for releases in channels(known.iter()).values() {
        let forgotten = policy.keep.map_or(0, |keep| releases.len().saturating_sub(keep));
        kept.extend(releases[forgotten..].iter().map(|known| known.release.serial));
    }
    // Newest first: what a release is made of is older.
    for known in known.iter().rev().filter_map(|known| known.release.base.map(|base| (known.release.serial, base))) {
        let (serial, base) = known;
        if base >= serial {
            let reason = format!("it says that it is made of release {base}, which is no older");
            return Err(StoreError::malformed(format!("release {serial}"), reason));
        }
        if kept.contains(&serial) {
            kept.insert(base);
        }
    }
    Ok(kept)
}

/// The releases that the policy keeps whole.
fn whole(
    known: &[Known],
    policy: &Policy,
    kept: &BTreeSet<u64>,
    current: &BTreeSet<u64>,
    pinned: &BTreeSet<u64>,
) -> BTreeSet<u64> {
    let mut whole: BTreeSet<u64> = current.union(pinned).copied().collect();
    for releases in channels(known.iter().filter(|known| kept.contains(&known.release.serial))).values() {
        whole.extend(releases.iter().step_by(KEYFRAME_RELEASES).map(|known| known.release.serial));
        let standing = releases.iter().rev().filter(|known| known.release.withdrawn.is_none());
        whole.extend(standing.take(policy.whole).map(|known| known.release.serial));
    }
    whole
}

/// The frames of those contents of `known` that `wanted` picks.
fn frames(known: &Known, wanted: impl Fn(&Digest) -> bool) -> Frames {
    let contents = known.list.contents.iter().filter(|content| wanted(&content.digest));
    let chunks = contents.flat_map(|content| known.list.chunks_of(content));
    let place = |chunk: &crate::chunk_list::ChunkEntry| {
        let pack = known.list.pack_of(chunk).ok()?;
        Some(((pack.digest, chunk.offset), u64::from(chunk.stored_len)))
    };
    chunks.filter_map(|(_, chunk)| place(chunk)).collect()
}

/// What a release is made of in the end.
struct Line {
    /// Steps to the release that stands by itself.
    depth: usize,
    /// What its base gives.
    given: BTreeSet<Digest>,
    /// All contents that it has in the end.
    has: HashSet<Digest>,
}

/// Chooses release by release, from the oldest on.
struct Chooser<'k> {
    by_serial: HashMap<u64, &'k Known>,
    lines: HashMap<u64, Line>,
    /// What the releases that are settled need.
    needed: Frames,
}

impl<'k> Chooser<'k> {
    fn choose(&mut self, known: &'k Known, may_thin: bool) -> Result<Decision, StoreError> {
        let serial = known.release.serial;
        self.by_serial.insert(serial, known);
        if let Some(base) = known.release.base {
            let line = self.line(known, base)?.ok_or_else(|| {
                let reason = format!("it is made of release {base}, and the step from there does not lead to it");
                StoreError::malformed(format!("release {serial}"), reason)
            })?;
            self.lines.insert(serial, line);
            let (fate, steps) = (Fate::Thinned { base }, [base].into());
            return Ok(Decision { fate, steps, dropped: BTreeSet::new() });
        }
        if may_thin && let Some((base, line)) = self.cheapest_base(known)? {
            let dropped = line.given.clone();
            self.needed.extend(frames(known, |digest| !dropped.contains(digest)));
            self.lines.insert(serial, line);
            return Ok(Decision { fate: Fate::Thinned { base }, steps: [base].into(), dropped });
        }
        self.needed.extend(frames(known, |_| true));
        let has = known.manifest.contents().into_iter().map(|(digest, _)| digest).collect();
        self.lines.insert(serial, Line { depth: 0, given: BTreeSet::new(), has });
        // One way to it stays open for devices that have older releases.
        let from_kept = known.steps.iter().filter(|step| self.lines.contains_key(&step.from) && step.from != serial);
        let cheapest = from_kept.min_by_key(|step| (step.bytes(), std::cmp::Reverse(step.from)));
        let steps = cheapest.map(|step| step.from).into_iter().collect();
        Ok(Decision { fate: Fate::Whole, steps, dropped: BTreeSet::new() })
    }

    /// The base on which `known` takes the fewest bytes; `None` where its chunks take no more.
    fn cheapest_base(&self, known: &Known) -> Result<Option<(u64, Line)>, StoreError> {
        let missing = |wanted: &dyn Fn(&Digest) -> bool| -> u64 {
            let frames = frames(known, wanted);
            frames.iter().filter(|(place, _)| !self.needed.contains_key(*place)).map(|(_, bytes)| bytes).sum()
        };
        let mut best: Option<(u64, u64, Line)> = None;
        let mut least = missing(&|_| true);
        for step in known.steps.iter().rev() {
            let Some(line) = self.line(known, step.from)?.filter(|line| line.depth <= MAX_CHAIN) else { continue };
            let bytes = step.bytes() + missing(&|digest| !line.given.contains(digest));
            if bytes < least {
                least = bytes;
                best = Some((bytes, step.from, line));
            }
        }
        Ok(best.map(|(_, base, line)| (base, line)))
    }

    /// What `known` is made of on the release numbered `base`; `None` where that is not settled, or the step from there does
    /// not give its manifest.
    fn line(&self, known: &Known, base: u64) -> Result<Option<Line>, StoreError> {
        let (Some(step), Some(before), Some(line)) =
            (known.step(base), self.by_serial.get(&base), self.lines.get(&base))
        else {
            return Ok(None);
        };
        let manifest = step.step.manifest(&before.manifest).and_then(|manifest| manifest.encode());
        if !manifest.is_ok_and(|encoded| VerifiedManifest::accept(&known.release, encoded).is_ok()) {
            return Ok(None);
        }
        let patches = step.step.patches(&before.manifest, &known.manifest)?;
        let given = given(|digest| line.has.contains(digest), &known.manifest, &patches);
        let given: BTreeSet<Digest> = given.into_keys().collect();
        let by_chunks = known.list.contents.iter().map(|content| content.digest);
        let has = given.iter().copied().chain(by_chunks).collect();
        Ok(Some(Line { depth: line.depth + 1, given, has }))
    }
}
