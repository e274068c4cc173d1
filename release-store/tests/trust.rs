//! What a device may learn from a store, and what no server can make it believe.

mod common;

use std::fs;

use common::{CountingCache, DAY, Http, NOW, Tampering, Vendor, copy_tree, grow, passphrase};
use release_store::keys::KeyKind;
use release_store::publish::publish;
use release_store::repository::NoObserver;
use release_store::serve::{ServeOptions, serve};
use release_store::transport::{Counted, Directory, TransportError};
use release_store::trust::{Accepted, MAX_NEW_ROOTS, MemoryCache, Trust, VerifiedManifest};
use release_store::{StoreError, tuf};

fn trust(vendor: &Vendor) -> Trust<CountingCache> {
    Trust::new(&vendor.root(), CountingCache::default()).unwrap()
}

#[test]
fn nothing_new_costs_two_requests_and_stores_nothing() {
    let (vendor, _) = Vendor::with_release();
    let trust = trust(&vendor);
    let transport = Counted::new(vendor.transport());
    let first = trust.refresh(&transport, NOW).unwrap();
    assert!(first.changed);
    assert_eq!(transport.requests(), 4, "root, timestamp, snapshot, targets");
    assert_eq!(first.releases.newest("stable").unwrap().version, "1.0.0");
    let stored = trust.cache().stores();

    let transport = Counted::new(vendor.transport());
    let second = trust.refresh(&transport, NOW).unwrap();
    assert!(!second.changed);
    assert_eq!(transport.requests(), 2);
    assert!(transport.bytes() <= 2048, "{} bytes", transport.bytes());
    assert_eq!(trust.cache().stores(), stored, "nothing may be stored");
    assert_eq!(second.releases, first.releases);
    assert_eq!(second.accepted, first.accepted);
}

#[test]
fn nothing_new_costs_two_requests_over_http_too() {
    let (vendor, _) = Vendor::with_release();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(listener, &vendor.store(), ServeOptions::default()).unwrap();
    let transport = Http::new(server.address());
    let trust = trust(&vendor);
    trust.refresh(&transport, NOW).unwrap();
    server.counters().reset();
    assert!(!trust.refresh(&transport, NOW).unwrap().changed);
    assert_eq!(server.counters().requests(), 2);
    assert!(server.counters().bytes() <= 2048);
}

#[test]
fn a_new_release_is_seen_and_its_manifest_opens() {
    let (vendor, tree) = Vendor::with_release();
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    fs::write(tree.join("new"), "new").unwrap();
    vendor.publish(&tree, "1.1.0");
    let refreshed = trust.refresh(&vendor.transport(), NOW).unwrap();
    assert!(refreshed.changed);
    let release = refreshed.releases.newest("stable").unwrap();
    assert_eq!((release.serial, release.version.as_str()), (2, "1.1.0"));
    let verified = VerifiedManifest::fetch(release, &vendor.transport(), &vendor.content_keys()).unwrap();
    let manifest = verified.open("Acme Notes").unwrap();
    assert_eq!(manifest.file("new").unwrap().size, 3);
    assert!(refreshed.releases.newest("beta").is_none());
    assert!(refreshed.releases.by_serial(1).is_none(), "it is not current any more");
    let all = trust.archive(&vendor.transport()).unwrap();
    assert_eq!(all.by_serial(1).unwrap().version, "1.0.0");
    assert_eq!(all.by_version("stable", "1.0.0").unwrap().serial, 1);

    let other = verified.open("Other").unwrap_err();
    assert!(matches!(other, StoreError::Mismatch { what: "product", .. }), "{other}");
    let no_keys = VerifiedManifest::fetch(release, &vendor.transport(), &Default::default()).unwrap_err();
    assert!(matches!(no_keys, StoreError::UnknownKey { number: 1, .. }), "{no_keys}");
}

#[test]
fn the_cache_alone_tells_what_was_known() {
    let (vendor, _) = Vendor::with_release();
    let trust = trust(&vendor);
    assert!(matches!(trust.cached(), Err(StoreError::NothingKnown)));
    let known = trust.refresh(&vendor.transport(), NOW).unwrap().releases;
    assert_eq!(trust.cached().unwrap(), known);
}

#[test]
fn a_torn_or_lost_cache_costs_requests_and_no_more() {
    use release_store::trust::TrustCache as _;
    let (vendor, _) = Vendor::with_release();
    for name in ["timestamp.json", "snapshot.json", "targets.json"] {
        let trust = trust(&vendor);
        let known = trust.refresh(&vendor.transport(), NOW).unwrap().releases;
        let whole = trust.cache().load(name).unwrap();
        for torn in [&whole[..0], &whole[..whole.len() / 2], b"{}"] {
            trust.cache().store(name, torn).unwrap();
            assert_eq!(trust.refresh(&vendor.transport(), NOW).unwrap().releases, known, "{name}");
            assert_eq!(trust.cache().load(name).as_deref(), Some(&whole[..]), "{name} is healed");
        }
    }
}

#[test]
fn an_older_timestamp_is_refused_even_when_the_cache_is_gone() {
    let (vendor, tree) = Vendor::with_release();
    let old = vendor.path("old");
    copy_tree(&vendor.store(), &old);
    fs::write(tree.join("new"), "new").unwrap();
    vendor.publish(&tree, "1.1.0");

    let trust = trust(&vendor);
    let accepted = trust.refresh(&vendor.transport(), NOW).unwrap().accepted;
    let refused = trust.refresh(&Directory::new(&old), NOW).unwrap_err();
    assert!(matches!(&refused, StoreError::Rollback { role, .. } if role == "timestamp"), "{refused}");
    assert!(refused.retry_may_help());
    assert_eq!(trust.cached().unwrap().newest("stable").unwrap().serial, 2, "what was known stays known");

    let wiped = Trust::new(&vendor.root(), MemoryCache::new()).unwrap().remember(accepted.clone());
    let refused = wiped.refresh(&Directory::new(&old), NOW).unwrap_err();
    assert!(matches!(refused, StoreError::Rollback { .. }), "{refused}");
    assert_eq!(wiped.refresh(&vendor.transport(), NOW).unwrap().accepted, accepted);

    // A forged memory must not lock the device out.
    let forged = Accepted { root: b"{}".to_vec(), timestamp: b"x".to_vec(), snapshot: Vec::new() };
    let trust = Trust::new(&vendor.root(), MemoryCache::new()).unwrap().remember(forged);
    assert_eq!(trust.refresh(&vendor.transport(), NOW).unwrap().releases.newest("stable").unwrap().serial, 2);
}

#[test]
fn every_flipped_byte_of_the_metadata_is_refused() {
    let (vendor, _) = Vendor::with_release();
    for role in ["timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let length = fs::metadata(vendor.store().join("metadata").join(role)).unwrap().len() as usize;
        for at in (0..length).step_by(7) {
            let target = format!("metadata/{role}");
            let transport = Tampering::new(vendor.transport(), move |path, mut bytes| {
                if path == target {
                    bytes[at] ^= 1;
                }
                Some(bytes)
            });
            let error = trust(&vendor).refresh(&transport, NOW).unwrap_err();
            let refused = matches!(error, StoreError::Tuf { .. } | StoreError::Expired { .. });
            assert!(refused, "{role} byte {at}: {error}");
        }
    }
}

#[test]
fn a_manifest_that_was_tampered_with_is_refused() {
    let (vendor, _) = Vendor::with_release();
    let releases = trust(&vendor).refresh(&vendor.transport(), NOW).unwrap().releases;
    let release = releases.newest("stable").unwrap();
    let flipped = Tampering::new(vendor.transport(), |_, mut bytes| {
        bytes[100] ^= 1;
        Some(bytes)
    });
    let error = VerifiedManifest::fetch(release, &flipped, &vendor.content_keys()).unwrap_err();
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    let cut = Tampering::new(vendor.transport(), |_, bytes| Some(bytes[..50].to_vec()));
    let error = VerifiedManifest::fetch(release, &cut, &vendor.content_keys()).unwrap_err();
    assert!(matches!(error, StoreError::WrongLength { .. }), "{error}");
}

#[test]
fn a_server_without_end_is_cut_off() {
    let (vendor, _) = Vendor::with_release();
    let endless = Tampering::new(vendor.transport(), |_, _| Some(vec![b' '; 20 << 20]));
    let error = trust(&vendor).refresh(&endless, NOW).unwrap_err();
    let too_large = matches!(error, StoreError::Transport(TransportError::TooLarge { .. }));
    assert!(too_large || matches!(error, StoreError::Tuf { .. }), "{error}");
}

#[test]
fn a_frozen_store_expires_and_its_releases_stay_known() {
    let (vendor, _) = Vendor::with_release();
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    let late = NOW + 91 * DAY;
    let error = trust.refresh(&vendor.transport(), late).unwrap_err();
    assert!(matches!(&error, StoreError::Expired { role, .. } if role == "timestamp"), "{error}");
    assert!(trust.cached().unwrap().newest("stable").is_some());
    assert!(trust.offline(&vendor.transport()).unwrap().newest("stable").is_some());

    vendor.open().renew(&passphrase(), late).unwrap();
    assert!(trust.refresh(&vendor.transport(), late).unwrap().changed);
}

#[test]
fn where_clock_and_server_differ_the_server_is_believed_and_it_is_told() {
    let (vendor, _) = Vendor::with_release();
    let mut transport = Tampering::new(vendor.transport(), |_, bytes| Some(bytes));
    transport.date = Some(NOW + DAY);
    let refreshed = trust(&vendor).refresh(&transport, NOW + 500 * DAY).unwrap();
    assert_eq!(refreshed.clock_disputed, Some(NOW + DAY));
    assert_eq!(trust(&vendor).refresh(&transport, NOW).unwrap().clock_disputed, None);
    transport.date = Some(NOW + 499 * DAY);
    let error = trust(&vendor).refresh(&transport, NOW + 500 * DAY).unwrap_err();
    assert!(matches!(error, StoreError::Expired { .. }), "{error}");
}

#[test]
fn a_clock_before_the_newest_publication_does_not_prolong_freshness() {
    let (vendor, tree) = Vendor::with_release();
    // Published half a year later; then signed again by a machine whose clock is that half year behind.
    let later = NOW + 180 * DAY;
    fs::write(tree.join("new"), "new").unwrap();
    let mut request = vendor.request(&tree, "1.1.0");
    request.now = later;
    publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), 0).unwrap();
    // `renew` refuses such a clock; whoever has the key does not have to ask it.
    let metadata = |name: &str| fs::read(vendor.store().join("metadata").join(name)).unwrap();
    let known: serde_json::Value = serde_json::from_slice(&metadata("timestamp.json")).unwrap();
    let (version, snapshot) = (&known["signed"]["version"], &known["signed"]["meta"]["snapshot.json"]["version"]);
    let (version, snapshot) = (version.as_u64().unwrap(), snapshot.as_u64().unwrap());
    let signed = tuf::timestamp(version + 1, NOW, snapshot, &metadata(&format!("{snapshot}.snapshot.json")));
    let online = vendor.keys.tuf_key(KeyKind::Online, &passphrase()).unwrap();
    fs::write(vendor.store().join("metadata/timestamp.json"), online.sign(&signed)).unwrap();
    let error = trust.refresh(&vendor.transport(), 0).unwrap_err();
    assert!(matches!(error, StoreError::Expired { .. }), "{error}");
    vendor.open().renew(&passphrase(), later).unwrap();
    trust.refresh(&vendor.transport(), 0).unwrap();
}

#[test]
fn a_new_root_is_followed_kept_and_never_left_again() {
    let (vendor, _) = Vendor::with_release();
    let pinned = vendor.root();
    let old = vendor.path("old");
    copy_tree(&vendor.store(), &old);
    let later = NOW + 6 * 365 * DAY;
    let renewed = vendor.open().renew(&passphrase(), later).unwrap();
    assert!(renewed.root && renewed.targets && renewed.snapshot);
    assert!(vendor.store().join("metadata/2.root.json").is_file());

    let trust = Trust::new(&pinned, CountingCache::default()).unwrap();
    let transport = Counted::new(vendor.transport());
    let accepted = trust.refresh(&transport, later).unwrap().accepted;
    assert_eq!(transport.requests(), 5, "two roots, timestamp, snapshot, targets");
    let transport = Counted::new(vendor.transport());
    assert!(!trust.refresh(&transport, later).unwrap().changed);
    assert_eq!(transport.requests(), 2);

    let hidden = Trust::new(&pinned, MemoryCache::new()).unwrap().remember(accepted);
    let error = hidden.refresh(&Directory::new(&old), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Rollback { .. }), "{error}");
}

#[test]
fn a_new_root_is_kept_also_where_the_rest_cannot_be_had() {
    let (vendor, _) = Vendor::with_release();
    let pinned = vendor.root();
    let old = vendor.path("old");
    copy_tree(&vendor.store(), &old);
    let later = NOW + 6 * 365 * DAY;
    vendor.open().renew(&passphrase(), later).unwrap();
    let trust = Trust::new(&pinned, MemoryCache::new()).unwrap();
    let cut = Tampering::new(vendor.transport(), |path, bytes| (!path.ends_with("timestamp.json")).then_some(bytes));
    trust.refresh(&cut, later).unwrap_err();

    // Whoever hides the new root afterwards does not bring the old one back.
    let seen = trust.refresh(&Directory::new(&old), NOW).unwrap().accepted.root;
    assert_eq!(seen, fs::read(vendor.store().join("metadata/2.root.json")).unwrap());
}

#[test]
fn any_number_of_new_roots_is_followed_over_several_refreshes() {
    let (vendor, _) = Vendor::with_release();
    let pinned = vendor.root();
    let key = vendor.keys.tuf_key(KeyKind::Root, &passphrase()).unwrap();
    let [root, targets, online] = vendor.keys.tuf_keys();
    let mut version = 1;
    let mut renew = |times: u32| {
        for _ in 0..times {
            version += 1;
            let file = key.sign(&tuf::root(version, NOW, root, targets, online));
            fs::write(vendor.store().join(format!("metadata/{version}.root.json")), file).unwrap();
        }
    };
    let now = NOW;
    renew(MAX_NEW_ROOTS);
    let trust = Trust::new(&pinned, MemoryCache::new()).unwrap();
    assert!(trust.refresh(&vendor.transport(), now).unwrap().changed, "as many as one refresh follows");
    assert!(!trust.refresh(&vendor.transport(), now).unwrap().changed);

    renew(1);
    let late = Trust::new(&pinned, MemoryCache::new()).unwrap();
    let error = late.refresh(&vendor.transport(), now).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    for trust in [late, trust] {
        trust.refresh(&vendor.transport(), now).unwrap();
        assert!(!trust.refresh(&vendor.transport(), now).unwrap().changed);
    }
}

#[test]
fn another_vendors_store_is_refused() {
    let (vendor, _) = Vendor::with_release();
    let (other, _) = Vendor::with_release();
    let error = trust(&vendor).refresh(&other.transport(), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Tuf { .. }), "{error}");
    let error = trust(&vendor).offline(&other.transport()).unwrap_err();
    assert!(matches!(error, StoreError::Tuf { .. }), "{error}");
    assert!(Trust::new(b"{}", MemoryCache::new()).is_err());
}

#[test]
fn an_absent_store_is_unreachable_and_an_empty_one_lacks_its_timestamp() {
    let (vendor, _) = Vendor::with_release();
    let error = trust(&vendor).refresh(&Directory::new(vendor.path("nowhere")), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Transport(TransportError::Unreachable { .. })), "{error}");
    fs::create_dir(vendor.path("empty")).unwrap();
    let error = trust(&vendor).refresh(&Directory::new(vendor.path("empty")), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Transport(TransportError::NotFound { .. })), "{error}");
}

#[test]
fn a_withdrawn_release_is_no_longer_the_newest() {
    let (vendor, tree) = Vendor::with_release();
    grow(&tree, 6, 20_000, 9);
    vendor.publish(&tree, "1.1.0");
    vendor.open().withdraw("stable", "1.1.0", Some("bad"), &passphrase(), NOW).unwrap();
    let trust = trust(&vendor);
    let releases = trust.refresh(&vendor.transport(), NOW).unwrap().releases;
    assert_eq!(releases.newest("stable").unwrap().version, "1.0.0");
    assert_eq!(releases.by_serial(2).unwrap().withdrawn.as_deref(), Some("bad"));
    vendor.open().withdraw("stable", "1.1.0", None, &passphrase(), NOW).unwrap();
    assert_eq!(trust.refresh(&vendor.transport(), NOW).unwrap().releases.newest("stable").unwrap().version, "1.1.0");
    assert!(vendor.open().withdraw("stable", "1.1.0", None, &passphrase(), NOW).is_err());
    let error = vendor.open().withdraw("stable", "9", Some(""), &passphrase(), NOW).unwrap_err();
    assert!(matches!(error, StoreError::NoSuchRelease { .. }), "{error}");
}
