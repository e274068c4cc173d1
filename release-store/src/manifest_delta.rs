//! What makes a manifest of an older one: the files that changed, went and came, and whatever else is new.
//!
//! Digests are all that it cannot do without: some 37 bytes a changed file. The result counts once its digest is the one
//! in signed metadata, so a delta that was made from another manifest gives an error, and nothing worse.

use std::collections::HashMap;

use firmware_image::Digest;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::manifest::{FileEntry, MAX_FILES, Manifest, ModuleEntry, Policy, UpdaterEntry};

/// From one manifest to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestDelta {
    serial: u64,
    version: String,
    published: i64,
    blind: [u8; 16],
    modules: Option<Vec<ModuleEntry>>,
    updaters: Option<Vec<UpdaterEntry>>,
    ignore: Option<Vec<String>>,
    /// Files that are gone: how many in front of each are not.
    removed: Vec<u32>,
    /// Files with another content, among those that are left.
    changed: Vec<ChangedFile>,
    /// Files among those that are left whose other fields differ.
    altered: Vec<AlteredFile>,
    /// New files.
    added: Vec<FileEntry>,
}

/// Another content under the same path.
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
    /// What makes `new` of `old`, which are of one product and channel.
    pub fn between(old: &Manifest, new: &Manifest) -> Self {
        let by_path: HashMap<&str, &FileEntry> = new.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let (mut removed, mut changed, mut altered) = (Vec::new(), Vec::new(), Vec::new());
        let (mut kept, mut same, mut unaltered) = (0, 0, 0);
        for before in &old.files {
            let Some(after) = by_path.get(before.path.as_str()) else {
                removed.push(std::mem::take(&mut kept));
                continue;
            };
            kept += 1;
            if after.sha256 != before.sha256 {
                changed.push(ChangedFile {
                    skip: std::mem::take(&mut same),
                    sha256: after.sha256,
                    size: after.size.wrapping_sub(before.size) as i64,
                    stored_bytes: after.stored_bytes.wrapping_sub(before.stored_bytes) as i64,
                });
            } else {
                same += 1;
            }
            let of = |file: &FileEntry| (file.mode, file.policy, file.module);
            let costs_differ = after.sha256 == before.sha256 && after.stored_bytes != before.stored_bytes;
            if of(after) != of(before) || costs_differ {
                altered.push(AlteredFile {
                    skip: std::mem::take(&mut unaltered),
                    mode: after.mode,
                    policy: after.policy,
                    module: after.module,
                    stored_bytes: after.stored_bytes,
                });
            } else {
                unaltered += 1;
            }
        }
        let added = new.files.iter().filter(|file| old.file(&file.path).is_none()).cloned().collect();
        Self {
            serial: new.serial,
            version: new.version.clone(),
            published: new.published,
            blind: new.blind,
            modules: (new.modules != old.modules).then(|| new.modules.clone()),
            updaters: (new.updaters != old.updaters).then(|| new.updaters.clone()),
            ignore: (new.ignore != old.ignore).then(|| new.ignore.clone()),
            removed,
            changed,
            altered,
            added,
        }
    }

    /// The manifest that it makes of `old`.
    ///
    /// # Errors
    /// `Malformed`, `TooLarge` where it was made from another one, and as [`Manifest::check`].
    pub fn apply(&self, old: &Manifest) -> Result<Manifest, StoreError> {
        let misfit = || StoreError::malformed("the step", "it does not fit the manifest that it starts from");
        let (limit, found) = (MAX_FILES as u64, old.files.len().saturating_add(self.added.len()) as u64);
        if found > 2 * limit {
            return Err(StoreError::TooLarge { object: "the step".into(), what: "the number of files", limit, found });
        }
        let mut gone = vec![false; old.files.len()];
        let mut at = 0_usize;
        for kept in &self.removed {
            at = at.saturating_add(*kept as usize);
            *gone.get_mut(at).ok_or_else(misfit)? = true;
            at += 1;
        }
        let mut files: Vec<FileEntry> =
            old.files.iter().zip(gone).filter(|(_, gone)| !gone).map(|(file, _)| file.clone()).collect();
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
}
