//! The cryptography that TUF verification runs on: signatures by `ring`, digests by `sha2`.
//!
//! `sigstore-crypto` takes one provider a process. Whoever verifies first installs this one; where the program has
//! installed another before, that one serves.

use std::sync::Once;

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use sha2::Digest as _;
use sigstore_crypto::{CryptoProvider, Error, HashContext, Result, SigningScheme};
use sigstore_types::HashAlgorithm;

/// Installs the provider, once.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error means that the program has chosen a provider of its own, which is its right.
        let _ = sigstore_crypto::install_default_provider(&Provider);
    });
}

#[derive(Debug)]
struct Provider;

struct Hashing<D>(D);

impl<D: sha2::Digest + Send> HashContext for Hashing<D> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Provider {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        match algorithm {
            HashAlgorithm::Sha2256 => Ok(Box::new(Hashing(sha2::Sha256::new()))),
            HashAlgorithm::Sha2384 => Ok(Box::new(Hashing(sha2::Sha384::new()))),
            HashAlgorithm::Sha2512 => Ok(Box::new(Hashing(sha2::Sha512::new()))),
            other => Err(Error::UnsupportedAlgorithm(format!("{other} digests"))),
        }
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        let invalid = |_| Error::Verification(format!("the {} signature does not hold", scheme.name()));
        UnparsedPublicKey::new(algorithm(scheme)?, key).verify(data, signature).map_err(invalid)
    }

    fn verify_prehashed(&self, scheme: SigningScheme, _: &[u8], _: &[u8], _: &[u8]) -> Result<()> {
        // TUF signs whole messages; nothing here asks for this.
        Err(Error::UnsupportedAlgorithm(format!("{} over a digest", scheme.name())))
    }
}

fn algorithm(scheme: SigningScheme) -> Result<&'static dyn VerificationAlgorithm> {
    Ok(match scheme {
        SigningScheme::Ed25519 => &signature::ED25519,
        SigningScheme::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        SigningScheme::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        SigningScheme::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        SigningScheme::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
        SigningScheme::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
        other => return Err(Error::UnsupportedAlgorithm(other.name().to_owned())),
    })
}
