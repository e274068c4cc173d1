//! Steps: what leads from the installed release to another one, directly or over releases between them.
//!
//! A step gives the new manifest and says which patches there are. Most updates take one. Where none leads directly, a
//! chain may, from the installed release or, for a release that the store holds only as patches, from the one that it is
//! made of.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use firmware_image::RawZone;
use firmware_image::free_zone::FreeZone;
use release_store::chunk_list::ChunkList;
use release_store::manifest::Manifest;
use release_store::step::{MAX_ENTRIES, MAX_PLACES, Patch, Step};
use release_store::trust::{Release, Releases, VerifiedManifest};

use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::plan::{Basis, Installed};

/// The most steps of a chain.
const MAX_CHAIN: usize = 16;

/// The patches that may be of use for a plan.
#[derive(Default)]
pub(crate) struct Offer {
    /// The patches.
    pub patches: Vec<Patch>,
    /// Chunk lists of the releases that a based one is made of.
    pub bases: Vec<ChunkList>,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// The manifest of `release` by the step from the installed one; `None`: there is none, or it does not hold.
    ///
    /// # Errors
    /// Whatever ends a run.
    pub(crate) fn manifest_by_step(
        &mut self,
        release: &Release,
        installed: &Installed,
    ) -> Result<Option<VerifiedManifest>, EngineError> {
        let Some(step) = self.step(release, installed.release.serial)? else { return Ok(None) };
        Ok(apply(&step, &installed.manifest, release).map(|(verified, _)| verified))
    }

    /// The step to `release` from the release `from`.
    ///
    /// # Errors
    /// Whatever ends a run.
    fn step(&mut self, release: &Release, from: u64) -> Result<Option<Rc<Step>>, EngineError> {
        let Some(object) = release.step(from) else { return Ok(None) };
        if let Some(known) = self.steps.get(&object.digest) {
            return Ok(known.clone());
        }
        let (name, keys) = (release.step_name(from), self.content_keys());
        let fetch = |from: &dyn release_store::Transport| object.fetch(&name, from);
        let open = |sealed: Vec<u8>| Step::open(&sealed, &keys);
        let mut found = self.offline.as_deref().and_then(|offline| open(fetch(offline).ok()?).ok());
        if found.is_none() && !self.on_device_only {
            match self.ask_patiently(fetch) {
                // Its bytes are those that are meant: asking again would bring the same.
                Ok(sealed) => match open(sealed) {
                    Ok(step) => found = Some(step),
                    Err(error) => {
                        self.watch.detail(&format!("the step from release {from} does not hold: {error}"));
                    }
                },
                Err(error @ EngineError::Store(_)) => {
                    self.watch.detail(&format!("the step from release {from} does not hold: {error}"));
                }
                // The manifest is asked for next, and says how it stands.
                Err(error) if matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic) => {
                    self.watch.detail(&format!("the step from release {from} is out of reach: {error}"));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        let found = found.map(Rc::new);
        if found.is_some() || !self.on_device_only {
            self.steps.insert(object.digest, found.clone());
        }
        Ok(found)
    }

    /// The patches that may lead to what `basis` wants, if they cost less to learn of than `worth` bytes.
    ///
    /// # Errors
    /// As asking reports; what is offered is then nothing.
    pub(crate) fn offer(&mut self, basis: &Basis, worth: u64) -> Result<Offer, EngineError> {
        let release = &basis.release;
        let mut offer = Offer::default();
        if let Some(installed) = basis.installed.as_ref().filter(|_| !basis.without_patches) {
            let from = installed.release.serial;
            self.ask_archive_for(release, from);
            let chain = path(&self.known_releases().unwrap_or_default(), from, release).unwrap_or_default();
            let bytes: u64 = chain.iter().filter_map(|(from, to)| to.step(*from)).map(|step| step.bytes).sum();
            if bytes < worth {
                offer.patches = self.patches_along(&chain, &installed.manifest, basis)?;
            }
        }
        if release.base.is_some() {
            // It is not to be had otherwise, whatever leads to it from the installed one.
            self.ask_archive();
            let releases = self.known_releases().unwrap_or_default();
            let Some((root, chain)) = made_of(&releases, release) else { return Ok(offer) };
            let (_, root_manifest) = self.manifest(&root, None)?;
            let mut bases = vec![(root, root_manifest.clone())];
            for (_, to) in chain.iter().filter(|(_, to)| to.serial != release.serial) {
                let (_, manifest) = self.manifest(to, None)?;
                bases.push((to.clone(), manifest));
            }
            for (base, manifest) in bases {
                if let Some(sealed) = self.sealed_chunk_list(&base, true)? {
                    offer.bases.push(ChunkList::open(&sealed, &base, &manifest, &self.content_keys())?);
                }
            }
            offer.patches.extend(self.patches_along(&chain, &root_manifest, basis)?);
        }
        Ok(offer)
    }

    /// The patches of a chain of steps that begins at `manifest`. None, if one of the steps is not to be had.
    fn patches_along(
        &mut self,
        chain: &[(u64, Release)],
        manifest: &Manifest,
        basis: &Basis,
    ) -> Result<Vec<Patch>, EngineError> {
        let mut manifest = manifest.clone();
        let (mut patches, mut contents) = (Vec::new(), 0);
        for (from, to) in chain {
            let Some(step) = self.step(to, *from)? else { return Ok(Vec::new()) };
            // The last one is known already.
            let next = if to.serial == basis.release.serial {
                Some(basis.manifest.clone())
            } else {
                apply(&step, &manifest, to).map(|(_, manifest)| manifest)
            };
            let Some(next) = next else { return Ok(Vec::new()) };
            match step.patches(&manifest, &next) {
                Ok(found) => {
                    contents += found.iter().map(|patch| patch.sources.len() + patch.targets.len()).sum::<usize>();
                    patches.extend(found);
                }
                Err(error) => self.watch.detail(&format!("the step from release {from} does not hold: {error}")),
            }
            if contents > MAX_PLACES || patches.len() > MAX_ENTRIES {
                self.watch.detail("the steps that lead there hold more patches than a device takes");
                return Ok(Vec::new());
            }
            manifest = next;
        }
        Ok(patches)
    }

    /// Asks for older releases where a way from `from` to `release` may lead over them.
    fn ask_archive_for(&mut self, release: &Release, from: u64) {
        let known = self.known_releases().unwrap_or_default();
        if release.serial > from && path(&known, from, release).is_none() {
            self.ask_archive();
        }
    }
}

/// What `step` makes of `old`, if that is the manifest of `release`.
fn apply(step: &Step, old: &Manifest, release: &Release) -> Option<(VerifiedManifest, Manifest)> {
    let manifest = step.manifest(old).ok()?;
    let verified = VerifiedManifest::accept(release, manifest.encode().ok()?).ok()?;
    Some((verified, manifest))
}

/// The fewest steps from the release `from` to `to`; those that only lead forward before any.
fn path(releases: &Releases, from: u64, to: &Release) -> Option<Vec<(u64, Release)>> {
    let forward = |before: u64, after: u64| before < after;
    path_by(releases, from, to, forward).or_else(|| path_by(releases, from, to, |_, _| true))
}

/// The fewest steps from the release `from` to `to`, of those that `may_be` taken.
fn path_by(
    releases: &Releases,
    from: u64,
    to: &Release,
    may_be: impl Fn(u64, u64) -> bool,
) -> Option<Vec<(u64, Release)>> {
    let mut next: HashMap<u64, (u64, Release)> = HashMap::new();
    let mut queue = VecDeque::from([(to.clone(), 0)]);
    while let Some((release, depth)) = queue.pop_front() {
        for (before, _) in release.steps.iter().rev().filter(|(before, _)| may_be(*before, release.serial)) {
            if *before == to.serial || next.contains_key(before) {
                continue;
            }
            next.insert(*before, (*before, release.clone()));
            if *before == from {
                let mut chain = Vec::new();
                let mut at = from;
                while at != to.serial {
                    let step = next.get(&at)?.clone();
                    at = step.1.serial;
                    chain.push(step);
                }
                return Some(chain);
            }
            if let Some(before) = releases.by_serial(*before).filter(|_| depth + 1 < MAX_CHAIN) {
                queue.push_back((before.clone(), depth + 1));
            }
        }
    }
    None
}

/// The release whose chunks are there that `release` is made of, and the steps from it.
fn made_of(releases: &Releases, release: &Release) -> Option<(Release, Vec<(u64, Release)>)> {
    let mut steps = Vec::new();
    let mut seen = HashSet::new();
    let mut at = release.clone();
    while let Some(base) = at.base {
        if !seen.insert(base) || steps.len() >= MAX_CHAIN {
            return None;
        }
        let before = releases.by_serial(base)?.clone();
        steps.insert(0, (base, at));
        at = before;
    }
    Some((at, steps))
}
