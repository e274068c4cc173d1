//! The chunk list: for each content of a release, its chunks and where their frames lie (`docs/formats/pack.md`).
//!
//! One sealed object a release, fetched only for what no shorter way leads to, as postcard. A decoded list has been checked: every reference points into it, every content's
//! chunks add up to its length, no chunk reaches past its pack.

use firmware_image::Digest;
use serde::{Deserialize, Serialize};

use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::frame::{FrameId, FrameKind};
use crate::manifest::{Manifest, pack_path};
use crate::sealed;
use crate::transport::Transport;
use crate::trust::Release;

/// The most packs of a list.
pub const MAX_PACKS: usize = 65_536;
/// The longest pack, in bytes.
pub const MAX_PACK_BYTES: u64 = 1 << 40;

/// Where the chunks of a release are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkList {
    /// The packs that hold them.
    pub packs: Vec<PackEntry>,
    /// The chunks, each once.
    pub chunks: Vec<ChunkEntry>,
    /// The contents (files, updaters), by digest, each once.
    pub contents: Vec<ContentEntry>,
}

/// A pack: frames back to back, named by the digest of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackEntry {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
    /// The number of the content key that its frames are sealed under.
    pub key: u32,
}

impl PackEntry {
    /// Its path in a store.
    pub fn path(&self) -> String {
        pack_path(&self.digest)
    }
}

/// A chunk and its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Its content's length in bytes.
    pub raw_len: u32,
    /// Its pack's place in [`ChunkList::packs`].
    pub pack: u32,
    /// Where its frame begins in the pack.
    pub offset: u64,
    /// The frame's length in bytes.
    pub stored_len: u32,
}

impl ChunkEntry {
    /// What [`crate::frame::FrameReader::open`] must know.
    pub fn frame_id(&self) -> FrameId {
        FrameId { kind: FrameKind::Chunk, digest: self.digest, raw_len: self.raw_len, stored_len: self.stored_len }
    }

    /// Where its frame lies in the pack.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.offset..self.offset + u64::from(self.stored_len)
    }
}

/// A content and its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentEntry {
    /// SHA-256 of the whole content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its chunks in order: places in [`ChunkList::chunks`]. Empty for an empty content.
    pub chunks: Vec<u32>,
}

impl ChunkList {
    /// Gets the chunk list of `release` from a store, verifies and opens it, and checks that it covers the manifest.
    ///
    /// # Errors
    /// `Transport`, and as [`ChunkList::open`].
    pub fn fetch<T: Transport + ?Sized>(
        release: &Release,
        manifest: &Manifest,
        transport: &T,
        keys: &ContentKeys,
    ) -> Result<Self, StoreError> {
        let sealed = release.chunks.fetch(&release.chunks_name(), transport)?;
        Self::open(&sealed, release, manifest, keys)
    }

    /// Verifies and opens the sealed chunk list of `release`, and checks that it covers the manifest: all of it, or, of a
    /// release that is based on another one, nothing else.
    ///
    /// # Errors
    /// `WrongDigest`, `WrongLength`, `UnknownKey`, `Undecryptable`, `Malformed`, `TooLarge`, `MissingContent`.
    pub fn open(sealed: &[u8], release: &Release, manifest: &Manifest, keys: &ContentKeys) -> Result<Self, StoreError> {
        release.chunks.check(&release.chunks_name(), sealed)?;
        let list = Self::decode(&sealed::open(FrameKind::ChunkList, sealed, keys)?)?;
        list.check_covers(manifest, release.base.is_some())?;
        Ok(list)
    }

    /// Reads an encoded list and checks it.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (list, _appended) = postcard::take_from_bytes::<Self>(bytes)
            .map_err(|error| StoreError::malformed("the chunk list", format!("it does not decode: {error}")))?;
        list.check()?;
        Ok(list)
    }

    /// The encoded list.
    ///
    /// # Errors
    /// As [`ChunkList::check`].
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        self.check()?;
        postcard::to_allocvec(self)
            .map_err(|error| StoreError::malformed("the chunk list", format!("it does not encode: {error}")))
    }

    /// The content whose digest is `digest`.
    pub fn content(&self, digest: &Digest) -> Option<&ContentEntry> {
        self.contents.binary_search_by(|content| content.digest.cmp(digest)).ok().map(|at| &self.contents[at])
    }

    /// The chunks of `content`, in order, with their places in [`ChunkList::chunks`].
    pub fn chunks_of<'a>(&'a self, content: &'a ContentEntry) -> impl Iterator<Item = (u32, &'a ChunkEntry)> {
        content.chunks.iter().filter_map(|place| Some((*place, self.chunks.get(*place as usize)?)))
    }

    /// The pack of `chunk`.
    ///
    /// # Errors
    /// `Malformed` for a chunk of another list.
    pub fn pack_of(&self, chunk: &ChunkEntry) -> Result<&PackEntry, StoreError> {
        let missing = || StoreError::malformed("the chunk list", "a chunk is in a pack that is not there");
        self.packs.get(chunk.pack as usize).ok_or_else(missing)
    }

    /// Bytes of all frames of `content`.
    pub fn stored_bytes(&self, content: &ContentEntry) -> u64 {
        self.chunks_of(content).map(|(_, chunk)| u64::from(chunk.stored_len)).sum()
    }

    /// Checks limits and references.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn check(&self) -> Result<(), StoreError> {
        let malformed = |reason: String| StoreError::malformed("the chunk list", reason);
        if self.packs.len() > MAX_PACKS {
            let (limit, found) = (MAX_PACKS as u64, self.packs.len() as u64);
            let object = "the chunk list".into();
            return Err(StoreError::TooLarge { object, what: "the number of packs", limit, found });
        }
        if let Some(pack) = self.packs.iter().find(|pack| pack.bytes > MAX_PACK_BYTES) {
            let (object, limit, found) = (pack.path(), MAX_PACK_BYTES, pack.bytes);
            return Err(StoreError::TooLarge { object, what: "the length of a pack", limit, found });
        }
        for chunk in &self.chunks {
            chunk.frame_id().check()?;
            let pack = self.pack_of(chunk)?;
            let end = chunk.offset.checked_add(chunk.stored_len.into());
            if chunk.raw_len == 0 || end.is_none_or(|end| end > pack.bytes) {
                return Err(malformed(format!("chunk {} is empty or reaches past its pack", chunk.digest)));
            }
        }
        let mut last: Option<&Digest> = None;
        for content in &self.contents {
            if last.is_some_and(|last| last >= &content.digest) {
                return Err(malformed(format!("content {} is out of order", content.digest)));
            }
            last = Some(&content.digest);
            let mut size = 0_u64;
            for place in &content.chunks {
                let chunk = self.chunks.get(*place as usize);
                let chunk = chunk.ok_or_else(|| malformed(format!("content {} has no such chunk", content.digest)))?;
                size = size.saturating_add(chunk.raw_len.into());
            }
            if size != content.size {
                return Err(malformed(format!("the chunks of content {} do not add up to it", content.digest)));
            }
        }
        Ok(())
    }

    /// Checks that every file and updater of `manifest` is there, with its length; with `partly`, that those which are
    /// there have it.
    ///
    /// # Errors
    /// `MissingContent`, `WrongLength`.
    pub fn check_covers(&self, manifest: &Manifest, partly: bool) -> Result<(), StoreError> {
        let files = manifest.files.iter().map(|file| (&file.path, &file.sha256, file.size));
        let updaters = manifest.updaters.iter().map(|updater| (&updater.platform, &updater.sha256, updater.size));
        for (name, digest, size) in files.chain(updaters) {
            let content = match self.content(digest) {
                Some(content) => content,
                None if partly => continue,
                None => return Err(StoreError::MissingContent { digest: *digest, wanted: name.clone() }),
            };
            if content.size != size {
                let object = format!("the content of {name:?}");
                return Err(StoreError::WrongLength { object, expected: size, found: content.size });
            }
        }
        Ok(())
    }
}
