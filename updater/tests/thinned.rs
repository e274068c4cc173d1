//! Releases that the store holds only as patches from others: installed, repaired, left, and gone back to.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::*;
use release_store::gc::{self, Fate, Policy};
use release_store::publish::DeltaFrom;
use release_store::repository::{NoObserver, Repository};
use updater::{Action, Wish};

/// A program and texts that change a little from release to release, one that is new in each, and one that stays.
fn release(version: u8) -> Vec<(&'static str, Vec<u8>)> {
    let number = u64::from(version);
    let program =
        (1..=number).fold(noise(1, 400_000), |bytes, at| patched(&bytes, 3_000 * at as usize, &noise(at, 200)));
    vec![
        ("app/program", program),
        ("app/new", noise(100 + number, 90_000)),
        ("empty", Vec::new()),
        ("notes.txt", format!("what is new in {version}\n").repeat(number as usize).into_bytes()),
        ("run.sh", format!("#!/bin/sh\necho {version}\n").into_bytes()),
        ("same.bin", noise(3, 100_000)),
    ]
}

const LAST: u8 = 6;

fn published() -> World {
    let world = World::new();
    for version in 1..=LAST {
        let deltas = |request: &mut release_store::publish::PublishRequest| request.deltas = DeltaFrom::Recent;
        world.publish_with(&format!("{version}.0"), &release(version), deltas);
    }
    world
}

/// Thins what can be thinned, and deletes at once what is no longer needed.
fn thin(world: &World) -> BTreeMap<u64, Fate> {
    let mut repository = Repository::open(&world.store(), &world.keys).unwrap();
    let policy = Policy { grace_secs: 0, ..Policy::default() };
    let done = gc::collect(&mut repository, &passphrase(), &policy, NOW, &mut NoObserver).unwrap();
    assert!(done.bytes_after < done.bytes_before);
    done.releases.iter().map(|release| (release.serial, release.fate)).collect()
}

fn wish(version: u8) -> Wish {
    Wish::Version(format!("{version}.0"))
}

#[test]
fn every_release_of_a_thinned_store_is_installed_repaired_and_left() {
    let world = published();
    let fates = thin(&world);
    let thinned = fates.values().filter(|fate| matches!(fate, Fate::Thinned { .. })).count();
    assert!(thinned >= 3, "{fates:?}");
    let server = world.serve();
    let url = server.url();
    for version in 1..=LAST {
        world.wipe_free();
        world.wipe_hidden();
        world.engine(&[&url], |engine| engine.update(&wish(version)).unwrap());
        world.assert_client(&release(version));
        for (path, _) in release(version).iter().filter(|(path, _)| *path != "empty") {
            fs::write(world.client().join(path), b"damage").unwrap();
            let outcome = world.engine(&[&url], |engine| engine.repair().unwrap());
            assert_eq!(outcome.action, Action::Repaired, "{path} of {version}");
            world.assert_client(&release(version));
        }
        fs::remove_dir_all(world.client().join("app")).unwrap();
        world.engine(&[&url], |engine| engine.update(&Wish::Newest).unwrap());
        world.assert_client(&release(LAST));
        world.engine(&[&url], |engine| engine.update(&wish(version)).unwrap());
        world.assert_client(&release(version));
    }
}

#[test]
fn a_release_that_was_installed_before_it_was_thinned_is_repaired_all_the_same() {
    let world = published();
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&wish(3)).unwrap());
    thin(&world);
    fs::write(world.client().join("app/program"), b"damage").unwrap();
    fs::remove_file(world.client().join("app/new")).unwrap();
    let outcome = world.engine(&[&server.url()], |engine| engine.repair().unwrap());
    assert!(outcome.whole);
    world.assert_client(&release(3));
}

#[test]
fn a_thinned_release_that_is_out_of_reach_is_offline_and_nothing_worse() {
    let world = published();
    thin(&world);
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    fs::remove_dir_all(world.store().join("packs")).unwrap();
    let error = world.engine(&[&server.url()], |engine| engine.update(&wish(3)).unwrap_err());
    assert_ne!(error.kind(), updater::FailureKind::Other, "{error}");
    assert!(world.engine(&[], |engine| engine.verify().unwrap().whole));
    world.assert_client(&release(LAST));
}

#[test]
fn a_release_that_is_made_of_a_withdrawn_one_is_installed_and_gone_back_to() {
    let world = published();
    let fates = thin(&world);
    let last = u64::from(LAST);
    assert_eq!(fates[&(last - 1)], Fate::Thinned { base: last });
    let server = world.serve();
    let url = server.url();
    world.engine(&[&url], |engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&release(LAST));
    let mut repository = Repository::open(&world.store(), &world.keys).unwrap();
    repository.withdraw("stable", &format!("{LAST}.0"), Some("worse"), &passphrase(), NOW).unwrap();
    drop(repository);
    world.engine(&[&url], |engine| engine.update(&wish(LAST - 1)).unwrap());
    world.assert_client(&release(LAST - 1));
    world.wipe_free();
    world.wipe_hidden();
    world.engine(&[&url], |engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&release(LAST - 1));
}

#[test]
fn a_file_that_was_changed_and_changed_back_keeps_no_release_from_being_installed() {
    let world = World::new();
    let text = |seed: usize| -> Vec<u8> {
        (0..1500)
            .map(|line| format!("{line}: {}\n", (line * 7919 + seed * 104_729) % 99_991))
            .collect::<String>()
            .into()
    };
    let edited = |seed: usize, edit: &str| [text(seed), edit.as_bytes().to_vec()].concat();
    let release = |version: usize| -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("back.txt", edited(1, ["one", "two", "one"][version - 1])),
            ("late.txt", edited(2, ["old", "old", "new"][version - 1])),
            ("each.txt", edited(3, ["a", "b", "c"][version - 1])),
            ("run.sh", b"#!/bin/sh\n".to_vec()),
        ]
    };
    for version in 1..=3 {
        world.publish_with(&format!("{version}.0"), &release(version), |request| request.deltas = DeltaFrom::Recent);
    }
    let fates = thin(&world);
    assert_eq!((fates[&1], fates[&2]), (Fate::Thinned { base: 2 }, Fate::Thinned { base: 3 }));
    let server = world.serve();
    for version in 1..=3 {
        world.wipe_free();
        world.wipe_hidden();
        world.engine(&[&server.url()], |engine| engine.update(&Wish::Version(format!("{version}.0"))).unwrap());
        world.assert_client(&release(version));
    }
}
