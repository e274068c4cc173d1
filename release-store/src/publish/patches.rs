//! Patches to one release from another: which contents go into which patch, and making them on several threads.
//!
//! Every program has a patch of its own from the most similar old file. Everything else is in one group, by type, so
//! that what the files of a release share is said once. A patch is kept only if it is smaller than the frames of
//! what it gives.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError, mpsc};

use firmware_image::Digest;

use super::similar::{Outline, most_similar};
use crate::chunk_list::PackEntry;
use crate::content_key::ContentKey;
use crate::contents::ContentReader;
use crate::error::StoreError;
use crate::frame::{FrameKind, FrameWriter, MAX_PATCH_PART_BYTES};
use crate::manifest::{Manifest, pack_path};
use crate::patch::{self, PatchError};
use crate::repository::Observer;
use crate::sealed::{self, ObjectRef};
use crate::step::{NewPatch, PatchPart, Step};
use crate::store_files::StoreWriter;
use crate::transport::{Directory, TransportError};

/// Larger programs have patches of their own; smaller ones are grouped like anything else.
const SMALL_PROGRAM_BYTES: u64 = 8 << 10;
/// Files that are like nothing that was there are left to chunks when they are larger.
const NEW_BYTES: u64 = 64 << 10;
/// The most bytes of a group of more than one file: of what it gives, and of what it starts from.
const GROUP_BYTES: u64 = 16 << 20;
/// Patches are compressed already: frames hardly try.
const FRAME_LEVEL: i32 = 1;

/// What the release has that patches lead to.
pub(crate) struct NewContent<'r> {
    /// What it is called, where it is: a path, or an updater's platform.
    pub name: String,
    /// Its bytes.
    pub source: NewBytes<'r>,
    pub size: u64,
    /// What its chunks cost, in bytes; patches are to be had for less.
    pub chunk_bytes: u64,
}

/// Where the bytes of a content are.
pub(crate) enum NewBytes<'r> {
    File(PathBuf),
    Memory(Rc<Vec<u8>>),
    /// In the store.
    Store(&'r dyn Fn(&Digest) -> Result<Vec<u8>, StoreError>),
    /// Nowhere: the old release has it, too.
    Kept,
}

impl NewContent<'_> {
    fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        match &self.source {
            NewBytes::File(path) => std::fs::read(path).map_err(StoreError::io("read", path)),
            NewBytes::Memory(bytes) => Ok(bytes.to_vec()),
            NewBytes::Store(read) => read(digest),
            NewBytes::Kept => Err(StoreError::MissingContent { digest: *digest, wanted: self.name.clone() }),
        }
    }
}

/// What patches are made with.
pub(crate) struct Patcher<'a, 'r> {
    pub key: &'a ContentKey,
    /// All contents of the release that they lead to.
    pub contents: &'a BTreeMap<Digest, NewContent<'r>>,
    /// That release.
    pub manifest: &'a Manifest,
    pub jobs: usize,
}

/// A step, as it is written into a store.
pub(crate) struct SealedStep {
    pub step: Step,
    pub sealed: Vec<u8>,
    /// The frames of its patches.
    frames: Vec<u8>,
}

impl SealedStep {
    pub(crate) fn object(&self) -> ObjectRef {
        ObjectRef::of(&self.sealed)
    }

    /// Writes the pack of its patches.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn write_pack(&self, store: &StoreWriter) -> Result<(), StoreError> {
        if let Some(pack) = &self.step.pack {
            store.write_once(&pack_path(&pack.digest), &self.frames, Some(&pack.digest))?;
        }
        Ok(())
    }
}

/// Reads a content of the old release.
type ReadOld<'r> = dyn FnMut(&Digest) -> Result<Rc<Vec<u8>>, StoreError> + 'r;

/// One patch to be made.
#[derive(Default)]
struct Task {
    sources: Vec<Digest>,
    targets: Vec<Digest>,
    old_bytes: u64,
    new_bytes: u64,
}

impl Patcher<'_, '_> {
    /// Makes the step from the release numbered `from`. `None` where so much is new that no step can say it.
    ///
    /// # Errors
    /// Whatever is wrong with the contents of both releases; `Stopped` where `observer` said so.
    pub(crate) fn step(
        &self,
        from: u64,
        reader: &RefCell<ContentReader<'_, Directory>>,
        observer: &mut dyn Observer,
    ) -> Result<Option<SealedStep>, StoreError> {
        let open = reader.borrow_mut().release(from)?;
        let old = &open.manifest;
        let mut read = |digest: &Digest| reader.borrow_mut().read(from, digest);
        let made = self.tasks(old, &mut read).and_then(|tasks| self.make(tasks, &mut read, &old.version, observer));
        let made = match made {
            Err(StoreError::Transport(TransportError::NotFound { path })) => {
                let version = &old.version;
                observer.note(&format!("no patches from {version}: {path} is not here, so its files cannot be read"));
                Vec::new()
            }
            other => other?,
        };
        let mut writer = FrameWriter::new(self.key, FRAME_LEVEL)?;
        let mut patches = Vec::new();
        let mut frames = Vec::new();
        for (task, patch) in made {
            let cost = |digest: &Digest| self.contents.get(digest).map_or(0, |content| content.chunk_bytes);
            let whole: u64 = task.targets.iter().map(cost).sum();
            let mut parts = Vec::new();
            let mut part_frames = Vec::new();
            for part in patch.chunks(MAX_PATCH_PART_BYTES as usize) {
                let (id, frame) = writer.seal(FrameKind::Patch, part)?;
                parts.push(PatchPart { digest: id.digest, raw_len: id.raw_len, stored_len: id.stored_len });
                part_frames.extend_from_slice(&frame);
            }
            if (part_frames.len() as u64) < whole {
                frames.extend_from_slice(&part_frames);
                patches.push(NewPatch { sources: task.sources, targets: task.targets, parts });
            }
        }
        let mut pack = None;
        if !frames.is_empty() {
            let (digest, bytes) = (Digest::of(&frames), frames.len() as u64);
            pack = Some(PackEntry { digest, bytes, key: self.key.number });
        }
        let step = Step::new(old, self.manifest, pack, &patches)?;
        let mut writer = FrameWriter::new(self.key, super::DEFAULT_LEVEL)?;
        let sealed = match sealed::seal(FrameKind::Step, &mut writer, &step.encode()?) {
            Err(StoreError::TooLarge { .. }) => {
                observer.note(&format!("no step from {}: it would be longer than readers take", old.version));
                return Ok(None);
            }
            other => other?,
        };
        Ok(Some(SealedStep { step, sealed, frames }))
    }

    /// What goes into which patch. Reads the old contents that are gone, one by one.
    fn tasks(&self, old: &Manifest, read: &mut ReadOld<'_>) -> Result<Vec<Task>, StoreError> {
        let kept: HashSet<&Digest> = self.contents.keys().collect();
        let by_name: HashMap<&str, Digest> = old
            .files
            .iter()
            // An empty content is nothing to start from, and has no place in a step.
            .filter(|file| file.size > 0)
            .map(|file| (file.path.as_str(), file.sha256))
            .chain(old.updaters.iter().map(|updater| (updater.platform.as_str(), updater.sha256)))
            .collect();
        let before: BTreeMap<Digest, u64> = old.contents().into_iter().collect();
        let mut outlines: Vec<(Digest, Outline)> = Vec::new();
        for digest in before.keys().filter(|digest| !kept.contains(digest)) {
            outlines.push((*digest, Outline::of(&read(digest)?)));
        }
        let mut changed: Vec<(&NewContent<'_>, Digest)> = Vec::new();
        for (digest, content) in self.contents.iter().filter(|(_, content)| content.size > 0) {
            if !matches!(content.source, NewBytes::Kept) && !before.contains_key(digest) {
                changed.push((content, *digest));
            }
        }
        let type_of = |name: &str| name.rsplit_once('.').map_or(String::new(), |(_, end)| end.to_owned());
        changed.sort_by_cached_key(|(content, digest)| (type_of(&content.name), content.name.clone(), *digest));

        let mut tasks = Vec::new();
        let mut group = Task::default();
        for (content, digest) in changed {
            // Nothing can be made of a file that was empty.
            let named = by_name.get(content.name.as_str()).filter(|base| before.contains_key(base)).copied();
            let bytes = content.read(&digest)?;
            let base = named.or_else(|| most_similar(&Outline::of(&bytes), &outlines));
            let own = content.size > SMALL_PROGRAM_BYTES && patch::is_program(&bytes);
            if base.is_none() && (own || content.size > NEW_BYTES) {
                continue;
            }
            let bytes_of = |base: &Digest| before.get(base).copied().unwrap_or(0);
            if let Some(base) = base.filter(|_| own) {
                let (old_bytes, new_bytes) = (bytes_of(&base), content.size);
                tasks.push(Task { sources: vec![base], targets: vec![digest], old_bytes, new_bytes });
                continue;
            }
            let base = base.filter(|base| !group.sources.contains(base));
            let old_bytes = base.as_ref().map_or(0, bytes_of);
            let full = |held: u64, more: u64| held > 0 && held + more > GROUP_BYTES;
            if full(group.new_bytes, content.size) || full(group.old_bytes, old_bytes) {
                tasks.push(std::mem::take(&mut group));
            }
            group.sources.extend(base);
            group.targets.push(digest);
            group.old_bytes += old_bytes;
            group.new_bytes += content.size;
        }
        tasks.extend(Some(group).filter(|group| !group.targets.is_empty()));
        Ok(tasks)
    }

    /// Makes the patches of `tasks`, in their order, whatever the number of threads. No more contents are in memory than
    /// threads work on: the next ones are read when a thread is free.
    fn make(
        &self,
        tasks: Vec<Task>,
        read: &mut ReadOld<'_>,
        version: &str,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(Task, Vec<u8>)>, StoreError> {
        let total = tasks.iter().map(|task| task.new_bytes).sum();
        let (to_do, work) = mpsc::sync_channel::<(usize, Vec<u8>, Vec<u8>)>(0);
        let (work, (sender, receiver), (ready, free)) = (Mutex::new(work), mpsc::channel(), mpsc::channel());
        let mut patches: Vec<Option<Vec<u8>>> = tasks.iter().map(|_| None).collect();
        let mut done = 0;
        observer.progress(0, total);
        let mut take = |(at, made): (usize, Result<Vec<u8>, PatchError>)| {
            done += tasks[at].new_bytes;
            observer.progress(done, total);
            match made {
                Ok(patch) => patches[at] = Some(patch),
                Err(error) => observer.note(&format!("a patch from {version} was left out: {error}")),
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, tasks.len().max(1)) {
                let (sender, ready, work) = (sender.clone(), ready.clone(), &work);
                scope.spawn(move || {
                    let next = || {
                        // As below.
                        let _ = ready.send(());
                        work.lock().unwrap_or_else(PoisonError::into_inner).recv()
                    };
                    while let Ok((at, old, new)) = next() {
                        // Nobody listens any more only where this function has ended.
                        let _ = sender.send((at, checked_patch(&old, &new)));
                    }
                });
            }
            drop((sender, ready));
            // It ends with this closure, and with it the threads.
            let to_do = to_do;
            for (at, task) in tasks.iter().enumerate() {
                // Either fails only where all threads have ended.
                if free.recv().is_err() {
                    break;
                }
                let (old, new) = self.load(task, read)?;
                if to_do.send((at, old, new)).is_err() {
                    break;
                }
                receiver.try_iter().for_each(&mut take);
            }
            drop(to_do);
            receiver.iter().for_each(take);
            Ok::<(), StoreError>(())
        })?;
        Ok(tasks.into_iter().zip(patches).filter_map(|(task, patch)| Some((task, patch?))).collect())
    }

    /// The old and the new bytes of a patch.
    fn load(&self, task: &Task, read: &mut ReadOld<'_>) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let mut old = Vec::with_capacity(usize::try_from(task.old_bytes).unwrap_or(0));
        for source in &task.sources {
            old.extend_from_slice(&read(source)?);
        }
        let mut new = Vec::with_capacity(usize::try_from(task.new_bytes).unwrap_or(0));
        for target in &task.targets {
            let Some(content) = self.contents.get(target) else { continue };
            let bytes = content.read(target)?;
            if Digest::of(&bytes) != *target {
                let reason = format!("{} changed while it was read: publish again when it is at rest", content.name);
                return Err(StoreError::Refused(reason));
            }
            new.extend_from_slice(&bytes);
        }
        Ok((old, new))
    }
}

/// Makes a patch, and applies it as a device would: one that does not give the new bytes is left out.
fn checked_patch(old: &[u8], new: &[u8]) -> Result<Vec<u8>, PatchError> {
    let made = patch::make(old, new)?;
    let mut left = new;
    let differs = || std::io::Error::other("it does not give the new bytes");
    patch::apply(&mut made.as_slice(), &mut &*old, old.len() as u64, new.len() as u64, &mut |bytes| {
        left = left.strip_prefix(bytes).ok_or_else(differs)?;
        Ok(())
    })?;
    if left.is_empty() { Ok(made) } else { Err(PatchError::Output(differs())) }
}
