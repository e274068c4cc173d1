//! Applying edits: exact copies, and literals that are told from what stood there.

use super::address_map::Match;
use super::apply::{OUTPUT_BYTES, Sink, Steps, copied, read_copies};
use super::head::{Edits, Head};
use super::mixed::{Decoder, FRONT_BYTES, window_bytes};
use super::streams::{Shared, section};
use super::{PatchError, ReadAt};

/// Literals between two copies, or behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Where they begin in the new bytes.
    pub new: u32,
    pub len: u32,
    /// Where the last copy ended in the old bytes, and how many old bytes from there they are told.
    pub old: u32,
    pub window: u32,
}

/// The literals in front of `next`, where the last copy ended at `new` and `old`.
fn run((new, old): (u32, u32), next: u32, old_len: u32) -> Run {
    let len = next - new;
    let window = if len == 0 { 0 } else { window_bytes(len).min(old_len - old) };
    Run { new, len, old, window }
}

/// For each copy the literals in front of it, and itself; then the literals behind the last.
pub(super) fn runs(copies: &[Match], old_len: u32, new_len: u32) -> impl Iterator<Item = (Run, Option<Match>)> {
    let ends = copies.iter().map(|copy| (copy.new + copy.len, copy.old + copy.len));
    let next = copies.iter().copied().map(Some).chain([None]);
    [(0, 0)]
        .into_iter()
        .chain(ends)
        .zip(next)
        .map(move |(end, copy)| (run(end, copy.map_or(new_len, |copy| copy.new), old_len), copy))
}

/// Bytes that the literals between `copies` are told from, their own included.
pub(super) fn history_bytes(copies: &[Match], old_len: u32, new_len: u32) -> usize {
    runs(copies, old_len, new_len).map(|(run, _)| run.len as usize + run.window as usize).sum()
}

/// Applies edits whose streams begin at `streams`.
#[inline(never)] // In a device's program, optimised for size, its one caller would have it optimised so as well.
pub(super) fn apply_edits(
    patch: &dyn Shared,
    streams: u64,
    edits: &Edits,
    old: &mut dyn ReadAt,
    head: &Head,
    sink: &mut Sink<'_>,
) -> Result<(), PatchError> {
    let copies = read_copies(patch, streams, &edits.copies, Steps::InStep, head)?;
    if copied(&copies) + edits.raw != head.new_len {
        return Err(PatchError::Malformed("its copies and literals do not add up to what it makes"));
    }
    // Lengths were limited to 32 bits.
    let (old_len, new_len) = (head.old_len as u32, head.new_len as u32);
    let packed = section(patch, streams + edits.copies.packed(), edits.packed);
    let mut literals = Decoder::new(packed, history_bytes(&copies, old_len, new_len)).map_err(PatchError::Patch)?;
    // What the sink does not have yet, behind the last bytes that it has.
    let mut out = vec![0; FRONT_BYTES];
    let mut window = Vec::new();
    for (run, copy) in runs(&copies, old_len, new_len) {
        if run.len > 0 {
            window.resize(run.window as usize, 0);
            old.read_at(run.old.into(), &mut window).map_err(PatchError::Old)?;
            literals.begin(&out[out.len() - FRONT_BYTES..], &window);
        }
        let mut left = run.len as usize;
        while left > 0 {
            let len = left.min(room(&mut out, sink)?);
            let from = out.len();
            out.resize(from + len, 0);
            literals.read_exact(&mut out[from..]).map_err(PatchError::Patch)?;
            left -= len;
        }
        let Some(copy) = copy else { continue };
        let mut done = 0;
        while done < copy.len {
            let len = (copy.len - done).min(room(&mut out, sink)? as u32);
            let from = out.len();
            out.resize(from + len as usize, 0);
            old.read_at(u64::from(copy.old + done), &mut out[from..]).map_err(PatchError::Old)?;
            done += len;
        }
    }
    sink(&out[FRONT_BYTES..]).map_err(PatchError::Output)
}

/// How many bytes `out` has room for; hands over what it holds where it is full.
fn room(out: &mut Vec<u8>, sink: &mut Sink<'_>) -> Result<usize, PatchError> {
    if out.len() >= FRONT_BYTES + OUTPUT_BYTES {
        sink(&out[FRONT_BYTES..]).map_err(PatchError::Output)?;
        out.drain(..out.len() - FRONT_BYTES);
    }
    Ok(FRONT_BYTES + OUTPUT_BYTES - out.len())
}
