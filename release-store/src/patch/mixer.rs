//! How likely a bit is one, from several inputs: probabilities that adapt, and a mixer that weighs what they tell and corrects
//! itself (`docs/formats/patch.md`, *mixed literals*; the way of Matt Mahoney's `lpaq`).

/// A correction for the mixer's probability: so many points between which it is interpolated.
const POINTS: usize = 33;
/// What corrections depend on: a byte.
const CORRECTIONS: usize = 256;
const FIRST_WEIGHT: i32 = 19_661;
const MAX_WEIGHT: i32 = 1 << 20;
/// The most bits that a slot ever averages over.
pub(super) const STATE_LIMIT: u32 = 127;

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
pub(super) type Slot = u32;
/// A slot that knows nothing.
pub(super) const EVEN: Slot = 1 << 31;

/// 12 bits of a slot's probability.
fn probability(slot: Slot) -> i32 {
    (slot >> 20) as i32
}

/// An array too large for the stack.
pub(super) fn boxed<T: Clone, const N: usize>(value: T) -> Box<[T; N]> {
    let all: Result<Box<[T; N]>, _> = vec![value; N].into_boxed_slice().try_into();
    all.unwrap_or_else(|_| unreachable!("a vector is as long as it was made"))
}

/// What all mixers and slots share. Every table is an array of a power of two, and what chooses in it has no more bits, so that
/// nothing need be checked for each of the many look-ups of a bit.
pub(super) struct Odds {
    stretched: Box<[i16; 4096]>,
    squashed: Box<[i16; 4096]>,
    rates: Box<[i64; STATE_LIMIT as usize + 1]>,
}

impl Odds {
    pub(super) fn new() -> Self {
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
        Self { stretched, squashed, rates }
    }

    /// What a slot tells a mixer.
    pub(super) fn stretch(&self, slot: Slot) -> i32 {
        i32::from(self.stretched[probability(slot) as usize])
    }

    /// Has a slot learn a bit; it averages over `limit` of them.
    pub(super) fn adapt(&self, slot: &mut Slot, bit: u32, limit: u32) {
        let (known, count) = (i64::from(*slot >> 10), *slot & 1023);
        let target = i64::from(bit) * ((1 << 22) - 1);
        let told = known + (((target - known) * self.rates[(count & STATE_LIMIT) as usize]) >> 16);
        *slot = (told as u32) << 10 | (count + 1).min(limit);
    }
}

/// Weighs so many inputs, by weights of which there are so many sets.
pub(super) struct Mixer<const INPUTS: usize, const SETS: usize> {
    weights: Box<[[i32; INPUTS]; SETS]>,
    corrections: Box<[[Slot; POINTS]; CORRECTIONS]>,
    /// How much an error changes weights.
    rate: i32,
}

impl<const INPUTS: usize, const SETS: usize> Mixer<INPUTS, SETS> {
    pub(super) fn new(rate: i32) -> Self {
        Self {
            weights: boxed([FIRST_WEIGHT; INPUTS]),
            corrections: boxed(SIGMOID.map(|known| (known as u32) << 20)),
            rate,
        }
    }

    /// One bit: `bit` is given how likely it is a one, of 4096, and tells it. `set` and `correction` are taken modulo how many
    /// there are.
    #[inline(always)] // Once for each byte and not once for each bit it costs a third more.
    pub(super) fn bit<E>(
        &mut self,
        odds: &Odds,
        (set, correction): (usize, usize),
        inputs: &[i32; INPUTS],
        bit: impl FnOnce(u32) -> Result<u32, E>,
    ) -> Result<u32, E> {
        let weights = &mut self.weights[set % SETS];
        let sum: i64 = weights.iter().zip(inputs).map(|(weight, input)| i64::from(*weight) * i64::from(*input)).sum();
        let mixed = ((sum >> 16).clamp(-2047, 2047) + 2048) as usize % 4096;
        let told = i32::from(odds.squashed[mixed]);
        let (point, part) = (mixed / 128, (mixed % 128) as i32);
        let corrections = &mut self.corrections[correction % CORRECTIONS];
        let corrected =
            (probability(corrections[point]) * (128 - part) + probability(corrections[point + 1]) * part) >> 7;

        let bit = bit(((told + corrected + 1) >> 1).clamp(1, 4095) as u32)?;
        let error = ((bit << 12) as i32 - told) * self.rate;
        for (weight, input) in weights.iter_mut().zip(inputs) {
            *weight = (*weight + ((input * error + 0x8000) >> 16)).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        }
        odds.adapt(&mut corrections[point + usize::from(part >= 64)], bit, STATE_LIMIT);
        Ok(bit)
    }
}
