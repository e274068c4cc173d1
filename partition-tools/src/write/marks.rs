//! Whether a device has the room that it claims: blocks that are like no others, in places where nothing is to stand.
//!
//! A device that claims more than it has drops what is written behind its real end, or puts it somewhere else. The former is
//! seen by the last mark, just before the table at the end; the latter by marks in distances of a power of two, since addresses
//! that wrap around do so at one: what stood in one place then stands in another. What the image has is compared by itself, and
//! would be seen in a mark, or a mark in it. Marks end as the zeros that an image has there.

use std::ops::Range;
use std::path::Path;

use firmware_image::digest::Hasher;
use firmware_image::image::gpt::Extent;
use firmware_image::storage::{read_exact_at, write_all_at};
use firmware_image::{Digest, RawZone, ZoneError};

use crate::error::ToolError;

const MARK_BYTES: u64 = 4096;
/// At most so many stand all over a disk, in equal distances.
const MARKS: u64 = 64;
/// Marks are not nearer than this: one erase block of most flash.
const MIN_STEP_BYTES: u64 = 4 << 20;
/// Room at the end for the backup of any table.
const TABLE_BYTES: u64 = 1 << 20;

/// The marks of one writing.
pub(super) struct Marks {
    /// What no mark of another writing has.
    nonce: [u8; 32],
    places: Vec<u64>,
}

impl Marks {
    /// Marks for a disk of `disk_bytes`: all over it, and at the ends of its parts, but not in what is `written` there, which is
    /// ascending.
    pub(super) fn new(
        disk_bytes: u64,
        parts: impl Iterator<Item = Extent>,
        written: &[Range<u64>],
    ) -> std::io::Result<Self> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(std::io::Error::other)?;
        let step = (disk_bytes / MARKS).next_power_of_two().max(MIN_STEP_BYTES);
        let end = disk_bytes.saturating_sub(TABLE_BYTES) / MARK_BYTES * MARK_BYTES;
        let last = |end: u64| end.saturating_sub(MARK_BYTES) / MARK_BYTES * MARK_BYTES;
        let all_over = (0..end).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        let mut places: Vec<u64> = all_over.chain(parts.map(|part| last(part.end()))).chain([last(end)]).collect();
        places.retain(|place| {
            let mark = *place..*place + MARK_BYTES;
            let next = written.partition_point(|range| range.end <= mark.start);
            mark.start > 0 && mark.end <= end && written.get(next).is_none_or(|range| range.start >= mark.end)
        });
        places.sort_unstable();
        places.dedup();
        Ok(Self { nonce, places })
    }

    pub(super) fn write<Z: RawZone>(&self, disk: &mut Z) -> Result<(), ZoneError> {
        self.places.iter().try_for_each(|place| write_all_at(disk, *place, &self.mark(*place)))?;
        disk.flush()
    }

    /// Looks for all of them, past the cache.
    pub(super) fn check<Z: RawZone>(&self, disk: &mut Z, target: &Path) -> Result<(), ToolError> {
        let failed = || ToolError::zone("read", target.display().to_string());
        disk.drop_caches().map_err(failed())?;
        let mut back = [0; MARK_BYTES as usize];
        for place in &self.places {
            read_exact_at(disk, *place, &mut back).map_err(failed())?;
            if back != *self.mark(*place) {
                return Err(ToolError::ReadBack { target: target.to_owned(), offset: *place });
            }
        }
        Ok(())
    }

    pub(super) fn remove<Z: RawZone>(&self, disk: &mut Z) -> Result<(), ZoneError> {
        self.places.iter().try_for_each(|place| write_all_at(disk, *place, &[0; MARK_BYTES as usize]))?;
        disk.flush()
    }

    fn mark(&self, place: u64) -> Vec<u8> {
        let mut hasher = Hasher::new();
        hasher.update(&self.nonce);
        hasher.update(&place.to_le_bytes());
        let Digest(digest) = hasher.finish();
        digest.repeat(MARK_BYTES as usize / digest.len())
    }
}
