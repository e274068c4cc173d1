//! What the old bytes of a copy become before residuals are added: addresses in them are moved to where the new image has
//! them. Each block of a copy names one of a few ways (*modes*) of finding them. Making and applying a patch run this very
//! code, on the same bytes.

use super::address_map::AddressMap;
use super::fields::{Arm64, arm64_target, with_arm64, x86_absolute, x86_operand};
use super::space::{AddressSpace, RegionKind};

/// Blocks end where the new offset is a multiple of so many bytes.
pub(super) const BLOCK_BYTES: u32 = 512;
/// Bytes in front of a block that are looked at, of the old image and of the new.
pub(super) const BEFORE: usize = 128;
/// Old bytes behind a block that are looked at.
pub(super) const AFTER: usize = 24;
/// How far a field that begins in a block may reach into the next.
pub(super) const OVERHANG: usize = 8;
/// A bit that is set beside a block's mode where its residual is all zero, and left out.
pub(super) const NOTHING_ADDED: u8 = 0x80;
/// How old bytes are corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not at all.
    Plain,
    /// Operands of instructions, relative to where they stand.
    Code,
    /// The same, and 32-bit absolute addresses.
    CodeAbsolute,
    /// 32-bit words that count from where they stand, to code.
    RelativeToCode,
    /// 32-bit words that count from where they stand, to anything.
    Relative,
    /// 64-bit addresses.
    Absolute,
    /// 32-bit words that count from a base.
    FromBase(usize),
    /// 32-bit words that have grown like the word so many bytes in front.
    Carried(usize),
    /// Entries of an ELF64 symbol table: names grow like the name in front, values are addresses.
    Symbols,
    /// 32-bit words that have grown like the one of those in front whose old value is nearest: records of offsets into
    /// several tables, whatever their order and length.
    Nearest,
}

/// All modes; a block names one by its place.
pub(super) const MODES: [Mode; 20] = [
    Mode::Plain,
    Mode::Code,
    Mode::CodeAbsolute,
    Mode::RelativeToCode,
    Mode::Relative,
    Mode::Absolute,
    Mode::FromBase(0),
    Mode::FromBase(1),
    Mode::FromBase(2),
    Mode::FromBase(3),
    Mode::Carried(4),
    Mode::Carried(8),
    Mode::Carried(12),
    Mode::Carried(16),
    Mode::Carried(20),
    Mode::Carried(24),
    Mode::Carried(40),
    Mode::Carried(44),
    Mode::Symbols,
    Mode::Nearest,
];

/// Numbers below are no addresses in position-independent images, whatever stands there.
const MIN_ABSOLUTE: u64 = 0x400;
const MIN_ABSOLUTE_32: u64 = 0x1_0000;
const SYMBOL_BYTES: u32 = 24;

/// Where a block stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub old_at: u32,
    pub new_at: u32,
    pub len: usize,
}

/// What prediction needs to know of the two images.
#[derive(Debug)]
pub(super) struct Images<'a> {
    pub old: &'a AddressSpace,
    pub new: &'a AddressSpace,
    pub map: &'a AddressMap,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

fn put(out: &mut [u8], at: usize, value: u32) {
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

fn put_long(out: &mut [u8], at: usize, value: u64) {
    put(out, at, value as u32);
    put(out, at + 4, (value >> 32) as u32);
}

impl Images<'_> {
    /// Corrects a block. `old` holds [`BEFORE`] bytes, the block's, and [`AFTER`] bytes; `out` is as long as the block and
    /// [`OVERHANG`], and begins with `carried` bytes that the block in front has told. Returns how many bytes behind the
    /// block are told. Not for modes that look at new bytes: see [`Images::predict_word`].
    pub(super) fn predict(&self, mode: Mode, place: Place, old: &[u8], out: &mut [u8], carried: usize) -> usize {
        let Place { old_at, new_at, len } = place;
        out[carried..].copy_from_slice(&old[BEFORE + carried..BEFORE + len + OVERHANG]);
        let untouched = carried.saturating_sub(len);
        if mode == Mode::Plain {
            return untouched;
        }
        let Some(region) = self.old.region_at(old_at) else { return untouched };
        let from = region.address_of(old_at);
        let first = match region.kind {
            RegionKind::FileOnly => u64::from(old_at),
            _ => from,
        };
        if mode == Mode::Absolute {
            return self.absolute(first, len, old, out).max(untouched);
        }
        let Some(to) = self.new.region_at(new_at).map(|region| region.address_of(new_at)) else { return untouched };
        if region.kind == RegionKind::FileOnly {
            return untouched;
        }
        let moved = to.wrapping_sub(from) as i64;
        let mut end = carried;
        match mode {
            Mode::Code | Mode::CodeAbsolute if region.kind == RegionKind::Arm64 => {
                self.arm64(from, to, len, old, out);
            }
            Mode::Code | Mode::CodeAbsolute => {
                let mut at = carried;
                while at < len {
                    let here = BEFORE + at;
                    if x86_operand(old, here) {
                        let operand = word(old, here) as i32;
                        let target = from.wrapping_add(at as u64 + 4).wrapping_add(i64::from(operand) as u64);
                        if self.old.holds(target) {
                            let shift = self.map.shift(target).wrapping_sub(moved);
                            put(out, at, operand.wrapping_add(shift as i32) as u32);
                            at += 4;
                            end = at;
                            continue;
                        }
                    }
                    if mode == Mode::CodeAbsolute && x86_absolute(old, here) {
                        let value = u64::from(word(old, here));
                        if value >= MIN_ABSOLUTE_32 && self.old.holds(value) {
                            put(out, at, (value as u32).wrapping_add(self.map.shift(value) as u32));
                            at += 4;
                            end = at;
                            continue;
                        }
                    }
                    at += 1;
                }
            }
            Mode::RelativeToCode | Mode::Relative => {
                for at in aligned(first, 4, len) {
                    let value = word(old, BEFORE + at) as i32;
                    let target = from.wrapping_add(at as u64).wrapping_add(i64::from(value) as u64);
                    let code = mode == Mode::RelativeToCode;
                    if value != 0 && if code { self.old.holds_code(target) } else { self.old.holds(target) } {
                        let shift = self.map.shift(target).wrapping_sub(moved);
                        put(out, at, value.wrapping_add(shift as i32) as u32);
                        end = at + 4;
                    }
                }
            }
            Mode::FromBase(number) => {
                let (Some(base), Some(new_base)) = (self.old.bases.get(number), self.new.bases.get(number)) else {
                    return untouched;
                };
                let moved = new_base.wrapping_sub(*base) as u32;
                for at in aligned(first, 4, len) {
                    let value = word(old, BEFORE + at);
                    // Tables of both signs are in use: exception tables count backwards from their header.
                    let target = base.wrapping_add(i64::from(value as i32) as u64);
                    if value != 0 && self.old.holds(target) {
                        put(out, at, value.wrapping_add(self.map.shift(target) as u32).wrapping_sub(moved));
                        end = at + 4;
                    }
                }
            }
            Mode::Plain | Mode::Absolute | Mode::Carried(_) | Mode::Symbols | Mode::Nearest => {}
        }
        end.saturating_sub(len)
    }

    fn absolute(&self, first: u64, len: usize, old: &[u8], out: &mut [u8]) -> usize {
        let mut end = 0;
        for at in aligned(first, 8, len) {
            let value = long(old, BEFORE + at);
            if value >= MIN_ABSOLUTE && self.old.holds(value) {
                put_long(out, at, value.wrapping_add(self.map.shift(value) as u64));
                end = at + 8;
            }
        }
        end.saturating_sub(len)
    }

    fn arm64(&self, from: u64, to: u64, len: usize, old: &[u8], out: &mut [u8]) {
        for at in aligned(from, 4, len) {
            let address = from.wrapping_add(at as u64);
            let Some((field, target)) = arm64_target(old, BEFORE + at, address) else { continue };
            if !self.old.holds(target) {
                continue;
            }
            let target = target.wrapping_add(self.map.shift(target) as u64);
            let here = to.wrapping_add(at as u64);
            let field = match field {
                Arm64::Branch(_) => Arm64::Branch(target.wrapping_sub(here) as i64),
                Arm64::Near(_) => Arm64::Near(target.wrapping_sub(here) as i64),
                Arm64::Page(_) => Arm64::Page((target >> 12).wrapping_sub(here >> 12) as i64),
                Arm64::Low { scale, .. } => Arm64::Low { bits: (target as u32 & 0xfff) >> scale, scale },
            };
            put(out, at, with_arm64(word(old, BEFORE + at), field));
        }
    }

    /// The word at `at` of a block in a mode that looks at new bytes. `new` holds [`BEFORE`] bytes and the block's up to
    /// there, `old` is as for [`Images::predict`].
    pub(super) fn predict_word(&self, mode: Mode, place: Place, old: &[u8], new: &[u8], at: usize) -> u32 {
        let value = word(old, BEFORE + at);
        let carried = |stride: usize| {
            let grown = word(new, BEFORE + at - stride).wrapping_sub(word(old, BEFORE + at - stride));
            value.wrapping_add(grown)
        };
        match mode {
            Mode::Carried(stride) => carried(stride),
            Mode::Nearest => {
                let (mut best, mut nearest) = (4, u32::MAX);
                for (stride, known) in (4..).step_by(4).zip(old[at..at + BEFORE].as_chunks::<4>().0.iter().rev()) {
                    let distance = u32::from_le_bytes(*known).abs_diff(value);
                    (best, nearest) = if distance < nearest { (stride, distance) } else { (best, nearest) };
                }
                carried(best)
            }
            Mode::Symbols => {
                let start = self.old.region_at(place.old_at).map_or(0, |region| region.offset);
                match (place.old_at + at as u32).wrapping_sub(start) % SYMBOL_BYTES {
                    0 => carried(SYMBOL_BYTES as usize),
                    phase @ (8 | 12) => {
                        let address = long(old, BEFORE + at + 8 - phase as usize);
                        let moved = address.wrapping_add(self.map.shift(address) as u64);
                        match address >= MIN_ABSOLUTE && self.old.holds(address) {
                            true if phase == 8 => moved as u32,
                            true => (moved >> 32) as u32,
                            false => value,
                        }
                    }
                    _ => value,
                }
            }
            _ => value,
        }
    }
}

/// Positions in a block that are a multiple of `step` where the block begins at `first`.
fn aligned(first: u64, step: usize, len: usize) -> impl Iterator<Item = usize> {
    let skip = (step - (first % step as u64) as usize) % step;
    (skip..len).step_by(step)
}

impl Mode {
    /// Whether it looks at new bytes, so that words must be told one after the other.
    pub(super) fn is_causal(self) -> bool {
        matches!(self, Self::Carried(_) | Self::Symbols | Self::Nearest)
    }
}
