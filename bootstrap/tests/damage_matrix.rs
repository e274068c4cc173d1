//! Damage times place: each structure of a device in each way in which bytes go wrong. After each the device runs a verified
//! updater and is sound again, or says what is wrong and what to do; a user's files stay as they were.
//!
//! Each case is a plug-in of a whole device image in this process, with the engine in the updater's place; some of them
//! are run by the real launcher as well. `HOLDFAST_FULL=1` flips every byte of what is small;
//! `HOLDFAST_PLACE=journal` takes only what has that in its name.
#![cfg(feature = "image")]

mod matrix;
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use firmware_image::device_config::Profile;
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenLayout, SlotName};
use firmware_image::host::Access;
use firmware_image::sim::figures;
use firmware_image::{FreeZone as _, paths};
use matrix::{CLIENT_STATUS, Factory, Family, Unit, noise, write};
use support::PLATFORM;

/// What is flipped byte by byte.
const SMALL_BYTES: usize = 4096;
/// What is cut at each length.
const SHORT_BYTES: usize = 64;
const SHORT_BYTES_IN_FULL: usize = 1024;
const SECTOR_BYTES: usize = 512;
/// What is wrong with the virtual zone is left to the factory.
const DISC: &[&str] = &["the virtual zone", "device.cfg", "the updater for"];
/// Two sound boot sectors that differ in where things are: somebody has to say which is right.
const BOOT: &[&str] = &["the free zone's boot sector and its copy", "mine.txt in", "letters/to you.txt in"];
/// What only `fsck` finds of a user's own files.
const USERS: &[&str] = &["mine.txt in", "letters/to you.txt in", "the free zone's directories"];
/// Exit statuses for what no start can heal (`docs/launcher.md`).
const REPORTS: [i32; 6] = [66, 69, 70, 72, 73, 78];
/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a structure stands.
#[derive(Clone)]
enum Place {
    /// Bytes of the disk.
    Disk(u64, usize),
    /// Bytes of the CD.
    Cd(u64, usize),
    /// A file of the free zone.
    File(&'static str),
    /// The updater in the free zone.
    Updater,
}

struct Target {
    name: String,
    place: Place,
    /// How lines of `partition-tools verify` begin that may stay: nobody on the device writes there, nor does `repair`.
    remains: &'static [&'static str],
}

#[derive(Clone, Debug)]
enum Damage {
    Missing,
    Ones,
    Random,
    Truncated(usize),
    Flipped(usize, u8),
    Older,
    OtherDevice,
    OtherProduct,
}

fn file_of(unit: &Unit, place: &Place) -> File {
    let path = if matches!(place, Place::Cd(..)) { unit.cd.as_ref().unwrap() } else { &unit.disk };
    File::options().read(true).write(true).open(path).unwrap()
}

fn contents(unit: &Unit, place: &Place) -> Option<Vec<u8>> {
    match place {
        Place::Disk(at, length) | Place::Cd(at, length) => {
            let mut bytes = vec![0; *length];
            file_of(unit, place).read_exact_at(&mut bytes, *at).unwrap();
            Some(bytes)
        }
        Place::File(path) => unit.file(path),
        Place::Updater => unit.file(&paths::updater_name(PLATFORM)),
    }
}

/// Puts `bytes` there, with zeros behind them; `None`: nothing.
fn put(unit: &Unit, place: &Place, bytes: Option<&[u8]>) {
    let name = paths::updater_name(PLATFORM);
    match place {
        Place::Disk(at, length) | Place::Cd(at, length) => {
            let mut whole = vec![0; *length];
            let bytes = bytes.unwrap_or_default();
            whole[..bytes.len()].copy_from_slice(bytes);
            file_of(unit, place).write_all_at(&whole, *at).unwrap();
        }
        Place::File(_) | Place::Updater => {
            let path = if let Place::File(path) = place { path } else { &name[..] };
            unit.with_free(|free| match bytes {
                Some(bytes) => write(free, path, bytes),
                None => assert!(free.remove(path).unwrap()),
            });
        }
    }
}

impl Damage {
    /// All kinds for something that is `sound`. `samples`: as many lengths and bytes, where it is not each of them.
    fn all(sound: &[u8], samples: Option<usize>, seed: u64) -> Vec<Self> {
        let mut kinds =
            vec![Self::Missing, Self::Ones, Self::Random, Self::Older, Self::OtherDevice, Self::OtherProduct];
        let (length, full, samples) = (sound.len(), samples.is_none(), samples.unwrap_or(20));
        let mut draw = noise(seed, 1 << 16).into_iter().cycle();
        let mut some = |below: usize| (0..4).fold(0usize, |n, _| n << 8 | usize::from(draw.next().unwrap())) % below;
        if length <= SHORT_BYTES || (full && length <= SHORT_BYTES_IN_FULL) {
            kinds.extend((0..length).map(Self::Truncated));
        } else {
            kinds.extend([1, length - 1].map(Self::Truncated));
            kinds.extend((0..samples / 2).map(|_| Self::Truncated(some(length))));
        }
        let mask = |n: usize| 1 << (n % 8);
        match (length <= SMALL_BYTES, full) {
            (true, true) => kinds.extend((0..length).map(|at| Self::Flipped(at, mask(some(8))))),
            _ if samples == 0 => {}
            (true, false) => kinds.extend((0..samples).map(|_| Self::Flipped(some(length), mask(some(8))))),
            (false, _) => {
                let sectors: Vec<usize> = (0..length).step_by(SECTOR_BYTES).collect();
                let step = if full { 1 } else { sectors.len().div_ceil(samples.max(1)) };
                for start in sectors.into_iter().step_by(step) {
                    let at = start + some(SECTOR_BYTES.min(length - start));
                    kinds.push(Self::Flipped(at, mask(some(8))));
                }
            }
        }
        kinds
    }

    /// What stands there then; `None`: there is no such damage here.
    fn done(&self, sound: &[u8], family: &Family, place: &Place) -> Option<Option<Vec<u8>>> {
        let of = |unit: &Unit| {
            let bytes = contents(unit, place)?;
            (bytes != sound).then_some(Some(bytes))
        };
        match self {
            Self::Missing => Some(None),
            Self::Ones => Some(Some(vec![0xff; sound.len()])),
            Self::Random => Some(Some(noise(sound.len() as u64, sound.len()))),
            Self::Truncated(length) => Some(Some(sound[..*length].to_vec())),
            Self::Flipped(at, mask) => {
                let mut bytes = sound.to_vec();
                bytes[*at] ^= mask;
                Some(Some(bytes))
            }
            Self::Older => of(&family.older),
            Self::OtherDevice => of(&family.other_device),
            Self::OtherProduct => of(&family.other_product),
        }
    }
}

/// Every structure of the device.
fn targets(unit: &Unit) -> Vec<Target> {
    let device = unit.open(Access::ReadOnly);
    let table = device.table().unwrap();
    let (free, hidden) = (table.free().unwrap(), table.hidden().unwrap());
    let disk_bytes = fs::metadata(&unit.disk).unwrap().len();
    let mut found = Vec::new();
    let mut add = |name: &str, place, remains| found.push(Target { name: name.into(), place, remains });
    let disk = |at: u64, length: usize| Place::Disk(at, length);
    add("protective MBR", disk(0, 512), &[]);
    add("GPT header", disk(512, 512), &[]);
    add("GPT entries", disk(1024, 512), &[]);
    add("GPT backup header", disk(disk_bytes - 512, 512), &[]);
    add("GPT backup entries", disk(disk_bytes - 33 * 512, 512), &[]);

    let mut boot = [0; 512];
    File::open(&unit.disk).unwrap().read_exact_at(&mut boot, free.start).unwrap();
    let number = |at: usize| u64::from(u32::from_le_bytes(boot[at..at + 4].try_into().unwrap()));
    let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
    let (sectors_per_fat, cluster_bytes) = (number(36), usize::from(boot[13]) * 512);
    let fat_bytes = sectors_per_fat * 512;
    let fat_start = free.start + reserved * 512;
    add("FAT boot sector", disk(free.start, 512), BOOT);
    add("FAT summary sector", disk(free.start + 512, 512), USERS);
    add("FAT backup boot sector", disk(free.start + 6 * 512, 512), BOOT);
    // The part with chains in it, and all of it.
    for copy in 0..2 {
        let start = fat_start + copy * fat_bytes;
        add(&format!("FAT {}, first sectors", copy + 1), disk(start, 1024), USERS);
        add(&format!("FAT {}", copy + 1), disk(start, fat_bytes as usize), USERS);
    }
    add("root directory", disk(fat_start + 2 * fat_bytes, cluster_bytes), USERS);

    let layout = HiddenLayout::of(hidden.length, DISK_ALIGN_BYTES).unwrap();
    for slot in SlotName::ALL {
        let start = hidden.start + layout.start(slot);
        let mut header = [0; 4096];
        File::open(&unit.disk).unwrap().read_exact_at(&mut header, start).unwrap();
        let body = u64::from_le_bytes(header[24..32].try_into().unwrap());
        let segment_bytes = 1usize << header[11];
        add(&format!("{slot}: header"), disk(start, 4096), &[]);
        add(&format!("{slot}: key slots"), disk(start + 80, 4 * 96), &[]);
        let end = firmware_image::slot::slot_bytes(body, header[11]);
        for (n, at) in (4096..end).step_by(segment_bytes).enumerate() {
            let length = segment_bytes.min((end - at) as usize);
            add(&format!("{slot}: segment {n}"), disk(start + at, length), &[]);
        }
        add(&format!("{slot}: all of it"), disk(start, end as usize), &[]);
    }
    add("hidden zone", disk(hidden.start, hidden.length as usize), &[]);

    add("updater in the free zone", Place::Updater, &[]);
    for path in [
        paths::RECORD_MIRROR,
        paths::BACKUP_MIRROR,
        paths::JOURNAL,
        paths::LAUNCHER_NOTE,
        paths::MANIFEST,
        paths::CHUNK_LIST,
        paths::STATEMENT,
        paths::CONFIG_COPY,
        ".holdfast/trust/timestamp.json",
        ".holdfast/trust/snapshot.json",
        ".holdfast/trust/targets.json",
    ] {
        add(path, Place::File(path), &[]);
    }
    if let Some(disc) = table.virtual_zone() {
        add("ISO 9660 primary descriptor", disk(disc.start + 16 * 2048, 2048), DISC);
    } else {
        add("ISO 9660 primary descriptor", Place::Cd(16 * 2048, 2048), DISC);
        let tail = device.cd_tail().unwrap().unwrap();
        let start = fs::metadata(unit.cd.as_ref().unwrap()).unwrap().len()
            - firmware_image::RawZone::len(&mut { tail }).unwrap();
        add("factory backup on the CD: header", Place::Cd(start, 4096), &["the factory backup"]);
        add("factory backup on the CD: first segments", Place::Cd(start + 4096, 16 << 10), &["the factory backup"]);
    }
    let wanted = std::env::var("HOLDFAST_PLACE").unwrap_or_default();
    found.retain(|target| target.name.contains(&wanted) && contents(unit, &target.place).is_some());
    found
}

/// How a case went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// It runs, and all of the device is sound.
    Sound,
    /// It runs, and what is still damaged is what nobody on the device writes; what of that `partition-tools repair` mends is
    /// sound after that.
    Runs,
    /// It says what is wrong and what to do; if `partition-tools repair` mends that, it runs.
    Reported,
}

/// Starts a damaged device, which has to be at rest after so many `starts` more.
fn judge(unit: &Unit, target: &Target, starts: usize) -> Result<Verdict, String> {
    let first = unit.start(true);
    if let Some(lost) = unit.lost() {
        return Err(lost);
    }
    if REPORTS.contains(&first.status.into()) {
        let again = unit.start(true);
        return match unit.lost() {
            Some(lost) => Err(lost),
            None if target.remains.is_empty() => Err(format!("it could have been healed: {first:?}")),
            None if first.said.iter().any(|line| line.len() > 10) => match unit.repair() {
                Ok(mended) if !mended.is_empty() => match unit.start(true) {
                    ended if ended.status == 0 => Ok(Verdict::Reported),
                    ended => Err(format!("it does not run after repair mended {mended:?}: {ended:?}")),
                },
                Ok(_) => Ok(Verdict::Reported),
                Err(asked) if asked.contains("name different places") => Ok(Verdict::Reported),
                Err(error) => Err(format!("repair: {error}")),
            },
            None => Err(format!("it says nothing: {first:?}; again: {again:?}")),
        };
    }
    if first.status != 0 {
        return Err(format!("the first start: {first:?}"));
    }
    for start in 1..=starts {
        unit.set_times();
        let ended = unit.start(true);
        if let Some(lost) = unit.lost() {
            return Err(lost);
        }
        if ended.status == 0 && ended.quiet && !unit.was_written() {
            break;
        }
        if start == starts {
            return Err(format!("start {}: {ended:?}; the first: {first:?}", start + 1));
        }
    }
    let repaired = unit.repair();
    let problems = unit.problems();
    let stays = |problem: &String| target.remains.iter().any(|start| problem.starts_with(start));
    match problems.iter().all(stays) {
        true if problems.is_empty() && repaired.as_ref().is_ok_and(Vec::is_empty) => Ok(Verdict::Sound),
        true => Ok(Verdict::Runs),
        false => {
            Err(format!("it runs and is not sound: {problems:?}; repair: {repaired:?}; the first start: {first:?}"))
        }
    }
}

/// What the workers share.
#[derive(Default)]
struct Score {
    tried: AtomicUsize,
    verdicts: Mutex<BTreeMap<(String, Verdict), usize>>,
    faults: Mutex<Vec<String>>,
    /// What each worker is at, and since when.
    now: Mutex<BTreeMap<usize, (Instant, String)>>,
}

fn work(worker: usize, family: &Family, targets: &[Target], next: &AtomicUsize, samples: Option<usize>, score: &Score) {
    let unit = family.unit.copy();
    while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sound = contents(&family.unit, &target.place).unwrap();
        let seed = sound.len() as u64 + target.name.len() as u64;
        for damage in Damage::all(&sound, samples, seed) {
            let Some(bytes) = damage.done(&sound, family, &target.place) else { continue };
            let name = format!("{} {damage:?}", target.name);
            score.now.lock().unwrap().insert(worker, (Instant::now(), name.clone()));
            unit.put_back();
            put(&unit, &target.place, bytes.as_deref());
            unit.set_times();
            // A start renews one of two old backups, and the next start the other.
            let starts = if target.name == "hidden zone" && matches!(damage, Damage::Older) { 2 } else { 1 };
            let judged = catch_unwind(AssertUnwindSafe(|| judge(&unit, target, starts)));
            let judged = judged.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                Err(format!("panic: {}", text.unwrap_or_default()))
            });
            score.tried.fetch_add(1, Ordering::Relaxed);
            match judged {
                Ok(verdict) => {
                    *score.verdicts.lock().unwrap().entry((target.name.clone(), verdict)).or_default() += 1;
                }
                Err(fault) => {
                    println!("{name}: {fault}");
                    score.faults.lock().unwrap().push(format!("{name}: {fault}"));
                }
            }
        }
    }
    score.now.lock().unwrap().remove(&worker);
}

/// Ends the test where something hangs, and says what.
fn watch(score: &Score, workers: &[std::thread::ScopedJoinHandle<'_, ()>]) {
    while !workers.iter().all(|worker| worker.is_finished()) {
        std::thread::sleep(Duration::from_millis(50));
        for (since, name) in score.now.lock().unwrap().values() {
            if since.elapsed() > LIMIT {
                eprintln!("{name}: still at it after {} s", LIMIT.as_secs());
                std::process::abort();
            }
        }
    }
}

/// One test at a time: a process that is being started holds, for a moment, the locks of all images that are open here.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn damage_of_every_kind_in_every_place_heals_or_is_clearly_reported() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // A dual device differs in little.
    let samples = if std::env::var_os("HOLDFAST_FULL").is_some() { [None; 2] } else { [Some(6), Some(1)] };
    let (ours, theirs) = (Factory::new("Acme Notes"), Factory::new("Other Notes"));
    let mut families = [Profile::Stick, Profile::Dual].map(|profile| Family::new(&ours, &theirs, profile));
    ours.publish("2.0.0", 2);
    families.iter_mut().for_each(Family::update);
    let targets = families.each_ref().map(|family| targets(&family.unit));
    let next = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let score = Score::default();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    std::thread::scope(|scope| {
        let (families, targets, next, score, samples) = (&families, &targets, &next, &score, &samples);
        let start = |worker: usize| {
            scope.spawn(move || {
                for at in [worker % 2, 1 - worker % 2] {
                    work(worker, &families[at], &targets[at], &next[at], samples[at], score);
                }
            })
        };
        let workers: Vec<_> = (0..workers).map(start).collect();
        watch(score, &workers);
    });
    let faults = score.faults.into_inner().unwrap();
    for ((name, verdict), count) in score.verdicts.lock().unwrap().iter() {
        println!("{name}: {verdict:?} {count}");
    }
    figures::count(figures::DAMAGE, "damage times place", score.tried.into_inner(), faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_real_launcher_reports_or_runs_the_same_damage() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ours, theirs) = (Factory::new("Acme Notes"), Factory::new("Other Notes"));
    let mut families = [Profile::Stick, Profile::Dual].map(|profile| Family::new(&ours, &theirs, profile));
    ours.publish("2.0.0", 2);
    families.iter_mut().for_each(Family::update);
    let launcher = ours.launcher();
    let mut tried = 0;
    for family in &families {
        let unit = &family.unit;
        let sound = unit.launch(&launcher);
        assert_eq!((sound.status, &sound.said[..]), (CLIENT_STATUS, ""), "{sound:?}");
        assert!(!unit.was_written());
        for target in targets(unit) {
            let before = contents(unit, &target.place).unwrap();
            for damage in [Damage::Missing, Damage::Random, Damage::OtherProduct] {
                let Some(bytes) = damage.done(&before, family, &target.place) else { continue };
                unit.put_back();
                put(unit, &target.place, bytes.as_deref());
                let began = Instant::now();
                let ended = unit.launch(&launcher);
                tried += 1;
                let what = format!("{} {damage:?}: {ended:?}", target.name);
                assert!(began.elapsed() < LIMIT && !ended.said.contains("panicked"), "{what}");
                assert_eq!(unit.lost(), None, "{what}");
                if ended.status != CLIENT_STATUS {
                    assert!(REPORTS.contains(&ended.status), "{what}");
                    // What is wrong, and what to do.
                    assert!(ended.said.lines().count() >= 2, "{what}");
                }
            }
            unit.put_back();
        }
    }
    figures::count(figures::DAMAGE, "damage, with the real launcher", tried, 0);
}
