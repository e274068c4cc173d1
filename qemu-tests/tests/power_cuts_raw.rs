//! Power cuts while the launcher and the updater work on a raw image, with the project's own FAT: every write and flush is
//! recorded, and the states that a cut could have left are healed one by one.
//!
//! `HOLDFAST_CUT_STATE=at:131` tries one state, `HOLDFAST_FULL=1` all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firmware_image::paths::{THIS_PLATFORM, updater_name};
use qemu_tests::block_log::BlockLog;
use qemu_tests::recorded_file::{self, RecordedFile};
use qemu_tests::replay::{Kind, Recording};
use qemu_tests::sweep::{self, Sweep, Tally};
use qemu_tests::verdict::{Release, Verdict, tree_files};
use qemu_tests::world::{NEW, OLD, PRODUCT, World};
use xtask::run;
use xtask::server::Server;

/// A device of the old release, a server with both, and somebody's own files.
struct Scene {
    dir: tempfile::TempDir,
    disk: PathBuf,
    server: Server,
}

impl Scene {
    fn new() -> Self {
        let world = World::get();
        let dir = sweep::directory().unwrap();
        let server = Server::start(&world.programs, &world.store(NEW), dir.path().join("server.log")).unwrap();
        let scene = Self { disk: dir.path().join("disk.img"), dir, server };
        scene.create(&scene.disk, &["--server", &scene.server.url]);
        scene.put("photos/Summer 2026/beach.jpg", 70_000);
        scene.put("letter.txt", 900);
        scene.put("client/notes of mine.txt", 5_000);
        scene
    }

    fn create(&self, disk: &Path, more: &[&str]) {
        let world = World::get();
        let bootstrap = format!("{THIS_PLATFORM}={}", world.programs.bootstrap.display());
        let (disk, keys, store) = (text(disk), text(&world.keys()), text(&world.store(OLD)));
        let mut create = vec!["create", "--profile", "stick", "--size", "112MiB", "--product", PRODUCT];
        create.extend(["--out", &disk, "--keys", &keys, "--bootstrap", &bootstrap]);
        create.extend(["--client-command", "client/run.sh", "--store", &store, "--release-version", OLD]);
        create.extend(more);
        world.partition_tools(&create);
    }

    /// A file of the user's.
    fn put(&self, path: &str, bytes: usize) {
        let source = self.dir.path().join("source");
        let content: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
        fs::write(&source, content).unwrap();
        World::get().partition_tools(&["free", "put", &text(&self.disk), &text(&source), path]);
    }

    fn verdict(&self) -> Verdict {
        let world = World::get();
        let release =
            |version: &str| Release { version: version.into(), files: tree_files(&world.tree(version)).unwrap() };
        let releases = vec![release(OLD), release(NEW)];
        let verdict = Verdict::new(&self.disk, releases, &world.programs.bootstrap_image, self.dir.path()).unwrap();
        let alone = self.dir.path().join("alone.img");
        self.create(&alone, &[]);
        let verdict = verdict.with_alone(&alone, self.dir.path()).unwrap();
        let address = self.server.url.strip_prefix("http://").unwrap();
        verdict.with_server(address.split('/').next().unwrap()).unwrap()
    }

    /// Records what a start of the launcher does to the device.
    fn record(&self, launcher: &Path, online: bool) -> Recording {
        let before = self.dir.path().join("before.img");
        fs::copy(&self.disk, &before).unwrap();
        let recorded = RecordedFile::new(&self.disk, self.dir.path()).unwrap();
        let mut start = Command::new(launcher);
        start.arg("--device").arg(&recorded.path).args(["--no-client", "--verbose"]);
        if !online {
            start.env("http_proxy", "http://127.0.0.1:1");
        }
        let output = run::capture(&mut start).unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = recorded.finish().unwrap();
        // The recording is complete: replayed, it is what the device holds.
        let mut image = fs::read(&before).unwrap();
        log.replay(&mut image).unwrap();
        assert!(image == fs::read(&self.disk).unwrap(), "the log does not tell all that was written");
        counts(&log);
        Recording::new(&before, log).unwrap()
    }
}

fn counts(log: &BlockLog) {
    let flushes = log.entries().iter().filter(|entry| entry.flush).count();
    let bytes: usize = log.entries().iter().map(|entry| log.data(entry).len()).sum();
    println!("recorded: {} entries, {flushes} flushes, {bytes} bytes written", log.entries().len());
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Judges the states of a recording, which must all heal.
fn sweep(what: &str, most: usize, recording: &Recording, verdict: &Verdict, scene: &Scene) {
    let one = std::env::var_os(sweep::RECORDING).map(|dir| Recording::open(Path::new(&dir)).unwrap());
    let recording = one.as_ref().unwrap_or(recording);
    let tally = Sweep::sized(most).run(recording, verdict, scene.dir.path()).unwrap();
    tally.tell(what, recording).unwrap();
    assert!(tally.defects.is_empty(), "{what}: {} of {} states did not heal", tally.defects.len(), tally.total());
    if one.is_none() {
        for kind in [Kind::Prefix, Kind::Torn, Kind::Lost] {
            assert!(tally.tried.get(&kind).is_some_and(|count| *count > most / 10), "too few states of a kind");
        }
    }
}

fn can_record() -> bool {
    match recorded_file::missing() {
        None => true,
        Some(missing) => {
            eprintln!("skipped: {missing} is missing");
            false
        }
    }
}

#[test]
fn an_update_cut_at_any_write_leaves_a_device_that_heals() {
    if !can_record() {
        return;
    }
    let scene = Scene::new();
    let verdict = scene.verdict();
    let recording = scene.record(&scene.dir.path().join("launcher"), true);
    sweep("update of a raw image", 300, &recording, &verdict, &scene);
}

#[test]
fn a_restore_of_the_updater_cut_at_any_write_leaves_a_device_that_heals() {
    if !can_record() {
        return;
    }
    let scene = Scene::new();
    let verdict = scene.verdict();
    World::get().partition_tools(&["free", "rm", &text(&scene.disk), &updater_name(THIS_PLATFORM)]);
    let recording = scene.record(&scene.dir.path().join("launcher"), false);
    sweep("restore in a raw image", 100, &recording, &verdict, &scene);
}
