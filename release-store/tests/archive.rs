//! What is current stands in the targets file, which does not grow; all other releases in the archive, under the same
//! keys. And what a device keeps of either, to trust what it has.

mod common;

use std::fs;
use std::path::Path;

use common::{CountingCache, DAY, NOW, Tampering, Vendor, content, copy_tree, files, grow, passphrase};
use release_store::StoreError;
use release_store::keys::KeyKind;
use release_store::mirror::mirror_quietly;
use release_store::publish::{DeltaFrom, Published, publish};
use release_store::repository::{NoObserver, Repository};
use release_store::transport::{Counted, Directory, TransportError};
use release_store::trust::{Accepted, MAX_STEPS, MemoryCache, Releases, Trust, TrustCache as _};
use release_store::tuf::{self, TufKey};
use release_store::verify::verify;
use serde_json::{Map, Value};

fn trust(vendor: &Vendor) -> Trust<CountingCache> {
    Trust::new(&vendor.root(), CountingCache::default()).unwrap()
}

/// Publishes what is in `tree` now, with steps from the releases before.
fn publish_to(vendor: &Vendor, tree: &Path, channel: &str, version: &str) -> Published {
    let mut request = vendor.request(tree, version);
    (request.channel, request.deltas) = (channel.into(), DeltaFrom::Recent);
    publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap()
}

/// A store with the releases 1 to `count` of `stable`.
fn store_of(count: u64) -> Vendor {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 3, 500, 1);
    for version in 1..=count {
        fs::write(tree.join("version"), format!("{version:04}")).unwrap();
        publish_to(&vendor, &tree, "stable", &version.to_string());
    }
    vendor
}

fn metadata(vendor: &Vendor, name: &str) -> Vec<u8> {
    fs::read(vendor.store().join("metadata").join(name)).unwrap()
}

/// The file that the newest timestamp leads to.
fn current(vendor: &Vendor, role: &str) -> Vec<u8> {
    let json = |name: &str| serde_json::from_slice::<Value>(&metadata(vendor, name)).unwrap();
    let version =
        |file: &Value, role: &str| file["signed"]["meta"][format!("{role}.json")]["version"].as_u64().unwrap();
    let snapshot = version(&json("timestamp.json"), "snapshot");
    match role {
        "snapshot" => metadata(vendor, &format!("{snapshot}.snapshot.json")),
        _ => metadata(vendor, &format!("{}.{role}.json", version(&json(&format!("{snapshot}.snapshot.json")), role))),
    }
}

fn serials(releases: &Releases) -> Vec<u64> {
    releases.iter().map(|release| release.serial).collect()
}

#[test]
fn the_targets_file_does_not_grow_with_the_number_of_releases() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 2, 300, 1);
    let mut lengths = Vec::new();
    for version in 1..=30_u64 {
        fs::write(tree.join("version"), format!("{version:04}")).unwrap();
        let published = publish_to(&vendor, &tree, "stable", &format!("1.{version:03}.0"));
        let targets = current(&vendor, "targets");
        let releases = trust(&vendor).refresh(&vendor.transport(), NOW).unwrap().releases;
        assert_eq!(serials(&releases), [version]);
        assert_eq!(*releases.newest("stable").unwrap(), published.release);
        if version > 8 {
            lengths.push((published.release.steps.len(), targets.len()));
        }
    }
    for steps in [4, 5] {
        let of = || lengths.iter().filter(|(count, _)| *count == steps).map(|(_, length)| *length);
        let (least, most) = (of().min().unwrap(), of().max().unwrap());
        assert!(most - least <= 24, "{steps} steps: {least} to {most} bytes");
        assert!(most < 2300, "{steps} steps: {most} bytes");
    }
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    assert_eq!(serials(&trust.archive(&vendor.transport()).unwrap()), (1..=30).collect::<Vec<_>>());
    assert!(current(&vendor, "archive").len() > 20_000, "they stand in the archive");
}

#[test]
fn what_is_signed_and_the_step_are_four_kilobytes_and_forty_bytes_a_changed_file() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    fs::create_dir(&tree).unwrap();
    for at in 0..300 {
        fs::write(tree.join(format!("file-{at:03}.txt")), content(400, at)).unwrap();
    }
    let changed = 20;
    let mut change = 1000;
    let mut next = |version: u64| {
        for at in 0..changed {
            change += 1;
            fs::write(tree.join(format!("file-{:03}.txt", at * 15)), content(400, change)).unwrap();
        }
        let mut request = vendor.request(&tree, &format!("1.{version}.0"));
        (request.deltas, request.level) = (DeltaFrom::Recent, 19);
        publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap()
    };
    (1..=6).for_each(|version| drop(next(version)));
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    next(7);
    let transport = Counted::new(vendor.transport());
    let releases = trust.refresh(&transport, NOW).unwrap().releases;
    let release = releases.newest("stable").unwrap();
    assert_eq!((release.serial, release.steps.len()), (7, 5));
    let metadata = transport.bytes();
    release.step(6).unwrap().fetch(&release.step_name(6), &transport).unwrap();
    assert_eq!(transport.requests(), 5, "root, timestamp, snapshot, targets, step");
    let whole = transport.bytes();
    eprintln!(
        "{metadata} bytes of metadata and {} of the step; the manifest has {}",
        whole - metadata,
        release.sealed.bytes
    );
    assert!(whole <= 4096 + 40 * changed, "{metadata} of metadata, {whole} in all");
}

#[test]
fn older_releases_are_found_in_the_archive_which_is_fetched_once() {
    let vendor = store_of(3);
    let trust = trust(&vendor);
    assert!(matches!(trust.archive(&vendor.transport()), Err(StoreError::NothingKnown)));
    assert_eq!(serials(&trust.refresh(&vendor.transport(), NOW).unwrap().releases), [3]);
    let transport = Counted::new(vendor.transport());
    let all = trust.archive(&transport).unwrap();
    assert_eq!((serials(&all), transport.requests()), (vec![1, 2, 3], 1));
    assert_eq!(trust.archive(&transport).unwrap(), all);
    assert_eq!(transport.requests(), 1, "it was kept");
    assert_eq!(trust.cached().unwrap(), all);
    assert_eq!(trust.offline(&vendor.transport()).unwrap(), all);
    for (release, version) in all.iter().zip(1..) {
        assert_eq!(vendor.verified(release).open("Acme Notes").unwrap().serial, version);
        assert_eq!(release.steps.len() as u64, version - 1);
    }

    // Another release: what was kept is not the archive any more.
    fs::write(vendor.path("tree/version"), "4").unwrap();
    publish_to(&vendor, &vendor.path("tree"), "stable", "4");
    assert_eq!(serials(&trust.refresh(&vendor.transport(), NOW).unwrap().releases), [4]);
    let transport = Counted::new(vendor.transport());
    assert_eq!(serials(&trust.archive(&transport).unwrap()), [1, 2, 3, 4]);
    assert_eq!(transport.requests(), 1);
    assert!(!trust.refresh(&vendor.transport(), NOW).unwrap().changed);
}

#[test]
fn an_archive_that_is_older_or_forged_is_refused_and_not_kept() {
    let vendor = store_of(3);
    let older = metadata(&vendor, "3.archive.json");
    let whole = metadata(&vendor, "4.archive.json");
    assert!(older != whole && current(&vendor, "archive") == whole);
    let mut answers = vec![older, b"{}".to_vec(), Vec::new(), metadata(&vendor, "4.targets.json")];
    answers.push(TufKey::from_seed(&[9; 32]).sign(&tuf::archive(4, NOW, &Map::new())));
    for at in (0..whole.len()).step_by(11) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        answers.push(flipped);
    }
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    let stored = trust.cache().stores();
    for answer in answers {
        let transport = Tampering::new(vendor.transport(), move |path, bytes| {
            Some(if path.ends_with(".archive.json") { answer.clone() } else { bytes })
        });
        for error in [trust.archive(&transport).unwrap_err(), trust.offline(&transport).unwrap_err()] {
            // Longer than the one that is named: not even fetched.
            let too_large = matches!(error, StoreError::Transport(TransportError::TooLarge { .. }));
            assert!(too_large || matches!(error, StoreError::Tuf { .. }), "{error}");
        }
    }
    let endless = Tampering::new(vendor.transport(), |_, _| Some(vec![b' '; 20 << 20]));
    let error = trust.archive(&endless).unwrap_err();
    assert!(
        matches!(error, StoreError::Transport(TransportError::TooLarge { .. }) | StoreError::Tuf { .. }),
        "{error}"
    );
    assert_eq!(trust.cache().stores(), stored, "nothing of it was kept");
    assert_eq!(serials(&trust.cached().unwrap()), [3]);
    // The same bytes in the cache count for nothing either.
    trust.cache().store("archive.json", &metadata(&vendor, "3.archive.json")).unwrap();
    assert_eq!(serials(&trust.cached().unwrap()), [3]);
    assert_eq!(serials(&trust.archive(&vendor.transport()).unwrap()), [1, 2, 3]);
}

/// Signs a snapshot of what is there, changed by `change`, and a timestamp, as whoever has `online.key` can.
fn sign_online(vendor: &Vendor, change: impl FnOnce(&mut Value)) {
    let online = vendor.keys.tuf_key(KeyKind::Online, &passphrase()).unwrap();
    let mut snapshot: Value = serde_json::from_slice(&current(vendor, "snapshot")).unwrap();
    let mut signed = snapshot["signed"].take();
    signed["version"] = 90.into();
    change(&mut signed);
    let snapshot = online.sign(&signed);
    let directory = vendor.store().join("metadata");
    fs::write(directory.join("90.snapshot.json"), &snapshot).unwrap();
    let timestamp = online.sign(&tuf::timestamp(90, NOW, 90, &snapshot));
    fs::write(directory.join("timestamp.json"), timestamp).unwrap();
}

#[test]
fn an_archive_that_the_snapshot_does_not_name_is_not_asked_for() {
    let vendor = store_of(2);
    sign_online(&vendor, |snapshot| {
        snapshot["meta"].as_object_mut().unwrap().remove("archive.json").unwrap();
    });
    let trust = trust(&vendor);
    assert_eq!(serials(&trust.refresh(&vendor.transport(), NOW).unwrap().releases), [2]);
    trust.cache().store("archive.json", &metadata(&vendor, "3.archive.json")).unwrap();
    let transport = Counted::new(vendor.transport());
    let error = trust.archive(&transport).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error}");
    assert_eq!(transport.requests(), 0);
    assert_eq!(serials(&trust.cached().unwrap()), [2]);
}

#[test]
fn who_has_the_online_key_makes_no_archive() {
    let vendor = store_of(2);
    let online = vendor.keys.tuf_key(KeyKind::Online, &passphrase()).unwrap();
    let theirs: Value = serde_json::from_slice(&current(&vendor, "archive")).unwrap();
    let forged = online.sign(&tuf::archive(91, NOW, theirs["signed"]["targets"].as_object().unwrap()));
    fs::write(vendor.store().join("metadata/91.archive.json"), &forged).unwrap();
    sign_online(&vendor, |snapshot| {
        let meta = tuf::snapshot(1, NOW, (1, b""), (91, &forged))["meta"]["archive.json"].take();
        snapshot["meta"]["archive.json"] = meta;
    });
    let trust = trust(&vendor);
    assert_eq!(serials(&trust.refresh(&vendor.transport(), NOW).unwrap().releases), [2]);
    let error = trust.archive(&vendor.transport()).unwrap_err();
    assert!(matches!(&error, StoreError::Tuf { role, .. } if role == "archive"), "{error}");
    assert_eq!(trust.vouched(&forged), None);
}

#[test]
fn an_older_archive_is_no_newer_for_being_signed_again_in_an_older_snapshot() {
    let vendor = store_of(2);
    let old = vendor.path("old");
    copy_tree(&vendor.store(), &old);
    fs::write(vendor.path("tree/version"), "3").unwrap();
    publish_to(&vendor, &vendor.path("tree"), "stable", "3");
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), NOW).unwrap();
    let error = trust.archive(&Directory::new(&old)).unwrap_err();
    assert!(matches!(error, StoreError::Transport(TransportError::NotFound { .. })), "{error}");
    // The archive of before, under a higher snapshot: versions never go back.
    let (older, newest) = (metadata(&vendor, "3.archive.json"), current(&vendor, "targets"));
    sign_online(&vendor, |snapshot| {
        snapshot["meta"] = tuf::snapshot(90, NOW, (4, &newest), (3, &older))["meta"].take();
    });
    let error = trust.refresh(&vendor.transport(), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Rollback { known: 4, offered: 3, .. }), "{error}");
}

#[test]
fn a_copy_without_the_archive_still_has_the_current_releases() {
    let vendor = store_of(3);
    fs::remove_file(vendor.store().join("metadata/4.archive.json")).unwrap();
    let trust = trust(&vendor);
    assert_eq!(serials(&trust.offline(&vendor.transport()).unwrap()), [3]);
    assert_eq!(serials(&trust.refresh(&vendor.transport(), NOW).unwrap().releases), [3]);
    let error = trust.archive(&vendor.transport()).unwrap_err();
    assert!(matches!(error, StoreError::Transport(TransportError::NotFound { .. })), "{error}");
}

#[test]
fn a_store_without_its_archive_is_damaged() {
    let vendor = store_of(3);
    fs::remove_file(vendor.store().join("metadata/4.archive.json")).unwrap();
    let keys = vendor.content_keys();
    let verified = verify(&vendor.store(), &vendor.root(), "Acme Notes", &keys, &mut NoObserver).unwrap();
    let named: Vec<&str> = verified.damage.iter().map(|(object, _)| object.as_str()).collect();
    assert_eq!(named, ["metadata/4.archive.json"]);
    let error = Repository::open(&vendor.store(), &vendor.keys).unwrap_err();
    assert!(error.to_string().contains("metadata/4.archive.json"), "{error}");
}

#[test]
fn statements_of_any_age_are_vouched_for_by_the_current_key_alone() {
    let vendor = store_of(3);
    let trust = trust(&vendor);
    for (name, expected) in [
        ("1.targets.json", vec![]),
        ("2.targets.json", vec![1]),
        ("4.targets.json", vec![3]),
        ("3.archive.json", vec![1]),
        ("4.archive.json", vec![1, 2]),
    ] {
        assert_eq!(trust.vouched(&metadata(&vendor, name)).as_ref().map(serials), Some(expected), "{name}");
    }
    for name in ["1.root.json", "4.snapshot.json", "timestamp.json"] {
        assert_eq!(trust.vouched(&metadata(&vendor, name)), None, "{name}");
    }
    let whole = metadata(&vendor, "2.targets.json");
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert_eq!(trust.vouched(&flipped), None, "byte {at}");
        assert_eq!(trust.vouched(&whole[..at]), None, "cut at {at}");
    }
    let signed: Value = serde_json::from_slice(&whole).unwrap();
    let key = |kind| vendor.keys.tuf_key(kind, &passphrase()).unwrap();
    assert!(trust.vouched(&key(KeyKind::Targets).sign(&signed["signed"])).is_some());
    for other in [key(KeyKind::Root), key(KeyKind::Online), TufKey::from_seed(&[9; 32])] {
        assert_eq!(trust.vouched(&other.sign(&signed["signed"])), None, "{other:?}");
    }
    let other = store_of(1);
    assert_eq!(trust.vouched(&metadata(&other, "2.targets.json")), None, "another vendor's");
}

#[test]
fn a_statement_that_contradicts_itself_vouches_for_nothing() {
    let vendor = store_of(2);
    let trust = trust(&vendor);
    let key = vendor.keys.tuf_key(KeyKind::Targets, &passphrase()).unwrap();
    let mut whole: Value = serde_json::from_slice(&current(&vendor, "targets")).unwrap();
    let whole = whole["signed"].take();
    let vouched = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut signed = whole.clone();
        change(signed["targets"].as_object_mut().unwrap());
        trust.vouched(&key.sign(&signed))
    };
    let steps = |count: u64| {
        vouched(&|targets| {
            let step = targets["step-2-1"].clone();
            targets.extend((10..10 + count).map(|from| (format!("step-2-{from}"), step.clone())));
        })
    };
    assert_eq!(steps(MAX_STEPS as u64 - 1).unwrap().by_serial(2).unwrap().steps.len(), MAX_STEPS);
    assert_eq!(steps(MAX_STEPS as u64), None);
    // What a newer publisher may add is skipped.
    let more = vouched(&|targets| drop(targets.insert("other".into(), targets["chunks-2"].clone())));
    assert_eq!(more.as_ref().map(serials), Some(vec![2]));
    let renamed = |from: &str, to: &str| {
        vouched(&|targets| {
            let target = targets.remove(from).unwrap();
            targets.insert(to.into(), target);
        })
    };
    assert!(renamed("step-2-1", "step-2-9").is_some(), "a name that can be");
    for (from, to) in [
        ("chunks-2", "chunks-3"),
        ("manifest-2", "manifest-3"),
        ("manifest-2", "manifest-02"),
        ("step-2-1", "step-2-2"),
        ("step-2-1", "step-2-"),
        ("step-2-1", "step-2-x"),
        ("step-2-1", "step-2-01"),
        ("step-2-1", "step-2-+1"),
        ("step-2-1", "step-2-18446744073709551616"),
    ] {
        assert_eq!(renamed(from, to), None, "{from} as {to}");
    }
    for name in ["manifest-2", "chunks-2", "step-2-1"] {
        assert_eq!(vouched(&|targets| targets[name]["length"] = (17_u64 << 20).into()), None, "{name} over its limit");
        assert_eq!(
            vouched(&|targets| targets[name]["hashes"]["sha256"] = "00".into()),
            None,
            "{name} without a digest"
        );
    }
    let said = |name: &str, value: Value| {
        vouched(&|targets| targets["manifest-2"]["custom"]["holdfast"][name] = value.clone())
    };
    assert!(said("version", "3".into()).is_some());
    for (name, value) in [("serial", 3.into()), ("manifest", "00".into()), ("channel", Value::Null)] {
        assert_eq!(said(name, value), None, "{name}");
    }
}

#[test]
fn a_new_root_takes_the_old_key_away_from_old_statements_too() {
    let vendor = store_of(2);
    let (targets, archive) = (current(&vendor, "targets"), current(&vendor, "archive"));
    let root = vendor.keys.tuf_key(KeyKind::Root, &passphrase()).unwrap();
    let new = TufKey::from_seed(&[7; 32]);
    let [root_key, _, online_key] = vendor.keys.tuf_keys();
    let second = root.sign(&tuf::root(2, NOW, root_key, &new.public(), online_key));
    let statement: Value = serde_json::from_slice(&targets).unwrap();
    let signed_anew = new.sign(&statement["signed"]);

    let trust = trust(&vendor);
    let release = trust.refresh(&vendor.transport(), NOW).unwrap().releases.newest("stable").unwrap().clone();
    assert!(trust.vouched(&targets).is_some() && trust.vouched(&archive).is_some());
    assert_eq!(trust.vouched(&signed_anew), None);
    assert_eq!(trust.statement(release.serial, &release.manifest), Some(targets.clone()));

    fs::write(vendor.store().join("metadata/2.root.json"), &second).unwrap();
    // Nothing but the root is accepted, and the root counts.
    assert!(matches!(trust.refresh(&vendor.transport(), NOW), Err(StoreError::Tuf { .. })));
    for bytes in [&targets, &archive] {
        assert_eq!(trust.vouched(bytes), None);
    }
    assert_eq!(trust.statement(release.serial, &release.manifest), None);
    assert!(matches!(trust.cached(), Err(StoreError::NothingKnown)));
    assert_eq!(trust.vouched(&signed_anew).as_ref().map(serials), Some(vec![2]));

    // The same from the sealed record alone.
    let accepted = Accepted { root: second, ..Accepted::default() };
    let remembering = Trust::new(&vendor.root(), MemoryCache::new()).unwrap().remember(accepted);
    assert_eq!(remembering.vouched(&targets), None);
    assert!(remembering.vouched(&signed_anew).is_some());
}

#[test]
fn a_statement_for_a_release_is_found_among_what_was_left() {
    let vendor = store_of(2);
    let trust = trust(&vendor);
    let newest = trust.refresh(&vendor.transport(), NOW).unwrap().releases.newest("stable").unwrap().clone();
    let first = vendor.release("1");
    assert_eq!(trust.statement(newest.serial, &newest.manifest), Some(current(&vendor, "targets")));
    assert_eq!(trust.statement(first.serial, &first.manifest), None, "the archive was not asked for");
    trust.archive(&vendor.transport()).unwrap();
    let archive = current(&vendor, "archive");
    assert_eq!(trust.statement(first.serial, &first.manifest), Some(archive.clone()));
    let vouched = trust.vouched(&archive).unwrap();
    assert_eq!(vouched.by_serial(1), Some(&first));
    let mut other = newest.clone();
    other.manifest = first.manifest;
    assert_eq!(trust.statement(other.serial, &other.manifest), None, "another manifest under this serial");

    // Two releases later the archive of now is not at hand; the one that was kept still vouches.
    fs::write(vendor.path("tree/version"), "3").unwrap();
    publish_to(&vendor, &vendor.path("tree"), "stable", "3");
    trust.refresh(&vendor.transport(), NOW).unwrap();
    assert_eq!(serials(&trust.cached().unwrap()), [3]);
    assert_eq!(trust.statement(first.serial, &first.manifest), Some(archive));
    assert_eq!(trust.statement(newest.serial, &newest.manifest), None);
    trust.archive(&vendor.transport()).unwrap();
    assert_eq!(trust.statement(newest.serial, &newest.manifest), Some(current(&vendor, "archive")));
}

#[test]
fn withdrawing_the_newest_brings_back_the_one_before_with_its_steps() {
    let vendor = store_of(4);
    let before = vendor.releases();
    let trust = trust(&vendor);
    let seen = || trust.refresh(&vendor.transport(), NOW).unwrap().releases;
    assert_eq!(serials(&seen()), [4]);
    let withdraw = |version: &str, reason: Option<&str>| {
        vendor.open().withdraw("stable", version, reason, &passphrase(), NOW).unwrap();
    };
    withdraw("4", Some("loses settings"));
    let now = seen();
    assert_eq!(serials(&now), [3, 4]);
    assert_eq!(now.by_serial(3), before.by_serial(3));
    assert_eq!(now.newest("stable").unwrap().steps.len(), 2);
    assert_eq!(now.by_serial(4).unwrap().steps, before.by_serial(4).unwrap().steps);
    assert_eq!(serials(&trust.vouched(&current(&vendor, "archive")).unwrap()), [1, 2]);

    // One in the middle: all hear of it, and the archive is asked for what else there is to know of it.
    withdraw("2", Some(""));
    assert_eq!(serials(&seen()), serials(&now));
    assert_eq!(seen().withdrawn(2), Some(""));
    let all = trust.archive(&vendor.transport()).unwrap();
    assert_eq!(all.by_serial(2).unwrap().withdrawn.as_deref(), Some(""));
    withdraw("3", Some("worse"));
    assert_eq!(serials(&seen()), [1, 2, 3, 4], "what is newer than the newest that stands");
    assert_eq!(seen().newest("stable").unwrap().serial, 1);
    withdraw("1", Some("the last"));
    assert_eq!(serials(&seen()), [4], "where none stands, the newest");
    assert!(seen().newest("stable").is_none());
    for version in ["4", "3", "2", "1"] {
        withdraw(version, None);
    }
    assert_eq!(serials(&seen()), [4]);
    assert_eq!(vendor.releases(), before);
}

#[test]
fn each_channel_has_its_own_current_releases() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 3, 500, 1);
    for (at, channel) in ["stable", "beta", "beta", "stable", "beta", "beta"].into_iter().enumerate() {
        fs::write(tree.join("version"), at.to_string()).unwrap();
        publish_to(&vendor, &tree, channel, &format!("1.{at}"));
    }
    let trust = trust(&vendor);
    let seen = || trust.refresh(&vendor.transport(), NOW).unwrap().releases;
    assert_eq!(serials(&seen()), [4, 6]);
    assert_eq!((seen().newest("stable").unwrap().serial, seen().newest("beta").unwrap().serial), (4, 6));
    let from =
        |serial| vendor.releases().by_serial(serial).unwrap().steps.iter().map(|(from, _)| *from).collect::<Vec<_>>();
    assert_eq!((from(4), from(6)), (vec![1], vec![2, 3, 5]), "steps stay within a channel");
    vendor.open().withdraw("beta", "1.5", Some("bad"), &passphrase(), NOW).unwrap();
    assert_eq!(serials(&seen()), [4, 5, 6]);
    assert_eq!((seen().newest("stable").unwrap().serial, seen().newest("beta").unwrap().serial), (4, 5));
    assert_eq!(serials(&trust.archive(&vendor.transport()).unwrap()), [1, 2, 3, 4, 5, 6]);
    assert!(
        verify(&vendor.store(), &vendor.root(), "Acme Notes", &vendor.content_keys(), &mut NoObserver)
            .unwrap()
            .damage
            .is_empty()
    );
}

#[test]
fn a_mirror_has_the_archive_and_what_it_names() {
    let vendor = store_of(3);
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    let archives = files(&copy).into_iter().filter(|(name, _)| name.ends_with(".archive.json")).count();
    assert_eq!(archives, 4);
    let trust = trust(&vendor);
    let transport = Directory::new(&copy);
    trust.refresh(&transport, NOW).unwrap();
    let all = trust.archive(&transport).unwrap();
    assert_eq!(all, vendor.releases());
    for release in all.iter() {
        release.sealed.fetch(&release.manifest_name(), &transport).unwrap();
        release.chunks.fetch(&release.chunks_name(), &transport).unwrap();
        for (from, step) in &release.steps {
            step.fetch(&release.step_name(*from), &transport).unwrap();
        }
    }
}

#[test]
fn renewing_signs_the_archive_again_too() {
    let vendor = store_of(2);
    let before = vendor.releases();
    let expires = |role: &str| {
        let file: Value = serde_json::from_slice(&current(&vendor, role)).unwrap();
        file["signed"]["expires"].as_str().unwrap().to_owned()
    };
    let until = expires("archive");
    let later = NOW + 200 * DAY;
    assert!(vendor.open().renew(&passphrase(), later).unwrap().targets);
    assert!(expires("archive") > until && expires("archive") == expires("targets"));
    let trust = trust(&vendor);
    trust.refresh(&vendor.transport(), later).unwrap();
    assert_eq!(trust.archive(&vendor.transport()).unwrap(), before);
}
