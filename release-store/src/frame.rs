//! Frames: the encrypted, compressed unit of a store (`docs/formats/pack.md`).
//!
//! ```text
//! salt 16 │ AES-256-GCM(zstd(content)) │ tag 16
//! key  = HKDF-SHA256(ikm = content key, salt = salt, info = "holdfast frame key v1"), nonce = 12 zeros
//! data = kind u8 │ SHA-256 of the content 32 │ content length u32 │ frame length u32      (associated data)
//! salt = HMAC-SHA256(HKDF-SHA256(content key, no salt, "holdfast frame salt v1"), data ‖ compressed)[..16]
//! ```
//! Equal input is equal ciphertext, and different bytes never meet the same key. A reader knows kind, digest and both
//! lengths from something signed before it opens a frame, and allocates no more than they say.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use firmware_image::Digest;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::content_key::ContentKey;
use crate::error::StoreError;

/// Bytes in front of the ciphertext.
pub const SALT_BYTES: usize = 16;
/// Bytes behind the ciphertext.
pub const TAG_BYTES: usize = 16;
/// The largest chunk a reader accepts, in bytes.
pub const MAX_CHUNK_BYTES: u32 = 1 << 20;
/// The largest encoded chunk list a reader accepts, in bytes.
pub const MAX_CHUNK_LIST_BYTES: u32 = 16 << 20;
/// The largest encoded manifest a reader accepts, in bytes.
pub const MAX_MANIFEST_BYTES: u32 = 12 << 20;

const KEY_INFO: &[u8] = b"holdfast frame key v1";
#[cfg(feature = "publish")]
const SALT_INFO: &[u8] = b"holdfast frame salt v1";
const DATA_BYTES: usize = 1 + 32 + 4 + 4;

/// The largest part of a patch a reader accepts, in bytes.
pub const MAX_PATCH_PART_BYTES: u32 = 1 << 20;
/// The largest encoded step a reader accepts, in bytes.
pub const MAX_STEP_BYTES: u32 = 8 << 20;

/// What a frame holds. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A piece of content.
    Chunk = 1,
    /// A chunk list.
    ChunkList = 2,
    /// A manifest.
    Manifest = 3,
    /// A part of a patch.
    Patch = 4,
    /// What leads from one release to another.
    Step = 5,
}

impl FrameKind {
    /// The largest content of this kind, in bytes.
    pub fn max_bytes(self) -> u32 {
        match self {
            Self::Chunk => MAX_CHUNK_BYTES,
            Self::ChunkList => MAX_CHUNK_LIST_BYTES,
            Self::Manifest => MAX_MANIFEST_BYTES,
            Self::Patch => MAX_PATCH_PART_BYTES,
            Self::Step => MAX_STEP_BYTES,
        }
    }

    /// Whether it is named by the digest of its sealed bytes.
    fn is_unnamed(self) -> bool {
        matches!(self, Self::ChunkList | Self::Manifest | Self::Step)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chunk => "chunk",
            Self::ChunkList => "chunk list",
            Self::Manifest => "manifest",
            Self::Patch => "part of a patch",
            Self::Step => "step",
        }
    }
}

/// The longest frame that content of `raw_len` bytes may take: zstd's own bound, salt and tag.
pub const fn max_stored_len(raw_len: u32) -> u32 {
    raw_len.saturating_add(raw_len >> 8).saturating_add(128)
}

/// What is known of a frame before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameId {
    /// What it holds.
    pub kind: FrameKind,
    /// SHA-256 of the content; [`UNNAMED`] for what is named by the digest of its sealed bytes (see [`crate::sealed`]).
    pub digest: Digest,
    /// The content's length in bytes.
    pub raw_len: u32,
    /// The frame's length in bytes, salt and tag included.
    pub stored_len: u32,
}

/// The digest in the associated data of frames that are named by their sealed bytes.
pub const UNNAMED: Digest = Digest([0; 32]);

impl FrameId {
    fn object(&self) -> String {
        if self.digest == UNNAMED {
            format!("the {}", self.kind.name())
        } else {
            format!("{} {}", self.kind.name(), self.digest)
        }
    }

    fn data(&self) -> [u8; DATA_BYTES] {
        let mut data = [0; DATA_BYTES];
        data[0] = self.kind as u8;
        data[1..33].copy_from_slice(&self.digest.0);
        data[33..37].copy_from_slice(&self.raw_len.to_le_bytes());
        data[37..].copy_from_slice(&self.stored_len.to_le_bytes());
        data
    }

    /// Refuses lengths that no frame can have.
    ///
    /// # Errors
    /// `TooLarge`, `Malformed`.
    pub fn check(&self) -> Result<(), StoreError> {
        let limit = self.kind.max_bytes();
        if self.raw_len > limit {
            let (limit, found) = (limit.into(), self.raw_len.into());
            return Err(StoreError::TooLarge { object: self.object(), what: "the content's length", limit, found });
        }
        let limit = max_stored_len(self.raw_len);
        if self.stored_len > limit {
            let (limit, found) = (limit.into(), self.stored_len.into());
            return Err(StoreError::TooLarge { object: self.object(), what: "the frame's length", limit, found });
        }
        if (self.stored_len as usize) <= SALT_BYTES + TAG_BYTES {
            return Err(StoreError::malformed(self.object(), "the frame is shorter than salt and tag"));
        }
        Ok(())
    }
}

/// Content that is what its [`FrameId`] says: it can only be had from [`FrameReader::open`].
#[derive(Debug, Clone, Copy)]
pub struct VerifiedFrame<'a> {
    digest: Digest,
    bytes: &'a [u8],
}

impl<'a> VerifiedFrame<'a> {
    /// SHA-256 of the content.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The content.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Opens frames, one after the other, with one set of buffers.
pub struct FrameReader {
    decompressor: zstd::bulk::Decompressor<'static>,
    sealed: Vec<u8>,
    content: Vec<u8>,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameReader")
    }
}

impl FrameReader {
    /// A reader with empty buffers.
    ///
    /// # Errors
    /// Where no memory is left for a decompressor.
    pub fn new() -> Result<Self, StoreError> {
        let decompressor = zstd::bulk::Decompressor::new()
            .map_err(|error| StoreError::Refused(format!("no decompressor could be made: {error}")))?;
        Ok(Self { decompressor, sealed: Vec::new(), content: Vec::new() })
    }

    /// Opens the frame `stored`: decrypts, decompresses into exactly the length that `id` names, checks the digest.
    ///
    /// # Errors
    /// `WrongLength` where `stored` is not as long as `id` says, `Undecryptable`, `Malformed` where the content does not
    /// decompress to its length, `WrongDigest`, and what [`FrameId::check`] refuses.
    pub fn open(&mut self, key: &ContentKey, id: &FrameId, stored: &[u8]) -> Result<VerifiedFrame<'_>, StoreError> {
        id.check()?;
        if stored.len() != id.stored_len as usize {
            let (expected, found) = (id.stored_len.into(), stored.len() as u64);
            return Err(StoreError::WrongLength { object: id.object(), expected, found });
        }
        let undecryptable = || StoreError::Undecryptable { object: id.object() };
        let (salt, rest) = stored.split_first_chunk::<SALT_BYTES>().ok_or_else(undecryptable)?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(undecryptable)?;
        self.sealed.clear();
        self.sealed.extend_from_slice(ciphertext);
        cipher(key, salt)
            .decrypt_inout_detached(
                &[0; 12].into(),
                &id.data(),
                self.sealed.as_mut_slice().into(),
                &aes_gcm::Tag::from(*tag),
            )
            .map_err(|_| undecryptable())?;

        let raw_len = id.raw_len as usize;
        if self.content.len() < raw_len {
            self.content.resize(raw_len, 0);
        }
        let content = &mut self.content[..raw_len];
        let written = self.decompressor.decompress_to_buffer(&self.sealed, content);
        match written {
            Ok(n) if n == raw_len => {}
            _ => return Err(StoreError::malformed(id.object(), "it does not decompress to its length")),
        }
        let content = &self.content[..raw_len];
        let digest = Digest::of(content);
        // Zeros on anything else are no leave to be anything.
        let unnamed = id.kind.is_unnamed() && id.digest == UNNAMED;
        if !unnamed && digest != id.digest {
            return Err(StoreError::WrongDigest { object: id.object(), expected: id.digest, found: digest });
        }
        Ok(VerifiedFrame { digest, bytes: content })
    }
}

fn cipher(key: &ContentKey, salt: &[u8; SALT_BYTES]) -> Aes256Gcm {
    let mut frame_key = [0; 32];
    // 32 bytes are far below HKDF's longest output, the only error there is.
    let _ = Hkdf::<Sha256>::new(Some(salt), &key.key).expand(KEY_INFO, &mut frame_key);
    let cipher = Aes256Gcm::new(&frame_key.into());
    frame_key.zeroize();
    cipher
}

/// Makes frames, one after the other, with one compressor.
#[cfg(feature = "publish")]
pub struct FrameWriter {
    compressor: zstd::bulk::Compressor<'static>,
    key: ContentKey,
    /// HMAC's key, filled up with zeros to its block as RFC 2104 does.
    salt_key: zeroize::Zeroizing<[u8; 64]>,
}

#[cfg(feature = "publish")]
impl FrameWriter {
    /// A writer of frames under `key`, compressing at zstd's `level`.
    ///
    /// # Errors
    /// Where no memory is left for a compressor.
    pub fn new(key: &ContentKey, level: i32) -> Result<Self, StoreError> {
        let compressor = zstd::bulk::Compressor::new(level)
            .map_err(|error| StoreError::Refused(format!("no compressor of level {level} could be made: {error}")))?;
        let mut salt_key = zeroize::Zeroizing::new([0; 64]);
        // As in `cipher`: the output's length is the only error there is.
        let _ = Hkdf::<Sha256>::new(None, &key.key).expand(SALT_INFO, &mut salt_key[..32]);
        Ok(Self { compressor, key: key.clone(), salt_key })
    }

    /// The number of the key that frames are made under.
    pub fn key_number(&self) -> u32 {
        self.key.number
    }

    /// Bytes that follow from `content` and that only holders of the key can tell.
    pub fn blind(&self, content: &[u8]) -> [u8; 16] {
        self.keyed_digest(&[content])
    }

    fn keyed_digest(&self, parts: &[&[u8]]) -> [u8; 16] {
        use hmac::Mac as _;

        let mut mac = hmac::Hmac::<Sha256>::new(&(*self.salt_key).into());
        parts.iter().for_each(|part| mac.update(part));
        let mut digest = [0; 16];
        digest.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        digest
    }

    /// Seals `content`, which is named by its digest, as a frame of `kind`; returns what a reader must know, and the
    /// frame.
    ///
    /// # Errors
    /// `TooLarge` where `kind` cannot hold so much.
    pub fn seal(&mut self, kind: FrameKind, content: &[u8]) -> Result<(FrameId, Vec<u8>), StoreError> {
        self.seal_as(kind, Digest::of(content), content)
    }

    /// Seals `content` as a frame that will be named by the digest of its sealed bytes.
    ///
    /// # Errors
    /// As [`FrameWriter::seal`].
    pub fn seal_unnamed(&mut self, kind: FrameKind, content: &[u8]) -> Result<(FrameId, Vec<u8>), StoreError> {
        self.seal_as(kind, UNNAMED, content)
    }

    fn seal_as(&mut self, kind: FrameKind, digest: Digest, content: &[u8]) -> Result<(FrameId, Vec<u8>), StoreError> {
        let raw_len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let too_large = |found| StoreError::TooLarge {
            object: format!("a {} to publish", kind.name()),
            what: "the content's length",
            limit: kind.max_bytes().into(),
            found,
        };
        if raw_len > kind.max_bytes() {
            return Err(too_large(content.len() as u64));
        }
        let compressed = self
            .compressor
            .compress(content)
            .map_err(|error| StoreError::Refused(format!("zstd could not compress: {error}")))?;
        let stored_len = (SALT_BYTES + compressed.len() + TAG_BYTES) as u32;
        let id = FrameId { kind, digest, raw_len, stored_len };
        id.check()?;
        let data = id.data();

        let salt: [u8; SALT_BYTES] = self.keyed_digest(&[&data, &compressed]);

        let mut frame = Vec::with_capacity(stored_len as usize);
        frame.extend_from_slice(&salt);
        frame.extend_from_slice(&compressed);
        let tag = cipher(&self.key, &salt)
            .encrypt_inout_detached(&[0; 12].into(), &data, (&mut frame[SALT_BYTES..]).into())
            .map_err(|_| too_large(content.len() as u64))?;
        frame.extend_from_slice(&tag);
        Ok((id, frame))
    }
}

#[cfg(feature = "publish")]
impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameWriter({:?})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: FrameKind, raw_len: u32, stored_len: u32) -> FrameId {
        FrameId { kind, digest: Digest::of(b"content"), raw_len, stored_len }
    }

    #[test]
    fn a_frame_has_its_limits_and_not_a_byte_more() {
        let least = (SALT_BYTES + TAG_BYTES) as u32 + 1;
        for kind in [FrameKind::Chunk, FrameKind::ChunkList, FrameKind::Manifest, FrameKind::Patch, FrameKind::Step] {
            let most = kind.max_bytes();
            for (raw_len, stored_len) in
                [(most, least), (most, max_stored_len(most)), (0, least), (0, max_stored_len(0))]
            {
                id(kind, raw_len, stored_len).check().unwrap();
            }
            for (raw_len, stored_len) in [(most + 1, least), (most, max_stored_len(most) + 1), (0, least - 1), (0, 0)] {
                assert!(id(kind, raw_len, stored_len).check().is_err(), "{kind:?}, {raw_len}, {stored_len}");
            }
        }
    }

    #[test]
    fn an_error_says_which_frame() {
        let named = id(FrameKind::Chunk, 0, 0);
        let said = named.check().unwrap_err().to_string();
        assert!(said.contains(&format!("chunk {}", named.digest)), "{said}");
        let said = FrameId { digest: UNNAMED, ..id(FrameKind::Manifest, 0, 0) }.check().unwrap_err().to_string();
        assert!(said.contains("the manifest"), "{said}");
    }
}
