//! Updates by patches: what they cost, what they start from, and what happens where one does not fit.

mod common;

use std::fs;

use common::*;
use release_store::publish::{DeltaFrom, Published};
use updater::{Action, Limits, Wish};

/// Text that looks like a program's help: compressible, every line another.
fn text(seed: usize, lines: usize) -> Vec<u8> {
    let line = |n: usize| format!("{:04}: option --{} sets {}\n", n, n * 7919 % 1000 + seed, n * 104_729 % 977);
    (0..lines).map(line).collect::<String>().into_bytes()
}

fn release(version: u8) -> Vec<(&'static str, Vec<u8>)> {
    let number = usize::from(version);
    let mut files = vec![
        ("app/big.bin", patched(&noise(1, 600_000), 1000 * number, &noise(number as u64 + 50, 300))),
        ("help/a.txt", [text(1, 900), format!("version {version}\n").into_bytes()].concat()),
        ("help/b.txt", [format!("version {version}\n").into_bytes(), text(2, 900)].concat()),
        ("run.sh", format!("#!/bin/sh\necho {version}\n").into_bytes()),
        ("same.bin", noise(3, 100_000)),
    ];
    // The same text under another name in every release.
    files.push((["help/c0.txt", "help/c1.txt"][number % 2], [text(3, 900), vec![b'0' + version]].concat()));
    files
}

fn publish(world: &World, version: u8) -> Published {
    world.publish_with(&format!("{version}.0"), &release(version), |request| request.deltas = DeltaFrom::Recent)
}

fn install(world: &World, server: &str, version: u8) {
    world.engine(&[server], |engine| engine.update(&Wish::Version(format!("{version}.0"))).unwrap());
    world.assert_client(&release(version));
}

/// A world with releases 1 to `last`, and the first installed.
fn world(last: u8) -> (World, release_store::serve::Server) {
    let world = World::new();
    for version in 1..=last {
        publish(&world, version);
    }
    let server = world.serve();
    install(&world, &server.url(), 1);
    server.counters().reset();
    (world, server)
}

#[test]
fn an_update_by_patches_costs_a_fraction_of_what_chunks_cost() {
    let (world, server) = world(2);
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(outcome.action, Action::Updated);
    world.assert_client(&release(2));
    // 300 new bytes in one file, a few in four others; the rest is metadata, manifest and set.
    assert!(server.counters().bytes() < 5_000, "{} bytes", server.counters().bytes());
    assert!(server.counters().requests() <= 9, "{} requests", server.counters().requests());
}

#[test]
fn patches_lead_from_the_last_four_releases() {
    let world = World::new();
    let published: Vec<Published> = (1..=5).map(|version| publish(&world, version)).collect();
    let from: Vec<u64> = published[4].edges.iter().map(|edge| edge.from).collect();
    assert_eq!(from, [1, 2, 3, 4]);
    let server = world.serve();
    for installed in 1..=4 {
        world.wipe_free();
        world.wipe_hidden();
        install(&world, &server.url(), installed);
        server.counters().reset();
        install(&world, &server.url(), 5);
        assert!(server.counters().bytes() < 9_000, "from {installed}: {} bytes", server.counters().bytes());
    }
}

#[test]
fn a_damaged_file_comes_by_chunks_and_the_others_by_patches_in_one_run() {
    let (world, server) = world(2);
    let damaged = patched(&release(1)[0].1, 200_000, b"damage");
    fs::write(world.client().join("app/big.bin"), damaged).unwrap();
    let plan = world.setup(&[&server.url()]);
    let limits = Limits { dry_run: true, ..plan.limits };
    let plan = updater_plan(plan, limits);
    let way = |path: &str| plan.files.iter().find(|line| line.path == path).map(|line| line.way);
    assert_eq!(way("help/a.txt"), Some("patch"));
    assert!(way("app/big.bin").is_some_and(|way| way != "patch" && way != "keep"), "{:?}", way("app/big.bin"));
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert!(outcome.whole);
    world.assert_client(&release(2));
}

fn updater_plan(setup: Setup<'_>, limits: Limits) -> updater::plan::Summary {
    Setup { limits, ..setup }.run(|engine| engine.update(&Wish::Newest).unwrap()).plan.unwrap()
}

#[test]
fn a_dry_run_says_what_comes_by_patch_what_it_costs_and_instead_of_what() {
    let (world, server) = world(2);
    let before = world.fingerprint();
    let setup = world.setup(&[&server.url()]);
    let limits = Limits { dry_run: true, ..setup.limits };
    let plan = updater_plan(setup, limits);
    assert_same(&before, &world.fingerprint());
    let changed: Vec<_> = plan.files.iter().filter(|line| line.way != "remove").collect();
    assert!(changed.iter().all(|line| line.way == "patch"), "{:?}", plan.files);
    let instead_of: u64 = changed.iter().map(|line| line.instead_of_bytes).sum();
    assert!(plan.fetch_bytes > 0 && plan.fetch_bytes * 20 < instead_of, "{} {instead_of}", plan.fetch_bytes);
    assert_eq!(plan.fetch_bytes, plan.files.iter().map(|line| line.fetch_bytes).sum::<u64>());
}

#[test]
fn what_a_dry_run_says_is_what_is_fetched() {
    let (world, server) = world(2);
    let setup = world.setup(&[&server.url()]);
    let limits = Limits { dry_run: true, ..setup.limits };
    let plan = updater_plan(setup, limits);
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(outcome.frames_fetched, plan.frames as u64);
}

#[test]
fn a_store_whose_patches_are_gone_serves_chunks_in_the_same_run() {
    let (world, server) = world(2);
    let published = publish(&world, 3);
    for edge in &published.edges {
        fs::remove_file(world.store().join(edge.pack.path())).unwrap();
    }
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert!(outcome.whole);
    world.assert_client(&release(3));
}

#[test]
fn patches_damaged_on_the_server_at_any_place_do_not_keep_a_device_from_its_release() {
    let (world, server) = world(1);
    let published = publish(&world, 2);
    let path = world.store().join(published.edges[0].pack.path());
    let good = fs::read(&path).unwrap();
    copy_tree(&world.free(), &world.path("free-1"));
    fs::copy(world.path("hidden.img"), world.path("hidden-1")).unwrap();
    for at in [0, good.len() / 3, good.len() / 2, good.len() - 1] {
        copy_tree(&world.path("free-1"), &world.free());
        fs::copy(world.path("hidden-1"), world.path("hidden.img")).unwrap();
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
        assert!(outcome.whole, "damaged at {at}");
        world.assert_client(&release(2));
    }
}

#[test]
fn an_update_that_is_cut_off_goes_on_with_the_frames_it_has() {
    // Half of each file is new, so that the patches are long enough to be cut between two of them.
    let tree = |version: u64| {
        let paths = ["a.bin", "b.bin", "c.bin", "d.bin"];
        let content = |at: u64| [noise(at, 150_000), noise(at + 10 * version, 150_000)].concat();
        paths.into_iter().zip(1..).map(|(path, at)| (path, content(at))).collect::<Vec<_>>()
    };
    let world = World::new();
    for version in 1..=2 {
        world.publish_with(&format!("{version}.0"), &tree(version), |request| request.deltas = DeltaFrom::Recent);
    }
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Version("1.0".into())).unwrap());
    let mut setup = world.setup(&[&server.url()]);
    setup.max_bytes = Some(350_000);
    assert!(setup.run(|engine| engine.update(&Wish::Newest)).is_err(), "it was not cut off");
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert!(outcome.whole && (1..4).contains(&outcome.frames_fetched), "{} frames", outcome.frames_fetched);
    world.assert_client(&tree(2));
}

#[test]
fn a_release_made_without_patches_is_installed_all_the_same() {
    let (world, server) = world(1);
    assert!(world.publish("2.0", &release(2)).edges.is_empty());
    install(&world, &server.url(), 2);
}

#[test]
fn a_device_goes_back_to_a_release_to_which_no_patch_leads() {
    let (world, server) = world(2);
    install(&world, &server.url(), 2);
    install(&world, &server.url(), 1);
}
