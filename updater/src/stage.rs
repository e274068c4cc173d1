//! Staging: every new content complete and verified under `.holdfast/staging`, named by its digest, before anything is
//! replaced (F4).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::{Digest, RawZone, paths};
use release_store::chunk_list::ChunkEntry;
use release_store::frame::{FrameKind, FrameReader};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::plan::{Content, LocalChunk, Plan, Way};
use crate::room::OnTheWay;
use crate::spool::Spool;
use crate::zone_io::{self, CopyJob};

/// What came of staging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Staged {
    /// Everything is there.
    All,
    /// These sources are not what they seemed; the plan must do without them. None: a frame in the spool.
    Distrust(Vec<String>),
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Removes what earlier runs staged and this plan does not take as it is.
    pub(crate) fn clear_leftovers(&mut self, plan: &Plan) -> Result<(), EngineError> {
        // What is not whole is made anew: until then it would take its room twice.
        let staged = plan.contents.iter().filter(|content| content.way == Way::Staged);
        let mut wanted: HashMap<Digest, u64> = staged.map(|content| (content.digest, content.size)).collect();
        wanted.insert(plan.release.manifest, plan.verified.bytes().len() as u64);
        let kept = [&plan.sealed_list, &plan.statement, &plan.previous_statement].into_iter().flatten();
        wanted.extend(kept.map(|bytes| (Digest::of(bytes), bytes.len() as u64)));
        let is_wanted = |digest: Digest, length: u64| wanted.get(&digest) == Some(&length);
        let unwanted = |(name, length): &(String, u64)| Digest::from_hex(name).is_some_and(|d| !is_wanted(d, *length));
        let names = zone_io::files_in(self.free, paths::STAGING_DIR)?.into_iter().filter(unwanted);
        zone_io::remove_all(self.free, paths::STAGING_DIR, names.map(|(name, _)| name))
    }

    /// Stages every content of the plan, its manifest, its chunk list and what vouches for it.
    pub(crate) fn stage(&mut self, plan: &Plan, spool: &mut Spool<'_, F>) -> Result<Staged, EngineError> {
        let total = plan.contents.iter().filter(|content| content.way != Way::Staged).map(|content| content.size).sum();
        self.watch.begin("Staging", total);
        let result = self.stage_contents(plan, spool);
        self.watch.end();
        let staged = result?;
        if staged != Staged::All {
            return Ok(staged);
        }
        let manifest = Self::staged(&plan.release.manifest);
        zone_io::write_if_changed(self.free, &manifest, plan.verified.bytes())?;
        for bytes in [&plan.sealed_list, &plan.statement, &plan.previous_statement].into_iter().flatten() {
            zone_io::write_if_changed(self.free, &Self::staged(&Digest::of(bytes)), bytes)?;
        }
        zone_io::sync_parents(self.free, &manifest)?;
        // All frames are in staged copies now, and their space may be needed for undo copies.
        spool.clear()?;
        Ok(Staged::All)
    }

    fn stage_contents(&self, plan: &Plan, spool: &mut Spool<'_, F>) -> Result<Staged, EngineError> {
        let mut builder = Builder {
            zone: self.free,
            keys: self.content_keys(),
            reader: FrameReader::new()?,
            frame: Vec::new(),
            chunk: Vec::new(),
            open: None,
        };
        for content in plan.contents.iter().filter(|content| content.way == Way::Staged) {
            // Whoever wrote it may have been ended before it was flushed.
            let path = Self::staged(&content.digest);
            let flushed = self.free.open_rw(&path).and_then(|mut file| file.flush());
            flushed.map_err(EngineError::zone("write", &path))?;
        }
        if let Some(distrust) = self.stage_copies(plan)? {
            return Ok(distrust);
        }
        let on_the_way = OnTheWay::of(plan);
        let mut applied = HashSet::new();
        for content in &plan.contents {
            let target = Self::staged(&content.digest);
            let staged = match &content.way {
                // One patch may give many contents, all at once.
                Way::Patch { patch, .. } if !applied.insert(*patch) => continue,
                Way::Patch { patch, .. } => self.apply_patch(&plan.patches[*patch], spool).and_then(|staged| {
                    if staged == Staged::All {
                        let read = on_the_way.last_read_by(*patch).map(|(digest, _)| digest.to_string());
                        zone_io::remove_all(self.free, paths::STAGING_DIR, read)?;
                    }
                    Ok(staged)
                }),
                Way::Staged | Way::Copy { .. } => continue,
                Way::Chunks { .. } => builder.build(plan, content, &target, spool, &|n| self.watch.advance(n)),
            };
            self.watch.step("staged");
            if !matches!(staged, Ok(Staged::All)) {
                // A part of it would keep room that others need.
                let removed = zone_io::remove(self.free, &target);
                let staged = staged?;
                removed?;
                return Ok(staged);
            }
        }
        Ok(Staged::All)
    }

    /// Stages what stands on the device under another name. What is returned are the copies that are not what they seemed.
    fn stage_copies(&self, plan: &Plan) -> Result<Option<Staged>, EngineError> {
        let copy = |content: &'_ Content| match &content.way {
            Way::Copy { from } => Some((from.clone(), content.digest, content.size)),
            _ => None,
        };
        let wanted: Vec<_> = plan.contents.iter().filter_map(copy).collect();
        let copies: Vec<CopyJob<'_>> = wanted
            .iter()
            .map(|(from, digest, length)| CopyJob { from, to: Self::staged(digest), length: *length, digest: *digest })
            .collect();
        let mut done = |_: &CopyJob<'_>| {
            self.watch.step("staged");
            Ok(())
        };
        let wrong = zone_io::copy_all(self.free, &copies, &|n| self.watch.advance(n), &mut done)?;
        let Some(place) = wrong else { return Ok(None) };
        // Where one is wrong, others may be, and a plan for each of them would be one too many.
        let mut sources = vec![copies[place].from.to_owned()];
        for copy in &copies[place + 1..] {
            if !zone_io::file_is(self.free, copy.from, copy.length, &copy.digest)? {
                sources.push(copy.from.to_owned());
            }
        }
        Ok(Some(Staged::Distrust(sources)))
    }
}

/// Builds contents from chunks.
struct Builder<'z, F: FreeZone + 'z> {
    zone: &'z F,
    keys: release_store::ContentKeys,
    reader: FrameReader,
    frame: Vec<u8>,
    chunk: Vec<u8>,
    /// The file that the last local chunk came from.
    open: Option<(Rc<str>, F::File<'z>)>,
}

impl<F: FreeZone> Builder<'_, F> {
    fn build(
        &mut self,
        plan: &Plan,
        content: &Content,
        target: &str,
        spool: &mut Spool<'_, F>,
        advance: &dyn Fn(u64),
    ) -> Result<Staged, EngineError> {
        let nowhere = || EngineError::Unobtainable { digest: content.digest, path: content.path.clone() };
        let failed = || EngineError::zone("write", target);
        let mut out = self.zone.create(target).map_err(failed())?;
        out.reserve(content.size).map_err(failed())?;
        let mut hasher = Hasher::new();
        if content.size > 0 {
            let found = plan.lists.iter().find_map(|list| Some((list, list.content(&content.digest)?)));
            let (list, entry) = found.ok_or_else(nowhere)?;
            for (_, chunk) in list.chunks_of(entry) {
                let source = self.load(chunk, &plan.local, spool)?;
                if source != Staged::All {
                    return Ok(source);
                }
                hasher.update(&self.chunk);
                zone_io::write_all(&mut out, &self.chunk).map_err(failed())?;
                advance(self.chunk.len() as u64);
            }
        }
        if hasher.finish() != content.digest {
            // Each chunk is what the signed list says, so the list itself does not lead to this content.
            return Err(nowhere());
        }
        out.flush().map_err(failed())?;
        Ok(Staged::All)
    }

    /// Loads a chunk from the spool or from a file on the device.
    fn load(
        &mut self,
        chunk: &ChunkEntry,
        local: &HashMap<Digest, LocalChunk>,
        spool: &mut Spool<'_, F>,
    ) -> Result<Staged, EngineError> {
        self.chunk.clear();
        if let Some((id, number)) = spool.read(FrameKind::Chunk, &chunk.digest, &mut self.frame)? {
            let opened = self.keys.get(number).and_then(|key| self.reader.open(key, &id, &self.frame).ok());
            return Ok(match opened {
                Some(frame) => {
                    self.chunk.extend_from_slice(frame.bytes());
                    Staged::All
                }
                None => {
                    // It would be found again at the next start.
                    spool.clear()?;
                    Staged::Distrust(Vec::new())
                }
            });
        }
        let Some(at) = local.get(&chunk.digest) else { return Ok(Staged::Distrust(Vec::new())) };
        let distrust = Staged::Distrust(vec![at.file.to_string()]);
        if self.open.as_ref().is_none_or(|(path, _)| *path != at.file) {
            let file = self.zone.open(&at.file).map_err(EngineError::zone("read", &at.file))?;
            let Some(file) = file else { return Ok(distrust) };
            self.open = Some((at.file.clone(), file));
        }
        let Some((_, file)) = &mut self.open else { return Ok(distrust) };
        self.chunk.resize(chunk.raw_len as usize, 0);
        let read = file.seek(SeekFrom::Start(at.offset)).and_then(|_| zone_io::read_full(file, &mut self.chunk));
        let sound = read == Ok(self.chunk.len()) && Digest::of(&self.chunk) == chunk.digest;
        Ok(if sound { Staged::All } else { distrust })
    }
}
