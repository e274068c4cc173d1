//! AES-256-GCM (NIST SP 800-38D), in place and with the tag apart.
//!
//! The cipher is `aes-gcm`'s, which is generic: its code is compiled where it is used. It is used here and nowhere else, so that
//! a program that is small before all can have this crate alone optimised for speed.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"))]
mod aes;

#[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"))]
use aes::Aes;
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
use aes_gcm::aes::Aes256Enc as Aes;
use aes_gcm::{AesGcm, Key};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// The bytes were not encrypted with this key, nonce and associated data, or the tag is not theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthentic;

/// A key, ready for use. Wiped when dropped.
pub struct Aes256Gcm(AesGcm<Aes, U12>);

impl Aes256Gcm {
    /// The cipher with this key.
    #[inline(never)]
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(AesGcm::new(&Key::<AesGcm<Aes, U12>>::from(*key)))
    }

    /// Encrypts in place and returns the tag. A nonce must never be used twice with one key.
    #[inline(never)]
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::<AesGcm<Aes, U12>>::from(*nonce);
        match self.0.encrypt_inout_detached(&nonce, associated, bytes.into()) {
            Ok(tag) => tag.into(),
            // Only lengths over 64 GiB fail, and every caller's are limited to far less; never leave plaintext behind.
            Err(_) => {
                bytes.fill(0);
                [0; TAG_BYTES]
            }
        }
    }

    /// Decrypts in place.
    ///
    /// # Errors
    /// [`Unauthentic`]; the bytes are then wiped.
    #[inline(never)]
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        associated: &[u8],
        bytes: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Unauthentic> {
        let nonce = Nonce::<AesGcm<Aes, U12>>::from(*nonce);
        let tag = Tag::<AesGcm<Aes, U12>>::from(*tag);
        self.0.decrypt_inout_detached(&nonce, associated, (&mut *bytes).into(), &tag).map_err(|_| {
            bytes.fill(0);
            Unauthentic
        })
    }
}
