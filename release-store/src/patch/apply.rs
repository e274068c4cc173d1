//! Applying a patch: old bytes by position, new bytes in order, a bounded amount of memory.

use std::cell::RefCell;
use std::io;

use super::address_map::{AddressMap, Match};
use super::edits::apply_edits;
use super::fields::{X86_BEFORE, X86_FIELD, x86_literal};
use super::head::{Copies, Head, Matches, Method, Stream};
use super::predict::{AFTER, BEFORE, BLOCK_BYTES, Images, MODES, Mode, NOTHING_ADDED, OVERHANG, Place};
use super::residual::ResidualReader;
use super::space::{Region, RegionKind, Spaces};
use super::streams::{Shared, StreamReader, read_at};
use super::{MAX_HEAD_BYTES, PatchError, ReadAt};

/// New bytes that are handed over at once, at most and about.
pub(super) const OUTPUT_BYTES: usize = 64 << 10;
/// Old bytes that are read at once where one copy follows the other.
const OLD_BYTES: usize = 64 << 10;
/// The same after a jump, which may be to a copy of a few bytes.
const JUMP_BYTES: usize = 4 << 10;

const UNUSED: PatchError = PatchError::Malformed("its streams hold more than it uses");

/// Takes new bytes in order.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Applies `patch` to the `old_len` bytes of `old`, and gives exactly `new_len` bytes to `sink`, or fails. What has gone
/// to `sink` is worth nothing before its digest was compared with a signed one.
///
/// Memory: at most [`super::MAX_WINDOW_BYTES`] for windows, 12 bytes a copied piece (in programs 32 more for each that the
/// address map is made of), and a few hundred kilobytes; for edits 7 MiB, and their literals with the old bytes that they
/// are told from, at most 24 MiB.
///
/// # Errors
/// `Malformed`, also for a patch of other lengths; `Patch`, `Old`, `Output` name whose bytes did not come or go.
pub fn apply(
    patch: &mut dyn ReadAt,
    old: &mut dyn ReadAt,
    old_len: u64,
    new_len: u64,
    sink: &mut Sink<'_>,
) -> Result<(), PatchError> {
    let mut length = [0; 4];
    read_at(patch, 0, &mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEAD_BYTES {
        return Err(PatchError::Malformed("its head is longer than a reader takes"));
    }
    let mut encoded = vec![0; length];
    read_at(patch, 4, &mut encoded)?;
    let head = Head::decode(&encoded)?;
    if head.old_len != old_len || head.new_len != new_len {
        return Err(PatchError::Malformed("it is for other lengths"));
    }
    let patch = RefCell::new(patch);
    let streams = 4 + length as u64;
    match &head.method {
        Method::Edits(edits) => apply_edits(&patch, streams, edits, old, &head, sink),
        Method::Matches(matches) => apply_matches(&patch, streams, matches, old, &head, sink),
    }
}

#[inline(never)] // As `apply_edits`.
fn apply_matches(
    patch: &dyn Shared,
    streams: u64,
    matches: &Matches,
    old: &mut dyn ReadAt,
    head: &Head,
    sink: &mut Sink<'_>,
) -> Result<(), PatchError> {
    let copies = read_copies(patch, streams, &matches.copies, Steps::FromEnd, head)?;
    if copied(&copies) + matches.literals.raw != head.new_len {
        return Err(PatchError::Malformed("its copies and literals do not add up to what it makes"));
    }
    let mut at = streams + matches.copies.packed();
    let mut open = |stream: &Stream| {
        let reader = StreamReader::open(patch, at, stream);
        at += stream.packed;
        reader
    };
    let [modes, residual, literals] = matches.streams().map(&mut open);
    let nowhere = Spaces::default();
    let spaces = matches.spaces.as_ref().unwrap_or(&nowhere);
    let map = AddressMap::new(&copies, spaces);
    let mut writer = Writer {
        images: Images { old: &spaces.old, new: &spaces.new, map: &map },
        old: OldWindow { source: old, len: head.old_len, start: 0, bytes: Vec::new() },
        modes: modes?,
        residual: ResidualReader::new(residual?),
        literals: literals?,
        out: vec![0; BEFORE],
        given: BEFORE,
        at: 0,
        sink,
    };
    for copy in &copies {
        writer.literal(copy.new)?;
        writer.copy(copy)?;
    }
    // Lengths were limited to 32 bits.
    writer.literal(head.new_len as u32)?;
    writer.flush()?;
    if writer.modes.left() + writer.residual.left() + writer.literals.left() > 0 {
        return Err(UNUSED);
    }
    Ok(())
}

/// Bytes of all `copies`.
pub(super) fn copied(copies: &[Match]) -> u64 {
    copies.iter().map(|copy| u64::from(copy.len)).sum()
}

/// Where the numbers that say where copies begin in the old bytes count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steps {
    /// The end of the last copy.
    FromEnd,
    /// So many bytes behind it as there are literals between the copies.
    InStep,
}

pub(super) fn read_copies(
    patch: &dyn Shared,
    at: u64,
    coded: &Copies,
    counted: Steps,
    head: &Head,
) -> Result<Vec<Match>, PatchError> {
    let mut gaps = StreamReader::open(patch, at, &coded.gaps)?;
    let mut steps = StreamReader::open(patch, at + coded.gaps.packed, &coded.steps)?;
    let mut lengths = StreamReader::open(patch, at + coded.gaps.packed + coded.steps.packed, &coded.lengths)?;
    let outside = || PatchError::Malformed("a copied piece lies outside");
    // What is reserved is bounded by what is there.
    let mut copies = Vec::with_capacity((coded.count as usize).min(coded.gaps.packed as usize));
    let (mut new, mut old) = (0_u64, 0_u64);
    for _ in 0..coded.count {
        let (gap, step, len) = (gaps.read_number()?, steps.read_number()?, lengths.read_number()?);
        let step = (step >> 1) as i64 ^ -((step & 1) as i64);
        new = new.checked_add(gap).ok_or_else(outside)?;
        if counted == Steps::InStep {
            old = old.checked_add(gap).ok_or_else(outside)?;
        }
        old = old.checked_add_signed(step).ok_or_else(outside)?;
        let ends = (new.checked_add(len), old.checked_add(len));
        let (Some(new_end), Some(old_end)) = ends else { return Err(outside()) };
        if len == 0 || new_end > head.new_len || old_end > head.old_len {
            return Err(outside());
        }
        // Within lengths of 32 bits.
        copies.push(Match { new: new as u32, old: old as u32, len: len as u32 });
        (new, old) = (new_end, old_end);
    }
    if gaps.left() + steps.left() + lengths.left() > 0 {
        return Err(UNUSED);
    }
    Ok(copies)
}

/// Old bytes around a position, read in larger pieces.
struct OldWindow<'a> {
    source: &'a mut dyn ReadAt,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl OldWindow<'_> {
    /// `BEFORE` bytes in front of `at`, `len` from there, `AFTER` behind; zeros where there are none.
    fn around(&mut self, at: u32, len: usize, out: &mut Vec<u8>) -> Result<(), PatchError> {
        let start = u64::from(at).saturating_sub(BEFORE as u64);
        let end = (u64::from(at) + (len + AFTER) as u64).min(self.len);
        if start < self.start || end > self.start + self.bytes.len() as u64 {
            let goes_on = (self.start..=self.start + self.bytes.len() as u64).contains(&start);
            let ahead = if goes_on { OLD_BYTES } else { JUMP_BYTES };
            let take = (self.len - start).min((ahead as u64).max(end - start));
            self.bytes.resize(take as usize, 0);
            self.start = start;
            self.source.read_at(start, &mut self.bytes).map_err(PatchError::Old)?;
        }
        out.clear();
        out.resize(BEFORE - (u64::from(at) - start) as usize, 0);
        let from = (start - self.start) as usize;
        out.extend_from_slice(&self.bytes[from..from + (end - start) as usize]);
        out.resize(BEFORE + len + AFTER, 0);
        Ok(())
    }
}

/// Makes the new bytes.
struct Writer<'a, 's> {
    images: Images<'a>,
    old: OldWindow<'a>,
    modes: StreamReader<'a>,
    residual: ResidualReader<'a>,
    literals: StreamReader<'a>,
    /// The last new bytes; at least [`BEFORE`] of them (zeros at the start) stay.
    out: Vec<u8>,
    /// How many of `out` the sink has, or were never meant for it.
    given: usize,
    /// How many new bytes there are.
    at: u32,
    sink: &'a mut Sink<'s>,
}

impl Writer<'_, '_> {
    fn flush(&mut self) -> Result<(), PatchError> {
        (self.sink)(&self.out[self.given..]).map_err(PatchError::Output)?;
        self.out.drain(..self.out.len() - BEFORE);
        self.given = BEFORE;
        Ok(())
    }

    fn advance(&mut self, bytes: u32) -> Result<(), PatchError> {
        self.at += bytes;
        if self.out.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    /// Literal bytes up to `end`.
    fn literal(&mut self, end: u32) -> Result<(), PatchError> {
        while self.at < end {
            let region = self.images.new.region_at(self.at).filter(|region| region.kind == RegionKind::X86).copied();
            if let Some(region) = region {
                self.code_literal(&region, end)?;
                continue;
            }
            let next = self.images.new.next_region(self.at).min(end);
            let len = (next - self.at).min(OUTPUT_BYTES as u32);
            let from = self.out.len();
            self.out.resize(from + len as usize, 0);
            self.literals.read_exact(&mut self.out[from..])?;
            self.advance(len)?;
        }
        Ok(())
    }

    /// Literal bytes of x86-64 code, as far as the region goes: operands of calls stand there as absolute addresses.
    fn code_literal(&mut self, region: &Region, end: u32) -> Result<(), PatchError> {
        let end = end.min(region.offset.saturating_add(region.len));
        while self.at < end {
            let from = self.out.len();
            if end - self.at >= X86_FIELD as u32 && x86_literal(&self.out[from - X86_BEFORE..]) {
                let mut target = [0; X86_FIELD];
                self.literals.read_exact(&mut target)?;
                let next = region.address_of(self.at).wrapping_add(X86_FIELD as u64) as u32;
                let operand = u32::from_be_bytes(target).wrapping_sub(next);
                self.out.extend_from_slice(&operand.to_le_bytes());
                self.advance(X86_FIELD as u32)?;
            } else {
                self.out.push(0);
                self.literals.read_exact(&mut self.out[from..])?;
                self.advance(1)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, copy: &Match) -> Result<(), PatchError> {
        let mut carried = 0;
        let mut tail = [0; OVERHANG];
        let mut old = Vec::new();
        let mut guess = [0; BLOCK_BYTES as usize + OVERHANG];
        let mut residual = [0; BLOCK_BYTES as usize];
        let mut done = 0;
        while done < copy.len {
            let place = block(copy, done);
            let len = place.len;
            self.old.around(place.old_at, len, &mut old)?;
            let mut mode = [0];
            self.modes.read_exact(&mut mode)?;
            let adds = mode[0] & NOTHING_ADDED == 0;
            let mode = *MODES
                .get(usize::from(mode[0] & !NOTHING_ADDED))
                .ok_or(PatchError::Malformed("a block has no such mode"))?;
            let residual = &mut residual[..len];
            residual.fill(0);
            if adds {
                self.residual.put(residual)?;
            }
            if mode.is_causal() {
                self.causal_block(mode, place, &old, residual);
                carried = 0;
            } else {
                let guess = &mut guess[..len + OVERHANG];
                guess[..carried].copy_from_slice(&tail[..carried]);
                carried = self.images.predict(mode, place, &old, guess, carried);
                tail.copy_from_slice(&guess[len..]);
                let from = self.out.len();
                self.out.extend_from_slice(&guess[..len]);
                for (new, residual) in self.out[from..].iter_mut().zip(&*residual) {
                    *new = new.wrapping_add(*residual);
                }
            }
            self.advance(len as u32)?;
            done += len as u32;
        }
        Ok(())
    }

    fn causal_block(&mut self, mode: Mode, place: Place, old: &[u8], residual: &[u8]) {
        let start = self.out.len() - BEFORE;
        let mut at = 0;
        while at < place.len {
            if (place.new_at + at as u32).is_multiple_of(4) && at + 4 <= place.len {
                let guess = self.images.predict_word(mode, place, old, &self.out[start..], at).to_le_bytes();
                self.out
                    .extend(guess.iter().zip(&residual[at..]).map(|(guess, residual)| guess.wrapping_add(*residual)));
                at += 4;
            } else {
                self.out.push(old[BEFORE + at].wrapping_add(residual[at]));
                at += 1;
            }
        }
    }
}

/// The block of `copy` that begins `done` bytes into it.
pub(super) fn block(copy: &Match, done: u32) -> Place {
    let new_at = copy.new + done;
    let len = (BLOCK_BYTES - new_at % BLOCK_BYTES).min(copy.len - done);
    Place { old_at: copy.old + done, new_at, len: len as usize }
}
