//! The launcher on raw images: a stick and a dual device, with real FAT32, ISO 9660 and GPT inside.
#![cfg(feature = "image")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use embedded_io::Write as _;
use firmware_image::FreeZone as _;
use firmware_image::backup::{BackupBody, Index};
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenLayout, HiddenZone, SlotName};
use firmware_image::host::Access;
use firmware_image::image::build::{Layout, MIN_FREE_BYTES, dual, stick};
use firmware_image::image::gpt::Guids;
use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::image::{AnyFreeZone, Device as Raw};
use firmware_image::key_slot::{Cost, DeviceId, Identity};
use firmware_image::paths;
use firmware_image::places::Scratch;
use firmware_image::record::VersionRecord;
use firmware_image::slot::{Kind, Write};
use support::{Device, Ended, Mounted, PLATFORM, image, output, script, secret};

struct RawDevice {
    root: tempfile::TempDir,
    disk: PathBuf,
    cd: Option<PathBuf>,
    launcher: PathBuf,
    updater: Vec<u8>,
}

impl RawDevice {
    fn new(is_dual: bool, updater: &[u8]) -> Self {
        let parts = Device::new();
        parts.plain(updater);
        let launcher = parts.launcher();
        let root = tempfile::tempdir().unwrap();
        let kept = root.path().join("bootstrap");
        fs::copy(&launcher, &kept).unwrap();
        let disk = root.path().join("device.img");
        let cd = is_dual.then(|| root.path().join("cd.iso"));
        let hidden_bytes = HiddenLayout::zone_bytes_for(1, DISK_ALIGN_BYTES);
        let layout = Layout {
            disk_bytes: MIN_FREE_BYTES + hidden_bytes + (24 << 20),
            leave_bytes: 0,
            hidden_bytes,
            product: support::PRODUCT.into(),
            volume_id: 7,
            guids: Guids::new(&DeviceId([5; 16]), &[5; 48]),
            timestamp: 1_700_000_000,
        };
        // Sectors of the hidden zone of an image stand on 4 MiB.
        let config = support::config(DISK_ALIGN_BYTES as u32, "client/run.sh with arguments");
        let files = [
            IsoFile::new(paths::DEVICE_CONFIG, Source::Bytes(config.into())),
            IsoFile::program(paths::updater_name(PLATFORM).as_str(), Source::Bytes(updater.to_vec().into())),
        ];
        match &cd {
            None => stick(&disk, &layout, &files).unwrap(),
            Some(cd) => dual(&disk, cd, 1 << 20, &layout, &files).unwrap(),
        }
        let device = Self { root, disk, cd, launcher: kept, updater: updater.to_vec() };
        device.open().format_free(*b"FREE       ", 7).unwrap();
        device.with_free(|free| {
            write(free, &paths::updater_name(PLATFORM), updater);
            write(free, "client/run.sh", b"#!/bin/sh\ncat client/data/text; echo \"$@\"; pwd; exit 7\n");
            write(free, "client/data/text", b"from the image\n");
            write(free, "mine.txt", b"the user's");
        });
        let raw = device.open();
        let mut hidden = HiddenZone::new(raw.hidden_zone().unwrap(), DISK_ALIGN_BYTES).unwrap();
        backup(&mut hidden.slot(SlotName::BackupA).unwrap(), updater);
        record(&mut hidden.slot(SlotName::RecordA).unwrap());
        drop(raw);
        device
    }

    fn open(&self) -> Raw {
        Raw::open(&self.disk, self.cd.as_deref(), Access::ReadWrite).unwrap()
    }

    fn with_free<R>(&self, work: impl FnOnce(&AnyFreeZone) -> R) -> R {
        let free = self.open().free_zone().unwrap();
        let out = work(&free);
        free.close().unwrap();
        out
    }

    fn installed(&self) -> Option<Vec<u8>> {
        self.with_free(|free| read(free, &paths::updater_name(PLATFORM)))
    }

    fn start(&self, args: &[&str]) -> Ended {
        self.start_with(self.root.path(), args)
    }

    /// Starts the launcher where `temporary` is the computer's temporary directory.
    fn start_with(&self, temporary: &Path, args: &[&str]) -> Ended {
        let mut command = Command::new(&self.launcher);
        command.arg("--device").arg(&self.disk);
        if let Some(cd) = &self.cd {
            command.arg("--virtual").arg(cd);
        }
        command.env("TMPDIR", temporary).env_remove("XDG_RUNTIME_DIR");
        Ended::of(output(command.args(args)))
    }

    fn left_in_temporary_places(&self) -> usize {
        let entries = fs::read_dir(self.root.path()).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("holdfast-")).count()
    }
}

fn identity(scratch: &mut Scratch) -> Identity {
    Identity::mint(&[7; 64], Cost::UNATTENDED, &secret(), &mut scratch.blocks).unwrap()
}

fn record(zone: &mut dyn firmware_image::RawZone) {
    let mut scratch = Box::<Scratch>::default();
    let identity = identity(&mut scratch);
    let mut bytes = [0; 1024];
    let record = VersionRecord::new(identity.device_id);
    let length = record.encode(&mut bytes).unwrap().len();
    let mut body = &bytes[..length];
    let write = Write { kind: Kind::Record, generation: 1, identity: &identity, segment_log2: 12 };
    write.write(&mut { zone }, &mut body, &mut scratch.segment).unwrap();
}

fn backup(zone: &mut dyn firmware_image::RawZone, updater: &[u8]) {
    let mut scratch = Box::<Scratch>::default();
    let identity = identity(&mut scratch);
    let index = Index::layout([(PLATFORM, updater.len() as u64)].into_iter()).unwrap();
    let mut images = [updater];
    let mut body = BackupBody::new(index, &mut images).unwrap();
    let write = Write { kind: Kind::Backup, generation: 1, identity: &identity, segment_log2: 12 };
    write.write(&mut { zone }, &mut body, &mut scratch.segment).unwrap();
}

fn write(free: &AnyFreeZone, path: &str, bytes: &[u8]) {
    let mut file = free.create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.flush().unwrap();
}

fn read(free: &AnyFreeZone, path: &str) -> Option<Vec<u8>> {
    use firmware_image::ZoneFile as _;
    let mut file = free.open(path).unwrap()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    firmware_image::storage::read_exact_at(&mut file, 0, &mut bytes).unwrap();
    Some(bytes)
}

fn ready() -> Vec<u8> {
    script("1.0.0", "printf R >&$HOLDFAST_READY_FD; echo \"updater: $@\"")
}

fn bytes_of(path: &Path) -> (Vec<u8>, std::time::SystemTime) {
    (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap())
}

#[test]
fn a_sound_image_is_not_written_and_its_client_runs_from_a_private_copy() {
    for is_dual in [false, true] {
        let device = RawDevice::new(is_dual, &ready());
        let before = bytes_of(&device.disk);
        let ended = device.start(&[]);
        assert_eq!(ended.status, 7, "dual: {is_dual}: {}", ended.said);
        let lines: Vec<_> = ended.out.lines().collect();
        let cd = device.cd.as_ref().map(|cd| format!(" --virtual {}", cd.display())).unwrap_or_default();
        // Standard output is the client's; what the updater says is for people.
        assert_eq!(ended.said, format!("updater: run --device {}{cd}\n", device.disk.display()));
        assert_eq!(lines[..2], ["from the image", "with arguments"]);
        assert!(lines[2].starts_with(device.root.path().to_str().unwrap()), "{}", lines[2]);
        assert!(bytes_of(&device.disk) == before, "dual: {is_dual}: the image changed");
        assert_eq!(device.left_in_temporary_places(), 0);
    }
}

#[test]
fn a_computer_without_room_for_the_clients_copy_is_told_of_that_and_nobody_formats_anything() {
    let (device, computer) = (RawDevice::new(false, &ready()), Device::new());
    device.with_free(|free| write(free, "client/data/large", &[7; 300_000]));
    let Some(mounted) = Mounted::new(&computer, 100, |_| {}) else { return };
    let ended = device.start_with(&computer.free, &[]);
    assert_eq!(ended.status, 72, "{}", ended.said);
    assert!(ended.said.contains("temporary directory: make room there"), "{}", ended.said);
    assert!(!ended.said.contains("format"), "{}", ended.said);
    mounted.resize(1000);
    assert_eq!(device.start_with(&computer.free, &[]).status, 7);
}

#[test]
fn an_image_whose_updater_is_gone_heals_from_its_hidden_zone_and_then_from_its_virtual_one() {
    let device = RawDevice::new(false, &ready());
    device.with_free(|free| free.remove(&paths::updater_name(PLATFORM)).unwrap());
    let ended = device.start(&[]);
    let restored = "The updater in the free zone was missing; restored version 1.0.0 from hidden backup A.\n";
    assert!(ended.said.starts_with(restored), "{}", ended.said);
    assert_eq!((ended.status, device.installed()), (7, Some(device.updater.clone())));
    assert_eq!(device.with_free(|free| read(free, "mine.txt")).unwrap(), b"the user's");

    let raw = device.open();
    let mut hidden = raw.hidden_zone().unwrap();
    let zeros = vec![0; 1 << 20];
    for start in (0..16).map(|i| i << 20) {
        firmware_image::storage::write_all_at(&mut hidden, start, &zeros).unwrap();
    }
    drop((raw, hidden));
    device.with_free(|free| write(free, &paths::updater_name(PLATFORM), b"infected"));
    let ended = device.start(&[]);
    assert!(ended.said.contains("from the copy in the virtual zone"), "{}", ended.said);
    assert_eq!(device.installed(), Some(device.updater.clone()));
}

#[test]
fn a_dual_device_heals_from_the_tail_of_its_cd() {
    let device = RawDevice::new(true, &ready());
    let newer = script("1.5.0", "printf R >&$HOLDFAST_READY_FD");
    let cd = firmware_image::host::FileZone::open(device.cd.as_ref().unwrap(), Access::ReadWrite).unwrap();
    backup(&mut bootstrap::launcher::zones::cd_tail(cd).unwrap(), &newer);
    device.with_free(|free| write(free, &paths::updater_name(PLATFORM), &image("1.0.0")[..500]));
    let ended = device.start(&["--no-client"]);
    assert!(ended.said.contains("restored version 1.5.0 from the factory backup on the CD"), "{}", ended.said);
    assert_eq!(device.installed(), Some(newer));
}

#[test]
fn an_image_whose_free_zone_lost_its_file_system_says_so() {
    let device = RawDevice::new(false, &ready());
    let mut raw = device.open().free_raw().unwrap();
    firmware_image::storage::write_all_at(&mut raw, 0, &[0; 4096]).unwrap();
    drop(raw);
    let ended = device.start(&[]);
    assert!(ended.said.contains("runs without being installed: there is no free zone in reach"), "{}", ended.said);
    let repair_first = "`partition-tools repair` mends a boot sector; if nothing is to be saved, format it as FAT32";
    assert!(ended.said.contains(repair_first), "{}", ended.said);
    assert!(ended.said.contains("if this stays so, format the free zone"), "{}", ended.said);
    assert_eq!(ended.status, 72);
}

#[test]
fn what_is_no_device_is_refused() {
    let device = RawDevice::new(true, &ready());
    let run = |args: &[&str]| {
        let output = output(Command::new(&device.launcher).args(args));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let disk = device.disk.to_str().unwrap();
    let (status, said) = run(&["--device", disk]);
    assert_eq!(status, Some(66));
    assert!(said.contains("name it with --virtual"), "{said}");
    for path in ["/nonexistent", "/dev/null", device.launcher.to_str().unwrap(), "/"] {
        assert_eq!(run(&["--device", path]).0, Some(66), "{path}");
    }
    assert_eq!(run(&["--device", disk, "--virtual", disk]).0, Some(66));
}
