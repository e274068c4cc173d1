//! Power cuts while the launcher and the updater work on a raw image, with the project's own FAT: every write and flush is
//! recorded, and the states that a cut could have left are healed one by one.
//!
//! `HOLDFAST_CUT_STATE=at:131` tries one state, `HOLDFAST_CUTS=5000` so many of a recording, `HOLDFAST_FULL=1` all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firmware_image::paths::{THIS_PLATFORM, updater_name};
use firmware_image::sim::figures;
use qemu_tests::recorded_file::{self, RecordedFile};
use qemu_tests::replay::Recording;
use qemu_tests::scene::{self, text};
use qemu_tests::sweep;
use qemu_tests::verdict::Verdict;
use qemu_tests::world::{NEW, World};
use xtask::run;
use xtask::server::Server;

/// A device of the old release with somebody's own files, and a server with both releases.
struct Device {
    dir: tempfile::TempDir,
    disk: PathBuf,
    server: Server,
}

impl Device {
    /// `None`: it cannot be recorded here, which is said.
    fn new() -> Option<Self> {
        if let Some(missing) = recorded_file::missing() {
            figures::skipped(&format!("{missing} is missing"));
            return None;
        }
        let world = World::get();
        let dir = sweep::directory().unwrap();
        let server = Server::start(&world.programs, &world.store(NEW), dir.path().join("server.log")).unwrap();
        let device = Self { disk: dir.path().join("disk.img"), dir, server };
        scene::create(&device.disk, &["--server", &device.server.url]);
        scene::put_users_files(&device.disk, device.dir.path()).unwrap();
        Some(device)
    }

    fn verdict(&self) -> Verdict {
        scene::verdict(&self.disk, &self.server.url, self.dir.path()).unwrap()
    }

    /// Records what a start of the launcher does to the device.
    fn record(&self, what: &str, launcher: &Path, online: bool) -> Recording {
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
        let recording = Recording::new(&before, log).unwrap();
        scene::tell(what, &recording);
        recording
    }

    fn sweep(&self, what: &str, most: usize, recording: &Recording, verdict: &Verdict) {
        scene::sweep(what, most, recording, verdict, self.dir.path()).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn an_update_cut_at_any_write_leaves_a_device_that_heals() {
    let Some(device) = Device::new() else { return };
    let verdict = device.verdict();
    let what = "update of a raw image";
    let recording = device.record(what, verdict.launcher(), true);
    device.sweep(what, 120, &recording, &verdict);
}

#[test]
fn a_restore_of_the_updater_cut_at_any_write_leaves_a_device_that_heals() {
    let Some(device) = Device::new() else { return };
    let verdict = device.verdict();
    World::get().partition_tools(&["free", "rm", &text(&device.disk), &updater_name(THIS_PLATFORM)]);
    let what = "restore in a raw image";
    let recording = device.record(what, verdict.launcher(), false);
    device.sweep(what, 40, &recording, &verdict);
}
