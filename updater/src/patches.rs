//! Patches: which of them are worth it.
//!
//! A patch makes one or more contents of others. It is taken if each of its sources is here as it should be, or another
//! patch (or chunks of the release that it starts from) gives it, and if all frames that this takes cost less than the
//! frames of what is wanted of what it gives. What a patch is made of need not be trusted: each result is hashed before it
//! counts, and where one is wrong, the plan is made anew without that source or that patch.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use firmware_image::free_zone::FreeZone;
use firmware_image::{Digest, RawZone, paths};
use release_store::chunk_list::ChunkList;
use release_store::step::{Patch, PatchPart};

use crate::engine::Engine;
use crate::fetch::WantedFrame;
use crate::plan::{Basis, Content, Plan, Way};
use crate::spool::Spool;
use crate::steps::Offer;

/// What a content is worth that no chunks of its release give.
const NO_OTHER_WAY: u64 = 1 << 40;
/// The most patches that one content takes.
const MAX_DEPTH: usize = 16;

/// A patch that a plan applies.
#[derive(Debug, Clone)]
pub struct PlannedPatch {
    /// Its frames.
    pub parts: Vec<PatchPart>,
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
    pub(crate) fn key(&self) -> String {
        key(&self.parts)
    }
}

fn key(parts: &[PatchPart]) -> String {
    parts.first().map_or_else(String::new, |part| format!("patch {}", part.digest))
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Takes a patch for each of `wanted` to which one leads that is cheaper than chunks. What patches start from and the
    /// device lacks is added to `wanted`; the chunk list that is returned has its chunks. Not having patches is no error.
    pub(crate) fn plan_patches(
        &mut self,
        plan: &mut Plan,
        basis: &Basis,
        whole: &HashMap<(Digest, u64), Rc<str>>,
        wanted: &mut Vec<Content>,
        spool: &Spool<'_, F>,
    ) -> Option<ChunkList> {
        let missing: HashSet<Digest> = wanted
            .iter()
            .filter(|content| matches!(content.way, Way::Chunks { fetch, .. } if fetch > 0))
            .map(|content| content.digest)
            .collect();
        let made_of_patches = basis.release.base.is_some();
        if missing.is_empty() || (basis.without_patches && !made_of_patches) {
            return None;
        }
        let files = basis.manifest.files.iter().map(|file| (file.sha256, file.stored_bytes));
        let images = basis.manifest.updaters.iter().map(|updater| (updater.sha256, updater.stored_bytes));
        let costs: HashMap<Digest, u64> = files.chain(images).collect();
        let worth = missing.iter().filter_map(|digest| costs.get(digest)).sum();
        let offer = match self.offer(basis, if made_of_patches { NO_OTHER_WAY } else { worth }) {
            Ok(offer) => offer,
            Err(error) => {
                self.watch.detail(&format!("patches are out of reach: {error}"));
                return None;
            }
        };
        let mut here: HashMap<Digest, Rc<str>> = HashMap::new();
        here.extend(whole.iter().map(|((digest, _), path)| (*digest, path.clone())));
        for content in wanted.iter().filter(|content| content.way == Way::Staged) {
            here.insert(content.digest, Self::staged(&content.digest).into());
        }
        for updater in plan.updaters.iter().map(|at| &basis.manifest.updaters[*at]) {
            let path: Rc<str> = paths::updater_name(&updater.platform).as_str().into();
            let installed = basis.installed.as_ref().and_then(|old| old.manifest.updater(&updater.platform));
            if let Some(old) = installed.filter(|_| !basis.distrusted.contains(&*path)) {
                here.entry(old.sha256).or_insert(path);
            }
        }
        let Offer { patches, base } = offer;
        let fetch = |patch: &Patch| {
            let lacks = patch.parts.iter().filter(|part| !spool.contains(&part.digest));
            lacks.map(|part| u64::from(part.stored_len)).sum()
        };
        let patches: Vec<(Patch, u64)> = patches
            .into_iter()
            .filter(|patch| !basis.distrusted.contains(&key(&patch.parts)))
            .map(|patch| (fetch(&patch), patch))
            .map(|(fetch, patch)| (patch, fetch))
            .collect();
        let costs = missing.iter().map(|digest| {
            let cost = costs.get(digest).copied().unwrap_or(0);
            (*digest, if made_of_patches { NO_OTHER_WAY } else { cost })
        });
        let mut choice = Choice {
            giving: giving(&patches),
            sources: patches.iter().flat_map(|(patch, _)| &patch.sources).map(|(digest, _)| *digest).collect(),
            places: wanted.iter().enumerate().map(|(place, content)| (content.digest, place)).collect(),
            patches,
            here,
            base,
            costs: costs.collect(),
            missing,
        };
        choice.take_all(plan, wanted, spool, Self::staged);
        choice.base
    }
}

fn giving(patches: &[(Patch, u64)]) -> HashMap<Digest, Vec<usize>> {
    let mut giving: HashMap<Digest, Vec<usize>> = HashMap::new();
    for (at, (patch, _)) in patches.iter().enumerate() {
        for (digest, _) in &patch.targets {
            giving.entry(*digest).or_default().push(at);
        }
    }
    giving
}

/// How one content is come by that a patch starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Need {
    Patch(usize),
    Chunks(Digest, u64),
}

/// A choice among patches.
struct Choice {
    /// Each with the bytes of its frames that are not here.
    patches: Vec<(Patch, u64)>,
    /// Which of them give a content.
    giving: HashMap<Digest, Vec<usize>>,
    /// What they start from.
    sources: HashSet<Digest>,
    /// Where the wanted contents stand in the plan's list.
    places: HashMap<Digest, usize>,
    /// Contents that are here, and where.
    here: HashMap<Digest, Rc<str>>,
    /// Where chunks of other contents are.
    base: Option<ChunkList>,
    /// What each wanted content costs by chunks.
    costs: HashMap<Digest, u64>,
    /// Wanted contents that nothing gives yet.
    missing: HashSet<Digest>,
}

impl Choice {
    /// Takes the patches that save most, until none saves anything.
    fn take_all<F: FreeZone>(
        &mut self,
        plan: &mut Plan,
        wanted: &mut Vec<Content>,
        spool: &Spool<'_, F>,
        staged: fn(&Digest) -> String,
    ) {
        let mut taken: HashSet<Need> = HashSet::new();
        let mut candidates: Vec<usize> = (0..self.patches.len()).collect();
        loop {
            let mut best: Option<(u64, usize, Vec<Need>)> = None;
            candidates.retain(|at| {
                let targets = self.patches[*at].0.targets.iter().map(|(digest, _)| digest);
                let given: HashSet<&Digest> = targets.filter(|digest| self.missing.contains(*digest)).collect();
                let saved: u64 = given.iter().filter_map(|digest| self.costs.get(*digest)).sum();
                let mut needs = Vec::new();
                if saved == 0 || !self.needs(*at, &mut needs, 0) {
                    return false;
                }
                let new = needs.iter().filter(|need| !taken.contains(*need));
                let fetch: u64 = new.map(|need| self.fetch(need)).sum();
                if fetch >= saved {
                    return false;
                }
                if best.as_ref().is_none_or(|(most, ..)| saved - fetch > *most) {
                    best = Some((saved - fetch, *at, needs));
                }
                true
            });
            let Some((_, at, needs)) = best else { return };
            candidates.retain(|candidate| *candidate != at);
            for need in needs {
                if !taken.insert(need) {
                    continue;
                }
                match need {
                    Need::Chunks(digest, size) => {
                        // Its frames are planned with the other chunks.
                        let way = Way::Chunks { local: 0, fetch: size };
                        wanted.push(Content { digest, size, path: String::new(), way });
                        self.here.insert(digest, staged(&digest).into());
                    }
                    Need::Patch(at) => self.take(at, plan, wanted, spool, staged),
                }
            }
        }
    }

    /// What applying the patch takes, in order, itself last. `false`: it cannot be applied.
    fn needs(&self, at: usize, needs: &mut Vec<Need>, depth: usize) -> bool {
        if depth >= MAX_DEPTH {
            return false;
        }
        for (digest, size) in &self.patches[at].0.sources {
            if self.here.contains_key(digest) {
                continue;
            }
            let mut best: Option<(u64, Vec<Need>)> = None;
            if self.base.as_ref().is_some_and(|base| base.content(digest).is_some()) {
                let need = Need::Chunks(*digest, *size);
                best = Some((self.fetch(&need), vec![need]));
            }
            for other in self.giving.get(digest).into_iter().flatten().filter(|other| **other != at) {
                let mut more = Vec::new();
                if self.needs(*other, &mut more, depth + 1) {
                    let cost = more.iter().map(|need| self.fetch(need)).sum();
                    if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                        best = Some((cost, more));
                    }
                }
            }
            let Some((_, more)) = best else { return false };
            for need in more {
                if !needs.contains(&need) {
                    needs.push(need);
                }
            }
        }
        if !needs.contains(&Need::Patch(at)) {
            needs.push(Need::Patch(at));
        }
        true
    }

    fn fetch(&self, need: &Need) -> u64 {
        match need {
            Need::Patch(at) => self.patches[*at].1,
            Need::Chunks(digest, _) => {
                let base = self.base.as_ref();
                base.and_then(|base| Some(base.stored_bytes(base.content(digest)?))).unwrap_or(NO_OTHER_WAY)
            }
        }
    }

    /// Plans a patch whose sources are here, or will be.
    fn take<F: FreeZone>(
        &mut self,
        at: usize,
        plan: &mut Plan,
        wanted: &mut Vec<Content>,
        spool: &Spool<'_, F>,
        staged: fn(&Digest) -> String,
    ) {
        let (patch, fetch) = &self.patches[at];
        let mut offset = patch.offset;
        for part in &patch.parts {
            let id = part.frame_id();
            if !spool.contains(&id.digest) && !plan.frames.iter().any(|frame| frame.id.digest == id.digest) {
                plan.frames.push(WantedFrame { id, pack: patch.pack, offset });
                plan.fetch_bytes += u64::from(id.stored_len);
            }
            offset += u64::from(part.stored_len);
        }
        let source = |(digest, size): &(Digest, u64)| {
            let path = self.here.get(digest).cloned().unwrap_or_default();
            Source { path, digest: *digest, size: *size }
        };
        let sources = patch.sources.iter().map(source).collect();
        let mut share = *fetch;
        let mut targets = Vec::with_capacity(patch.targets.len());
        for (digest, size) in patch.targets.clone() {
            let mut target = Target { wanted: None, size };
            // Once each, also where a patch gives something twice.
            if self.here.contains_key(&digest) {
                targets.push(target);
                continue;
            }
            // Shown with the first of what it gives.
            let (number, fetch) = (plan.patches.len(), std::mem::take(&mut share));
            if self.missing.remove(&digest) {
                let content = self.places.get(&digest).and_then(|place| wanted.get_mut(*place));
                let instead_of = self.costs.get(&digest).copied().filter(|cost| *cost < NO_OTHER_WAY);
                if let Some(content) = content {
                    content.way = Way::Patch { patch: number, fetch, instead_of: instead_of.unwrap_or(fetch) };
                    target.wanted = Some(digest);
                }
            } else if self.sources.contains(&digest) {
                let way = Way::Patch { patch: number, fetch, instead_of: fetch };
                wanted.push(Content { digest, size, path: String::new(), way });
                target.wanted = Some(digest);
            }
            if target.wanted.is_some() {
                self.here.insert(digest, staged(&digest).into());
            }
            targets.push(target);
        }
        plan.patches.push(PlannedPatch { parts: self.patches[at].0.parts.clone(), sources, targets });
    }
}
