//! The plan: for each content that is wanted and not there, the cheapest way to it.
//!
//! A way's cost is the bytes that must come over the network. Ways that cost nothing come first: a copy staged before an
//! interruption, the same content under another name or among the undo copies. Then a content is built from chunks:
//! frames in the spool, chunks of old and of damaged files, frames from the copy of a store that the device carries,
//! frames from a server; or a patch makes it of contents that are here whole ([`crate::patches`]).

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use embedded_io::{Seek as _, SeekFrom};
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::{Digest, RawZone, ZoneError, paths};
use release_store::chunk_list::{ChunkEntry, ChunkList};
use release_store::manifest::{Manifest, Policy};
use release_store::trust::{Release, VerifiedManifest};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::fetch::WantedFrame;
use crate::inventory::{FileState, Inventory, client_path};
use crate::patches::PlannedPatch;
use crate::spool::Spool;
use crate::state::KnownRelease;
use crate::zone_io;

/// How a content is come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// It was staged before an interruption.
    Staged,
    /// A whole copy is on the device.
    Copy {
        /// Where, in the free zone.
        from: Rc<str>,
    },
    /// By a patch.
    Patch {
        /// Its place in [`Plan::patches`].
        patch: usize,
        /// Its share of the bytes of frames that are missing.
        fetch: u64,
        /// The bytes of its own frames, which are not fetched.
        instead_of: u64,
    },
    /// From chunks.
    Chunks {
        /// Bytes of it that are on the device.
        local: u64,
        /// Bytes of frames that are missing.
        fetch: u64,
    },
}

impl Way {
    /// The bytes that must come over the network, and how much work it is beside that.
    fn cost(&self) -> (u64, u8) {
        match self {
            Self::Staged => (0, 0),
            Self::Copy { .. } => (0, 1),
            Self::Patch { fetch, .. } => (*fetch, 2),
            Self::Chunks { fetch, .. } => (*fetch, 3),
        }
    }
}

/// A content that must be staged.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// One of the files it is for; empty: only a patch needs it.
    pub path: String,
    /// How it is come by.
    pub way: Way,
}

impl Content {
    /// The patch that gives it.
    pub(crate) fn patch(&self) -> Option<usize> {
        match self.way {
            Way::Patch { patch, .. } => Some(patch),
            _ => None,
        }
    }
}

/// A file to be written.
#[derive(Debug, Clone)]
pub struct Put {
    /// Its path below the managed directory.
    pub path: String,
    /// Its content.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// How it stood before.
    pub state: FileState,
    /// The length of what stands there now.
    pub old_bytes: Option<u64>,
}

/// Where a chunk is on the device.
#[derive(Debug, Clone)]
pub struct LocalChunk {
    /// In which file of the free zone.
    pub file: Rc<str>,
    /// Where in it.
    pub offset: u64,
}

/// What leads from what is there to a release.
#[derive(Debug)]
pub struct Plan {
    /// The release.
    pub release: KnownRelease,
    /// Its encoded manifest.
    pub verified: VerifiedManifest,
    /// Its manifest.
    pub manifest: Manifest,
    /// The metadata that vouches for it, where it is at hand.
    pub statement: Option<Vec<u8>>,
    /// The same for the installed release, if it is another one.
    pub previous_statement: Option<Vec<u8>>,
    /// Its sealed chunk list, where one was needed.
    pub sealed_list: Option<Vec<u8>>,
    /// Its chunk list and that of a release that it is made of, where they were needed.
    pub lists: Vec<ChunkList>,
    /// The contents to be staged, each once; what a patch needs in front of what it gives.
    pub contents: Vec<Content>,
    /// The files to be written.
    pub puts: Vec<Put>,
    /// The files to be removed: paths below the managed directory, and lengths.
    pub removes: Vec<(String, u64)>,
    /// Files whose mark as executable changes.
    pub marks: Vec<(String, bool)>,
    /// Updaters to be renewed: places in the manifest's list.
    pub updaters: Vec<usize>,
    /// Chunks on the device.
    pub local: HashMap<Digest, LocalChunk>,
    /// Patches to be applied.
    pub patches: Vec<PlannedPatch>,
    /// Frames to be fetched.
    pub frames: Vec<WantedFrame>,
    /// Bytes of those frames.
    pub fetch_bytes: u64,
    /// The managed directory as it stands.
    pub inventory: Inventory,
}

impl Plan {
    /// Whether this release can have a use for the frame of a content.
    pub(crate) fn may_use(&self, digest: &Digest) -> bool {
        self.lists.iter().any(|list| list.chunks.iter().any(|chunk| chunk.digest == *digest))
            || self.frames.iter().any(|frame| frame.id.digest == *digest)
            || self.patches.iter().flat_map(|patch| &patch.parts).any(|part| part.digest == *digest)
    }

    /// Whether no file of the managed directory changes and no updater is renewed.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty() && self.marks.is_empty() && self.updaters.is_empty()
    }
}

/// The installed release.
pub(crate) struct Installed {
    /// What signed metadata says of it.
    pub release: Release,
    /// Its manifest.
    pub manifest: Manifest,
}

/// What is known of the device before a plan is made.
pub(crate) struct Basis {
    /// The release that is wanted.
    pub release: Release,
    /// Its encoded manifest.
    pub verified: VerifiedManifest,
    /// Its manifest.
    pub manifest: Manifest,
    /// The installed release, if it is another one and its manifest is at hand.
    pub installed: Option<Installed>,
    /// Sources that turned out not to be what they should.
    pub distrusted: HashSet<String>,
    /// Updaters are out of reach: plan without them.
    pub without_updaters: bool,
    /// Patches did not come or did not hold: plan without them.
    pub without_patches: bool,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// What a plan to `release` starts from.
    pub(crate) fn basis(&mut self, release: &Release) -> Result<Basis, EngineError> {
        let installed = self.installed_other_than(release);
        let (verified, manifest) = self.manifest(release, installed.as_ref())?;
        Ok(Basis {
            release: release.clone(),
            verified,
            manifest,
            installed,
            distrusted: HashSet::new(),
            without_updaters: false,
            without_patches: false,
        })
    }

    /// Makes the plan. Asks servers for chunk lists at most, and writes nothing.
    pub(crate) fn plan(&mut self, basis: &Basis, spool: &Spool<'_, F>) -> Result<Plan, EngineError> {
        let Basis { manifest, installed, .. } = basis;
        let inventory = crate::inventory::survey(
            self.free,
            manifest,
            installed.as_ref().map(|old| &old.manifest),
            self.hash,
            self.watch,
        )?;
        self.plan_with(basis, inventory, spool)
    }

    /// A plan that renews updaters and leaves the managed directory alone.
    pub(crate) fn plan_updaters(&mut self, basis: &Basis, spool: &Spool<'_, F>) -> Result<Plan, EngineError> {
        self.plan_with(basis, Inventory::default(), spool)
    }

    fn plan_with(&mut self, basis: &Basis, inventory: Inventory, spool: &Spool<'_, F>) -> Result<Plan, EngineError> {
        let Basis { release, verified, manifest, installed, distrusted, .. } = basis;
        let installed = installed.as_ref().map(|installed| &installed.manifest);
        let updaters = if basis.without_updaters { Vec::new() } else { self.outdated_updaters(manifest)? };
        let mut plan = Plan {
            release: release.into(),
            verified: verified.clone(),
            manifest: manifest.clone(),
            statement: self.statement(&release.into()),
            previous_statement: basis.installed.as_ref().and_then(|old| self.statement(&(&old.release).into())),
            sealed_list: None,
            lists: Vec::new(),
            contents: Vec::new(),
            puts: puts(manifest, &inventory),
            removes: inventory.gone.iter().map(|gone| (gone.path.clone(), gone.length)).collect(),
            marks: marks(manifest, installed, &inventory),
            updaters,
            local: HashMap::new(),
            patches: Vec::new(),
            frames: Vec::new(),
            fetch_bytes: 0,
            inventory,
        };
        let whole = self.whole_copies(&plan, installed, distrusted)?;
        let staged = self.staged_copies(&plan)?;
        let mut wanted: Vec<Content> = Vec::new();
        let mut seen = HashSet::new();
        let files = plan.puts.iter().map(|put| (put.digest, put.size, put.path.clone()));
        let images = plan.updaters.iter().map(|at| {
            let updater = &manifest.updaters[*at];
            (updater.sha256, updater.size, paths::updater_name(&updater.platform).as_str().to_owned())
        });
        for (digest, size, path) in files.chain(images) {
            if seen.insert(digest) {
                let mut ways = Vec::new();
                if staged.contains(&digest) {
                    ways.push(Way::Staged);
                }
                ways.extend(whole.get(&(digest, size)).map(|from| Way::Copy { from: from.clone() }));
                if size == 0 {
                    ways.push(Way::Chunks { local: 0, fetch: 0 });
                }
                let way = ways.into_iter().min_by_key(Way::cost);
                wanted.push(Content { digest, size, path, way: way.unwrap_or(Way::Chunks { local: 0, fetch: size }) });
            }
        }
        let bases = self.plan_patches(&mut plan, basis, &whole, &mut wanted, spool)?;
        let mut by_chunks: HashSet<Digest> = wanted
            .iter()
            .filter(|content| matches!(content.way, Way::Chunks { fetch, .. } if fetch > 0))
            .map(|content| content.digest)
            .collect();
        for base in bases {
            let of_base: HashSet<Digest> =
                by_chunks.iter().filter(|digest| base.content(digest).is_some()).copied().collect();
            by_chunks.retain(|digest| !of_base.contains(digest));
            self.plan_chunks(&mut plan, basis, base, &of_base, &mut wanted, spool)?;
        }
        if !by_chunks.is_empty() {
            let sealed = self.sealed_chunk_list(release, true)?;
            let sealed = sealed.ok_or(EngineError::Internal("a chunk list that was asked for is not there"))?;
            let list = ChunkList::open(&sealed, release, manifest, &self.content_keys())?;
            self.plan_chunks(&mut plan, basis, list, &by_chunks, &mut wanted, spool)?;
            plan.sealed_list = Some(sealed);
        }
        // What patches start from, and then the patches in their order.
        wanted.sort_by_key(|content| content.patch().map_or(0, |patch| patch + 1));
        plan.contents = wanted;
        Ok(plan)
    }

    /// Finds each chunk of the contents in `by_chunks` on the device, or marks its frame to be fetched.
    fn plan_chunks(
        &mut self,
        plan: &mut Plan,
        basis: &Basis,
        list: ChunkList,
        by_chunks: &HashSet<Digest>,
        wanted: &mut [Content],
        spool: &Spool<'_, F>,
    ) -> Result<(), EngineError> {
        let mut missing: HashSet<Digest> = HashSet::new();
        for content in by_chunks.iter().filter_map(|digest| list.content(digest)) {
            missing.extend(list.chunks_of(content).map(|(_, chunk)| chunk.digest));
        }
        missing.retain(|digest| !spool.contains(digest));
        self.local_chunks(plan, basis, &list, &mut missing)?;

        let mut fetched: HashSet<Digest> = plan.frames.iter().map(|frame| frame.id.digest).collect();
        for content in wanted.iter_mut().filter(|content| by_chunks.contains(&content.digest)) {
            let entry = list
                .content(&content.digest)
                .ok_or_else(|| EngineError::Unobtainable { digest: content.digest, path: content.path.clone() })?;
            let (mut local, mut fetch) = (0, 0);
            for (_, chunk) in list.chunks_of(entry) {
                if !missing.contains(&chunk.digest) {
                    local += u64::from(chunk.raw_len);
                } else if fetched.insert(chunk.digest) {
                    fetch += u64::from(chunk.stored_len);
                    let (id, pack) = (chunk.frame_id(), *list.pack_of(chunk)?);
                    plan.frames.push(WantedFrame { id, pack, offset: chunk.offset });
                    plan.fetch_bytes += u64::from(chunk.stored_len);
                }
            }
            content.way = Way::Chunks { local, fetch };
        }
        plan.lists.push(list);
        Ok(())
    }

    /// Takes out of `missing` what files on the device hold, and notes where.
    fn local_chunks(
        &mut self,
        plan: &mut Plan,
        basis: &Basis,
        list: &ChunkList,
        missing: &mut HashSet<Digest>,
    ) -> Result<(), EngineError> {
        let old_list = match &basis.installed {
            Some(installed) => self.old_chunk_list(installed, list, missing)?,
            _ => None,
        };
        let old_manifest = basis.installed.as_ref().map(|installed| &installed.manifest);
        let old_digest = |path: &str| old_manifest?.file(path).map(|file| file.sha256);
        let mut sources: Vec<(Rc<str>, &ChunkList, Digest, bool)> = Vec::new();
        for item in &plan.inventory.items {
            let file = &basis.manifest.files[item.file];
            let path: Rc<str> = client_path(&file.path).into();
            if basis.distrusted.contains(&*path) || item.found.is_none() {
                continue;
            }
            match item.state {
                FileState::Current => sources.push((path, list, file.sha256, true)),
                FileState::Outdated => {
                    let old = old_list.as_ref().zip(old_digest(&file.path));
                    sources.extend(old.map(|(list, digest)| (path, list, digest, true)));
                }
                FileState::Modified => {
                    sources.push((path.clone(), list, file.sha256, false));
                    let old = old_list.as_ref().zip(old_digest(&file.path));
                    sources.extend(old.map(|(list, digest)| (path, list, digest, false)));
                }
                FileState::Ignored | FileState::Missing => {}
            }
        }
        for gone in &plan.inventory.gone {
            let path: Rc<str> = client_path(&gone.path).into();
            let old = old_list.as_ref().zip(old_digest(&gone.path));
            sources.extend(old.map(|(list, digest)| (path, list, digest, false)));
        }
        for at in &plan.updaters {
            let updater = &basis.manifest.updaters[*at];
            let path: Rc<str> = paths::updater_name(&updater.platform).as_str().into();
            let old = old_manifest.and_then(|installed| installed.updater(&updater.platform));
            let old = old_list.as_ref().zip(old.map(|old| old.sha256));
            sources.push((path.clone(), list, updater.sha256, false));
            sources.extend(old.map(|(list, digest)| (path, list, digest, false)));
        }
        for (name, _) in zone_io::files_in(self.free, paths::UNDO_DIR)? {
            let Some(digest) = Digest::from_hex(&name) else { continue };
            let path: Rc<str> = Self::undo(&digest).into();
            let known = [Some(list), old_list.as_ref()].into_iter().flatten();
            sources.extend(known.map(|list| (path.clone(), list, digest, false)));
        }
        let trusted = |source: &&(Rc<str>, &ChunkList, Digest, bool)| !basis.distrusted.contains(&*source.0);
        for (path, list, digest, whole) in sources.iter().filter(trusted) {
            if missing.is_empty() {
                break;
            }
            self.take_chunks(path, list, digest, *whole, missing, &mut plan.local)?;
        }
        Ok(())
    }

    /// Notes which of `missing` the file at `path` holds where the content `digest` has them. Unless the file is known
    /// to be `whole`, each is read and checked.
    fn take_chunks(
        &self,
        path: &Rc<str>,
        list: &ChunkList,
        digest: &Digest,
        whole: bool,
        missing: &mut HashSet<Digest>,
        local: &mut HashMap<Digest, LocalChunk>,
    ) -> Result<(), EngineError> {
        let Some(content) = list.content(digest) else { return Ok(()) };
        if !list.chunks_of(content).any(|(_, chunk)| missing.contains(&chunk.digest)) {
            return Ok(());
        }
        let mut file = None;
        if !whole {
            file = match self.free.open(path) {
                Ok(Some(file)) => Some(file),
                // What a scanner lets nobody read is no source.
                Ok(None) | Err(ZoneError::Denied) => return Ok(()),
                Err(error) => return Err(EngineError::zone("read", path)(error)),
            };
        }
        let mut offset = 0;
        let mut bytes = Vec::new();
        for (_, chunk) in list.chunks_of(content) {
            let at = offset;
            offset += u64::from(chunk.raw_len);
            if !missing.contains(&chunk.digest) {
                continue;
            }
            if let Some(file) = &mut file {
                match file.len() {
                    Ok(length) if at + u64::from(chunk.raw_len) <= length => {}
                    _ => return Ok(()),
                }
                bytes.resize(chunk.raw_len as usize, 0);
                let read = file.seek(SeekFrom::Start(at)).and_then(|_| zone_io::read_full(file, &mut bytes));
                // What cannot be read is no source.
                if read != Ok(bytes.len()) || Digest::of(&bytes) != chunk.digest {
                    continue;
                }
            }
            missing.remove(&chunk.digest);
            local.insert(chunk.digest, LocalChunk { file: path.clone(), offset: at });
        }
        Ok(())
    }

    /// The installed release's chunk list, if it is at hand or costs less than it can save.
    fn old_chunk_list(
        &self,
        installed: &Installed,
        list: &ChunkList,
        missing: &HashSet<Digest>,
    ) -> Result<Option<ChunkList>, EngineError> {
        let frame_bytes = |chunk: &ChunkEntry| missing.contains(&chunk.digest).then_some(u64::from(chunk.stored_len));
        let wanted: u64 = list.chunks.iter().filter_map(frame_bytes).sum();
        let Installed { release, manifest } = installed;
        let worth_it = release.chunks.bytes.saturating_mul(4) < wanted;
        let sealed = match self.sealed_chunk_list(release, worth_it) {
            Ok(sealed) => sealed,
            // Only the check window is over: behind the client there is time for it.
            Err(error) if self.servers.meter().time_left().is_some_and(|left| left.is_zero()) => return Err(error),
            // Not having it only means more to download.
            Err(_) => None,
        };
        Ok(sealed.and_then(|sealed| ChunkList::open(&sealed, release, manifest, &self.content_keys()).ok()))
    }

    /// Where whole copies of contents are on the device, by digest and length.
    fn whole_copies(
        &self,
        plan: &Plan,
        installed: Option<&Manifest>,
        distrusted: &HashSet<String>,
    ) -> Result<HashMap<(Digest, u64), Rc<str>>, EngineError> {
        let mut copies: HashMap<(Digest, u64), Rc<str>> = HashMap::new();
        let mut add = |digest: Digest, length: u64, path: String| {
            if !distrusted.contains(&path) {
                copies.entry((digest, length)).or_insert_with(|| path.into());
            }
        };
        for item in &plan.inventory.items {
            if let Some((length, Some(digest))) = item.found {
                add(digest, length, client_path(&plan.manifest.files[item.file].path));
            }
        }
        for gone in &plan.inventory.gone {
            let old = installed.and_then(|manifest| manifest.file(&gone.path));
            if let Some(old) = old.filter(|old| old.size == gone.length) {
                add(old.sha256, old.size, client_path(&gone.path));
            }
        }
        for (name, length) in zone_io::files_in(self.free, paths::UNDO_DIR)? {
            if let Some(digest) = Digest::from_hex(&name) {
                add(digest, length, Self::undo(&digest));
            }
        }
        Ok(copies)
    }

    /// Which wanted contents stand whole in staging.
    fn staged_copies(&self, plan: &Plan) -> Result<HashSet<Digest>, EngineError> {
        let mut sizes: HashMap<Digest, u64> = plan.puts.iter().map(|put| (put.digest, put.size)).collect();
        sizes.extend(plan.updaters.iter().map(|at| {
            let updater = &plan.manifest.updaters[*at];
            (updater.sha256, updater.size)
        }));
        let mut candidates = Vec::new();
        for (name, length) in zone_io::files_in(self.free, paths::STAGING_DIR)? {
            let Some(digest) = Digest::from_hex(&name) else { continue };
            if sizes.get(&digest) == Some(&length) {
                candidates.push(digest);
            }
        }
        let paths: Vec<String> = candidates.iter().map(Self::staged).collect();
        let hashes = (self.hash)(self.free, &paths, self.watch);
        let whole = |(digest, hashed): (Digest, crate::hash::Hashed)| match hashed {
            Ok(Some((_, found))) if found == digest => Some(digest),
            _ => None,
        };
        Ok(candidates.into_iter().zip(hashes).filter_map(whole).collect())
    }
}

fn puts(manifest: &Manifest, inventory: &Inventory) -> Vec<Put> {
    let changed = inventory.items.iter().filter(|item| {
        // A seed is installed where it is missing, a managed file wherever it is not as it should be.
        let seed = manifest.files[item.file].policy == Policy::Seed;
        match item.state {
            FileState::Current | FileState::Ignored => false,
            FileState::Missing => true,
            FileState::Outdated | FileState::Modified => !seed,
        }
    });
    changed
        .map(|item| {
            let file = &manifest.files[item.file];
            Put {
                path: file.path.clone(),
                digest: file.sha256,
                size: file.size,
                executable: file.is_executable(),
                state: item.state,
                old_bytes: item.found.map(|(length, _)| length),
            }
        })
        .collect()
}

/// Files that stay, but whose mark as executable differs from the installed release's.
fn marks(manifest: &Manifest, installed: Option<&Manifest>, inventory: &Inventory) -> Vec<(String, bool)> {
    let kept = inventory.items.iter().filter(|item| item.state == FileState::Current);
    kept.filter_map(|item| {
        let file = &manifest.files[item.file];
        let old = installed?.file(&file.path)?;
        (old.is_executable() != file.is_executable()).then(|| (file.path.clone(), file.is_executable()))
    })
    .collect()
}
