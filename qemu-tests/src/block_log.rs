//! What a disk was told, write by write: the log of QEMU's block driver `blklogwrites`, which is also that of the Linux
//! target `dm-log-writes` (`Documentation/admin-guide/device-mapper/log-writes.rst`), version 1. Little-endian:
//!
//! ```text
//! super block, one sector   magic u64 0x6a736677736872 · version u64 1 · entries u64 · sector bytes u32 · zeros
//! entry, one sector         sector u64 · sectors u64 · flags u64 · label bytes u64 · label
//! its data                  sectors × sector bytes; none for a flush, a discard or a mark
//! ```
//! Flags: 1 flush (of everything before it), 2 durable when done (FUA), 4 discard, 8 mark.
//!
//! A log comes from a file of this machine, and is read like one from anywhere: every number is checked before it is used.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// The unit in which disks write; a sector is written whole or not at all.
pub const SECTOR_BYTES: u64 = 512;
/// The longest log that is read, in bytes.
pub const MAX_LOG_BYTES: u64 = 2 << 30;
/// The most entries of a log.
pub const MAX_ENTRIES: u64 = 1 << 20;
/// The end of the largest disk, in bytes: what an `off_t` holds.
const MAX_DISK_BYTES: u64 = i64::MAX as u64;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
const METADATA: u64 = 16;
const HEADER_BYTES: u64 = 32;

/// What the disk was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Write these bytes of the log.
    Write(Range<usize>),
    /// Forget what stands there.
    Discard,
    /// Nothing but the flush that [`Entry::flush`] says.
    Nothing,
    /// A note of whoever recorded.
    Mark(String),
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where on the disk, in bytes; a multiple of 512.
    pub offset: u64,
    /// How much, in bytes; a multiple of 512.
    pub length: u64,
    /// Everything that was done before this entry is durable now.
    pub flush: bool,
    /// This entry is durable when it is done.
    pub fua: bool,
    /// What else.
    pub told: Told,
}

/// A log, held in memory.
pub struct BlockLog {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl BlockLog {
    /// Reads a log's file.
    ///
    /// # Errors
    /// What of it cannot be read, or breaks the format.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let length = std::fs::metadata(path).with_context(|| format!("cannot read the log {name}"))?.len();
        ensure!(length <= MAX_LOG_BYTES, "the log {name} is longer than {MAX_LOG_BYTES} bytes");
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the log {name}"))?;
        Self::decode(bytes).with_context(|| format!("{name} is no log of blklogwrites"))
    }

    /// Understands a log's bytes.
    ///
    /// # Errors
    /// What breaks the format, and where.
    pub fn decode(bytes: Vec<u8>) -> Result<Self> {
        let (Some(magic), Some(version), Some(count)) = (u64_at(&bytes, 0), u64_at(&bytes, 8), u64_at(&bytes, 16))
        else {
            bail!("it ends within its first sector: was anything recorded?");
        };
        let sector = u64_at(&bytes, 24).context("it ends within its first sector")? & u64::from(u32::MAX);
        ensure!(magic == MAGIC, "its magic is {magic:#x}, not {MAGIC:#x}");
        ensure!(version == VERSION, "its version is {version}, not {VERSION}");
        ensure!(
            sector.is_power_of_two() && (SECTOR_BYTES..=65536).contains(&sector),
            "its sectors have {sector} bytes"
        );
        ensure!(count <= MAX_ENTRIES, "it has {count} entries; {MAX_ENTRIES} are the most");
        let mut entries = Vec::new();
        let mut at = sector;
        for number in 0..count {
            let entry = entry(&bytes, &mut at, sector).with_context(|| format!("entry {number} of {count}"))?;
            entries.push(entry);
        }
        Ok(Self { bytes, entries })
    }

    /// The log as it was read.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What was recorded, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes that a write brings; empty for everything else.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        match &entry.told {
            Told::Write(range) => self.bytes.get(range.clone()).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Applies everything in order to an image.
    ///
    /// # Errors
    /// An entry that lies outside it.
    pub fn replay(&self, image: &mut [u8]) -> Result<()> {
        for (number, entry) in self.entries.iter().enumerate() {
            let range = usize::try_from(entry.offset)?..usize::try_from(entry.offset + entry.length)?;
            let place = || format!("entry {number} lies outside the image");
            match &entry.told {
                Told::Write(_) => image.get_mut(range).with_context(place)?.copy_from_slice(self.data(entry)),
                Told::Discard => image.get_mut(range).with_context(place)?.fill(0),
                Told::Nothing | Told::Mark(_) => {}
            }
        }
        Ok(())
    }
}

fn u64_at(bytes: &[u8], at: u64) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// The entry at `at`, which is moved behind it.
fn entry(bytes: &[u8], at: &mut u64, sector: u64) -> Result<Entry> {
    let field = |number: u64| u64_at(bytes, *at + 8 * number).context("the log ends within it");
    let (first, sectors, flags, label) = (field(0)?, field(1)?, field(2)?, field(3)?);
    ensure!(flags & !(FLUSH | FUA | DISCARD | MARK | METADATA) == 0, "unknown flags {flags:#x}");
    let offset = first.checked_mul(sector).filter(|end| *end <= MAX_DISK_BYTES);
    let length = sectors.checked_mul(sector).filter(|end| *end <= MAX_DISK_BYTES);
    let (offset, length) = offset.zip(length).context("it lies beyond the end of any disk")?;
    ensure!(offset + length <= MAX_DISK_BYTES, "it lies beyond the end of any disk");
    let header = *at;
    *at += sector;
    let told = if flags & MARK != 0 {
        ensure!(label <= sector - HEADER_BYTES, "a mark of {label} bytes does not fit its sector");
        let text = range(bytes, header + HEADER_BYTES, label)?;
        Told::Mark(String::from_utf8_lossy(&bytes[text]).into_owned())
    } else if flags & DISCARD != 0 {
        Told::Discard
    } else if length == 0 {
        Told::Nothing
    } else {
        let data = range(bytes, *at, length)?;
        *at += length;
        Told::Write(data)
    };
    Ok(Entry { offset, length, flush: flags & FLUSH != 0, fua: flags & FUA != 0, told })
}

fn range(bytes: &[u8], start: u64, length: u64) -> Result<Range<usize>> {
    let end = start.checked_add(length).filter(|end| *end <= bytes.len() as u64);
    let end = end.context("the log ends within its data")?;
    Ok(usize::try_from(start)?..usize::try_from(end)?)
}
