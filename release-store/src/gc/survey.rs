//! All that a decision rests on: the manifests, chunk lists and steps of all releases.

use crate::chunk_list::ChunkList;
use crate::content_key::ContentKeys;
use crate::contents::fetch_step;
use crate::error::StoreError;
use crate::manifest::Manifest;
use crate::repository::Observer;
use crate::sealed::{self, ObjectRef};
use crate::step::Step;
use crate::transport::Transport;
use crate::trust::{Release, Releases, VerifiedManifest};

/// A release.
#[derive(Debug)]
pub(crate) struct Known {
    pub release: Release,
    pub manifest: Manifest,
    pub list: ChunkList,
    /// The number of the content key that its chunk list is sealed under.
    pub list_key: u32,
    /// The steps that lead to it.
    pub steps: Vec<KnownStep>,
}

/// A step that leads to a release.
#[derive(Debug)]
pub(crate) struct KnownStep {
    pub from: u64,
    pub object: ObjectRef,
    pub step: Step,
}

impl KnownStep {
    /// Bytes of the step and of its patches.
    pub(crate) fn bytes(&self) -> u64 {
        self.object.bytes + self.step.pack.map_or(0, |pack| pack.bytes)
    }
}

impl Known {
    /// The step from the release numbered `from`.
    pub(crate) fn step(&self, from: u64) -> Option<&KnownStep> {
        self.steps.iter().find(|step| step.from == from)
    }
}

/// Reads all `releases`, oldest first.
///
/// # Errors
/// `Transport` and whatever is wrong with manifests, chunk lists and steps.
pub(crate) fn survey<T: Transport + ?Sized>(
    releases: &Releases,
    transport: &T,
    product: &str,
    keys: &ContentKeys,
    observer: &mut dyn Observer,
) -> Result<Vec<Known>, StoreError> {
    let bytes = |release: &Release| {
        release.sealed.bytes + release.chunks.bytes + release.steps.iter().map(|(_, step)| step.bytes).sum::<u64>()
    };
    let total = releases.iter().map(bytes).sum();
    let mut done = 0;
    let mut known = Vec::with_capacity(releases.iter().len());
    for release in releases.iter() {
        let manifest = VerifiedManifest::fetch(release, transport, keys)?.open(product)?;
        let sealed_list = release.chunks.fetch(&release.chunks_name(), transport)?;
        let list = ChunkList::open(&sealed_list, release, &manifest, keys)?;
        let list_key = sealed::key_number(&sealed_list).unwrap_or_default();
        let steps = release.steps.iter().map(|(from, object)| {
            Ok(KnownStep { from: *from, object: *object, step: fetch_step(release, *from, transport, keys)? })
        });
        let steps = steps.collect::<Result<_, StoreError>>()?;
        known.push(Known { release: release.clone(), manifest, list, list_key, steps });
        done += bytes(release);
        observer.progress(done, total);
    }
    Ok(known)
}
