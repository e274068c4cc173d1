//! The patches from one release to another (`docs/formats/patch.md`): what each one needs, what it gives, where it lies.
//!
//! A manifest names for each release that patches lead from a pack and the frame at its beginning, which holds a
//! [`PatchSet`]. The frames of the patches follow in it, so that a device that needs all of them asks once.

use firmware_image::Digest;
use serde::{Deserialize, Serialize};

use crate::chunk_list::{MAX_PACK_BYTES, PackEntry};
use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::frame::{FrameId, FrameKind, FrameReader};
use crate::manifest::MAX_FILE_BYTES;

/// The most releases that patches of one manifest lead from.
pub const MAX_EDGES: usize = 64;
/// The most patches of a set, and the most sources or targets of a patch.
pub const MAX_ENTRIES: usize = 65_536;
/// The fewest bytes of a digest that name a content.
pub const MIN_NAME_BYTES: u8 = 4;

/// Patches from one release to the one whose manifest holds this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The serial of the release they start from.
    pub from: u64,
    /// The pack that holds them.
    pub pack: PackEntry,
    /// SHA-256 of the encoded [`PatchSet`], whose frame is the pack's first.
    pub set: Digest,
    /// Its length in bytes.
    pub raw_len: u32,
    /// Its frame's length in bytes.
    pub stored_len: u32,
}

impl Edge {
    pub(crate) fn frame_id(&self) -> FrameId {
        FrameId { kind: FrameKind::PatchSet, digest: self.set, raw_len: self.raw_len, stored_len: self.stored_len }
    }

    /// Refuses limits that are broken.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.frame_id().check()?;
        if self.pack.bytes > MAX_PACK_BYTES || u64::from(self.stored_len) > self.pack.bytes {
            return Err(StoreError::malformed(self.pack.path(), "its patch set does not fit into it"));
        }
        Ok(())
    }
}

/// The patches of an edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchSet {
    /// How many bytes of its digest name a content in this set: enough to tell all contents of the two releases apart.
    pub name_bytes: u8,
    /// The patches, in the order of their frames.
    pub patches: Vec<PatchEntry>,
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchEntry {
    /// Names of the contents that it starts from, one behind the other.
    pub sources: Vec<u8>,
    /// Names of the contents that it gives, one behind the other.
    pub targets: Vec<u8>,
    /// Lengths of those, in bytes.
    pub target_bytes: Vec<u64>,
    /// Its frames, in order; together their contents are the patch.
    pub parts: Vec<PatchPart>,
}

/// A frame of a patch. It begins where the one in front of it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchPart {
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Its content's length in bytes.
    pub raw_len: u32,
    /// The frame's length in bytes.
    pub stored_len: u32,
}

impl PatchPart {
    /// What [`FrameReader::open`] must know.
    pub fn frame_id(&self) -> FrameId {
        FrameId { kind: FrameKind::Patch, digest: self.digest, raw_len: self.raw_len, stored_len: self.stored_len }
    }
}

impl PatchEntry {
    /// Bytes of all its frames.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.stored_len)).sum()
    }
}

impl PatchSet {
    /// Opens the sealed set of `edge`: the first bytes of its pack.
    ///
    /// # Errors
    /// `UnknownKey`, `WrongLength`, `Undecryptable`, `WrongDigest`, `Malformed`, `TooLarge`.
    pub fn open(sealed: &[u8], edge: &Edge, keys: &ContentKeys) -> Result<Self, StoreError> {
        let number = edge.pack.key;
        let unknown = || StoreError::UnknownKey { object: format!("the patch set in {}", edge.pack.path()), number };
        let key = keys.get(number).ok_or_else(unknown)?;
        let mut reader = FrameReader::new()?;
        let set = Self::decode(reader.open(key, &edge.frame_id(), sealed)?.bytes())?;
        let parts: u64 = set.patches.iter().map(PatchEntry::stored_bytes).fold(0, u64::saturating_add);
        if parts.saturating_add(edge.stored_len.into()) > edge.pack.bytes {
            return Err(StoreError::malformed("the patch set", "a patch reaches past its pack"));
        }
        Ok(set)
    }

    /// Reads an encoded set and checks it.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (set, _appended) = postcard::take_from_bytes::<Self>(bytes)
            .map_err(|error| StoreError::malformed("the patch set", format!("it does not decode: {error}")))?;
        set.check()?;
        Ok(set)
    }

    /// The encoded set.
    ///
    /// # Errors
    /// As [`PatchSet::check`].
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        self.check()?;
        postcard::to_allocvec(self)
            .map_err(|error| StoreError::malformed("the patch set", format!("it does not encode: {error}")))
    }

    /// The name of a content in this set.
    pub fn name<'d>(&self, digest: &'d Digest) -> &'d [u8] {
        &digest.0[..usize::from(self.name_bytes).min(digest.0.len())]
    }

    /// The names of the contents that `patch` starts from.
    pub fn sources<'a>(&self, patch: &'a PatchEntry) -> impl Iterator<Item = &'a [u8]> {
        patch.sources.chunks_exact(usize::from(self.name_bytes).max(1))
    }

    /// The names and lengths of the contents that `patch` gives.
    pub fn targets<'a>(&self, patch: &'a PatchEntry) -> impl Iterator<Item = (&'a [u8], u64)> {
        patch.targets.chunks_exact(usize::from(self.name_bytes).max(1)).zip(patch.target_bytes.iter().copied())
    }

    /// Checks limits and lengths.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn check(&self) -> Result<(), StoreError> {
        let malformed = |reason: &str| Err(StoreError::malformed("the patch set", reason));
        if !(MIN_NAME_BYTES..=32).contains(&self.name_bytes) {
            return malformed("its names have an impossible length");
        }
        if self.patches.len() > MAX_ENTRIES {
            return malformed("it has more patches than a reader takes");
        }
        let name = usize::from(self.name_bytes);
        for patch in &self.patches {
            let (sources, targets) = (patch.sources.len(), patch.targets.len());
            if !sources.is_multiple_of(name) || targets != patch.target_bytes.len() * name {
                return malformed("the names of a patch are cut");
            }
            if targets == 0 || sources.max(targets) > MAX_ENTRIES * name {
                return malformed("a patch has no targets, or more than a reader takes");
            }
            if patch.target_bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)) > MAX_FILE_BYTES {
                return malformed("a patch gives more than a patch can");
            }
            for part in &patch.parts {
                part.frame_id().check()?;
                if part.raw_len == 0 {
                    return malformed("a part of a patch is empty");
                }
            }
        }
        Ok(())
    }
}
