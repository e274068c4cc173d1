//! Which of the steps that lead forward stay: those by which devices come to the newest release.
//!
//! Each release leads on by one step: the one that costs a device least, or a much smaller one to a release between, where
//! going on from there costs hardly more. So what many releases share on their way is held once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::decide::channels;
use super::lines::Lines;
use super::survey::Known;
use crate::trust::Releases;
use crate::update_cost::{by_chunks, by_steps};

/// How much more a device may download for the sake of a smaller store, in percent.
pub const MAX_DETOUR_PERCENT: u64 = 10;
/// A step stays direct where a smaller one would save the store no more than this, in bytes.
const MIN_SAVED_BYTES: u64 = 64 << 10;
/// The most steps of a way that is chosen.
const MAX_STEPS_FORWARD: usize = 8;

/// The steps that stay, of those between `kept` releases: where they lead from, by where they lead to.
///
/// Releases that are newer than the newest one that stands keep all steps, and so does a channel in which none does.
pub(super) fn forward_steps(
    releases: &Releases,
    known: &[Known],
    kept: &BTreeSet<u64>,
    lines: &Lines,
) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut stay: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let by_serial: HashMap<u64, &Known> = known.iter().map(|known| (known.release.serial, known)).collect();
    for (channel, of_channel) in channels(known.iter().filter(|known| kept.contains(&known.release.serial))) {
        let target = releases.newest(channel).map_or(0, |newest| newest.serial);
        for known in of_channel.iter().filter(|known| known.release.serial > target) {
            stay.entry(known.release.serial).or_default().extend(known.steps.iter().map(|step| step.from));
        }
        let Some(target) = by_serial.get(&target) else { continue };
        // Devices have releases that the store has forgotten.
        let forgotten = target.steps.iter().map(|step| step.from).filter(|from| !kept.contains(from));
        stay.entry(target.release.serial).or_default().extend(forgotten);
        let mut ways: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::from([(target.release.serial, Vec::new())]);
        // Where newer releases were withdrawn, the target may be made of them: the way leads over those, and back.
        let mut back = (target.release.serial, Vec::new());
        for base in lines.below(target.release.serial) {
            back.1.insert(0, (base, back.0));
            back.0 = base;
            ways.insert(base, back.1.clone());
        }
        for old in of_channel.iter().rev().filter(|known| known.release.serial < target.release.serial) {
            if let Some(way) = way(old, target, &ways, &by_serial) {
                let (from, to) = way[0];
                stay.entry(to).or_default().insert(from);
                ways.insert(from, way);
            }
        }
    }
    stay
}

/// How devices come from `old` to `new`, over releases whose own `ways` are settled: pairs of from and to. `None`: by chunks.
fn way(
    old: &Known,
    new: &Known,
    ways: &BTreeMap<u64, Vec<(u64, u64)>>,
    by_serial: &HashMap<u64, &Known>,
) -> Option<Vec<(u64, u64)>> {
    let from = old.release.serial;
    let mut found = Vec::new();
    for (next, rest) in ways.iter().filter(|(_, rest)| rest.len() < MAX_STEPS_FORWARD) {
        let Some(step) = by_serial.get(next).and_then(|next| next.step(from)) else { continue };
        let way: Vec<(u64, u64)> = std::iter::once((from, *next)).chain(rest.iter().copied()).collect();
        if let Some(bytes) = by_steps(old, new, &way, by_serial) {
            found.push((bytes, step.bytes(), way));
        }
    }
    let (least, held) = found.iter().map(|(bytes, held, _)| (*bytes, *held)).min()?;
    if least > by_chunks(old, new) {
        return None;
    }
    let most = least.saturating_add(least / 100 * MAX_DETOUR_PERCENT);
    let near = |(bytes, smaller, _): &&(u64, u64, Vec<_>)| {
        *bytes == least || (*bytes <= most && smaller.saturating_add(MIN_SAVED_BYTES) < held)
    };
    let best = found.iter().filter(near).min_by_key(|(bytes, held, _)| (*held, *bytes))?;
    Some(best.2.clone())
}
