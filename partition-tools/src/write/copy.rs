//! The bytes of an image onto a device, and back again past the cache.
//!
//! Holes of the image are skipped, save in the ranges that the caller names: a hole reads as zeros, and what the device held
//! there is not that. What is to come last is held back.

use std::ops::Range;
use std::path::Path;

use firmware_image::RawZone;
use firmware_image::host::FileZone;
use firmware_image::storage::{read_exact_at, write_all_at};

use crate::error::ToolError;
use crate::progress::Progress;

/// Bytes moved at a time: one erase block of most flash.
const CHUNK_BYTES: u64 = 4 << 20;

/// What is to be copied: what the image has data for, and all of `always`, without what is `held` back; ascending.
pub(super) fn ranges(
    source: &FileZone,
    length: u64,
    always: Vec<Range<u64>>,
    held: Vec<Range<u64>>,
) -> Vec<Range<u64>> {
    without(merged([always, data_ranges(source, length)].concat()), &merged(held))
}

/// Copies and compares these ranges; the bytes written.
pub(super) fn copy<Z: RawZone>(
    source: &FileZone,
    device: &mut Z,
    target: &Path,
    ranges: &[Range<u64>],
    progress: &mut dyn Progress,
) -> Result<u64, ToolError> {
    let failed_read = || ToolError::zone("read", "the image");
    let failed = || ToolError::zone("written", target.display().to_string());
    let mut source = source.try_clone().map_err(failed_read())?;
    let total = ranges.iter().map(|range| range.end - range.start).sum();
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    progress.begin("writing", total);
    for piece in pieces(ranges) {
        let part = &mut buffer[..(piece.end - piece.start) as usize];
        read_exact_at(&mut source, piece.start, part).map_err(failed_read())?;
        write_all_at(device, piece.start, part).map_err(failed())?;
        progress.advance(part.len() as u64);
    }
    device.flush().map_err(failed())?;
    device.drop_caches().map_err(failed())?;
    progress.begin("reading back", total);
    let mut back = vec![0; CHUNK_BYTES as usize];
    for piece in pieces(ranges) {
        let length = (piece.end - piece.start) as usize;
        let (part, back) = (&mut buffer[..length], &mut back[..length]);
        read_exact_at(&mut source, piece.start, part).map_err(failed_read())?;
        read_exact_at(device, piece.start, back).map_err(failed())?;
        if let Some(at) = part.iter().zip(&*back).position(|(a, b)| a != b) {
            return Err(ToolError::ReadBack { target: target.to_owned(), offset: piece.start + at as u64 });
        }
        progress.advance(length as u64);
    }
    Ok(total)
}

/// Ranges cut at multiples of the chunk.
fn pieces(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> + '_ {
    ranges.iter().flat_map(|range| {
        let (mut at, end) = (range.start, range.end);
        std::iter::from_fn(move || {
            let next = (at / CHUNK_BYTES + 1).saturating_mul(CHUNK_BYTES).min(end);
            let piece = at..next;
            at = next;
            (piece.start < piece.end).then_some(piece)
        })
    })
}

/// The same bytes in ascending ranges that do not meet.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

/// Ascending ranges without what ascending others have of them.
fn without(ranges: Vec<Range<u64>>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut out = Vec::new();
    for range in ranges {
        let mut at = range.start;
        for other in others.iter().filter(|other| other.start < range.end && range.start < other.end) {
            out.push(at..other.start.max(at));
            at = other.end.max(at);
        }
        out.push(at..range.end.max(at));
    }
    out.retain(|range| !range.is_empty());
    out
}

/// Where the image has data; all of it where the file system does not tell.
fn data_ranges(source: &FileZone, length: u64) -> Vec<Range<u64>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{SeekFrom, seek};
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < length {
            let Ok(start) = seek(source.file(), SeekFrom::Data(at)) else { break };
            let Ok(end) = seek(source.file(), SeekFrom::Hole(start)) else { return whole(length) };
            ranges.push(start..end.min(length));
            at = end;
        }
        // A file of data has at least its first sector: nothing found means nothing told.
        if ranges.is_empty() { whole(length) } else { ranges }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = source;
        whole(length)
    }
}

/// All of an image.
pub(super) fn whole(length: u64) -> Vec<Range<u64>> {
    std::iter::once(0..length).collect()
}
