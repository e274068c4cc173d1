//! The log in the free zone: what was done and what was found, for whoever looks after the device (P2).
//!
//! One line an event: `2026-11-20T19:00:00Z word text`. It names releases and paths inside `client/`, never a host, a
//! user, or a path outside of the device. It never grows past twice [`MAX_LOG_BYTES`], and a run in which nothing
//! happened adds nothing. What only stays as it is counts as nothing, too: see [`has`] and
//! [`still_says`].

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::{ZoneError, paths};

use crate::zone_io::write_all;

/// The length from which a log is put aside and a new one begun.
pub const MAX_LOG_BYTES: u64 = 64 << 10;
/// The longest line.
pub const MAX_LINE_BYTES: usize = 512;

/// Adds lines. The log is no part of any promise, so the caller may go on where this fails.
///
/// # Errors
/// What the zone reports.
pub fn append<F: FreeZone>(zone: &F, now: i64, lines: &[String]) -> Result<(), ZoneError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    let time = jiff::Timestamp::from_second(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    for line in lines {
        text.push_str(&format!("{time} {}\n", as_kept(line)));
    }
    let mut file = match zone.open_rw(paths::LOG) {
        // What a cut left of it is not worth more than a new one.
        Err(error) if crate::zone_io::is_damage(error) => zone.create(paths::LOG)?,
        file => file?,
    };
    let mut length = file.len()?;
    if length + text.len() as u64 > MAX_LOG_BYTES && length > 0 {
        drop(file);
        if zone.remove(paths::OLD_LOG)? {
            zone.sync_dir(paths::STATE_DIR)?;
        }
        zone.rename(paths::LOG, paths::OLD_LOG)?;
        file = zone.open_rw(paths::LOG)?;
        length = file.len()?;
    }
    file.seek(SeekFrom::Start(length))?;
    write_all(&mut file, text.as_bytes())?;
    file.flush()?;
    drop(file);
    zone.sync_dir(paths::STATE_DIR)
}

/// A line as the log keeps it.
fn as_kept(line: &str) -> String {
    let mut kept: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=MAX_LINE_BYTES.min(kept.len())).rev().find(|end| kept.is_char_boundary(*end));
    kept.truncate(end.unwrap_or(0));
    kept
}

/// Whether the log has this line already, at whatever time. For what stays as it is from one start to the next: it is worth
/// a line when it comes to be so, and not at every plug-in. A log that cannot be read has no line.
pub fn has<F: FreeZone>(zone: &F, line: &str) -> bool {
    let (lines, line) = (tail(zone, usize::MAX).unwrap_or_default(), as_kept(line));
    lines.iter().any(|known| known.split_once(' ').is_some_and(|(_time, text)| text == line))
}

/// Whether the log has this line behind its last note: since it was written, nothing was done about what it says.
pub fn still_says<F: FreeZone>(zone: &F, line: &str) -> bool {
    let (lines, line) = (tail(zone, usize::MAX).unwrap_or_default(), as_kept(line));
    let texts = lines.iter().rev().filter_map(|known| Some(known.split_once(' ')?.1));
    texts.take_while(|text| !text.starts_with("note ")).any(|text| text == line)
}

/// The newest lines, at most `count`.
///
/// # Errors
/// What reading reports.
pub fn tail<F: FreeZone>(zone: &F, count: usize) -> Result<Vec<String>, crate::EngineError> {
    let bytes = crate::zone_io::read_small(zone, paths::LOG, 2 * MAX_LOG_BYTES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    Ok(lines[lines.len().saturating_sub(count)..].to_vec())
}
