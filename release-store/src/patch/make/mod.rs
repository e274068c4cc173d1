//! Making patches, for the vendor's release machine. It may use ten times the files' bytes in memory.

mod blocks;
mod bytes;
mod compress;
mod edits;
mod elf;
mod matcher;
mod moves;
mod normal;
mod pe;

use super::address_map::{AddressMap, Match};
use super::head::{Copies, Head, Matches, Method};
use super::space::{AddressSpace, Region, RegionKind, Spaces};
use super::{MAX_IMAGE_BYTES, MAX_MATCHES, MAX_REGIONS, MAX_WINDOW_LOG, PatchError};
use compress::{LITERALS, NUMBERS, PAIRS};
use matcher::Suffixes;
use normal::{Label, normalised};

/// By how many bytes a match must beat going on with the last one: in executables, whose noise is gone, and elsewhere.
const EXECUTABLE_THRESHOLD: usize = 16;
const PLAIN_THRESHOLD: usize = 32;
/// Suffix arrays have places of 31 bits.
const MAX_SORTED_BYTES: usize = i32::MAX as usize;
/// Windows of streams that are read beside larger ones.
const CONTROL_WINDOW_LOG: u8 = 22;
const MODES_WINDOW_LOG: u8 = 21;

/// Makes a patch from `old` to `new`, whatever they are: the smallest of the ways that fit. The same input gives the same
/// bytes.
///
/// # Errors
/// `Refused` for more bytes than a patch can be for.
pub fn make(old: &[u8], new: &[u8]) -> Result<Vec<u8>, PatchError> {
    if old.len() > MAX_SORTED_BYTES || new.len() as u64 > MAX_IMAGE_BYTES {
        return Err(PatchError::Refused("the files are too large to be compared"));
    }
    if let Some((old_space, new_space)) = space(old).zip(space(new)) {
        let mut spaces = Spaces { old: old_space, new: new_space, moves: Vec::new() };
        let copies = executable_matches(old, new, &spaces);
        spaces.moves = moves::found(old, new, &copies, &spaces);
        return by_matches(old, new, &copies, Some(spaces));
    }
    let copies = matcher::matches(&Suffixes::sparse(old), new, PLAIN_THRESHOLD);
    match edits::edits(old, new, &copies)? {
        Some((edits, streams)) => assemble(old, new, Method::Edits(Box::new(edits)), &streams),
        None => by_matches(old, new, &copies, None),
    }
}

/// Whether `file` is a program whose addresses are understood.
pub fn is_program(file: &[u8]) -> bool {
    space(file).is_some()
}

/// The platform that a program runs on, by its head; `None` for what is no ELF or PE file.
pub fn platform(file: &[u8]) -> Option<&'static str> {
    elf::platform(file).or_else(|| pe::platform(file))
}

/// Matches of what is left when no address stands in the way: first with all of them blank, then with each field naming
/// its target in the new image.
fn executable_matches(old: &[u8], new: &[u8], spaces: &Spaces) -> Vec<Match> {
    let matches = |old: &[u8], new: &[u8]| matcher::matches(&Suffixes::new(old), new, EXECUTABLE_THRESHOLD);
    let Spaces { old: old_space, new: new_space, .. } = spaces;
    let first = matches(&normalised(old, old_space, &Label::Blank), &normalised(new, new_space, &Label::Blank));
    let map = AddressMap::new(&first, spaces);
    let old = normalised(old, old_space, &Label::NewTarget(Some(&map)));
    matches(&old, &normalised(new, new_space, &Label::NewTarget(None)))
}

fn by_matches(old: &[u8], new: &[u8], copies: &[Match], spaces: Option<Spaces>) -> Result<Vec<u8>, PatchError> {
    let mut copies = copies.to_vec();
    let mut shortest = 1;
    while copies.len() > MAX_MATCHES as usize {
        // What a reader has no room for becomes literals, the shortest first.
        shortest *= 2;
        copies.retain(|copy| copy.len >= shortest);
    }
    let raw = blocks::streams(old, new, &copies, spaces.as_ref());
    // The longest first, each as long as it must be, and gone when the next one is compressed.
    let packed = |mut raw: Vec<u8>, window_log, bits| {
        raw.shrink_to_fit();
        compress::smallest(&raw, window_log, bits)
    };
    let (residual, residual_bytes) = packed(raw.residual, MAX_WINDOW_LOG, PAIRS)?;
    let (literals, literals_bytes) = packed(raw.literals, MAX_WINDOW_LOG, LITERALS)?;
    let (gaps, gaps_bytes) = packed(raw.gaps, CONTROL_WINDOW_LOG, NUMBERS)?;
    let (steps, steps_bytes) = packed(raw.steps, CONTROL_WINDOW_LOG, NUMBERS)?;
    let (lengths, lengths_bytes) = packed(raw.lengths, CONTROL_WINDOW_LOG, NUMBERS)?;
    let (modes, modes_bytes) = packed(raw.modes, MODES_WINDOW_LOG, NUMBERS)?;
    let copies = Copies { count: copies.len() as u32, gaps, steps, lengths };
    let matches = Matches { copies, modes, residual, literals, spaces };
    let streams = [gaps_bytes, steps_bytes, lengths_bytes, modes_bytes, residual_bytes, literals_bytes];
    assemble(old, new, Method::Matches(Box::new(matches)), &streams)
}

fn assemble(old: &[u8], new: &[u8], method: Method, streams: &[Vec<u8>]) -> Result<Vec<u8>, PatchError> {
    let mut patch = Head { old_len: old.len() as u64, new_len: new.len() as u64, method }.encode()?;
    for stream in streams {
        patch.extend_from_slice(stream);
    }
    Ok(patch)
}

/// The address space of a program; `None` for what is none, or no known one.
fn space(file: &[u8]) -> Option<AddressSpace> {
    let space = elf::space(file).or_else(|| pe::space(file))?;
    space.check(file.len() as u64).is_ok().then_some(space)
}

/// Sorts `regions` of a file of `len` bytes, drops what overlaps, and adds what is left between and behind them.
fn in_order(mut regions: Vec<Region>, len: u32) -> Vec<Region> {
    regions.sort_by_key(|region| region.offset);
    let mut all: Vec<Region> = Vec::new();
    let mut end = 0;
    let gap =
        |from: u32, to: u32| Region { offset: from, len: to - from, address: 0, memory: 0, kind: RegionKind::FileOnly };
    for region in regions.into_iter().filter(|region| region.len > 0 || region.memory > 0) {
        if region.offset < end || region.offset.checked_add(region.len).is_none_or(|end| end > len) {
            continue;
        }
        if region.offset > end {
            all.push(gap(end, region.offset));
        }
        end = region.offset + region.len;
        all.push(region);
    }
    if end < len {
        all.push(gap(end, len));
    }
    all.truncate(MAX_REGIONS);
    all
}
