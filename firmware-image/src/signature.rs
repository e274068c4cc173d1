//! Ed25519 (RFC 8032) over a domain and a digest, the one way in which Holdfast's own formats are signed.
//!
//! The message is `domain ‖ SHA-256(bytes)`: the domain (32 bytes, one per purpose) keeps a signature made for one
//! format from ever counting in another, the digest keeps the message short on a microcontroller.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// Bytes of a public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// What a signature is for. Never reuse or renumber one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A certificate of the vendor key over an updater key.
    KeyCertificate,
    /// The trailer of an updater image.
    UpdaterTrailer,
    /// The device configuration.
    DeviceConfig,
    /// The report of a factory about one unit.
    FactoryReport,
}

impl Domain {
    fn prefix(self) -> &'static [u8; 32] {
        match self {
            Self::KeyCertificate => b"holdfast key certificate v1\0\0\0\0\0",
            Self::UpdaterTrailer => b"holdfast updater trailer v1\0\0\0\0\0",
            Self::DeviceConfig => b"holdfast device config v1\0\0\0\0\0\0\0",
            Self::FactoryReport => b"holdfast factory report v1\0\0\0\0\0\0",
        }
    }

    fn message(self, digest: &Digest) -> [u8; 64] {
        let mut message = [0; 64];
        message[..32].copy_from_slice(self.prefix());
        message[32..].copy_from_slice(&digest.0);
        message
    }
}

/// An Ed25519 public key, checked only when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey(#[serde(with = "crate::byte_array")] pub [u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// Whether `signature` is this key's over `bytes` for `domain` (strict verification: no small-order keys, no
    /// malleable signatures).
    pub fn verifies(&self, domain: Domain, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        verifies(&self.0, &domain.message(&Digest::of(bytes)), signature)
    }
}

#[cfg(not(feature = "ed25519-compact"))]
fn verifies(key: &[u8; PUBLIC_KEY_BYTES], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    use ed25519_dalek::{Signature, VerifyingKey};

    let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
    key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
}

/// As small as it gets. It multiplies by the cofactor, so it also takes a signature whose `R` has a part of small order, which
/// nobody can make but the key's holder.
#[cfg(feature = "ed25519-compact")]
fn verifies(key: &[u8; PUBLIC_KEY_BYTES], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    use ed25519_compact::{PublicKey, Signature};

    PublicKey::new(*key).verify(message, &Signature::new(*signature)).is_ok()
}

/// An Ed25519 signing key.
#[cfg(feature = "sign")]
pub struct SigningKey(ed25519_dalek::SigningKey);

#[cfg(feature = "sign")]
impl SigningKey {
    /// The key whose seed (RFC 8032, 5.1.5) is `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes` for `domain`.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        use ed25519_dalek::Signer as _;
        self.0.sign(&domain.message(&Digest::of(bytes))).to_bytes()
    }
}

#[cfg(feature = "sign")]
impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}
