//! Room on the device: what a plan takes at most, known before anything is fetched or changed.

use std::collections::{BTreeMap, HashMap};

use firmware_image::free_zone::FreeZone;
use firmware_image::{Digest, RawZone, paths};

use crate::commit::Intent;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::plan::{Content, Plan, Way};
use crate::spool::{ENTRY_BYTES, SYNC_BYTES, Spool};
use crate::zone_io;

/// What a file may take beyond its length: a cluster, and its entry in a directory.
const FILE_SLACK_BYTES: u64 = 8 << 10;
/// What is left free for the journal, the record's mirror and the log.
pub(crate) const RESERVE_BYTES: u64 = 512 << 10;

/// What a file of so many bytes takes.
pub(crate) fn footprint(bytes: u64) -> u64 {
    bytes.saturating_add(FILE_SLACK_BYTES)
}

/// Contents that only patches start from. Each is removed behind the last patch that reads it, so that a long chain of
/// steps takes the room of two of them.
pub(crate) struct OnTheWay(BTreeMap<usize, Vec<(Digest, u64)>>);

impl OnTheWay {
    /// Those of `plan`.
    pub(crate) fn of(plan: &Plan) -> Self {
        let own = plan.contents.iter().filter(|content| content.path.is_empty());
        let sizes: HashMap<Digest, u64> = own.map(|content| (content.digest, content.size)).collect();
        let mut readers: HashMap<Digest, usize> = HashMap::new();
        for patch in plan.contents.iter().filter_map(Content::patch) {
            for source in plan.patches[patch].sources.iter().filter(|source| sizes.contains_key(&source.digest)) {
                let last = readers.entry(source.digest).or_insert(patch);
                *last = patch.max(*last);
            }
        }
        let mut last: BTreeMap<usize, Vec<(Digest, u64)>> = BTreeMap::new();
        for (digest, patch) in readers {
            last.entry(patch).or_default().push((digest, sizes[&digest]));
        }
        Self(last)
    }

    /// What this patch is the last to read, and the lengths.
    pub(crate) fn last_read_by(&self, patch: usize) -> impl Iterator<Item = &(Digest, u64)> {
        self.0.get(&patch).into_iter().flatten()
    }

    /// The most that is staged at once, in bytes.
    fn most_staged(&self, plan: &Plan) -> u64 {
        let (mut staged, mut most) = (0_u64, 0);
        let unstaged = plan.contents.iter().filter(|content| content.way != Way::Staged);
        let mut contents = unstaged.peekable();
        while let Some(content) = contents.next() {
            staged = staged.saturating_add(footprint(content.size));
            most = most.max(staged);
            // All that one patch gives stands together, and is there when it is done.
            let Some(patch) = content.patch() else { continue };
            if contents.peek().and_then(|next| next.patch()) != Some(patch) {
                let read = self.last_read_by(patch).map(|(_, size)| footprint(*size)).sum();
                staged = staged.saturating_sub(read);
            }
        }
        most
    }
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Checks that the plan fits, before anything is fetched or changed.
    pub(crate) fn check_space(&self, plan: &Plan, intent: Intent, spool: &Spool<'_, F>) -> Result<(), EngineError> {
        let stage = OnTheWay::of(plan).most_staged(plan);
        let kept = [&plan.sealed_list, &plan.statement, &plan.previous_statement].into_iter().flatten();
        let lists = plan.verified.bytes().len() + kept.map(Vec::len).sum::<usize>();
        let ahead = if plan.fetch_bytes == 0 { 0 } else { SYNC_BYTES };
        let fetch = plan.fetch_bytes + (plan.frames.len() * ENTRY_BYTES) as u64 + ahead;
        let growth: u64 = plan
            .puts
            .iter()
            .map(|put| match put.old_bytes {
                Some(old) => put.size.saturating_sub(old),
                None => footprint(put.size),
            })
            .sum();
        let images = plan.updaters.iter().map(|at| footprint(plan.manifest.updaters[*at].size)).max().unwrap_or(0);
        let mut undo = 0;
        let mut given_back = spool.bytes();
        if intent.keeps_undo() {
            let replaced = plan.puts.iter().filter_map(|put| put.old_bytes);
            let removed = plan.removes.iter().map(|(_, bytes)| *bytes);
            undo = replaced.chain(removed).map(footprint).sum();
            given_back += zone_io::files_in(self.free, paths::UNDO_DIR)?.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
        let committing = (undo + growth + images).saturating_sub(given_back);
        let needed = stage + lists as u64 + fetch.max(committing) + RESERVE_BYTES;
        let free = self.free.free_bytes().map_err(EngineError::zone("measure", "/"))?;
        if needed > free { Err(EngineError::NoSpace { needed, free }) } else { Ok(()) }
    }

    /// The same; what was fetched for another plan gives way where there is no room beside it, and only there.
    pub(crate) fn make_space(&self, plan: &Plan, intent: Intent, spool: &mut Spool<'_, F>) -> Result<(), EngineError> {
        match self.check_space(plan, intent, spool) {
            Err(EngineError::NoSpace { .. }) if !spool.is_empty() && !spool.digests().any(|at| plan.may_use(at)) => {
                spool.clear()?;
                self.check_space(plan, intent, spool)
            }
            other => other,
        }
    }
}
