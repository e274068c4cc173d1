//! Damage times place: each structure of a device in each way in which bytes go wrong. After each the device runs a verified
//! updater and is sound again, or says what is wrong and what to do; a user's files stay as they were.
//!
//! Each case is a plug-in of a whole device image in this process, with the engine in the updater's place; some of them
//! are run by the real launcher as well. `HOLDFAST_FULL=1` flips every byte of what is small;
//! `HOLDFAST_PLACE=journal,spool` takes only what has one of these in its name.
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
use firmware_image::sim::{Medium, Random, figures};
use firmware_image::{Digest, FreeZone as _, paths};
use matrix::model::Model;
use matrix::volume::Volume;
use matrix::{CLIENT_STATUS, DISK_BYTES, Ended, Factory, Family, USERS as USERS_FILES, Unit, noise, write};
use support::PLATFORM;
use updater::spool::SPOOL;

/// What is flipped byte by byte.
const SMALL_BYTES: usize = 4096;
/// What is cut at each length.
const SHORT_BYTES: usize = 64;
const SHORT_BYTES_IN_FULL: usize = 1024;
const SECTOR_BYTES: usize = 512;
/// A disk that is too small for a free zone of FAT32.
const FAT16_DISK_BYTES: u64 = 84 << 20;
/// What is wrong with the virtual zone is left to the factory.
const DISC: &[&str] = &["the virtual zone", "device.cfg", "the launcher for", "the updater for"];
/// Two sound boot sectors that differ in where things are: somebody has to say which is right.
const BOOT: &[&str] = &["the free zone's boot sector and its copy", "mine.txt in", "letters/to you.txt in"];
/// What only `fsck` finds: of a user's own files, and of what a broken chain makes of them.
const USERS: &[&str] = &["mine.txt in", "letters/to you.txt in", "the free zone's directories", STRAY];
/// In such a list: files of the free zone that nobody made.
const STRAY: &str = "a name that is nobody's";
/// The free zone's directories that are Holdfast's.
const DIRECTORIES: [&str; 2] = [paths::CLIENT_DIR, paths::STATE_DIR];
/// Where the primary descriptor has the root directory's record (ECMA-119, 8.4).
const ISO_ROOT: std::ops::Range<usize> = 156..190;
/// Exit statuses for what no start can heal (`docs/launcher.md`).
const REPORTS: [i32; 6] = [66, 69, 70, 72, 73, 78];
/// What has to be said with each: what is wrong, and what to do about it; one of these each.
const WORDS: [(i32, &[&str], &[&str]); 6] = [
    (66, &["virtual zone"], &["Write the device anew with `partition-tools`", "name it with --virtual"]),
    (69, &["no good copy of the updater"], &["To recover by hand:"]),
    (70, &["No copy of the updater on this device starts"], &["To recover by hand:"]),
    (
        72,
        &["could not be started", "free zone cannot be opened", "has no place to run in"],
        &["`partition-tools repair`", "format the free zone", "ask whoever gave you this device"],
    ),
    (
        73,
        &["client is whole", "client is in the middle of a change", "client is not whole"],
        &["Plug the device in again"],
    ),
    (78, &["device.cfg"], &["Take a device of the same kind"]),
];
/// That of them which says that the client is not whole.
const NOT_WHOLE: u8 = 73;
/// No exit status of the launcher's: the client is started, and nobody can tell whether it is whole (the updater's 5).
const UNKNOWN: u8 = 5;
/// How often is said how far it is.
const TELL: Duration = Duration::from_secs(60);
/// Nothing takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of all of it as one place.
const HIDDEN_ZONE: &str = "hidden zone";

/// Where a structure stands.
#[derive(Clone)]
enum Place {
    /// Bytes of the disk.
    Disk(u64, usize),
    /// Bytes of the CD.
    Cd(u64, usize),
    /// A file of the free zone.
    File(String),
}

/// What a device with the store in reach makes of damage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It runs, and all of it is sound again.
    Heals,
    /// It runs. Lines of `partition-tools verify` that begin so may stay: nobody on the device writes there, nor does `repair`.
    Runs(&'static [&'static str]),
    /// As `Runs`, or it says what is wrong and what to do.
    Reports(&'static [&'static str]),
}

struct Target {
    name: String,
    place: Place,
    outcome: Outcome,
    /// Whether the client, or what tells it from others, is hit, so that it may not be whole before a server is in reach.
    client: bool,
    /// Starts after the first until one has nothing to do.
    starts: usize,
    /// Whether its parts are places of their own, in which bytes are flipped.
    whole: bool,
}

#[derive(Clone, Debug)]
enum Damage {
    Missing,
    /// As long as it was, but of zeros; of a stretch of a disk that is the same as nothing.
    Zeros,
    Ones,
    Random,
    Truncated(usize),
    Flipped(usize, u8),
    Older,
    OtherDevice,
    OtherProduct,
}

/// Why a kind of damage cannot be done somewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dropped {
    /// It is the same as another kind, or no damage.
    Same,
    /// The other unit has no such file.
    Lacking,
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
    }
}

/// Puts `bytes` there, with zeros behind them; `None`: nothing.
fn put(unit: &Unit, place: &Place, bytes: Option<&[u8]>) {
    match place {
        Place::Disk(at, length) | Place::Cd(at, length) => {
            let mut whole = vec![0; *length];
            let bytes = bytes.unwrap_or_default();
            whole[..bytes.len()].copy_from_slice(bytes);
            file_of(unit, place).write_all_at(&whole, *at).unwrap();
        }
        Place::File(path) => unit.with_free(|free| match bytes {
            Some(bytes) => write(free, path, bytes),
            None => assert!(free.remove(path).unwrap()),
        }),
    }
}

impl Damage {
    /// All kinds for something that is `sound`. `samples`: as many lengths and bytes, where it is not each of them.
    fn all(sound: &[u8], samples: Option<usize>, seed: u64) -> Vec<Self> {
        let mut kinds = vec![
            Self::Missing,
            Self::Zeros,
            Self::Ones,
            Self::Random,
            Self::Older,
            Self::OtherDevice,
            Self::OtherProduct,
        ];
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

    /// What stands there then; `None` in it: nothing.
    fn done(&self, sound: &[u8], family: &Family, place: &Place) -> Result<Option<Vec<u8>>, Dropped> {
        let of = |unit: &Unit| match contents(unit, place) {
            None => Err(Dropped::Lacking),
            Some(bytes) if bytes == sound => Err(Dropped::Same),
            bytes => Ok(bytes),
        };
        match self {
            Self::Missing => Ok(None),
            Self::Zeros if !matches!(place, Place::File(_)) => Err(Dropped::Same),
            Self::Zeros => Ok(Some(vec![0; sound.len()])),
            Self::Ones => Ok(Some(vec![0xff; sound.len()])),
            Self::Random => Ok(Some(noise(sound.len() as u64, sound.len()))),
            Self::Truncated(length) => Ok(Some(sound[..*length].to_vec())),
            Self::Flipped(at, mask) => {
                let mut bytes = sound.to_vec();
                bytes[*at] ^= mask;
                Ok(Some(bytes))
            }
            Self::Older => of(&family.older),
            Self::OtherDevice => of(&family.other_device),
            Self::OtherProduct => of(&family.other_product),
        }
    }
}

/// Every structure of a device at rest.
fn targets(unit: &Unit) -> Vec<Target> {
    use Outcome::{Heals, Reports, Runs};
    let device = unit.open(Access::ReadOnly);
    let table = device.table().unwrap();
    let (free, hidden) = (table.free().unwrap(), table.hidden().unwrap());
    let disk_bytes = fs::metadata(&unit.disk).unwrap().len();
    let mut found = Vec::new();
    let mut add = |name: &str, place, outcome| {
        // Where two chains have become one, mending a file takes from the other, which the next start mends.
        let starts = if matches!(outcome, Reports(USERS)) { 2 } else { 1 };
        found.push(Target { name: name.into(), place, outcome, client: false, starts, whole: false });
    };
    let disk = |at: u64, length: usize| Place::Disk(at, length);
    add("protective MBR", disk(0, 512), Runs(&[]));
    add("GPT header", disk(512, 512), Runs(&[]));
    add("GPT entries", disk(1024, 512), Runs(&[]));
    add("GPT entries, the others", disk(1536, 31 * 512), Runs(&[]));
    add("GPT backup header", disk(disk_bytes - 512, 512), Runs(&[]));
    add("GPT backup entries", disk(disk_bytes - 33 * 512, 512), Runs(&[]));
    add("GPT backup entries, the others", disk(disk_bytes - 32 * 512, 31 * 512), Runs(&[]));

    let volume = Volume::of(&unit.disk, free);
    let place = |(at, length): (u64, usize)| Place::Disk(at, length);
    add("FAT boot sector", disk(free.start, 512), Reports(BOOT));
    if volume.geometry.backup_boot > 0 {
        add("FAT summary sector", disk(free.start + volume.geometry.fs_info, 512), Runs(USERS));
        add("FAT backup boot sector", disk(free.start + volume.geometry.backup_boot, 512), Runs(BOOT));
    }
    // The part with chains in it, and all of it.
    for copy in 0..2 {
        let table = volume.table(copy);
        let outcome = if copy == 0 { Reports(USERS) } else { Runs(USERS) };
        add(&format!("FAT {}, first sectors", copy + 1), disk(table.0, 1024), outcome);
        add(&format!("FAT {}", copy + 1), place(table), outcome);
    }
    add("root directory", place(volume.root()), Reports(USERS));
    for name in DIRECTORIES {
        add(&format!("directory {name}, first cluster"), place(volume.directory(name)), Reports(USERS));
    }

    let layout = HiddenLayout::of(hidden.length, DISK_ALIGN_BYTES).unwrap();
    for slot in SlotName::ALL {
        let start = hidden.start + layout.start(slot);
        let mut header = [0; 4096];
        File::open(&unit.disk).unwrap().read_exact_at(&mut header, start).unwrap();
        let body = u64::from_le_bytes(header[24..32].try_into().unwrap());
        let segment_bytes = 1usize << header[11];
        add(&format!("{slot}: header"), disk(start, 4096), Heals);
        add(&format!("{slot}: key slots"), disk(start + 80, 4 * 96), Heals);
        let end = firmware_image::slot::slot_bytes(body, header[11]);
        for (n, at) in (4096..end).step_by(segment_bytes).enumerate() {
            let length = segment_bytes.min((end - at) as usize);
            add(&format!("{slot}: segment {n}"), disk(start + at, length), Heals);
        }
        add(&format!("{slot}: all of it"), disk(start, end as usize), Heals);
    }
    add(HIDDEN_ZONE, disk(hidden.start, hidden.length as usize), Heals);

    let (path, disc) = match &unit.cd {
        Some(cd) => (cd, Place::Cd as fn(u64, usize) -> Place),
        None => (&unit.disk, Place::Disk as fn(u64, usize) -> Place),
    };
    let start = table.virtual_zone().map_or(0, |zone| zone.start);
    let descriptor = disc(start + 16 * 2048, 2048);
    let root = contents(unit, &descriptor).unwrap()[ISO_ROOT].to_vec();
    let number = |at: usize| u32::from_le_bytes(root[at..at + 4].try_into().unwrap());
    add("ISO 9660 primary descriptor", descriptor, Reports(DISC));
    add(
        "ISO 9660 root directory's record",
        disc(start + 16 * 2048 + ISO_ROOT.start as u64, ISO_ROOT.len()),
        Reports(DISC),
    );
    add("ISO 9660 root directory", disc(start + u64::from(number(2)) * 2048, number(10) as usize), Reports(DISC));
    let medium = Medium::of_file(path).unwrap();
    let plain = unit.virtual_file(&paths::updater_name(PLATFORM));
    let launcher = unit.virtual_file(&paths::bootstrap_name(PLATFORM));
    for (name, bytes, outcome) in [
        ("device.cfg", unit.virtual_file(paths::DEVICE_CONFIG), Reports(DISC)),
        ("updater", plain, Runs(DISC)),
        ("launcher", launcher, Runs(&["the launcher for"])),
    ] {
        let at = medium.find(&bytes, 2048).unwrap();
        add(&format!("{name} in the virtual zone"), disc(at, bytes.len()), outcome);
    }
    if let Some(cd) = &unit.cd {
        let tail = device.cd_tail().unwrap().unwrap();
        let start = fs::metadata(cd).unwrap().len() - firmware_image::RawZone::len(&mut { tail }).unwrap();
        let outcome = Runs(&["the factory backup"]);
        add("factory backup on the CD: header", Place::Cd(start, 4096), outcome);
        add("factory backup on the CD: first segments", Place::Cd(start + 4096, 16 << 10), outcome);
    }
    for target in &mut found {
        target.whole = target.name == HIDDEN_ZONE || target.name.ends_with("all of it");
        target.client = target.name.starts_with("directory ");
        // What the updater has to write anew is written when there is an updater again.
        target.starts += usize::from(target.name.starts_with("FAT 1"));
    }
    found.extend(files(unit));
    found
}

/// Every file that is Holdfast's, but for what is told apart by nothing but a digest: of these one each.
fn files(unit: &Unit) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    for path in unit.files() {
        let by_digest = [paths::UNDO_DIR, paths::STAGING_DIR]
            .into_iter()
            .find(|dir| path.strip_prefix(dir).is_some_and(|name| name.len() == 1 + 2 * size_of::<Digest>()));
        let name = by_digest.map_or(path.clone(), |dir| format!("{dir}, the first file"));
        let client = path.starts_with(paths::CLIENT_DIR) || [paths::MANIFEST, paths::JOURNAL].contains(&&path[..]);
        let is_users = USERS_FILES.iter().any(|(users, ..)| *users == path);
        if !is_users && found.iter().all(|target| target.name != name) {
            found.push(Target {
                name,
                place: Place::File(path),
                outcome: Outcome::Heals,
                client,
                starts: 1,
                whole: false,
            });
        }
    }
    found
}

/// How a case went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// It runs, and all of the device is sound.
    Sound,
    /// It runs, and what is still damaged is what nobody on the device writes, or waits for a server; what of that
    /// `partition-tools repair` mends is sound after it.
    Runs,
    /// It says what is wrong and what to do; if `partition-tools repair` mends that, it runs.
    Reported,
}

/// Starts a damaged device until it is at rest.
fn judge(unit: &Unit, target: &Target, starts: usize) -> Result<Verdict, String> {
    let first = unit.start(true);
    check(unit)?;
    if is_report(&first, target) {
        let again = unit.start(true);
        check(unit)?;
        return match target.outcome {
            Outcome::Reports(_) if says_why(&first) => match unit.repair() {
                Ok(mended) if !mended.is_empty() => match unit.start(true) {
                    ended if ended.status == 0 => Ok(Verdict::Reported),
                    ended => Err(format!("it does not run after repair mended {mended:?}: {ended:?}")),
                },
                Ok(_) => Ok(Verdict::Reported),
                Err(asked) if asked.contains("name different places") => Ok(Verdict::Reported),
                Err(error) => Err(format!("repair: {error}")),
            },
            Outcome::Reports(_) => Err(format!("it does not say why: {first:?}; again: {again:?}")),
            _ => Err(format!("it could have been healed: {first:?}")),
        };
    }
    if first.status != 0 {
        return Err(format!("the first start: {first:?}"));
    }
    come_to_rest(unit, true, may_be_lost(target), starts, &first)?;
    if !unit.client_opens() {
        return Err(format!("at rest the client is none of the releases'; the first start: {first:?}"));
    }
    let repaired = unit.repair();
    let problems = unit.problems();
    let stays = |problem: &String| match target.outcome {
        Outcome::Heals => false,
        Outcome::Runs(remains) | Outcome::Reports(remains) => {
            remains.iter().any(|start| problem.starts_with(start))
                || remains.contains(&STRAY) && is_stray(problem)
                || remains == DISC && problem.contains(" in the virtual zone cannot be read")
        }
    };
    match problems.iter().all(stays) {
        true if problems.is_empty() && repaired.as_ref().is_ok_and(Vec::is_empty) => Ok(Verdict::Sound),
        true => Ok(Verdict::Runs),
        false => {
            Err(format!("it runs and is not sound: {problems:?}; repair: {repaired:?}; the first start: {first:?}"))
        }
    }
}

/// Whether this tells of a file in the free zone's root that neither Holdfast nor the user made.
fn is_stray(problem: &str) -> bool {
    let known = [paths::CLIENT_DIR, paths::STATE_DIR, paths::updater_name("").as_str(), "letters", "mine"]
        .iter()
        .any(|start| problem.starts_with(start));
    problem.contains(" in the free zone cannot be read") && !known
}

/// The same without a server. What is missing then comes with one.
fn judge_offline(unit: &Unit, target: &Target, starts: usize) -> Result<Verdict, String> {
    let first = unit.start(false);
    check(unit)?;
    let reported = is_report(&first, target);
    if reported && !says_why(&first) {
        return Err(format!("it does not say why: {first:?}"));
    }
    let is_allowed = reported && matches!(target.outcome, Outcome::Reports(_))
        || target.client && [NOT_WHOLE, UNKNOWN].contains(&first.status);
    if first.status != 0 && !is_allowed {
        return Err(format!("the first start: {first:?}"));
    }
    come_to_rest(unit, false, may_be_lost(target), starts, &first)?;
    match target.outcome {
        Outcome::Heals if first.status != 0 => judge(unit, target, starts),
        // All that it takes is on the device.
        Outcome::Heals if !target.client => match unit.problems() {
            problems if problems.is_empty() => Ok(Verdict::Sound),
            problems => Err(format!("it runs and is not sound: {problems:?}; the first start: {first:?}")),
        },
        _ => Ok(Verdict::Runs),
    }
}

/// Whether a start says that something is wrong; where a file system may be beyond help, also that nobody can tell whether the
/// client is whole.
fn is_report(ended: &Ended, target: &Target) -> bool {
    let may_be_unknown = may_be_lost(target) && ended.status == UNKNOWN;
    REPORTS.contains(&ended.status.into()) || may_be_unknown
}

/// Whether a file system may be beyond help where this is damaged.
fn may_be_lost(target: &Target) -> bool {
    matches!(target.outcome, Outcome::Reports(_))
}

/// Whether one of these is said.
fn says(said: &str, words: &[&str]) -> bool {
    words.iter().any(|words| said.contains(words))
}

/// Whether a start says what is wrong. The sentences of the launcher's that stand around that, and what to do, are none of this
/// process's: the real launcher's are looked at in a test of their own.
fn says_why(ended: &Ended) -> bool {
    let said = ended.said.join("\n");
    match ended.status {
        66 => WORDS.iter().any(|(status, why, to_do)| *status == 66 && says(&said, why) && says(&said, to_do)),
        69 | 70 => says(&said, &["hidden backup"]),
        72 => says(&said, &["free zone cannot be opened", "has no place to run in"]),
        73 => says(&said, &["client", "journal", "free zone", "server"]),
        78 => says(&said, &["device.cfg"]),
        UNKNOWN => says(&said, &["cannot ", "server"]),
        _ => false,
    }
}

/// What must be true after every start.
fn check(unit: &Unit) -> Result<(), String> {
    unit.lost().or_else(|| unit.estranged()).map_or(Ok(()), Err)
}

/// After at most so many `starts` one finds nothing to do, and writes nothing; on a file system that may be beyond help one may try a
/// restore again, which leaves every byte as it was.
fn come_to_rest(unit: &Unit, online: bool, may_be_lost: bool, starts: usize, first: &Ended) -> Result<(), String> {
    for start in 1..=starts {
        unit.set_times();
        let may_try = may_be_lost || REPORTS.contains(&first.status.into());
        let before = may_try.then(|| fs::read(&unit.disk).unwrap());
        let ended = unit.start(online);
        check(unit)?;
        let is_quiet = ended.status == 0 && ended.quiet || first.status != 0 && ended.status == first.status;
        if is_quiet && (!unit.was_written() || before.is_some_and(|bytes| bytes == fs::read(&unit.disk).unwrap())) {
            return Ok(());
        }
        if start == starts {
            return Err(format!("start {}: {ended:?}; the first: {first:?}", start + 1));
        }
    }
    Ok(())
}

/// What the workers share.
#[derive(Default)]
struct Score {
    tried: AtomicUsize,
    /// Not tried, since the other unit has no such file.
    lacking: AtomicUsize,
    /// By place, and whether the store was in reach.
    verdicts: Mutex<BTreeMap<(String, bool, Verdict), usize>>,
    faults: Mutex<Vec<String>>,
    /// What each worker is at, and since when.
    now: Mutex<BTreeMap<usize, (Instant, String)>>,
}

/// A family, what of it is damaged, and how much.
struct Lot {
    family: Family,
    targets: Vec<Target>,
    samples: Option<usize>,
    /// The next target.
    next: AtomicUsize,
}

impl Lot {
    fn new(family: Family, targets: Vec<Target>, samples: Option<usize>) -> Self {
        Self { family, targets, samples, next: AtomicUsize::new(0) }
    }
}

fn work(worker: usize, lot: &Lot, score: &Score) {
    let Lot { family, samples, .. } = lot;
    let (samples, mut unit) = (*samples, family.unit.copy());
    while let Some(target) = lot.targets.get(lot.next.fetch_add(1, Ordering::Relaxed)) {
        let sound = contents(&family.unit, &target.place).unwrap();
        let seed = sound.len() as u64 + target.name.len() as u64;
        let mut random = Random::new(seed);
        for damage in Damage::all(&sound, if target.whole { Some(0) } else { samples }, seed) {
            let bytes = match damage.done(&sound, family, &target.place) {
                Ok(bytes) => bytes,
                Err(Dropped::Same) => continue,
                Err(Dropped::Lacking) => {
                    score.lacking.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            // The record decides which device it is, and every hidden one says the same then.
            let is_another = target.name == HIDDEN_ZONE && matches!(damage, Damage::OtherDevice);
            unit.becomes(if is_another { &family.other_device } else { &family.unit });
            // Of what differs in little, half.
            if samples.is_some_and(|samples| samples <= 1) && random.draw() & 1 == 0 {
                continue;
            }
            // With the store in reach or without; in full both.
            let drawn = random.draw() & 1 == 0;
            for online in [true, false].into_iter().filter(|online| samples.is_none() || *online == drawn) {
                let name = format!("{} {damage:?}, {}", target.name, if online { "online" } else { "offline" });
                score.now.lock().unwrap().insert(worker, (Instant::now(), name.clone()));
                unit.put_back();
                put(&unit, &target.place, bytes.as_deref());
                // A start renews one of two old backups, and the next start the other.
                let is_old = target.name == HIDDEN_ZONE && matches!(damage, Damage::Older);
                let starts = target.starts + usize::from(is_old);
                let judge = if online { judge } else { judge_offline };
                let judged = catch_unwind(AssertUnwindSafe(|| judge(&unit, target, starts)));
                let judged = judged.unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    Err(format!("panic: {}", text.unwrap_or_default()))
                });
                score.tried.fetch_add(1, Ordering::Relaxed);
                match judged {
                    Ok(verdict) => {
                        *score.verdicts.lock().unwrap().entry((target.name.clone(), online, verdict)).or_default() += 1;
                    }
                    Err(fault) => {
                        println!("{name}: {fault}");
                        score.faults.lock().unwrap().push(format!("{name}: {fault}"));
                    }
                }
            }
        }
    }
    score.now.lock().unwrap().remove(&worker);
}

/// Says how far it is, and ends the test where something hangs, and says what.
fn watch(score: &Score, workers: &[std::thread::ScopedJoinHandle<'_, ()>]) {
    let mut told = Instant::now();
    while !workers.iter().all(|worker| worker.is_finished()) {
        std::thread::sleep(Duration::from_millis(50));
        if told.elapsed() > TELL {
            told = Instant::now();
            let bad = score.faults.lock().unwrap().len();
            let now: Vec<String> = score.now.lock().unwrap().values().map(|(_, name)| name.clone()).collect();
            println!("{} cases so far, {bad} bad; at {}", score.tried.load(Ordering::Relaxed), now.join(" | "));
        }
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
    // A dual device differs in little, and FAT16 in the free zone's own structures; of one amid an update only what that has
    // put there is of interest, amid its download the spool.
    let full = std::env::var_os("HOLDFAST_FULL").is_some();
    let samples = |some| if full { None } else { Some(some) };
    let (ours, theirs) = (Factory::new("Acme Notes"), Factory::new("Other Notes"));
    let models = ["ours", "another"].map(|name| Model::named(&ours, name, DISK_BYTES));
    let stick = |disk_bytes| Family::new(&ours, &theirs, Profile::Stick, disk_bytes);
    let mut families =
        [stick(DISK_BYTES), Family::new(&ours, &theirs, Profile::Dual, DISK_BYTES), stick(FAT16_DISK_BYTES)];
    ours.publish("2.0.0", 2);
    families.iter_mut().for_each(Family::update);
    let [stick, dual, fat16] = families;
    let interrupted = |wanted: &dyn Fn(&Model, &Medium) -> bool| {
        let [unit, other] = models.each_ref().map(|model| model.amid_an_update(|medium| wanted(model, medium)));
        Family::interrupted(&ours, &theirs, &unit, &other)
    };
    let committing = interrupted(&|model, medium| model.has_open_commit(medium));
    let downloading = interrupted(&|model, medium| model.has_downloaded(medium));
    let mut amid = [files(&committing.unit), files(&downloading.unit)];
    amid[1].retain(|target| target.name == SPOOL);
    assert!(!amid[1].is_empty());
    for (target, amid) in amid
        .iter_mut()
        .zip(["an update", "a download"])
        .flat_map(|(targets, amid)| targets.iter_mut().map(move |target| (target, amid)))
    {
        target.name = format!("{}, amid {amid}", target.name);
        // Finished, and then what follows one by one.
        target.starts = 5;
    }
    let [committing_targets, downloading_targets] = amid;
    let mut on_fat16 = targets(&fat16.unit);
    on_fat16.retain(|target| {
        target.name.contains("FAT") || target.name.contains("directory") && !target.name.contains("ISO")
    });
    on_fat16.iter_mut().for_each(|target| target.name.push_str(", FAT16"));
    assert!(!on_fat16.iter().any(|target| target.name.contains("backup")));
    let (stick_targets, dual_targets) = (targets(&stick.unit), targets(&dual.unit));
    let mut lots = vec![
        Lot::new(stick, stick_targets, samples(4)),
        Lot::new(dual, dual_targets, samples(1)),
        Lot::new(committing, committing_targets, samples(0)),
        Lot::new(downloading, downloading_targets, samples(4)),
        Lot::new(fat16, on_fat16, samples(4)),
    ];
    let wanted = std::env::var("HOLDFAST_PLACE").unwrap_or_default();
    let is_wanted = |target: &Target| wanted.split(',').any(|part| target.name.contains(part));
    lots.iter_mut().for_each(|lot| lot.targets.retain(is_wanted));
    let score = Score::default();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    std::thread::scope(|scope| {
        let (lots, score) = (&lots, &score);
        let start = |worker: usize| {
            scope.spawn(move || {
                for at in (0..lots.len()).map(|at| (at + worker) % lots.len()) {
                    work(worker, &lots[at], score);
                }
            })
        };
        let workers: Vec<_> = (0..workers).map(start).collect();
        watch(score, &workers);
    });
    let faults = score.faults.into_inner().unwrap();
    for ((name, online, verdict), count) in score.verdicts.lock().unwrap().iter() {
        println!("{name}, {}: {verdict:?} {count}", if *online { "online" } else { "offline" });
    }
    println!("cases left out, as the other unit has no such file: {}", score.lacking.into_inner());
    figures::count(figures::DAMAGE, "damage times place", score.tried.into_inner(), faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_real_launcher_reports_or_runs_the_same_damage() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ours, theirs) = (Factory::new("Acme Notes"), Factory::new("Other Notes"));
    let mut families = [Profile::Stick, Profile::Dual].map(|profile| Family::new(&ours, &theirs, profile, DISK_BYTES));
    ours.publish("2.0.0", 2);
    families.iter_mut().for_each(Family::update);
    let launcher = ours.launcher();
    let mut tried = 0;
    for family in &families {
        let unit = &family.unit;
        let sound = unit.launch(&launcher);
        assert_eq!((sound.status, &sound.said[..]), (CLIENT_STATUS, ""), "{sound:?}");
        assert!(!unit.was_written());
        // The updater on the device only says that it is ready, and mends no client.
        for target in targets(unit).into_iter().filter(|target| !target.name.starts_with(paths::CLIENT_DIR)) {
            let before = contents(unit, &target.place).unwrap();
            for damage in [Damage::Missing, Damage::Random, Damage::OtherProduct] {
                let Ok(bytes) = damage.done(&before, family, &target.place) else { continue };
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
                    let (_, why, to_do) = WORDS.iter().find(|(status, ..)| *status == ended.status).unwrap();
                    assert!(says(&ended.said, why) && says(&ended.said, to_do), "{what}");
                }
            }
            unit.put_back();
        }
    }
    figures::count(figures::DAMAGE, "damage, with the real launcher", tried, 0);
}

#[test]
fn a_newer_record_of_another_unit_in_the_hidden_zone_makes_no_other_device_of_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (ours, theirs) = (Factory::new("Acme Notes"), Factory::new("Other Notes"));
    let mut family = Family::new(&ours, &theirs, Profile::Stick, DISK_BYTES);
    ours.publish("2.0.0", 2);
    family.update();
    let (unit, record) = (&family.unit, family.other_device.newer_record());
    let hidden = unit.open(Access::ReadOnly).table().unwrap().hidden().unwrap();
    let layout = HiddenLayout::of(hidden.length, DISK_ALIGN_BYTES).unwrap();
    let mut tried = 0;
    for slot in SlotName::RECORDS {
        for online in [true, false] {
            unit.put_back();
            let place = Place::Disk(hidden.start + layout.start(slot), record.len());
            put(unit, &place, Some(&record));
            let at = format!("{slot}, online: {online}");
            let first = unit.start(online);
            assert_eq!((first.status, check(unit)), (0, Ok(())), "{at}: {first:?}");
            assert_eq!(come_to_rest(unit, online, false, 1, &first), Ok(()), "{at}");
            assert_eq!(unit.problems(), [""; 0], "{at}");
            tried += 1;
        }
    }
    figures::count(figures::DAMAGE, "another unit's record in the hidden zone", tried, 0);
}
