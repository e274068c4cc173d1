//! Power cuts under the real FAT driver: a restore and an update in the guest, every write and flush of its kernel recorded
//! outside of it, and the states that a cut could have left healed one by one on the host; some of them in the guest.
//!
//! `HOLDFAST_CUT_STATE=at:131` tries one state, `HOLDFAST_CUTS=5000` so many of a recording, `HOLDFAST_FULL=1` all of them.

use std::fs;

use firmware_image::paths::{THIS_PLATFORM, updater_name};
use qemu_tests::block_log::BlockLog;
use qemu_tests::machine::Machine;
use qemu_tests::replay::{Effort, Kind, Recording, State};
use qemu_tests::scene;
use qemu_tests::stick::{Cable, Profile, Stick};
use qemu_tests::sweep::{self, ALL_STATES};
use qemu_tests::verdict::Verdict;
use qemu_tests::world::{NEW, OLD};

/// States of each kind that are plugged into the guest.
fn in_the_guest() -> usize {
    if std::env::var_os(ALL_STATES).is_some() { 10 } else { 1 }
}

/// A prepared guest, and a stick with somebody's own files.
struct Recorder {
    machine: Machine,
    stick: Stick,
    dir: tempfile::TempDir,
}

impl Recorder {
    fn new(stick: impl FnOnce() -> Stick) -> Option<Self> {
        let mut machine = Machine::start()?;
        let stick = stick();
        let dir = sweep::directory().unwrap();
        machine.install_host(&stick);
        // The first start notes that the release works.
        machine.plug_session(&stick).expect(&format!("CLIENT {OLD} says hello"));
        machine.pull_and_settle(&stick);
        scene::put_users_files(&stick.disk, dir.path()).unwrap();
        Some(Self { machine, stick, dir })
    }

    fn verdict(&self) -> Verdict {
        scene::verdict(&self.stick.disk, &self.stick.server.url, self.dir.path()).unwrap()
    }

    /// Plugs the stick in and records what the guest's kernel writes, until everything has ended and is unmounted.
    fn record(&mut self, what: &str, says: &str) -> Recording {
        let (before, log) = (self.dir.path().join("before.img"), self.dir.path().join("writes.log"));
        fs::copy(&self.stick.disk, &before).unwrap();
        let cable = Cable { log: Some(log.clone()), ..Cable::default() };
        let mut tries = 0;
        loop {
            let session = self.machine.plug_session_with(&self.stick, &cable);
            self.machine.pull_and_settle(&self.stick);
            if session.says(says) {
                break;
            }
            // On a busy machine the emulated one may be too slow for the check window.
            tries += 1;
            assert!(tries < 4, "nobody said {says:?}:\n{}", session.said);
            fs::copy(&before, &self.stick.disk).unwrap();
        }
        let log = BlockLog::open(&log).unwrap();
        let mut image = fs::read(&before).unwrap();
        log.replay(&mut image).unwrap();
        assert!(image == self.stick.bytes(), "the log does not tell all that was written");
        let recording = Recording::new(&before, log).unwrap();
        scene::tell(what, &recording);
        recording
    }

    fn sweep(&self, what: &str, most: usize, recording: &Recording, verdict: &Verdict) {
        scene::sweep(what, most, recording, verdict, self.dir.path()).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Plugs some of the states in: the guest's own driver meets what the cut left of its work, and what it starts heals it.
    fn heal_in_the_guest(&mut self, recording: &Recording, verdict: &Verdict, version: &str) {
        for state in sample(recording) {
            let overlay = recording.overlay(&state).unwrap();
            recording.write_image(&overlay, &self.stick.disk).unwrap();
            let session = self.machine.plug_session(&self.stick);
            self.machine.pull_and_settle(&self.stick);
            let found = verdict.inspect(&self.stick.disk);
            let found = found.unwrap_or_else(|error| panic!("{state} in the guest: {error:#}\n{}", session.said));
            assert_eq!(found, version, "{state} in the guest:\n{}", session.said);
            session.expect("says hello");
            println!("{state} healed in the guest");
        }
    }
}

/// A stick whose free zone is just too small for FAT32: how much else of the disk is to be left over depends on the updater.
fn stick_with_fat16() -> Stick {
    let is_fat16 = |sector: &[u8]| sector[510..] == [0x55, 0xAA] && sector[54..62] == *b"FAT16   ";
    let left = (28..80).step_by(4).map(|mib| format!("{mib}MiB"));
    let mut sticks = left.map(|left| Stick::with(Profile::Stick, &["--leave", &left]));
    sticks.find(|stick| stick.bytes().chunks_exact(512).any(is_fat16)).expect("a stick with FAT16")
}

/// States from all over a recording, of each kind.
fn sample(recording: &Recording) -> Vec<State> {
    let kinds = [Kind::Prefix, Kind::Lost, Kind::Torn];
    let states = recording.states(&Effort::default());
    let of = |kind: Kind| states.iter().filter(|state| state.kind() == kind).cloned().collect::<Vec<_>>();
    let each = in_the_guest();
    let all = each * kinds.len();
    kinds
        .into_iter()
        .enumerate()
        .flat_map(|(number, kind)| {
            let states = of(kind);
            // Not the same moments for each kind.
            let at = move |step: usize| (step * kinds.len() + number + 1) * states.len() / (all + 1);
            let states = of(kind);
            (0..each).filter_map(move |step| states.get(at(step)).cloned())
        })
        .collect()
}

#[test]
fn an_update_by_a_real_kernel_cut_at_any_write_leaves_a_device_that_heals() {
    let Some(mut recorder) = Recorder::new(|| Stick::new(Profile::Stick)) else { return };
    let verdict = recorder.verdict();
    recorder.stick.publish(NEW);
    let what = "update under Linux";
    let recording = recorder.record(what, &format!("Release {NEW} is installed"));
    recorder.sweep(what, 180, &recording, &verdict);
    recorder.heal_in_the_guest(&recording, &verdict, NEW);
}

#[test]
fn a_restore_by_a_real_kernel_cut_at_any_write_leaves_a_device_that_heals() {
    let Some(mut recorder) = Recorder::new(stick_with_fat16) else { return };
    let verdict = recorder.verdict();
    recorder.stick.tool(&["free", "rm"], &[&updater_name(THIS_PLATFORM)]);
    let what = "restore under Linux, on FAT16";
    let recording = recorder.record(what, "restored version");
    // For what is judged with a server in reach.
    recorder.stick.publish(NEW);
    recorder.sweep(what, 100, &recording, &verdict);
    recorder.heal_in_the_guest(&recording, &verdict, NEW);
}
