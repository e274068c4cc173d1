//! Sealing: a body as a STREAM of AES-256-GCM segments, and short values wrapped under a key.
//!
//! The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: *Online Authenticated-Encryption and its Nonce-Reuse
//! Misuse-Resistance*, 2015): segment `i` is encrypted under the nonce `0⁷ ‖ i (u32, big-endian) ‖ last`, so that
//! truncation, reordering and swapping are caught with one segment of memory.
//!
//! Every body has its own key: HKDF-SHA256 (RFC 5869) of the device key, a 32-byte salt and the purpose. The salt is
//! *synthetic*: HMAC-SHA256 over the purpose, the associated data and the digest of the plaintext, under a subkey of the
//! device key. Equal input gives equal ciphertext, anything else gives another key, so that no key and nonce ever meet
//! two different inputs, without a source of randomness.

use gcm::Aes256Gcm;
pub use gcm::{KEY_BYTES, TAG_BYTES, Unauthentic};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::Digest;

/// Bytes of a body's salt.
pub const SALT_BYTES: usize = 32;

/// A secret of 256 bits. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; KEY_BYTES]);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// A secret derived from this one by HKDF-SHA256 with `salt` and `info`.
    pub fn derive(&self, salt: &[u8], info: &[u8]) -> Self {
        let mut out = [0; KEY_BYTES];
        // 32 bytes are within what HKDF-SHA256 can give (255 × 32), the only error there is.
        let _ = Hkdf::<Sha256>::new(Some(salt), &self.0).expand(info, &mut out);
        Self(out)
    }
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a sealed body is for; part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A version record.
    Record,
    /// A backup of updaters.
    Backup,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Record => b"holdfast record v1",
            Self::Backup => b"holdfast backup v1",
        }
    }
}

/// The synthetic salt of a body with this plaintext digest and associated data.
pub fn synthetic_salt(
    device_key: &Secret,
    purpose: Purpose,
    associated: &[u8],
    plaintext: &Digest,
) -> [u8; SALT_BYTES] {
    let subkey = device_key.derive(b"", b"holdfast synthetic salt v1");
    let mut mac = new_hmac(subkey.expose());
    mac.update(purpose.label());
    mac.update(&Digest::of(associated).0);
    mac.update(&plaintext.0);
    mac.finalize().into_bytes().into()
}

fn new_hmac(key: &[u8; KEY_BYTES]) -> Hmac<Sha256> {
    // RFC 2104: a key shorter than the hash's block of 64 bytes is padded with zeros.
    let mut block = [0; 64];
    block[..KEY_BYTES].copy_from_slice(key);
    Hmac::<Sha256>::new(&block.into())
}

/// Seals and opens the segments of one body.
pub struct BodyCipher {
    cipher: Aes256Gcm,
    associated: Digest,
}

impl BodyCipher {
    /// The cipher of the body with this salt; what has the digest `associated` is authenticated with every segment.
    pub fn new(device_key: &Secret, purpose: Purpose, salt: &[u8; SALT_BYTES], associated: &Digest) -> Self {
        let key = device_key.derive(salt, purpose.label());
        Self { cipher: cipher(&key), associated: *associated }
    }

    /// Encrypts a segment in place and returns its tag.
    pub fn seal_segment(&self, index: u32, last: bool, segment: &mut [u8]) -> [u8; TAG_BYTES] {
        self.cipher.seal(&nonce(index, last), &self.associated.0, segment)
    }

    /// Decrypts a segment in place.
    ///
    /// # Errors
    /// [`Unauthentic`]; the bytes are then wiped.
    pub fn open_segment(
        &self,
        index: u32,
        last: bool,
        segment: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic> {
        self.cipher.open(&nonce(index, last), &self.associated.0, segment, tag)
    }
}

/// Encrypts `value` in place under a key that is used for nothing else, and returns the tag.
pub fn wrap(key: &Secret, associated: &[u8], value: &mut [u8]) -> [u8; TAG_BYTES] {
    cipher(key).seal(&[0; 12], associated, value)
}

/// Decrypts what [`wrap`] made, in place.
///
/// # Errors
/// [`Unauthentic`]; the bytes are then wiped.
pub fn unwrap(key: &Secret, associated: &[u8], value: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), Unauthentic> {
    cipher(key).open(&[0; 12], associated, value, tag)
}

fn cipher(key: &Secret) -> Aes256Gcm {
    Aes256Gcm::new(key.expose())
}

fn nonce(index: u32, last: bool) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[7..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = last.into();
    nonce
}
