//! The states that are tried: all where they are few, a fixed sample where they are not.

use super::{Kind, Recording, Sectors, State};

/// How many states.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Repeats the sample.
    pub seed: u64,
    /// Between two flushes with at most so many writes, every subset is tried.
    pub exhaustive: usize,
    /// Random subsets between two flushes with more.
    pub random: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { seed: 1, exhaustive: 6, random: 24 }
    }
}

/// The most pairs of overlapping writes between two flushes that are swapped.
const MAX_SWAPS: usize = 64;

impl Recording {
    /// The states to try, in the log's order, without a state twice by its name.
    pub fn states(&self, effort: &Effort) -> Vec<State> {
        let mut states = vec![State::Prefix { cut: 0 }];
        let mut random = Random(effort.seed);
        let mut epoch = 0;
        for number in 0..self.log().entries().len() {
            if self.changes(number) {
                for landed in torn(self.sectors(number), &mut random) {
                    states.push(State::Torn { cut: number, landed });
                }
                states.push(State::Prefix { cut: number + 1 });
            }
            let next = self.log().entries().get(number + 1);
            if next.is_none_or(|next| next.flush) {
                // Every cut within the epoch leaves a subset of all its writes: one more that was lost is one not yet sent.
                self.subsets(number + 1, effort, &mut random, &mut states);
                epoch += 1;
            }
        }
        debug_assert!(epoch > 0 || self.log().entries().is_empty());
        states
    }

    fn subsets(&self, cut: usize, effort: &Effort, random: &mut Random, states: &mut Vec<State>) {
        let pending = self.pending(cut);
        let mut lose = |lost: Vec<usize>| {
            let kept = pending.iter().copied().filter(|number| !lost.contains(number));
            if !lost.is_empty() && lost.len() < pending.len() && self.can_be_kept(&pending, &kept.collect::<Vec<_>>()) {
                states.push(State::Lost { cut, lost });
            }
        };
        if pending.len() <= effort.exhaustive {
            for mask in 1u32..1 << pending.len() {
                lose(chosen(&pending, |bit| mask >> bit & 1 == 1));
            }
        } else {
            for one in 0..pending.len() {
                lose(chosen(&pending, |number| number == one));
                lose(chosen(&pending, |number| number != one));
            }
            for _ in 0..effort.random {
                lose(chosen(&pending, |_| random.next() & 1 == 0));
                // Something lost, and after that nothing sent any more.
                let end = random.below(pending.len() as u64) as usize;
                lose(chosen(&pending, |number| number > end || random.next().is_multiple_of(4)));
            }
        }
        self.swaps(cut, &pending, states);
    }

    /// Of two writes that overlap, the earlier one landed last. Where both write the same sectors, that is the later one lost.
    fn swaps(&self, cut: usize, pending: &[usize], states: &mut Vec<State>) {
        let span = |number: usize| self.entry(number).map_or(0..0, |entry| entry.offset..entry.offset + entry.length);
        let mut swapped = 0;
        for (second, later) in pending.iter().enumerate() {
            for (first, earlier) in pending[..second].iter().enumerate() {
                let (a, b) = (span(*earlier), span(*later));
                let fua =
                    pending[first..second].iter().any(|number| self.entry(*number).is_some_and(|entry| entry.fua));
                if a == b || a.start >= b.end || b.start >= a.end || fua || swapped == MAX_SWAPS {
                    continue;
                }
                let mut kept = pending.to_vec();
                kept.remove(second);
                kept.insert(first, *later);
                states.push(State::Kept { cut, kept });
                swapped += 1;
            }
        }
    }

    /// A write that was durable when it was done (FUA) is there if a later one is.
    fn can_be_kept(&self, pending: &[usize], kept: &[usize]) -> bool {
        let last = kept.last().copied().unwrap_or(0);
        let durable = |number: &usize| self.entry(*number).is_some_and(|entry| entry.fua);
        pending.iter().filter(|number| **number < last && durable(number)).all(|number| kept.contains(number))
    }

    /// At most `most` states: of each kind as many as of the others, spread evenly over the recording.
    pub fn thinned(states: Vec<State>, most: usize) -> Vec<State> {
        if states.len() <= most {
            return states;
        }
        let kinds = [Kind::Prefix, Kind::Torn, Kind::Lost, Kind::Reordered];
        let counts = kinds.map(|kind| states.iter().filter(|state| state.kind() == kind).count());
        // What a kind with few states leaves goes to the others.
        let mut share = [0; 4];
        for _ in 0..most {
            let poorest = (0..4).filter(|kind| share[*kind] < counts[*kind]).min_by_key(|kind| share[*kind]);
            let Some(poorest) = poorest else { break };
            share[poorest] += 1;
        }
        let mut seen = [0; 4];
        let keep = |state: &State| {
            let Some(kind) = kinds.iter().position(|kind| *kind == state.kind()) else { return false };
            let number = seen[kind];
            seen[kind] += 1;
            // Evenly: the n-th is taken where the share's count steps up.
            (number + 1) * share[kind] / counts[kind] > number * share[kind] / counts[kind]
        };
        let mut keep = keep;
        states.into_iter().filter(|state| keep(state)).collect()
    }
}

fn chosen(pending: &[usize], mut choose: impl FnMut(usize) -> bool) -> Vec<usize> {
    pending.iter().enumerate().filter(|(number, _)| choose(*number)).map(|(_, entry)| *entry).collect()
}

/// Ways in which a write of `sectors` sectors lands by half: its beginning, its end, and what no order explains.
fn torn(sectors: u64, random: &mut Random) -> Vec<Sectors> {
    if sectors < 2 {
        return Vec::new();
    }
    let (last, half) = (sectors - 1, sectors / 2);
    let mut ways = vec![vec![(0, 0)], vec![(0, half - 1)], vec![(0, last - 1)], vec![(last, last)], vec![(1, last)]];
    if sectors > 2 {
        ways.push(vec![(half, last)]);
        ways.push((0..sectors).filter(|_| random.next() & 1 == 0).map(|sector| (sector, sector)).collect());
    }
    if sectors > 16 {
        let end = random.below(last);
        ways.push(vec![(0, end)]);
    }
    ways.sort();
    ways.dedup();
    ways
}

/// Numbers that can be repeated (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `end`, which is at least 1.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}
