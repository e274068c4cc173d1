//! Steps back: from a release to the one before it, which is made of it from then on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use firmware_image::Digest;

use super::decide::Frames;
use super::survey::{Known, KnownStep};
use crate::content_key::ContentKeys;
use crate::contents::{ContentReader, given};
use crate::error::StoreError;
use crate::publish::patches::{NewBytes, NewContent, Patcher, SealedStep};
use crate::repository::{Observer, Repository};
use crate::transport::Directory;
use crate::trust::VerifiedManifest;
use crate::update_cost::contents;

/// Makes steps back.
pub(super) struct StepsBack<'a> {
    reader: RefCell<ContentReader<'a, Directory>>,
    keys: &'a ContentKeys,
    /// Threads that make patches.
    jobs: usize,
    /// Where they are written; `None`: nowhere.
    repository: Option<&'a Repository<'a>>,
}

/// How a release is made of a newer one.
pub(super) struct Thinned {
    /// The step, where there was none.
    pub made: Option<KnownStep>,
    /// What the newer one gives: contents that need no chunks any more.
    pub given: BTreeSet<Digest>,
}

impl<'a> StepsBack<'a> {
    pub(super) fn new(
        reader: ContentReader<'a, Directory>,
        keys: &'a ContentKeys,
        jobs: usize,
        repository: Option<&'a Repository<'a>>,
    ) -> Self {
        Self { reader: RefCell::new(reader), keys, jobs, repository }
    }

    /// How `old` is made of `new`; `None`: that takes no fewer bytes than its chunks, of which the store needs those that are
    /// `needed` anyway. A step that is taken is written.
    ///
    /// # Errors
    /// Whatever is wrong with the contents of both; `Io`; `Stopped` where `observer` said so.
    pub(super) fn thin(
        &self,
        new: &Known,
        old: &Known,
        needed: &Frames,
        observer: &mut dyn Observer,
    ) -> Result<Option<Thinned>, StoreError> {
        let from = new.release.serial;
        if let Some(step) = old.step(from) {
            let given = saves(new, old, step, needed)?;
            return Ok(given.map(|given| Thinned { made: None, given }));
        }
        let Some(sealed) = self.make(new, old, needed, observer)? else { return Ok(None) };
        let object = sealed.object();
        let step = KnownStep { from, object, step: sealed.step.clone() };
        let Some(given) = saves(new, old, &step, needed)? else { return Ok(None) };
        if let Some(repository) = self.repository {
            sealed.write_pack(repository.writer())?;
            repository.write_object(&old.release.step_name(from), &sealed.sealed)?;
        }
        Ok(Some(Thinned { made: Some(step), given }))
    }

    fn make(
        &self,
        new: &Known,
        old: &Known,
        needed: &Frames,
        observer: &mut dyn Observer,
    ) -> Result<Option<SealedStep>, StoreError> {
        let number = old.list_key;
        let unknown = || StoreError::UnknownKey { object: old.release.chunks_name(), number };
        let key = self.keys.get(number).ok_or_else(unknown)?;
        let read = |digest: &Digest| Ok(self.reader.borrow_mut().read(old.release.serial, digest)?.to_vec());
        let mut wanted: BTreeMap<Digest, NewContent<'_>> = BTreeMap::new();
        let files = old.manifest.files.iter().map(|file| (file.sha256, &file.path, file.size));
        let updaters = old.manifest.updaters.iter().map(|updater| (updater.sha256, &updater.platform, updater.size));
        for (digest, name, size) in files.chain(updaters) {
            wanted.entry(digest).or_insert_with(|| NewContent {
                name: name.clone(),
                source: NewBytes::Store(&read),
                size,
                chunk_bytes: needed.missing(old, |known| *known == digest),
            });
        }
        let patcher = Patcher { key, contents: &wanted, manifest: &old.manifest, jobs: self.jobs };
        patcher.step(new.release.serial, &self.reader, observer)
    }
}

/// What `new` gives of `old` by `step`, if that and the chunks that are left take fewer bytes than all its chunks.
fn saves(new: &Known, old: &Known, step: &KnownStep, needed: &Frames) -> Result<Option<BTreeSet<Digest>>, StoreError> {
    let manifest = step.step.manifest(&new.manifest).and_then(|manifest| manifest.encode());
    if !manifest.is_ok_and(|encoded| VerifiedManifest::accept(&old.release, encoded).is_ok()) {
        return Ok(None);
    }
    let there = contents(new);
    let patches = step.step.patches(&new.manifest, &old.manifest)?;
    let given: BTreeSet<Digest> = given(|digest| there.contains(digest), &old.manifest, &patches).into_keys().collect();
    let left = needed.missing(old, |digest| !given.contains(digest));
    let saves = step.bytes() + left < needed.missing(old, |_| true);
    Ok(saves.then_some(given))
}
