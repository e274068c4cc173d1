//! Power is cut at every write of everything that a device does to itself, and again at every write of the recovery.
//!
//! A device as the factory makes it stands on a simulated disk. An operation runs once and is recorded; from the recording
//! come the states that a cut could have left: after each write, inside each, and with what was not yet flushed lost or late.
//! Each is plugged in again (launcher and updater, in one process), and that recovery is recorded and cut in turn. After
//! each: an updater of the product's vendor runs, the client is one whole release, no commit is open, the user's files are as they
//! were, and within a few starts one writes nothing. Apart from that writes and reads fail while an operation goes on, its sectors
//! wear out, and a read gives a wrong bit.
//!
//! A sample by default, from a fixed seed; `HOLDFAST_FULL=1` tries all. `HOLDFAST_SWEEP=update` takes only what has that name.

mod matrix;
mod support;

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use embedded_io::Write as _;
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::sim::{Effort, Faults, Medium, Random, SimDisk, State, figures};
use firmware_image::{Digest, FreeZone as _, ZoneFile as _, paths};
use matrix::Factory;
use matrix::model::Model;

/// Plug-ins until one must write nothing: the client, and a backup each.
const MAX_STARTS: usize = 5;
const MIB: u64 = 1 << 20;

/// Something that a device does to itself.
struct Scenario<'m> {
    name: &'static str,
    model: &'m Model,
    before: Medium,
    /// What is done to the disk.
    act: fn(&Model, &SimDisk) -> Result<(), String>,
    /// Whether a recovery may be without the store: all that it needs is on the device.
    offline: bool,
}

/// How many states are tried at most.
#[derive(Clone, Copy)]
struct Size {
    /// Cut between two writes; of the recovery of each; and of the recovery of that.
    cut: [usize; 3],
    /// Cut inside a write, or with what was not flushed lost or late; of the recovery of each; and of that one's.
    torn: [usize; 3],
    /// Writes that fail while the operation goes on, and as many reads.
    failing: usize,
}

const SAMPLE: Size = Size { cut: [12, 3, 1], torn: [14, 2, 1], failing: 8 };
const FEW: Size = Size { cut: [4, 2, 1], torn: [4, 2, 1], failing: 2 };
const FEWEST: Size = Size { cut: [2, 1, 0], torn: [3, 1, 0], failing: 1 };
const FULL: Size = Size { cut: [usize::MAX, usize::MAX, 0], torn: [usize::MAX, 4, 0], failing: usize::MAX };
/// On the other volumes in full: cut once, at each write.
const EACH: Size = Size { cut: [usize::MAX, 0, 0], torn: [0; 3], failing: 0 };
/// Cut three times, and everything else on the other volumes: a sample also in full.
const DEEP: Size = Size { cut: [40, 8, 3], torn: [40, 8, 3], failing: 10 };

fn is_full() -> bool {
    std::env::var_os("HOLDFAST_FULL").is_some()
}

/// What fails while an operation goes on.
struct Failing {
    name: String,
    faults: Faults,
    depth: usize,
    online: bool,
}

/// Where states after failing writes are counted, and those after failing reads.
const AFTER_WRITES: usize = 3;
const AFTER_READS: usize = 4;
/// The hidden zone is gone before it.
const HIDDEN_ANEW: &str = "sealing of a hidden zone anew";

/// What the workers of a sweep share.
#[derive(Default)]
struct Tally {
    /// States by the number of cuts, after failing writes, after failing reads.
    tried: [AtomicUsize; 5],
    /// States after failing reads that are left out: see [`HIDDEN_ANEW`].
    forgotten: AtomicUsize,
    /// States after lies that cost a user's file: see [`Case::lied`].
    costly: AtomicUsize,
    seen: Mutex<HashSet<(u128, bool, usize)>>,
    /// Media from which the starts that follow came to rest.
    settled: Mutex<HashSet<u128>>,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    fn fault(&self, name: &str, fault: String) {
        println!("{name}: {fault}");
        self.faults.lock().unwrap().push(format!("{name}: {fault}"));
    }
}

/// A state to be tried.
struct Case {
    name: String,
    medium: Medium,
    depth: usize,
    online: bool,
    /// Whether a read gave a wrong bit before it. Nobody signs FAT's tables and directories, nor users' files: it may have been
    /// written back with what stands beside it.
    lied: bool,
}

impl Scenario<'_> {
    /// Tries a state, and those that cuts of its recovery leave.
    fn attempt(&self, case: Case, most: &[usize; 3], tally: &Tally) {
        let Case { name, medium, depth, online, lied } = case;
        if tally.faults.lock().unwrap().len() > 20
            || !tally.seen.lock().unwrap().insert((medium.digest(), online, depth))
        {
            return;
        }
        tally.tried[depth].fetch_add(1, Ordering::Relaxed);
        let disk = SimDisk::new(medium);
        let judged = catch_unwind(AssertUnwindSafe(|| self.judge(&disk, online, tally)));
        let judged = judged.unwrap_or_else(|panic| Err(panic_text(&*panic)));
        if let Err(fault) = judged {
            if lied && fault.starts_with(matrix::model::USERS_FILE) {
                tally.costly.fetch_add(1, Ordering::Relaxed);
                return;
            }
            return tally.fault(&name, fault);
        }
        let Some(some) = most.get(depth + 1).copied().filter(|some| *some > 0) else { return };
        let recovery = disk.recording();
        let mut random = Random::new(recovery.after().digest() as u64);
        // All that there is between the writes; what a medium does inside and with them, where only some are tried.
        let effort = if some == usize::MAX { Effort::CUTS } else { Effort { tears: 2, drawn: 1, ..Effort::ALL } };
        for state in random.some(recovery.states(&effort), some) {
            let online = !self.offline || random.draw() & 1 == 0;
            let medium = recovery.medium(&state);
            self.attempt(
                Case { name: format!("{name}, then {state}"), medium, depth: depth + 1, online, lied },
                most,
                tally,
            );
        }
    }

    /// Plugs the disk in until nothing is left to do. What it is told by the first plug-in stays recorded.
    fn judge(&self, disk: &SimDisk, online: bool, tally: &Tally) -> Result<(), String> {
        let first = self.model.plug_in(disk, online)?;
        if first.action.is_none() {
            return Err(format!("the first start: {first:?}"));
        }
        let mut medium = disk.medium();
        self.model.check(&medium).map_err(|fault| format!("{fault}; the first start: {first:?}"))?;
        let mut met = Vec::new();
        for start in 1..=MAX_STARTS {
            if tally.settled.lock().unwrap().contains(&medium.digest()) {
                break;
            }
            met.push(medium.digest());
            let next = SimDisk::new(medium.clone());
            // Without the store first: what is begun may need it to be finished, and what is whole does not.
            let ended = self.model.plug_in(&next, !self.offline || start > 1)?;
            if ended.action.is_none() {
                return Err(format!("start {}: {ended:?}; the first: {first:?}", start + 1));
            }
            self.model.check(&next.medium())?;
            if next.writes() == 0 && start > 1 {
                break;
            }
            if start == MAX_STARTS {
                return Err(format!("start {} still writes: {ended:?}; the first: {first:?}", start + 1));
            }
            medium = next.medium();
        }
        tally.settled.lock().unwrap().extend(met);
        Ok(())
    }

    /// Every state of the operation, by as many threads as there are cores.
    fn sweep(&self, size: Size) -> Vec<String> {
        if std::env::var("HOLDFAST_SWEEP").is_ok_and(|name| !self.name.contains(&name)) {
            return Vec::new();
        }
        let began = Instant::now();
        let disk = SimDisk::new(self.before.clone());
        (self.act)(self.model, &disk).unwrap_or_else(|error| panic!("{} without a cut: {error}", self.name));
        let recording = disk.recording();
        let (writes, reads) = (recording.writes(), disk.reads());
        assert!(writes > 0, "{} writes nothing", self.name);
        let mut random = Random::new(7);
        let mut cases: Vec<(Case, [usize; 3])> = Vec::new();
        let (cut, torn): (Vec<State>, _) =
            recording.states(&Effort::ALL).into_iter().partition(State::is_between_writes);
        for (states, most) in [(cut, size.cut), (torn, size.torn)] {
            for state in random.some(states, most[0]) {
                let online = !self.offline || random.draw() & 1 == 0;
                let (name, medium) = (format!("{}: {state}", self.name), recording.medium(&state));
                cases.push((Case { name, medium, depth: 0, online, lied: false }, most));
            }
        }
        let tally = Tally::default();
        let failing_writes = random.some((0..writes).collect(), size.failing);
        let failing_reads = random.some((0..reads).collect(), size.failing);
        let mut failing: Vec<Failing> = Vec::new();
        failing_writes.into_iter().for_each(|number| failing.extend(self.failing_write(number)));
        failing.extend(self.wear().take(size.failing));
        failing_reads.into_iter().for_each(|number| failing.extend(self.failing_read(number)));
        let next = AtomicUsize::new(0);
        let cases = Mutex::new(cases.into_iter());
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(failing) = failing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.fail(failing, &tally);
                    }
                    loop {
                        // Not held while it is tried.
                        let case = cases.lock().unwrap().next();
                        let Some((case, most)) = case else { return };
                        self.attempt(case, &most, &tally);
                    }
                });
            }
        });
        let faults = tally.faults.into_inner().unwrap();
        let tried = tally.tried.each_ref().map(|count| count.load(Ordering::Relaxed));
        println!(
            "sweep of {}: {writes} writes, {reads} reads; cut states tried: {} once, {} twice, {} three times; \
             after failing writes: {}, after failing reads and lies: {} (left out: {}; {} cost a user's file); not healed: {}; {:.1} s",
            self.name,
            tried[0],
            tried[1],
            tried[2],
            tried[AFTER_WRITES],
            tried[AFTER_READS],
            tally.forgotten.into_inner(),
            tally.costly.into_inner(),
            faults.len(),
            began.elapsed().as_secs_f64()
        );
        figures::count(figures::CUT_STATES, self.name, tried.iter().sum(), faults.len());
        faults
    }

    /// A write fails, the disk turns read-only with it, or the power goes under the program's eyes.
    fn failing_write(&self, number: usize) -> impl Iterator<Item = Failing> {
        let faults = [
            ("fails", Faults { failing_writes: number..number + 1, ..Faults::default() }),
            ("and the next seven fail", Faults { failing_writes: number..number + 8, ..Faults::default() }),
            ("is refused, as all after it", Faults { read_only_from: Some(number), ..Faults::default() }),
            ("is cut", Faults { cut: Some((number, 700)), ..Faults::default() }),
        ];
        let (operation, online) = (self.name, !self.offline || number.is_multiple_of(2));
        faults.into_iter().map(move |(what, faults)| {
            let name = format!("{operation}: write {number} {what}");
            Failing { name, faults, depth: AFTER_WRITES, online }
        })
    }

    /// Each place of the disk takes so many writes and no more.
    fn wear(&self) -> impl Iterator<Item = Failing> {
        let (operation, offline) = (self.name, self.offline);
        [1, 2, 3, 5, 8, 13, 21, 34].into_iter().map(move |writes| {
            let name = format!("{operation}: each sector takes {writes} writes");
            let faults = Faults { endurance: Some(writes), ..Faults::default() };
            Failing { name, faults, depth: AFTER_WRITES, online: !offline || writes % 2 == 0 }
        })
    }

    /// A read fails, lies, or its place does until the operation is over.
    fn failing_read(&self, number: usize) -> impl Iterator<Item = Failing> {
        let faults = [
            ("fails", Faults { failing_reads: number..number + 1, ..Faults::default() }),
            ("fails, as all of its place after it", Faults { bad_from: Some(number), ..Faults::default() }),
            ("lies", Faults { lying_reads: number..number + 1, ..Faults::default() }),
        ];
        let (operation, online) = (self.name, !self.offline || number.is_multiple_of(2));
        faults.into_iter().map(move |(what, faults)| {
            let name = format!("{operation}: read {number} {what}");
            Failing { name, faults, depth: AFTER_READS, online }
        })
    }

    /// The operation while something fails, and what it leaves.
    fn fail(&self, failing: &Failing, tally: &Tally) {
        let Failing { name, faults, depth, online } = failing;
        let disk = SimDisk::faulty(self.before.clone(), faults.clone());
        // Whether it fails is its own business; that it does not panic is not.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.act)(self.model, &disk))) {
            tally.fault(name, panic_text(&*panic));
        }
        // Worn places stay so: what the next start makes of it is its own business, too, but that it starts no wrong updater.
        if faults.endurance.is_some() {
            let again = catch_unwind(AssertUnwindSafe(|| self.model.plug_in(&disk, *online)));
            if let Err(panic) = again {
                tally.fault(name, panic_text(&*panic));
            }
        }
        let medium = disk.medium();
        // Without a hidden zone the mirror is all that there is: where its place is bad, the device has to begin anew.
        if self.name == HIDDEN_ANEW && faults.bad_from.is_some() && self.model.has_forgotten(&medium) {
            tally.forgotten.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lied = !faults.lying_reads.is_empty();
        let case = Case { name: name.clone(), medium, depth: *depth, online: *online, lied };
        self.attempt(case, &[0; 3], tally);
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    format!("panic: {}", text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default())
}

fn plug_in(model: &Model, disk: &SimDisk, online: bool) -> Result<(), String> {
    let started = model.plug_in(disk, online)?;
    if started.action.is_some() { Ok(()) } else { Err(format!("{started:?}")) }
}

fn online(model: &Model, disk: &SimDisk) -> Result<(), String> {
    plug_in(model, disk, true)
}

fn offline(model: &Model, disk: &SimDisk) -> Result<(), String> {
    plug_in(model, disk, false)
}

fn crash(model: &Model, disk: &SimDisk) -> Result<(), String> {
    let started = model.plug_in_where_the_newest_updater_crashes(disk)?;
    if started.action.is_some() { Ok(()) } else { Err(format!("{started:?}")) }
}

fn after(model: &Model, before: &Medium, act: fn(&Model, &SimDisk) -> Result<(), String>) -> Medium {
    let disk = SimDisk::new(before.clone());
    act(model, &disk).unwrap();
    disk.medium()
}

fn note(model: &Model, medium: &Medium, failed_starts: u8, proven: bool) -> Medium {
    let trial = Some(Trial { serial: 2, failed_starts, proven });
    model.with_free(medium, |fat| LauncherNote { trial, ..LauncherNote::default() }.write(fat).unwrap())
}

/// Everything that a device of this model does to itself.
fn scenarios<'m>(model: &'m Model, updated: &Medium) -> Vec<Scenario<'m>> {
    let scenario = |name, before, act, offline| Scenario { name, model, before, act, offline };
    let proven = note(model, updated, 0, true);
    let mut settled = proven.clone();
    for _ in 0..4 {
        settled = after(model, &settled, online);
    }
    assert_eq!(model.check(&settled), Ok("2.0.0"));

    // A file of the new release whose staged copy the medium has lost meanwhile.
    let lost = format!("{}/{}", paths::STAGING_DIR, Digest::of(&matrix::noise(2, 9000)));
    let half_done = model.with_free(&model.amid_an_update(|medium| model.has_open_commit(medium)).medium, |fat| {
        assert!(fat.remove(&lost).unwrap())
    });

    let name = paths::updater_name(support::PLATFORM);
    let no_updater = model.with_free(&settled, |fat| assert!(fat.remove(&name).unwrap()));
    let bad_updater = model.with_free(&settled, |fat| matrix::write(fat, &name, &matrix::noise(3, 30_000)));
    let bad_client = model.with_free(&settled, |fat| {
        matrix::write(fat, "client/run.sh", b"#!/bin/sh\nexit 9\n");
        assert!(fat.remove("client/data/same.bin").unwrap());
    });
    let hidden = model.hidden();
    let mut no_hidden = settled.clone();
    no_hidden.write(hidden.start, &vec![0; hidden.length as usize]);
    let no_mirrors = model.with_free(&settled, |fat| {
        assert!(fat.remove(paths::RECORD_MIRROR).unwrap() && fat.remove(paths::BACKUP_MIRROR).unwrap());
    });
    vec![
        scenario("update", model.made.clone(), online, true),
        scenario("undo of a commit whose staged copy is lost", half_done, offline, true),
        scenario("undo of a release that fails", note(model, updated, 3, false), offline, true),
        scenario("rollback", settled, Model::roll_back, true),
        scenario("repair", bad_client, online, false),
        scenario("restore of a missing updater", no_updater, offline, true),
        scenario("restore over a damaged updater", bad_updater, offline, true),
        scenario("giving up an updater that crashes", updated.clone(), crash, true),
        scenario("renewal of a backup", proven, online, true),
        scenario(HIDDEN_ANEW, no_hidden, offline, true),
        scenario("writing of the mirrors anew", no_mirrors, offline, true),
    ]
}

#[test]
fn a_cut_at_any_write_and_at_any_of_its_recovery_leaves_one_whole_release_and_the_users_files() {
    let factory = Factory::new("Acme Notes");
    let mut models = vec![("clusters of 512 bytes", Model::new(&factory, 108 * MIB))];
    models.push(("clusters of 4 KiB", Model::new(&factory, 600 * MIB)));
    let mut crowded = Model::new(&factory, 108 * MIB);
    crowd(&mut crowded);
    models.push(("nearly full, in pieces", crowded));
    models.push(("FAT16", Model::new(&factory, 84 * MIB)));
    let mut crowded = Model::new(&factory, 64 * MIB);
    crowd(&mut crowded);
    models.push(("FAT16, nearly full, in pieces", crowded));
    factory.publish("2.0.0", 2);
    // More than the free zone's cache holds: what it writes when it must make room is in no order of anybody's.
    let heavy = Factory::with_large("Large Notes", 9 << 20);
    models.push(("a client larger than the cache", Model::new(&heavy, 200 * MIB)));
    heavy.publish("2.0.0", 2);
    let mut faults = Vec::new();
    for (number, (geometry, model)) in models.iter_mut().enumerate() {
        println!("{geometry}:");
        assert_eq!(model.has_fat16(), geometry.starts_with("FAT16"));
        let updated = after(model, &model.made.clone(), online);
        assert_eq!(model.check(&updated), Ok("2.0.0"));
        model.trust_installed(&updated);
        for scenario in scenarios(model, &updated) {
            let size = match (is_full(), number) {
                (true, 0) => FULL,
                (true, _) => EACH,
                (false, 0) => SAMPLE,
                (false, 1..=3) => FEW,
                (false, _) => FEWEST,
            };
            faults.extend(scenario.sweep(size));
            if is_full() {
                faults.extend(scenario.sweep(DEEP));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Fills the volume but for 2 MiB in pieces of one cluster, where that has 512 bytes.
fn crowd(model: &mut Model) {
    const PIECE_BYTES: usize = 512;
    const LEFT_BYTES: usize = 2 << 20;
    let (kept, gone) = (matrix::noise(70, LEFT_BYTES), vec![0; PIECE_BYTES]);
    let crowded = model.with_free(&model.made, |fat| {
        let (mut kept_file, mut gone_file) = (fat.create("kept").unwrap(), fat.create("gone").unwrap());
        for piece in kept.chunks(PIECE_BYTES) {
            kept_file.write_all(piece).unwrap();
            gone_file.write_all(&gone).unwrap();
        }
        drop((kept_file, gone_file));
        // Zeros: the medium is none the larger for them.
        let rest = fat.free_bytes().unwrap() - (64 << 10);
        let mut filler = fat.create("filler").unwrap();
        filler.set_len(rest).unwrap();
        drop(filler);
        assert!(fat.remove("gone").unwrap());
    });
    model.made = crowded;
    model.add_users_file("kept", kept);
}
