//! Patches: which of them are worth it.
//!
//! A patch makes one or more contents of others. It is taken if each of its sources is here as it should be, or another
//! patch (or chunks of the release that it starts from) gives it, and if all frames that this takes cost less than the
//! frames of what is wanted of what it gives. What a patch is made of need not be trusted: each result is hashed before it
//! counts, and where one is wrong, the plan is made anew without that source or that patch.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::rc::Rc;

use firmware_image::free_zone::FreeZone;
use firmware_image::{Digest, RawZone, paths};
use release_store::chunk_list::ChunkList;
use release_store::step::{Patch, PatchPart};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::fetch::WantedFrame;
use crate::plan::{Basis, Content, Plan, Way};
use crate::spool::Spool;

/// What a content is worth that no chunks of its release give.
const NO_OTHER_WAY: u64 = 1 << 40;
/// The most that is remembered of what patches take, all together.
const MAX_NEEDS: usize = 1 << 20;

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
    /// device lacks is added to `wanted`; the chunk lists that are returned have its chunks. Not having patches is no
    /// error, unless the release is not to be had without.
    ///
    /// # Errors
    /// As asking for steps reports, for a release that is based on another one.
    pub(crate) fn plan_patches(
        &mut self,
        plan: &mut Plan,
        basis: &Basis,
        whole: &HashMap<(Digest, u64), Rc<str>>,
        wanted: &mut Vec<Content>,
        spool: &Spool<'_, F>,
    ) -> Result<Vec<ChunkList>, EngineError> {
        let missing: HashSet<Digest> = wanted
            .iter()
            .filter(|content| matches!(content.way, Way::Chunks { fetch, .. } if fetch > 0))
            .map(|content| content.digest)
            .collect();
        let based = basis.release.base.is_some();
        if missing.is_empty() || (basis.without_patches && !based) {
            return Ok(Vec::new());
        }
        let files = basis.manifest.files.iter().map(|file| (file.sha256, file.stored_bytes));
        let images = basis.manifest.updaters.iter().map(|updater| (updater.sha256, updater.stored_bytes));
        let costs: HashMap<Digest, u64> = files.chain(images).collect();
        let worth =
            missing.iter().filter_map(|digest| costs.get(digest)).fold(0_u64, |sum, cost| sum.saturating_add(*cost));
        let offer = match self.offer(basis, worth) {
            Ok(offer) => offer,
            Err(error) if based => return Err(error),
            Err(error) => {
                self.watch.detail(&format!("patches are out of reach: {error}"));
                return Ok(Vec::new());
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
        let fetch = |patch: &Patch| {
            let lacks = patch.parts.iter().filter(|part| !spool.contains(&part.digest));
            lacks.map(|part| u64::from(part.stored_len)).sum()
        };
        let trusted = offer.patches.into_iter().filter(|patch| !basis.distrusted.contains(&key(&patch.parts)));
        let patches: Vec<(Patch, u64)> = trusted.map(|patch| (fetch(&patch), patch)).map(|(n, p)| (p, n)).collect();
        let costs = missing.iter().map(|digest| {
            let cost = costs.get(digest).copied().unwrap_or(0);
            (*digest, if based { NO_OTHER_WAY } else { cost })
        });
        let mut choice = Choice {
            giving: giving(&patches),
            sources: patches.iter().flat_map(|(patch, _)| &patch.sources).map(|(digest, _)| *digest).collect(),
            places: wanted.iter().enumerate().map(|(place, content)| (content.digest, place)).collect(),
            needs: Vec::new(),
            taken: HashSet::new(),
            patches,
            here,
            bases: offer.bases,
            costs: costs.collect(),
            missing,
            staged: Self::staged,
        };
        let asked_for = wanted.len();
        choice.find_needs();
        choice.take_all(plan, wanted, spool);
        drop_unneeded(plan, wanted, asked_for);
        Ok(choice.bases)
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

/// Leaves out what a patch gives beside what is asked for, and no other patch starts from.
fn drop_unneeded(plan: &mut Plan, wanted: &mut Vec<Content>, asked_for: usize) {
    let asked: HashSet<Digest> = wanted[..asked_for].iter().map(|content| content.digest).collect();
    let sources = plan.patches.iter().flat_map(|patch| &patch.sources).map(|source| source.digest);
    let needed: HashSet<Digest> = sources.chain(asked).collect();
    wanted.retain(|content| needed.contains(&content.digest));
    for target in plan.patches.iter_mut().flat_map(|patch| &mut patch.targets) {
        target.wanted = target.wanted.filter(|digest| needed.contains(digest));
    }
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
    /// What each takes, in the order in which it is done, itself last; `None`: it cannot be applied. What comes here
    /// meanwhile only makes it less.
    needs: Vec<Option<Rc<[Need]>>>,
    /// Which of them give a content.
    giving: HashMap<Digest, Vec<usize>>,
    /// What they start from.
    sources: HashSet<Digest>,
    /// Where the wanted contents stand in the plan's list.
    places: HashMap<Digest, usize>,
    /// Contents that are here, or will be, and where.
    here: HashMap<Digest, Rc<str>>,
    /// Where chunks of other contents are.
    bases: Vec<ChunkList>,
    /// What each wanted content costs by chunks.
    costs: HashMap<Digest, u64>,
    /// Wanted contents that nothing gives yet.
    missing: HashSet<Digest>,
    taken: HashSet<Need>,
    staged: fn(&Digest) -> String,
}

impl Choice {
    /// Takes the patches that save most, until none saves anything.
    fn take_all<F: FreeZone>(&mut self, plan: &mut Plan, wanted: &mut Vec<Content>, spool: &Spool<'_, F>) {
        let mut left: Vec<usize> = (0..self.patches.len()).collect();
        loop {
            let mut heap: BinaryHeap<(u64, Reverse<usize>)> = BinaryHeap::new();
            let mut too_dear = Vec::new();
            for at in left {
                match self.saving(at) {
                    Some(0) => too_dear.push(at),
                    Some(saving) => heap.push((saving, Reverse(at))),
                    None => {}
                }
            }
            let mut took = false;
            while let Some((_, Reverse(at))) = heap.pop() {
                // What was taken since may have changed it, mostly to less.
                let saving = match self.saving(at) {
                    None => continue,
                    Some(0) => {
                        too_dear.push(at);
                        continue;
                    }
                    Some(saving) => saving,
                };
                if heap.peek().is_some_and(|(next, _)| *next > saving) {
                    heap.push((saving, Reverse(at)));
                    continue;
                }
                took = true;
                let Some(needs) = self.needs[at].clone() else { continue };
                for need in needs.iter() {
                    self.take(*need, plan, wanted, spool);
                }
            }
            if !took || too_dear.is_empty() {
                return;
            }
            // What they take may be planned by now.
            left = too_dear;
        }
    }

    /// The bytes that a patch saves, with all that it takes; `None`: it gives nothing that is missing, or cannot be
    /// applied.
    fn saving(&self, at: usize) -> Option<u64> {
        let targets = self.patches[at].0.targets.iter().map(|(digest, _)| digest);
        let given = targets.filter(|digest| self.missing.contains(*digest));
        let saved =
            given.filter_map(|digest| self.costs.get(digest)).fold(0_u64, |sum, cost| sum.saturating_add(*cost));
        if saved == 0 {
            return None;
        }
        let needs = self.needs[at].as_ref()?;
        let fetch: u64 = needs.iter().filter(|need| !self.taken.contains(*need)).map(|need| self.fetch(need)).sum();
        Some(saved.saturating_sub(fetch))
    }

    /// Finds out what each patch takes. They stand in the order of their chains: one needs only such as stand before it.
    fn find_needs(&mut self) {
        let mut total = 0;
        for at in 0..self.patches.len() {
            let needs = self.needs_of(at).filter(|needs| total + needs.len() <= MAX_NEEDS);
            total += needs.as_ref().map_or(0, |needs| needs.len());
            self.needs.push(needs);
        }
    }

    /// What applying a patch takes, where it is known of all before it; `None`: it cannot be applied.
    fn needs_of(&self, at: usize) -> Option<Rc<[Need]>> {
        let mut all: Vec<Need> = Vec::new();
        let mut known: HashSet<Need> = HashSet::new();
        let mut given: HashSet<Digest> = HashSet::new();
        for place in 0..self.patches[at].0.sources.len() {
            let (digest, size) = self.patches[at].0.sources[place];
            if self.here.contains_key(&digest) || given.contains(&digest) {
                continue;
            }
            let mut best: Option<(u64, Rc<[Need]>)> = None;
            if self.bases.iter().any(|base| base.content(&digest).is_some()) {
                let need = Need::Chunks(digest, size);
                best = Some((self.fetch(&need), Rc::new([need])));
            }
            for other in self.giving.get(&digest).into_iter().flatten().filter(|other| **other < at) {
                let Some(needs) = self.needs.get(*other).cloned().flatten() else { continue };
                let cost = needs.iter().filter(|need| !known.contains(*need)).map(|need| self.fetch(need)).sum();
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, needs));
                }
            }
            let (_, needs) = best?;
            for need in needs.iter().filter(|need| known.insert(**need)) {
                all.push(*need);
                match need {
                    Need::Chunks(digest, _) => {
                        given.insert(*digest);
                    }
                    Need::Patch(at) => given.extend(self.patches[*at].0.targets.iter().map(|(digest, _)| *digest)),
                }
            }
        }
        all.push(Need::Patch(at));
        Some(all.into())
    }

    fn fetch(&self, need: &Need) -> u64 {
        match need {
            Need::Patch(at) => self.patches[*at].1,
            Need::Chunks(digest, _) => {
                let found = self.bases.iter().find_map(|base| Some(base.stored_bytes(base.content(digest)?)));
                found.unwrap_or(NO_OTHER_WAY)
            }
        }
    }

    fn take<F: FreeZone>(&mut self, need: Need, plan: &mut Plan, wanted: &mut Vec<Content>, spool: &Spool<'_, F>) {
        if !self.taken.insert(need) {
            return;
        }
        match need {
            Need::Patch(at) => self.take_patch(at, plan, wanted, spool),
            Need::Chunks(digest, _) if self.here.contains_key(&digest) => {}
            Need::Chunks(digest, size) => {
                // Its frames are planned with the other chunks. What is wanted anyway is in the list already.
                if !self.missing.remove(&digest) {
                    let way = Way::Chunks { local: 0, fetch: size };
                    wanted.push(Content { digest, size, path: String::new(), way });
                }
                self.here.insert(digest, (self.staged)(&digest).into());
            }
        }
    }

    /// Plans a patch whose sources are here, or will be.
    fn take_patch<F: FreeZone>(&mut self, at: usize, plan: &mut Plan, wanted: &mut Vec<Content>, spool: &Spool<'_, F>) {
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
            let number = plan.patches.len();
            if self.missing.remove(&digest) {
                let content = self.places.get(&digest).and_then(|place| wanted.get_mut(*place));
                if let Some(content) = content {
                    // Shown with the first of what it gives.
                    let fetch = std::mem::take(&mut share);
                    let instead_of = self.costs.get(&digest).copied().filter(|cost| *cost < NO_OTHER_WAY);
                    content.way = Way::Patch { patch: number, fetch, instead_of: instead_of.unwrap_or(fetch) };
                    target.wanted = Some(digest);
                }
            } else if self.sources.contains(&digest) {
                let way = Way::Patch { patch: number, fetch: 0, instead_of: 0 };
                wanted.push(Content { digest, size, path: String::new(), way });
                target.wanted = Some(digest);
            }
            if target.wanted.is_some() {
                self.here.insert(digest, (self.staged)(&digest).into());
            }
            targets.push(target);
        }
        if share > 0
            && let Some(first) = targets.iter().find_map(|target| target.wanted)
            && let Some(content) = wanted.iter_mut().rev().find(|content| content.digest == first)
        {
            // All that it gives is on the way to something else.
            content.way = Way::Patch { patch: plan.patches.len(), fetch: share, instead_of: share };
        }
        plan.patches.push(PlannedPatch { parts: self.patches[at].0.parts.clone(), sources, targets });
    }
}
