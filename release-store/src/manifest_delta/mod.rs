//! What makes a manifest of an older one: the files that changed, went, came and moved, and whatever else is new.
//!
//! Digests are all that it cannot do without: some 37 bytes a changed file. A file that moved keeps what the old one had,
//! and where a whole directory did, that is said once. The result counts once its digest is the one
//! in signed metadata, so a delta that was made from another manifest gives an error, and nothing worse.

#[cfg(feature = "publish")]
mod make;
#[cfg(feature = "publish")]
mod origins;
mod rename;

use firmware_image::Digest;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ignore::MAX_PATTERNS;
use crate::limited;
use crate::manifest::{
    FileEntry, MAX_ENCODED_BYTES, MAX_FILES, MAX_MODULES, MAX_UPDATERS, Manifest, ModuleEntry, Policy, UpdaterEntry,
};
pub use rename::MAX_RENAMED;
use rename::Rename;

/// From one manifest to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDelta {
    serial: u64,
    version: String,
    published: i64,
    blind: [u8; 16],
    #[serde(deserialize_with = "limited::option::<_, _, MAX_MODULES>")]
    modules: Option<Vec<ModuleEntry>>,
    #[serde(deserialize_with = "limited::option::<_, _, MAX_UPDATERS>")]
    updaters: Option<Vec<UpdaterEntry>>,
    #[serde(deserialize_with = "limited::option::<_, _, MAX_PATTERNS>")]
    ignore: Option<Vec<String>>,
    /// Files that are gone: how many in front of each are not.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_FILES>")]
    removed: Vec<u32>,
    /// Files of the old manifest that stand once more, behind all that are left: their places there, each as the difference
    /// from one more than the place in front.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_FILES>")]
    copied: Vec<i32>,
    /// Other paths, of files that are left or copied.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_RENAMED>")]
    renamed: Vec<Rename>,
    /// Files with another content, among those that are left or copied.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_FILES>")]
    changed: Vec<ChangedFile>,
    /// Files among those that are left or copied whose other fields differ.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_FILES>")]
    altered: Vec<AlteredFile>,
    /// New files.
    #[serde(deserialize_with = "limited::list::<_, _, MAX_FILES>")]
    added: Vec<FileEntry>,
}

/// Another content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ChangedFile {
    /// Files in front of it, back to the last one of the list, that are not in it.
    skip: u32,
    sha256: Digest,
    /// New length − old length.
    size: i64,
    /// The same of what it costs.
    stored_bytes: i64,
}

/// Anything else that may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AlteredFile {
    /// As in [`ChangedFile`].
    skip: u32,
    mode: u32,
    policy: Policy,
    module: u16,
    stored_bytes: u64,
}

impl ManifestDelta {
    /// The manifest that it makes of `old`.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge`, `Path` where it was made from another one, and as [`Manifest::check`].
    pub fn apply(&self, old: &Manifest) -> Result<Manifest, StoreError> {
        let mut files = self.old_files(old)?;
        rename::apply(&self.renamed, &mut files)?;
        let mut at = 0_usize;
        for change in &self.changed {
            at = at.saturating_add(change.skip as usize);
            let file = files.get_mut(at).ok_or_else(misfit)?;
            file.sha256 = change.sha256;
            file.size = file.size.wrapping_add_signed(change.size);
            file.stored_bytes = file.stored_bytes.wrapping_add_signed(change.stored_bytes);
            at += 1;
        }
        let mut at = 0_usize;
        for change in &self.altered {
            at = at.saturating_add(change.skip as usize);
            let file = files.get_mut(at).ok_or_else(misfit)?;
            (file.mode, file.policy, file.module) = (change.mode, change.policy, change.module);
            file.stored_bytes = change.stored_bytes;
            at += 1;
        }
        files.extend(self.added.iter().cloned());
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest {
            product: old.product.clone(),
            channel: old.channel.clone(),
            serial: self.serial,
            version: self.version.clone(),
            published: self.published,
            modules: self.modules.clone().unwrap_or_else(|| old.modules.clone()),
            files,
            updaters: self.updaters.clone().unwrap_or_else(|| old.updaters.clone()),
            ignore: self.ignore.clone().unwrap_or_else(|| old.ignore.clone()),
            blind: self.blind,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The files of `old` that are left, and those that are copied. Nothing is allocated for more than a manifest may hold.
    fn old_files(&self, old: &Manifest) -> Result<Vec<FileEntry>, StoreError> {
        let mut gone = vec![false; old.files.len()];
        let mut at = 0_usize;
        for kept in &self.removed {
            at = at.saturating_add(*kept as usize);
            *gone.get_mut(at).ok_or_else(misfit)? = true;
            at += 1;
        }
        let mut files: Vec<&FileEntry> =
            old.files.iter().zip(gone).filter(|(_, gone)| !gone).map(|(file, _)| file).collect();
        within("the number of files", MAX_FILES, files.len() + self.copied.len() + self.added.len())?;
        let mut next = 0_i32;
        for step in &self.copied {
            let place = next.checked_add(*step).ok_or_else(misfit)?;
            files.push(usize::try_from(place).ok().and_then(|place| old.files.get(place)).ok_or_else(misfit)?);
            // A manifest has fewer files than that.
            next = place + 1;
        }
        within("the bytes of its paths", MAX_ENCODED_BYTES as usize, files.iter().map(|file| file.path.len()).sum())?;
        Ok(files.into_iter().cloned().collect())
    }
}

fn misfit() -> StoreError {
    StoreError::malformed("the step", "it does not fit the manifest that it starts from")
}

fn within(what: &'static str, limit: usize, found: usize) -> Result<(), StoreError> {
    if found <= limit {
        return Ok(());
    }
    Err(StoreError::TooLarge { object: "the step".into(), what, limit: limit as u64, found: found as u64 })
}
