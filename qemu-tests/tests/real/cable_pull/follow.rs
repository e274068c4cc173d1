//! What the plugged disk is told, followed while it is told it: the growing log of `blklogwrites` (its format stands with
//! `qemu_tests::block_log`).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use firmware_image::journal::{JOURNAL_MAGIC, JOURNAL_SLOT_BYTES, Journal, State};
use qemu_tests::block_log::SECTOR_BYTES;

const DISCARD: u64 = 4;

/// How far the writing came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Writes since the plug.
    pub writes: u64,
    /// Of these, into the hidden zone.
    pub hidden: u64,
    /// Of these, into the free zone while the journal says that a commit is open, or that it is being cleaned up.
    pub commit: u64,
    /// Entries of the log.
    pub entries: u64,
    /// Entries before the journal opened.
    pub opened: Option<u64>,
    /// Entries before the first write into the hidden zone, and [`Self::commit`] then.
    pub hidden_from: Option<(u64, u64)>,
    /// The journal says that what the commit needed is being cleared away.
    pub cleaning: bool,
}

/// A log that grows.
pub struct Follow {
    file: File,
    at: u64,
    hidden: Range<u64>,
    journal: (u64, State),
    /// What it told so far.
    pub progress: Progress,
}

impl Follow {
    /// Follows the log of a disk whose hidden zone is at `hidden`, bytes, and whose journal says `journal`.
    pub fn new(log: &Path, hidden: Range<u64>, journal: State) -> Self {
        let file = File::open(log).unwrap();
        Self { file, at: SECTOR_BYTES, hidden, journal: (0, journal), progress: Progress::default() }
    }

    /// Reads what came until `enough` holds; whether it does.
    pub fn until(&mut self, enough: impl Fn(&Progress) -> bool) -> bool {
        while !enough(&self.progress) {
            if !self.step() {
                return false;
            }
        }
        true
    }

    fn number(&self, at: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// One entry, if there is one.
    fn step(&mut self) -> bool {
        if self.number(16).is_none_or(|count| count <= self.progress.entries) {
            return false;
        }
        let (Some(sector), Some(sectors), Some(flags)) =
            (self.number(self.at), self.number(self.at + 8), self.number(self.at + 16))
        else {
            return false;
        };
        let (offset, length) = (sector * SECTOR_BYTES, sectors * SECTOR_BYTES);
        self.at += SECTOR_BYTES;
        if length > 0 && flags & DISCARD == 0 {
            let mut data = vec![0; usize::try_from(length).unwrap()];
            self.file.read_exact_at(&mut data, self.at).unwrap();
            self.at += length;
            self.note(offset, &data);
        }
        self.progress.entries += 1;
        true
    }

    fn note(&mut self, offset: u64, data: &[u8]) {
        let progress = &mut self.progress;
        progress.writes += 1;
        if self.hidden.contains(&offset) {
            progress.hidden += 1;
            progress.hidden_from.get_or_insert((progress.entries, progress.commit));
            return;
        }
        let was_open = self.journal.1 != State::Idle;
        for at in (0..data.len()).step_by(SECTOR_BYTES as usize) {
            let slot =
                data.get(at..at + JOURNAL_SLOT_BYTES).and_then(|slot| <&[u8; JOURNAL_SLOT_BYTES]>::try_from(slot).ok());
            let Some(slot) = slot.filter(|slot| slot.starts_with(&JOURNAL_MAGIC)) else { continue };
            let Ok(Some(journal)) = Journal::decode(slot) else { continue };
            let mut sequence = [0; 8];
            sequence.copy_from_slice(&slot[12..20]);
            let sequence = u64::from_le_bytes(sequence);
            if sequence > self.journal.0 {
                self.journal = (sequence, journal.state());
            }
        }
        let is_open = self.journal.1 != State::Idle;
        if is_open {
            progress.opened.get_or_insert(progress.entries);
        }
        if is_open || was_open {
            progress.commit += 1;
        }
        progress.cleaning |= matches!(self.journal.1, State::Cleaning { .. });
    }
}
