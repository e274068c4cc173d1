//! `repair` on real images: each structure around the zones, damaged in each way, through the program; and cut at each write.
#![cfg(unix)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use firmware_image::host::{Access, FileZone};
use firmware_image::image::Device;
use firmware_image::image::gpt::{Copies, Copy, Extent, Guids, Table};
use firmware_image::key_slot::DeviceId;
use firmware_image::sim::{Effort, Medium, SimDisk, figures};
use partition_tools::repair::Plan;
use support::{PRODUCT, Product, cut, noise, poke, tool};

const SECTOR: u64 = 512;
const DISK_BYTES: u64 = 200 << 20;
const BACKUP_ENTRIES: u64 = DISK_BYTES - 33 * SECTOR;
const BACKUP_HEADER: u64 = DISK_BYTES - SECTOR;
/// What `fsck.vfat` and others do not look at: boot code, and places in heads and cylinders.
const MBR_ENTRIES: usize = 446;

/// A device, and all that `repair` may write to as it was.
struct Patient {
    product: Product,
    dual: bool,
    free: Extent,
    hidden: Extent,
    sound: Vec<(u64, Vec<u8>)>,
}

impl Patient {
    fn new(dual: bool) -> Self {
        let product = Product::new();
        match dual {
            false => product.create("device.img", &[]),
            true => create_dual(&product),
        }
        let table = table(&product, "device.img");
        let (free, hidden) = (table.free().unwrap(), table.hidden().unwrap());
        let mut patient = Self { product, dual, free, hidden, sound: Vec::new() };
        let regions = [(0, 34 * SECTOR), (BACKUP_ENTRIES, 33 * SECTOR), (free.start, 16 * SECTOR)];
        patient.sound = regions.map(|(at, length)| (at, patient.read(at, length as usize))).into();
        patient
    }

    fn image(&self) -> PathBuf {
        self.product.path("device.img")
    }

    fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(self.image()).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        poke(&self.image(), at, bytes);
    }

    /// Everything that `repair` may write to, as it is now.
    fn now(&self) -> Vec<(u64, Vec<u8>)> {
        self.sound.iter().map(|(at, bytes)| (*at, self.read(*at, bytes.len()))).collect()
    }

    fn put_back(&self) {
        self.sound.iter().for_each(|(at, bytes)| self.write(*at, bytes));
    }

    fn arguments<'a>(&self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec![command, "device.img"];
        if self.dual {
            arguments.extend(["--virtual", "cd.iso"]);
        }
        arguments.extend(more);
        arguments
    }

    /// Runs `repair`, which must succeed; what it mended.
    fn repair(&self, more: &[&str]) -> Vec<String> {
        let more = [more, &["--keys", "keys", "--json"]].concat();
        let done = self.product.json(&self.arguments("repair", &more));
        done["mended"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }

    /// Runs `repair`, which must refuse with 5 and write nothing; what it said.
    fn refused(&self, more: &[&str]) -> String {
        let before = self.now();
        let said = self.product.fail(5, &self.arguments("repair", more));
        assert!(self.now() == before && said.contains("Nothing was written"), "{said}");
        said
    }

    /// Demands that everything is sound, as the program and as other tools say.
    fn check(&self, what: &str) {
        let output = self.product.run(&self.arguments("verify", &["--keys", "keys"]));
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stdout));
        if let Some(output) = tool("sfdisk", &["--verify", &self.product.text("device.img")]) {
            assert!(output.status.success() && output.stderr.is_empty(), "{what}: {output:?}");
        }
        cut(&self.image(), self.free.start, self.free.length, &self.product.path("free.img"));
        if let Some(output) = tool("fsck.vfat", &["-n", &self.product.text("free.img")]) {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.lines().count() == 2, "{what}: {said}");
        }
    }
}

fn create_dual(product: &Product) {
    let what = ["create", "--profile", "dual", "--out", "device.img", "--cd-out", "cd.iso", "--size", "200MiB"];
    let whose = ["--keys", "keys", "--product", PRODUCT, "--server", "http://127.0.0.1:1/store"];
    let programs = ["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"];
    let client = ["--client-command", "client/run.sh", "--store", "store", "--release-version", "1.0.0"];
    product.succeed(&[&what[..], &whose, &programs, &client].concat());
}

fn open(product: &Product, image: &str, access: Access) -> FileZone {
    FileZone::open(&product.path(image), access).unwrap()
}

fn table(product: &Product, image: &str) -> Table {
    Table::read(open(product, image, Access::ReadOnly)).unwrap()
}

fn device_id(patient: &Patient) -> DeviceId {
    let mut id = [0; 16];
    id.copy_from_slice(&patient.read(patient.hidden.start + 32, 16));
    DeviceId(id)
}

#[test]
fn a_new_device_and_a_written_one_bear_the_guid_of_their_own_id_and_a_clone_keeps_it() {
    let patient = Patient::new(false);
    let product = &patient.product;
    let id = |image: &str| product.json(&["inspect", image, "--json"])["record"]["device_id"].clone();
    for (name, more, same) in [("clone", &["--clone"][..], true), ("other", &[][..], false)] {
        File::create(product.path(name)).unwrap().set_len(DISK_BYTES).unwrap();
        product.succeed(&[&["write", "device.img", "--to", name, "--force-fixed"], more].concat());
        assert_eq!(id(name) == id("device.img"), same);
        assert_eq!(table(product, name).disk_guid == table(product, "device.img").disk_guid, same);
    }
    for image in ["device.img", "clone", "other"] {
        let id: Vec<u8> = hex::decode(id(image).as_str().unwrap()).unwrap();
        let expected = firmware_image::image::gpt::disk_guid(&DeviceId(id.try_into().unwrap()));
        assert_eq!(table(product, image).disk_guid, expected, "{image}");
    }
}

#[test]
fn where_nothing_is_wrong_nothing_is_written() {
    for dual in [false, true] {
        let patient = Patient::new(dual);
        let before = firmware_image::Digest::of(&std::fs::read(patient.image()).unwrap());
        let changed = || std::fs::metadata(patient.image()).unwrap().modified().unwrap();
        let when = changed();
        assert!(patient.repair(&[]).is_empty() && patient.repair(&["--yes"]).is_empty());
        let output = patient.product.run(&patient.arguments("repair", &[]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && output.stdout.is_empty() && said.contains("nothing to mend"), "{said}");
        // What the driver notes of a volume in use, boot code, and a hybrid MBR are no damage.
        assert_eq!(changed(), when);
        assert!(firmware_image::Digest::of(&std::fs::read(patient.image()).unwrap()) == before);
        patient.write(patient.free.start + 65, &[1]);
        patient.write(0, &[0xEB; 446]);
        patient.write(462, &[0x00, 0, 2, 0, 0x0C, 0xFF, 0xFF, 0xFF, 0, 0x20, 0, 0, 0, 0x10, 0, 0]);
        let before = patient.now();
        assert!(patient.repair(&[]).is_empty() && patient.now() == before);
    }
}

#[test]
fn each_structure_destroyed_or_flipped_is_made_anew_from_the_other_copy() {
    for dual in [false, true] {
        let patient = Patient::new(dual);
        let boot = patient.free.start;
        // Where, how much, and which bytes one flip of makes a difference to a reader.
        let structures: [(&str, u64, usize, &[usize]); 8] = [
            ("MBR", 0, 512, &[450, 454, 458, 465, 470, 510, 511]),
            ("primary header", SECTOR, 512, &[0, 8, 12, 16, 24, 32, 40, 48, 56, 72, 80, 84, 88]),
            ("primary entries", 2 * SECTOR, 384, &[0, 16, 32, 40, 48, 56, 130, 383]),
            ("primary table", SECTOR, 33 * 512, &[]),
            ("backup header", BACKUP_HEADER, 512, &[0, 8, 12, 16, 24, 32, 40, 48, 56, 72, 80, 84, 88]),
            ("backup entries", BACKUP_ENTRIES, 384, &[0, 16, 32, 40, 48, 56, 130, 383]),
            ("boot sector", boot, 512, &[0, 2, 11, 12, 13, 16, 17, 21, 22, 42, 48, 50, 510, 511]),
            ("copy of the boot sector", boot + 6 * SECTOR, 512, &[0, 3, 11, 13, 16, 21, 50, 71, 90, 510]),
        ];
        for (name, at, length, flips) in structures {
            let sound = patient.read(at, length);
            let mut damages = vec![vec![0; length], vec![0xFF; length], noise(at + 1, length)];
            damages.extend(flips.iter().map(|flip| {
                let mut bytes = sound.clone();
                bytes[*flip] ^= 1 << (flip % 8);
                bytes
            }));
            for (number, damage) in damages.iter().enumerate() {
                let what = format!("{name}, {number}, dual: {dual}");
                patient.put_back();
                patient.write(at, damage);
                let damaged = patient.now();
                let planned = patient.repair(&["--dry-run"]);
                assert!(patient.now() == damaged, "{what}: --dry-run wrote");
                assert_eq!(planned.len(), 1, "{what}: {planned:?}");
                assert_eq!(patient.repair(&[]), planned, "{what}");
                let kept = if name == "MBR" { MBR_ENTRIES } else { 0 };
                let after = patient.read(at, length);
                assert!(after[kept..] == sound[kept..] && after[..kept] == damage[..kept], "{what}");
                if number < 3 {
                    patient.check(&what);
                }
                assert!(patient.repair(&[]).is_empty(), "{what}: once more");
            }
        }
        // All at once that can be.
        patient.put_back();
        patient.write(0, &[0; 3 * 512]);
        patient.write(boot, &[0; 512]);
        assert_eq!(patient.repair(&[]).len(), 3);
        assert!(patient.now() == patient.sound);
        patient.write(boot, &[0; 1024]);
        assert_eq!(patient.repair(&[]).len(), 1);
        // The summary beside it says that it does not know, until somebody writes to the volume.
        assert_eq!(patient.read(boot, 512), patient.sound[2].1[..512]);
        patient.product.succeed(&["free", "put", "device.img", "bootstrap", "mine"]);
        patient.check("boot sector and summary");
    }
}

#[test]
fn an_image_that_was_cut_or_stands_on_a_larger_disk_gets_its_copy_at_the_end() {
    let patient = Patient::new(false);
    for (length, lines) in [(DISK_BYTES - 33 * SECTOR, 2), (DISK_BYTES - SECTOR, 2), (260 << 20, 2)] {
        File::options().write(true).open(patient.image()).unwrap().set_len(length).unwrap();
        let mended = patient.repair(&[]);
        assert_eq!(mended.len(), lines, "{length}: {mended:?}");
        let copies = Copies::read(open(&patient.product, "device.img", Access::ReadOnly)).unwrap();
        assert!(copies.agree(), "{length}");
        patient.check(&format!("{length} bytes"));
    }
    File::options().write(true).open(patient.image()).unwrap().set_len(100 << 20).unwrap();
    let said = patient.product.fail(4, &["repair", "device.img"]);
    assert!(said.contains("neither of its copies is sound") && said.contains("write the device anew"), "{said}");
    std::fs::write(patient.product.path("noise"), noise(1, 5 << 20)).unwrap();
    patient.product.fail(4, &["repair", "noise", "--yes"]);
    patient.product.fail(1, &["repair", "gone"]);
}

#[test]
fn a_table_of_another_device_gives_way_to_ours_and_alone_is_asked_about() {
    let patient = Patient::new(false);
    let other = Patient::new(false);
    let (primary, backup) = (other.read(SECTOR, 33 * 512), other.read(BACKUP_ENTRIES, 33 * 512));
    for (at, bytes) in [(SECTOR, &primary), (BACKUP_ENTRIES, &backup)] {
        patient.put_back();
        patient.write(at, bytes);
        assert_eq!(patient.repair(&[]).len(), 1);
        assert!(patient.now() == patient.sound);
    }
    // An older one of our own, with other partitions' GUIDs: both bear our disk's.
    let guids = Guids::new(&device_id(&patient), &[9; 48]);
    table(&patient.product, "device.img")
        .write(open(&patient.product, "device.img", Access::ReadWrite), Some(&guids))
        .unwrap();
    let newer = patient.read(SECTOR, 33 * 512);
    patient.write(BACKUP_ENTRIES, &patient.sound[1].1);
    for more in [&[][..], &["--yes"]] {
        let said = patient.refused(more);
        assert!(said.contains("Use the copy at the end") && said.contains("--from"), "{said}");
    }
    patient.repair(&["--from", "primary"]);
    assert!(patient.read(SECTOR, 33 * 512) == newer);
    patient.write(BACKUP_ENTRIES, &patient.sound[1].1);
    patient.repair(&["--from", "backup"]);
    assert!(patient.now() == patient.sound);
    // Both of another device: nothing to mend, and nothing mended by them unasked.
    patient.write(SECTOR, &primary);
    patient.write(BACKUP_ENTRIES, &backup);
    assert!(patient.repair(&[]).is_empty());
    patient.write(510, &[0, 0]);
    assert!(patient.refused(&[]).contains("whose disk has another GUID"));
    assert_eq!(patient.repair(&["--yes"]), ["the protective MBR"]);
    // Somebody else's table beside ours is not written over without a word.
    patient.put_back();
    let Some(_) = tool("sfdisk", &["--version"]) else { return };
    let foreign = foreign_disk(&patient.product);
    patient.write(SECTOR, &foreign[512..34 * 512]);
    assert!(patient.refused(&[]).contains("somebody else's"));
    assert_eq!(patient.repair(&["--yes"]).len(), 1);
    assert!(patient.now() == patient.sound);
    patient.product.fail(4, &["repair", "foreign.img", "--yes"]);
}

/// The first sectors of a disk of the same size that `sfdisk` partitioned.
fn foreign_disk(product: &Product) -> Vec<u8> {
    File::create(product.path("foreign.img")).unwrap().set_len(DISK_BYTES).unwrap();
    let mut sfdisk = Command::new("sfdisk");
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(product.path("foreign.img"));
    let mut child = sfdisk.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"label: gpt\ntype=linux, name=root\n").unwrap();
    assert!(child.wait().unwrap().success());
    let mut front = vec![0; 34 * 512];
    File::open(product.path("foreign.img")).unwrap().read_exact_at(&mut front, 0).unwrap();
    front
}

#[test]
fn a_table_whose_hidden_zone_is_gone_is_asked_about() {
    let patient = Patient::new(false);
    let slots = patient.read(patient.hidden.start, patient.hidden.length as usize);
    patient.write(patient.hidden.start, &vec![0; slots.len()]);
    patient.write(SECTOR, &[0; 512]);
    let said = patient.refused(&[]);
    let shown = ["--yes", "no records and no backups", "HOLDFAST-FREE of ", "HOLDFAST-HIDDEN of ", "disk "];
    assert!(shown.iter().all(|part| said.contains(part)), "{said}");
    // One slot of four is enough.
    let align = 4 << 20;
    let half = (slots.len() - 2 * align) / 2 / align * align;
    let backup = 2 * align + half;
    patient.write(patient.hidden.start + backup as u64, &slots[backup..backup + 4096]);
    assert_eq!(patient.repair(&[]).len(), 1);
    patient.write(patient.hidden.start + backup as u64, &[0; 4096]);
    for more in [&["--yes"][..], &["--from", "backup"]] {
        patient.write(SECTOR, &[0; 512]);
        assert_eq!(patient.repair(more).len(), 1);
        assert!(patient.now() == patient.sound);
    }
    patient.write(SECTOR, &[0; 512]);
    let said = patient.product.fail(5, &["repair", "device.img", "--from", "primary"]);
    assert!(said.contains("is of no use"), "{said}");
    // On a terminal it is asked.
    let program = env!("CARGO_BIN_EXE_partition-tools");
    let image = patient.product.text("device.img");
    let answer = |line: &str| {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("'{program}' repair '{image}'"), "/dev/null"]);
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
        Some(child.wait_with_output().unwrap())
    };
    let before = patient.now();
    let Some(output) = answer("\n") else { return figures::skipped("script is not installed") };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(5) && said.contains("Which?") && patient.now() == before, "{said}");
    assert!(answer("1\n").unwrap().status.success());
    assert!(patient.now() == patient.sound);
}

#[test]
fn an_mbr_that_somebody_uses_is_written_over_only_when_somebody_says_so() {
    let patient = Patient::new(false);
    let mut partitions = vec![0x33; 446];
    partitions.extend([0x80, 0, 2, 0, 0x0C, 0xFF, 0xFF, 0xFF, 0, 0x08, 0, 0, 0, 0x10, 0, 0]);
    partitions.extend([0; 48]);
    partitions.extend([0x55, 0xAA]);
    let mut volume = patient.read(patient.free.start, 512);
    volume[446..510].fill(0);
    for (sector, word) in [(partitions, "partitioned the disk anew"), (volume, "formatted it as a whole")] {
        for primary_too in [false, true] {
            patient.put_back();
            patient.write(0, &sector);
            if primary_too {
                patient.write(SECTOR, &[0; 512]);
            }
            assert!(patient.refused(&[]).contains(word));
            assert_eq!(patient.repair(&["--yes"]).len(), 1 + usize::from(primary_too));
            assert_eq!(patient.read(0, MBR_ENTRIES), sector[..MBR_ENTRIES]);
            assert_eq!(patient.read(446, 66), patient.sound[0].1[446..512]);
            patient.check(word);
        }
    }
    // ext4 has no boot sector, and its own where the table's entries were.
    patient.write(0, &[0; 34 * 512]);
    patient.write(1080, &[0x53, 0xEF]);
    assert!(patient.refused(&[]).contains("formatted it as a whole"));
    assert_eq!(patient.repair(&["--yes"]).len(), 2);
    assert!(patient.now()[1..] == patient.sound[1..] && patient.read(446, 34 * 512 - 446) == patient.sound[0].1[446..]);
}

#[test]
fn boot_sectors_that_name_different_places_are_asked_about() {
    let patient = Patient::new(false);
    let boot = patient.free.start;
    // The root directory elsewhere: what is there does not begin with a label.
    patient.write(boot + 44, &[3]);
    let said = patient.refused(&[]);
    assert!(said.contains("2 of 3") && said.contains("3 of 3") && said.contains("--yes"), "{said}");
    assert_eq!(patient.repair(&["--yes"]), ["the free zone's boot sector, from its copy"]);
    assert!(patient.now() == patient.sound);
    patient.write(boot + 6 * SECTOR + 44, &[3]);
    patient.refused(&[]);
    assert_eq!(patient.repair(&["--yes"]), ["the copy of the free zone's boot sector"]);
    assert!(patient.now() == patient.sound);
    // A little shorter: as much speaks for either.
    let sectors = patient.read(boot + 32, 4);
    patient.write(boot + 32, &(u32::from_le_bytes(sectors.try_into().unwrap()) - 4096).to_le_bytes());
    assert!(patient.refused(&["--yes"]).contains("fsck.vfat"));
    // One whose maker keeps no copy, over an older one's.
    patient.write(boot + 50, &[0, 0]);
    let before = patient.now();
    assert!(patient.repair(&[]).is_empty() && patient.now() == before);
    // The same volume, with that number lost.
    patient.put_back();
    patient.write(boot + 50, &[0, 0]);
    assert_eq!(patient.repair(&[]), ["the free zone's boot sector, from its copy"]);
    assert!(patient.now() == patient.sound);
    // A volume of another kind in its place is not this command's.
    patient.put_back();
    patient.write(boot, &noise(3, 16 * 512));
    let before = patient.now();
    patient.product.fail(1, &patient.arguments("repair", &["--yes"]));
    assert!(patient.now() == before);
    // Nothing but the copy is left: somebody else's volume, whose driver left that sector alone.
    patient.put_back();
    let reserved = patient.read(boot, 512);
    let start = boot + u64::from(u16::from_le_bytes([reserved[14], reserved[15]])) * SECTOR;
    let (table, after) = (patient.read(start, 512), patient.sound.clone());
    patient.write(boot, &[0; 512]);
    patient.write(start, &noise(4, 512));
    let root = u64::from(u32::from_le_bytes(reserved[36..40].try_into().unwrap())) * 2 * SECTOR;
    let label = patient.read(start + root, 32);
    patient.write(start + root, &noise(5, 32));
    assert!(patient.refused(&[]).contains("little on the volume fits"));
    patient.write(start, &table);
    patient.write(start + root, &label);
    patient.repair(&[]);
    assert!(patient.now() == after);
}

#[test]
fn another_program_on_the_image_is_waited_for_by_a_person() {
    let patient = Patient::new(false);
    patient.write(SECTOR, &[0; 512]);
    let held = Device::open(&patient.image(), None, Access::ReadWrite).unwrap();
    assert!(patient.product.fail(7, &["repair", "device.img"]).contains("in use"));
    assert_eq!(patient.repair(&["--dry-run"]).len(), 1);
    drop(held);
    let output = patient.product.run(&["repair", "device.img"]);
    let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(out, "mended: the partition table at the start, from the copy at the end\n");
    assert!(said.contains("plug it in") && said.contains("verify"), "{said}");
}

#[test]
fn verify_says_what_is_for_repair_and_what_for_the_device() {
    let patient = Patient::new(false);
    patient.write(0, &[0; 512]);
    patient.write(patient.free.start + 6 * SECTOR, &[0; 512]);
    let output = patient.product.run(&["verify", "device.img"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("The first 2 lines") && said.contains("partition-tools repair") && !said.contains("rest"));
    patient.write(patient.hidden.start, &[0; 4096]);
    let output = patient.product.run(&["verify", "device.img"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("The first 2 lines") && said.contains("The rest: the device mends what it can"), "{said}");
    patient.repair(&[]);
    let output = patient.product.run(&["verify", "device.img", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["for_repair"].as_array().unwrap().len(), 0);
    assert_eq!(report["problems"].as_array().unwrap().len(), 1, "{report}");
}

#[test]
fn a_free_zone_without_any_boot_sector_is_to_be_formatted_and_nobody_says_that_it_mends_itself() {
    let patient = Patient::new(false);
    patient.write(patient.free.start, &vec![0; 4 << 20]);
    for more in [&[][..], &["--dry-run"]] {
        let said = patient.product.fail(1, &patient.arguments("repair", more));
        assert!(said.contains("format that partition as FAT32") && !said.contains("nothing to mend"), "{said}");
        assert!(!said.contains("Next: plug it in"), "{said}");
    }
    let json = patient.product.run(&patient.arguments("repair", &["--json"]));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), report["to_format"].as_bool()), (Some(1), Some(true)));
    let said = patient.product.fail(1, &patient.arguments("verify", &[]));
    assert!(said.contains("format that partition as FAT32") && said.contains("Then the device mends"), "{said}");
    // What can be mended is, all the same.
    patient.write(SECTOR, &[0; 512]);
    let said = patient.product.fail(1, &patient.arguments("repair", &[]));
    assert!(said.contains("Written to") && said.contains("format that partition"), "{said}");
    let said = patient.product.fail(1, &patient.arguments("verify", &[]));
    assert!(!said.contains("The first") && said.contains("format that partition"), "{said}");
}

#[test]
fn a_repair_cut_at_any_write_leaves_a_sound_table_and_is_finished_by_the_next() {
    let patient = Patient::new(false);
    let boot = patient.free.start;
    let name = patient.image();
    let device = Medium::of_file(&name).unwrap();
    let plan = |disk: &mut SimDisk| Plan::make(disk, &name, None, &mut |_| None);
    let damages: [&[(u64, usize)]; 4] = [
        &[(0, 34 * 512), (boot, 1024)],
        &[(0, 512), (BACKUP_ENTRIES, 33 * 512), (boot + 6 * SECTOR, 1024)],
        &[(SECTOR, 512)],
        &[(BACKUP_ENTRIES, 512)],
    ];
    let (mut tried, mut bad) = (0, 0);
    for (number, places) in damages.into_iter().enumerate() {
        for ones in [false, true] {
            let mut medium = device.clone();
            for (at, length) in places {
                medium.write(*at, &vec![if ones { 0xFF } else { 0 }; *length]);
            }
            let mut disk = SimDisk::new(medium);
            plan(&mut disk).unwrap().carry_out(&mut disk, &name).unwrap();
            let (whole, recording) = (disk.medium().digest(), disk.recording());
            for state in recording.states(&Effort::ALL) {
                let mut disk = SimDisk::new(recording.medium(&state));
                let copies = Copies::read(&mut disk).unwrap();
                let again = plan(&mut disk).and_then(|plan| plan.carry_out(&mut disk, &name));
                let healed = (copies.primary.is_ok() || copies.backup.is_ok())
                    && again.is_ok()
                    && disk.medium().digest() == whole;
                tried += 1;
                if !healed {
                    bad += 1;
                    eprintln!("damage {number}, cut at {state}: {again:?}");
                }
            }
        }
    }
    println!("repair: cut in {tried} states, {bad} not finished by the next");
    figures::count(figures::CUT_STATES, "repair, cut", tried, bad);
    assert!(tried > 100 && bad == 0);
}

#[test]
fn a_disk_that_lies_or_fails_is_told_as_that() {
    use firmware_image::sim::Faults;
    let patient = Patient::new(false);
    let name = patient.image();
    let mut medium = Medium::of_file(&name).unwrap();
    medium.write(SECTOR, &[0; 512]);
    for faults in
        [Faults { lying_at: Some(20), ..Faults::default() }, Faults { failing_writes: 0..1, ..Faults::default() }]
    {
        let mut disk = SimDisk::faulty(medium.clone(), faults);
        let plan = Plan::make(&mut disk, &name, None, &mut |_| None).unwrap();
        assert!(plan.carry_out(&mut disk, &name).is_err());
        let copies = Copies::read(&mut disk).unwrap();
        assert_eq!(copies.backup.unwrap().copy, Copy::Backup);
    }
}
