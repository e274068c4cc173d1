//! Literal bytes in few bits (`docs/formats/patch.md`, *mixed*): several contexts each tell how likely the next bit is one, a
//! mixer weighs what they tell, and an arithmetic coder stores what is left (the way of Matt Mahoney's `lpaq`). Beside what
//! was coded before, it knows the old bytes where each run of literals stands now. Making and applying a patch run this
//! very model.

#[cfg(feature = "publish")]
use std::convert::Infallible;
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
const GROUPS: usize = 1 << GROUPS_LOG;
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
/// A power of two that is enough for two slots for each eight hits and for each length of a match.
const STATES: usize = 1024;

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

/// A byte that is expected or matched, behind a one ([`TOLD`]); 0 where there is none.
type Told = u32;

/// The one.
const TOLD: Told = 1 << 8;

/// What is known of the next byte. Every table is an array of a power of two, and what chooses in it has no more bits, so that
/// nothing need be checked for each of the many look-ups of a bit.
struct Model {
    stretched: Box<[i16; 4096]>,
    squashed: Box<[i16; 4096]>,
    rates: Box<[i64; STATE_LIMIT as usize + 1]>,
    table: Box<[[Slot; GROUP_SLOTS]; GROUPS]>,
    /// Old and literal bytes, in the order in which they became known.
    history: Vec<u8>,
    /// The last [`MIN_MATCH`] bytes of it.
    recent: u64,
    /// For each hash of so many bytes: where what followed them last stands.
    index: Box<[u32; 1 << INDEX_LOG]>,
    matched: usize,
    matched_len: usize,
    /// Where the current old bytes begin, the next of them, and their end.
    window: (usize, usize, usize),
    /// For the last eight expected bytes, the latest in the lowest bit: whether it came.
    hits: u32,
    states: Box<[Slot; STATES]>,
    weights: Box<[[i32; INPUTS]; WEIGHT_SETS]>,
    corrections: Box<[[Slot; POINTS]; 256]>,
    /// The last bytes of the new image, the latest in the lowest bits.
    front: u64,
}

/// An array too large for the stack.
fn boxed<T: Clone, const N: usize>(value: T) -> Box<[T; N]> {
    let all: Result<Box<[T; N]>, _> = vec![value; N].into_boxed_slice().try_into();
    all.unwrap_or_else(|_| unreachable!("a vector is as long as it was made"))
}

impl Model {
    fn new(history_bytes: usize) -> Self {
        let mut squashed: Box<[i16; 4096]> = boxed(0);
        for (x, known) in (-2048..).zip(squashed.iter_mut()) {
            *known = squash(x) as i16;
        }
        let mut stretched: Box<[i16; 4096]> = boxed(0);
        for (p, x) in (0..).zip(stretched.iter_mut()) {
            *x = (squashed[1..].partition_point(|known| *known < p) as i16 - 2047).min(2047);
        }
        let mut rates: Box<[i64; STATE_LIMIT as usize + 1]> = boxed(0);
        for (count, rate) in (0..).zip(rates.iter_mut()) {
            *rate = (2 << 16) / (2 * count + 3);
        }
        Self {
            stretched,
            squashed,
            rates,
            table: boxed([0; GROUP_SLOTS]),
            history: Vec::with_capacity(history_bytes),
            recent: 0,
            index: boxed(0),
            matched: 0,
            matched_len: 0,
            window: (0, 0, 0),
            hits: 0xff,
            states: boxed(EVEN),
            weights: boxed([FIRST_WEIGHT; INPUTS]),
            corrections: boxed(SIGMOID.map(|known| (known as u32) << 20)),
            front: 0,
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

    fn expected(&self) -> Told {
        let there = self.window.1 < self.window.2;
        if there { TOLD | Told::from(self.history[self.window.1]) } else { 0 }
    }

    fn matched(&self) -> Told {
        if self.matched_len > 0 { TOLD | Told::from(self.history[self.matched]) } else { 0 }
    }

    /// The groups of all contexts for the next four bits.
    fn groups(&mut self, begun: u32, expected: Told, matched: Told) -> [u16; CONTEXTS] {
        let number = |told: Told| u64::from(told ^ TOLD);
        let contexts = [
            self.front & 0xff,
            self.front & 0xffff,
            self.front & 0xff_ffff,
            self.front & 0xffff_ffff,
            number(expected) << 8 | self.front & 0xff,
            u64::from(self.hits & 7) << 18 | number(expected) << 9 | number(matched),
        ];
        let mut groups = [0; CONTEXTS];
        for ((at, context), group) in (0_u64..).zip(contexts).zip(&mut groups) {
            let hash = (context | at << 32 | u64::from(begun) << 40).wrapping_mul(SPREAD);
            let hash = (hash ^ hash >> 32).wrapping_mul(SPREAD_AGAIN);
            *group = (hash >> (64 - GROUPS_LOG)) as u16;
            let check = (hash >> 8) as u32 | 1;
            let slots = &mut self.table[usize::from(*group)];
            if slots[0] != check {
                *slots = [EVEN; GROUP_SLOTS];
                slots[0] = check;
            }
        }
        groups
    }

    /// One byte: `bit` is given how likely each bit is a one, of 4096, and tells it.
    fn byte<E>(&mut self, mut bit: impl FnMut(u32) -> Result<u32, E>) -> Result<u8, E> {
        let (expected, matched) = (self.expected(), self.matched());
        let mut begun = 1;
        let mut groups = [0; CONTEXTS];
        for bits in 0..8 {
            if bits % 4 == 0 {
                groups = self.groups(begun, expected, matched);
            }
            begun = begun << 1 | self.bit(begun, bits, &groups, expected, matched, &mut bit)?;
        }
        self.end_byte(begun as u8, expected, matched);
        Ok(begun as u8)
    }

    /// One bit, of which `begun` tells those in front, behind a one, and `bits` how many they are.
    #[inline(always)] // Once for each byte and not once for each bit it costs a third more.
    fn bit<E>(
        &mut self,
        begun: u32,
        bits: u32,
        groups: &[u16; CONTEXTS],
        expected: Told,
        matched: Told,
        bit: &mut impl FnMut(u32) -> Result<u32, E>,
    ) -> Result<u32, E> {
        // Which slot of each group: of four bits there are fifteen beginnings.
        let slot = (1 << (bits % 4) | begun & ((1 << (bits % 4)) - 1)) as usize % GROUP_SLOTS;
        let mut inputs = [0_i32; INPUTS];
        for (group, input) in groups.iter().zip(&mut inputs) {
            *input = self.stretch(self.table[usize::from(*group)][slot]);
        }
        let mut set = 0;
        let goes_on = |told: Told| told >> (8 - bits) == begun;
        let next = |told: Told| (told >> (7 - bits) & 1) as usize;
        let mut state = [None; 2];
        if goes_on(expected) {
            state[0] = Some(self.hits as usize * 2 + next(expected));
            set |= 1 | (self.hits as usize & 3) << 4;
        }
        if goes_on(matched) {
            state[1] = Some((256 + self.matched_len) * 2 + next(matched));
            set |= 2 | (self.matched_len.min(15) / 4) << 2;
        }
        for (state, input) in state.iter().zip(&mut inputs[CONTEXTS..]) {
            *input = state.map_or(0, |state| self.stretch(self.states[state % STATES]));
        }
        inputs[INPUTS - 1] = 256;
        let weights = &mut self.weights[set % WEIGHT_SETS];
        let sum: i64 = weights.iter().zip(&inputs).map(|(weight, input)| i64::from(*weight) * i64::from(*input)).sum();
        let mixed = ((sum >> 16).clamp(-2047, 2047) + 2048) as usize % 4096;
        let told = i32::from(self.squashed[mixed]);
        let (point, part) = (mixed / 128, (mixed % 128) as i32);
        let corrections = &mut self.corrections[begun as usize % 256];
        let corrected =
            (probability(corrections[point]) * (128 - part) + probability(corrections[point + 1]) * part) >> 7;

        let bit = bit(((told + corrected + 1) >> 1).clamp(1, 4095) as u32)?;
        let error = ((bit << 12) as i32 - told) * LEARNING_RATE;
        for (weight, input) in weights.iter_mut().zip(&inputs) {
            *weight = (*weight + ((input * error + 0x8000) >> 16)).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        }
        adapt(&self.rates, &mut corrections[point + usize::from(part >= 64)], bit, STATE_LIMIT);
        for group in groups {
            adapt(&self.rates, &mut self.table[usize::from(*group)][slot], bit, TABLE_LIMIT);
        }
        for state in state.into_iter().flatten() {
            adapt(&self.rates, &mut self.states[state % STATES], bit, STATE_LIMIT);
        }
        Ok(bit)
    }

    fn stretch(&self, slot: Slot) -> i32 {
        i32::from(self.stretched[probability(slot) as usize])
    }

    fn end_byte(&mut self, byte: u8, expected: Told, matched: Told) {
        let told = TOLD | Told::from(byte);
        if expected != 0 {
            self.hits = (self.hits << 1 | u32::from(expected == told)) & 0xff;
            self.window.1 += 1;
        }
        if matched != 0 {
            self.matched_len = if matched == told { (self.matched_len + 1).min(MAX_MATCH) } else { 0 };
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

fn adapt(rates: &[i64; STATE_LIMIT as usize + 1], slot: &mut Slot, bit: u32, limit: u32) {
    let (known, count) = (i64::from(*slot >> 10), *slot & 1023);
    let target = i64::from(bit) * ((1 << 22) - 1);
    let told = known + (((target - known) * rates[(count & STATE_LIMIT) as usize]) >> 16);
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
        let Self { model, low, high, out } = self;
        for byte in bytes {
            let mut left = *byte;
            let coded: Result<u8, Infallible> = model.byte(|probability| {
                let bit = u32::from(left >> 7);
                left <<= 1;
                let last = split(*low, *high, probability);
                if bit == 1 {
                    *high = last
                } else {
                    *low = last + 1
                }
                while (*low ^ *high) >> 24 == 0 {
                    out.push((*high >> 24) as u8);
                    (*low, *high) = (*low << 8, *high << 8 | 0xff);
                }
                Ok(bit)
            });
            match coded {
                Ok(_) => {}
                Err(never) => match never {},
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
            shift(&mut decoder.source, &mut decoder.code)?;
        }
        Ok(decoder)
    }

    /// Begins a run of literals behind `front`, where `old` was.
    pub(super) fn begin(&mut self, front: &[u8], old: &[u8]) {
        self.model.begin(front, old);
    }

    pub(super) fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        let Self { model, low, high, code, source } = self;
        for byte in out {
            *byte = model.byte(|probability| {
                let last = split(*low, *high, probability);
                let bit = u32::from(*code <= last);
                if bit == 1 {
                    *high = last
                } else {
                    *low = last + 1
                }
                while (*low ^ *high) >> 24 == 0 {
                    (*low, *high) = (*low << 8, *high << 8 | 0xff);
                    shift(source, code)?;
                }
                Ok::<u32, io::Error>(bit)
            })?;
        }
        Ok(())
    }
}

/// Takes another byte into `code`: zeros behind the last.
#[inline(never)] // It is rare, and what reading takes would push what each bit needs out of registers.
fn shift(source: &mut impl Read, code: &mut u32) -> io::Result<()> {
    let mut byte = [0];
    let _ = source.read(&mut byte)?;
    *code = *code << 8 | u32::from(byte[0]);
    Ok(())
}
