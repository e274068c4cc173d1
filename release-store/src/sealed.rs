//! Sealed objects: what is fetched whole, and is named by the digest of its sealed bytes in signed TUF metadata.
//!
//! ```text
//! magic 8 │ format u16 │ zero u16 │ content key number u32 │ encoded length u32 │ frame
//! ```
//! A manifest, a chunk list or a step, each as a TUF target of its own (`docs/formats/store.md`). Length and digest are
//! verified before anything of the bytes is looked at.

use firmware_image::Digest;

use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::frame::{FrameId, FrameKind, FrameReader, UNNAMED, max_stored_len};
use crate::transport::{Transport, get_all};

/// The format's number.
pub const FORMAT: u16 = 1;
/// Bytes in front of the frame.
pub const HEADER_BYTES: usize = 20;

/// A sealed object as signed metadata names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectRef {
    /// SHA-256 of its sealed bytes.
    pub digest: Digest,
    /// Their number.
    pub bytes: u64,
}

impl ObjectRef {
    /// What `sealed` is named by.
    pub fn of(sealed: &[u8]) -> Self {
        Self { digest: Digest::of(sealed), bytes: sealed.len() as u64 }
    }

    /// The path of the TUF target `name` in a store.
    pub fn path(&self, name: &str) -> String {
        format!("targets/{}.{name}", self.digest)
    }

    /// Gets the object, which is called `name`, from a store, and verifies it.
    ///
    /// # Errors
    /// `Transport`, `WrongLength`, `WrongDigest`.
    pub fn fetch<T: Transport + ?Sized>(&self, name: &str, transport: &T) -> Result<Vec<u8>, StoreError> {
        let bytes = get_all(transport, &self.path(name), self.bytes)?;
        self.check(name, &bytes)?;
        Ok(bytes)
    }

    /// Whether `sealed` is what this names.
    ///
    /// # Errors
    /// `WrongLength`, `WrongDigest`.
    pub fn check(&self, name: &str, sealed: &[u8]) -> Result<(), StoreError> {
        if sealed.len() as u64 != self.bytes {
            let (expected, found) = (self.bytes, sealed.len() as u64);
            return Err(StoreError::WrongLength { object: self.path(name), expected, found });
        }
        let found = Digest::of(sealed);
        if found != self.digest {
            return Err(StoreError::WrongDigest { object: self.path(name), expected: self.digest, found });
        }
        Ok(())
    }
}

/// What a sealed object of `kind` begins with. Chunks and parts of patches are none.
fn magic(kind: FrameKind) -> Option<[u8; 8]> {
    match kind {
        FrameKind::ChunkList => Some(*b"HOLDLIST"),
        FrameKind::Manifest => Some(*b"HOLDFMAN"),
        FrameKind::Step => Some(*b"HOLDSTEP"),
        FrameKind::Chunk | FrameKind::Patch => None,
    }
}

/// The longest sealed object of `kind` that a reader accepts, in bytes.
pub fn max_bytes(kind: FrameKind) -> u64 {
    HEADER_BYTES as u64 + u64::from(max_stored_len(kind.max_bytes()))
}

/// Opens sealed bytes, which must have been verified against signed metadata: the encoded object.
///
/// # Errors
/// `Malformed`, `UnknownFormat`, `UnknownKey`, `Undecryptable`, `TooLarge`.
pub fn open(kind: FrameKind, sealed: &[u8], keys: &ContentKeys) -> Result<Vec<u8>, StoreError> {
    let object = || format!("the {}", kind.name());
    let malformed = |reason: &str| StoreError::malformed(object(), reason);
    let short = || malformed("it is shorter than its header");
    let (header, frame) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    if magic(kind).is_none_or(|magic| header[..8] != magic) {
        return Err(malformed("it does not begin like one"));
    }
    let format = u16::from_le_bytes([header[8], header[9]]);
    if format != FORMAT {
        return Err(StoreError::UnknownFormat { object: object(), format });
    }
    if header[10..12] != [0; 2] {
        return Err(malformed("the reserved bytes of its header are not zero"));
    }
    let number = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    let raw_len = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
    let stored_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let key = keys.get(number).ok_or_else(|| StoreError::UnknownKey { object: object(), number })?;
    let mut reader = FrameReader::new()?;
    Ok(reader.open(key, &FrameId { kind, digest: UNNAMED, raw_len, stored_len }, frame)?.bytes().to_vec())
}

/// The number of the content key that an object is sealed under; `None` where it is shorter than its header.
#[cfg(feature = "publish")]
pub(crate) fn key_number(sealed: &[u8]) -> Option<u32> {
    let header = sealed.first_chunk::<HEADER_BYTES>()?;
    Some(u32::from_le_bytes([header[12], header[13], header[14], header[15]]))
}

/// Seals an encoded object.
///
/// # Errors
/// `TooLarge`.
#[cfg(feature = "publish")]
pub fn seal(kind: FrameKind, writer: &mut crate::frame::FrameWriter, encoded: &[u8]) -> Result<Vec<u8>, StoreError> {
    let magic = magic(kind).ok_or_else(|| StoreError::Refused(format!("a {} is not sealed alone", kind.name())))?;
    let (id, frame) = writer.seal_unnamed(kind, encoded)?;
    let mut sealed = Vec::with_capacity(HEADER_BYTES + frame.len());
    sealed.extend_from_slice(&magic);
    sealed.extend_from_slice(&FORMAT.to_le_bytes());
    sealed.extend_from_slice(&[0; 2]);
    sealed.extend_from_slice(&writer.key_number().to_le_bytes());
    sealed.extend_from_slice(&id.raw_len.to_le_bytes());
    sealed.extend_from_slice(&frame);
    Ok(sealed)
}

#[cfg(all(test, feature = "publish"))]
mod tests {
    use super::*;
    use crate::content_key::ContentKey;
    use crate::frame::FrameWriter;

    #[test]
    fn an_object_is_opened_with_the_key_that_it_names() {
        let mut keys = ContentKeys::new();
        for number in [1, 2, 7] {
            assert!(keys.insert(ContentKey::new(number, [number as u8; 32])));
        }
        for number in [1, 2, 7] {
            let mut writer = FrameWriter::new(keys.get(number).unwrap(), 3).unwrap();
            let sealed = seal(FrameKind::Manifest, &mut writer, b"content").unwrap();
            assert_eq!(key_number(&sealed), Some(number));
            assert_eq!(open(FrameKind::Manifest, &sealed, &keys).unwrap(), b"content");
        }
        assert_eq!(key_number(&[]), None);
    }
}
