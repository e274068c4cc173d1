//! Sets every time stamp of a new ISO 9660 image: in the volume descriptors, in the directory records of each tree, and
//! in the Rock Ridge `TF` fields with their continuations (ECMA-119 8.4, 9.1; SUSP 1.12 5.1; RRIP 1.12 4.1.6).
//!
//! Works on an image that was just made here, but believes nothing: every place is within the image, and the number of
//! directories is bounded.

use super::block_cache::BlockCache;
use crate::{RawZone, ZoneError};

const SECTOR: u64 = 2048;
const FIRST_DESCRIPTOR: u64 = 16;
const MAX_DESCRIPTORS: u64 = 16;
const MAX_DIRECTORIES: usize = 1 << 16;
/// A root's record in its volume descriptor, and its length.
const ROOT_RECORD: usize = 156;
const DIRECTORY_FLAG: u8 = 0x02;

/// One moment in the two forms that an image knows.
struct Moment {
    record: [u8; 7],
    descriptor: [u8; 17],
}

impl Moment {
    /// From seconds since 1970 (UTC), within the years 1900 to 2155 that a record holds.
    fn new(timestamp: i64) -> Self {
        let (days, seconds) = (timestamp.div_euclid(86_400), timestamp.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let short = [year - 1900, month, day, hour, minute, second, 0].map(|n| n.clamp(0, 255) as u8);
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00");
        let mut long = [0; 17];
        for (to, from) in long[..16].iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self { record: short, descriptor: long }
    }
}

/// Year, month and day of a day counted from 1970 (proleptic Gregorian; H. Hinnant, *chrono-compatible date
/// algorithms*).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Sets every time stamp of the image at the start of the cache.
pub(super) fn set_all<Z: RawZone>(cache: &mut BlockCache<Z>, timestamp: i64) -> Result<(), ZoneError> {
    let moment = Moment::new(timestamp);
    let mut pending = Vec::new();
    for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
        let at = sector * SECTOR;
        let mut descriptor = [0; SECTOR as usize];
        cache.read_at(at, &mut descriptor)?;
        match descriptor[0] {
            1 | 2 => {
                // Creation and modification; expiration and effect stay unset.
                cache.write_at(at + 813, &moment.descriptor)?;
                cache.write_at(at + 830, &moment.descriptor)?;
                cache.write_at(at + ROOT_RECORD as u64 + 18, &moment.record)?;
                pending.push(extent(&descriptor[ROOT_RECORD..]));
            }
            255 => break,
            _ => {}
        }
    }
    let mut done = 0;
    while let Some((start, length)) = pending.pop() {
        done += 1;
        if done > MAX_DIRECTORIES {
            return Err(ZoneError::Corrupt);
        }
        let mut bytes = vec![0; SECTOR as usize];
        for at in (start..start.saturating_add(length)).step_by(SECTOR as usize) {
            cache.read_at(at, &mut bytes)?;
            set_records(cache, &mut bytes, &moment, &mut pending)?;
            cache.write_at(at, &bytes)?;
        }
    }
    Ok(())
}

/// Where a record's data stands.
fn extent(record: &[u8]) -> (u64, u64) {
    let u32_at =
        |at: usize| u64::from(u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]));
    (u32_at(2) * SECTOR, u32_at(10))
}

/// Sets the records in one sector of a directory; directories below are added to `pending`.
fn set_records<Z: RawZone>(
    cache: &mut BlockCache<Z>,
    sector: &mut [u8],
    moment: &Moment,
    pending: &mut Vec<(u64, u64)>,
) -> Result<(), ZoneError> {
    let mut at = 0;
    while at < sector.len() && sector[at] != 0 {
        let length = usize::from(sector[at]);
        let record = sector.get_mut(at..at + length).filter(|record| record.len() > 33).ok_or(ZoneError::Corrupt)?;
        record[18..25].copy_from_slice(&moment.record);
        let name_length = usize::from(record[32]);
        let special = name_length == 1 && record[33] <= 1;
        if record[25] & DIRECTORY_FLAG != 0 && !special {
            pending.push(extent(record));
        }
        let fields = (33 + name_length).next_multiple_of(2);
        if let Some(fields) = record.get_mut(fields..) {
            set_fields(cache, fields, moment)?;
        }
        at += length;
    }
    Ok(())
}

/// Sets the times in a system use area, and follows its continuation.
fn set_fields<Z: RawZone>(cache: &mut BlockCache<Z>, fields: &mut [u8], moment: &Moment) -> Result<(), ZoneError> {
    let continuation = set_area(fields, moment);
    let Some((start, length)) = continuation else { return Ok(()) };
    let mut bytes = vec![0; length.min(SECTOR) as usize];
    cache.read_at(start, &mut bytes)?;
    // A chain of continuations would be followed one step; the library makes one at most.
    set_area(&mut bytes, moment);
    cache.write_at(start, &bytes)
}

/// Sets the times in one area; where its continuation stands.
fn set_area(area: &mut [u8], moment: &Moment) -> Option<(u64, u64)> {
    let mut continuation = None;
    let mut at = 0;
    while at + 4 <= area.len() {
        let length = usize::from(area[at + 2]);
        let Some(field) = area.get_mut(at..at + length).filter(|field| field.len() >= 4) else { break };
        match [field[0], field[1]] {
            [b'T', b'F'] if field.len() > 5 && field[4] & 0x80 == 0 => {
                for time in field[5..].chunks_exact_mut(7) {
                    time.copy_from_slice(&moment.record);
                }
            }
            [b'C', b'E'] if field.len() >= 28 => {
                let u32_at =
                    |at: usize| u64::from(u32::from_le_bytes([field[at], field[at + 1], field[at + 2], field[at + 3]]));
                continuation = Some((u32_at(4) * SECTOR + u32_at(12), u32_at(20)));
            }
            [b'S', b'T'] => break,
            _ => {}
        }
        at += length;
    }
    continuation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(Moment::new(0).descriptor, *b"1970010100000000\0");
        assert_eq!(Moment::new(951_827_696).descriptor, *b"2000022912345600\0");
        assert_eq!(Moment::new(1_735_689_599).record, [124, 12, 31, 23, 59, 59, 0]);
    }
}
