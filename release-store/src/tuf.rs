//! Making TUF 1.0 metadata: keys, roles, signatures.
//!
//! Every key is Ed25519. Signatures are over canonical JSON (sigstore-tuf's encoder), and so are the files, so that the
//! same content is the same bytes. A key's id is the SHA-256 of its canonical form, as securesystemslib has it.

use ed25519_dalek::Signer as _;
use firmware_image::Digest;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sigstore_tuf::canonical_json::to_canonical_bytes;

use crate::error::StoreError;

const SPEC_VERSION: &str = "1.0.31";
const DAY_SECS: i64 = 86_400;
/// How long a root is valid.
pub const ROOT_DAYS: i64 = 3653;
/// How long targets and snapshot are valid.
pub const TARGETS_DAYS: i64 = 365;
/// How long a timestamp is valid.
pub const TIMESTAMP_DAYS: i64 = 90;

/// A public TUF key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TufPublicKey(pub [u8; 32]);

impl TufPublicKey {
    fn value(&self) -> Value {
        json!({"keytype": "ed25519", "keyval": {"public": hex::encode(self.0)}, "scheme": "ed25519"})
    }

    /// The key's id.
    pub fn id(&self) -> String {
        Digest::of(&canonical(&self.value())).to_hex().to_string()
    }
}

/// A TUF signing key.
pub struct TufKey(ed25519_dalek::SigningKey);

impl TufKey {
    /// The key whose seed (RFC 8032, 5.1.5) is `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> TufPublicKey {
        TufPublicKey(self.0.verifying_key().to_bytes())
    }

    /// The metadata file: `signed` and this key's signature over it.
    pub fn sign(&self, signed: &Value) -> Vec<u8> {
        sign_with(&[self], signed)
    }
}

/// The metadata file: `signed` and the signatures of these keys over it, of one that is named twice only once.
pub fn sign_with(keys: &[&TufKey], signed: &Value) -> Vec<u8> {
    let bytes = canonical(signed);
    let mut signatures = Vec::new();
    for key in keys {
        let signature = json!({"keyid": key.public().id(), "sig": hex::encode(key.0.sign(&bytes).to_bytes())});
        if !signatures.contains(&signature) {
            signatures.push(signature);
        }
    }
    // A file is parsed as plain JSON, where canonical JSON leaves control characters bare; serde escapes them, and
    // sorts keys as its map does.
    json!({"signatures": signatures, "signed": signed}).to_string().into_bytes()
}

impl std::fmt::Debug for TufKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TufKey({})", self.public().id())
    }
}

fn canonical(value: &Value) -> Vec<u8> {
    // Only fractions are refused, and nothing here makes one.
    to_canonical_bytes(value).unwrap_or_default()
}

/// The signed part of a root: one key for each of root and targets, one for snapshot and timestamp together.
pub fn root(version: u64, now: i64, root: &TufPublicKey, targets: &TufPublicKey, online: &TufPublicKey) -> Value {
    let keys: Map<String, Value> = [root, targets, online].iter().map(|key| (key.id(), key.value())).collect();
    let role = |key: &TufPublicKey| json!({"keyids": [key.id()], "threshold": 1});
    json!({
        "_type": "root",
        "consistent_snapshot": true,
        "expires": after(now, ROOT_DAYS),
        "keys": keys,
        "roles": {"root": role(root), "targets": role(targets), "snapshot": role(online), "timestamp": role(online)},
        "spec_version": SPEC_VERSION,
        "version": version,
    })
}

/// The version of a root.
///
/// # Errors
/// `Tuf` where it is none.
pub fn root_version(root: &[u8]) -> Result<u64, StoreError> {
    let parsed = sigstore_tuf::Metadata::<sigstore_tuf::Root>::from_slice(root);
    Ok(parsed.map_err(|source| StoreError::Tuf { role: "root".into(), source })?.signed().version)
}

/// Whether `root` names this key, and no other, for `role`.
pub fn names(root: &sigstore_tuf::Root, role: &str, key: &TufPublicKey) -> bool {
    root.role(role).is_some_and(|role| role.keyids == [key.id()])
}

/// The name of the delegated role that vouches for what is not current.
pub const ARCHIVE: &str = crate::trust::ARCHIVE;

/// The signed part of a targets file, which leaves to [`ARCHIVE`], under the same key, what it does not name.
/// `statement` is the product's own.
pub fn targets(
    version: u64,
    now: i64,
    targets: &Map<String, Value>,
    statement: &impl serde::Serialize,
    key: &TufPublicKey,
) -> Value {
    let role = json!({
        "keyids": [key.id()],
        "name": ARCHIVE,
        "paths": ["*"],
        "terminating": true,
        "threshold": 1,
    });
    let mut signed = archive(version, now, targets);
    signed["holdfast"] = json!(statement);
    signed["delegations"] = json!({"keys": {key.id(): key.value()}, "roles": [role]});
    signed
}

/// The signed part of an archive file.
pub fn archive(version: u64, now: i64, targets: &Map<String, Value>) -> Value {
    json!({
        "_type": "targets",
        "expires": after(now, TARGETS_DAYS),
        "spec_version": SPEC_VERSION,
        "targets": targets,
        "version": version,
    })
}

/// The signed part of a snapshot that names targets and archive, each with its version.
pub fn snapshot(version: u64, now: i64, targets: (u64, &[u8]), archive: (u64, &[u8])) -> Value {
    json!({
        "_type": "snapshot",
        "expires": after(now, TARGETS_DAYS),
        "meta": {"targets.json": meta(targets.0, targets.1), "archive.json": meta(archive.0, archive.1)},
        "spec_version": SPEC_VERSION,
        "version": version,
    })
}

/// The signed part of a timestamp that names the snapshot `file` of version `snapshot_version`.
pub fn timestamp(version: u64, now: i64, snapshot_version: u64, file: &[u8]) -> Value {
    json!({
        "_type": "timestamp",
        "expires": after(now, TIMESTAMP_DAYS),
        "meta": {"snapshot.json": meta(snapshot_version, file)},
        "spec_version": SPEC_VERSION,
        "version": version,
    })
}

fn meta(version: u64, file: &[u8]) -> Value {
    json!({"hashes": {"sha256": Digest::of(file).to_string()}, "length": file.len(), "version": version})
}

fn after(now: i64, days: i64) -> String {
    let at = now.saturating_add(days * DAY_SECS);
    Timestamp::from_second(at).unwrap_or(Timestamp::MAX).to_string()
}

/// Whether less than half of a validity of `days` is left at `now`.
pub fn is_half_over(expires: Timestamp, now: i64, days: i64) -> bool {
    expires.as_second() < now.saturating_add(days * DAY_SECS / 2)
}
