//! What a disk may hold after its power was cut: a recording (the image before it, and the log of what the disk was told)
//! and the states that it could have left.
//!
//! The rules are those of a disk with a write cache. A flush makes everything before it durable. What came after the last
//! flush may have reached the medium or not, each write by itself, in any order; a write that says so (FUA) is durable when
//! it is done, before a later one is sent. A sector is written whole or not at all.
//!
//! A state has a name from which it can be rebuilt:
//!
//! | name | state |
//! |---|---|
//! | `at:131` | the first 131 entries of the log, each whole |
//! | `torn:131=0-3,7` | these, and of the next one, a write, its sectors 0 to 3 and 7 |
//! | `lost:131=120-124` | the first 131, without these writes after the last flush |
//! | `kept:131=121,118` | up to the last flush before 131, and after it these writes alone, in this order; `none`: no write |

mod name;
mod overlay;
mod states;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

pub use self::name::{Kind, Sectors, State};
pub use self::overlay::Overlay;
pub use self::states::Effort;
use crate::block_log::{BlockLog, Entry, SECTOR_BYTES, Told};

/// Blocks of zeros this large are holes in a rebuilt image.
const HOLE_BYTES: usize = 16 << 10;
/// The image before, and the log, of a recording that is kept.
const BEFORE: &str = "before.img";
const LOG: &str = "writes.log";
/// The largest image that is held in memory, in bytes.
const MAX_IMAGE_BYTES: u64 = 2 << 30;

/// An image, and what was then done to it.
pub struct Recording {
    base: Vec<u8>,
    /// Where the image is not zero.
    filled: Vec<Range<usize>>,
    log: BlockLog,
    durable: std::sync::Mutex<std::sync::Arc<overlay::Durable>>,
}

impl Recording {
    /// The image in the file `base` as it was before, and the log of what came after.
    ///
    /// # Errors
    /// The image cannot be read, or an entry of the log lies outside it.
    pub fn new(base: &Path, log: BlockLog) -> Result<Self> {
        let name = base.display();
        let length = std::fs::metadata(base).with_context(|| format!("cannot read {name}"))?.len();
        ensure!(length <= MAX_IMAGE_BYTES, "{name} is longer than {MAX_IMAGE_BYTES} bytes");
        ensure!(length.is_multiple_of(SECTOR_BYTES), "{name} ends within a sector");
        for (number, entry) in log.entries().iter().enumerate() {
            ensure!(entry.offset + entry.length <= length, "entry {number} lies outside {name}");
        }
        let base = std::fs::read(base).with_context(|| format!("cannot read {name}"))?;
        let zeros = [0; HOLE_BYTES];
        let mut filled: Vec<Range<usize>> = Vec::new();
        for (number, block) in base.chunks(HOLE_BYTES).enumerate() {
            let start = number * HOLE_BYTES;
            match filled.last_mut() {
                _ if *block == zeros[..block.len()] => {}
                Some(last) if last.end == start => last.end += block.len(),
                _ => filled.push(start..start + block.len()),
            }
        }
        Ok(Self { base, filled, log, durable: std::sync::Mutex::default() })
    }

    /// The recording that is kept in a directory: `before.img` and `writes.log`.
    ///
    /// # Errors
    /// As [`Self::new`] and [`BlockLog::open`].
    pub fn open(dir: &Path) -> Result<Self> {
        Self::new(&dir.join(BEFORE), BlockLog::open(&dir.join(LOG))?)
    }

    /// Keeps the recording in a directory, since the names of its states mean nothing without it.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn keep(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        self.write_image(&self.overlay(&State::Prefix { cut: 0 })?, &dir.join(BEFORE))?;
        std::fs::write(dir.join(LOG), self.log.bytes()).with_context(|| format!("cannot write to {}", dir.display()))
    }

    /// The log.
    pub fn log(&self) -> &BlockLog {
        &self.log
    }

    /// The image before the recording.
    pub fn base(&self) -> &[u8] {
        &self.base
    }

    /// How many entries are durable when the first `cut` were done: all before the last flush.
    pub fn barrier(&self, cut: usize) -> usize {
        let before = self.log.entries().get(..cut).unwrap_or_default();
        before.iter().rposition(|entry| entry.flush).unwrap_or(0)
    }

    /// The changes among the first `cut` entries that no flush made durable, by number.
    pub fn pending(&self, cut: usize) -> Vec<usize> {
        (self.barrier(cut)..cut.min(self.log.entries().len())).filter(|number| self.changes(*number)).collect()
    }

    /// Whether an entry changes what the disk holds.
    fn changes(&self, number: usize) -> bool {
        self.entry(number).is_some_and(|entry| matches!(entry.told, Told::Write(_) | Told::Discard) && entry.length > 0)
    }

    fn entry(&self, number: usize) -> Option<&Entry> {
        self.log.entries().get(number)
    }

    /// Sectors of an entry.
    fn sectors(&self, number: usize) -> u64 {
        self.entry(number).map_or(0, |entry| entry.length / SECTOR_BYTES)
    }
}
