//! Attacks on a store's metadata, by whoever sits between a store and a device, or holds some of the keys. Which attack is
//! shown where, also in other files: `docs/testing.md`.

mod common;

use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{DAY, NOW, Tampering, Vendor, content, passphrase};
use release_store::StoreError;
use release_store::keys::KeyKind;
use release_store::transport::{Directory, GetOutcome, Sink, Transport, TransportError};
use release_store::trust::{
    MAX_ROOT_BYTES, MAX_SNAPSHOT_BYTES, MAX_TARGETS_BYTES, MAX_TIMESTAMP_BYTES, MemoryCache, Trust, VerifiedManifest,
};
use release_store::tuf::{self, TufKey};
use serde_json::{Value, json};

/// A vendor with the releases 1 and 2; metadata of either time.
fn two_releases() -> Vendor {
    let (vendor, tree) = Vendor::with_release();
    fs::write(tree.join("new"), content(3000, 9)).unwrap();
    vendor.publish(&tree, "2.0.0");
    vendor
}

fn trust(vendor: &Vendor) -> Trust<MemoryCache> {
    Trust::new(&vendor.root(), MemoryCache::new()).unwrap()
}

fn metadata(vendor: &Vendor, name: &str) -> Vec<u8> {
    fs::read(vendor.store().join("metadata").join(name)).unwrap()
}

fn put(vendor: &Vendor, name: &str, bytes: &[u8]) {
    fs::write(vendor.store().join("metadata").join(name), bytes).unwrap();
}

fn signed(bytes: &[u8]) -> Value {
    serde_json::from_slice::<Value>(bytes).unwrap()["signed"].take()
}

fn version(bytes: &[u8]) -> u64 {
    signed(bytes)["version"].as_u64().unwrap()
}

/// The current file of a role, with its name.
fn current(vendor: &Vendor, role: &str) -> (String, Vec<u8>) {
    let named = |file: &[u8], role: &str| signed(file)["meta"][format!("{role}.json")]["version"].as_u64().unwrap();
    let timestamp = metadata(vendor, "timestamp.json");
    let snapshot = format!("{}.snapshot.json", named(&timestamp, "snapshot"));
    let name = match role {
        "timestamp" => "timestamp.json".to_owned(),
        "snapshot" => snapshot,
        role => format!("{}.{role}.json", named(&metadata(vendor, &snapshot), role)),
    };
    let bytes = metadata(vendor, &name);
    (name, bytes)
}

fn key(vendor: &Vendor, kind: KeyKind) -> TufKey {
    vendor.keys.tuf_key(kind, &passphrase()).unwrap()
}

/// What whoever holds the online key signs: a snapshot of `targets` (version and bytes), and a timestamp.
fn sign_online(vendor: &Vendor, online: &TufKey, versions: (u64, u64), targets: (u64, &[u8])) {
    let (_, archive) = current(vendor, "archive");
    let snapshot = online.sign(&tuf::snapshot(versions.0, NOW, targets, (version(&archive), &archive)));
    put(vendor, &format!("{}.snapshot.json", versions.0), &snapshot);
    put(vendor, "timestamp.json", &online.sign(&tuf::timestamp(versions.1, NOW, versions.0, &snapshot)));
}

#[test]
fn no_role_is_rolled_back_behind_a_newer_timestamp() {
    let vendor = two_releases();
    let online = key(&vendor, KeyKind::Online);
    let trust = trust(&vendor);
    let before = trust.refresh(&vendor.transport(), NOW).unwrap();
    let rolled_back = |what: &str, known: u64| {
        let error = trust.refresh(&vendor.transport(), NOW).unwrap_err();
        let found =
            matches!(&error, StoreError::Rollback { role, known: floor, .. } if role.contains(what) && *floor == known);
        assert!(found, "{what}: {error}");
        assert_eq!(trust.cached().unwrap(), before.releases, "what was known stays known");
    };
    let ((_, snapshot), (_, targets)) = (current(&vendor, "snapshot"), current(&vendor, "targets"));
    let (at, older) = (version(&snapshot), version(&targets) - 1);
    let older_targets = metadata(&vendor, &format!("{older}.targets.json"));
    // Older targets in a newer snapshot, as whoever has the online key can sign.
    sign_online(&vendor, &online, (at + 1, 90), (older, &older_targets));
    rolled_back("targets.json", older + 1);
    // An older snapshot, which names the same targets, behind a newer timestamp.
    sign_online(&vendor, &online, (at + 5, 90), (older + 1, &targets));
    trust.refresh(&vendor.transport(), NOW).unwrap();
    put(&vendor, "timestamp.json", &online.sign(&tuf::timestamp(91, NOW, at, &snapshot)));
    rolled_back("snapshot", at + 5);
    // An older timestamp.
    put(&vendor, "timestamp.json", &online.sign(&tuf::timestamp(89, NOW, at + 5, &current(&vendor, "snapshot").1)));
    rolled_back("timestamp", 90);
    // An older root in a newer one's place, and one that leaves out a version.
    let [root, targets, online_key] = vendor.keys.tuf_keys();
    for wrong in [1, 3] {
        put(
            &vendor,
            "2.root.json",
            &key(&vendor, KeyKind::Root).sign(&tuf::root(wrong, NOW, root, targets, online_key)),
        );
        let error = trust.refresh(&vendor.transport(), NOW).unwrap_err();
        assert!(matches!(&error, StoreError::Tuf { role, .. } if role == "root"), "{error}");
    }
}

#[test]
fn metadata_of_different_times_is_not_mixed() {
    let vendor = two_releases();
    for role in ["snapshot", "targets"] {
        let (name, bytes) = current(&vendor, role);
        let older = metadata(&vendor, &format!("{}.{role}.json", version(&bytes) - 1));
        let place = format!("metadata/{name}");
        let mixed = Tampering::new(vendor.transport(), move |path, bytes| {
            Some(if path == place { older.clone() } else { bytes })
        });
        let error = trust(&vendor).refresh(&mixed, NOW).unwrap_err();
        assert!(matches!(error, StoreError::Tuf { .. }), "{role}: {error}");
    }
}

#[test]
fn versions_that_ran_ahead_come_back_with_new_keys_and_only_so() {
    let vendor = two_releases();
    let trust = trust(&vendor);
    let before = trust.refresh(&vendor.transport(), NOW).unwrap();
    let honest: Vec<(String, Vec<u8>)> =
        ["timestamp", "snapshot", "targets"].into_iter().map(|role| current(&vendor, role)).collect();
    // Whoever stole the online key makes all versions as high as can be.
    let stolen = key(&vendor, KeyKind::Online);
    let targets = (version(&honest[2].1), &*honest[2].1);
    sign_online(&vendor, &stolen, (u64::MAX, u64::MAX), targets);
    let ahead = trust.refresh(&vendor.transport(), NOW).unwrap();
    assert_eq!(ahead.releases, before.releases);
    put(&vendor, &honest[0].0, &honest[0].1);
    let error = trust.refresh(&vendor.transport(), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Rollback { known: u64::MAX, .. }), "{error}");

    // The vendor replaces the key, and counts from where it was.
    let online = TufKey::from_seed(&[42; 32]);
    let [root_key, targets_key, _] = vendor.keys.tuf_keys();
    let root = tuf::root(2, NOW, root_key, targets_key, &online.public());
    put(&vendor, "2.root.json", &key(&vendor, KeyKind::Root).sign(&root));
    let at = version(&honest[1].1);
    sign_online(&vendor, &online, (at + 1, version(&honest[0].1) + 1), targets);
    let recovered = trust.refresh(&vendor.transport(), NOW).unwrap();
    assert_eq!(recovered.releases, before.releases);
    // Also where the device remembers in its sealed record what the thief made it accept.
    let formatted = Trust::new(&vendor.root(), MemoryCache::new()).unwrap().remember(ahead.accepted);
    assert_eq!(formatted.refresh(&vendor.transport(), NOW).unwrap().accepted, recovered.accepted);
    // And the thief's key is worth nothing any more.
    sign_online(&vendor, &stolen, (at + 2, u64::MAX), targets);
    let error = trust.refresh(&vendor.transport(), NOW).unwrap_err();
    assert!(matches!(&error, StoreError::Tuf { role, .. } if role == "timestamp"), "{error}");
}

/// A server of which one file never ends.
struct Endless {
    store: Directory,
    name: String,
    sent: AtomicU64,
}

impl Transport for Endless {
    fn describe(&self) -> String {
        "endless".into()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        if path != self.name {
            return self.store.get(path, range, max_bytes, sink);
        }
        // It does not care for the ceiling either.
        let mut offset = 0;
        while offset < 1 << 30 {
            sink(offset, &[b' '; 4096])?;
            offset += 4096;
            self.sent.store(offset, Ordering::Relaxed);
        }
        Ok(GetOutcome::new(0, offset))
    }
}

#[test]
fn no_role_takes_more_than_its_limit() {
    let vendor = two_releases();
    let limits = [
        ("2.root.json".to_owned(), MAX_ROOT_BYTES),
        ("timestamp.json".to_owned(), MAX_TIMESTAMP_BYTES),
        (current(&vendor, "snapshot").0, MAX_SNAPSHOT_BYTES),
        (current(&vendor, "targets").0, MAX_TARGETS_BYTES),
    ];
    for (name, limit) in limits {
        let name = format!("metadata/{name}");
        let endless = Endless { store: vendor.transport(), name: name.clone(), sent: AtomicU64::new(0) };
        let error = trust(&vendor).refresh(&endless, NOW).unwrap_err();
        assert!(matches!(error, StoreError::Transport(TransportError::TooLarge { .. })), "{name}: {error}");
        assert!(endless.sent.load(Ordering::Relaxed) <= limit, "{name}");
    }
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    // The archive and a manifest are as long as what names them says.
    let (name, archive) = current(&vendor, "archive");
    let endless = Endless { store: vendor.transport(), name: format!("metadata/{name}"), sent: AtomicU64::new(0) };
    trust.archive(&endless).unwrap_err();
    assert!(endless.sent.load(Ordering::Relaxed) <= archive.len() as u64);
    let release = vendor.release("2.0.0");
    let path = format!("targets/{}.{}", release.sealed.digest, release.manifest_name());
    let listed = fs::read_dir(vendor.store().join("targets")).unwrap().count();
    assert!(listed > 0 && vendor.store().join(&path).is_file(), "{path}");
    let endless = Endless { store: vendor.transport(), name: path, sent: AtomicU64::new(0) };
    VerifiedManifest::fetch(&release, &endless, &vendor.content_keys()).unwrap_err();
    assert!(endless.sent.load(Ordering::Relaxed) <= release.sealed.bytes);
}

#[test]
fn the_online_key_alone_releases_nothing() {
    let vendor = two_releases();
    let online = key(&vendor, KeyKind::Online);
    let (_, bytes) = current(&vendor, "targets");
    let mut forged = signed(&bytes);
    let next = version(&bytes) + 1;
    forged["version"] = next.into();
    for signer in [&online, &TufKey::from_seed(&[9; 32])] {
        let forged = signer.sign(&forged);
        put(&vendor, &format!("{next}.targets.json"), &forged);
        sign_online(&vendor, &online, (80 + next, 90), (next, &forged));
        let error = trust(&vendor).refresh(&vendor.transport(), NOW).unwrap_err();
        assert!(matches!(&error, StoreError::Tuf { role, .. } if role == "targets"), "{error}");
    }
    // Nor does it make a root, also none that says that it may.
    let [root, targets, online_key] = vendor.keys.tuf_keys();
    for root in [root, online_key] {
        put(&vendor, "2.root.json", &online.sign(&tuf::root(2, NOW, root, targets, online_key)));
        let error = trust(&vendor).refresh(&vendor.transport(), NOW).unwrap_err();
        assert!(matches!(&error, StoreError::Tuf { role, .. } if role == "root"), "{error}");
    }
}

/// What is done to the signatures of a file.
type Change<'a> = &'a dyn Fn(&mut Vec<Value>);

#[test]
fn fewer_keys_than_the_threshold_sign_nothing() {
    let vendor = two_releases();
    let online = key(&vendor, KeyKind::Online);
    let (first, second) = (key(&vendor, KeyKind::Targets), TufKey::from_seed(&[77; 32]));
    let [root_key, ..] = vendor.keys.tuf_keys();
    // A root that wants two of two signatures of targets.
    let mut root = tuf::root(2, NOW, root_key, &first.public(), &online.public());
    let other = tuf::root(2, NOW, root_key, &second.public(), &online.public());
    let ids = [first.public().id(), second.public().id()];
    root["keys"][&ids[1]] = other["keys"][&ids[1]].clone();
    root["roles"]["targets"] = json!({"keyids": ids, "threshold": 2});
    put(&vendor, "2.root.json", &key(&vendor, KeyKind::Root).sign(&root));
    let mut targets = signed(&current(&vendor, "targets").1);
    let mut at = targets["version"].as_u64().unwrap();
    let mut offer = |change: Change| {
        at += 1;
        targets["version"] = at.into();
        let mut file: Value = serde_json::from_slice(&first.sign(&targets)).unwrap();
        let both: Value = serde_json::from_slice(&second.sign(&targets)).unwrap();
        let mut signatures = vec![file["signatures"][0].take(), both["signatures"][0].clone()];
        change(&mut signatures);
        file["signatures"] = signatures.into();
        let file = file.to_string().into_bytes();
        put(&vendor, &format!("{at}.targets.json"), &file);
        sign_online(&vendor, &online, (100 + at, 100 + at), (at, &file));
        trust(&vendor).refresh(&vendor.transport(), NOW)
    };
    let below: [(&str, Change); 5] = [
        ("one", &|signatures| signatures.truncate(1)),
        ("the same twice", &|signatures| signatures[1] = signatures[0].clone()),
        ("the same under the other's name", &|signatures| signatures[1]["sig"] = signatures[0]["sig"].clone()),
        ("one torn", &|signatures| signatures[1]["sig"] = "00".into()),
        ("none", &|signatures| signatures.clear()),
    ];
    for (what, change) in below {
        let error = offer(change).unwrap_err();
        assert!(matches!(&error, StoreError::Tuf { role, .. } if role == "targets"), "{what}: {error}");
    }
    offer(&|_| ()).unwrap();
}

#[test]
fn the_manifest_of_another_release_or_product_is_not_this_ones() {
    let vendor = two_releases();
    let (old, new) = (vendor.release("1.0.0"), vendor.release("2.0.0"));
    let other = vendor.store().join("targets").join(format!("{}.{}", old.sealed.digest, old.manifest_name()));
    let other = fs::read(other).unwrap();
    let swapped = Tampering::new(vendor.transport(), move |_, _| Some(other.clone()));
    let error = VerifiedManifest::fetch(&new, &swapped, &vendor.content_keys()).unwrap_err();
    assert!(matches!(error, StoreError::WrongLength { .. } | StoreError::WrongDigest { .. }), "{error}");
    // The plain manifest of the other, as a damaged step or a copy might yield it.
    let plain = vendor.verified(&old).bytes().to_vec();
    let error = VerifiedManifest::accept(&new, plain).unwrap_err();
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    let error = vendor.verified(&new).open("Acme Books").unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { what: "product", .. }), "{error}");
}

#[test]
fn a_clock_far_off_in_either_direction_neither_frees_nor_locks() {
    let vendor = two_releases();
    for now in [i64::MIN, -1, 0, NOW] {
        trust(&vendor).refresh(&vendor.transport(), now).unwrap();
    }
    for now in [NOW + 10 * 365 * DAY, i64::MAX] {
        let trust = trust(&vendor);
        let error = trust.refresh(&vendor.transport(), now).unwrap_err();
        assert!(matches!(error, StoreError::Expired { .. }), "{error}");
        assert!(
            trust.offline(&vendor.transport()).unwrap().newest("stable").is_some(),
            "what is signed is installable"
        );
    }
}
