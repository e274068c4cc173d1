//! What an update costs a device, in bytes, by steps and by chunks.

use std::collections::{BTreeSet, HashMap, HashSet};

use firmware_image::Digest;

use crate::gc::survey::Known;

/// Manifest, chunk list, and all chunks.
pub(crate) fn whole(new: &Known) -> u64 {
    let all = contents(new);
    new.release.sealed.bytes + new.release.chunks.bytes + frames(new, &all, &HashSet::new())
}

/// Manifest, chunk list, and the chunks that `old` does not have.
pub(crate) fn by_chunks(old: &Known, new: &Known) -> u64 {
    let wanted = &contents(new) - &contents(old);
    new.release.sealed.bytes + chunks(old, new, &wanted)
}

/// The steps of `chain` (pairs of from and to) with their patches, and chunks for what those do not give. `None` where a step or
/// a release is not known, or what a step says cannot be.
pub(crate) fn by_steps(
    old: &Known,
    new: &Known,
    chain: &[(u64, u64)],
    by_serial: &HashMap<u64, &Known>,
) -> Option<u64> {
    let mut have = contents(old);
    let mut bytes = 0;
    for (from, to) in chain {
        let (before, after) = (by_serial.get(from)?, by_serial.get(to)?);
        let step = after.step(*from)?;
        bytes += step.bytes();
        for patch in step.step.patches(&before.manifest, &after.manifest).ok()? {
            if patch.sources.iter().all(|(digest, _)| have.contains(digest)) {
                have.extend(patch.targets.iter().map(|(digest, _)| *digest));
            }
        }
    }
    // A single step stands in for the manifest.
    let manifest = if chain.len() == 1 { 0 } else { new.release.sealed.bytes };
    Some(manifest + bytes + chunks(old, new, &(&contents(new) - &have)))
}

/// All contents of a release.
pub(crate) fn contents(known: &Known) -> BTreeSet<Digest> {
    known.manifest.contents().into_iter().map(|(digest, _)| digest).collect()
}

/// The chunk list, and those chunks of the contents `wanted` that `old` does not have; nothing where none is.
fn chunks(old: &Known, new: &Known, wanted: &BTreeSet<Digest>) -> u64 {
    if wanted.is_empty() {
        return 0;
    }
    let here = old.list.chunks.iter().map(|chunk| chunk.digest).collect();
    new.release.chunks.bytes + frames(new, wanted, &here)
}

/// Bytes of the frames of the contents `wanted` of `new`, each once, that are not `here`. For contents that a release that
/// is made of another one has no chunks of, what they cost whole.
fn frames(new: &Known, wanted: &BTreeSet<Digest>, here: &HashSet<Digest>) -> u64 {
    let files = new.manifest.files.iter().map(|file| (file.sha256, file.stored_bytes));
    let updaters = new.manifest.updaters.iter().map(|updater| (updater.sha256, updater.stored_bytes));
    let costs: HashMap<Digest, u64> = files.chain(updaters).collect();
    let mut seen = here.clone();
    let mut bytes = 0;
    for digest in wanted {
        let Some(content) = new.list.content(digest) else {
            bytes += costs.get(digest).copied().unwrap_or(0);
            continue;
        };
        for (_, chunk) in new.list.chunks_of(content) {
            if seen.insert(chunk.digest) {
                bytes += u64::from(chunk.stored_len);
            }
        }
    }
    bytes
}
