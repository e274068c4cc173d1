//! Contents of any release, read out of a store.
//!
//! A release that stands by itself has chunks of all its contents. One that is *based* on another one has chunks of some;
//! the others its base has too, by whatever way, or the patches of the step from there make them (`docs/formats/pack.md`).
//! Every content is compared with its digest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use firmware_image::Digest;
use firmware_image::digest::Hasher;

use crate::chunk_list::{ChunkList, ContentEntry, PackEntry};
use crate::content_key::{ContentKey, ContentKeys};
use crate::error::StoreError;
use crate::frame::FrameReader;
use crate::manifest::Manifest;
use crate::patch;
use crate::step::{Patch, Step};
use crate::transport::{Transport, get_range};
use crate::trust::{Release, Releases, VerifiedManifest};

/// The most steps between a release and the one at the bottom of its line; devices follow no more.
pub const MAX_LINE: usize = 16;
/// How much of what patches gave is kept at hand, in bytes.
const CACHE_BYTES: usize = 128 << 20;

/// How a content of a release is come by without chunks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// The base has it.
    Base,
    /// By this patch of the step from the base.
    Patch(usize),
}

/// What of the release that has `manifest` its base gives, which `has` these contents, with the patches of the step from there.
pub(crate) fn given(has: impl Fn(&Digest) -> bool, manifest: &Manifest, patches: &[Patch]) -> HashMap<Digest, Given> {
    let contents = manifest.contents();
    let kept = contents.iter().filter(|(digest, _)| has(digest));
    let mut given: HashMap<Digest, Given> = kept.map(|(digest, _)| (*digest, Given::Base)).collect();
    for (at, patch) in patches.iter().enumerate() {
        if patch.sources.iter().all(|(source, _)| has(source)) {
            for (target, _) in &patch.targets {
                given.entry(*target).or_insert(Given::Patch(at));
            }
        }
    }
    given
}

/// A release whose manifest and chunk list were read.
#[derive(Debug)]
pub struct OpenRelease {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its chunk list.
    pub list: ChunkList,
    base: Option<u64>,
    patches: Vec<Patch>,
    given: HashMap<Digest, Given>,
}

impl OpenRelease {
    /// Whether there is a way to this content.
    pub fn has(&self, digest: &Digest) -> bool {
        self.list.content(digest).is_some() || self.given.contains_key(digest)
    }

    /// Whether a patch of the step from its base gives it.
    pub(crate) fn is_patched(&self, digest: &Digest) -> bool {
        self.list.content(digest).is_none() && matches!(self.given.get(digest), Some(Given::Patch(_)))
    }
}

/// Reads contents of the releases of a store.
#[derive(Debug)]
pub struct ContentReader<'a, T: Transport + ?Sized> {
    releases: &'a Releases,
    transport: &'a T,
    product: &'a str,
    keys: &'a ContentKeys,
    frames: FrameReader,
    open: BTreeMap<u64, Rc<OpenRelease>>,
    cache: Cache,
}

impl<'a, T: Transport + ?Sized> ContentReader<'a, T> {
    /// A reader of `releases`, which have been read from the store behind `transport`.
    ///
    /// # Errors
    /// Where no memory is left for a decompressor.
    pub fn new(
        releases: &'a Releases,
        transport: &'a T,
        product: &'a str,
        keys: &'a ContentKeys,
    ) -> Result<Self, StoreError> {
        let (open, cache) = (BTreeMap::new(), Cache::default());
        Ok(Self { releases, transport, product, keys, frames: FrameReader::new()?, open, cache })
    }

    /// The release numbered `serial`, and with it those that it is made of.
    ///
    /// # Errors
    /// `NoSuchRelease`, also for a base; `Transport` and whatever is wrong with manifests, chunk lists and steps.
    pub fn release(&mut self, serial: u64) -> Result<Rc<OpenRelease>, StoreError> {
        self.open_release(serial, 0)
    }

    fn open_release(&mut self, serial: u64, above: usize) -> Result<Rc<OpenRelease>, StoreError> {
        if let Some(open) = self.open.get(&serial) {
            return Ok(open.clone());
        }
        if above > MAX_LINE {
            let reason = "it is made of more releases, one of the other, than a reader follows";
            return Err(StoreError::malformed(format!("release {serial}"), reason));
        }
        let missing = || StoreError::NoSuchRelease { wanted: format!("with the serial {serial}") };
        let release = self.releases.by_serial(serial).ok_or_else(missing)?;
        let manifest = VerifiedManifest::fetch(release, self.transport, self.keys)?.open(self.product)?;
        let list = ChunkList::fetch(release, &manifest, self.transport, self.keys)?;
        let (patches, given) = match release.base {
            None => (Vec::new(), HashMap::new()),
            Some(base) => {
                let before = self.open_release(base, above + 1)?;
                let step = fetch_step(release, base, self.transport, self.keys)?;
                let patches = step.patches(&before.manifest, &manifest)?;
                let given = given(|digest| before.has(digest), &manifest, &patches);
                (patches, given)
            }
        };
        let open = Rc::new(OpenRelease { manifest, list, base: release.base, patches, given });
        self.open.insert(serial, open.clone());
        Ok(open)
    }

    /// A content of the release numbered `serial`.
    ///
    /// # Errors
    /// `MissingContent` where the release has it not, or no way leads to it; as [`ContentReader::release`]; and
    /// whatever is wrong with frames and patches.
    pub fn read(&mut self, serial: u64, digest: &Digest) -> Result<Rc<Vec<u8>>, StoreError> {
        let open = self.release(serial)?;
        self.read_of(&open, digest)
    }

    fn read_of(&mut self, open: &OpenRelease, digest: &Digest) -> Result<Rc<Vec<u8>>, StoreError> {
        if let Some(content) = open.list.content(digest) {
            return self.by_chunks(&open.list, content);
        }
        if let Some(known) = self.cache.get(digest) {
            return Ok(known);
        }
        let missing = || StoreError::MissingContent { digest: *digest, wanted: open.manifest.version.clone() };
        match (open.given.get(digest), open.base) {
            (Some(Given::Base), Some(base)) => {
                let before = self.release(base)?;
                self.read_of(&before, digest)
            }
            (Some(Given::Patch(at)), Some(base)) => {
                let before = self.release(base)?;
                let patch = open.patches.get(*at).ok_or_else(missing)?;
                self.apply(&before, patch)?;
                self.cache.get(digest).ok_or_else(missing)
            }
            _ if *digest == Digest::of(&[]) => Ok(Rc::default()),
            _ => Err(missing()),
        }
    }

    fn by_chunks(&mut self, list: &ChunkList, content: &ContentEntry) -> Result<Rc<Vec<u8>>, StoreError> {
        let mut bytes = Vec::new();
        let mut hasher = Hasher::new();
        for (_, chunk) in list.chunks_of(content) {
            let pack = list.pack_of(chunk)?;
            let frame = read_frame(self.transport, pack, chunk.range())?;
            let chunk = self.frames.open(key_of(self.keys, pack)?, &chunk.frame_id(), &frame)?;
            hasher.update(chunk.bytes());
            bytes.extend_from_slice(chunk.bytes());
        }
        check_digest(&content.digest, hasher.finish())?;
        Ok(Rc::new(bytes))
    }

    /// Applies a patch between `before` and another release, and keeps all that it gives.
    fn apply(&mut self, before: &OpenRelease, patch: &Patch) -> Result<(), StoreError> {
        let mut old = Vec::new();
        for (source, _) in &patch.sources {
            old.extend_from_slice(&self.read_of(before, source)?);
        }
        let key = key_of(self.keys, &patch.pack)?;
        let mut encoded = Vec::new();
        let mut at = patch.offset;
        for part in &patch.parts {
            let end = at + u64::from(part.stored_len);
            let frame = read_frame(self.transport, &patch.pack, at..end)?;
            encoded.extend_from_slice(self.frames.open(key, &part.frame_id(), &frame)?.bytes());
            at = end;
        }
        let new_len = patch.targets.iter().map(|(_, size)| size).sum();
        let mut new = Vec::new();
        let applied = patch::apply(&mut encoded.as_slice(), &mut &*old, old.len() as u64, new_len, &mut |bytes| {
            new.extend_from_slice(bytes);
            Ok(())
        });
        let object = || format!("a patch in {}", patch.pack.path());
        applied.map_err(|error| StoreError::malformed(object(), format!("it does not apply: {error}")))?;
        let mut left = new.as_slice();
        let mut made = Vec::with_capacity(patch.targets.len());
        for (target, size) in &patch.targets {
            let short = || StoreError::malformed(object(), "it gives less than it should");
            let (bytes, rest) =
                usize::try_from(*size).ok().and_then(|size| left.split_at_checked(size)).ok_or_else(short)?;
            check_digest(target, Digest::of(bytes))?;
            made.push((*target, Rc::new(bytes.to_vec())));
            left = rest;
        }
        self.cache.put(made);
        Ok(())
    }
}

/// Gets and opens the step to `release` from the release numbered `from`.
///
/// # Errors
/// `Malformed` where there is none, `Transport`, and as [`Step::open`].
pub(crate) fn fetch_step<T: Transport + ?Sized>(
    release: &Release,
    from: u64,
    transport: &T,
    keys: &ContentKeys,
) -> Result<Step, StoreError> {
    let missing = || {
        let reason = format!("it is made of release {from}, and no step leads to it from there");
        StoreError::malformed(format!("release {}", release.serial), reason)
    };
    let object = release.step(from).ok_or_else(missing)?;
    Step::open(&object.fetch(&release.step_name(from), transport)?, keys)
}

/// The key that the frames of `pack` are sealed under.
pub(crate) fn key_of<'k>(keys: &'k ContentKeys, pack: &PackEntry) -> Result<&'k ContentKey, StoreError> {
    keys.get(pack.key).ok_or_else(|| StoreError::UnknownKey { object: pack.path(), number: pack.key })
}

/// The bytes of a pack in `range`.
pub(crate) fn read_frame<T: Transport + ?Sized>(
    transport: &T,
    pack: &PackEntry,
    range: Range<u64>,
) -> Result<Vec<u8>, StoreError> {
    let bytes = range.end - range.start;
    let mut frame = Vec::new();
    get_range(transport, &pack.path(), range, bytes, &mut |_, piece| {
        frame.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(frame)
}

fn check_digest(expected: &Digest, found: Digest) -> Result<(), StoreError> {
    if found == *expected {
        return Ok(());
    }
    Err(StoreError::WrongDigest { object: format!("content {expected}"), expected: *expected, found })
}

/// What the last patches gave, the oldest gone first.
#[derive(Debug, Default)]
struct Cache {
    contents: HashMap<Digest, Rc<Vec<u8>>>,
    order: VecDeque<Digest>,
    bytes: usize,
}

impl Cache {
    fn get(&self, digest: &Digest) -> Option<Rc<Vec<u8>>> {
        self.contents.get(digest).cloned()
    }

    /// Adds what one patch gave, which stays whatever its size until the next one.
    fn put(&mut self, made: Vec<(Digest, Rc<Vec<u8>>)>) {
        let mut added = 0;
        for (digest, bytes) in made {
            self.bytes += bytes.len();
            match self.contents.insert(digest, bytes) {
                Some(old) => self.bytes -= old.len(),
                None => {
                    self.order.push_back(digest);
                    added += 1;
                }
            }
        }
        while self.bytes > CACHE_BYTES && self.order.len() > added {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= self.contents.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}
