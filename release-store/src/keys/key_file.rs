//! A secret at rest: one file, encrypted under a passphrase (`docs/formats/store.md`, "Key files").
//!
//! JSON with the costs of Argon2id, a random salt, and the secret sealed by AES-256-GCM under the derived key. Each
//! writing draws a new salt, so a key never meets two nonces and the nonce is zero. The associated data names the kind
//! and the product: a file of another kind or product does not open.

use std::fmt;
use std::path::Path;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::StoreError;
use crate::store_files;

/// The most memory that a key file may ask for, in KiB: checked before any is allocated.
pub const MAX_MEMORY_KIB: u32 = 256 << 10;
/// The most passes that a key file may ask for.
pub const MAX_PASSES: u32 = 16;
/// The most lanes that a key file may ask for.
pub const MAX_LANES: u32 = 4;
/// The longest key file, in bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

/// RFC 9106's second choice, less its memory: 19 MiB, two passes, one lane (OWASP).
const COST: Cost = Cost { memory_kib: 19 << 10, passes: 2, lanes: 1 };
const FORMAT: u16 = 1;
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// A passphrase. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// A passphrase; `None` for an empty one, which protects nothing.
    pub fn new(text: String) -> Option<Self> {
        let text = Zeroizing::new(text);
        (!text.is_empty()).then_some(Self(text))
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// What a key file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The TUF root key. Needed only to change keys: keep it offline.
    Root,
    /// The TUF targets key: says what a release is.
    Targets,
    /// The TUF snapshot and timestamp key: says what is newest.
    Online,
    /// The vendor key: certifies updater keys, signs device configurations. Keep it offline.
    Vendor,
    /// The updater key: signs updaters.
    Updater,
    /// The content keys and the product secret.
    Content,
}

impl KeyKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Root, Self::Targets, Self::Online, Self::Vendor, Self::Updater, Self::Content];

    /// Its name: the file's name without `.key`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Online => "online",
            Self::Vendor => "vendor",
            Self::Updater => "updater",
            Self::Content => "content",
        }
    }

    /// The file's name in a key directory.
    pub fn file_name(self) -> String {
        format!("{}.key", self.name())
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Serialize, Deserialize)]
struct KeyFile {
    format: u16,
    kind: String,
    product: String,
    kdf: String,
    cost: Cost,
    salt: String,
    sealed: String,
}

/// Writes `secret` to `path`, which must not exist.
pub(super) fn write(
    path: &Path,
    kind: KeyKind,
    product: &str,
    passphrase: &Passphrase,
    secret: &[u8],
) -> Result<(), StoreError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| StoreError::Refused(format!("the system gives no random bytes: {error}")))?;
    let key = derive(passphrase, &salt, COST).ok_or_else(|| {
        StoreError::Refused("the passphrase's key could not be derived: is there enough memory?".into())
    })?;
    let mut sealed = secret.to_vec();
    let tag = Aes256Gcm::new(&(*key).into())
        .encrypt_inout_detached(&[0; 12].into(), &data(kind, product), sealed.as_mut_slice().into())
        .map_err(|_| StoreError::Refused("the secret is too long to be sealed".into()))?;
    sealed.extend_from_slice(&tag);
    let file = KeyFile {
        format: FORMAT,
        kind: kind.name().into(),
        product: product.into(),
        kdf: "argon2id".into(),
        cost: COST,
        salt: hex::encode(salt),
        sealed: hex::encode(sealed),
    };
    store_files::write_secret(path, &store_files::json(&file))
}

/// Whether the file at `path` is a key file, whatever its name.
pub(crate) fn is_at(path: &Path) -> Result<bool, StoreError> {
    let bytes = store_files::read_small(path, MAX_KEY_FILE_BYTES)?.unwrap_or_default();
    Ok(bytes.starts_with(b"{") && serde_json::from_slice::<KeyFile>(&bytes).is_ok())
}

/// Reads the secret of `kind` from `path`.
pub(super) fn read(
    path: &Path,
    kind: KeyKind,
    product: &str,
    passphrase: &Passphrase,
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let refuse = |reason: &str| StoreError::Key { path: path.to_owned(), reason: reason.into() };
    let bytes = match store_files::read_small(path, MAX_KEY_FILE_BYTES)? {
        Some(bytes) => bytes,
        None => return Err(refuse("it is not there; bring it back from where it is kept")),
    };
    let file: KeyFile = serde_json::from_slice(&bytes).map_err(|_| refuse("it is not a key file"))?;
    if file.format != FORMAT || file.kdf != "argon2id" {
        return Err(refuse("it has a format that this program does not know"));
    }
    if file.kind != kind.name() {
        return Err(refuse(&format!("it holds the {} key, not the {} key", file.kind, kind.name())));
    }
    if file.product != product {
        return Err(refuse(&format!("it is for product {:?}, not {product:?}", file.product)));
    }
    let cost = file.cost;
    let dear = cost.memory_kib > MAX_MEMORY_KIB || cost.passes > MAX_PASSES || cost.lanes > MAX_LANES;
    if dear {
        return Err(refuse("it asks for more memory or time than a key file may"));
    }
    let salt = hex::decode(&file.salt).map_err(|_| refuse("its salt is damaged"))?;
    let mut sealed = Zeroizing::new(hex::decode(&file.sealed).map_err(|_| refuse("it is damaged"))?);
    let length = sealed.len().checked_sub(TAG_BYTES).ok_or_else(|| refuse("it is cut off"))?;
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&sealed[length..]);
    sealed.truncate(length);
    let key = derive(passphrase, &salt, cost).ok_or_else(|| refuse("its costs make no sense"))?;
    Aes256Gcm::new(&(*key).into())
        .decrypt_inout_detached(
            &[0; 12].into(),
            &data(kind, product),
            sealed.as_mut_slice().into(),
            &aes_gcm::Tag::from(tag),
        )
        .map_err(|_| StoreError::WrongPassphrase { path: path.to_owned() })?;
    Ok(sealed)
}

fn data(kind: KeyKind, product: &str) -> Vec<u8> {
    format!("holdfast key file v1\0{}\0{product}", kind.name()).into_bytes()
}

fn derive(passphrase: &Passphrase, salt: &[u8], cost: Cost) -> Option<Zeroizing<[u8; 32]>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok()?;
    let mut blocks = vec![Block::default(); params.block_count()];
    let mut key = Zeroizing::new([0; 32]);
    let derived = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
        passphrase.0.as_bytes(),
        salt,
        key.as_mut_slice(),
        &mut blocks,
    );
    blocks.iter_mut().for_each(Zeroize::zeroize);
    derived.ok().map(|()| key)
}
