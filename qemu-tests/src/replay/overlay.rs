//! A state as the sectors in which it differs from the image before.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::{Recording, State};
use crate::block_log::{SECTOR_BYTES, Told};

const SECTOR: usize = SECTOR_BYTES as usize;

/// What a sector holds now.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// The sector of a write: where in the data of which entry.
    Log { entry: usize, within: usize },
    /// Zeros, after a discard.
    Zeros,
}

/// Everything up to a flush.
#[derive(Debug, Default, Clone)]
pub(super) struct Durable {
    upto: usize,
    sectors: BTreeMap<u64, Content>,
    digest: u128,
}

/// A state's difference from the image before the recording.
pub struct Overlay {
    durable: Arc<Durable>,
    above: BTreeMap<u64, Content>,
    digest: u128,
}

impl Overlay {
    /// A digest of the whole image: equal images have equal ones, however they came about.
    pub fn digest(&self) -> u128 {
        self.digest
    }
}

impl Recording {
    /// Builds a state.
    ///
    /// # Errors
    /// It is none of this recording: an entry that is no write, is already durable, or was not done yet.
    pub fn overlay(&self, state: &State) -> Result<Overlay> {
        let cut = state.cut();
        ensure!(cut <= self.log.entries().len(), "{state}: the log has {} entries", self.log.entries().len());
        let pending = self.pending(cut);
        let mut overlay = Overlay { durable: self.durable(self.barrier(cut))?, above: BTreeMap::new(), digest: 0 };
        overlay.digest = overlay.durable.digest;
        let known = |number: &usize| {
            ensure!(pending.binary_search(number).is_ok(), "{state}: entry {number} is no write that could be lost");
            Ok(())
        };
        match state {
            State::Prefix { .. } => self.put_all(&mut overlay, &pending),
            State::Lost { lost, .. } => {
                lost.iter().try_for_each(known)?;
                let kept: Vec<usize> = pending.into_iter().filter(|number| !lost.contains(number)).collect();
                self.put_all(&mut overlay, &kept);
            }
            State::Kept { kept, .. } => {
                kept.iter().try_for_each(known)?;
                self.put_all(&mut overlay, kept);
            }
            State::Torn { landed, .. } => {
                ensure!(self.changes(cut), "{state}: entry {cut} is no write");
                self.put_all(&mut overlay, &pending);
                for (first, last) in landed {
                    ensure!(*last < self.sectors(cut), "{state}: entry {cut} has {} sectors", self.sectors(cut));
                    for within in *first..=*last {
                        self.put(&mut overlay, cut, within);
                    }
                }
            }
        }
        Ok(overlay)
    }

    /// Writes the image that an overlay is into a new file, with holes.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn write_image(&self, overlay: &Overlay, path: &Path) -> Result<()> {
        let failed = || format!("cannot write {}", path.display());
        let file = File::create(path).with_context(failed)?;
        file.set_len(self.base.len() as u64).with_context(failed)?;
        for range in &self.filled {
            file.write_all_at(&self.base[range.clone()], range.start as u64).with_context(failed)?;
        }
        let mut run = (0, Vec::new());
        let below = overlay.durable.sectors.iter().filter(|(sector, _)| !overlay.above.contains_key(sector));
        for sectors in [&mut below.into_iter() as &mut dyn Iterator<Item = _>, &mut overlay.above.iter()] {
            for (sector, content) in sectors {
                let offset = sector * SECTOR_BYTES;
                if run.0 + run.1.len() as u64 != offset {
                    file.write_all_at(&run.1, run.0).with_context(failed)?;
                    run = (offset, Vec::new());
                }
                run.1.extend_from_slice(self.content(*content));
            }
            file.write_all_at(&run.1, run.0).with_context(failed)?;
            run = (0, Vec::new());
        }
        Ok(())
    }

    /// Everything before the entry `upto`, which is a flush, or 0.
    fn durable(&self, upto: usize) -> Result<Arc<Durable>> {
        let mut kept = self.durable.lock().map_err(|_| anyhow::anyhow!("another thread failed"))?;
        if kept.upto != upto {
            // States come in the log's order: mostly a few entries are added.
            let mut durable = if kept.upto < upto { Durable::clone(&kept) } else { Durable::default() };
            for number in durable.upto..upto {
                for within in 0..self.sectors(number) {
                    let Some((sector, content)) = self.piece(number, within) else { break };
                    let old = durable.sectors.insert(sector, content);
                    durable.digest ^= self.weight(sector, old) ^ self.weight(sector, Some(content));
                }
            }
            durable.upto = upto;
            *kept = Arc::new(durable);
        }
        Ok(Arc::clone(&kept))
    }

    fn put_all(&self, overlay: &mut Overlay, entries: &[usize]) {
        for number in entries {
            for within in 0..self.sectors(*number) {
                self.put(overlay, *number, within);
            }
        }
    }

    fn put(&self, overlay: &mut Overlay, number: usize, within: u64) {
        if let Some((sector, content)) = self.piece(number, within) {
            let old = overlay.above.insert(sector, content).or_else(|| overlay.durable.sectors.get(&sector).copied());
            overlay.digest ^= self.weight(sector, old) ^ self.weight(sector, Some(content));
        }
    }

    /// The sector that is the `within`-th of an entry, and what it gets; `None` for an entry that changes nothing.
    fn piece(&self, number: usize, within: u64) -> Option<(u64, Content)> {
        let entry = self.entry(number)?;
        let content = match entry.told {
            Told::Write(_) => Content::Log { entry: number, within: usize::try_from(within).ok()? * SECTOR },
            Told::Discard => Content::Zeros,
            Told::Nothing | Told::Mark(_) => return None,
        };
        Some((entry.offset / SECTOR_BYTES + within, content))
    }

    fn content(&self, content: Content) -> &[u8] {
        match content {
            Content::Log { entry, within } => {
                let data = self.entry(entry).map(|entry| self.log.data(entry)).unwrap_or_default();
                data.get(within..within + SECTOR).unwrap_or(&[0; SECTOR])
            }
            Content::Zeros => &[0; SECTOR],
        }
    }

    /// What a sector adds to the image's digest: nothing while it is as it was before the recording.
    fn weight(&self, sector: u64, content: Option<Content>) -> u128 {
        let Some(content) = content.map(|content| self.content(content)) else { return 0 };
        let at = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR);
        if self.base.get(at..at.saturating_add(SECTOR)) == Some(content) {
            return 0;
        }
        let digest = Sha256::new().chain_update(sector.to_le_bytes()).chain_update(content).finalize();
        digest.iter().take(16).fold(0, |weight, byte| weight << 8 | u128::from(*byte))
    }
}
