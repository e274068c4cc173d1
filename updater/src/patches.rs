//! Patches: which of them are worth it, and applying them.
//!
//! A patch makes one or more contents of contents that the device has whole. Which ones lead from the installed release
//! stands in a set that the manifest names. A patch is taken if all of its sources are here, as they should be, and its
//! frames cost less than the frames of what is wanted of what it gives. What a patch is made of need not be trusted: each
//! result is hashed before it counts, and where one is wrong, the plan is made anew without that source or that patch.

use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::{Digest, RawZone, paths};
use release_store::ContentKeys;
use release_store::chunk_list::PackEntry;
use release_store::frame::{FrameKind, FrameReader};
use release_store::patch::{PatchError, ReadAt, apply};
use release_store::patch_set::{Edge, PatchEntry, PatchSet};
use release_store::transport::get_range;

use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::fetch::WantedFrame;
use crate::plan::{Basis, Content, Plan, Way};
use crate::spool::Spool;
use crate::stage::Staged;
use crate::zone_io;

/// Parts of a patch that are held at once: its streams are read beside each other.
const HELD_PARTS: usize = 8;

/// A patch that a plan applies.
#[derive(Debug, Clone)]
pub struct PlannedPatch {
    /// What it is.
    pub entry: PatchEntry,
    /// Its sources, in order.
    pub sources: Vec<Source>,
    /// What it gives, in order.
    pub targets: Vec<Target>,
}

/// A content that a patch starts from.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it stands in the free zone.
    pub path: Rc<str>,
    /// What it should be.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
}

/// A content that a patch gives.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its digest, where it is wanted.
    pub wanted: Option<Digest>,
    /// Its length.
    pub size: u64,
}

impl PlannedPatch {
    /// What a plan calls it when it turned out not to hold.
    fn key(&self) -> String {
        key(&self.entry)
    }
}

fn key(patch: &PatchEntry) -> String {
    patch.parts.first().map_or_else(String::new, |part| format!("patch {}", part.digest))
}

/// A patch that could be taken.
struct Candidate {
    patch: PlannedPatch,
    pack: PackEntry,
    offset: u64,
    /// Bytes of its frames that are not here.
    fetch: u64,
    /// Bytes of the frames of what is wanted of what it gives.
    saved: u64,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Takes a patch for each of `wanted` to which one leads that is cheaper than chunks. Not having patches is no error.
    pub(crate) fn plan_patches(
        &mut self,
        plan: &mut Plan,
        basis: &Basis,
        whole: &HashMap<(Digest, u64), Rc<str>>,
        wanted: &mut [Content],
        spool: &Spool<'_, F>,
    ) {
        let missing: HashSet<Digest> = wanted
            .iter()
            .filter(|content| matches!(content.way, Way::Chunks { fetch, .. } if fetch > 0))
            .map(|content| content.digest)
            .collect();
        let Some(installed) = basis.installed.as_ref().filter(|_| !basis.without_patches && !missing.is_empty()) else {
            return;
        };
        let files = basis.manifest.files.iter().map(|file| (file.sha256, file.stored_bytes));
        let images = basis.manifest.updaters.iter().map(|updater| (updater.sha256, updater.stored_bytes));
        let costs: HashMap<Digest, u64> = files.chain(images).collect();
        let total: u64 = missing.iter().filter_map(|digest| costs.get(digest)).sum();
        let mut here: Vec<Source> = Vec::new();
        here.extend(whole.iter().map(|((digest, size), path)| Source {
            path: path.clone(),
            digest: *digest,
            size: *size,
        }));
        for updater in plan.updaters.iter().map(|at| &basis.manifest.updaters[*at]) {
            let path: Rc<str> = paths::updater_name(&updater.platform).as_str().into();
            if let Some(old) = installed.updater(&updater.platform).filter(|_| !basis.distrusted.contains(&*path)) {
                here.push(Source { path, digest: old.sha256, size: old.size });
            }
        }
        // The same order, whatever the order in a table: plans are made again and should come out the same.
        here.sort_by(|a, b| (a.digest, &a.path).cmp(&(b.digest, &b.path)));

        let direct = basis.manifest.edges.iter().filter(|edge| edge.from == installed.serial);
        let mut edges: Vec<&Edge> = direct.collect();
        if edges.is_empty() {
            // Files that did not change since may have patches all the same.
            edges = basis.manifest.edges.iter().collect();
        }
        let mut candidates = Vec::new();
        for edge in edges {
            if u64::from(edge.stored_len) >= total {
                continue;
            }
            let Some(set) = self.patch_set(edge) else { continue };
            let named: HashMap<&[u8], &Source> = here.iter().map(|source| (set.name(&source.digest), source)).collect();
            let sized = wanted.iter().filter(|content| missing.contains(&content.digest));
            let gives: HashMap<(&[u8], u64), Digest> =
                sized.map(|content| ((set.name(&content.digest), content.size), content.digest)).collect();
            let mut offset = u64::from(edge.stored_len);
            for entry in &set.patches {
                let at = offset;
                offset += entry.stored_bytes();
                let sources: Option<Vec<Source>> =
                    set.sources(entry).map(|name| named.get(name).map(|source| (*source).clone())).collect();
                let Some(sources) = sources.filter(|_| !basis.distrusted.contains(&key(entry))) else { continue };
                let targets: Vec<Target> = set
                    .targets(entry)
                    .map(|(name, size)| Target { wanted: gives.get(&(name, size)).copied(), size })
                    .collect();
                let lacks = entry.parts.iter().filter(|part| !spool.contains(&part.digest));
                let fetch = lacks.map(|part| u64::from(part.stored_len)).sum();
                let patch = PlannedPatch { entry: entry.clone(), sources, targets };
                candidates.push(Candidate { patch, pack: edge.pack, offset: at, fetch, saved: 0 });
            }
        }
        self.take_candidates(plan, candidates, &costs, wanted, missing, spool);
    }

    fn take_candidates(
        &self,
        plan: &mut Plan,
        mut candidates: Vec<Candidate>,
        costs: &HashMap<Digest, u64>,
        wanted: &mut [Content],
        mut missing: HashSet<Digest>,
        spool: &Spool<'_, F>,
    ) {
        loop {
            for candidate in &mut candidates {
                let given = candidate.patch.targets.iter().filter_map(|target| target.wanted);
                let given: HashSet<Digest> = given.filter(|digest| missing.contains(digest)).collect();
                candidate.saved = given.iter().filter_map(|digest| costs.get(digest)).sum();
            }
            candidates.retain(|candidate| candidate.fetch < candidate.saved);
            let best = (0..candidates.len()).max_by_key(|at| candidates[*at].saved - candidates[*at].fetch);
            let Some(best) = best.map(|at| candidates.remove(at)) else { return };
            let Candidate { mut patch, pack, mut offset, fetch, .. } = best;
            for part in &patch.entry.parts {
                let id = part.frame_id();
                if !spool.contains(&id.digest) && !plan.frames.iter().any(|frame| frame.id.digest == id.digest) {
                    plan.frames.push(WantedFrame { id, pack, offset });
                    plan.fetch_bytes += u64::from(id.stored_len);
                }
                offset += u64::from(part.stored_len);
            }
            let mut share = fetch;
            for target in &mut patch.targets {
                target.wanted = target.wanted.filter(|digest| missing.remove(digest));
                let content =
                    target.wanted.and_then(|digest| wanted.iter_mut().find(|content| content.digest == digest));
                if let Some(content) = content {
                    let instead_of = costs.get(&content.digest).copied().unwrap_or(0);
                    // Shown with the first of what it gives.
                    content.way =
                        Way::Patch { patch: plan.patches.len(), fetch: std::mem::take(&mut share), instead_of };
                }
            }
            plan.patches.push(patch);
        }
    }

    /// The patches of `edge`; `None` where they are not to be had, or do not hold.
    fn patch_set(&mut self, edge: &Edge) -> Option<PatchSet> {
        if let Some(known) = self.patch_sets.get(&edge.set) {
            return known.clone();
        }
        let (end, path) = (u64::from(edge.stored_len), edge.pack.path());
        let keys = self.content_keys();
        let fetch = |transport: &dyn release_store::Transport| {
            let mut sealed = Vec::new();
            get_range(transport, &path, 0..end, edge.pack.bytes, &mut |_, piece| {
                sealed.extend_from_slice(piece);
                Ok(())
            })?;
            PatchSet::open(&sealed, edge, &keys)
        };
        let mut found = self.offline.as_deref().and_then(|offline| fetch(offline).ok());
        if found.is_none() && !self.on_device_only {
            match self.servers.ask(fetch) {
                Ok(set) => found = Some(set),
                // Time was up: whoever has more of it may ask again.
                Err(error) if error.kind() == FailureKind::Offline => {
                    self.watch.detail(&format!("patches from release {} have not come yet: {error}", edge.from));
                    return None;
                }
                Err(error) => {
                    self.watch.detail(&format!("patches from release {} are out of reach: {error}", edge.from))
                }
            }
        }
        self.patch_sets.insert(edge.set, found.clone());
        found
    }

    /// Applies a patch: what is wanted of what it gives is staged.
    pub(crate) fn apply_patch(&self, patch: &PlannedPatch, spool: &mut Spool<'_, F>) -> Result<Staged, EngineError> {
        let advance = |bytes| self.watch.advance(bytes);
        let mut output = Output { zone: self.free, targets: &patch.targets, next: 0, open: None, failed: None };
        let new_len = patch.targets.iter().map(|target| target.size).sum();
        let old_len = patch.sources.iter().map(|source| source.size).sum();
        let mut parts = Parts {
            patch,
            keys: &self.content_keys(),
            reader: FrameReader::new()?,
            spool,
            held: Vec::new(),
            bad: false,
        };
        let mut old = Sources { zone: self.free, sources: &patch.sources, open: None };
        let applied = apply(&mut parts, &mut old, old_len, new_len, &mut |bytes| output.write(bytes, &advance));
        let applied = applied.and_then(|()| output.finish().map_err(PatchError::Output));
        let bad_frame = parts.bad;
        drop(old);
        let Err(error) = applied else { return Ok(Staged::All) };
        if let Some(error) = output.abandon()? {
            return Err(error);
        }
        self.watch.detail(&format!("a patch did not hold: {error}"));
        if bad_frame {
            // It would be found again at the next start.
            spool.clear()?;
            return Ok(Staged::Distrust(patch.key()));
        }
        for source in &patch.sources {
            if !zone_io::file_is(self.free, &source.path, source.size, &source.digest)? {
                return Ok(Staged::Distrust(source.path.to_string()));
            }
        }
        Ok(Staged::Distrust(patch.key()))
    }
}

/// The sources of a patch, one behind the other.
struct Sources<'a, F: FreeZone> {
    zone: &'a F,
    sources: &'a [Source],
    open: Option<(usize, F::File<'a>)>,
}

impl<F: FreeZone> ReadAt for Sources<'_, F> {
    fn read_at(&mut self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        for (number, source) in self.sources.iter().enumerate() {
            if at >= source.size {
                at -= source.size;
                continue;
            }
            let len = (source.size - at).min(out.len() as u64) as usize;
            if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                let file = self.zone.open(&source.path).map_err(other)?;
                self.open = Some((number, file.ok_or(io::ErrorKind::NotFound)?));
            }
            let Some((_, file)) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
            let (piece, rest) = out.split_at_mut(len);
            let read = file.seek(SeekFrom::Start(at)).and_then(|_| zone_io::read_full(file, piece)).map_err(other)?;
            if read < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (at, out) = (0, rest);
            if out.is_empty() {
                return Ok(());
            }
        }
        if out.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The parts of a patch, as they lie in the spool.
struct Parts<'a, 's, 'z, F: FreeZone> {
    patch: &'a PlannedPatch,
    keys: &'a ContentKeys,
    reader: FrameReader,
    spool: &'s mut Spool<'z, F>,
    held: Vec<(usize, Vec<u8>)>,
    /// A part that is not in the spool, or does not open.
    bad: bool,
}

impl<F: FreeZone> Parts<'_, '_, '_, F> {
    fn part(&mut self, number: usize) -> io::Result<&[u8]> {
        if let Some(place) = self.held.iter().position(|(held, _)| *held == number) {
            // The last is the one that was used last.
            let part = self.held.remove(place);
            self.held.push(part);
        } else {
            let digest = self.patch.entry.parts[number].digest;
            let mut frame = Vec::new();
            let found = self.spool.read(FrameKind::Patch, &digest, &mut frame).map_err(other)?;
            let opened = found.and_then(|(id, key)| self.reader.open(self.keys.get(key)?, &id, &frame).ok());
            let Some(opened) = opened else {
                self.bad = true;
                return Err(io::ErrorKind::InvalidData.into());
            };
            if self.held.len() >= HELD_PARTS {
                self.held.remove(0);
            }
            self.held.push((number, opened.bytes().to_vec()));
        }
        Ok(self.held.last().map(|(_, part)| part.as_slice()).unwrap_or_default())
    }
}

impl<F: FreeZone> ReadAt for Parts<'_, '_, '_, F> {
    fn read_at(&mut self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        for number in 0..self.patch.entry.parts.len() {
            let size = u64::from(self.patch.entry.parts[number].raw_len);
            if at >= size {
                at -= size;
                continue;
            }
            let len = (size - at).min(out.len() as u64) as usize;
            let part = self.part(number)?;
            let (piece, rest) = out.split_at_mut(len);
            // Two parts of one digest and other lengths are a set that contradicts itself.
            let bytes = part.get(at as usize..).and_then(|part| part.get(..len)).ok_or(io::ErrorKind::InvalidData)?;
            piece.copy_from_slice(bytes);
            (at, out) = (0, rest);
            if out.is_empty() {
                return Ok(());
            }
        }
        if out.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// What a patch gives, into staging: each content complete and verified, or not at all.
struct Output<'a, F: FreeZone> {
    zone: &'a F,
    targets: &'a [Target],
    next: usize,
    open: Option<OpenTarget<'a, F>>,
    failed: Option<EngineError>,
}

struct OpenTarget<'a, F: FreeZone + 'a> {
    path: String,
    file: Option<F::File<'a>>,
    hasher: Hasher,
    left: u64,
}

impl<F: FreeZone> Output<'_, F> {
    fn write(&mut self, mut bytes: &[u8], advance: &dyn Fn(u64)) -> io::Result<()> {
        while !bytes.is_empty() {
            self.begin()?;
            let Some(open) = &mut self.open else { return Err(io::ErrorKind::InvalidData.into()) };
            let (piece, rest) = bytes.split_at(open.left.min(bytes.len() as u64) as usize);
            if let Some(file) = &mut open.file {
                let path = &open.path;
                let written = zone_io::write_all(file, piece);
                written.map_err(|error| fail(&mut self.failed, EngineError::zone("write", path)(error)))?;
                open.hasher.update(piece);
                advance(piece.len() as u64);
            }
            open.left -= piece.len() as u64;
            bytes = rest;
            self.end()?;
        }
        Ok(())
    }

    /// Opens the next target, unless one is open.
    fn begin(&mut self) -> io::Result<()> {
        while self.open.is_none() {
            let Some(target) = self.targets.get(self.next) else { return Ok(()) };
            let path = target.wanted.map_or_else(String::new, |digest| format!("{}/{digest}", paths::STAGING_DIR));
            let file = match target.wanted {
                Some(_) => {
                    let created = self.zone.create(&path);
                    let created = created.and_then(|mut file| file.reserve(target.size).map(|()| file));
                    Some(created.map_err(|error| fail(&mut self.failed, EngineError::zone("write", &path)(error)))?)
                }
                None => None,
            };
            self.open = Some(OpenTarget { path, file, hasher: Hasher::new(), left: target.size });
            self.end()?;
        }
        Ok(())
    }

    /// Closes the open target if it is complete.
    fn end(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take_if(|open| open.left == 0) else { return Ok(()) };
        let wanted = self.targets.get(self.next).and_then(|target| target.wanted);
        let found = open.hasher.finish();
        if wanted.is_some_and(|wanted| wanted != found) {
            let hasher = Hasher::new();
            self.open = Some(OpenTarget { path: open.path, file: None, hasher, left: 0 });
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the result has another digest"));
        }
        if let Some(mut file) = open.file {
            let path = &open.path;
            file.flush().map_err(|error| fail(&mut self.failed, EngineError::zone("write", path)(error)))?;
        }
        self.next += 1;
        Ok(())
    }

    /// Closes what is left: contents without bytes.
    fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.next == self.targets.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Removes a target that is not complete. What kept it from being written, if that was it.
    fn abandon(&mut self) -> Result<Option<EngineError>, EngineError> {
        if let Some(OpenTarget { path, file, .. }) = self.open.take() {
            drop(file);
            if !path.is_empty() {
                zone_io::remove(self.zone, &path)?;
            }
        }
        Ok(self.failed.take())
    }
}

/// Keeps the reason for later; what goes through the decoder is a sign only.
fn fail(slot: &mut Option<EngineError>, error: EngineError) -> io::Error {
    *slot = Some(error);
    io::ErrorKind::Other.into()
}

fn other(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}
