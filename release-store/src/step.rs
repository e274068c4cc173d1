//! A step from one release to another (`docs/formats/step.md`): the manifest as a difference, and the patches.
//!
//! A step is a sealed object of its own and a TUF target, so a device that takes one asks for it in place of the new
//! manifest. The frames of its patches lie in one pack, in order, so that a device that needs all of them asks once.
//! A content is named by its place in [`Manifest::contents`] of the release that it belongs to.

#[cfg(feature = "publish")]
use std::collections::HashMap;

use firmware_image::Digest;
use serde::{Deserialize, Serialize};

use crate::chunk_list::{MAX_PACK_BYTES, PackEntry};
use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::frame::{FrameId, FrameKind};
use crate::limited;
use crate::manifest::{MAX_FILE_BYTES, Manifest};
use crate::manifest_delta::ManifestDelta;
use crate::sealed;

/// The most patches of a step, and the most sources or targets of a patch.
pub const MAX_ENTRIES: usize = 65_536;
/// The most sources and targets of all patches of a step together.
pub const MAX_PLACES: usize = 4 * MAX_ENTRIES;

/// From one release to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The serial of the release that it starts from.
    pub from: u64,
    /// What becomes of its manifest.
    manifest: ManifestDelta,
    /// The pack that holds the frames of the patches, back to back.
    pub pack: Option<PackEntry>,
    #[serde(deserialize_with = "limited::list::<_, _, MAX_ENTRIES>")]
    patches: Vec<PatchEntry>,
}

/// A patch, as it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PatchEntry {
    /// Places of what it starts from; each as the difference from one more than the place in front.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_ENTRIES>")]
    sources: Vec<i32>,
    /// The same of what it gives.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_ENTRIES>")]
    targets: Vec<i32>,
    #[serde(deserialize_with = "limited::list::<_, _, MAX_ENTRIES>")]
    parts: Vec<PatchPart>,
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
    /// What [`crate::frame::FrameReader::open`] must know.
    pub fn frame_id(&self) -> FrameId {
        FrameId { kind: FrameKind::Patch, digest: self.digest, raw_len: self.raw_len, stored_len: self.stored_len }
    }
}

/// A patch: what it starts from, what it gives, and where its frames are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Digests and lengths of the contents that it starts from, in order.
    pub sources: Vec<(Digest, u64)>,
    /// Digests and lengths of the contents that it gives, in order.
    pub targets: Vec<(Digest, u64)>,
    /// Its frames, in order; together their contents are the patch.
    pub parts: Vec<PatchPart>,
    /// The pack that they lie in.
    pub pack: PackEntry,
    /// Where the first begins.
    pub offset: u64,
}

impl Patch {
    /// Bytes of all its frames.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.stored_len)).sum()
    }
}

impl Step {
    /// The step from `old` to `new`, with `patches` whose frames lie in `pack` in this order.
    ///
    /// # Errors
    /// `MissingContent` where a patch is of contents that the releases do not have.
    #[cfg(feature = "publish")]
    pub fn new(
        old: &Manifest,
        new: &Manifest,
        pack: Option<PackEntry>,
        patches: &[NewPatch],
    ) -> Result<Self, StoreError> {
        let places = |manifest: &Manifest| -> HashMap<Digest, usize> {
            manifest.contents().into_iter().enumerate().map(|(place, (digest, _))| (digest, place)).collect()
        };
        let (before, after) = (places(old), places(new));
        let patches = patches.iter().map(|patch| {
            Ok(PatchEntry {
                sources: steps_between(&patch.sources, &before)?,
                targets: steps_between(&patch.targets, &after)?,
                parts: patch.parts.clone(),
            })
        });
        let patches = patches.collect::<Result<_, StoreError>>()?;
        Ok(Self { from: old.serial, manifest: ManifestDelta::between(old, new), pack, patches })
    }

    /// Opens a sealed step, which must have been verified against signed metadata.
    ///
    /// # Errors
    /// As [`sealed::open`]; `Malformed`, `TooLarge`.
    pub fn open(sealed: &[u8], keys: &ContentKeys) -> Result<Self, StoreError> {
        Self::decode(&sealed::open(FrameKind::Step, sealed, keys)?)
    }

    /// Reads an encoded step and checks it.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (step, _appended) = postcard::take_from_bytes::<Self>(bytes).map_err(|error| match error {
            postcard::Error::SerdeDeCustom => {
                StoreError::malformed("the step", "a list is longer than a reader takes, or a value is none there is")
            }
            error => StoreError::malformed("the step", format!("it does not decode: {error}")),
        })?;
        step.check()?;
        Ok(step)
    }

    /// The encoded step.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        self.check()?;
        postcard::to_allocvec(self)
            .map_err(|error| StoreError::malformed("the step", format!("it does not encode: {error}")))
    }

    /// The manifest that it makes of `old`. Whether that is the new release's, its digest says.
    ///
    /// # Errors
    /// As [`ManifestDelta::apply`].
    pub fn manifest(&self, old: &Manifest) -> Result<Manifest, StoreError> {
        if old.serial != self.from {
            return Err(StoreError::malformed("the step", "it starts from another release"));
        }
        self.manifest.apply(old)
    }

    /// Its patches, which are between the contents of `old` and of `new`.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn patches(&self, old: &Manifest, new: &Manifest) -> Result<Vec<Patch>, StoreError> {
        let malformed = |reason: &str| StoreError::malformed("the step", reason);
        let (before, after) = (old.contents(), new.contents());
        let mut offset = 0;
        let mut patches = Vec::with_capacity(self.patches.len());
        for entry in &self.patches {
            let pack = self.pack.ok_or_else(|| malformed("it has patches, and no pack"))?;
            let missing = || malformed("a patch is of contents that there are not");
            let patch = Patch {
                sources: named(&entry.sources, &before).ok_or_else(missing)?,
                targets: named(&entry.targets, &after).ok_or_else(missing)?,
                parts: entry.parts.clone(),
                pack,
                offset,
            };
            if patch.targets.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes)) > MAX_FILE_BYTES {
                return Err(malformed("a patch gives more than a patch can"));
            }
            offset += patch.stored_bytes();
            patches.push(patch);
        }
        Ok(patches)
    }

    fn check(&self) -> Result<(), StoreError> {
        let malformed = |reason: &str| Err(StoreError::malformed("the step", reason));
        if self.patches.len() > MAX_ENTRIES {
            return malformed("it has more patches than a reader takes");
        }
        if self.patches.iter().map(|patch| patch.sources.len() + patch.targets.len()).sum::<usize>() > MAX_PLACES {
            return malformed("its patches name more contents than a reader takes");
        }
        if self.patches.iter().map(|patch| patch.parts.len()).sum::<usize>() > MAX_ENTRIES {
            return malformed("its patches have more parts than a reader takes");
        }
        let mut bytes = 0_u64;
        for patch in &self.patches {
            if patch.targets.is_empty() || patch.sources.len().max(patch.targets.len()) > MAX_ENTRIES {
                return malformed("a patch has no targets, or more than a reader takes");
            }
            for part in &patch.parts {
                part.frame_id().check()?;
                if part.raw_len == 0 {
                    return malformed("a part of a patch is empty");
                }
                bytes = bytes.saturating_add(part.stored_len.into());
            }
        }
        let held = self.pack.map_or(0, |pack| pack.bytes);
        if held > MAX_PACK_BYTES || bytes > held {
            return malformed("its patches do not fit into their pack");
        }
        Ok(())
    }
}

/// A patch to be named in a step.
#[cfg(feature = "publish")]
#[derive(Debug, Clone)]
pub struct NewPatch {
    /// What it starts from, in order.
    pub sources: Vec<Digest>,
    /// What it gives, in order.
    pub targets: Vec<Digest>,
    /// Its frames, in order.
    pub parts: Vec<PatchPart>,
}

#[cfg(feature = "publish")]
fn steps_between(digests: &[Digest], places: &HashMap<Digest, usize>) -> Result<Vec<i32>, StoreError> {
    let mut next = 0_i32;
    let step = |digest: &Digest| {
        let missing = || StoreError::MissingContent { digest: *digest, wanted: "a patch".into() };
        // A manifest has fewer contents than that.
        let place = *places.get(digest).ok_or_else(missing)? as i32;
        let step = place - next;
        next = place + 1;
        Ok(step)
    };
    digests.iter().map(step).collect()
}

fn named(steps: &[i32], contents: &[(Digest, u64)]) -> Option<Vec<(Digest, u64)>> {
    let mut next = 0_i32;
    let mut content = |step: &i32| {
        let place = next.checked_add(*step)?;
        next = place.checked_add(1)?;
        contents.get(usize::try_from(place).ok()?).copied()
    };
    let mut named = Vec::with_capacity(steps.len());
    for step in steps {
        named.push(content(step)?);
    }
    Some(named)
}
