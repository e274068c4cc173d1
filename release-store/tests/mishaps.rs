//! What a vendor's own hand can do to a store: lost files, wrong clocks, keys in the wrong place, trees that are still being
//! built. Each is refused before anything is signed, with what to do; nothing is overwritten.

#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::{DAY, NOW, Vendor, copy_tree, files, grow, passphrase, program};
use firmware_image::device_config::{Policies, Profile};
use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::gc::{Policy, collect};
use release_store::keys::{ConfigRequest, FactoryExport, KeyDir};
use release_store::mirror::{mirror, mirror_quietly};
use release_store::publish::publish;
use release_store::repository::{NoObserver, Observer, Repository};
use release_store::trust::{MemoryCache, Trust};
use release_store::verify::verify;
use release_store::{Directory, StoreError};

const TIMESTAMP: &str = "metadata/timestamp.json";

#[track_caller]
fn refused<T>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Refused(reason)) => reason,
        Err(error) => panic!("another error: {error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn a_store_that_lost_its_timestamp_is_never_made_anew() {
    let (vendor, _) = Vendor::with_release();
    let timestamp = fs::read(vendor.store().join(TIMESTAMP)).unwrap();
    fs::remove_file(vendor.store().join(TIMESTAMP)).unwrap();
    let before = files(&vendor.store());
    let said = refused(Repository::open(&vendor.store(), &vendor.keys));
    assert!(said.contains("mirror") && !said.contains("init"), "{said}");
    let said = refused(Repository::init(&vendor.store(), &vendor.keys, &passphrase(), NOW));
    assert!(said.contains("mirror"), "{said}");
    assert_eq!(files(&vendor.store()), before);
    fs::write(vendor.store().join(TIMESTAMP), timestamp).unwrap();
    assert_eq!(vendor.open().releases().iter().count(), 1);
}

#[test]
fn what_an_interrupted_init_left_is_gone_on_with() {
    let vendor = Vendor::new();
    fs::remove_file(vendor.store().join(TIMESTAMP)).unwrap();
    drop(Repository::init(&vendor.store(), &vendor.keys, &passphrase(), NOW + 1).unwrap());
    vendor.open();
}

#[test]
fn a_root_that_the_store_lost_is_put_back() {
    let (vendor, _) = Vendor::with_release();
    let root = vendor.store().join("metadata/1.root.json");
    fs::remove_file(&root).unwrap();
    vendor.open();
    assert_eq!(fs::read(root).unwrap(), vendor.root());
}

#[test]
fn new_keys_take_the_place_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // What stands beside is somebody else's.
    fs::create_dir(path("keys.new")).unwrap();
    fs::write(path("keys.new/root.key"), "another product's").unwrap();
    // With a slash behind it, as a shell completes it; and an empty directory, as a mounted stick is one.
    fs::create_dir(path("mounted")).unwrap();
    for name in ["keys/", "mounted"] {
        let made = KeyDir::create(&path(name), "Acme Notes", &passphrase(), NOW).unwrap();
        made.secrets(&passphrase()).unwrap();
        assert!(refused(KeyDir::create(&path(name), "Acme Notes", &passphrase(), NOW)).contains("never overwritten"));
    }
    assert_eq!(fs::read(path("keys.new/root.key")).unwrap(), b"another product's");
    let mut names: Vec<_> = fs::read_dir(path("keys")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "content.key",
        "online.key",
        "product.json",
        "root.json",
        "root.key",
        "targets.key",
        "updater.key",
        "vendor.key",
    ];
    assert_eq!(names, expected);
    // What a cut left of the making of keys is in nobody's way.
    fs::create_dir_all(path("cut/.unfinished")).unwrap();
    fs::write(path("cut/.unfinished/root.key"), "half").unwrap();
    KeyDir::create(&path("cut"), "Acme Notes", &passphrase(), NOW).unwrap();
    assert!(!path("cut/.unfinished").exists());
}

#[test]
fn keys_store_and_tree_do_not_lie_in_one_another() {
    let (vendor, _) = Vendor::with_release();
    let request = |tree: &Path| vendor.request(tree, "1.1.0");
    let with_all = vendor.dir.path();
    let said = refused(publish(&mut vendor.open(), &passphrase(), &request(with_all), &mut NoObserver));
    assert!(said.contains("the keys"), "{said}");
    let in_store = vendor.store().join("packs");
    let said = refused(publish(&mut vendor.open(), &passphrase(), &request(&in_store), &mut NoObserver));
    assert!(said.contains("the store"), "{said}");
    let keys_inside = vendor.path("web/keys");
    fs::create_dir_all(keys_inside.parent().unwrap()).unwrap();
    let keys = KeyDir::create(&keys_inside, "Acme Notes", &passphrase(), NOW).unwrap();
    let said = refused(Repository::init(&vendor.path("web"), &keys, &passphrase(), NOW));
    assert!(said.contains("read by everybody"), "{said}");
    assert!(!vendor.path("web").join(TIMESTAMP).exists());
    // Before anything is made.
    let said = refused(Repository::init(&vendor.keys.path().join("new/store"), &vendor.keys, &passphrase(), NOW));
    assert!(said.contains("the keys") && !vendor.keys.path().join("new").exists(), "{said}");
    let said = refused(KeyDir::create(&vendor.store().join("keys"), "Acme Notes", &passphrase(), NOW));
    assert!(said.contains("a store") && !vendor.store().join("keys").exists(), "{said}");
}

#[test]
fn a_factory_export_lies_in_no_store() {
    let (vendor, _) = Vendor::with_release();
    let request = ConfigRequest {
        channel: "stable".into(),
        profile: Profile::Stick,
        align_bytes: 4 << 20,
        servers: Vec::new(),
        client_commands: Vec::new(),
        policies: Policies::default(),
    };
    let before = files(&vendor.store());
    for place in ["store/factory", "store/packs/deep/factory", "keys/../store/factory"] {
        let export = FactoryExport::create(&vendor.path(place), &vendor.keys, &passphrase(), &request, &[]);
        let said = refused(export);
        assert!(said.contains("a store") && said.contains("read by everybody"), "{place}: {said}");
    }
    assert_eq!(files(&vendor.store()), before);
}

#[test]
fn keys_in_a_tree_are_known_by_what_they_hold_and_published_to_nobody() {
    let (vendor, tree) = Vendor::with_release();
    copy_tree(vendor.keys.path(), &tree.join("config"));
    fs::rename(tree.join("config/vendor.key"), tree.join("part-0/notes.txt")).unwrap();
    let before = files(&vendor.store());
    let error = vendor.try_publish(&tree, "1.1.0").unwrap_err();
    assert!(matches!(error, StoreError::Tree { .. }), "{error:?}");
    let said = error.to_string();
    for name in ["config/root.key", "config/content.key", "part-0/notes.txt"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(!said.contains("product.json"), "{said}");
    assert_eq!(files(&vendor.store()), before);
}

#[test]
fn a_clock_that_cannot_be_right_signs_nothing() {
    let (vendor, tree) = Vendor::with_release();
    let store = vendor.store();
    let before = files(&store);
    let long_ago = NOW - 200 * DAY;
    refused(vendor.open().renew(&passphrase(), long_ago));
    refused(vendor.open().withdraw("stable", "1.0.0", Some("worse"), &passphrase(), long_ago));
    refused(collect(&mut vendor.open(), &passphrase(), &Policy::default(), 0, &mut NoObserver));
    let mut request = vendor.request(&tree, "1.1.0");
    request.now = NOW + 10 * 365 * DAY;
    let said = refused(publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver));
    assert!(said.contains("--after-long"), "{said}");
    assert_eq!(files(&store), before);
    // Who says that it is right is believed.
    request.after_long = true;
    publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
}

/// Does something when the first file was read.
struct AfterTheFirst<F: FnMut()>(Option<F>);

impl<F: FnMut()> Observer for AfterTheFirst<F> {
    fn progress(&mut self, _: u64, _: u64) {
        if let Some(mut act) = self.0.take() {
            act();
        }
    }
}

#[test]
fn a_tree_that_changes_while_it_is_read_is_not_published() {
    let (vendor, tree) = Vendor::with_release();
    grow(&tree, 5, 40_000, 2);
    let names: Vec<_> = files(&tree).into_iter().map(|(name, _)| tree.join(name)).collect();
    let (first, last) = (&names[0], &names[names.len() - 1]);
    let before = files(&vendor.store());
    let same_length = |path: &Path| fs::write(path, vec![7; fs::metadata(path).unwrap().len() as usize]).unwrap();
    let changes: [(&str, &dyn Fn()); 5] = [
        ("one that was read", &|| same_length(first)),
        ("one that is still to be read", &|| same_length(last)),
        ("a new one", &|| fs::write(tree.join("new"), "new").unwrap()),
        ("one less", &|| fs::remove_file(first).unwrap()),
        ("one that grows", &|| fs::write(last, vec![7; 80_000]).unwrap()),
    ];
    for (what, change) in changes {
        let sound = vendor.path("sound");
        let _ = fs::remove_dir_all(&sound);
        copy_tree(&tree, &sound);
        let mut observer = AfterTheFirst(Some(change));
        let result = publish(&mut vendor.open(), &passphrase(), &vendor.request(&tree, "1.1.0"), &mut observer);
        let said = match result {
            Err(StoreError::Io { .. }) if what == "one less" => continue,
            result => refused(result),
        };
        assert!(said.contains("at rest"), "{what}: {said}");
        fs::remove_dir_all(&tree).unwrap();
        copy_tree(&sound, &tree);
    }
    let now = files(&vendor.store());
    let signed = |all: &[(String, Vec<u8>)]| {
        all.iter().filter(|(name, _)| name.starts_with("metadata/")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(signed(&now.into_iter().collect::<Vec<_>>()), signed(&before.into_iter().collect::<Vec<_>>()));
    vendor.publish(&tree, "1.1.0");
}

#[test]
fn a_floor_that_no_updater_would_carry_is_refused() {
    let (vendor, tree) = Vendor::with_release();
    let floor = Floors { version: UpdaterVersion::parse("1.3.0").unwrap(), key_serial: 0 };
    let mut request = vendor.request(&tree, "1.1.0");
    request.updater_floors = floor;
    assert!(refused(publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver)).contains("updater"));
    let mut request = vendor.request(&tree, "1.1.0");
    request.updater_version = floor.version.into();
    refused(publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver));
}

#[test]
fn a_withdrawn_releases_updater_goes_no_further() {
    let (vendor, tree) = Vendor::with_release();
    let with_updater = |version: &str, seed: u64| {
        let path = vendor.path("program");
        fs::write(&path, program(seed)).unwrap();
        let mut request = vendor.request(&tree, version);
        request.updaters.push(("linux-x86_64".into(), path));
        publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap()
    };
    let good = with_updater("1.1.0", 1).updaters;
    let bad = with_updater("1.2.0", 2).updaters;
    vendor.open().withdraw("stable", "1.2.0", Some("its updater"), &passphrase(), NOW).unwrap();
    assert_eq!(vendor.publish(&tree, "1.2.1").updaters, good);
    assert!(bad[0].version > good[0].version);
    // The next one is newer than both.
    assert!(with_updater("1.2.2", 3).updaters[0].version > bad[0].version);
}

#[test]
fn a_copy_gets_no_timestamp_for_what_it_lacks() {
    let (vendor, tree) = Vendor::with_release();
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    let before = fs::read(copy.join(TIMESTAMP)).unwrap();
    let release = vendor.publish(&tree, "1.1.0").release;
    let manifest = vendor.store().join(release.manifest_path());
    let bytes = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let said = refused(mirror_quietly(&vendor.store(), &copy));
    assert!(said.contains("1.1.0") && said.contains("verify"), "{said}");
    assert_eq!(fs::read(copy.join(TIMESTAMP)).unwrap(), before);
    fs::write(&manifest, bytes).unwrap();
    mirror_quietly(&vendor.store(), &copy).unwrap();
}

#[test]
fn a_pack_that_the_store_lost_is_missed_by_whoever_has_the_keys_and_comes_back_from_the_copy() {
    let (vendor, tree) = Vendor::with_release();
    let (store, copy, keys) = (vendor.store(), vendor.path("copy"), vendor.content_keys());
    let with_keys = Some(("Acme Notes", &keys));
    mirror(&store, &copy, false, with_keys, &mut NoObserver).unwrap();
    let packs = |at: &Path| -> Vec<String> {
        files(at).into_iter().map(|(name, _)| name).filter(|name| name.starts_with("packs/")).collect()
    };
    let before = packs(&store);
    fs::remove_file(store.join(&before[0])).unwrap();
    fs::write(tree.join("new.bin"), "new").unwrap();
    vendor.publish(&tree, "1.1.0");
    // The copy has it still; a new one would lack it.
    let new = vendor.path("new");
    let said = refused(mirror(&store, &new, false, with_keys, &mut NoObserver));
    assert!(said.contains(&before[0]) && said.contains("1.0.0") && !new.join(TIMESTAMP).exists(), "{said}");
    let said = refused(mirror(&copy, &store, true, None, &mut NoObserver));
    assert!(said.contains(&format!("mirror {} {}", store.display(), copy.display())), "{said}");
    mirror(&store, &copy, false, with_keys, &mut NoObserver).unwrap();
    assert_eq!(mirror(&copy, &store, true, None, &mut NoObserver).unwrap().files, 1);
    assert!(packs(&store).contains(&before[0]));
    mirror(&store, &new, false, with_keys, &mut NoObserver).unwrap();
}

#[test]
fn a_copy_goes_into_nothing_that_is_something_else() {
    let (vendor, tree) = Vendor::with_release();
    let store = vendor.store();
    let before = files(vendor.dir.path());
    for (place, why) in
        [("tree", "part-"), ("store/sub", "its copy"), ("keys/m", "a directory of keys"), (".", "its copy")]
    {
        let said = refused(mirror_quietly(&store, &vendor.path(place)));
        assert!(said.contains(why), "{place}: {said}");
    }
    assert_eq!(files(vendor.dir.path()), before);
    assert!(!tree.join(".lock").exists() && !vendor.keys.path().join("m").exists());
    // What is a copy already may have other files beside it.
    let copy = vendor.path("copy");
    mirror_quietly(&store, &copy).unwrap();
    fs::write(copy.join("index.html"), "").unwrap();
    mirror_quietly(&store, &copy).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_in_a_store_is_no_file_of_it() {
    let (vendor, _) = Vendor::with_release();
    let pack =
        files(&vendor.store()).into_iter().map(|(name, _)| name).find(|name| name.starts_with("packs/")).unwrap();
    let (place, elsewhere) = (vendor.store().join(&pack), vendor.path("other disk"));
    fs::rename(&place, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    let error = mirror_quietly(&vendor.store(), &vendor.path("copy")).unwrap_err();
    assert!(matches!(&error, StoreError::NotAFile { path, .. } if *path == place), "{error:?}");
    assert!(!vendor.path("copy").join(TIMESTAMP).exists());
}

#[test]
fn of_two_stores_that_were_published_into_neither_replaces_the_other() {
    let (vendor, tree) = Vendor::with_release();
    let (store, other, copy) = (vendor.store(), vendor.path("other"), vendor.path("copy"));
    copy_tree(&store, &other);
    vendor.publish(&tree, "1.1.0");
    grow(&tree, 5, 40_000, 9);
    let mut second = Repository::open(&other, &vendor.keys).unwrap();
    publish(&mut second, &passphrase(), &vendor.request(&tree, "1.1.1"), &mut NoObserver).unwrap();
    drop(second);
    mirror_quietly(&store, &copy).unwrap();
    let before = files(&copy);
    for check in [false, true] {
        let said = refused(mirror(&other, &copy, check, None, &mut NoObserver));
        assert!(said.contains("two stores were published into"), "{said}");
        assert_eq!(files(&copy), before);
    }
}

#[test]
fn a_damaged_copy_is_put_right_whatever_it_says_of_itself() {
    let (vendor, _) = Vendor::with_release();
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    let sound = files(&copy);
    let newer = String::from_utf8(fs::read(copy.join(TIMESTAMP)).unwrap()).unwrap();
    let newer = newer.replace("\"version\":2", "\"version\":18446744073709551615");
    for torn in ["{}", "", newer.as_str()] {
        fs::write(copy.join(TIMESTAMP), torn).unwrap();
        assert!(refused(mirror_quietly(&vendor.store(), &copy)).contains("--check"));
        mirror(&vendor.store(), &copy, true, None, &mut NoObserver).unwrap();
        assert_eq!(files(&copy), sound);
    }
    let found = verify(&copy, &vendor.root(), "Acme Notes", &vendor.content_keys(), &mut NoObserver).unwrap();
    assert!(found.damage.is_empty());
}

/// A device's trust, which remembers what it has seen.
fn device(vendor: &Vendor) -> Trust<MemoryCache> {
    Trust::new(&vendor.root(), MemoryCache::new()).unwrap()
}

#[test]
fn a_store_put_back_from_a_backup_is_gone_on_with_only_where_that_is_said_and_devices_take_it() {
    let (vendor, tree) = Vendor::with_release();
    let (store, backup, device) = (vendor.store(), vendor.path("backup"), device(&vendor));
    copy_tree(&store, &backup);
    let lost = vendor.publish(&tree, "1.1.0").release;
    device.refresh(&Directory::new(&store), NOW).unwrap();
    fs::remove_dir_all(&store).unwrap();
    copy_tree(&backup, &store);
    let before = files(&store);
    let said = refused(Repository::open(&store, &vendor.keys));
    assert!(said.contains("--restored") && said.contains("file server"), "{said}");
    assert_eq!(vendor.keys.signed_last(&store).unwrap().serial, lost.serial);
    assert_eq!(files(&store), before);
    let error = device.refresh(&Directory::new(&store), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Rollback { .. }), "{error}");

    Repository::open_restored(&store, &vendor.keys).unwrap().renew(&passphrase(), NOW).unwrap();
    let seen = device.refresh(&Directory::new(&store), NOW).unwrap();
    assert!(seen.releases.by_serial(lost.serial).is_none());
    // A number that devices know as another release is not given out again.
    let new = vendor.publish(&tree, "1.1.1").release;
    assert!(new.serial > lost.serial);
    let seen = device.refresh(&Directory::new(&store), NOW).unwrap();
    assert!(seen.releases.by_serial(new.serial).is_some());
}

#[test]
fn a_store_made_anew_where_one_was_lost_goes_on_with_its_numbers() {
    let (vendor, tree) = Vendor::with_release();
    let (store, device) = (vendor.store(), device(&vendor));
    device.refresh(&Directory::new(&store), NOW).unwrap();
    fs::remove_dir_all(&store).unwrap();
    drop(Repository::init(&store, &vendor.keys, &passphrase(), NOW).unwrap());
    device.refresh(&Directory::new(&store), NOW).unwrap();
    assert_eq!(vendor.publish(&tree, "2.0.0").release.serial, 2);
    device.refresh(&Directory::new(&store), NOW).unwrap();
}

#[cfg(unix)]
#[test]
fn keys_that_nobody_may_write_keep_nobody_from_publishing() {
    let (vendor, tree) = Vendor::with_release();
    // Where the file belongs, a directory stands: root may write anything else.
    vendor.forget_signed();
    fs::create_dir_all(vendor.keys.path().join("signed.json/in the way")).unwrap();
    let mut repository = vendor.open();
    publish(&mut repository, &passphrase(), &vendor.request(&tree, "1.1.0"), &mut NoObserver).unwrap();
    assert!(repository.not_remembered().is_some());
    drop(repository);
    assert_eq!(vendor.open().releases().iter().count(), 2);
}

#[test]
fn a_damaged_memory_of_what_was_signed_is_made_anew() {
    let (vendor, tree) = Vendor::with_release();
    fs::write(vendor.keys.path().join("signed.json"), b"{ torn").unwrap();
    vendor.publish(&tree, "1.1.0");
    let signed = vendor.keys.signed_last(&vendor.store()).unwrap();
    assert_eq!((signed.serial, vendor.open().not_remembered()), (2, None));
}
