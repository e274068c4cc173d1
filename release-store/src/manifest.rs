//! The manifest: what a release consists of (`docs/formats/manifest.md`).
//!
//! A [`Manifest`] as postcard. A store holds it sealed ([`crate::sealed`]), a device as it is; signed TUF metadata names
//! both, so that a manifest may also be made of an older one ([`crate::step`]). Fields are only ever appended to [`Manifest`] itself, never to the
//! entries of its lists, and a reader skips what follows the last field it knows.
//!
//! A decoded manifest has been checked: limits, paths, order, references. The one way around is to build one by hand.

use std::collections::HashSet;

use firmware_image::Digest;
use firmware_image::updater_image::{MAX_IMAGE_BYTES, MAX_PRODUCT_BYTES, UpdaterVersion};
use serde::{Deserialize, Serialize};

use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::frame::{FrameKind, MAX_MANIFEST_BYTES};
use crate::ignore::IgnorePatterns;
use crate::paths::PathSet;
use crate::sealed;

/// The longest encoded manifest a reader accepts, in bytes.
pub const MAX_ENCODED_BYTES: u64 = MAX_MANIFEST_BYTES as u64;
/// The most files of a release.
pub const MAX_FILES: usize = 65_536;
/// The largest file: FAT32's limit.
pub const MAX_FILE_BYTES: u64 = u32::MAX as u64;
/// The most modules of a release.
pub const MAX_MODULES: usize = 1024;
/// The most updaters of a release, one a platform.
pub const MAX_UPDATERS: usize = 16;
/// The longest channel name, in bytes.
pub const MAX_CHANNEL_BYTES: usize = 32;
/// The longest human version, in bytes.
pub const MAX_VERSION_BYTES: usize = 64;
/// The longest module id, in bytes.
pub const MAX_MODULE_BYTES: usize = 64;

/// What a release consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The product.
    pub product: String,
    /// The channel it was published to.
    pub channel: String,
    /// Its serial: grows by one with each publish of the store.
    pub serial: u64,
    /// Its version, for people.
    pub version: String,
    /// When it was published, seconds since 1970.
    pub published: i64,
    /// Its modules.
    pub modules: Vec<ModuleEntry>,
    /// The files below the managed directory, by path.
    pub files: Vec<FileEntry>,
    /// The updaters that travel with it, by platform.
    pub updaters: Vec<UpdaterEntry>,
    /// Patterns of files that are the user's own (see [`crate::ignore`]).
    pub ignore: Vec<String>,
    /// Hides what the manifest holds from whoever only sees its digest in public metadata.
    pub blind: [u8; 16],
}

/// A module: a part of the software with a version of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleEntry {
    /// Its name: letters, digits, `.`, `_`, `-`.
    pub id: String,
    /// Its version, for people.
    pub version: String,
}

/// A file below the managed directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path (see [`crate::paths`]).
    pub path: String,
    /// `0o755` or `0o644`: only whether it may be executed counts.
    pub mode: u32,
    /// Its length in bytes.
    pub size: u64,
    /// The bytes of all its frames: what fetching it anew costs.
    pub stored_bytes: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
    /// What may be done to it.
    pub policy: Policy,
    /// Its module's place in [`Manifest::modules`].
    pub module: u16,
}

impl FileEntry {
    /// Whether it may be executed.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o100 != 0
    }
}

/// What an updater may do to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Kept as the release has it.
    Managed,
    /// Installed where it is missing; then the user's own.
    Seed,
}

/// An updater image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdaterEntry {
    /// The platform it runs on.
    pub platform: String,
    /// Its version, as its trailer says.
    pub version: UpdaterVersion,
    /// Its length in bytes, trailer included.
    pub size: u64,
    /// The bytes of all its frames.
    pub stored_bytes: u64,
    /// SHA-256 of the whole file.
    pub sha256: Digest,
}

/// The path of a pack in a store.
pub fn pack_path(pack: &Digest) -> String {
    let hex = pack.to_hex();
    format!("packs/{}/{hex}.pack", &hex[..2])
}

impl Manifest {
    /// Opens sealed bytes, which must have been verified against signed metadata, and checks what they hold.
    ///
    /// # Errors
    /// `Malformed`, `UnknownFormat`, `UnknownKey`, `Undecryptable`, `TooLarge`, `Path`.
    pub fn open(sealed: &[u8], keys: &ContentKeys) -> Result<Self, StoreError> {
        Self::decode(&sealed::open(FrameKind::Manifest, sealed, keys)?)
    }

    /// Reads an encoded manifest and checks it.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `Path`.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (manifest, _appended) = postcard::take_from_bytes::<Self>(bytes)
            .map_err(|error| StoreError::malformed("the manifest", format!("it does not decode: {error}")))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The encoded manifest.
    ///
    /// # Errors
    /// As [`Manifest::check`].
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        self.check()?;
        postcard::to_allocvec(self)
            .map_err(|error| StoreError::malformed("the manifest", format!("it does not encode: {error}")))
    }

    /// The contents of its files and updaters, each once, in the order in which they are first named. Empty ones are none.
    pub fn contents(&self) -> Vec<(Digest, u64)> {
        let files = self.files.iter().map(|file| (file.sha256, file.size));
        let updaters = self.updaters.iter().map(|updater| (updater.sha256, updater.size));
        let mut seen = HashSet::new();
        files.chain(updaters).filter(|(digest, size)| *size > 0 && seen.insert(*digest)).collect()
    }

    /// The compiled ignore patterns.
    ///
    /// # Errors
    /// `Malformed` names a pattern that does not compile; a decoded manifest has none.
    pub fn ignore_patterns(&self) -> Result<IgnorePatterns, StoreError> {
        IgnorePatterns::new(&self.ignore)
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&FileEntry> {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|at| &self.files[at])
    }

    /// The updater for `platform`.
    pub fn updater(&self, platform: &str) -> Option<&UpdaterEntry> {
        self.updaters.iter().find(|updater| updater.platform == platform)
    }

    /// The bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// Checks limits, names, paths, order and references.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `Path`.
    pub fn check(&self) -> Result<(), StoreError> {
        let object = || format!("the manifest of release {}", self.serial);
        let malformed = |reason: String| StoreError::malformed(object(), reason);
        let limited = |what, limit: usize, found: usize| {
            if found <= limit {
                return Ok(());
            }
            Err(StoreError::TooLarge { object: object(), what, limit: limit as u64, found: found as u64 })
        };
        check_product(&self.product).map_err(&malformed)?;
        check_channel(&self.channel).map_err(&malformed)?;
        check_version(&self.version).map_err(&malformed)?;
        if self.serial == 0 {
            return Err(malformed("serials begin at 1".into()));
        }
        limited("the number of modules", MAX_MODULES, self.modules.len())?;
        limited("the number of files", MAX_FILES, self.files.len())?;
        limited("the number of updaters", MAX_UPDATERS, self.updaters.len())?;

        for (at, module) in self.modules.iter().enumerate() {
            check_module(&module.id).map_err(&malformed)?;
            check_version(&module.version).map_err(&malformed)?;
            if self.modules[..at].iter().any(|other| other.id == module.id) {
                return Err(malformed(format!("module {:?} is there twice", module.id)));
            }
        }
        let mut paths = PathSet::new();
        let mut last: Option<&str> = None;
        for file in &self.files {
            paths.insert(&file.path)?;
            if last.is_some_and(|last| last >= file.path.as_str()) {
                return Err(malformed(format!("file {:?} is out of order", file.path)));
            }
            last = Some(&file.path);
            if file.mode != 0o755 && file.mode != 0o644 {
                return Err(malformed(format!("file {:?} has the mode {:o}", file.path, file.mode)));
            }
            if usize::from(file.module) >= self.modules.len() {
                return Err(malformed(format!("file {:?} is of a module that is not there", file.path)));
            }
            if file.size > MAX_FILE_BYTES {
                let (what, limit, found) = ("the length of a file", MAX_FILE_BYTES, file.size);
                return Err(StoreError::TooLarge { object: file.path.clone(), what, limit, found });
            }
        }
        let mut last: Option<&str> = None;
        for updater in &self.updaters {
            check_platform(&updater.platform).map_err(&malformed)?;
            if last.is_some_and(|last| last >= updater.platform.as_str()) {
                return Err(malformed(format!("updater {:?} is out of order", updater.platform)));
            }
            last = Some(&updater.platform);
            if updater.size == 0 || updater.size > MAX_IMAGE_BYTES {
                let (what, limit, found) = ("the length of an updater", MAX_IMAGE_BYTES, updater.size);
                return Err(StoreError::TooLarge { object: updater.platform.clone(), what, limit, found });
            }
        }
        IgnorePatterns::new(&self.ignore)?;
        Ok(())
    }
}

/// Checks a product's name.
///
/// # Errors
/// What is wrong, for people.
pub fn check_product(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_PRODUCT_BYTES || name.chars().any(char::is_control) || name.trim() != name {
        return Err(format!(
            "the product name {name:?} is empty, longer than {MAX_PRODUCT_BYTES} bytes, or not printable"
        ));
    }
    Ok(())
}

/// Checks a channel's name.
///
/// # Errors
/// What is wrong, for people.
pub fn check_channel(name: &str) -> Result<(), String> {
    check_word("channel", name, MAX_CHANNEL_BYTES)
}

/// Checks a human version.
///
/// # Errors
/// What is wrong, for people.
pub fn check_version(name: &str) -> Result<(), String> {
    check_word("version", name, MAX_VERSION_BYTES)
}

/// Checks a module's id.
///
/// # Errors
/// What is wrong, for people.
pub fn check_module(name: &str) -> Result<(), String> {
    check_word("module", name, MAX_MODULE_BYTES)
}

/// The platforms that Holdfast's own updaters run on. A board may have one of its own.
pub const PLATFORMS: [&str; 3] = ["linux-x86_64", "linux-aarch64", "windows-x86_64"];

/// Checks a platform's name.
///
/// # Errors
/// What is wrong, for people.
pub fn check_platform(name: &str) -> Result<(), String> {
    check_word("platform", name, firmware_image::paths::MAX_PLATFORM_BYTES)
}

fn check_word(what: &str, name: &str, limit: usize) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+');
    if name.is_empty() || name.len() > limit || !name.bytes().all(allowed) || name.starts_with(['.', '-']) {
        return Err(format!("the {what} {name:?} must be 1 to {limit} letters, digits, `.`, `_`, `-`, `+`"));
    }
    Ok(())
}
