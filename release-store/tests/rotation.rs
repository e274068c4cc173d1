//! New keys in the place of lost or stolen ones: devices follow, the old keys sign nothing any more, and a cut loses nothing.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::{NOW, Vendor, copy_tree, files, grow, passphrase};
use release_store::StoreError;
use release_store::keys::KeyKind::{self, Content, Online, Root, Targets, Updater, Vendor as VendorKey};
use release_store::keys::rotation::{Rotation, finish, rotate};
use release_store::keys::{KeyDir, Passphrase};
use release_store::mirror::mirror_quietly;
use release_store::publish::publish;
use release_store::repository::{NoObserver, Observer, Repository, Step};
use release_store::transport::Directory;
use release_store::trust::{MemoryCache, Trust};
use release_store::tuf;

/// Two releases, and a device that has heard of the second.
fn vendor_and_device() -> (Vendor, PathBuf, Trust<MemoryCache>) {
    let (vendor, tree) = Vendor::with_release();
    fs::write(tree.join("new"), "new").unwrap();
    vendor.publish(&tree, "1.1.0");
    let device = Trust::new(&vendor.root(), MemoryCache::new()).unwrap();
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
    (vendor, tree, device)
}

fn newest(device: &Trust<MemoryCache>, store: &Path) -> Result<String, StoreError> {
    let found = device.refresh(&Directory::new(store), NOW)?;
    Ok(found.releases.newest("stable").unwrap().version.clone())
}

/// Changes keys, and opens the directory with the new ones.
fn change(vendor: &mut Vendor, kinds: &[KeyKind]) -> Result<Rotation, StoreError> {
    let rotated = rotate(vendor.keys.path(), kinds, &passphrase(), NOW, &mut NoObserver)?;
    vendor.keys = KeyDir::open(vendor.keys.path())?;
    Ok(rotated)
}

/// The same, and signs the store with them.
fn change_and_sign(vendor: &mut Vendor, kinds: &[KeyKind]) -> Result<Rotation, StoreError> {
    let rotated = change(vendor, kinds)?;
    vendor.open().renew(&passphrase(), NOW)?;
    Ok(rotated)
}

#[test]
fn devices_follow_each_change_and_the_vendor_goes_on() {
    for kinds in [&[Online][..], &[Targets], &[Root], &[Online, Targets], &[Root, Targets, Online, Updater]] {
        let (mut vendor, tree, device) = vendor_and_device();
        let first = vendor.root();
        let old = vendor.keys.clone();
        let rotated = change(&mut vendor, kinds).unwrap();
        assert_eq!(rotated.root_version, Some(2), "{kinds:?}");
        // Until the store is signed with them nothing changes for anybody.
        assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
        assert!(!vendor.store().join("metadata/2.root.json").exists());
        let renewed = vendor.open().renew(&passphrase(), NOW).unwrap();
        assert_eq!(renewed.new_keys, kinds != [Root], "{kinds:?}");
        assert!(!vendor.open().awaits_new_keys());
        for (at, kind) in [Root, Targets, Online].into_iter().enumerate() {
            assert_eq!(old.tuf_keys()[at] != vendor.keys.tuf_keys()[at], kinds.contains(&kind), "{kinds:?}");
            vendor.keys.tuf_key(kind, &passphrase()).unwrap();
        }
        vendor.keys.signing_key(Updater, &passphrase()).unwrap();
        assert_eq!(vendor.keys.certificate().serial, if kinds.contains(&Updater) { 2 } else { 1 });
        assert!(
            vendor.root() != first && vendor.root() == fs::read(vendor.store().join("metadata/2.root.json")).unwrap()
        );
        // One that knew the store, one that was made long ago, one that is made now.
        let fresh = |now: &[u8]| [&first[..], now].map(|root| Trust::new(root, MemoryCache::new()).unwrap());
        for device in [&device].into_iter().chain(&fresh(&vendor.root())) {
            assert_eq!(newest(device, &vendor.store()).unwrap(), "1.1.0", "{kinds:?}");
            assert_eq!(device.archive(&vendor.transport()).unwrap().iter().count(), 2);
        }
        fs::write(tree.join("newer"), "newer").unwrap();
        vendor.publish(&tree, "1.2.0");
        vendor.open().withdraw("stable", "1.1.0", Some("worse"), &passphrase(), NOW).unwrap();
        vendor.open().renew(&passphrase(), NOW).unwrap();
        // And twice more, signed by what comes next, whatever it is.
        assert_eq!(change(&mut vendor, kinds).unwrap().root_version, Some(3));
        assert_eq!(change(&mut vendor, kinds).unwrap().root_version, Some(4));
        vendor.open().withdraw("stable", "1.1.0", None, &passphrase(), NOW).unwrap();
        for device in [&device].into_iter().chain(&fresh(&vendor.root())) {
            assert_eq!(newest(device, &vendor.store()).unwrap(), "1.2.0", "{kinds:?}");
        }
        assert!(!vendor.keys.path().join(".rotation").exists());
        // A store that is made anew leads devices from the first root on.
        fs::remove_dir_all(vendor.store()).unwrap();
        drop(Repository::init(&vendor.store(), &vendor.keys, &passphrase(), NOW).unwrap());
        vendor.publish(&tree, "1.3.0");
        for device in fresh(&vendor.root()) {
            assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.3.0", "{kinds:?}");
        }
    }
}

#[test]
fn what_a_stolen_key_signs_is_worth_nothing_after_the_change() {
    let (mut vendor, _, device) = vendor_and_device();
    let stolen = vendor.keys.tuf_key(Online, &passphrase()).unwrap();
    let timestamp = vendor.store().join("metadata/timestamp.json");
    let snapshot = fs::read(vendor.store().join("metadata/3.snapshot.json")).unwrap();
    let honest = fs::read(&timestamp).unwrap();
    // The highest number that there is keeps all others away from devices that hear of it.
    fs::write(&timestamp, stolen.sign(&tuf::timestamp(u32::MAX.into(), NOW, 3, &snapshot))).unwrap();
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
    fs::write(&timestamp, &honest).unwrap();
    assert!(matches!(newest(&device, &vendor.store()), Err(StoreError::Rollback { .. })));

    change_and_sign(&mut vendor, &[Online]).unwrap();
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
    let good = fs::read(&timestamp).unwrap();
    for bytes in [stolen.sign(&tuf::timestamp(u32::MAX.into(), NOW, 3, &snapshot)), honest] {
        fs::write(&timestamp, bytes).unwrap();
        assert!(matches!(newest(&device, &vendor.store()), Err(StoreError::Tuf { .. })));
    }
    fs::write(&timestamp, good).unwrap();
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
}

/// Breaks off at a step.
struct Cut(usize);

impl Observer for Cut {
    fn step(&mut self, _: Step) -> ControlFlow<()> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    }
}

#[test]
fn a_change_that_is_cut_anywhere_was_not_begun_or_is_finished() {
    let kinds = [Root, Targets, Online, Updater];
    let (vendor, _, _) = vendor_and_device();
    let first = vendor.root();
    let before = files(vendor.keys.path());
    let mut ended = None;
    for at in 0.. {
        let [keys, store] = ["keys", "store"].map(|name| vendor.path(&format!("{name}-{at}")));
        copy_tree(vendor.keys.path(), &keys);
        copy_tree(&vendor.store(), &store);
        let made = rotate(&keys, &kinds, &passphrase(), NOW, &mut Cut(at));
        let (was_begun, is_done) = (keys.join(".rotation/rotation.json").exists(), made.is_ok());
        assert!(is_done || matches!(made, Err(StoreError::Stopped)), "{at}: {made:?}");
        if was_begun {
            // Nothing else is done with such keys; finishing may be cut, too, and needs no passphrase.
            let refused = KeyDir::open(&keys).unwrap_err().to_string();
            assert!(refused.contains("keys rotate"), "{refused}");
            assert!(rotate(&keys, &[Online], &passphrase(), NOW, &mut NoObserver).is_err());
            match finish(&keys, &mut Cut(at / 2)) {
                Err(StoreError::Stopped) => drop(finish(&keys, &mut NoObserver).unwrap()),
                finished => assert!(finished.unwrap().is_some(), "{at}"),
            }
        }
        assert_eq!(finish(&keys, &mut NoObserver).unwrap(), None, "{at}: it is finished once");
        let opened = KeyDir::open(&keys).unwrap();
        let is_new = opened.root_json().unwrap() != first;
        assert!(is_new || !was_begun && !is_done, "{at}");
        if !is_new {
            let now = files(&keys).into_iter().filter(|(name, _)| !name.starts_with(".rotation"));
            assert!(now.eq(before.iter().cloned()), "{at}: it was not begun");
        }
        let renewed = Repository::open(&store, &opened).unwrap().renew(&passphrase(), NOW).unwrap();
        assert_eq!(renewed.new_keys, is_new, "{at}");
        let fresh = Trust::new(&first, MemoryCache::new()).unwrap();
        assert_eq!(newest(&fresh, &store).unwrap(), "1.1.0", "{at}");
        // The next change is made as if nothing had been.
        let next = rotate(&keys, &[Online], &passphrase(), NOW, &mut NoObserver).unwrap();
        assert_eq!(next.root_version, Some(if is_new { 3 } else { 2 }), "{at}");
        if is_done {
            ended = Some(at);
            break;
        }
    }
    // Prepared, counting; four keys and two public files; the plan that goes.
    assert_eq!(ended, Some(2 + 6 + 1));
}

#[test]
fn a_store_is_signed_anew_whatever_it_was_cut_in() {
    let kinds = [Root, Targets, Online];
    let (mut vendor, _, _) = vendor_and_device();
    let first = vendor.root();
    let old = vendor.path("old");
    copy_tree(&vendor.store(), &old);
    change(&mut vendor, &kinds).unwrap();
    change(&mut vendor, &kinds).unwrap();
    vendor.open().renew(&passphrase(), NOW).unwrap();
    let new = files(&vendor.store());
    let metadata: Vec<_> = new.iter().filter(|(name, _)| name.starts_with("metadata/")).collect();
    // Any of the new files beside the old ones, in the order of writing: a device takes no harm, and the next signature is over all.
    let is_late = |name: &str| name.ends_with("timestamp.json") || name.ends_with(".root.json");
    let order = |name: &str| match name {
        "metadata/timestamp.json" => 1,
        "metadata/3.root.json" => 2,
        "metadata/2.root.json" => 3,
        _ => 0,
    };
    let mut written: Vec<_> =
        metadata.into_iter().filter(|(name, bytes)| fs::read(old.join(name)).ok().as_ref() != Some(bytes)).collect();
    written.sort_by_key(|(name, _)| order(name));
    assert!(written.len() >= 6 && is_late(&written[written.len() - 3].0));
    for kept in 0..=written.len() {
        let store = vendor.path(&format!("cut-{kept}"));
        copy_tree(&old, &store);
        for (name, bytes) in &written[..kept] {
            fs::write(store.join(name), bytes).unwrap();
        }
        let device = Trust::new(&first, MemoryCache::new()).unwrap();
        device.refresh(&Directory::new(&old), NOW).unwrap();
        let met = newest(&device, &store);
        let is_between = kept > written.len() - 3 && kept < written.len();
        assert_eq!(met.is_ok(), !is_between, "{kept}: {met:?}");
        assert!(device.cached().is_ok(), "{kept}: what is installed is vouched for");
        let repository = &mut Repository::open(&store, &vendor.keys).unwrap();
        repository.renew(&passphrase(), NOW).unwrap();
        assert_eq!(newest(&device, &store).unwrap(), "1.1.0", "{kept}");
    }
}

#[test]
fn what_cannot_be_changed_is_refused_and_leaves_everything_as_it_was() {
    let (vendor, _, _) = vendor_and_device();
    let path = |name: &str| vendor.keys.path().join(name);
    drop(KeyDir::open(vendor.keys.path()).unwrap());
    let before = files(vendor.keys.path());
    let wrong = Passphrase::new("correct horsf".into()).unwrap();
    let same = passphrase();
    let refused = |kinds: &[KeyKind], passphrase: &Passphrase| {
        rotate(vendor.keys.path(), kinds, passphrase, NOW, &mut NoObserver).unwrap_err()
    };
    let cases: [(&[KeyKind], &Passphrase, &str); 4] = [
        (&[], &same, "name the keys"),
        (&[VendorKey], &same, "every launcher"),
        (&[Content, Online], &same, "every device"),
        (&[Online], &wrong, "passphrase"),
    ];
    for (kinds, passphrase, said) in cases {
        let error = refused(kinds, passphrase).to_string();
        assert!(error.contains(said), "{error}");
    }
    let away = vendor.path("away");
    for (name, kind) in [("root.key", Online), ("vendor.key", Updater)] {
        fs::rename(path(name), &away).unwrap();
        let error = refused(&[kind], &same);
        assert!(matches!(&error, StoreError::Key { path, .. } if path.ends_with(name)), "{error}");
        fs::rename(&away, path(name)).unwrap();
    }
    #[cfg(unix)]
    {
        fs::rename(path("online.key"), &away).unwrap();
        std::os::unix::fs::symlink(&away, path("online.key")).unwrap();
        let error = refused(&[Online], &same).to_string();
        assert!(error.contains("is a link"), "{error}");
        fs::rename(&away, path("online.key")).unwrap();
    }
    // While a command uses them.
    let repository = vendor.open();
    assert!(matches!(refused(&[Online], &same), StoreError::Locked { .. }));
    drop(repository);
    assert!(files(vendor.keys.path()) == before);
    assert_eq!(finish(vendor.keys.path(), &mut NoObserver).unwrap(), None);
}

#[test]
fn a_copy_of_the_keys_from_before_a_change_signs_nothing_more() {
    for kinds in [&[Online][..], &[Targets], &[Root], &[Root, Targets, Online]] {
        let (mut vendor, _, device) = vendor_and_device();
        let copy = vendor.path("copy");
        copy_tree(vendor.keys.path(), &copy);
        change_and_sign(&mut vendor, kinds).unwrap();
        let before = files(&vendor.store());
        let refuses = |keys: &Path| {
            let keys = KeyDir::open(keys).unwrap();
            let error = Repository::open(&vendor.store(), &keys).map(drop).unwrap_err();
            assert!(
                error.to_string().contains("does not belong to the keys") || matches!(error, StoreError::Tuf { .. }),
                "{error}"
            );
        };
        refuses(&copy);
        // Nor after a change of its own, where nothing is known of the store.
        fs::remove_file(copy.join("signed.json")).unwrap();
        rotate(&copy, kinds, &passphrase(), NOW + 1, &mut NoObserver).unwrap();
        refuses(&copy);
        let unlocked =
            |files: Vec<(String, Vec<u8>)>| files.into_iter().filter(|(name, _)| name != ".lock").collect::<Vec<_>>();
        assert!(unlocked(files(&vendor.store())) == unlocked(before), "{kinds:?}");
        vendor.open().renew(&passphrase(), NOW).unwrap();
        assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
    }
}

#[test]
fn old_keys_bring_nothing_into_a_store_that_was_signed_anew() {
    let (mut vendor, tree, _) = vendor_and_device();
    // What a thief took, and worked on.
    let (keys, store) = (vendor.path("taken-keys"), vendor.path("taken-store"));
    copy_tree(vendor.keys.path(), &keys);
    copy_tree(&vendor.store(), &store);
    let stolen = KeyDir::open(&keys).unwrap();
    change_and_sign(&mut vendor, &[Online, Targets]).unwrap();
    for version in ["6.6.4", "6.6.5", "6.6.6", "6.6.7"] {
        let request = vendor.request(&tree, version);
        let mut repository = Repository::open(&store, &stolen).unwrap();
        publish(&mut repository, &passphrase(), &request, &mut NoObserver).unwrap();
    }
    for with_roots in [true, false] {
        let forged = vendor.path(&format!("forged-{with_roots}"));
        fs::rename(vendor.store(), &forged).unwrap();
        copy_tree(&store, &vendor.store());
        if with_roots {
            fs::copy(forged.join("metadata/2.root.json"), vendor.store().join("metadata/2.root.json")).unwrap();
        }
        let refused = Repository::open(&vendor.store(), &vendor.keys).map(drop).unwrap_err();
        assert!(refused.to_string().contains("older than what was signed last"), "{refused}");
        fs::remove_dir_all(vendor.store()).unwrap();
        fs::rename(&forged, vendor.store()).unwrap();
    }
    vendor.open().renew(&passphrase(), NOW).unwrap();
}

#[test]
fn damage_is_not_taken_for_a_change_and_numbers_end() {
    let (mut vendor, _, _) = vendor_and_device();
    change_and_sign(&mut vendor, &[Root]).unwrap();
    let junk = vendor.store().join("metadata/3.root.json");
    fs::copy(vendor.store().join("metadata/1.root.json"), &junk).unwrap();
    assert!(matches!(Repository::open(&vendor.store(), &vendor.keys), Err(StoreError::Tuf { .. })));
    fs::remove_file(&junk).unwrap();
    // Numbers that nobody can go on from.
    let online = vendor.keys.tuf_key(Online, &passphrase()).unwrap();
    let snapshot = fs::read(vendor.store().join("metadata/3.snapshot.json")).unwrap();
    let last = online.sign(&tuf::timestamp(u64::MAX, NOW, 3, &snapshot));
    fs::write(vendor.store().join("metadata/timestamp.json"), last).unwrap();
    let error = vendor.open().renew(&passphrase(), NOW).unwrap_err().to_string();
    assert!(error.contains("used up"), "{error}");
}

#[test]
fn a_change_comes_behind_the_roots_that_the_stores_have() {
    let (mut vendor, _, device) = vendor_and_device();
    let copy = vendor.path("copy");
    copy_tree(vendor.keys.path(), &copy);
    change_and_sign(&mut vendor, &[Online]).unwrap();
    // What stays would bring the old key back; what is new does not.
    let go = |kinds: &[KeyKind]| rotate(&copy, kinds, &passphrase(), NOW, &mut NoObserver);
    assert!(go(&[Targets]).unwrap_err().to_string().contains("another online key"));
    assert_eq!(go(&[Online, Targets]).unwrap().root_version, Some(3));
    let keys = KeyDir::open(&copy).unwrap();
    assert!(copy.join("root-2.json").is_file());
    // What stands there was signed with keys that nobody has any more, and is taken when somebody says so.
    let renewed = Repository::open_restored(&vendor.store(), &keys).unwrap().renew(&passphrase(), NOW);
    assert!(renewed.unwrap().new_keys);
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
}

#[test]
fn a_store_with_many_roots_is_read_and_mirrored() {
    let (mut vendor, _, _) = vendor_and_device();
    for _ in 0..33 {
        rotate(vendor.keys.path(), &[Online], &passphrase(), NOW, &mut NoObserver).unwrap();
    }
    vendor.keys = KeyDir::open(vendor.keys.path()).unwrap();
    vendor.open().renew(&passphrase(), NOW).unwrap();
    let copy = vendor.path("copy");
    mirror_quietly(&vendor.store(), &copy).unwrap();
    // A device takes so many at once, and the rest the next time.
    let device = Trust::new(&fs::read(vendor.keys.path().join("root-1.json")).unwrap(), MemoryCache::new()).unwrap();
    assert!(newest(&device, &copy).is_err());
    assert_eq!(newest(&device, &copy).unwrap(), "1.1.0");
}

#[test]
fn a_store_from_before_a_change_is_gone_on_with() {
    let (mut vendor, tree, device) = vendor_and_device();
    let backup = vendor.path("backup");
    copy_tree(&vendor.store(), &backup);
    change_and_sign(&mut vendor, &[Root, Targets, Online]).unwrap();
    fs::write(tree.join("newer"), "newer").unwrap();
    vendor.publish(&tree, "1.2.0");
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.2.0");
    fs::remove_dir_all(vendor.store()).unwrap();
    copy_tree(&backup, &vendor.store());
    assert!(matches!(Repository::open(&vendor.store(), &vendor.keys), Err(StoreError::Refused(_))));
    Repository::open_restored(&vendor.store(), &vendor.keys).unwrap().renew(&passphrase(), NOW).unwrap();
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.1.0");
    vendor.publish(&tree, "1.3.0");
    assert_eq!(newest(&device, &vendor.store()).unwrap(), "1.3.0");
    // The chain of roots has to be whole where a store is made anew.
    fs::remove_dir_all(vendor.store()).unwrap();
    fs::remove_file(vendor.keys.path().join("root-1.json")).unwrap();
    let error = Repository::init(&vendor.store(), &vendor.keys, &passphrase(), NOW).map(drop).unwrap_err();
    assert!(error.to_string().contains("root-1.json"), "{error}");
}

#[test]
fn a_mirror_and_a_grown_store_follow_a_change() {
    let (mut vendor, tree, device) = vendor_and_device();
    let copy = vendor.path("copy");
    let mirrored = |vendor: &Vendor| mirror_quietly(&vendor.store(), &copy);
    mirrored(&vendor).unwrap();
    change_and_sign(&mut vendor, &[Root, Targets, Online]).unwrap();
    change_and_sign(&mut vendor, &[Online]).unwrap();
    grow(&tree, 3, 10_000, 9);
    vendor.publish(&tree, "2.0.0");
    mirrored(&vendor).unwrap();
    assert_eq!(newest(&device, &copy).unwrap(), "2.0.0");
    // Cut just behind the timestamp.
    for roots in [&["2"][..], &["2", "3"]] {
        roots.iter().for_each(|root| fs::remove_file(copy.join(format!("metadata/{root}.root.json"))).unwrap());
        assert_eq!(mirrored(&vendor).unwrap().files, roots.len() as u64);
    }
    assert!(files(&copy.join("metadata")) == files(&vendor.store().join("metadata")));
    assert_eq!(newest(&device, &copy).unwrap(), "2.0.0");
    // The same, and another change before the next run.
    fs::remove_file(copy.join("metadata/3.root.json")).unwrap();
    change_and_sign(&mut vendor, &[Online, Targets]).unwrap();
    mirrored(&vendor).unwrap();
    assert_eq!(newest(&device, &copy).unwrap(), "2.0.0");
}
