//! New keys in the place of lost or stolen ones, in a directory of keys. Stores are signed with them by whatever signs there
//! next ([`crate::repository`]).
//!
//! ```text
//! KEYS/.rotation/rotation.json     what is moved into KEYS, with digests; written last: from then on the change is finished
//!                NAME.key  root.json  product.json
//! ```
//! All of it is made before anything is changed, so that finishing it needs no key.

use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::Digest;
use firmware_image::signature::SigningKey;
use firmware_image::updater_image::KeyCertificate;
use serde::{Deserialize, Serialize};

use super::{
    KeyDir, KeyKind, PRODUCT_FILE, Passphrase, ROOT_FILE, create_private_dir, keep_root, key_file, random_seed,
    write_public,
};
use crate::error::StoreError;
use crate::repository::{Observer, Step, step};
use crate::store_files::{TIMESTAMP, json, read_small, sync_dir};
use crate::transport::Directory;
use crate::trust::{MemoryCache, Trust};
use crate::tuf::{self, TufKey};

const DIR: &str = ".rotation";
const PLAN: &str = "rotation.json";
const MAX_FILE_BYTES: u64 = 1 << 20;
const FORMAT: u16 = 1;

/// What was changed, or is being changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    format: u16,
    /// The names of the keys that are new.
    pub keys: Vec<String>,
    /// The version of the root that says so; none for an updater key.
    pub root_version: Option<u64>,
    /// The new files, by name, with their SHA-256.
    files: Vec<(String, String)>,
}

/// Whether a change of the keys in `dir` was begun and is not done.
pub(super) fn is_open(dir: &Path) -> bool {
    dir.join(DIR).join(PLAN).is_file()
}

/// Makes new keys of these `kinds` (root, targets, online, updater), and a new root and a new certificate that say so. `now` is
/// in seconds since 1970.
///
/// # Errors
/// `Refused` for another kind, a file that is a link, or keys that were changed elsewhere; `Key` and `WrongPassphrase`, for the root's key too, and for an
/// updater key the vendor's; `Locked`, `Io`. After an error nothing is changed, or [`finish`] goes on.
pub fn rotate(
    dir: &Path,
    kinds: &[KeyKind],
    passphrase: &Passphrase,
    now: i64,
    observer: &mut dyn Observer,
) -> Result<Rotation, StoreError> {
    let _lock = KeyDir::lock(dir)?;
    let keys = KeyDir::open(dir)?;
    let kinds: Vec<KeyKind> = KeyKind::ALL.into_iter().filter(|kind| kinds.contains(kind)).collect();
    if kinds.is_empty() {
        return Err(StoreError::Refused("name the keys that are to be new".into()));
    }
    if let Some(kind) = kinds.iter().find(|kind| matches!(kind, KeyKind::Vendor | KeyKind::Content)) {
        return Err(irreplaceable(*kind));
    }
    let names: Vec<String> = kinds.iter().map(|kind| kind.file_name()).collect();
    let is_link = |name: &&str| fs::symlink_metadata(dir.join(name)).is_ok_and(|found| found.is_symlink());
    if let Some(name) = names.iter().map(String::as_str).chain([ROOT_FILE, PRODUCT_FILE]).find(is_link) {
        let path = dir.join(name);
        let path = path.display();
        return Err(StoreError::Refused(format!(
            "{path} is a link, and the new file would not be where it leads: put the file itself there"
        )));
    }
    let tuf_changes = kinds.iter().any(|kind| *kind != KeyKind::Updater);
    if tuf_changes {
        take_newer_roots(&keys, &kinds)?;
    }
    // What signs the change has to be here before anything is made.
    let root_key = tuf_changes.then(|| keys.tuf_key(KeyKind::Root, passphrase)).transpose()?;
    let vendor =
        kinds.contains(&KeyKind::Updater).then(|| keys.signing_key(KeyKind::Vendor, passphrase)).transpose()?;

    let beside = dir.join(DIR);
    remove_dir(&beside)?;
    create_private_dir(&beside)?;
    let mut new = KeyDir { dir: beside.clone(), ..keys.clone() };
    for kind in &kinds {
        let seed = random_seed()?;
        key_file::write(&beside.join(kind.file_name()), *kind, &keys.product, passphrase, &*seed)?;
        let public = || TufKey::from_seed(&seed).public();
        match (kind, &vendor) {
            (KeyKind::Root, _) => new.tuf[0] = public(),
            (KeyKind::Targets, _) => new.tuf[1] = public(),
            (KeyKind::Online, _) => new.tuf[2] = public(),
            (KeyKind::Updater, Some(vendor)) => {
                let serial = keys.certificate.serial.checked_add(1);
                let serial = serial.ok_or_else(|| StoreError::Refused("updater keys are used up".into()))?;
                new.certificate = KeyCertificate::issue(vendor, serial, SigningKey::from_seed(&seed).public());
            }
            _ => return Err(irreplaceable(*kind)),
        }
    }
    let mut public = vec![(PRODUCT_FILE, json(&new.product_file()?))];
    let mut root_version = None;
    if let Some(old) = &root_key {
        let version = tuf::root_version(&keys.root_json()?)?.checked_add(1);
        let version = version.ok_or_else(|| StoreError::Refused("the roots' versions are used up".into()))?;
        let [root, targets, online] = &new.tuf;
        let signed = tuf::root(version, now, root, targets, online);
        // By the one that devices know, and by itself (TUF 5.3.4).
        let signer = if kinds.contains(&KeyKind::Root) { &new } else { &keys };
        let root = tuf::sign_with(&[old, &signer.tuf_key(KeyKind::Root, passphrase)?], &signed);
        // The last file makes the keys count.
        public.insert(0, (ROOT_FILE, root));
        root_version = Some(version);
    }
    for (name, bytes) in &public {
        write_public(&beside.join(name), bytes)?;
    }
    let files = names.into_iter().chain(public.iter().map(|(name, _)| (*name).to_owned())).map(|name| {
        let bytes = read_small(&beside.join(&name), MAX_FILE_BYTES)?.unwrap_or_default();
        Ok((name, Digest::of(&bytes).to_string()))
    });
    let rotation = Rotation {
        format: FORMAT,
        keys: kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        root_version,
        files: files.collect::<Result<_, StoreError>>()?,
    };
    let plan = beside.join(format!("{PLAN}.new"));
    write_public(&plan, &json(&rotation))?;
    sync_dir(&beside)?;
    sync_dir(dir)?;
    step(observer, Step::KeysPrepared)?;
    fs::rename(&plan, beside.join(PLAN)).map_err(StoreError::io("rename", &plan))?;
    sync_dir(&beside)?;
    step(observer, Step::KeysPrepared)?;
    carry_out(dir, rotation, observer)
}

/// Takes the roots that were made with another copy of the keys, as far as the stores show them that are signed here: the new
/// one comes behind them. Refuses keys that those name otherwise and that stay: they were changed there.
fn take_newer_roots(keys: &KeyDir, kinds: &[KeyKind]) -> Result<(), StoreError> {
    for store in keys.stores_signed()?.into_iter().filter(|store| store.join(TIMESTAMP).is_file()) {
        let known = Trust::new(&keys.root_json()?, MemoryCache::new())?.follow_all_roots(&Directory::new(&store))?;
        if known.roots.is_empty() {
            continue;
        }
        let newest = known.set.root();
        let roles = [("root", KeyKind::Root), ("targets", KeyKind::Targets), ("timestamp", KeyKind::Online)];
        for ((role, kind), key) in roles.into_iter().zip(&keys.tuf) {
            // The root's key has to sign.
            if !tuf::names(newest, role, key) && (kind == KeyKind::Root || !kinds.contains(&kind)) {
                return Err(StoreError::Refused(format!(
                    "the root of {} names another {} key than {} has: it was changed in another copy of that directory, which counts",
                    store.display(),
                    kind.name(),
                    keys.dir.display()
                )));
            }
        }
        known.roots.iter().try_for_each(|(_, root)| keys.replace_root(root))?;
    }
    Ok(())
}

/// Finishes a change that was interrupted; `None` where there is none.
///
/// # Errors
/// `Key` for a file of it that is neither here nor there; `Locked`, `Io`.
pub fn finish(dir: &Path, observer: &mut dyn Observer) -> Result<Option<Rotation>, StoreError> {
    if !is_open(dir) {
        return Ok(None);
    }
    let _lock = KeyDir::lock(dir)?;
    let path = dir.join(DIR).join(PLAN);
    let Some(bytes) = read_small(&path, MAX_FILE_BYTES)? else { return Ok(None) };
    let rotation = serde_json::from_slice::<Rotation>(&bytes).ok().filter(|rotation| rotation.format == FORMAT);
    let unknown = || "it is damaged, or of a later version of this program".into();
    let rotation = rotation.ok_or_else(|| StoreError::Key { path, reason: unknown() })?;
    carry_out(dir, rotation, observer).map(Some)
}

/// Puts every new file in its place that is not there yet.
fn carry_out(dir: &Path, rotation: Rotation, observer: &mut dyn Observer) -> Result<Rotation, StoreError> {
    let beside = dir.join(DIR);
    let holds = |path: &PathBuf, digest: &String| {
        let found = read_small(path, MAX_FILE_BYTES)?;
        Ok::<_, StoreError>(found.is_some_and(|bytes| Digest::of(&bytes).to_string() == *digest))
    };
    // All of them are here or there, or nothing more is changed.
    for (name, digest) in &rotation.files {
        if !holds(&beside.join(name), digest)? && !holds(&dir.join(name), digest)? {
            let reason =
                "it is lost or damaged in the middle of a change of keys; bring the whole directory back from its copy";
            return Err(StoreError::Key { path: beside.join(name), reason: reason.into() });
        }
    }
    for (name, digest) in &rotation.files {
        let (from, to) = (beside.join(name), dir.join(name));
        if !holds(&from, digest)? {
            continue;
        }
        if name == ROOT_FILE {
            keep_root(dir)?;
        }
        fs::rename(&from, &to).map_err(StoreError::io("rename", &to))?;
        step(observer, Step::KeysPlaced)?;
    }
    sync_dir(dir)?;
    let plan = beside.join(PLAN);
    fs::remove_file(&plan).map_err(StoreError::io("remove", &plan))?;
    sync_dir(&beside)?;
    step(observer, Step::KeysPlaced)?;
    // What is left is empty, and the next change removes it, too.
    let _ = remove_dir(&beside);
    Ok(rotation)
}

fn irreplaceable(kind: KeyKind) -> StoreError {
    StoreError::Refused(match kind {
        KeyKind::Vendor => {
            "the vendor key stands in every launcher, where nothing can change it: a new one is a new product".into()
        }
        _ => format!("the {} key is held by every device, so a new one would be a secret from nobody", kind.name()),
    })
}

fn remove_dir(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", dir)(error)),
        _ => Ok(()),
    }
}
