//! A publish or a mirror that is cut off at any step leaves a sound store, and is simply repeated.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{NOW, Vendor, content, copy_tree, files, grow, passphrase};
use release_store::StoreError;
use release_store::mirror::{mirror, mirror_quietly};
use release_store::publish::{DeltaFrom, publish};
use release_store::repository::{NoObserver, Observer, Step};
use release_store::transport::Directory;
use release_store::trust::{MemoryCache, Trust};
use release_store::verify::verify;

struct StopAt(Step);

impl Observer for StopAt {
    fn step(&mut self, step: Step) -> ControlFlow<()> {
        if step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn newest(vendor: &Vendor) -> u64 {
    let trust = Trust::new(&vendor.root(), MemoryCache::new()).unwrap();
    trust.refresh(&vendor.transport(), NOW).unwrap().releases.newest("stable").unwrap().serial
}

fn damage(vendor: &Vendor) -> Vec<(String, StoreError)> {
    let keys = vendor.content_keys();
    verify(&vendor.store(), &vendor.root(), "Acme Notes", &keys, &mut NoObserver).unwrap().damage
}

#[test]
fn a_publish_stopped_after_any_step_changes_nothing_for_readers_and_can_be_repeated() {
    let steps = [
        Step::Chunked,
        Step::PackWritten,
        Step::ChunkListWritten,
        Step::ManifestWritten,
        Step::StepsWritten,
        Step::TargetsWritten,
        Step::SnapshotWritten,
    ];
    for step in steps {
        let (vendor, tree) = Vendor::with_release();
        let before = files(&vendor.store());
        fs::write(tree.join("new.bin"), content(100_000, 7)).unwrap();
        fs::write(tree.join("part-0/file-0.bin"), content(40_100, 1)).unwrap();
        let mut request = vendor.request(&tree, "1.1.0");
        request.deltas = DeltaFrom::Recent;
        let error = publish(&mut vendor.open(), &passphrase(), &request, &mut StopAt(step)).unwrap_err();
        assert!(matches!(error, StoreError::Stopped), "{step:?}: {error}");
        assert_eq!(newest(&vendor), 1, "{step:?}");
        assert!(damage(&vendor).is_empty(), "{step:?}");
        let after = files(&vendor.store());
        assert!(before.iter().all(|file| after.contains(file)), "{step:?} changed what was there");

        // Repeated at another time and with another tree.
        fs::write(tree.join("newer.bin"), content(1000, 8)).unwrap();
        let mut request = vendor.request(&tree, "1.1.0");
        request.now = NOW + 60;
        request.deltas = DeltaFrom::Recent;
        publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
        assert_eq!(newest(&vendor), 2, "{step:?}");
        assert!(damage(&vendor).is_empty(), "{step:?}");
        assert!(!vendor.store().join(".tmp").exists(), "{step:?} left temporary files");
    }
}

#[test]
fn a_publish_killed_at_any_moment_is_repeated_and_the_store_is_sound() {
    let (vendor, tree) = Vendor::with_release();
    grow(&tree, 40, 300_000, 20);
    let run = |version: &str| {
        Command::new(env!("CARGO_BIN_EXE_release-store"))
            .args(["publish", "--level", "3", "--release-version", version, "--keys"])
            .arg(vendor.keys.path())
            .arg(vendor.store())
            .arg(&tree)
            .env("HOLDFAST_PASSPHRASE", "correct horse")
            .env("SOURCE_DATE_EPOCH", NOW.to_string())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut expected = 1;
    for (at, millis) in [5, 30, 60, 90, 120, 150, 200, 300].into_iter().enumerate() {
        let version = format!("2.{at}");
        let mut child = run(&version);
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        let serial = newest(&vendor);
        assert!(serial == expected || serial == expected + 1, "{serial}");
        assert!(damage(&vendor).is_empty());
        if !done && serial == expected {
            assert!(run(&version).wait().unwrap().success());
        }
        expected += 1;
        assert_eq!(newest(&vendor), expected);
        fs::write(tree.join("part-0/file-0.bin"), content(200_000, 1000 + at as u64)).unwrap();
    }
    assert!(damage(&vendor).is_empty());
}

#[test]
fn a_mirror_copies_what_is_missing_and_the_timestamp_last() {
    let (vendor, tree) = Vendor::with_release();
    let copy = vendor.path("copy");
    let first = mirror_quietly(&vendor.store(), &copy).unwrap();
    assert_eq!(files(&copy), files(&vendor.store()));
    assert_eq!(mirror_quietly(&vendor.store(), &copy).unwrap().files, 0);
    fs::write(tree.join("new.bin"), content(100_000, 7)).unwrap();
    vendor.publish(&tree, "1.1.0");
    let second = mirror_quietly(&vendor.store(), &copy).unwrap();
    assert!(second.files == 7 && second.kept == first.files - 1, "{second:?}");
    assert_eq!(files(&copy), files(&vendor.store()));
}

#[test]
fn a_mirror_cut_off_after_any_file_serves_the_old_release_and_goes_on() {
    let (vendor, tree) = Vendor::with_release();
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    let old = vendor.path("old");
    copy_tree(&copy, &old);
    fs::write(tree.join("new.bin"), content(100_000, 7)).unwrap();
    vendor.publish(&tree, "1.1.0");

    // Every cut is a prefix of the order in which files appear; the order is seen through the progress.
    struct Watch<'a>(&'a std::path::Path, Vec<Vec<(String, Vec<u8>)>>);
    impl Observer for Watch<'_> {
        fn progress(&mut self, _: u64, _: u64) {
            self.1.push(files(self.0));
        }
    }
    let mut watch = Watch(&copy, Vec::new());
    mirror(&vendor.store(), &copy, false, None, &mut watch).unwrap();
    let states = watch.1;
    assert!(states.len() > 5);
    for state in states {
        let cut = vendor.path("cut");
        for (name, bytes) in state {
            let place = cut.join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, bytes).unwrap();
        }
        let trust = Trust::new(&vendor.root(), MemoryCache::new()).unwrap();
        let releases = trust.refresh(&Directory::new(&cut), NOW).unwrap().releases;
        assert_eq!(releases.newest("stable").unwrap().serial, 1);
        mirror_quietly(&vendor.store(), &cut).unwrap();
        assert_eq!(files(&cut), files(&vendor.store()));
        fs::remove_dir_all(&cut).unwrap();
    }
}

#[test]
fn a_mirror_heals_a_damaged_copy_and_refuses_a_damaged_source() {
    let (vendor, _) = Vendor::with_release();
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    let (name, bytes) = files(&copy).into_iter().find(|(name, _)| name.starts_with("packs/")).unwrap();
    let mut flipped = bytes.clone();
    flipped[10] ^= 1;
    fs::write(copy.join(&name), &flipped).unwrap();
    assert_eq!(mirror(&vendor.store(), &copy, false, None, &mut NoObserver).unwrap().files, 0);
    assert_eq!(mirror(&vendor.store(), &copy, true, None, &mut NoObserver).unwrap().files, 1);
    assert_eq!(fs::read(copy.join(&name)).unwrap(), bytes);
    fs::write(copy.join(&name), &bytes[..20]).unwrap();
    assert_eq!(mirror_quietly(&vendor.store(), &copy).unwrap().files, 1, "another length shows without reading");

    fs::write(vendor.store().join(&name), &flipped).unwrap();
    let error = mirror_quietly(&vendor.store(), &vendor.path("new")).unwrap_err();
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    assert!(!vendor.path("new").join("metadata/timestamp.json").exists());
}

#[test]
fn a_mirror_with_damaged_metadata_is_healed_and_never_gets_a_timestamp_that_names_it() {
    let (vendor, tree) = Vendor::with_release();
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    let before = fs::read(copy.join("metadata/timestamp.json")).unwrap();
    fs::write(tree.join("new.bin"), content(100_000, 7)).unwrap();
    vendor.publish(&tree, "1.1.0");
    for name in ["metadata/3.archive.json", "metadata/3.targets.json", "metadata/3.snapshot.json"] {
        // As a copy that was cut off and lost bytes: the length is right, the bytes are not.
        let length = fs::metadata(vendor.store().join(name)).unwrap().len() as usize;
        fs::write(copy.join(name), vec![0; length]).unwrap();
        mirror_quietly(&vendor.store(), &copy).unwrap_err();
        assert_eq!(fs::read(copy.join("metadata/timestamp.json")).unwrap(), before, "{name}");
        let trust = Trust::new(&vendor.root(), MemoryCache::new()).unwrap();
        assert_eq!(trust.refresh(&Directory::new(&copy), NOW).unwrap().releases.newest("stable").unwrap().serial, 1);
        fs::remove_file(copy.join(name)).unwrap();
    }
    mirror_quietly(&vendor.store(), &copy).unwrap();
    for name in ["metadata/3.archive.json", "metadata/3.targets.json", "metadata/3.snapshot.json"] {
        let length = fs::metadata(copy.join(name)).unwrap().len() as usize;
        fs::write(copy.join(name), vec![0; length]).unwrap();
        assert_eq!(mirror(&vendor.store(), &copy, true, None, &mut NoObserver).unwrap().files, 1, "{name}");
        assert_eq!(files(&copy), files(&vendor.store()));
    }
}

#[test]
fn a_mirror_never_goes_back_and_never_mixes_stores() {
    let (vendor, tree) = Vendor::with_release();
    let old = vendor.path("old");
    copy_tree(&vendor.store(), &old);
    fs::write(tree.join("new.bin"), "new").unwrap();
    vendor.publish(&tree, "1.1.0");
    let said = mirror_quietly(&old, &vendor.store()).unwrap_err().to_string();
    assert!(said.contains("is newer than") && said.contains("bring"), "{said}");
    let (other, _) = Vendor::with_release();
    assert!(mirror_quietly(&other.store(), &vendor.store()).is_err());
    assert_eq!(newest(&vendor), 2);
}
