//! From copies to streams: for each block the mode that leaves the least to add.

use super::super::address_map::{AddressMap, Match};
use super::super::apply::block;
use super::super::fields::{X86_BEFORE, X86_FIELD, x86_literal};
use super::super::predict::{AFTER, BEFORE, BLOCK_BYTES, Images, MODES, Mode, NOTHING_ADDED, OVERHANG, Place};
use super::super::residual::ResidualWriter;
use super::super::space::{AddressSpace, RegionKind, Spaces};

/// Streams before they are compressed.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub gaps: Vec<u8>,
    pub steps: Vec<u8>,
    pub lengths: Vec<u8>,
    pub modes: Vec<u8>,
    pub residual: Vec<u8>,
    pub literals: Vec<u8>,
}

/// The streams that make `new` of `old` by way of `copies`.
pub(super) fn streams(old: &[u8], new: &[u8], copies: &[Match], spaces: Option<&Spaces>) -> Raw {
    let (mut raw, mut residual) = (Raw::default(), ResidualWriter::default());
    let nowhere = Spaces::default();
    let Spaces { old: old_space, new: new_space, .. } = spaces.unwrap_or(&nowhere);
    let map = AddressMap::new(copies, spaces.unwrap_or(&nowhere));
    let images = Images { old: old_space, new: new_space, map: &map };
    let (mut new_end, mut old_end) = (0_u32, 0_u32);
    let mut last_mode = 0;
    for copy in copies {
        number(&mut raw.gaps, u64::from(copy.new - new_end));
        signed(&mut raw.steps, i64::from(copy.old) - i64::from(old_end));
        number(&mut raw.lengths, copy.len.into());
        literals(new, new_end, copy.new, new_space, &mut raw.literals);
        let mut chooser = Chooser { images: &images, old, new, carried: 0, tail: [0; OVERHANG] };
        let mut done = 0;
        while done < copy.len {
            let place = block(copy, done);
            let (mode, guess) = if spaces.is_some() { chooser.best(place, last_mode) } else { chooser.plain(place) };
            last_mode = mode;
            let wanted = &new[place.new_at as usize..][..place.len];
            if wanted == guess {
                raw.modes.push(mode as u8 | NOTHING_ADDED);
            } else {
                raw.modes.push(mode as u8);
                wanted.iter().zip(&guess).for_each(|(new, guess)| residual.push(new.wrapping_sub(*guess)));
            }
            done += place.len as u32;
        }
        (new_end, old_end) = (copy.new + copy.len, copy.old + copy.len);
    }
    literals(new, new_end, new.len() as u32, new_space, &mut raw.literals);
    raw.residual = residual.finish();
    raw
}

/// Chooses modes along one copy.
struct Chooser<'a> {
    images: &'a Images<'a>,
    old: &'a [u8],
    new: &'a [u8],
    carried: usize,
    tail: [u8; OVERHANG],
}

/// What a mode makes of a block.
struct Trial {
    mode: usize,
    guess: Vec<u8>,
    carried: usize,
    wrong: usize,
}

impl Chooser<'_> {
    fn plain(&self, place: Place) -> (usize, Vec<u8>) {
        (0, self.old[place.old_at as usize..][..place.len].to_vec())
    }

    fn best(&mut self, place: Place, last: usize) -> (usize, Vec<u8>) {
        let old = around(self.old, place.old_at, place.len + AFTER);
        let mut best = self.trial(last, place, &old);
        for mode in (0..MODES.len()).filter(|mode| *mode != last) {
            if best.wrong == 0 {
                break;
            }
            let trial = self.trial(mode, place, &old);
            // Another mode than the last costs something itself.
            let change = |trial: &Trial| usize::from(trial.mode != last);
            if trial.wrong + change(&trial) < best.wrong + change(&best) {
                best = trial;
            }
        }
        self.carried = best.carried;
        self.tail.copy_from_slice(&best.guess[place.len..]);
        best.guess.truncate(place.len);
        (best.mode, best.guess)
    }

    fn trial(&self, mode: usize, place: Place, old: &[u8]) -> Trial {
        let wanted = &self.new[place.new_at as usize..][..place.len];
        let mut guess = vec![0; place.len + OVERHANG];
        let mut carried = 0;
        if MODES[mode].is_causal() {
            self.causal(MODES[mode], place, old, &mut guess);
        } else {
            guess[..self.carried].copy_from_slice(&self.tail[..self.carried]);
            carried = self.images.predict(MODES[mode], place, old, &mut guess, self.carried);
        }
        let wrong = wanted.iter().zip(&guess).filter(|(wanted, guess)| wanted != guess).count();
        Trial { mode, guess, carried, wrong }
    }

    fn causal(&self, mode: Mode, place: Place, old: &[u8], guess: &mut [u8]) {
        guess[..place.len].copy_from_slice(&old[BEFORE..BEFORE + place.len]);
        let new = around(self.new, place.new_at, place.len);
        let skip = (4 - place.new_at as usize % 4) % 4;
        for at in (skip..(place.len + 1).saturating_sub(4)).step_by(4) {
            let word = self.images.predict_word(mode, place, old, &new, at);
            guess[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// [`BEFORE`] bytes in front of `at` and `len` from there, zeros where there are none.
fn around(image: &[u8], at: u32, len: usize) -> Vec<u8> {
    let at = at as usize;
    let start = at.saturating_sub(BEFORE);
    let mut bytes = vec![0; BEFORE - (at - start)];
    bytes.extend_from_slice(&image[start..(at + len).min(image.len())]);
    bytes.resize(BEFORE + len, 0);
    bytes
}

/// Literal bytes; operands of calls in x86-64 code become absolute, highest byte first, as BCJ filters have them.
fn literals(new: &[u8], start: u32, end: u32, space: &AddressSpace, out: &mut Vec<u8>) {
    let mut at = start;
    while at < end {
        let region = space.region_at(at).filter(|region| region.kind == RegionKind::X86);
        let Some(region) = region else {
            let next = space.next_region(at).min(end);
            out.extend_from_slice(&new[at as usize..next as usize]);
            at = next;
            continue;
        };
        let stop = end.min(region.offset.saturating_add(region.len));
        while at < stop {
            let here = at as usize;
            let mut before = [0; X86_BEFORE];
            let known = here.min(X86_BEFORE);
            before[X86_BEFORE - known..].copy_from_slice(&new[here - known..here]);
            if stop - at >= X86_FIELD as u32 && x86_literal(&before) {
                let operand = u32::from_le_bytes([new[here], new[here + 1], new[here + 2], new[here + 3]]);
                let next = region.address_of(at).wrapping_add(X86_FIELD as u64) as u32;
                out.extend_from_slice(&operand.wrapping_add(next).to_be_bytes());
                at += X86_FIELD as u32;
            } else {
                out.push(new[here]);
                at += 1;
            }
        }
    }
}

pub(super) fn signed(out: &mut Vec<u8>, value: i64) {
    number(out, (value << 1 ^ value >> 63) as u64);
}

pub(super) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const _: () = assert!(MODES.len() < 256 && BLOCK_BYTES as usize > OVERHANG);
