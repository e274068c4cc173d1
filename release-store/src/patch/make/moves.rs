//! How far memory has moved that is in no file, so that no copy tells: references to it in what is copied do.

use super::super::MAX_MOVES;
use super::super::address_map::{AddressMap, Match};
use super::super::fields::{X86_BEFORE, X86_FIELD, arm64_target, x86_operand};
use super::super::space::{Move, Region, RegionKind, Spaces};

/// So many references must agree for a move to be worth saying.
const MIN_VOTES: usize = 4;

/// References of one distance to addresses one behind the other.
struct Run {
    address: u64,
    last: u64,
    distance: i64,
    votes: usize,
}

/// The moves that references in `copies` tell and the copies themselves do not.
pub(super) fn found(old: &[u8], new: &[u8], copies: &[Match], spaces: &Spaces) -> Vec<Move> {
    let map = AddressMap::new(copies, spaces);
    let mut votes: Vec<(u64, i64)> = Vec::new();
    let mut vote = |old_target: u64, new_target: u64| {
        if spaces.old.holds_beyond_file(old_target) && spaces.new.holds_beyond_file(new_target) {
            votes.push((old_target, new_target.wrapping_sub(old_target) as i64));
        }
    };
    for copy in copies {
        let regions = (spaces.old.region_at(copy.old), spaces.new.region_at(copy.new));
        let (Some(from), Some(to)) = regions else { continue };
        let len = copy.len.min(left(from, copy.old)).min(left(to, copy.new)) as usize;
        let pair = Pair { old: &old[..copy.old as usize + len], new: &new[..copy.new as usize + len], copy, from, to };
        match from.kind {
            RegionKind::X86 => pair.x86(len, &mut vote),
            RegionKind::Arm64 => pair.arm64(len, &mut vote),
            RegionKind::Data => pair.pointers(len, &mut vote),
            RegionKind::FileOnly => {}
        }
    }
    votes.sort_unstable();
    let runs = runs(&votes);
    let mut moves = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let end = runs.get(at + 1).map_or(run.last.saturating_add(1), |next| next.address);
        if map.shift(run.address) != run.distance {
            let len = u32::try_from(end - run.address).unwrap_or(u32::MAX);
            moves.push((run.votes, Move { address: run.address, len, distance: run.distance }));
        }
    }
    moves.sort_by_key(|(votes, moved)| (std::cmp::Reverse(*votes), moved.address));
    moves.truncate(MAX_MOVES);
    let mut moves: Vec<Move> = moves.into_iter().map(|(_, moved)| moved).collect();
    moves.sort_by_key(|moved| moved.address);
    moves
}

fn left(region: &Region, offset: u32) -> u32 {
    region.len - (offset - region.offset)
}

/// The runs of `votes`, which are in order: for each address what most say, without those that few say.
fn runs(votes: &[(u64, i64)]) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for same in votes.chunk_by(|a, b| a.0 == b.0) {
        let most = same.chunk_by(|a, b| a.1 == b.1).max_by_key(|agreed| agreed.len()).unwrap_or(same);
        let Some((address, distance)) = most.first().copied() else { continue };
        push(&mut all, Run { address, last: address, distance, votes: most.len() });
    }
    let mut runs = Vec::new();
    for run in all.into_iter().filter(|run| run.votes >= MIN_VOTES) {
        push(&mut runs, run);
    }
    runs
}

fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut().filter(|last| last.distance == run.distance) {
        Some(last) => (last.last, last.votes) = (run.last, last.votes + run.votes),
        None => runs.push(run),
    }
}

/// A copy within one region of each image.
struct Pair<'a> {
    old: &'a [u8],
    new: &'a [u8],
    copy: &'a Match,
    from: &'a Region,
    to: &'a Region,
}

impl Pair<'_> {
    fn places(&self, at: usize) -> (usize, usize) {
        (self.copy.old as usize + at, self.copy.new as usize + at)
    }

    fn x86(&self, len: usize, vote: &mut dyn FnMut(u64, u64)) {
        let mut at = 0;
        while at + X86_FIELD <= len {
            let (old_at, new_at) = self.places(at);
            if old_at.min(new_at) < X86_BEFORE || !x86_operand(self.old, old_at) || !x86_operand(self.new, new_at) {
                at += 1;
                continue;
            }
            let target = |image: &[u8], region: &Region, at: usize| {
                let operand = image[at..].first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
                region.address_of(at as u32).wrapping_add(X86_FIELD as u64).wrapping_add(i64::from(operand) as u64)
            };
            vote(target(self.old, self.from, old_at), target(self.new, self.to, new_at));
            at += X86_FIELD;
        }
    }

    fn arm64(&self, len: usize, vote: &mut dyn FnMut(u64, u64)) {
        let skip = self.from.address_of(self.copy.old).wrapping_neg() as usize % 4;
        for at in (skip..len).step_by(4) {
            let (old_at, new_at) = self.places(at);
            let target = |image, region: &Region, at: usize| arm64_target(image, at, region.address_of(at as u32));
            if let (Some((_, old)), Some((_, new))) =
                (target(self.old, self.from, old_at), target(self.new, self.to, new_at))
            {
                vote(old, new);
            }
        }
    }

    fn pointers(&self, len: usize, vote: &mut dyn FnMut(u64, u64)) {
        let skip = self.from.address_of(self.copy.old).wrapping_neg() as usize % 8;
        for at in (skip..len.saturating_sub(7)).step_by(8) {
            let (old_at, new_at) = self.places(at);
            let long =
                |image: &[u8], at: usize| image[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            vote(long(self.old, old_at), long(self.new, new_at));
        }
    }
}
