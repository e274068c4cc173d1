//! Literal bytes in few bits (`docs/formats/patch.md`, *mixed literals*): several contexts each tell how likely the next bit is
//! one, a [`Mixer`] weighs what they tell, and an arithmetic coder stores what is left. Beside what was coded before, it knows
//! the old bytes where each run of literals stands now. Where these make one byte likely, one bit tells whether it comes: of
//! most bytes nothing else has to be told. Making and applying a patch run this very model.

#[cfg(feature = "publish")]
use std::convert::Infallible;
use std::io::{self, Read};

use super::mixer::{EVEN, Mixer, Odds, STATE_LIMIT, Slot, boxed};

/// The most bytes of a stream: they take up to half a second a mebibyte.
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
const LEARNING_RATE: i32 = 14;
/// How many bits the slot of a context averages over, at most.
const TABLE_LIMIT: u32 = 40;
/// A power of two that is enough for two slots for each eight hits and for each length of a match.
const STATES: usize = 1024;

/// Slots that tell whether the guess comes: two by what came of the last ones, three by the bytes in front and the guess.
const GUESSES: usize = 5;
const GUESSES_LOG: u32 = 16;
const GUESS_LEARNING_RATE: i32 = 22;
/// A match as long is rather guessed than the expected byte.
const LONG_MATCH: usize = 32;
/// A match as long is good for a guess.
const LIKELY_MATCH: usize = 8;

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_AGAIN: u64 = 0xd6e8_feb8_6659_fd93;

/// How many old bytes a run of so many literals is told, where there are as many.
pub(super) fn window_bytes(literals: u32) -> u32 {
    literals.saturating_add(WINDOW_MORE_BYTES).min(MAX_WINDOW_BYTES)
}

/// A byte that is expected or matched, behind a one ([`TOLD`]); 0 where there is none.
type Told = u32;

/// The one.
const TOLD: Told = 1 << 8;

/// What is known of the next byte.
struct Model {
    odds: Odds,
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
    bits: Mixer<INPUTS, WEIGHT_SETS>,
    guesses: Box<[[Slot; 1 << GUESSES_LOG]; GUESSES]>,
    guessed: Mixer<{ GUESSES + 1 }, WEIGHT_SETS>,
    /// The last bytes of the new image, the latest in the lowest bits.
    front: u64,
}

/// What a bit tells.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// Whether the next byte is this one.
    IsIt(u8),
    /// The next bit of the byte.
    Next,
}

impl Model {
    fn new(history_bytes: usize) -> Self {
        Self {
            odds: Odds::new(),
            table: boxed([0; GROUP_SLOTS]),
            history: Vec::with_capacity(history_bytes),
            recent: 0,
            index: boxed(0),
            matched: 0,
            matched_len: 0,
            window: (0, 0, 0),
            hits: 0xff,
            states: boxed(EVEN),
            bits: Mixer::new(LEARNING_RATE),
            guesses: boxed([EVEN; 1 << GUESSES_LOG]),
            guessed: Mixer::new(GUESS_LEARNING_RATE),
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

    /// The byte that is told apart from all others at once, where one is likely enough.
    fn guess(&self, expected: Told, matched: Told) -> Told {
        let rather_matched = expected == 0 || self.matched_len >= LONG_MATCH || self.hits & 7 == 0;
        let guess = if matched != 0 && rather_matched { matched } else { expected };
        let is_likely = guess == expected && self.hits & 1 == 1 || guess == matched && self.matched_len >= LIKELY_MATCH;
        if is_likely { guess } else { 0 }
    }

    /// Whether the next byte is `guess`.
    fn is_guess<E>(
        &mut self,
        guess: Told,
        expected: Told,
        matched: Told,
        bit: impl FnOnce(u32, Asked) -> Result<u32, E>,
    ) -> Result<bool, E> {
        let from = match (expected, matched) {
            (0, _) => 0,
            (_, 0) => 1,
            (expected, matched) if expected == matched => 2,
            (expected, _) if expected == guess => 3,
            _ => 4,
        };
        let (byte, hits, length) = (u64::from(guess & 0xff), u64::from(self.hits), self.matched_len as u64);
        let hash = |context: u64| context.wrapping_mul(SPREAD) >> (64 - GUESSES_LOG);
        let places = [
            from << 12 | hits << 4 | (length / 4),
            from << 11 | length << 5 | hits & 31,
            hash(from << 18 | (hits & 3) << 16 | (self.front & 0xff) << 8 | byte),
            hash((hits & 1) << 24 | (self.front & 0xffff) << 8 | byte),
            hash((self.front & 0xff_ffff) << 8 | byte),
        ]
        .map(|place| place as usize % (1 << GUESSES_LOG));
        let mut inputs = [256; GUESSES + 1];
        for ((place, slots), input) in places.iter().zip(self.guesses.iter()).zip(&mut inputs) {
            *input = self.odds.stretch(slots[*place]);
        }
        let chosen = ((from << 3 | hits & 7) as usize, byte as usize);
        let came = self.guessed.bit(&self.odds, chosen, &inputs, |odds| bit(odds, Asked::IsIt(byte as u8)))?;
        for (place, slots) in places.iter().zip(self.guesses.iter_mut()) {
            self.odds.adapt(&mut slots[*place], came, STATE_LIMIT);
        }
        Ok(came == 1)
    }

    /// One byte: `bit` is given how likely a bit is a one, of 4096, and what it tells, and tells it.
    fn byte<E>(&mut self, mut bit: impl FnMut(u32, Asked) -> Result<u32, E>) -> Result<u8, E> {
        let (expected, matched) = (self.expected(), self.matched());
        let guess = self.guess(expected, matched);
        if guess != 0 && self.is_guess(guess, expected, matched, &mut bit)? {
            self.end_byte(guess as u8, expected, matched);
            return Ok(guess as u8);
        }
        // What was guessed does not come.
        let left = [expected, matched].map(|told| if told == guess { 0 } else { told });
        let mut begun = 1;
        let mut groups = [0; CONTEXTS];
        for bits in 0..8 {
            if bits % 4 == 0 {
                groups = self.groups(begun, expected, matched);
            }
            begun = begun << 1 | self.bit(begun, bits, &groups, left, |odds| bit(odds, Asked::Next))?;
        }
        self.end_byte(begun as u8, expected, matched);
        Ok(begun as u8)
    }

    /// One bit, of which `begun` tells those in front, behind a one, and `bits` how many they are.
    #[inline(always)] // As a mixer's.
    fn bit<E>(
        &mut self,
        begun: u32,
        bits: u32,
        groups: &[u16; CONTEXTS],
        [expected, matched]: [Told; 2],
        bit: impl FnOnce(u32) -> Result<u32, E>,
    ) -> Result<u32, E> {
        // Which slot of each group: of four bits there are fifteen beginnings.
        let slot = (1 << (bits % 4) | begun & ((1 << (bits % 4)) - 1)) as usize % GROUP_SLOTS;
        let mut inputs = [0_i32; INPUTS];
        for (group, input) in groups.iter().zip(&mut inputs) {
            *input = self.odds.stretch(self.table[usize::from(*group)][slot]);
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
            *input = state.map_or(0, |state| self.odds.stretch(self.states[state % STATES]));
        }
        inputs[INPUTS - 1] = 256;
        let bit = self.bits.bit(&self.odds, (set, begun as usize), &inputs, bit)?;
        for group in groups {
            self.odds.adapt(&mut self.table[usize::from(*group)][slot], bit, TABLE_LIMIT);
        }
        for state in state.into_iter().flatten() {
            self.odds.adapt(&mut self.states[state % STATES], bit, STATE_LIMIT);
        }
        Ok(bit)
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
            let coded: Result<u8, Infallible> = model.byte(|probability, asked| {
                let bit = match asked {
                    Asked::IsIt(guess) => u32::from(guess == *byte),
                    Asked::Next => {
                        let bit = u32::from(left >> 7);
                        left <<= 1;
                        bit
                    }
                };
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
            *byte = model.byte(|probability, _| {
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
