//! Edits: what two contents share exactly, and literals that are told from what stood there. For all that is no program, and
//! for whatever has few literals: these take long.

use super::super::address_map::Match;
use super::super::edits::{history_bytes, runs};
use super::super::head::{Copies, Edits};
use super::super::mixed::{Encoder, FRONT_BYTES, MAX_MIXED_BYTES};
use super::super::{MAX_MATCHES, PatchError};
use super::CONTROL_WINDOW_LOG;
use super::blocks::{number, signed};
use super::compress;

/// The shortest copy that goes on where the last one would have: literals there are told from the same bytes.
const MIN_IN_STEP_BYTES: u32 = 64;
/// The shortest copy from anywhere else.
const MIN_BYTES: u32 = 24;

/// Edits, and their streams in order.
type Made = (Edits, [Vec<u8>; 4]);

/// The edits that give `new`. `None` where there are more literals or copies than a reader takes.
pub(super) fn edits(old: &[u8], new: &[u8], matches: &[Match]) -> Result<Option<Made>, PatchError> {
    let copies = exact(old, new, matches);
    let copied: u64 = copies.iter().map(|copy| u64::from(copy.len)).sum();
    let raw = new.len() as u64 - copied;
    if raw > MAX_MIXED_BYTES || copies.len() > MAX_MATCHES as usize {
        return Ok(None);
    }
    let (mut gaps, mut steps, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    let (old_len, new_len) = (old.len() as u32, new.len() as u32);
    let mut literals = Encoder::new(history_bytes(&copies, old_len, new_len));
    for (run, copy) in runs(&copies, old_len, new_len) {
        if run.len > 0 {
            let at = run.new as usize;
            let front = &new[at.saturating_sub(FRONT_BYTES)..at];
            literals.run(front, &old[run.old as usize..][..run.window as usize], &new[at..][..run.len as usize]);
        }
        let Some(copy) = copy else { continue };
        number(&mut gaps, run.len.into());
        signed(&mut steps, i64::from(copy.old) - i64::from(run.old) - i64::from(run.len));
        number(&mut lengths, copy.len.into());
    }
    let (gaps, gaps_bytes) = compress::smallest(&gaps, CONTROL_WINDOW_LOG, compress::NUMBERS)?;
    let (steps, steps_bytes) = compress::smallest(&steps, CONTROL_WINDOW_LOG, compress::NUMBERS)?;
    let (lengths, lengths_bytes) = compress::smallest(&lengths, CONTROL_WINDOW_LOG, compress::NUMBERS)?;
    let literals = literals.finish();
    let copies = Copies { count: copies.len() as u32, gaps, steps, lengths };
    let edits = Edits { copies, packed: literals.len() as u64, raw };
    Ok(Some((edits, [gaps_bytes, steps_bytes, lengths_bytes, literals])))
}

/// The pieces of `matches` that are equal and worth a copy.
fn exact(old: &[u8], new: &[u8], matches: &[Match]) -> Vec<Match> {
    let mut copies: Vec<Match> = Vec::new();
    let mut distance = 0;
    for found in matches {
        let pair = |at: u32| (old[(found.old + at) as usize], new[(found.new + at) as usize]);
        let mut at = 0;
        while at < found.len {
            let len = (at..found.len).take_while(|at| pair(*at).0 == pair(*at).1).count() as u32;
            let copy = Match { new: found.new + at, old: found.old + at, len };
            let to = i64::from(copy.new) - i64::from(copy.old);
            if len >= if to == distance { MIN_IN_STEP_BYTES } else { MIN_BYTES } {
                distance = to;
                copies.push(copy);
            }
            at += len + 1;
        }
    }
    copies
}
