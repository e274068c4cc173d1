//! What a disk was told, and the states that a cut could have left of it: one write torn, or some lost, or one late, and the
//! rest whole.

use std::fmt;

use super::Random;
use super::medium::Medium;

/// Inside a write, a cut is tried behind each so many bytes from its start, and at odd bytes.
const SECTOR_BYTES: usize = 512;

/// What a disk was told.
#[derive(Debug, Clone)]
pub enum Op {
    /// To write these bytes.
    Write {
        /// Where.
        at: u64,
        /// What.
        bytes: Box<[u8]>,
    },
    /// To make durable what was written.
    Flush,
}

/// A medium, and what was then done to it.
pub struct Recording {
    ops: Vec<Op>,
    /// The medium after so many ops, each whole.
    media: Vec<Medium>,
}

/// What a cut leaves: the first `cut` ops whole, but for what is said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    cut: usize,
    change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    None,
    /// The next op is a write, of which only these bytes arrived: the first ones, or the last ones.
    Torn {
        from: usize,
        to: usize,
    },
    /// These of the writes after the last flush did not arrive.
    Lost(Vec<usize>),
    /// This write after the last flush arrived as the last one.
    Late(usize),
}

impl State {
    /// Whether it is what stands there after a write, with all before it.
    pub fn is_between_writes(&self) -> bool {
        self.change == Change::None
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cut)?;
        match &self.change {
            Change::None => Ok(()),
            Change::Torn { from, to } => write!(f, " and bytes {from}..{to} of the next"),
            Change::Lost(lost) => write!(f, " without {lost:?}"),
            Change::Late(late) => write!(f, " with {late} last"),
        }
    }
}

/// Which states are tried.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Repeats what is drawn.
    pub seed: u64,
    /// Places at which each write is torn, at most.
    pub tears: usize,
    /// Up to so many writes between two flushes, every subset of them is lost.
    pub exhaustive: usize,
    /// Subsets drawn where there are more.
    pub drawn: usize,
}

impl Effort {
    /// Between operations alone: nothing torn, nothing lost.
    pub const CUTS: Self = Self { seed: 1, tears: 0, exhaustive: 0, drawn: 0 };
    /// Everything that the module names.
    pub const ALL: Self = Self { seed: 1, tears: 12, exhaustive: 3, drawn: 4 };
}

impl Recording {
    /// What was done to `before`.
    pub fn new(before: Medium, ops: Vec<Op>) -> Self {
        let mut media = vec![before];
        for op in &ops {
            let mut medium = media[media.len() - 1].clone();
            apply(&mut medium, op);
            media.push(medium);
        }
        Self { ops, media }
    }

    /// Writes among what was done.
    pub fn writes(&self) -> usize {
        self.ops.iter().filter(|op| matches!(op, Op::Write { .. })).count()
    }

    /// The medium after all that was done.
    pub fn after(&self) -> &Medium {
        &self.media[self.ops.len()]
    }

    /// The states to try, in order: after each write, inside each, and without what was not yet flushed.
    pub fn states(&self, effort: &Effort) -> Vec<State> {
        let mut random = Random::new(effort.seed);
        let mut states = vec![State { cut: 0, change: Change::None }];
        for (number, op) in self.ops.iter().enumerate() {
            let Op::Write { bytes, .. } = op else { continue };
            let torn = tears(bytes.len(), effort.tears, &mut random);
            states.extend(torn.map(|(from, to)| State { cut: number, change: Change::Torn { from, to } }));
            states.push(State { cut: number + 1, change: Change::None });
            // Every cut within an epoch leaves a subset of all its writes.
            if !matches!(self.ops.get(number + 1), Some(Op::Write { .. })) {
                self.reordered(number + 1, effort, &mut random, &mut states);
            }
        }
        states
    }

    /// The writes that no flush made durable after the first `cut` ops.
    fn pending(&self, cut: usize) -> std::ops::Range<usize> {
        self.ops[..cut].iter().rposition(|op| matches!(op, Op::Flush)).map_or(0, |flush| flush + 1)..cut
    }

    fn reordered(&self, cut: usize, effort: &Effort, random: &mut Random, states: &mut Vec<State>) {
        let pending = self.pending(cut);
        let count = pending.len();
        let mut lose = |lost: Vec<usize>| {
            // The last ones lost is a cut before them.
            let is_prefix = lost.iter().rev().zip((0..cut).rev()).all(|(lost, last)| *lost == last);
            if !is_prefix && lost.len() < count {
                states.push(State { cut, change: Change::Lost(lost) });
            }
        };
        if count <= effort.exhaustive {
            for mask in 1u32..1 << count {
                lose(pending.clone().filter(|number| mask >> (number - pending.start) & 1 == 1).collect());
            }
        } else if effort.drawn > 0 {
            for _ in 0..effort.drawn {
                let one = pending.start + random.below(count);
                lose(vec![one]);
                lose(pending.clone().filter(|number| *number != one).collect());
                lose(pending.clone().filter(|_| random.draw() & 1 == 0).collect());
            }
        }
        if effort.drawn == 0 {
            return;
        }
        let mut late: Vec<State> = Vec::new();
        for first in pending.clone() {
            if (first + 1..cut).any(|second| self.overlap(first, second)) {
                late.push(State { cut, change: Change::Late(first) });
            }
        }
        states.extend(random.some(late, effort.drawn));
    }

    fn overlap(&self, first: usize, second: usize) -> bool {
        match (&self.ops[first], &self.ops[second]) {
            (Op::Write { at: a, bytes: first }, Op::Write { at: b, bytes: second }) => {
                *a < b + second.len() as u64 && *b < a + first.len() as u64
            }
            _ => false,
        }
    }

    /// What a state leaves on the medium.
    pub fn medium(&self, state: &State) -> Medium {
        let whole = || self.media[state.cut].clone();
        match &state.change {
            Change::None => whole(),
            Change::Torn { from, to } => {
                let mut medium = whole();
                if let Some(Op::Write { at, bytes }) = self.ops.get(state.cut) {
                    medium.write(at + *from as u64, &bytes[*from..*to]);
                }
                medium
            }
            Change::Lost(lost) => {
                let pending = self.pending(state.cut);
                let mut medium = self.media[pending.start].clone();
                let kept = pending.filter(|number| !lost.contains(number));
                kept.for_each(|number| apply(&mut medium, &self.ops[number]));
                medium
            }
            Change::Late(late) => {
                let mut medium = whole();
                apply(&mut medium, &self.ops[*late]);
                medium
            }
        }
    }
}

fn apply(medium: &mut Medium, op: &Op) {
    if let Op::Write { at, bytes } = op {
        medium.write(*at, bytes);
    }
}

/// Parts of a write that may have arrived alone: up to a sector or an odd byte, or all from a sector on.
fn tears(length: usize, most: usize, random: &mut Random) -> impl Iterator<Item = (usize, usize)> + use<> {
    let mut ways: Vec<(usize, usize)> =
        (1..length.div_ceil(SECTOR_BYTES)).map(|sector| (0, sector * SECTOR_BYTES)).collect();
    ways.extend((1..length.div_ceil(SECTOR_BYTES)).map(|sector| (sector * SECTOR_BYTES, length)));
    if length > 1 {
        ways.extend([(0, 1), (0, length - 1), (0, 1 + 2 * random.below(length / 2))]);
    }
    random.some(ways, most).into_iter()
}
