//! Verified releases, and the way from one to its manifest.

use std::collections::BTreeMap;

use firmware_image::Digest;
use serde::{Deserialize, Serialize};
use sigstore_tuf::{TargetFile, Targets};

use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::manifest::{MAX_SEALED_BYTES, Manifest};
use crate::transport::{Transport, get_all};

/// What the name of a manifest's TUF target begins with; its serial follows.
pub const MANIFEST_PREFIX: &str = "manifest-";

/// A release that the store's targets role vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Release {
    /// Its serial; the higher, the newer.
    pub serial: u64,
    /// Its version, for people.
    pub version: String,
    /// The channel it was published to.
    pub channel: String,
    /// When it was published, seconds since 1970.
    pub published: i64,
    /// Why it was withdrawn; `None` for one that stands. May be empty.
    pub withdrawn: Option<String>,
    /// SHA-256 of its sealed manifest.
    pub manifest_digest: Digest,
    /// The length of its sealed manifest, in bytes.
    pub manifest_bytes: u64,
}

impl Release {
    /// The path of its sealed manifest in a store.
    pub fn manifest_path(&self) -> String {
        format!("targets/{}.{MANIFEST_PREFIX}{}", self.manifest_digest, self.serial)
    }
}

/// `custom.holdfast` of a manifest's TUF target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReleaseStatement {
    pub serial: u64,
    pub version: String,
    pub channel: String,
    pub published: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

/// All releases of a store, by serial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Releases(Vec<Release>);

impl Releases {
    pub(crate) fn from_targets(targets: &Targets) -> Result<Self, StoreError> {
        let releases = targets
            .targets
            .iter()
            .filter(|(name, _)| name.starts_with(MANIFEST_PREFIX))
            .map(|(name, target)| read_release(name, target));
        // By serial, not by name: "manifest-10" comes before "manifest-9".
        let by_serial: BTreeMap<u64, Release> = releases
            .map(|release| release.map(|release| (release.serial, release)))
            .collect::<Result<_, StoreError>>()?;
        Ok(Self(by_serial.into_values().collect()))
    }

    /// The newest release of `channel` that was not withdrawn.
    pub fn newest(&self, channel: &str) -> Option<&Release> {
        self.0.iter().rev().find(|release| release.channel == channel && release.withdrawn.is_none())
    }

    /// The release numbered `serial`.
    pub fn by_serial(&self, serial: u64) -> Option<&Release> {
        self.0.binary_search_by_key(&serial, |release| release.serial).ok().map(|at| &self.0[at])
    }

    /// The release of `channel` with the human version `version`; withdrawn ones too.
    pub fn by_version(&self, channel: &str, version: &str) -> Option<&Release> {
        self.0.iter().rev().find(|release| release.channel == channel && release.version == version)
    }

    /// All releases, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Release> + ExactSizeIterator {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest time of publication, seconds since 1970: the present is no earlier.
    pub fn newest_publication(&self) -> Option<i64> {
        self.0.iter().map(|release| release.published).max()
    }
}

fn read_release(name: &str, target: &TargetFile) -> Result<Release, StoreError> {
    let malformed = |reason: &str| StoreError::malformed(format!("the TUF target {name}"), reason);
    let statement = target.custom.as_ref().and_then(|custom| custom.get("holdfast"));
    let statement = statement.ok_or_else(|| malformed("it does not say which release it is"))?;
    let statement = ReleaseStatement::deserialize(statement)
        .map_err(|error| malformed(&format!("its statement does not decode: {error}")))?;
    if name != format!("{MANIFEST_PREFIX}{}", statement.serial) {
        return Err(malformed("its name and its serial differ"));
    }
    let digest = target.hashes.get("sha256").and_then(|hex| Digest::from_hex(hex));
    let manifest_digest = digest.ok_or_else(|| malformed("it has no SHA-256"))?;
    if target.length > MAX_SEALED_BYTES {
        let (what, limit, found) = ("the length of the manifest", MAX_SEALED_BYTES, target.length);
        return Err(StoreError::TooLarge { object: name.to_owned(), what, limit, found });
    }
    Ok(Release {
        serial: statement.serial,
        version: statement.version,
        channel: statement.channel,
        published: statement.published,
        withdrawn: statement.withdrawn,
        manifest_digest,
        manifest_bytes: target.length,
    })
}

/// A sealed manifest whose bytes are those that a verified [`Release`] names.
#[derive(Debug, Clone)]
pub struct SealedManifest {
    release: Release,
    bytes: Vec<u8>,
}

impl SealedManifest {
    /// Gets the manifest of `release` from a store and verifies it.
    ///
    /// # Errors
    /// `Transport`, `WrongLength`, `WrongDigest`.
    pub fn fetch<T: Transport + ?Sized>(release: &Release, transport: &T) -> Result<Self, StoreError> {
        Self::accept(release, get_all(transport, &release.manifest_path(), release.manifest_bytes)?)
    }

    /// Verifies bytes from anywhere (a cache) as the manifest of `release`.
    ///
    /// # Errors
    /// `WrongLength`, `WrongDigest`.
    pub fn accept(release: &Release, bytes: Vec<u8>) -> Result<Self, StoreError> {
        let object = || release.manifest_path();
        if bytes.len() as u64 != release.manifest_bytes {
            let (expected, found) = (release.manifest_bytes, bytes.len() as u64);
            return Err(StoreError::WrongLength { object: object(), expected, found });
        }
        let found = Digest::of(&bytes);
        if found != release.manifest_digest {
            return Err(StoreError::WrongDigest { object: object(), expected: release.manifest_digest, found });
        }
        Ok(Self { release: release.clone(), bytes })
    }

    /// The sealed bytes, for a cache.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The release it belongs to.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// Opens it and checks that it is for `product` and for its release.
    ///
    /// # Errors
    /// As [`Manifest::open`]; `Mismatch` for another product or another release.
    pub fn open(&self, product: &str, keys: &ContentKeys) -> Result<Manifest, StoreError> {
        let manifest = Manifest::open(&self.bytes, keys)?;
        let release = &self.release;
        let (wanted, found) = (release.serial.to_string(), manifest.serial.to_string());
        let pairs = [
            ("product", product, manifest.product.as_str()),
            ("serial", &wanted, &found),
            ("version", &release.version, &manifest.version),
            ("channel", &release.channel, &manifest.channel),
        ];
        for (what, expected, found) in pairs {
            if expected != found {
                return Err(StoreError::Mismatch {
                    object: format!("the manifest of release {}", release.serial),
                    what,
                    expected: expected.to_owned(),
                    found: found.to_owned(),
                });
            }
        }
        Ok(manifest)
    }
}
