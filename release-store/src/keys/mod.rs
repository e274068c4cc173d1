//! A product's keys: the directory KEYS on the release machine, what a factory gets of it, and what both can do.
//!
//! ```text
//! KEYS/product.json      public: product, vendor key, certificate of the updater key, TUF keys
//!      root.json         public: the trusted root that goes into every device
//!      root-N.json       public: those before it
//!      signed.json       public: the numbers that were signed last, see [`signed`]
//!      .rotation/        a change of keys under way, see [`rotation`]
//!      root.key  targets.key  online.key  vendor.key  updater.key  content.key      secret, see [`key_file`]
//! ```
//! Each secret is a file of its own, so that those which publishing does not need (root, vendor) can lie elsewhere.

mod factory;
pub mod key_file;
pub mod rotation;
pub mod signed;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::seal::Secret;
use firmware_image::signature::{PublicKey, SigningKey};
use firmware_image::updater_image::KeyCertificate;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use factory::{FactoryExport, FactoryUpdater};
pub use key_file::{KeyKind, Passphrase};
pub use source::{ConfigRequest, KeySource, SignedUpdater, is_launcher, sign_updater};

use crate::content_key::{CONTENT_KEY_BYTES, ContentKey, ContentKeys};
use crate::error::StoreError;
use crate::manifest::check_product;
use crate::store_files::{self, Lock, check_not_in, json, read_small, sync_dir};
use crate::trust::{MAX_KEPT_ROOTS, MAX_ROOT_BYTES};
use crate::tuf::{self, TufKey, TufPublicKey};

const PRODUCT_FILE: &str = "product.json";
const ROOT_FILE: &str = "root.json";
/// Where new keys are made, in their directory.
const UNFINISHED: &str = ".unfinished";
const MAX_PRODUCT_FILE_BYTES: u64 = 64 << 10;
const FORMAT: u16 = 1;

/// What `product.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ProductFile {
    format: u16,
    product: String,
    vendor_key: String,
    /// postcard of a [`KeyCertificate`].
    updater_certificate: String,
    tuf_root_key: String,
    tuf_targets_key: String,
    tuf_online_key: String,
}

/// What `content.key` holds.
#[derive(Serialize, Deserialize)]
struct ContentSecrets {
    product_secret: [u8; 32],
    keys: Vec<(u32, [u8; CONTENT_KEY_BYTES])>,
}

/// What every device of a product shares.
#[derive(Debug, Clone)]
pub struct ProductSecrets {
    /// Opens the key slots of devices unattended.
    pub product_secret: Secret,
    /// All content keys.
    pub content_keys: ContentKeys,
}

/// A key directory.
#[derive(Debug, Clone)]
pub struct KeyDir {
    dir: PathBuf,
    product: String,
    vendor: PublicKey,
    certificate: KeyCertificate,
    tuf: [TufPublicKey; 3],
}

impl KeyDir {
    /// Makes all keys of a new product, encrypted under `passphrase`, in the directory `dir`, which must not exist or be
    /// empty. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// `Refused` for a bad product name or a directory that is not empty; `Io`.
    pub fn create(dir: &Path, product: &str, passphrase: &Passphrase, now: i64) -> Result<Self, StoreError> {
        check_product(product).map_err(StoreError::Refused)?;
        let occupied = match fs::read_dir(dir) {
            Ok(mut entries) => entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != UNFINISHED)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(StoreError::io("read", dir)(error)),
        };
        if occupied {
            return Err(StoreError::Refused(format!(
                "{} is not empty: keys are never overwritten; name a new directory",
                dir.display()
            )));
        }
        check_not_in(dir, "the keys", store_files::is_store, "a store")?;
        // Made in a directory of its own and moved out of it, the one last that makes them a directory of keys.
        create_private_dir(dir)?;
        let beside = dir.join(UNFINISHED);
        match fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &beside)(error));
            }
            _ => {}
        }
        create_private_dir(&beside)?;

        let seed = random_seed()?;
        let vendor = SigningKey::from_seed(&seed);
        key_file::write(&beside.join(KeyKind::Vendor.file_name()), KeyKind::Vendor, product, passphrase, &*seed)?;
        let seed = random_seed()?;
        let updater = SigningKey::from_seed(&seed);
        key_file::write(&beside.join(KeyKind::Updater.file_name()), KeyKind::Updater, product, passphrase, &*seed)?;
        let certificate = KeyCertificate::issue(&vendor, 1, updater.public());

        let mut tuf_keys = Vec::new();
        for kind in [KeyKind::Root, KeyKind::Targets, KeyKind::Online] {
            let seed = random_seed()?;
            key_file::write(&beside.join(kind.file_name()), kind, product, passphrase, &*seed)?;
            tuf_keys.push(TufKey::from_seed(&seed));
        }
        let [root, targets, online] = [0, 1, 2].map(|at: usize| tuf_keys[at].public());

        let content = ContentSecrets { product_secret: *random_seed()?, keys: vec![(1, *random_seed()?)] };
        let encoded = postcard::to_allocvec(&content).map(Zeroizing::new);
        let encoded = encoded.map_err(|error| StoreError::malformed("the content keys", error.to_string()))?;
        key_file::write(&beside.join(KeyKind::Content.file_name()), KeyKind::Content, product, passphrase, &encoded)?;

        let root_json = tuf_keys[0].sign(&tuf::root(1, now, &root, &targets, &online));
        let (product, tuf) = (product.to_owned(), [root, targets, online]);
        let new = Self { dir: beside.clone(), product, vendor: vendor.public(), certificate, tuf };
        write_public(&beside.join(ROOT_FILE), &root_json)?;
        write_public(&beside.join(PRODUCT_FILE), &json(&new.product_file()?))?;
        let secrets = KeyKind::ALL.map(KeyKind::file_name);
        for name in secrets.into_iter().chain([ROOT_FILE.to_owned(), PRODUCT_FILE.to_owned()]) {
            if name == PRODUCT_FILE {
                sync_dir(dir)?;
            }
            let (from, to) = (beside.join(&name), dir.join(&name));
            fs::rename(from, &to).map_err(StoreError::io("rename", to))?;
        }
        fs::remove_dir(&beside).map_err(StoreError::io("remove", &beside))?;
        sync_dir(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
        Self::open(dir)
    }

    fn product_file(&self) -> Result<ProductFile, StoreError> {
        let [root, targets, online] = &self.tuf;
        Ok(ProductFile {
            format: FORMAT,
            product: self.product.clone(),
            vendor_key: hex::encode(self.vendor.0),
            updater_certificate: encode_certificate(&self.certificate)?,
            tuf_root_key: hex::encode(root.0),
            tuf_targets_key: hex::encode(targets.0),
            tuf_online_key: hex::encode(online.0),
        })
    }

    /// Opens a key directory; reads what is public in it.
    ///
    /// # Errors
    /// `Key` where it is none, or where a change of its keys was interrupted.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(PRODUCT_FILE);
        let refuse = |reason: &str| StoreError::Key { path: path.clone(), reason: reason.into() };
        if rotation::is_open(dir) {
            let finish = format!("its keys were being changed: finish that first, `keys rotate {}`", dir.display());
            return Err(refuse(&finish));
        }
        let bytes = read_small(&path, MAX_PRODUCT_FILE_BYTES)?;
        let bytes = bytes.ok_or_else(|| refuse("it is not there: name the directory that `init` made"))?;
        let file: ProductFile = serde_json::from_slice(&bytes).map_err(|_| refuse("it is damaged"))?;
        if file.format != FORMAT {
            return Err(refuse("it has a format that this program does not know"));
        }
        check_product(&file.product).map_err(|reason| refuse(&reason))?;
        let key = |text: &str| decode_key(text).ok_or_else(|| refuse("a public key in it is damaged"));
        let vendor = PublicKey(key(&file.vendor_key)?);
        let certificate = decode_certificate(&file.updater_certificate, &vendor)
            .ok_or_else(|| refuse("the updater key's certificate in it is damaged"))?;
        let tuf = [&file.tuf_root_key, &file.tuf_targets_key, &file.tuf_online_key];
        let [root, targets, online] = tuf.map(|text| key(text));
        let tuf = [TufPublicKey(root?), TufPublicKey(targets?), TufPublicKey(online?)];
        Ok(Self { dir: dir.to_owned(), product: file.product, vendor, certificate, tuf })
    }

    /// Keeps everybody else from the keys in `dir` while they are changed.
    fn lock(dir: &Path) -> Result<fs::File, StoreError> {
        store_files::lock(dir, Lock::Alone)
    }

    /// Keeps these keys from being changed while they are used; `None` where nobody can say so. They were opened before.
    ///
    /// # Errors
    /// `Locked` while they are being changed, `Refused` where they were since.
    pub(crate) fn hold(&self) -> Result<Option<fs::File>, StoreError> {
        let held = match store_files::lock(&self.dir, Lock::WithOthers) {
            Err(StoreError::Io { .. }) => None,
            held => Some(held?),
        };
        let now = Self::open(&self.dir)?;
        if (&now.tuf, now.certificate) != (&self.tuf, self.certificate) {
            let dir = self.dir.display();
            return Err(StoreError::Refused(format!("the keys in {dir} were changed meanwhile: do it once more")));
        }
        Ok(held)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The product.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// The vendor's public key, which is stamped into launchers and updaters.
    pub fn vendor_key(&self) -> &PublicKey {
        &self.vendor
    }

    /// What certifies the updater key.
    pub fn certificate(&self) -> &KeyCertificate {
        &self.certificate
    }

    /// The trusted `root.json`, as it was signed.
    ///
    /// # Errors
    /// `Key` where it is missing; `Io`.
    pub fn root_json(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join(ROOT_FILE);
        read_small(&path, MAX_ROOT_BYTES)?.ok_or_else(|| StoreError::Key {
            path,
            reason: "it is not there; take it from the store's metadata".into(),
        })
    }

    /// The trusted root and those that it came from, as far as they were kept here, with their versions, the newest first.
    ///
    /// # Errors
    /// `Key` where the newest is missing; `Tuf`, `Io`.
    pub(crate) fn roots(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let newest = self.root_json()?;
        let version = tuf::root_version(&newest)?;
        let mut roots = vec![(version, newest)];
        for version in (1..version).rev().take(MAX_KEPT_ROOTS as usize) {
            let kept = read_small(&self.dir.join(kept_root(version)), MAX_ROOT_BYTES)?;
            roots.extend(kept.map(|kept| (version, kept)));
        }
        Ok(roots)
    }

    /// Puts a newer root in place of the one that new devices are given.
    pub(crate) fn replace_root(&self, root: &[u8]) -> Result<(), StoreError> {
        keep_root(&self.dir)?;
        let (path, beside) = (self.dir.join(ROOT_FILE), self.dir.join("root.json.new"));
        write_public(&beside, root)?;
        fs::rename(&beside, &path).map_err(StoreError::io("rename", &path))?;
        sync_dir(&self.dir)
    }

    /// The public TUF keys: root, targets, online.
    pub fn tuf_keys(&self) -> &[TufPublicKey; 3] {
        &self.tuf
    }

    /// Whether the secret of `kind` lies in the directory.
    pub fn has(&self, kind: KeyKind) -> bool {
        self.dir.join(kind.file_name()).is_file()
    }

    /// The TUF key of `kind`: root, targets or online.
    ///
    /// # Errors
    /// `Key`, `WrongPassphrase`.
    pub fn tuf_key(&self, kind: KeyKind, passphrase: &Passphrase) -> Result<TufKey, StoreError> {
        let key = TufKey::from_seed(&*self.seed(kind, passphrase)?);
        if self.tuf.contains(&key.public()) {
            return Ok(key);
        }
        Err(StoreError::Key { path: self.dir.join(kind.file_name()), reason: "it is another product's key".into() })
    }

    /// The vendor or updater key.
    ///
    /// # Errors
    /// `Key`, `WrongPassphrase`.
    pub fn signing_key(&self, kind: KeyKind, passphrase: &Passphrase) -> Result<SigningKey, StoreError> {
        let key = SigningKey::from_seed(&*self.seed(kind, passphrase)?);
        let expected = if kind == KeyKind::Vendor { self.vendor } else { self.certificate.key };
        if key.public() == expected {
            return Ok(key);
        }
        Err(StoreError::Key { path: self.dir.join(kind.file_name()), reason: "it is another product's key".into() })
    }

    /// What every device shares.
    ///
    /// # Errors
    /// `Key`, `WrongPassphrase`.
    pub fn secrets(&self, passphrase: &Passphrase) -> Result<ProductSecrets, StoreError> {
        let path = self.dir.join(KeyKind::Content.file_name());
        let bytes = key_file::read(&path, KeyKind::Content, &self.product, passphrase)?;
        let refuse = |reason: &str| StoreError::Key { path: path.clone(), reason: reason.into() };
        let content: ContentSecrets = postcard::from_bytes(&bytes).map_err(|_| refuse("it is damaged"))?;
        let mut content_keys = ContentKeys::new();
        for (number, key) in content.keys {
            if !content_keys.insert(ContentKey::new(number, key)) {
                return Err(refuse("it holds too many content keys"));
            }
        }
        if content_keys.newest().is_none() {
            return Err(refuse("it holds no content key"));
        }
        Ok(ProductSecrets { product_secret: Secret::new(content.product_secret), content_keys })
    }

    fn seed(&self, kind: KeyKind, passphrase: &Passphrase) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let path = self.dir.join(kind.file_name());
        let secret = key_file::read(&path, kind, &self.product, passphrase)?;
        let seed = <[u8; 32]>::try_from(secret.as_slice());
        seed.map(Zeroizing::new).map_err(|_| StoreError::Key { path, reason: "it holds no key of 32 bytes".into() })
    }
}

/// What the root of this version is kept as when there is a newer one.
fn kept_root(version: u64) -> String {
    format!("root-{version}.json")
}

/// Keeps the root in `dir` beside the one that is to take its place.
fn keep_root(dir: &Path) -> Result<(), StoreError> {
    let Some(root) = read_small(&dir.join(ROOT_FILE), MAX_ROOT_BYTES)? else { return Ok(()) };
    let path = dir.join(kept_root(tuf::root_version(&root)?));
    write_public(&path, &root)?;
    sync_dir(dir)
}

fn random_seed() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())
        .map_err(|error| StoreError::Refused(format!("the system gives no random bytes: {error}")))?;
    Ok(seed)
}

fn decode_key(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn encode_certificate(certificate: &KeyCertificate) -> Result<String, StoreError> {
    postcard::to_allocvec(certificate)
        .map(hex::encode)
        .map_err(|error| StoreError::malformed("the updater key's certificate", error.to_string()))
}

fn decode_certificate(text: &str, vendor: &PublicKey) -> Option<KeyCertificate> {
    let certificate: KeyCertificate = postcard::from_bytes(&hex::decode(text).ok()?).ok()?;
    certificate.is_from(vendor).then_some(certificate)
}

/// Makes a directory that only its owner may read, or makes one that is there so.
fn create_private_dir(dir: &Path) -> Result<(), StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(StoreError::io("create", dir))?;
    #[cfg(unix)]
    {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(dir, private).map_err(StoreError::io("make private", dir))?;
    }
    Ok(())
}

fn write_public(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file = fs::File::create(path).map_err(StoreError::io("create", path))?;
    std::io::Write::write_all(&mut &file, bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("write", path))
}
