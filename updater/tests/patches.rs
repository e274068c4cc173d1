//! Updates by patches: what they cost, what they start from, and what happens where one does not fit.

mod common;
#[path = "../../release-store/tests/programs/mod.rs"]
#[allow(dead_code)]
mod programs;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use programs::{Machine, Program};
use release_store::publish::{DeltaFrom, Published};
use updater::{Action, Limits, Watch, Wish};

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
        // Empty at first: nothing to start from.
        ("help/empty.txt", if version == 1 { Vec::new() } else { text(9, 300) }),
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
fn an_update_by_patches_takes_six_requests_and_a_fraction_of_what_chunks_cost() {
    let (world, server) = world(1);
    // Nobody holds it: then whether it was withdrawn is asked for, too.
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    let published = publish(&world, 2);
    server.counters().reset();
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(outcome.action, Action::Updated);
    world.assert_client(&release(2));
    let patches = published.steps[0].pack.unwrap().bytes;
    let beside = server.counters().bytes() - patches;
    assert!(patches < 2_500 && beside < 4_000 + 40 * 5, "{patches} and {beside} bytes");
    // The next root, timestamp, snapshot, targets, the step, one range.
    assert_eq!(server.counters().requests(), 6);
    // What the installed release was taken from stays, whatever is newer.
    assert!(world.engine(&[], |engine| engine.verify().unwrap().whole));
}

#[test]
fn what_an_update_costs_does_not_grow_with_the_number_of_releases() {
    let world = World::new();
    let server = world.serve();
    let mut costs = Vec::new();
    for number in 1..=12 {
        let files = vec![("run.sh", format!("#!/bin/sh\necho {number}\n").into_bytes()), ("data", noise(1, 50_000))];
        let version = format!("{number:02}.0");
        world.publish_with(&version, &files, |request| request.deltas = DeltaFrom::Recent);
        server.counters().reset();
        world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
        world.assert_client(&files);
        costs.push((server.counters().bytes(), server.counters().requests()));
    }
    // From the sixth on there are as many steps as there will be; serials of two digits take some bytes more.
    assert!(costs[11].0 < costs[6].0 + 160 && costs[11].1 == costs[6].1, "{costs:?}");
}

/// Releases 1 to `last`, each with a step from the one before only, and a device with release 1 that knows of no other.
fn chain(last: u8) -> (World, release_store::serve::Server) {
    let (world, server) = world(1);
    for version in 2..=last {
        let before = DeltaFrom::Versions(vec![format!("{}.0", version - 1)]);
        world.publish_with(&format!("{version}.0"), &release(version), |request| request.deltas = before);
    }
    server.counters().reset();
    (world, server)
}

#[test]
fn where_no_step_leads_directly_a_chain_of_them_does() {
    let (world, server) = chain(5);
    let limits = Limits { dry_run: true, ..world.setup(&[]).limits };
    let plan = updater_plan(world.setup(&[&server.url()]), limits);
    let ways: Vec<_> = plan.files.iter().filter(|line| line.way != "remove").map(|line| line.way).collect();
    assert!(ways.iter().all(|way| *way == "patch"), "{ways:?}");
    assert_eq!(plan.fetch_bytes, plan.files.iter().map(|line| line.fetch_bytes).sum::<u64>());
    server.counters().reset();
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert!(outcome.whole);
    world.assert_client(&release(5));
    assert!(server.counters().bytes() < 16_000, "{} bytes", server.counters().bytes());
    let left = fs::read_dir(world.free().join(".holdfast/staging")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what patches needed on the way is gone");
}

/// Looks at each step how much is staged.
struct Staged {
    directory: PathBuf,
    most: AtomicU64,
}

impl Watch for Staged {
    fn step(&self, _: &'static str) {
        let files = fs::read_dir(&self.directory).into_iter().flatten();
        let bytes = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        self.most.fetch_max(bytes, Ordering::Relaxed);
    }
}

#[test]
fn a_chain_needs_room_for_two_of_its_steps_however_long_it_is() {
    let (world, server) = chain(6);
    let watch = Staged { directory: world.free().join(".holdfast/staging"), most: AtomicU64::new(0) };
    let setup = Setup { watch: &watch, ..world.setup(&[&server.url()]) };
    assert!(setup.run(|engine| engine.update(&Wish::Newest).unwrap()).whole);
    world.assert_client(&release(6));
    let release: u64 = release(6).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let most = watch.most.into_inner();
    // Without that it would be five times as much.
    assert!(most > release / 2 && most < 2 * release, "{most} bytes staged for a release of {release}");
}

#[test]
fn a_chain_of_large_groups_is_planned_in_little_time() {
    // Each release changes every file: thousands of sources for each of the patches that follow on one another.
    let world = World::new();
    let tree = |version: usize| -> Vec<(String, Vec<u8>)> {
        let content = |file: usize| [text(file % 1000, 12), format!("{file} of {version}\n").into_bytes()].concat();
        (0..1_500).map(|file| (format!("d{}/f{file}.txt", file % 20), content(file))).collect()
    };
    let publish = |version: usize| {
        let files = tree(version);
        let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
        let before = if version == 1 { vec![] } else { vec![format!("{}.0", version - 1)] };
        let deltas = DeltaFrom::Versions(before);
        world.publish_with(&format!("{version}.0"), &files, |request| request.deltas = deltas);
    };
    publish(1);
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    (2..=5).for_each(publish);
    let limits = Limits { dry_run: true, ..world.setup(&[]).limits };
    let plan = updater_plan(world.setup(&[&server.url()]), limits);
    assert!(plan.files.iter().all(|line| line.way == "patch" || line.way == "remove"));
    assert!(plan.frames < 20, "{} frames", plan.frames);
}

#[test]
fn a_chain_that_breaks_in_the_middle_is_done_without() {
    let (world, server) = chain(4);
    let targets = fs::read_dir(world.store().join("targets")).unwrap();
    let step = targets.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().ends_with(".step-3-2"));
    let step = step.unwrap();
    let good = fs::read(&step).unwrap();
    copy_tree(&world.free(), &world.path("free-1"));
    fs::copy(world.path("hidden.img"), world.path("hidden-1")).unwrap();
    for bad in [None, Some(vec![]), Some(good[..good.len() / 2].to_vec()), Some(vec![7; good.len()])] {
        copy_tree(&world.path("free-1"), &world.free());
        fs::copy(world.path("hidden-1"), world.path("hidden.img")).unwrap();
        match bad {
            None => fs::remove_file(&step).unwrap(),
            Some(bytes) => fs::write(&step, bytes).unwrap(),
        }
        let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
        assert!(outcome.whole);
        world.assert_client(&release(4));
    }
}

#[test]
fn older_releases_are_found_in_the_archive_and_one_can_go_back_without_a_server() {
    let world = World::new();
    for version in 1..=4 {
        publish(&world, version);
    }
    let server = world.serve();
    install(&world, &server.url(), 4);
    install(&world, &server.url(), 2);
    // The newest is known again; what was installed last and before it needs no server.
    world.engine(&[&server.url()], |engine| engine.refresh().unwrap());
    assert!(world.engine(&[], |engine| engine.verify().unwrap().whole));
    fs::remove_file(world.free().join(".holdfast/trust/archive.json")).unwrap();
    world.engine(&[], |engine| engine.update(&Wish::Previous).unwrap());
    world.assert_client(&release(4));
}

#[test]
fn patches_lead_from_the_last_four_releases() {
    let world = World::new();
    let published: Vec<Published> = (1..=5).map(|version| publish(&world, version)).collect();
    let from: Vec<u64> = published[4].steps.iter().map(|step| step.from).collect();
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
    // A program has a patch of its own.
    let release = |version: u8| {
        let mut program = Program::new(Machine::ElfX86, 600);
        program.insert(300, usize::from(version));
        let mut files = release(version);
        files.push(("app/program", program.image()));
        files
    };
    let world = World::new();
    let recent = |request: &mut release_store::publish::PublishRequest| request.deltas = DeltaFrom::Recent;
    world.publish_with("1.0", &release(1), recent);
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.publish_with("2.0", &release(2), recent);
    let way = || {
        let setup = world.setup(&[&server.url()]);
        let limits = Limits { dry_run: true, ..setup.limits };
        let plan = updater_plan(setup, limits);
        move |path: &str| plan.files.iter().find(|line| line.path == path).map(|line| line.way)
    };
    assert_eq!(way()("app/program"), Some("patch"));
    let installed = fs::read(world.client().join("app/program")).unwrap();
    fs::write(world.client().join("app/program"), patched(&installed, 20_000, b"damage")).unwrap();
    let way = way();
    assert_eq!(way("help/a.txt"), Some("patch"));
    assert!(way("app/program").is_some_and(|way| way != "patch" && way != "keep"), "{:?}", way("app/program"));
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert!(outcome.whole);
    world.assert_client(&release(2));
}

fn updater_plan(setup: Setup<'_>, limits: Limits) -> updater::summary::Summary {
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
    for pack in published.steps.iter().filter_map(|step| step.pack) {
        fs::remove_file(world.store().join(pack.path())).unwrap();
    }
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert!(outcome.whole);
    world.assert_client(&release(3));
}

#[test]
fn patches_damaged_on_the_server_at_any_place_do_not_keep_a_device_from_its_release() {
    let (world, server) = world(1);
    let published = publish(&world, 2);
    let path = world.store().join(published.steps[0].pack.unwrap().path());
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
fn an_updater_comes_by_a_patch_too() {
    let world = World::new();
    let server = world.serve();
    let program = |version: u64| patched(&noise(7, 400_000), 5_000, &noise(version, 200));
    for version in 1..=2 {
        let path = world.updater_program("updater", &program(version));
        world.publish_with(&format!("{version}.0"), &release(1), |request| {
            request.deltas = DeltaFrom::Recent;
            request.updaters = vec![(PLATFORM.into(), path)];
        });
        server.counters().reset();
        world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    }
    assert!(server.counters().bytes() < 6_000, "{} bytes", server.counters().bytes());
    let name = firmware_image::paths::updater_name(PLATFORM);
    let installed = fs::read(world.free().join(name.as_str())).unwrap();
    assert!(installed.windows(200).any(|bytes| bytes == noise(2, 200)), "it is not the new one");
}

#[test]
fn a_release_made_without_patches_is_installed_all_the_same() {
    let (world, server) = world(1);
    assert!(world.publish("2.0", &release(2)).steps.is_empty());
    install(&world, &server.url(), 2);
}

#[test]
fn a_device_goes_back_to_a_release_to_which_no_patch_leads() {
    let (world, server) = world(2);
    install(&world, &server.url(), 2);
    install(&world, &server.url(), 1);
}
