//! Literal bytes in few bits (`docs/formats/patch.md`, *mixed*): several contexts each tell how likely the next bit is one, a
//! mixer weighs what they tell, and an arithmetic coder stores what is left (the way of Matt Mahoney's `lpaq`). Beside what
//! was coded before, it knows the old bytes where each run of literals stands now. Making and applying a patch run this
//! very model.

use std::io::{self, Read};

/// The most bytes of a stream: they take about a second a mebibyte.
pub(super) const MAX_MIXED_BYTES: u64 = 8 << 20;
/// Old bytes that a run of literals is told: so many more than it has itself, and at most.
const WINDOW_MORE_BYTES: u32 = 32;
const MAX_WINDOW_BYTES: u32 = 8 << 10;
/// Bytes in front of a run of literals that it is told.
pub(super) const FRONT_BYTES: usize = 4;

/// One to four bytes in front; the expected byte with the one in front; the expected and the matched byte.
const CONTEXTS: usize = 6;
/// Contexts, the expected byte, the matched byte, a constant.
const INPUTS: usize = CONTEXTS + 3;
/// Slots of a context for half a byte, its check included: a line of the cache.
const GROUP_SLOTS: usize = 16;
const GROUPS_LOG: u32 = 16;
const INDEX_LOG: u32 = 18;
const MIN_MATCH: usize = 5;
const MAX_MATCH: usize = 32;
const WEIGHT_SETS: usize = 64;
const FIRST_WEIGHT: i32 = 19_661;
const MAX_WEIGHT: i32 = 1 << 20;
const LEARNING_RATE: i32 = 14;
/// A correction for the mixer's probability: so many points between which it is interpolated, for each begun byte.
const POINTS: usize = 33;
/// How many bits a slot averages over, at most.
const TABLE_LIMIT: u32 = 40;
const STATE_LIMIT: u32 = 127;

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_AGAIN: u64 = 0xd6e8_feb8_6659_fd93;

/// 4096 / (1 + e^(-x / 256)) at every 128 from -2048.
const SIGMOID: [i32; POINTS] = [
    1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901,
    3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
];

/// The probability, of 4096, that `x` stands for.
fn squash(x: i32) -> i32 {
    let from = (x + 2048) as usize;
    let (at, part) = (from >> 7, (from & 127) as i32);
    (SIGMOID[at] * (128 - part) + SIGMOID[at + 1] * part + 64) >> 7
}

/// A probability in the upper 22 bits, the number of bits that it was told from in the lower 10.
type Slot = u32;
const EVEN: Slot = 1 << 31;

/// 12 bits of a slot's probability.
fn probability(slot: Slot) -> i32 {
    (slot >> 20) as i32
}

/// How many old bytes a run of so many literals is told, where there are as many.
pub(super) fn window_bytes(literals: u32) -> u32 {
    literals.saturating_add(WINDOW_MORE_BYTES).min(MAX_WINDOW_BYTES)
}

/// What is known of the next bit.
struct Model {
    stretched: Vec<i16>,
    rates: Vec<i64>,
    table: Vec<Slot>,
    /// Where each context's group begins.
    groups: [usize; CONTEXTS],
    /// Old and literal bytes, in the order in which they became known.
    history: Vec<u8>,
    /// The last [`MIN_MATCH`] bytes of it.
    recent: u64,
    /// For each hash of so many bytes: where what followed them last stands.
    index: Vec<u32>,
    matched: usize,
    matched_len: usize,
    /// Where the current old bytes begin, the next of them, and their end.
    window: (usize, usize, usize),
    /// For the last eight expected bytes, the latest in the lowest bit: whether it came.
    hits: u32,
    states: Vec<Slot>,
    state: [Option<usize>; 2],
    inputs: [i32; INPUTS],
    weights: Vec<i32>,
    set: usize,
    corrections: Vec<Slot>,
    corrected: usize,
    /// A one and the bits of this byte.
    begun: u32,
    bits: u32,
    /// The last bytes of the new image, the latest in the lowest bits.
    front: u64,
    mixed: i32,
}

impl Model {
    fn new(history_bytes: usize) -> Self {
        let squashed: Vec<i32> = (-2047..2048).map(squash).collect();
        let stretched = (0..4096).map(|p| (squashed.partition_point(|s| *s < p) as i32 - 2047).min(2047) as i16);
        Self {
            stretched: stretched.collect(),
            rates: (0..1024).map(|count| (2 << 16) / (2 * count + 3)).collect(),
            table: vec![0; GROUP_SLOTS << GROUPS_LOG],
            groups: [0; CONTEXTS],
            history: Vec::with_capacity(history_bytes),
            recent: 0,
            index: vec![0; 1 << INDEX_LOG],
            matched: 0,
            matched_len: 0,
            window: (0, 0, 0),
            hits: 0xff,
            states: vec![EVEN; 2 * (256 + MAX_MATCH + 1)],
            state: [None; 2],
            inputs: [0; INPUTS],
            weights: vec![FIRST_WEIGHT; WEIGHT_SETS * INPUTS],
            set: 0,
            corrections: SIGMOID.map(|known| (known as u32) << 20).repeat(256),
            corrected: 0,
            begun: 1,
            bits: 0,
            front: 0,
            mixed: 0,
        }
    }

    /// Begins a run of literals behind the new bytes `front`, where the old bytes `old` were.
    fn begin(&mut self, front: &[u8], old: &[u8]) {
        self.front = front.iter().fold(0, |front, byte| front << 8 | u64::from(*byte));
        let start = self.history.len();
        for byte in old {
            self.remember(*byte);
            self.index_recent();
        }
        self.window = (start, start, self.history.len());
        self.hits = 0xff;
        self.matched_len = 0;
    }

    fn remember(&mut self, byte: u8) {
        self.history.push(byte);
        self.recent = (self.recent << 8 | u64::from(byte)) & ((1 << (8 * MIN_MATCH)) - 1);
    }

    fn recent_place(&self) -> usize {
        (self.recent.wrapping_mul(SPREAD) >> (64 - INDEX_LOG)) as usize
    }

    fn index_recent(&mut self) {
        let place = self.recent_place();
        // A history is shorter than 2³² bytes by far.
        self.index[place] = self.history.len() as u32;
    }

    fn expected(&self) -> Option<u8> {
        (self.window.1 < self.window.2).then(|| self.history[self.window.1])
    }

    fn matched(&self) -> Option<u8> {
        (self.matched_len > 0).then(|| self.history[self.matched])
    }

    /// Finds the groups of all contexts for the next four bits.
    fn find_groups(&mut self) {
        let number = |byte: Option<u8>| byte.map_or(256, u64::from);
        let (expected, matched) = (number(self.expected()), number(self.matched()));
        let contexts = [
            self.front & 0xff,
            self.front & 0xffff,
            self.front & 0xff_ffff,
            self.front & 0xffff_ffff,
            expected << 8 | self.front & 0xff,
            u64::from(self.hits & 7) << 18 | expected << 9 | matched,
        ];
        for (at, context) in contexts.into_iter().enumerate() {
            let hash = (context | (at as u64) << 32 | u64::from(self.begun) << 40).wrapping_mul(SPREAD);
            let hash = (hash ^ hash >> 32).wrapping_mul(SPREAD_AGAIN);
            let group = (hash >> (64 - GROUPS_LOG)) as usize * GROUP_SLOTS;
            let check = (hash >> 8) as u32 | 1;
            if self.table[group] != check {
                self.table[group..][..GROUP_SLOTS].fill(EVEN);
                self.table[group] = check;
            }
            self.groups[at] = group;
        }
    }

    /// Which slot of each group is for the next bit.
    fn slot(&self) -> usize {
        let bits = self.bits % 4;
        1 << bits | self.begun as usize & ((1 << bits) - 1)
    }

    /// How likely the next bit is one, of 4096.
    fn predict(&mut self) -> u32 {
        if self.bits.is_multiple_of(4) {
            self.find_groups();
        }
        let slot = self.slot();
        for at in 0..CONTEXTS {
            let found = self.table[self.groups[at] + slot];
            self.inputs[at] = i32::from(self.stretched[probability(found) as usize]);
        }
        self.set = 0;
        for (at, byte) in [self.expected(), self.matched()].into_iter().enumerate() {
            self.state[at] = None;
            self.inputs[CONTEXTS + at] = 0;
            let Some(byte) = byte.map(|byte| u32::from(byte) | 256) else { continue };
            if byte >> (8 - self.bits) != self.begun {
                continue;
            }
            let (known, set) = match at {
                0 => (self.hits as usize, 1 | (self.hits as usize & 3) << 4),
                _ => (256 + self.matched_len, 2 | (self.matched_len.min(15) / 4) << 2),
            };
            let state = known * 2 + (byte >> (7 - self.bits) & 1) as usize;
            self.state[at] = Some(state);
            self.inputs[CONTEXTS + at] = i32::from(self.stretched[probability(self.states[state]) as usize]);
            self.set |= set;
        }
        self.inputs[INPUTS - 1] = 256;
        let weights = &self.weights[self.set * INPUTS..][..INPUTS];
        let sum: i64 =
            weights.iter().zip(&self.inputs).map(|(weight, input)| i64::from(*weight) * i64::from(*input)).sum();
        let mixed = (sum >> 16).clamp(-2047, 2047) as i32;
        self.mixed = squash(mixed);
        let (point, part) = ((mixed + 2048) >> 7, (mixed + 2048) & 127);
        let first = self.begun as usize * POINTS + point as usize;
        self.corrected = first + usize::from(part >= 64);
        let [low, high] = [first, first + 1].map(|at| probability(self.corrections[at]));
        let corrected = (low * (128 - part) + high * part) >> 7;
        ((self.mixed + corrected + 1) >> 1).clamp(1, 4095) as u32
    }

    fn update(&mut self, bit: u32) {
        let error = ((bit << 12) as i32 - self.mixed) * LEARNING_RATE;
        for (weight, input) in self.weights[self.set * INPUTS..][..INPUTS].iter_mut().zip(&self.inputs) {
            *weight = (*weight + ((input * error + 0x8000) >> 16)).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        }
        let slot = self.slot();
        for group in self.groups {
            adapt(&self.rates, &mut self.table[group + slot], bit, TABLE_LIMIT);
        }
        for state in self.state.into_iter().flatten() {
            adapt(&self.rates, &mut self.states[state], bit, STATE_LIMIT);
        }
        adapt(&self.rates, &mut self.corrections[self.corrected], bit, STATE_LIMIT);
        self.begun = self.begun << 1 | bit;
        self.bits += 1;
        if self.bits == 8 {
            self.end_byte(self.begun as u8);
        }
    }

    fn end_byte(&mut self, byte: u8) {
        (self.begun, self.bits) = (1, 0);
        if let Some(expected) = self.expected() {
            self.hits = (self.hits << 1 | u32::from(expected == byte)) & 0xff;
            self.window.1 += 1;
        }
        if let Some(matched) = self.matched() {
            self.matched_len = if matched == byte { (self.matched_len + 1).min(MAX_MATCH) } else { 0 };
            self.matched += 1;
        }
        self.front = self.front << 8 | u64::from(byte);
        self.remember(byte);
        if self.matched_len == 0 {
            self.find();
        }
        self.index_recent();
    }

    /// Looks for what was behind the last bytes when they last came.
    fn find(&mut self) {
        let at = self.index[self.recent_place()] as usize;
        let (before, now) = (self.history[..at].iter().rev(), self.history.iter().rev());
        let len = before.zip(now).take(MAX_MATCH).take_while(|(a, b)| a == b).count();
        if len < MIN_MATCH {
            return;
        }
        (self.matched, self.matched_len) = (at, len);
        // Where literals are in step again with what was there, other old bytes are expected.
        if self.hits & 15 == 0 && (self.window.0..self.window.2).contains(&at) {
            (self.window.1, self.hits) = (at, 0xff);
        }
    }
}

fn adapt(rates: &[i64], slot: &mut Slot, bit: u32, limit: u32) {
    let (known, count) = (i64::from(*slot >> 10), *slot & 1023);
    let target = i64::from(bit) * ((1 << 22) - 1);
    let told = known + (((target - known) * rates[count as usize]) >> 16);
    *slot = (told as u32) << 10 | (count + 1).min(limit);
}

/// The last number of the part of `low..=high` that a one takes.
fn split(low: u32, high: u32, probability: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(probability)) >> 12) as u32
}

/// Codes literals.
#[cfg(feature = "publish")]
pub(super) struct Encoder {
    model: Model,
    low: u32,
    high: u32,
    out: Vec<u8>,
}

#[cfg(feature = "publish")]
impl Encoder {
    pub(super) fn new(history_bytes: usize) -> Self {
        Self { model: Model::new(history_bytes), low: 0, high: u32::MAX, out: Vec::new() }
    }

    /// Codes the literals `bytes` behind `front`, where `old` was.
    pub(super) fn run(&mut self, front: &[u8], old: &[u8], bytes: &[u8]) {
        self.model.begin(front, old);
        for byte in bytes {
            for place in (0..8).rev() {
                let bit = u32::from(byte >> place & 1);
                let last = split(self.low, self.high, self.model.predict());
                if bit == 1 {
                    self.high = last
                } else {
                    self.low = last + 1
                }
                self.model.update(bit);
                while (self.low ^ self.high) >> 24 == 0 {
                    self.out.push((self.high >> 24) as u8);
                    (self.low, self.high) = (self.low << 8, self.high << 8 | 0xff);
                }
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        // Zeros follow: this number is within what is left.
        if self.low > 0 {
            self.out.push((self.low >> 24) as u8 + 1);
        }
        self.out
    }
}

/// Decodes literals.
pub(super) struct Decoder<R> {
    model: Model,
    low: u32,
    high: u32,
    code: u32,
    source: R,
}

impl<R: Read> Decoder<R> {
    /// A decoder of `source`, which need not be longer than what is not zero at its end.
    pub(super) fn new(source: R, history_bytes: usize) -> io::Result<Self> {
        let mut decoder = Self { model: Model::new(history_bytes), low: 0, high: u32::MAX, code: 0, source };
        for _ in 0..4 {
            decoder.shift()?;
        }
        Ok(decoder)
    }

    fn shift(&mut self) -> io::Result<()> {
        let mut byte = [0];
        let _ = self.source.read(&mut byte)?;
        self.code = self.code << 8 | u32::from(byte[0]);
        Ok(())
    }

    /// Begins a run of literals behind `front`, where `old` was.
    pub(super) fn begin(&mut self, front: &[u8], old: &[u8]) {
        self.model.begin(front, old);
    }

    pub(super) fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        for byte in out {
            for _ in 0..8 {
                let last = split(self.low, self.high, self.model.predict());
                let bit = u32::from(self.code <= last);
                if bit == 1 {
                    self.high = last
                } else {
                    self.low = last + 1
                }
                self.model.update(bit);
                while (self.low ^ self.high) >> 24 == 0 {
                    (self.low, self.high) = (self.low << 8, self.high << 8 | 0xff);
                    self.shift()?;
                }
                *byte = *byte << 1 | bit as u8;
            }
        }
        Ok(())
    }
}
