//! From old addresses to new ones, as the copies of a patch tell. Both sides have the copies, so the map costs nothing.

use std::collections::BinaryHeap;

use super::space::{AddressSpace, Spaces};

/// The shortest copy that tells anything about addresses, in bytes.
const MIN_EVIDENCE_BYTES: u32 = 16;
/// Longer copies count as so long: a piece of data that was copied far must not outweigh everything near it.
const PIECE_BYTES: u32 = 1 << 16;
/// The most entries of the index.
const MAX_INDEX: u64 = 1 << 14;

/// A piece of the old image that is copied into the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub new: u32,
    pub old: u32,
    pub len: u32,
}

/// How far each old address has moved.
#[derive(Debug, Default)]
pub(super) struct AddressMap {
    /// From which old address on, and how far.
    shifts: Vec<(u64, i64)>,
    /// For each `1 << index_log` bytes of addresses: how many of `shifts` begin at or before their first byte.
    index: Vec<u32>,
    index_log: u32,
}

impl AddressMap {
    /// The map that `matches` tell, and the moves of `spaces`. Where they contradict each other, the longest is right.
    pub(super) fn new(matches: &[Match], spaces: &Spaces) -> Self {
        let Spaces { old, new, moves } = spaces;
        let telling = || matches.iter().filter(|found| found.len >= MIN_EVIDENCE_BYTES);
        let count: usize = telling().map(|found| found.len.div_ceil(PIECE_BYTES) as usize).sum();
        let mut pieces: Vec<(u64, u32, i64)> = Vec::with_capacity(count + moves.len());
        pieces.extend(moves.iter().map(|moved| (moved.address, moved.len, moved.distance)));
        for found in telling() {
            let mut at = 0;
            while at < found.len {
                let len = PIECE_BYTES.min(found.len - at);
                let (old_at, new_at) = (found.old + at, found.new + at);
                if let (Some(from), Some(to)) = (address(old, old_at), address(new, new_at)) {
                    pieces.push((from, len, to.wrapping_sub(from) as i64));
                }
                at += len;
            }
        }
        pieces.sort_unstable();
        let mut shifts = longest_of(&pieces);
        drop(pieces);
        shifts.shrink_to_fit();
        let mut map = Self { shifts, index: Vec::new(), index_log: 0 };
        map.make_index();
        map
    }

    fn make_index(&mut self) {
        let (Some(first), Some(last)) = (self.shifts.first(), self.shifts.last()) else { return };
        let span = last.0 - first.0;
        while span >> self.index_log >= MAX_INDEX {
            self.index_log += 1;
        }
        let mut at = 0;
        for slot in 0..=span >> self.index_log {
            let start = first.0 + (slot << self.index_log);
            while self.shifts.get(at).is_some_and(|shift| shift.0 <= start) {
                at += 1;
            }
            // There are at most as many as pieces of copies.
            self.index.push(at as u32);
        }
    }

    /// How far what stood at `address` has moved.
    pub(super) fn shift(&self, address: u64) -> i64 {
        let Some(first) = self.shifts.first() else { return 0 };
        if address <= first.0 {
            return first.1;
        }
        let slot = ((address - first.0) >> self.index_log).min(self.index.len() as u64) as usize;
        let low = self.index.get(slot).map_or(self.shifts.len(), |at| *at as usize);
        let high = self.index.get(slot + 1).map_or(self.shifts.len(), |at| *at as usize);
        let within = self.shifts.get(low..high).unwrap_or_default();
        let at = low + within.partition_point(|shift| shift.0 <= address);
        self.shifts[..at].last().map_or(first.1, |shift| shift.1)
    }
}

fn address(space: &AddressSpace, offset: u32) -> Option<u64> {
    let region = space.region_at(offset)?;
    (region.kind != super::space::RegionKind::FileOnly).then(|| region.address_of(offset))
}

/// Sweeps over `pieces`, which are in order, and keeps the shift of the longest that covers each address.
fn longest_of(pieces: &[(u64, u32, i64)]) -> Vec<(u64, i64)> {
    // One where a piece begins or ends, at most.
    let mut shifts: Vec<(u64, i64)> = Vec::with_capacity(2 * pieces.len());
    let mut open: BinaryHeap<(u32, u64, i64)> = BinaryHeap::new();
    let mut next = 0;
    let mut at = 0_u64;
    loop {
        while open.peek().is_some_and(|longest| longest.1 <= at) {
            open.pop();
        }
        if open.is_empty() {
            let Some(piece) = pieces.get(next) else { return shifts };
            at = at.max(piece.0);
        }
        while let Some((start, len, shift)) = pieces.get(next).filter(|piece| piece.0 <= at) {
            open.push((*len, start.saturating_add(u64::from(*len)), *shift));
            next += 1;
        }
        while open.peek().is_some_and(|longest| longest.1 <= at) {
            open.pop();
        }
        let Some((_, end, shift)) = open.peek() else {
            if next == pieces.len() {
                return shifts;
            }
            continue;
        };
        if shifts.last().is_none_or(|last| last.1 != *shift) {
            shifts.push((at, *shift));
        }
        let start = pieces.get(next).map_or(u64::MAX, |piece| piece.0);
        at = (*end).min(start);
    }
}
