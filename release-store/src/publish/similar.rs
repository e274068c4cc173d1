//! Which old file a new one without an older self is most like.

use std::collections::HashSet;

use firmware_image::Digest;

/// One in so many windows is looked at, by its hash.
const SAMPLED_LOG: u32 = 7;
/// The most samples of a file.
const MAX_SAMPLES: usize = 4096;

/// A sample of the windows of a file, taken by content: similar files have similar samples.
#[derive(Debug)]
pub(super) struct Outline(HashSet<u64>);

impl Outline {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut samples = HashSet::new();
        let mut hash = 0_u64;
        for byte in bytes {
            // Each byte leaves the hash after 64 shifts: a window of so many bytes.
            hash = (hash << 1).wrapping_add((u64::from(*byte) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if hash >> (64 - SAMPLED_LOG) == 0 && samples.len() < MAX_SAMPLES {
                samples.insert(hash);
            }
        }
        Self(samples)
    }
}

/// The content of `candidates` that shares most with `wanted`; the first of equals. `None` where none shares anything.
pub(super) fn most_similar(wanted: &Outline, candidates: &[(Digest, Outline)]) -> Option<Digest> {
    let shared = |candidate: &Outline| wanted.0.intersection(&candidate.0).count();
    let mut best = (0, None);
    for (digest, outline) in candidates {
        let count = shared(outline);
        if count > best.0 {
            best = (count, Some(*digest));
        }
    }
    best.1
}
