//! Verified releases, and the way from one to its manifest.

use std::collections::BTreeMap;

use firmware_image::Digest;
use serde::{Deserialize, Serialize};
use sigstore_tuf::{TargetFile, Targets};

use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::frame::FrameKind;
use crate::manifest::Manifest;
use crate::sealed::{self, ObjectRef};
use crate::transport::Transport;

/// What the name of a manifest's TUF target begins with; its serial follows.
pub const MANIFEST_PREFIX: &str = "manifest-";

/// What the name of a chunk list's TUF target begins with; the serial follows.
pub const CHUNKS_PREFIX: &str = "chunks-";
/// What the name of a step's TUF target begins with; the serials that it leads to and from follow.
pub const STEP_PREFIX: &str = "step-";
/// The most steps to one release that are read.
pub const MAX_STEPS: usize = 64;

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
    /// SHA-256 of its encoded manifest.
    pub manifest: Digest,
    /// The serial of a release that it is made of: its chunk list has only what the step from there does not give.
    pub base: Option<u64>,
    /// Its sealed manifest.
    pub sealed: ObjectRef,
    /// Its chunk list.
    pub chunks: ObjectRef,
    /// The steps that lead to it, by the serial they lead from.
    pub steps: Vec<(u64, ObjectRef)>,
}

impl Release {
    /// The release of `manifest`, whose encoded bytes have this digest. No step leads to it yet.
    #[cfg(feature = "publish")]
    pub(crate) fn new(manifest: &Manifest, digest: Digest, sealed: ObjectRef, chunks: ObjectRef) -> Self {
        Self {
            serial: manifest.serial,
            version: manifest.version.clone(),
            channel: manifest.channel.clone(),
            published: manifest.published,
            withdrawn: None,
            manifest: digest,
            base: None,
            sealed,
            chunks,
            steps: Vec::new(),
        }
    }

    /// The name of its manifest's TUF target.
    pub fn manifest_name(&self) -> String {
        format!("{MANIFEST_PREFIX}{}", self.serial)
    }

    /// The name of its chunk list's TUF target.
    pub fn chunks_name(&self) -> String {
        format!("{CHUNKS_PREFIX}{}", self.serial)
    }

    /// The name of the TUF target of the step that leads to it from the release `from`.
    pub fn step_name(&self, from: u64) -> String {
        format!("{STEP_PREFIX}{}-{from}", self.serial)
    }

    /// The path of its sealed manifest in a store.
    pub fn manifest_path(&self) -> String {
        self.sealed.path(&self.manifest_name())
    }

    /// The step that leads to it from the release `from`.
    pub fn step(&self, from: u64) -> Option<ObjectRef> {
        self.steps.binary_search_by_key(&from, |(known, _)| *known).ok().map(|at| self.steps[at].1)
    }

    /// Its TUF targets, by name.
    #[cfg(feature = "publish")]
    pub(crate) fn targets(&self) -> Vec<(String, serde_json::Value)> {
        let target = |object: &ObjectRef| serde_json::json!({"hashes": {"sha256": object.digest.to_string()}, "length": object.bytes});
        let statement = ReleaseStatement {
            serial: self.serial,
            version: self.version.clone(),
            channel: self.channel.clone(),
            published: self.published,
            manifest: self.manifest.to_string(),
            base: self.base,
        };
        let mut manifest = target(&self.sealed);
        manifest["custom"] = serde_json::json!({"holdfast": statement});
        let steps = self.steps.iter().map(|(from, step)| (self.step_name(*from), target(step)));
        [(self.manifest_name(), manifest), (self.chunks_name(), target(&self.chunks))]
            .into_iter()
            .chain(steps)
            .collect()
    }
}

/// `custom.holdfast` of a manifest's TUF target.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ReleaseStatement {
    serial: u64,
    version: String,
    channel: String,
    published: i64,
    manifest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<u64>,
}

/// `holdfast` of the targets role: what must be known of all releases, also of those that are not current.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StoreStatement {
    /// Why releases were withdrawn, by serial.
    #[serde(default)]
    pub withdrawn: BTreeMap<u64, String>,
}

/// All releases of a store, by serial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Releases {
    releases: Vec<Release>,
    withdrawn: BTreeMap<u64, String>,
}

impl Releases {
    /// The releases that targets roles vouch for; where two speak of the same one, the first counts.
    pub(crate) fn from_targets<'t>(roles: impl IntoIterator<Item = &'t Targets>) -> Result<Self, StoreError> {
        let mut by_serial: BTreeMap<u64, Release> = BTreeMap::new();
        let mut withdrawn = BTreeMap::new();
        for role in roles {
            if let Some(statement) = role.extra.get("holdfast") {
                let statement = StoreStatement::deserialize(statement).map_err(|error| {
                    StoreError::malformed("the TUF targets", format!("their statement does not decode: {error}"))
                })?;
                withdrawn.extend(statement.withdrawn);
            }
            let names = role.targets.iter().filter(|(name, _)| name.starts_with(MANIFEST_PREFIX));
            for (name, target) in names {
                // By serial, not by name: "manifest-10" comes before "manifest-9".
                let release = read_release(name, target, role)?;
                by_serial.entry(release.serial).or_insert(release);
            }
        }
        for (serial, release) in &mut by_serial {
            release.withdrawn = withdrawn.get(serial).cloned();
        }
        Ok(Self { releases: by_serial.into_values().collect(), withdrawn })
    }

    /// These releases, and those of `other` that are not among them. What was withdrawn, `self` says.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for mut release in other.releases {
            if let Err(at) = self.releases.binary_search_by_key(&release.serial, |known| known.serial) {
                release.withdrawn = self.withdrawn.get(&release.serial).cloned().or(release.withdrawn);
                self.releases.insert(at, release);
            }
        }
        self
    }

    /// Why the release numbered `serial` was withdrawn, whether or not it is among these; `None`: it was not.
    pub fn withdrawn(&self, serial: u64) -> Option<&str> {
        self.withdrawn.get(&serial).map(String::as_str)
    }

    /// The statement about all releases.
    #[cfg(feature = "publish")]
    pub(crate) fn statement(&self) -> StoreStatement {
        let reason = |release: &Release| Some((release.serial, release.withdrawn.clone()?));
        let is_forgotten = |serial: &u64| self.by_serial(*serial).is_none();
        let forgotten = self.withdrawn.iter().filter(|(serial, _)| is_forgotten(serial));
        let forgotten = forgotten.map(|(serial, reason)| (*serial, reason.clone()));
        StoreStatement { withdrawn: self.releases.iter().filter_map(reason).chain(forgotten).collect() }
    }

    /// Puts `release` in place of the one with its serial.
    #[cfg(feature = "publish")]
    pub(crate) fn put(&mut self, release: Release) {
        match self.releases.binary_search_by_key(&release.serial, |known| known.serial) {
            Ok(at) => self.releases[at] = release,
            Err(at) => self.releases.insert(at, release),
        }
    }

    /// Takes out the release numbered `serial`. That it was withdrawn stays known.
    #[cfg(feature = "publish")]
    pub(crate) fn remove(&mut self, serial: u64) {
        self.releases.retain(|release| release.serial != serial);
    }

    /// What devices should see without asking for more: of each channel the newest release that stands, and what is newer
    /// than that; of a channel where none stands, the newest.
    #[cfg(feature = "publish")]
    pub(crate) fn current(&self) -> std::collections::BTreeSet<u64> {
        let channels: std::collections::BTreeSet<&str> =
            self.releases.iter().map(|release| &*release.channel).collect();
        let of_channel = |channel: &str| {
            let releases: Vec<&Release> = self.releases.iter().filter(|release| release.channel == channel).collect();
            let first = releases.iter().rposition(|release| release.withdrawn.is_none());
            releases[first.unwrap_or(releases.len() - 1)..].iter().map(|release| release.serial).collect::<Vec<_>>()
        };
        channels.into_iter().flat_map(of_channel).collect()
    }

    /// The newest release of `channel` that was not withdrawn.
    pub fn newest(&self, channel: &str) -> Option<&Release> {
        self.releases.iter().rev().find(|release| release.channel == channel && release.withdrawn.is_none())
    }

    /// The release numbered `serial`.
    pub fn by_serial(&self, serial: u64) -> Option<&Release> {
        self.releases.binary_search_by_key(&serial, |release| release.serial).ok().map(|at| &self.releases[at])
    }

    /// The release of `channel` with the human version `version`; withdrawn ones too.
    pub fn by_version(&self, channel: &str, version: &str) -> Option<&Release> {
        self.releases.iter().rev().find(|release| release.channel == channel && release.version == version)
    }

    /// All releases, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Release> + ExactSizeIterator {
        self.releases.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.releases.is_empty()
    }

    /// The newest time of publication, seconds since 1970: the present is no earlier.
    pub fn newest_publication(&self) -> Option<i64> {
        self.releases.iter().map(|release| release.published).max()
    }
}

fn read_release(name: &str, target: &TargetFile, role: &Targets) -> Result<Release, StoreError> {
    let malformed = |reason: &str| StoreError::malformed(format!("the TUF target {name}"), reason);
    let statement = target.custom.as_ref().and_then(|custom| custom.get("holdfast"));
    let statement = statement.ok_or_else(|| malformed("it does not say which release it is"))?;
    let statement = ReleaseStatement::deserialize(statement)
        .map_err(|error| malformed(&format!("its statement does not decode: {error}")))?;
    let serial = statement.serial;
    if name != format!("{MANIFEST_PREFIX}{serial}") {
        return Err(malformed("its name and its serial differ"));
    }
    let manifest = Digest::from_hex(&statement.manifest);
    let manifest = manifest.ok_or_else(|| malformed("its statement names no manifest"))?;
    let chunks_name = format!("{CHUNKS_PREFIX}{serial}");
    let chunks = role.targets.get(&chunks_name).ok_or_else(|| malformed("it has no chunk list"))?;
    let mut steps = Vec::new();
    let begin = format!("{STEP_PREFIX}{serial}-");
    for (name, target) in role.targets.range(begin.clone()..).take_while(|(name, _)| name.starts_with(&begin)) {
        let from = name[begin.len()..].parse().ok().filter(|from| *from != serial);
        // Spelled as readers will ask for it.
        let from = from.filter(|from| *name == format!("{begin}{from}"));
        let from = from.ok_or_else(|| StoreError::malformed(format!("the TUF target {name}"), "it has no serial"))?;
        steps.push((from, object(name, target, FrameKind::Step)?));
    }
    if steps.len() > MAX_STEPS {
        let (limit, found) = (MAX_STEPS as u64, steps.len() as u64);
        return Err(StoreError::TooLarge { object: name.to_owned(), what: "the number of steps", limit, found });
    }
    steps.sort_by_key(|(from, _)| *from);
    Ok(Release {
        serial,
        version: statement.version,
        channel: statement.channel,
        published: statement.published,
        withdrawn: None,
        manifest,
        base: statement.base.filter(|base| *base != serial),
        sealed: object(name, target, FrameKind::Manifest)?,
        chunks: object(&chunks_name, chunks, FrameKind::ChunkList)?,
        steps,
    })
}

fn object(name: &str, target: &TargetFile, kind: FrameKind) -> Result<ObjectRef, StoreError> {
    let digest = target.hashes.get("sha256").and_then(|hex| Digest::from_hex(hex));
    let missing = || StoreError::malformed(format!("the TUF target {name}"), "it has no SHA-256");
    let digest = digest.ok_or_else(missing)?;
    let limit = sealed::max_bytes(kind);
    if target.length > limit {
        return Err(StoreError::TooLarge { object: name.to_owned(), what: "its length", limit, found: target.length });
    }
    Ok(ObjectRef { digest, bytes: target.length })
}

/// An encoded manifest whose bytes are those that a verified [`Release`] names.
#[derive(Debug, Clone)]
pub struct VerifiedManifest {
    release: Release,
    encoded: Vec<u8>,
}

impl VerifiedManifest {
    /// Gets the manifest of `release` from a store and verifies it.
    ///
    /// # Errors
    /// `Transport`, `WrongLength`, `WrongDigest`, `UnknownKey`, `Undecryptable`, `Malformed`.
    pub fn fetch<T: Transport + ?Sized>(
        release: &Release,
        transport: &T,
        keys: &ContentKeys,
    ) -> Result<Self, StoreError> {
        let sealed = release.sealed.fetch(&release.manifest_name(), transport)?;
        Self::accept(release, sealed::open(FrameKind::Manifest, &sealed, keys)?)
    }

    /// Verifies an encoded manifest from anywhere (a device's own copy, a step) as that of `release`.
    ///
    /// # Errors
    /// `WrongDigest`.
    pub fn accept(release: &Release, encoded: Vec<u8>) -> Result<Self, StoreError> {
        let found = Digest::of(&encoded);
        if found != release.manifest {
            let object = format!("the manifest of release {}", release.serial);
            return Err(StoreError::WrongDigest { object, expected: release.manifest, found });
        }
        Ok(Self { release: release.clone(), encoded })
    }

    /// The encoded manifest, for a device to keep.
    pub fn bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// The release it belongs to.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// Decodes it and checks that it is for `product` and for its release.
    ///
    /// # Errors
    /// As [`Manifest::decode`]; `Mismatch` for another product or another release.
    pub fn open(&self, product: &str) -> Result<Manifest, StoreError> {
        let manifest = Manifest::decode(&self.encoded)?;
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
