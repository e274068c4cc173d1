//! From a directory to a release, again and again, and what is refused on the way.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{NOW, Vendor, content, copy_tree, files, grow, passphrase, program};
use firmware_image::Digest;
use firmware_image::updater_image::{MAX_TRAILER_BYTES, UpdaterVersion, verify_bytes};
use release_store::StoreError;
use release_store::chunk_list::ChunkList;
use release_store::frame::FrameReader;
use release_store::keys::Passphrase;
use release_store::manifest::Policy;
use release_store::paths::PathProblem;
use release_store::publish::{DeltaFrom, publish};
use release_store::repository::{NoObserver, Repository};
use release_store::transport::get_range;
use release_store::verify::{Verified, verify};

fn check(vendor: &Vendor, store: &Path) -> Verified {
    verify(store, &vendor.root(), "Acme Notes", &vendor.content_keys(), &mut NoObserver).unwrap()
}

/// Puts a release together from its frames alone.
fn install(vendor: &Vendor, version: &str) -> BTreeMap<String, Vec<u8>> {
    let (transport, keys) = (vendor.transport(), vendor.content_keys());
    let manifest = vendor.manifest(version);
    let list = ChunkList::fetch(&vendor.release(version), &manifest, &transport, &keys).unwrap();
    let mut reader = FrameReader::new().unwrap();
    let mut read = |digest: &Digest| {
        let mut bytes = Vec::new();
        for (_, chunk) in list.chunks_of(list.content(digest).unwrap()) {
            let pack = list.pack_of(chunk).unwrap();
            let mut frame = Vec::new();
            get_range(&transport, &pack.path(), chunk.range(), pack.bytes, &mut |_, piece| {
                frame.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            let opened = reader.open(keys.get(pack.key).unwrap(), &chunk.frame_id(), &frame).unwrap();
            bytes.extend_from_slice(opened.bytes());
        }
        assert_eq!(Digest::of(&bytes), *digest);
        bytes
    };
    let mut installed: BTreeMap<_, _> =
        manifest.files.iter().map(|file| (file.path.clone(), read(&file.sha256))).collect();
    for updater in &manifest.updaters {
        installed.insert(format!("updater {}", updater.platform), read(&updater.sha256));
    }
    installed
}

#[test]
fn a_second_version_adds_only_what_is_new() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 60, 150_000, 1);
    fs::write(tree.join("empty"), "").unwrap();
    let first = vendor.publish(&tree, "1.0.0");
    assert_eq!(files(&tree).into_iter().collect::<BTreeMap<_, _>>(), install(&vendor, "1.0.0"));

    // A byte in the middle of a file, a file moved, a file gone, a new one.
    let path = tree.join("part-0/file-0.bin");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    fs::rename(tree.join("part-1/file-1.bin"), tree.join("moved.bin")).unwrap();
    fs::remove_file(tree.join("part-2/file-2.bin")).unwrap();
    fs::write(tree.join("new.bin"), content(30_000, 77)).unwrap();
    let second = vendor.publish(&tree, "1.1.0");
    assert_eq!(files(&tree).into_iter().collect::<BTreeMap<_, _>>(), install(&vendor, "1.1.0"));

    assert!(second.new_bytes <= 256 * 1024 + 30_000, "{} new bytes", second.new_bytes);
    assert!(second.pack_bytes * 20 < first.pack_bytes, "{} of {}", second.pack_bytes, first.pack_bytes);
    eprintln!(
        "first: {} bytes in {} chunks, pack {}; second: {} new chunks, pack {}, list {}, manifest {}",
        first.bytes,
        first.new_chunks,
        first.pack_bytes,
        second.new_chunks,
        second.pack_bytes,
        second.release.chunks.bytes,
        second.release.sealed.bytes
    );
    let verified = check(&vendor, &vendor.store());
    assert!(verified.damage.is_empty() && verified.orphans.is_empty(), "{verified:?}");
    assert_eq!((verified.releases, verified.packs), (2, 2));
    // The first version is whole as ever.
    install(&vendor, "1.0.0");
}

#[test]
fn the_same_tree_keys_and_time_give_the_same_bytes() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 20, 200_000, 3);
    let other = vendor.path("other");
    drop(Repository::init(&other, &vendor.keys, &passphrase(), NOW).unwrap());
    for (store, threads) in [(vendor.store(), 1), (other.clone(), 3)] {
        for version in ["1.0.0", "1.1.0"] {
            let mut request = vendor.request(&tree, version);
            request.threads = threads;
            let mut repository = Repository::open(&store, &vendor.keys).unwrap();
            publish(&mut repository, &passphrase(), &request, &mut NoObserver).unwrap();
        }
    }
    assert_eq!(files(&vendor.store()), files(&other));
}

#[test]
fn earlier_packs_are_not_needed_to_publish() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 20, 100_000, 5);
    let first = vendor.publish(&tree, "1.0.0");
    let packs: Vec<_> = files(&vendor.store()).into_iter().filter(|(name, _)| name.starts_with("packs/")).collect();
    let big = packs.iter().find(|(_, bytes)| bytes.len() as u64 == first.pack_bytes).unwrap();
    fs::remove_file(vendor.store().join(&big.0)).unwrap();
    fs::write(tree.join("new.bin"), content(50_000, 99)).unwrap();
    let second = vendor.publish(&tree, "1.1.0");
    assert_eq!(second.new_bytes, 50_000);
    let damage = check(&vendor, &vendor.store()).damage;
    assert!(!damage.is_empty(), "a missing pack is damage to whoever looks for it");
    fs::write(vendor.store().join(&big.0), &big.1).unwrap();
    assert!(check(&vendor, &vendor.store()).damage.is_empty());

    // Without the chunk list nothing can be known: a clear refusal.
    let first = &first.release;
    let list = first.chunks.path(&first.chunks_name());
    fs::remove_file(vendor.store().join(&list)).unwrap();
    let error = vendor.try_publish(&tree, "1.2.0").unwrap_err();
    assert!(error.to_string().contains(&list), "{error}");
}

#[test]
fn a_version_is_published_once_a_channel() {
    let (vendor, tree) = Vendor::with_release();
    let before = files(&vendor.store());
    let error = vendor.try_publish(&tree, "1.0.0").unwrap_err();
    assert!(matches!(error, StoreError::AlreadyPublished { serial: 1, .. }), "{error}");
    assert_eq!(files(&vendor.store()), before);
    let mut request = vendor.request(&tree, "1.0.0");
    request.channel = "beta".into();
    let published = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert_eq!((published.release.serial, published.new_chunks), (2, 0));
}

#[test]
fn only_one_writer_works_on_a_store() {
    let (vendor, _) = Vendor::with_release();
    let _first = vendor.open();
    let error = Repository::open(&vendor.store(), &vendor.keys).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
}

#[test]
fn a_wrong_passphrase_is_told_apart_and_changes_nothing() {
    let (vendor, tree) = Vendor::with_release();
    let before = files(&vendor.store());
    let wrong = Passphrase::new("wrong".into()).unwrap();
    let error = publish(&mut vendor.open(), &wrong, &vendor.request(&tree, "2"), &mut NoObserver).unwrap_err();
    assert!(matches!(error, StoreError::WrongPassphrase { .. }), "{error}");
    assert_eq!(files(&vendor.store()), before);
    assert!(Passphrase::new(String::new()).is_none());
}

#[test]
fn a_store_of_other_keys_is_refused() {
    let (vendor, tree) = Vendor::with_release();
    let (other, _) = Vendor::with_release();
    let error = Repository::open(&other.store(), &vendor.keys).unwrap_err().to_string();
    assert!(error.contains("does not belong to the keys"), "{error}");
    assert!(Repository::open(&tree, &vendor.keys).is_err());
    assert!(Repository::init(&vendor.store(), &vendor.keys, &passphrase(), NOW).is_err());
}

#[cfg(unix)]
#[test]
fn whether_a_file_may_be_executed_is_kept_and_nothing_else_of_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    fs::create_dir(&tree).unwrap();
    for (name, mode) in [("a", 0o600), ("b", 0o777), ("c", 0o4711), ("d", 0o444)] {
        fs::write(tree.join(name), name).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    vendor.publish(&tree, "1");
    let modes: Vec<_> = vendor.manifest("1").files.iter().map(|file| file.mode).collect();
    assert_eq!(modes, [0o644, 0o755, 0o755, 0o644]);
}

#[test]
fn files_that_match_a_pattern_are_the_users_own() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    fs::create_dir_all(tree.join("logs/old")).unwrap();
    for name in ["settings.ini", "program", "logs/old/a.log"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let mut request = vendor.request(&tree, "1");
    request.ignore = vec!["Settings.*".into(), "logs/**".into()];
    publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    let manifest = vendor.manifest("1");
    assert_eq!(manifest.file("settings.ini").unwrap().policy, Policy::Seed);
    assert_eq!(manifest.file("logs/old/a.log").unwrap().policy, Policy::Seed);
    assert_eq!(manifest.file("program").unwrap().policy, Policy::Managed);
    let patterns = manifest.ignore_patterns().unwrap();
    assert!(patterns.matches("logs/new.log") && !patterns.matches("sub/settings.ini"));
    for bad in ["", "/etc/*", "../x", "[", "a\\b", "*a*a*a*a*a*a*a*"] {
        request.version = "2".into();
        request.ignore = vec![bad.into()];
        assert!(publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).is_err(), "{bad:?}");
    }
}

#[test]
fn a_tree_that_some_system_cannot_hold_is_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (&["README", "readme"], "differs from"),
        (&["Lib/a", "lib/b"], "differs from"),
        (&["aux.txt"], "device's name"),
        (&["a:b"], "cannot be in a name"),
        (&["what?"], "cannot be in a name"),
        (&["back\\slash"], "cannot be in a name"),
        (&["dot."], "dot or a space"),
        (&["space "], "dot or a space"),
        (&["PROGRA~1.TXT"], "short alias"),
        (&["line\nend"], "cannot be in a name"),
    ];
    for (names, expected) in cases {
        let vendor = Vendor::new();
        let tree = vendor.path("tree");
        for name in *names {
            let path = tree.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let before = files(&vendor.store());
        let error = vendor.try_publish(&tree, "1").unwrap_err();
        assert!(matches!(error, StoreError::Path { .. }), "{names:?}: {error}");
        assert!(error.to_string().contains(expected), "{names:?}: {error}");
        assert_eq!(files(&vendor.store()), before);
    }
}

#[cfg(unix)]
#[test]
fn links_devices_and_names_that_are_no_text_are_refused_by_name() {
    use std::os::unix::ffi::OsStrExt as _;
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "a").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
    let error = vendor.try_publish(&tree, "1").unwrap_err();
    assert!(
        matches!(&error, StoreError::NotAFile { path, kind: "a symbolic link" } if path.ends_with("link")),
        "{error}"
    );
    fs::remove_file(tree.join("link")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let error = vendor.try_publish(&tree, "1").unwrap_err();
    assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
    drop(socket);
    fs::remove_file(tree.join("socket")).unwrap();
    fs::write(tree.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
    let error = vendor.try_publish(&tree, "1").unwrap_err();
    assert!(matches!(error, StoreError::Path { problem: PathProblem::NotUnicode, .. }), "{error}");
    let empty = vendor.path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(vendor.try_publish(&empty, "1").unwrap_err().to_string().contains("no files"));
}

#[test]
fn updaters_travel_are_signed_once_and_carried_on() {
    let (vendor, tree) = Vendor::with_release();
    let place = vendor.path("updater");
    fs::write(&place, program(1)).unwrap();
    let mut request = vendor.request(&tree, "1.1.0");
    request.updaters = vec![("linux-x86_64".into(), place.clone())];
    let published = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    let first = published.updaters[0].clone();
    let installed = install(&vendor, "1.1.0");
    let image = &installed["updater linux-x86_64"];
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = verify_bytes(image, vendor.keys.vendor_key(), &mut buffer).unwrap();
    trailer.is_for("Acme Notes", "linux-x86_64").unwrap();
    assert_eq!(trailer.body().version, first.version);

    // Not named: carried on. Named and unchanged: the same. Changed: the next version.
    let carried = vendor.publish(&tree, "1.2.0");
    assert_eq!((carried.updaters[0].clone(), carried.new_chunks), (first.clone(), 0));
    request.version = "1.3.0".into();
    let same = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert_eq!(same.updaters[0], first);
    fs::write(&place, program(2)).unwrap();
    request.version = "1.4.0".into();
    let changed = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert!(changed.updaters[0].version > first.version);
    request.version = "1.5.0".into();
    request.updater_version = Some(UpdaterVersion { major: 7, minor: 0, patch: 0 });
    let named = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert_eq!(named.updaters[0].version.major, 7);

    // A floor above the updater itself would leave devices without any.
    request.version = "1.5.1".into();
    fs::write(&place, program(5)).unwrap();
    request.updater_floors.version = UpdaterVersion { major: 7, minor: 0, patch: 1 };
    let refused = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap_err().to_string();
    assert!(refused.contains("7.0.0") && refused.contains("7.0.1") && refused.contains("floor"), "{refused}");
    // Where the version is not named, one that the floor admits is taken.
    request.updater_version = None;
    let floored = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert_eq!(floored.updaters[0].version, request.updater_floors.version);
    request.updater_floors = Default::default();

    // A signed one is taken as it is; one for another platform, another vendor's, or no updater at all is refused.
    fs::write(&place, image).unwrap();
    request.updater_version = None;
    request.version = "1.6.0".into();
    let signed = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert_eq!(signed.updaters[0], first);
    request.version = "1.7.0".into();
    request.updaters[0].0 = "windows-x86_64".into();
    assert!(publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).is_err());
    let (other, other_tree) = Vendor::with_release();
    let mut foreign = other.request(&other_tree, "2");
    foreign.updaters = vec![("linux-x86_64".into(), place.clone())];
    assert!(publish(&mut other.open(), &passphrase(), &foreign, &mut NoObserver).is_err());
    fs::write(&place, b"#!/bin/sh").unwrap();
    request.updaters[0].0 = "linux-x86_64".into();
    assert!(publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).is_err());
    assert!(check(&vendor, &vendor.store()).damage.is_empty());
}

#[test]
fn an_updater_for_another_machine_is_refused_and_one_that_is_dropped_is_in_no_later_release() {
    let (vendor, tree) = Vendor::with_release();
    let place = vendor.path("updater");
    let mut request = vendor.request(&tree, "1.1.0");
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
    elf.extend(62_u16.to_le_bytes());
    let mut pe = b"MZ".to_vec();
    pe.resize(0x3c, 0);
    pe.extend(0x40_u32.to_le_bytes());
    pe.extend(b"PE\0\0\x64\x86");
    let mut elf_32 = elf.clone();
    elf_32[4] = 1;
    let programs = [(elf, "linux-x86_64"), (pe, "windows-x86_64"), (elf_32, "another machine")];
    for (head, runs_on) in &programs {
        fs::write(&place, [head.clone(), program(1)].concat()).unwrap();
        for platform in release_store::manifest::PLATFORMS.into_iter().filter(|platform| platform != runs_on) {
            request.updaters = vec![(platform.into(), place.clone())];
            let refused =
                publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap_err().to_string();
            assert!(refused.contains(platform) && refused.contains(runs_on), "{refused}");
        }
    }
    // A launcher is no updater.
    fs::write(&place, [&b"Usage: bootstrap [options]"[..], &program(1)].concat()).unwrap();
    request.updaters = vec![("linux-x86_64".into(), place.clone())];
    let refused = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap_err().to_string();
    assert!(refused.contains("is a launcher"), "{refused}");
    fs::write(&place, program(1)).unwrap();
    // What a board of one's own runs is its own affair.
    request.updaters = vec![("mps2-an386".into(), place.clone())];
    for (head, platform) in &programs[..2] {
        let place = vendor.path(platform);
        fs::write(&place, [head.clone(), program(2)].concat()).unwrap();
        request.updaters.push(((*platform).into(), place));
    }
    let published = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert_eq!(published.updaters.len(), 3);
    let mut dropping = vendor.request(&tree, "1.2.0");
    dropping.dropped_updaters = vec!["mps2-an386".into()];
    publish(&mut vendor.open(), &passphrase(), &dropping, &mut NoObserver).unwrap();
    dropping.version = "1.3.0".into();
    let refused = publish(&mut vendor.open(), &passphrase(), &dropping, &mut NoObserver).unwrap_err();
    assert!(refused.to_string().contains("mps2-an386"), "{refused}");
    let platforms: Vec<String> =
        vendor.publish(&tree, "1.3.0").updaters.into_iter().map(|updater| updater.platform).collect();
    assert_eq!(platforms, ["linux-x86_64", "windows-x86_64"]);
}

#[test]
fn verify_finds_each_kind_of_damage_and_names_orphans() {
    let (vendor, tree) = Vendor::with_release();
    fs::write(tree.join("new.bin"), content(300_000, 42)).unwrap();
    let mut changed = fs::read(tree.join("part-0/file-0.bin")).unwrap();
    changed[1000..1010].fill(0);
    fs::write(tree.join("part-0/file-0.bin"), changed).unwrap();
    let mut request = vendor.request(&tree, "1.1.0");
    request.deltas = DeltaFrom::Recent;
    let published = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    assert!(published.steps.len() == 1 && published.steps[0].pack.is_some(), "{:?}", published.steps);
    for (name, bytes) in files(&vendor.store()) {
        if name.starts_with("metadata/") {
            continue;
        }
        let copy = vendor.path("copy");
        for damage in ["flip", "cut", "gone"] {
            copy_tree(&vendor.store(), &copy);
            match damage {
                "flip" => {
                    let mut bytes = bytes.clone();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x10;
                    fs::write(copy.join(&name), bytes).unwrap();
                }
                "cut" => fs::write(copy.join(&name), &bytes[..bytes.len() - 1]).unwrap(),
                _ => fs::remove_file(copy.join(&name)).unwrap(),
            }
            let verified = check(&vendor, &copy);
            let named = verified
                .damage
                .iter()
                .any(|(object, error)| object.contains(&name) || error.to_string().contains(&name));
            assert!(named, "{name} {damage}: {:?}", verified.damage);
            fs::remove_dir_all(&copy).unwrap();
        }
    }
    fs::write(vendor.store().join("packs/stray"), "x").unwrap();
    assert_eq!(check(&vendor, &vendor.store()).orphans, ["packs/stray"]);
}
