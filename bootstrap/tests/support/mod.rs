//! A small factory: keys, updater images, and a device of real directories and a real hidden zone.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::SystemTime;

use bootstrap::decide::Start;
use bootstrap::device::{Product, Stored};
use bootstrap::launcher::zones::Directories;
use bootstrap::report::{Crash, Event};
use bootstrap::verified::{LoadError, RunPlace, SealedBytes};
use bootstrap::{Session, Source};
use firmware_image::backup::{BackupBody, Index};
use firmware_image::device_config::{ClientCommand, DeviceConfig, Policies, Profile, WrappedContentKey};
use firmware_image::hidden::{HiddenLayout, HiddenZone, SlotName};
use firmware_image::host::{Access, FileZone};
use firmware_image::key_slot::{Cost, Identity};
use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::{Places, Scratch};
use firmware_image::record::{MAX_RECORD_BYTES, VersionRecord};
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::sim::figures;
use firmware_image::slot::{Kind, Write, slot_bytes};
use firmware_image::storage::Window;
use firmware_image::updater_image::{
    Floors, IMAGE_ALIGN, KeyCertificate, MAX_TRAILER_BYTES, Statement, UpdaterVersion, make_trailer,
};
use firmware_image::{Digest, FreeZone, ZoneError, paths};

pub const PRODUCT: &str = "acme-stick";
pub const PLATFORM: &str = paths::THIS_PLATFORM;

/// The launcher that the tests run.
pub struct Tested {
    pub file: PathBuf,
    /// For which the device's updaters are made.
    pub platform: &'static str,
    /// What runs it where it is for another processor.
    pub emulator: Option<&'static str>,
    pub is_shipped: bool,
}

/// The one that was just built, or one as it ships, which `HOLDFAST_LAUNCHER` names.
pub static TESTED: LazyLock<Tested> = LazyLock::new(|| {
    let Some(file) = std::env::var_os("HOLDFAST_LAUNCHER").map(PathBuf::from) else {
        let file = env!("CARGO_BIN_EXE_bootstrap").into();
        return Tested { file, platform: PLATFORM, emulator: None, is_shipped: false };
    };
    // ELF, "e_machine": 183 is EM_AARCH64.
    let arm = fs::read(&file).unwrap()[18..20] == [183, 0];
    let emulator = (arm && PLATFORM != "linux-aarch64").then_some("qemu-aarch64");
    Tested { file, platform: if arm { "linux-aarch64" } else { PLATFORM }, emulator, is_shipped: true }
});

/// Small, so that a sweep over thousands of devices is quick. Nothing but the zones' starts depends on it.
pub const ALIGN: u64 = 32 << 10;
const SEGMENT_LOG2: u8 = 12;

pub fn version(text: &str) -> UpdaterVersion {
    UpdaterVersion::parse(text).unwrap()
}

/// What makes an updater image.
#[derive(Clone)]
pub struct Maker {
    pub product: &'static str,
    pub platform: &'static str,
    pub version: &'static str,
    pub key_serial: u32,
    pub floors: Floors,
    pub vendor_seed: u8,
}

impl Maker {
    pub fn new(version: &'static str) -> Self {
        let floors = Floors::default();
        Self { product: PRODUCT, platform: TESTED.platform, version, key_serial: 1, floors, vendor_seed: 1 }
    }

    pub fn make(&self, program: &[u8]) -> Vec<u8> {
        let vendor = SigningKey::from_seed(&[self.vendor_seed; 32]);
        let key = SigningKey::from_seed(&[2; 32]);
        let certificate = KeyCertificate::issue(&vendor, self.key_serial, key.public());
        let mut image = program.to_vec();
        image.resize(image.len().next_multiple_of(IMAGE_ALIGN), b'\n');
        let statement = Statement {
            product: self.product,
            platform: self.platform,
            version: version(self.version),
            floors: self.floors,
        };
        let mut trailer = [0; MAX_TRAILER_BYTES];
        let trailer = make_trailer(&image, &statement, &certificate, &key, &mut trailer).unwrap();
        image.extend_from_slice(trailer);
        image
    }
}

/// A program of some 20 KiB that differs by version, and is no script and no ELF.
pub fn body(version: &str) -> Vec<u8> {
    let mut seed = Digest::of(version.as_bytes());
    let mut out = Vec::new();
    while out.len() < 20_000 {
        out.extend_from_slice(&seed.0);
        seed = Digest::of(&seed.0);
    }
    out
}

/// An updater of this version, from the right vendor.
pub fn image(version: &'static str) -> Vec<u8> {
    Maker::new(version).make(&body(version))
}

/// The digest by which an image is noted.
pub fn digest_of(image: &[u8]) -> Digest {
    let vendor = SigningKey::from_seed(&[1; 32]).public();
    let mut trailer = [0; MAX_TRAILER_BYTES];
    firmware_image::updater_image::verify_bytes(image, &vendor, &mut trailer).unwrap().body().sha256
}

/// A device of directories.
pub struct Device {
    _root: tempfile::TempDir,
    pub virtual_zone: PathBuf,
    pub free: PathBuf,
    pub hidden: PathBuf,
    pub identity: Identity,
    pub policies: Policies,
    /// Whose updaters and launcher it has.
    pub platform: &'static str,
}

impl Device {
    /// A device with an empty free zone, an empty hidden zone, and only a configuration in the virtual zone.
    pub fn new() -> Self {
        Self::of_platform(TESTED.platform)
    }

    /// As [`Self::new`], for another platform.
    pub fn of_platform(platform: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let (virtual_zone, free, hidden) = (at("virtual"), at("free"), at("hidden.img"));
        fs::create_dir(&virtual_zone).unwrap();
        fs::create_dir(&free).unwrap();
        let mut scratch = Box::<Scratch>::default();
        let identity = Identity::mint(&[7; 64], Cost::UNATTENDED, &secret(), &mut scratch.blocks).unwrap();
        let device =
            Self { virtual_zone, free, hidden, identity, policies: Policies::default(), platform, _root: root };
        device.make_hidden(64 << 10);
        device.write_config("client/run.sh");
        device
    }

    /// A new, empty hidden zone whose backups hold so many bytes.
    pub fn make_hidden(&self, backup_bytes: u64) {
        fs::write(&self.hidden, []).unwrap();
        let bytes = HiddenLayout::zone_bytes_for(backup_bytes, ALIGN);
        fs::OpenOptions::new().write(true).open(&self.hidden).unwrap().set_len(bytes).unwrap();
    }

    /// As the factory leaves it: the same updater everywhere.
    pub fn from_factory(image: &[u8]) -> Self {
        Self::new().made(image)
    }

    /// Puts the same updater everywhere.
    pub fn made(self, image: &[u8]) -> Self {
        let device = self;
        device.install(image);
        device.backup(SlotName::BackupA, 1, image);
        device.backup(SlotName::BackupB, 2, image);
        device.mirror_backup(2, image);
        device.plain(image);
        device.record(SlotName::RecordA, 1, image);
        device
    }

    pub fn write_config(&self, command: &str) {
        let signed = config_with(ALIGN as u32, command, self.policies);
        fs::write(self.virtual_zone.join(paths::DEVICE_CONFIG), signed).unwrap();
    }

    pub fn installed_path(&self) -> PathBuf {
        self.free.join(paths::updater_name(self.platform).as_str())
    }

    pub fn plain_path(&self) -> PathBuf {
        self.virtual_zone.join(paths::updater_name(self.platform).as_str())
    }

    pub fn installed(&self) -> Option<Vec<u8>> {
        fs::read(self.installed_path()).ok()
    }

    pub fn install(&self, image: &[u8]) {
        fs::write(self.installed_path(), image).unwrap();
    }

    pub fn plain(&self, image: &[u8]) {
        fs::write(self.plain_path(), image).unwrap();
    }

    fn zone(&self) -> HiddenZone<FileZone> {
        HiddenZone::new(FileZone::open(&self.hidden, Access::ReadWrite).unwrap(), ALIGN).unwrap()
    }

    fn write_slot(
        &self,
        zone: &mut dyn firmware_image::RawZone,
        kind: Kind,
        generation: u64,
        body: &mut dyn firmware_image::slot::Body,
    ) {
        let mut scratch = Box::<Scratch>::default();
        let write = Write { kind, generation, identity: &self.identity, segment_log2: SEGMENT_LOG2 };
        write.write(&mut { zone }, body, &mut scratch.segment).unwrap();
    }

    pub fn backup(&self, slot: SlotName, generation: u64, image: &[u8]) {
        let mut images = [image];
        let index = Index::layout([(self.platform, image.len() as u64)].into_iter()).unwrap();
        let mut body = BackupBody::new(index, &mut images).unwrap();
        self.write_slot(&mut self.zone().slot(slot).unwrap(), Kind::Backup, generation, &mut body);
    }

    pub fn mirror_backup(&self, generation: u64, image: &[u8]) {
        let mut images = [image];
        let index = Index::layout([(self.platform, image.len() as u64)].into_iter()).unwrap();
        let bytes = slot_bytes(index.body_bytes(), SEGMENT_LOG2);
        let mut body = BackupBody::new(index, &mut images).unwrap();
        let path = self.free.join(paths::BACKUP_MIRROR);
        let mut zone = self.new_file(&path, bytes);
        self.write_slot(&mut zone, Kind::Backup, generation, &mut body);
    }

    fn new_file(&self, path: &Path, bytes: u64) -> FileZone {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, []).unwrap();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
        FileZone::open(path, Access::ReadWrite).unwrap()
    }

    fn record_bytes(&self, statement_of: &[u8], change: impl FnOnce(&mut VersionRecord<'_>)) -> Vec<u8> {
        let mut buffer = [0; MAX_TRAILER_BYTES];
        let mut reader = firmware_image::storage::SliceReader::new(statement_of);
        let statement = if statement_of.is_empty() {
            &[][..]
        } else {
            firmware_image::updater_image::read_trailer(&mut reader, statement_of.len() as u64, &mut buffer).unwrap()
        };
        let mut record = VersionRecord::new(self.identity.device_id);
        record.statement = statement;
        change(&mut record);
        let mut out = vec![0; MAX_RECORD_BYTES];
        record.encode(&mut out).unwrap().to_vec()
    }

    /// A record that carries the statement of `statement_of`.
    pub fn record(&self, slot: SlotName, generation: u64, statement_of: &[u8]) {
        self.record_with(slot, generation, statement_of, |_| {});
    }

    pub fn record_with(
        &self,
        slot: SlotName,
        generation: u64,
        statement_of: &[u8],
        change: impl FnOnce(&mut VersionRecord<'_>),
    ) {
        let bytes = self.record_bytes(statement_of, change);
        self.write_slot(&mut self.zone().slot(slot).unwrap(), Kind::Record, generation, &mut &bytes[..]);
    }

    pub fn mirror_record(&self, generation: u64, statement_of: &[u8]) {
        let bytes = self.record_bytes(statement_of, |_| {});
        let length = slot_bytes(bytes.len() as u64, SEGMENT_LOG2);
        let mut zone = self.new_file(&self.free.join(paths::RECORD_MIRROR), length);
        self.write_slot(&mut zone, Kind::Record, generation, &mut &bytes[..]);
    }

    /// Overwrites `length` bytes of a slot, from `offset` on.
    pub fn scribble(&self, slot: SlotName, offset: u64, length: usize) {
        use std::os::unix::fs::FileExt as _;
        let start = self.zone().layout().start(slot) + offset;
        let file = fs::OpenOptions::new().write(true).open(&self.hidden).unwrap();
        file.write_all_at(&vec![0xa5; length], start).unwrap();
    }

    pub fn note(&self) -> LauncherNote {
        let free = firmware_image::host::DirZone::open(&self.free).unwrap();
        LauncherNote::read(&free).unwrap()
    }

    /// Runs the library over the device, as the launcher does.
    pub fn launch(&self, fate: impl FnMut(&Start<Bytes>) -> Fate) -> Launched {
        let zones = Directories::given(&self.virtual_zone, Some(&self.free), Some(&self.hidden)).unwrap();
        launch(&zones, fate)
    }

    /// As [`Self::launch`], on a computer that lets nothing run but `image`.
    pub fn launch_only(&self, image: &[u8]) -> Launched {
        let zones = Directories::given(&self.virtual_zone, Some(&self.free), Some(&self.hidden)).unwrap();
        launch_in(&zones, &mut Picky(image), |_| Fate::Ready)
    }

    /// As [`Self::launch`], with this body of the free zone and nothing in the virtual one.
    pub fn launch_over(&self, free: &impl FreeZone, mut fate: impl FnMut(&Start<Bytes>) -> Fate) -> Launched {
        let mut scratch = Box::<Scratch>::default();
        let hidden = FileZone::open(&self.hidden, Access::ReadOnly).unwrap();
        let mut zones = bootstrap::Device {
            places: Places {
                hidden: Some(HiddenZone::new(hidden, ALIGN).unwrap()),
                free: Some(free),
                cd_tail: None::<Window<FileZone>>,
            },
            plain: None::<FileZone>,
            memory: scratch.memory(),
        };
        let mut session = Session::open(product(), &mut zones, &mut vec![0; MAX_RECORD_BYTES]);
        let mut runs = Vec::new();
        while let Some(start) = session.next(&mut zones, &mut Memory) {
            runs.push(Run::of(&start));
            match fate(&start) {
                Fate::Crash => session.crashed(Some(free), &start, Crash::Fault(11)),
                Fate::Ready => {
                    session.settle(&mut zones, &start);
                    break;
                }
            }
        }
        Launched { runs, events: session.report().events().to_vec() }
    }

    /// Every file, its bytes and its time, and those of directories.
    pub fn everything(&self) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
        let mut out = BTreeMap::new();
        let mut left = vec![self.virtual_zone.clone(), self.free.clone(), self.hidden.clone()];
        while let Some(path) = left.pop() {
            let found = fs::symlink_metadata(&path).unwrap();
            let bytes = if found.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            out.insert(path, (found.modified().unwrap(), bytes));
        }
        out
    }

    /// The launcher, stamped with the vendor's key, in the virtual zone.
    pub fn launcher(&self) -> PathBuf {
        self.stamped_launcher(&TESTED.file)
    }

    /// This program as the launcher, stamped with the vendor's key, in the virtual zone.
    pub fn stamped_launcher(&self, program: &Path) -> PathBuf {
        let path = self.virtual_zone.join(paths::bootstrap_name(self.platform).as_str());
        if !path.exists() {
            let mut program = fs::read(program).unwrap();
            let vendor = SigningKey::from_seed(&[1; 32]).public();
            firmware_image::stamp::stamp(&mut program, &vendor).unwrap();
            fs::write(&path, program).unwrap();
            set_mode(&path, 0o755);
        }
        path
    }

    /// The launcher without arguments.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(TESTED.emulator.map_or_else(|| self.launcher(), PathBuf::from));
        if TESTED.emulator.is_some() {
            command.arg(self.launcher());
        }
        // What the tests are told is no business of what they test.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"HOLDFAST_")) {
            command.env_remove(name);
        }
        command
    }

    /// The launcher's command line for this device.
    pub fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.arg("--virtual").arg(&self.virtual_zone).arg("--free").arg(&self.free);
        command.arg("--hidden").arg(&self.hidden);
        command
    }

    /// Runs the launcher.
    pub fn start(&self, args: &[&str]) -> Ended {
        Ended::of(output(self.command().args(args)))
    }

    /// Puts a client script into the free zone.
    pub fn client(&self, script: &str) {
        let path = self.free.join("client/run.sh");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        set_mode(&path, 0o755);
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file system in memory over a device's free zone, as long as this lives.
pub struct Mounted<'d>(&'d Device);

impl<'d> Mounted<'d> {
    /// One of so many KiB, which `fill` fills; `None`, which is said, where that is not allowed.
    pub fn new(device: &'d Device, kib: u64, fill: impl FnOnce(&Device)) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        if mount("tmpfs", &device.free, "tmpfs", MountFlags::empty(), Self::size(kib).as_c_str()).is_err() {
            figures::skipped("mounting a tmpfs needs root");
            return None;
        }
        let mounted = Self(device);
        fill(device);
        Some(mounted)
    }

    fn size(kib: u64) -> std::ffi::CString {
        std::ffi::CString::new(format!("size={kib}k")).unwrap()
    }

    /// From now on it can only be read.
    pub fn protect(&self) {
        rustix::mount::mount_remount(&self.0.free, rustix::mount::MountFlags::RDONLY, c"").unwrap();
    }

    /// From now on it has so many KiB in all.
    pub fn resize(&self, kib: u64) {
        let size = Self::size(kib);
        rustix::mount::mount_remount(&self.0.free, rustix::mount::MountFlags::empty(), size.as_c_str()).unwrap();
    }

    /// KiB that are taken.
    pub fn used_kib(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.0.free).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize / 1024
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0.free, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// A configuration with the usual policies.
pub fn config(align_bytes: u32, command: &str) -> Vec<u8> {
    config_with(align_bytes, command, Policies::default())
}

fn config_with(align_bytes: u32, command: &str, policies: Policies) -> Vec<u8> {
    let config = DeviceConfig {
        product: PRODUCT,
        channel: "stable",
        profile: Profile::Stick,
        align_bytes,
        servers: Default::default(),
        client_commands: std::iter::once(ClientCommand { platform: "", command }).collect(),
        root: &[],
        product_secret: *secret().expose(),
        content_key: WrappedContentKey::wrap(1, &Secret::new([4; 32]), &secret()),
        policies,
    };
    let mut out = vec![0; 4096];
    config.sign(&SigningKey::from_seed(&[1; 32]), &mut out).unwrap().to_vec()
}

pub fn secret() -> Secret {
    Secret::new([3; 32])
}

/// A shell script as an updater image.
pub fn script(version: &'static str, script: &str) -> Vec<u8> {
    Maker::new(version).make(format!("#!/bin/sh\n{script}\nexit 0\n").as_bytes())
}

/// A script that becomes ready, leaves a trace in the free zone's `trace` file, and ends.
pub fn good_script(version: &'static str) -> Vec<u8> {
    script(version, &format!("{TRACE}\ntrace {version} \"$@\"\nprintf R >&$HOLDFAST_READY_FD"))
}

/// Finds `--free` among the arguments and appends a line to `trace` beside it.
pub const TRACE: &str = r#"trace() { line="$*"; shift; while [ $# -gt 0 ]; do
if [ "$1" = --free ]; then echo "$line" >> "$2/../trace"; fi; shift; done; }"#;

/// Starts what was just written. Another test's fork may hold the file open for writing for a moment.
pub fn patiently<T>(mut start: impl FnMut() -> std::io::Result<T>) -> T {
    loop {
        match start() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            started => return started.unwrap(),
        }
    }
}

/// The output of a command that was just written.
pub fn output(command: &mut Command) -> Output {
    patiently(|| command.output())
}

/// How the launcher ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub out: String,
    pub said: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What becomes of a copy that a test starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Ready,
    Crash,
}

/// A copy that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub bytes: Vec<u8>,
    pub source: Source,
    pub recover: bool,
}

impl Run {
    fn of(start: &Start<Bytes>) -> Self {
        Self { bytes: start.copy.bytes().to_vec(), source: start.source, recover: start.recover }
    }
}

/// What a launch did.
#[derive(Debug)]
pub struct Launched {
    pub runs: Vec<Run>,
    pub events: Vec<Event>,
}

impl Launched {
    /// The copy that became ready.
    pub fn last(&self) -> &Run {
        self.runs.last().unwrap()
    }

    /// Where the restored copy came from.
    pub fn restored_from(&self) -> Option<Source> {
        self.events.iter().find_map(|event| match event {
            Event::Restored { from, .. } => Some(*from),
            _ => None,
        })
    }
}

/// Bytes in memory, as a place to run from.
pub struct Bytes(Vec<u8>);

impl SealedBytes for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

pub struct Memory;

impl RunPlace for Memory {
    type Image = Bytes;

    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<Bytes, LoadError> {
        let mut bytes = vec![0; length as usize];
        firmware_image::storage::read_exact_at(source, 0, &mut bytes).map_err(LoadError::Read)?;
        Ok(Bytes(bytes))
    }
}

/// A place on a computer that has these bytes only and no others.
pub struct Picky<'b>(pub &'b [u8]);

impl RunPlace for Picky<'_> {
    type Image = Bytes;

    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<Bytes, LoadError> {
        let loaded = Memory.load(source, length)?;
        if loaded.0 == self.0 { Ok(loaded) } else { Err(LoadError::Place(ZoneError::Denied)) }
    }
}

fn product() -> Product<'static> {
    let vendor = SigningKey::from_seed(&[1; 32]).public();
    Product { vendor, name: PRODUCT, platform: PLATFORM, secret: secret() }
}

/// Runs the library over zones until a copy is ready or none is left.
pub fn launch<Z: bootstrap::launcher::zones::Zones>(zones: &Z, fate: impl FnMut(&Start<Bytes>) -> Fate) -> Launched {
    launch_in(zones, &mut Memory, fate)
}

/// As [`launch`], in this place.
pub fn launch_in<Z: bootstrap::launcher::zones::Zones>(
    zones: &Z,
    place: &mut impl RunPlace<Image = Bytes>,
    mut fate: impl FnMut(&Start<Bytes>) -> Fate,
) -> Launched {
    let mut scratch = Box::<Scratch>::default();
    let mut opened = zones.open(ALIGN, PLATFORM);
    let mut session = Session::open(product(), &mut opened.device(&mut scratch), &mut vec![0; MAX_RECORD_BYTES]);
    let mut runs = Vec::new();
    loop {
        let mut opened = zones.open(ALIGN, PLATFORM);
        let Some(start) = session.next(&mut opened.device(&mut scratch), place) else { break };
        runs.push(Run::of(&start));
        let mut opened = zones.open(ALIGN, PLATFORM);
        match fate(&start) {
            Fate::Crash => session.crashed(opened.free.as_ref(), &start, Crash::Fault(11)),
            Fate::Ready => {
                session.settle(&mut opened.device(&mut scratch), &start);
                break;
            }
        }
    }
    Launched { runs, events: session.report().events().to_vec() }
}
