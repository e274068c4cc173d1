//! Images in which fields that hold addresses no longer hide what is equal: blanked, or with the same number for the same
//! target in old and new.

use super::super::address_map::AddressMap;
use super::super::fields::{Arm64, X86_BEFORE, X86_FIELD, arm64_target, with_arm64, x86_operand};
use super::super::space::{AddressSpace, Region, RegionKind};

/// Smaller numbers in data are no addresses.
const MIN_ABSOLUTE: u64 = 0x1000;
/// Smaller numbers in data are no distances to code.
const MIN_DISTANCE: u32 = 64;

/// What stands in a field instead of its address.
pub(super) enum Label<'a> {
    /// The same everywhere.
    Blank,
    /// Where the target is in the new image: the map for the old image, none for the new one.
    NewTarget(Option<&'a AddressMap>),
}

impl Label<'_> {
    fn of(&self, target: u64) -> u32 {
        match self {
            Self::Blank => 0,
            Self::NewTarget(map) => {
                let moved = map.map_or(0, |map| map.shift(target));
                // Spread, so that neighbours are no more alike than others (Knuth's multiplicative hash).
                (target.wrapping_add(moved as u64) as u32).wrapping_mul(0x9e37_79b1)
            }
        }
    }
}

/// `image` with a label in each field that holds an address.
pub(super) fn normalised(image: &[u8], space: &AddressSpace, label: &Label<'_>) -> Vec<u8> {
    let mut out = image.to_vec();
    for region in &space.regions {
        let (start, end) = (region.offset as usize, region.offset as usize + region.len as usize);
        match region.kind {
            RegionKind::X86 => x86(image, space, region, label, &mut out[..end]),
            RegionKind::Arm64 => arm64(&image[start..end], space, region, label, &mut out[start..end]),
            RegionKind::Data | RegionKind::FileOnly => {
                data(&image[start..end], space, region, label, &mut out[start..end])
            }
        }
    }
    out
}

fn x86(image: &[u8], space: &AddressSpace, region: &Region, label: &Label<'_>, out: &mut [u8]) {
    let mut at = (region.offset as usize).max(X86_BEFORE);
    while at + X86_FIELD <= out.len() {
        if x86_operand(image, at) {
            let operand = i32::from_le_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]]);
            let next = region.address_of(at as u32).wrapping_add(X86_FIELD as u64);
            let target = next.wrapping_add(i64::from(operand) as u64);
            if space.holds(target) {
                out[at..at + X86_FIELD].copy_from_slice(&label.of(target).to_le_bytes());
                at += X86_FIELD;
                continue;
            }
        }
        at += 1;
    }
}

fn arm64(code: &[u8], space: &AddressSpace, region: &Region, label: &Label<'_>, out: &mut [u8]) {
    let skip = region.address.wrapping_neg() as usize % 4;
    for at in (skip..code.len().saturating_sub(3)).step_by(4) {
        let Some((field, target)) = arm64_target(code, at, region.address.wrapping_add(at as u64)) else { continue };
        if !space.holds(target) {
            continue;
        }
        let number = label.of(target);
        let field = match field {
            Arm64::Branch(_) => Arm64::Branch(i64::from(number) << 2),
            Arm64::Near(_) => Arm64::Near(number.into()),
            Arm64::Page(_) => Arm64::Page(number.into()),
            Arm64::Low { scale, .. } => Arm64::Low { bits: number, scale },
        };
        let word = u32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]);
        out[at..at + 4].copy_from_slice(&with_arm64(word, field).to_le_bytes());
    }
}

fn data(data: &[u8], space: &AddressSpace, region: &Region, label: &Label<'_>, out: &mut [u8]) {
    let first = if region.kind == RegionKind::FileOnly { u64::from(region.offset) } else { region.address };
    let skip = first.wrapping_neg() as usize % 8;
    for at in (skip..data.len().saturating_sub(7)).step_by(8) {
        let Some(long) = data[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { continue };
        if long >= MIN_ABSOLUTE && space.holds(long) {
            out[at..at + 4].copy_from_slice(&label.of(long).to_le_bytes());
            out[at + 4..at + 8].fill(0);
            continue;
        }
        if region.kind == RegionKind::FileOnly {
            continue;
        }
        for at in [at, at + 4] {
            let Some(word) = data[at..].first_chunk().map(|bytes| i32::from_le_bytes(*bytes)) else { continue };
            let target = region.address.wrapping_add(at as u64).wrapping_add(i64::from(word) as u64);
            if word.unsigned_abs() > MIN_DISTANCE && space.holds_code(target) {
                out[at..at + 4].copy_from_slice(&label.of(target).to_le_bytes());
            }
        }
    }
}
