//! A factory's devices as images: made by `partition-tools`, updated once, started as launcher and updater start them, and
//! put back byte by byte after each case; the same on simulated disks in [`model`].
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bootstrap::launcher::image::Image;
use bootstrap::launcher::zones::Zones as _;
use bootstrap::{Product, Session};
use embedded_io::Write as _;
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Profile};
use firmware_image::hidden::HiddenZone;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::any_zone::walk;
use firmware_image::image::{AnyFreeZone, Device, VirtualZone as _};
use firmware_image::journal::Journal;
use firmware_image::key_slot::DeviceId;
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::places::{Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::signature::PublicKey;
use firmware_image::sim::Medium;
use firmware_image::slot::{self, Kind};
use firmware_image::storage::{MemoryZone, Window};
use firmware_image::updater_image::{MAX_TRAILER_BYTES, UpdaterVersion, verify_bytes};
use firmware_image::{Digest, FreeZone, RawZone, ZoneError, ZoneFile as _, paths};
use partition_tools::create::{Request, create};
use partition_tools::random::Random;
use release_store::Directory;
use release_store::keys::{KeyDir, KeySource, Passphrase};
use release_store::publish::{DeltaFrom, PublishRequest, publish};
use release_store::repository::{NoObserver, Repository};
use updater::backups::Turn;
use updater::host::{Guard, Probe, Silent};
use updater::meter::Meter;
use updater::servers::Servers;
use updater::{Action, Config, Engine, FailureKind, Host, Limits, Parts};

use crate::support::{self, Memory, PLATFORM};

pub mod model;
pub mod volume;

const NOW: i64 = 1_800_000_000;
/// The bytes of most disks here.
pub const DISK_BYTES: u64 = 108 << 20;
/// Where the devices are plugged in as well; nothing here can run its updater.
pub const OTHER_PLATFORM: &str = "windows-x86_64";
/// What the client ends with.
pub const CLIENT_STATUS: i32 = 7;
/// The user's files: path, seed, length.
pub const USERS: [(&str, u64, usize); 2] = [("mine.txt", 100, 3000), ("letters/to you.txt", 101, 1500)];
/// Bytes that are looked at as one when an image is kept.
const PAGE_BYTES: usize = 4096;

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// A vendor's keys and store, with two releases and their updaters.
pub struct Factory {
    dir: tempfile::TempDir,
    product: &'static str,
    /// Bytes of a large file that each release has; 0: none.
    large_bytes: usize,
    passphrase: Passphrase,
    pub vendor: PublicKey,
}

impl Factory {
    pub fn new(product: &'static str) -> Self {
        Self::with_large(product, 0)
    }

    /// One whose releases have a large file of so many bytes, new in each.
    pub fn with_large(product: &'static str, large_bytes: usize) -> Self {
        let dir = temporary();
        let passphrase = Passphrase::new("correct horse".into()).unwrap();
        let keys = KeyDir::create(&dir.path().join("keys"), product, &passphrase, NOW).unwrap();
        let vendor = *keys.vendor_key();
        fs::write(dir.path().join("bootstrap"), program("exit 0", 1)).unwrap();
        Repository::init(&dir.path().join("store"), &keys, &passphrase, NOW).unwrap();
        let factory = Self { dir, product, large_bytes, passphrase, vendor };
        factory.publish("1.0.0", 1);
        factory
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Publishes a release with an updater.
    pub fn publish(&self, version: &str, seed: u64) {
        let keys = KeyDir::open(&self.path("keys")).unwrap();
        let tree = self.path("tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("data")).unwrap();
        for (path, bytes) in self.release(version, seed) {
            fs::write(tree.join(path), bytes).unwrap();
        }
        support::set_mode(&tree.join("run.sh"), 0o755);
        let (updater, others) = (self.path("updater"), self.path("updater of another platform"));
        fs::write(&updater, program("printf R >&$HOLDFAST_READY_FD; exit 0", seed)).unwrap();
        fs::write(&others, program("exit 1", seed + 200)).unwrap();
        let mut request = PublishRequest::new(tree, version.to_owned(), NOW);
        request.deltas = DeltaFrom::Versions(Vec::new());
        request.updater_version = UpdaterVersion::parse(version);
        request.updaters = vec![(PLATFORM.to_owned(), updater), (OTHER_PLATFORM.to_owned(), others)];
        let mut repository = Repository::open(&self.path("store"), &keys).unwrap();
        publish(&mut repository, &self.passphrase, &request, &mut NoObserver).unwrap();
    }

    /// A release's files: one that changes, one that stays, one that comes or goes, and the large one.
    fn release(&self, version: &str, seed: u64) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![
            ("run.sh".into(), client(version).into_bytes()),
            ("data/notes.bin".into(), noise(seed, 9000)),
            ("data/same.bin".into(), noise(50, 2500)),
            (format!("data/only {version}.txt"), noise(seed + 60, 700)),
        ];
        if self.large_bytes > 0 {
            files.push(("data/large.bin".into(), noise(seed + 80, self.large_bytes)));
        }
        files
    }

    /// The launcher, stamped with the vendor's key.
    pub fn launcher(&self) -> PathBuf {
        let path = self.dir.path().join("launcher");
        let mut program = fs::read(env!("CARGO_BIN_EXE_bootstrap")).unwrap();
        firmware_image::stamp::stamp(&mut program, &self.vendor).unwrap();
        fs::write(&path, program).unwrap();
        support::set_mode(&path, 0o755);
        path
    }

    /// A device as it leaves the factory, with release 1.0.0 and a user's files, on a disk of so many bytes.
    fn device_of(&self, name: &str, profile: Profile, disk_bytes: u64) -> Unit {
        let dir = temporary();
        let disk = dir.path().join("disk.img");
        let cd = (profile == Profile::Dual).then(|| dir.path().join("cd.iso"));
        let request = Request {
            profile,
            out: disk.clone(),
            cd_out: cd.clone(),
            disk_bytes,
            leave_bytes: 0,
            hidden_bytes: None,
            product: self.product.into(),
            channel: None,
            servers: vec![("http://127.0.0.1:1/store".into(), 1)],
            bootstraps: vec![(PLATFORM.into(), self.path("bootstrap"))],
            updaters: Vec::new(),
            updater_version: UpdaterVersion::parse("1.0.0").unwrap(),
            client_commands: vec![(String::new(), "client/run.sh".into())],
            release: Some((self.path("store"), "1.0.0".into())),
            offline_source: false,
            timestamp: None,
            random: Random::seeded(name),
            force: false,
        };
        let keys = KeySource::open(&self.path("keys")).unwrap();
        create(&request, &keys, Some(&self.passphrase), &mut partition_tools::progress::Silent).unwrap();
        let mut unit = Unit {
            disk,
            cd,
            vendor: self.vendor,
            store: self.path("store"),
            config: Vec::new(),
            id: None,
            clients: [self.release("1.0.0", 1), self.release("2.0.0", 2)],
            images: Vec::new(),
            kept: Vec::new(),
            users: Vec::new(),
            _dir: dir,
        };
        unit.config = unit.virtual_file(paths::DEVICE_CONFIG);
        unit.id = unit.id_found();
        unit.with_free(|free| {
            for (path, seed, length) in USERS {
                write(free, path, &noise(seed, length));
            }
        });
        let free = unit.free_start();
        let disk = Medium::of_file(&unit.disk).unwrap();
        for (_, seed, length) in USERS {
            let content = noise(seed, length);
            let found = disk.find(&content, 512).unwrap();
            assert!(found > free);
            unit.users.push((found, content));
        }
        unit.images.push(unit.file(&paths::updater_name(PLATFORM)).unwrap());
        unit.keep();
        unit
    }
}

/// What the client of a release is.
fn client(version: &str) -> String {
    format!("#!/bin/sh\n# {version}\nexit {CLIENT_STATUS}\n")
}

/// A script with room for a stamp.
fn program(script: &str, seed: u64) -> Vec<u8> {
    let mut bytes = format!("#!/bin/sh\n{script}\nexit 1\n").into_bytes();
    bytes.extend_from_slice(b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a");
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&noise(seed, 20_000));
    bytes
}

/// Devices of one profile: one that was updated, as it is and as it was before, and those of others.
pub struct Family {
    pub unit: Unit,
    pub older: Unit,
    pub other_device: Unit,
    pub other_product: Unit,
}

impl Family {
    /// A stick that was cut amid an update, as it was a little before, and another one that was cut amid the same.
    pub fn interrupted(ours: &Factory, theirs: &Factory, unit: &Interrupted, other: &Interrupted) -> Self {
        let mut family = Self::new(ours, theirs, Profile::Stick, DISK_BYTES);
        family.unit.keep_disk(&unit.medium, unit.updater.clone());
        family.older.keep_disk(&unit.earlier, unit.updater.clone());
        family.other_device.keep_disk(&other.medium, other.updater.clone());
        family
    }

    /// As the factories make them, with disks of so many bytes.
    pub fn new(ours: &Factory, theirs: &Factory, profile: Profile, disk_bytes: u64) -> Self {
        Self {
            unit: ours.device_of("ours", profile, disk_bytes),
            older: ours.device_of("ours", profile, disk_bytes),
            other_device: ours.device_of("another", profile, disk_bytes),
            other_product: theirs.device_of("theirs", profile, disk_bytes),
        }
    }

    /// Takes our devices to the release that was published meanwhile.
    pub fn update(&mut self) {
        self.unit.update();
        self.other_device.update();
    }
}

/// What an update leaves that is cut.
pub struct Interrupted {
    pub medium: Medium,
    /// The same at an earlier cut.
    pub earlier: Medium,
    /// The updater that the update brings.
    pub updater: Vec<u8>,
}

/// A device as images.
pub struct Unit {
    pub disk: PathBuf,
    pub cd: Option<PathBuf>,
    vendor: PublicKey,
    store: PathBuf,
    /// Its configuration, as the factory wrote it.
    config: Vec<u8>,
    /// Which device it is.
    id: Option<DeviceId>,
    /// The files of its product's releases.
    clients: [Vec<(String, Vec<u8>)>; 2],
    /// Updaters that its vendor signed for its product.
    images: Vec<Vec<u8>>,
    kept: Vec<Kept>,
    /// Where on the disk the user's files stand, and their contents.
    users: Vec<(u64, Vec<u8>)>,
    _dir: tempfile::TempDir,
}

/// What stands in an image, without its holes.
#[derive(Clone)]
struct Kept {
    path: PathBuf,
    length: u64,
    runs: Vec<(u64, Vec<u8>)>,
}

/// How a start ended.
#[derive(Debug)]
pub struct Ended {
    /// The launcher's exit status; 0 stands for the client's own, 1 and 5 for that beside an updater that ended so.
    pub status: u8,
    /// What was said.
    pub said: Vec<String>,
    /// Whether anything but the usual was found or done.
    pub quiet: bool,
}

impl Unit {
    /// The same device in images of its own.
    pub fn copy(&self) -> Self {
        let dir = temporary();
        let moved = |path: &Path| dir.path().join(path.file_name().unwrap());
        let kept = self.kept.iter().map(|kept| Kept { path: moved(&kept.path), ..kept.clone() }).collect();
        let unit = Self {
            disk: moved(&self.disk),
            cd: self.cd.as_deref().map(moved),
            vendor: self.vendor,
            store: self.store.clone(),
            config: self.config.clone(),
            id: self.id,
            clients: self.clients.clone(),
            images: self.images.clone(),
            kept,
            users: self.users.clone(),
            _dir: dir,
        };
        unit.put_back();
        unit
    }

    /// Goes to release 2.0.0, which proves itself, and on until nothing is left to do.
    fn update(&mut self) {
        for round in 0..4 {
            if round == 2 {
                let trial = Some(Trial { serial: 2, failed_starts: 0, proven: true });
                self.with_free(|free| LauncherNote { trial, ..LauncherNote::default() }.write(free).unwrap());
            }
            let ended = self.start(true);
            assert_eq!(ended.status, 0, "{ended:?}");
            self.images.push(self.file(&paths::updater_name(PLATFORM)).unwrap());
        }
        assert!(self.images[0] != self.images[1]);
        assert_eq!(self.file("client/run.sh").unwrap(), client("2.0.0").as_bytes());
        assert!(self.problems().is_empty(), "{:?}", self.problems());
        self.keep();
        let ended = self.start(true);
        assert!(ended.status == 0 && ended.quiet && !self.was_written(), "{ended:?}");
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.disk), self.cd.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }

    fn keep(&mut self) {
        self.kept = self.paths().map(Kept::of).collect();
        self.put_back();
    }

    /// Makes the images again what they were when they were kept.
    pub fn put_back(&self) {
        for kept in &self.kept {
            let file = File::options().write(true).create(true).truncate(true).open(&kept.path).unwrap();
            file.set_len(kept.length).unwrap();
            for (at, bytes) in &kept.runs {
                file.write_all_at(bytes, *at).unwrap();
            }
        }
        self.set_times();
    }

    /// Gives the images a time that no write gives them.
    pub fn set_times(&self) {
        for path in self.paths() {
            let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
            File::options().write(true).open(path).unwrap().set_times(times).unwrap();
        }
    }

    /// Whether anything was written since [`Self::set_times`].
    pub fn was_written(&self) -> bool {
        self.paths().any(|path| fs::metadata(path).unwrap().modified().unwrap() != SystemTime::UNIX_EPOCH)
    }

    pub fn open(&self, access: Access) -> Device {
        Device::open(&self.disk, self.cd.as_deref(), access).unwrap()
    }

    fn free_start(&self) -> u64 {
        self.open(Access::ReadOnly).table().unwrap().free().unwrap().start
    }

    pub fn with_free<R>(&self, work: impl FnOnce(&AnyFreeZone) -> R) -> R {
        let free = self.open(Access::ReadWrite).free_zone().unwrap();
        let out = work(&free);
        free.close().unwrap();
        out
    }

    /// A file of the free zone.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let free = self.open(Access::ReadOnly).free_zone().unwrap();
        let mut file = free.open(path).unwrap()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        firmware_image::storage::read_exact_at(&mut file, 0, &mut bytes).unwrap();
        Some(bytes)
    }

    /// Whether each file of one of the releases opens by its name and is what it was.
    pub fn client_opens(&self) -> bool {
        let is_there = |(path, bytes): &(String, Vec<u8>)| {
            self.file(&format!("{}/{path}", paths::CLIENT_DIR)).as_ref() == Some(bytes)
        };
        self.clients.iter().any(|files| files.iter().all(is_there))
    }

    /// A file of the virtual zone.
    pub fn virtual_file(&self, path: &str) -> Vec<u8> {
        let zone = self.open(Access::ReadOnly).virtual_zone().unwrap();
        zone.read_file(path, 1 << 20).unwrap().unwrap()
    }

    /// The paths of all files of the free zone.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let free = self.open(Access::ReadOnly).free_zone().unwrap();
        walk(&free, "", &mut |path, _| files.push(path.to_owned())).unwrap();
        files
    }

    /// A record slot as a newer one of this device's would stand in a hidden zone.
    pub fn newer_record(&self) -> Vec<u8> {
        let config = DeviceConfig::open(&self.config, &self.vendor).unwrap();
        let hidden = self.open(Access::ReadOnly).hidden_zone().unwrap();
        let mut places = Places {
            hidden: Some(HiddenZone::new(hidden, config.align_bytes.into()).unwrap()),
            free: None::<&AnyFreeZone>,
            cd_tail: None::<Window<FileZone>>,
        };
        let (mut scratch, mut body) = (Box::<Scratch>::default(), vec![0; MAX_RECORD_BYTES]);
        let found = places.newest_record(&config.secret(), &mut scratch.memory(), &mut body).unwrap();
        let mut bytes = vec![0; MAX_RECORD_BYTES];
        let bytes = found.record.encode(&mut bytes).unwrap().to_vec();
        let (identity, generation) = (&found.identity, found.generation + 10);
        let mut slot = vec![0; 2 * MAX_RECORD_BYTES];
        let write = slot::Write { kind: Kind::Record, generation, identity, segment_log2: 12 };
        let mut zone = MemoryZone::new(&mut slot);
        let length = write.write(&mut zone, &mut &bytes[..], &mut scratch.segment).unwrap();
        slot.truncate(length as usize);
        slot
    }

    /// From now on it has to take itself for `other`.
    pub fn becomes(&mut self, other: &Self) {
        self.id = other.id;
    }

    /// For which other device it takes itself.
    pub fn estranged(&self) -> Option<String> {
        let id = self.id_found();
        (id.is_some() && id != self.id).then(|| format!("it takes itself for {id:?} and is {:?}", self.id))
    }

    /// Which device it takes itself for; `None`: no record says so.
    fn id_found(&self) -> Option<DeviceId> {
        let device = Device::open(&self.disk, self.cd.as_deref(), Access::ReadOnly).ok()?;
        let config = DeviceConfig::open(&self.config, &self.vendor).unwrap();
        id_of(&config, device.hidden_zone().ok(), device.free_zone().ok().as_ref())
    }

    /// Puts this onto the disk, of the same length, for good.
    pub fn keep_disk(&mut self, medium: &Medium, updater: Vec<u8>) {
        fs::write(&self.disk, medium.bytes(0, medium.length() as usize)).unwrap();
        self.images.push(updater);
        self.users.iter_mut().for_each(|(at, content)| *at = medium.find(content, 512).unwrap());
        self.keep();
    }

    /// What the user's files have lost.
    pub fn lost(&self) -> Option<String> {
        let disk = File::open(&self.disk).unwrap();
        for (at, content) in &self.users {
            let mut found = vec![0; content.len()];
            disk.read_exact_at(&mut found, *at).unwrap();
            if found != *content {
                return Some(format!("a user's file was overwritten at byte {at}"));
            }
        }
        None
    }

    /// What `partition-tools verify` says is not sound.
    pub fn problems(&self) -> Vec<String> {
        let options = partition_tools::survey::Options { vendor: Some(self.vendor), thorough: true };
        let silent = &mut partition_tools::progress::Silent;
        match partition_tools::survey::survey(&self.disk, self.cd.as_deref(), &options, silent) {
            Ok(survey) => survey.problems(),
            Err(error) => vec![error.to_string()],
        }
    }

    /// Runs `partition-tools repair`, where nobody can be asked; what it mended.
    pub fn repair(&self) -> Result<Vec<String>, String> {
        let made = partition_tools::repair::open(&self.disk, &Default::default(), false).and_then(|mut disk| {
            let plan = partition_tools::repair::Plan::make(&mut disk, &self.disk, None, &mut |_| None)?;
            if !plan.is_empty() {
                plan.carry_out(&mut disk, &self.disk)?;
            }
            Ok(plan.lines())
        });
        made.map_err(|error| error.to_string())
    }

    /// One plug-in with the real launcher, which starts the updater on the device: one that only says that it is ready.
    pub fn launch(&self, launcher: &Path) -> support::Ended {
        let mut command = Command::new(launcher);
        command.arg("--device").arg(&self.disk);
        if let Some(cd) = &self.cd {
            command.arg("--virtual").arg(cd);
        }
        support::Ended::of(support::output(&mut command))
    }

    /// One plug-in, in this process: the launcher's decisions, then the updater's. `online`: its store is in reach.
    pub fn start(&self, online: bool) -> Ended {
        let refused = |status, said: Vec<String>| Ended { status, said, quiet: false };
        let image = match Image::open(&self.disk, self.cd.as_deref()) {
            Ok(image) => image,
            Err(error) => return refused(66, vec![error.to_string(), error.hint().into()]),
        };
        let hint = "Take a device of the same kind.".to_owned();
        let bytes = match image.config(&self.vendor) {
            Ok(bytes) => bytes,
            Err(error) => return refused(78, vec![format!("device.cfg cannot be read: {error}"), hint]),
        };
        let config = match DeviceConfig::open(&bytes, &self.vendor) {
            Ok(config) => config,
            Err(error) => return refused(78, vec![format!("device.cfg is not to be trusted: {error}"), hint]),
        };
        let align = u64::from(config.align_bytes);
        let product =
            Product { vendor: self.vendor, name: config.product, platform: PLATFORM, secret: config.secret() };
        let mut scratch = Box::<Scratch>::default();
        let mut opened = image.open(align, PLATFORM);
        let has_free = opened.free.is_some();
        let mut device = opened.device(&mut scratch);
        let mut session = Session::open(product, &mut device, &mut vec![0; MAX_RECORD_BYTES]);
        let next = session.next(&mut device, &mut Memory);
        drop(device);
        drop(opened);
        let mut said: Vec<String> = session.report().events().iter().map(ToString::to_string).collect();
        let Some(start) = next else {
            said.extend(image.out_of_reach());
            return refused(69, said);
        };
        let bytes = bootstrap::verified::SealedBytes::bytes(start.copy.image());
        assert!(self.images.iter().any(|image| image == bytes), "a copy runs that is none of the product's");
        if !has_free {
            said.extend(image.out_of_reach());
            return refused(72, said);
        }
        let quiet = said.is_empty();
        let updater = self.updater(bytes, online);
        said.extend(updater.said);
        let quiet = quiet && updater.action == Some(Action::None);
        if updater.status == 3 {
            return refused(73, said);
        }
        let free = image.open(align, PLATFORM).free;
        match free.as_ref().map(Journal::read) {
            Some(Ok(journal)) if journal.state().is_open() => return refused(73, said),
            Some(Err(error)) => {
                said.push(format!("the journal cannot be read: {error}"));
                return refused(73, said);
            }
            Some(Ok(_)) | None => {}
        }
        drop(free);
        match image.client_home() {
            Ok(home) => {
                let client = home.path().join(paths::CLIENT_DIR);
                let is_there =
                    |(path, bytes): &(String, Vec<u8>)| fs::read(client.join(path)).is_ok_and(|found| found == *bytes);
                let whole = self.clients.iter().any(|files| files.iter().all(is_there));
                assert!(whole, "a client would be started that is none of the releases': {} {said:?}", updater.status);
            }
            Err(error) => {
                said.push(format!("the client has no place to run in: {error}"));
                return refused(72, said);
            }
        }
        let mut opened = image.open(align, PLATFORM);
        session.settle(&mut opened.device(&mut scratch), &start);
        // Whatever else kept the updater from its work, the client runs.
        Ended { status: if [0, 5].contains(&updater.status) { updater.status } else { 1 }, said, quiet }
    }

    /// As `updater run` does it.
    fn updater(&self, started: &[u8], online: bool) -> Updated {
        let failed = |said: String| Updated { status: 1, said: vec![said], action: None };
        let device = match Device::open(&self.disk, self.cd.as_deref(), Access::ReadWrite) {
            Ok(device) => device,
            Err(error) => return failed(error.to_string()),
        };
        let free = match device.free_zone() {
            Ok(free) => free,
            Err(error) => return failed(format!("the free zone cannot be opened: {error}")),
        };
        let read = |zone: firmware_image::image::any_zone::AnyVirtualZone| {
            zone.read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64).ok().flatten()
        };
        let bytes = device.virtual_zone().ok().and_then(read);
        let bytes = bytes.or_else(|| {
            updater::zone_io::read_small(&free, paths::CONFIG_COPY, MAX_CONFIG_BYTES as u64).ok().flatten()
        });
        let config = match Config::open(&bytes.unwrap_or_default(), &self.vendor) {
            Ok(config) => config,
            Err(error) => return failed(error.to_string()),
        };
        let hidden = match device.hidden_zone().and_then(|zone| HiddenZone::new(zone, config.align_bytes)) {
            Ok(hidden) => Some(hidden),
            Err(ZoneError::NotFound | ZoneError::OutOfBounds) => None,
            Err(error) => return failed(error.to_string()),
        };
        let cd_tail = device.cd_tail().ok().flatten();
        let host = Machine::new(started, &self.vendor);
        let meter = Meter::new(None, None);
        let store = Box::new(Directory::new(self.store.clone())) as Box<dyn release_store::Transport>;
        let servers = if online { vec![(store, 1)] } else { Vec::new() };
        let result = {
            let parts = Parts {
                free: &free,
                places: Places { hidden, free: Some(&free), cd_tail },
                config,
                vendor: self.vendor,
                servers: Servers::new(servers, &meter, &host),
                offline: None,
                host: &host,
                watch: &Silent,
                hash: updater::hash::sequential::<AnyFreeZone>,
            };
            let mut engine = match Engine::load(parts) {
                Ok(engine) => engine,
                Err(error) => return failed(error.to_string()),
            };
            // Whatever would be in turn some day is in turn now.
            engine.set_limits(Limits { turn: Some(Turn::Everything), rounds: 2, ..Limits::default() });
            let updated = match engine.run(&mut Told) {
                Ok(outcome) => {
                    let said = if outcome.whole { Vec::new() } else { vec!["the client is not whole".to_owned()] };
                    Updated { status: if outcome.whole { 0 } else { 3 }, said, action: Some(outcome.action) }
                }
                Err(error) => {
                    let status = match (engine.is_whole(), error.kind() == FailureKind::Busy) {
                        (true, true) => 4,
                        (true, false) if engine.has_list() => 1,
                        (true, false) => 5,
                        (false, _) => 3,
                    };
                    Updated { status, said: vec![error.to_string()], action: None }
                }
            };
            engine.write_log();
            updated
        };
        match free.close() {
            Ok(()) => result,
            Err(error) => failed(format!("the free zone could not be closed cleanly: {error}")),
        }
    }
}

/// Which device zones with this configuration are.
fn id_of<H: RawZone, F: FreeZone>(config: &DeviceConfig<'_>, hidden: Option<H>, free: Option<&F>) -> Option<DeviceId> {
    let hidden = hidden.and_then(|zone| HiddenZone::new(zone, config.align_bytes.into()).ok());
    let mut places = Places { hidden, free, cd_tail: None::<Window<FileZone>> };
    let mut scratch = Box::<Scratch>::default();
    let mut body = vec![0; MAX_RECORD_BYTES];
    let found = places.newest_record(&config.secret(), &mut scratch.memory(), &mut body);
    found.map(|found| found.identity.device_id)
}

impl Kept {
    fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        for (at, page) in bytes.chunks(PAGE_BYTES).enumerate() {
            if page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let at = (at * PAGE_BYTES) as u64;
            match runs.last_mut() {
                Some((start, run)) if *start + run.len() as u64 == at => run.extend_from_slice(page),
                _ => runs.push((at, page.to_vec())),
            }
        }
        Self { path: path.to_owned(), length: bytes.len() as u64, runs }
    }
}

/// Writes a file of the free zone.
pub fn write<F: FreeZone>(free: &F, path: &str, bytes: &[u8]) {
    let mut file = free.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
}

struct Updated {
    status: u8,
    said: Vec<String>,
    action: Option<Action>,
}

/// A launcher that only waits.
struct Told;

impl updater::operations::Launcher for Told {
    fn ready(&mut self) {}
    fn go(&mut self) -> bool {
        false
    }
    fn wait_for_client(&mut self) {}
}

/// A machine whose clock stands, and which draws the same numbers each time.
struct Machine {
    draws: AtomicU64,
    version: UpdaterVersion,
    trailer: Vec<u8>,
}

impl Machine {
    fn new(started: &[u8], vendor: &PublicKey) -> Self {
        let mut buffer = [0; MAX_TRAILER_BYTES];
        let trailer = verify_bytes(started, vendor, &mut buffer).unwrap();
        Self { draws: AtomicU64::new(0), version: trailer.body().version, trailer: trailer.bytes().to_vec() }
    }
}

impl Host for Machine {
    fn now(&self) -> i64 {
        NOW
    }
    fn sleep(&self, _time: Duration) {}
    fn random(&self, bytes: &mut [u8]) -> Result<(), String> {
        for part in bytes.chunks_mut(32) {
            let draw = self.draws.fetch_add(1, Ordering::Relaxed);
            part.copy_from_slice(&Digest::of(&draw.to_le_bytes()).0[..part.len()]);
        }
        Ok(())
    }
    fn own_version(&self) -> Option<UpdaterVersion> {
        Some(self.version)
    }
    fn launched_trailer(&self) -> Option<Vec<u8>> {
        Some(self.trailer.clone())
    }
    fn probe(&self, image: &mut dyn std::io::Read) -> Probe {
        std::io::copy(image, &mut std::io::sink()).unwrap();
        Probe::Ready
    }
    fn lock_client(&self) -> Result<Option<Guard>, String> {
        Ok(Some(Box::new(())))
    }
    fn wait_for_client(&self) -> bool {
        false
    }
}
