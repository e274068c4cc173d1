//! Finding the launcher's own device, on made-up trees of mountinfo and sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use bootstrap::launcher::find::{Block, FindError, System, own_device};

struct Fake {
    root: tempfile::TempDir,
    mounts: String,
}

impl Fake {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        Self { root, mounts: "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n".to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A block device's directory in sysfs, and its entry by number.
    fn block(&self, directory: &str, device: &str) {
        self.write(&format!("sys/devices/{directory}/dev"), &format!("{device}\n"));
        symlink(self.path(&format!("sys/devices/{directory}")), self.path(&format!("sys/dev/block/{device}"))).unwrap();
    }

    fn partition(&self, disk: &str, number: u32, device: &str, name: &str) {
        let letter = disk.rsplit('/').next().unwrap();
        let directory = format!("{disk}/{letter}{number}");
        self.block(&directory, device);
        self.write(&format!("sys/devices/{directory}/partition"), &format!("{number}\n"));
        let uevent = format!("MAJOR=8\nDEVNAME={letter}{number}\nPARTN={number}\nPARTNAME={name}\n");
        self.write(&format!("sys/devices/{directory}/uevent"), &uevent);
    }

    /// Mounts a device at a directory, which may have blanks.
    fn mount(&mut self, device: &str, at: &str, file_system: &str, source: &str) -> PathBuf {
        let path = self.path(at);
        fs::create_dir_all(&path).unwrap();
        let escaped = path.to_str().unwrap().replace('\\', "\\134").replace(' ', "\\040");
        let line = format!("99 22 {device} / {escaped} rw,nosuid master:3 shared:7 - {file_system} {source} rw\n");
        self.mounts.push_str(&line);
        path
    }

    fn system(&self, virtual_zone: &Path) -> System {
        fs::write(virtual_zone.join("device.cfg"), b"any").unwrap();
        self.write("mountinfo", &self.mounts);
        System {
            exe: Some(virtual_zone.join("bootstrap-linux-x86_64")),
            mountinfo: self.path("mountinfo"),
            sys: self.path("sys"),
            dev: PathBuf::from("/dev"),
        }
    }
}

const DISK: &str = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sdb";

fn stick(fake: &Fake) {
    fake.block(DISK, "8:16");
    fake.partition(DISK, 1, "8:17", "HOLDFAST-FREE");
    fake.partition(DISK, 2, "8:18", "HOLDFAST-VIRTUAL");
    fake.partition(DISK, 3, "8:19", "HOLDFAST-HIDDEN");
}

#[test]
fn a_stick_is_found_from_its_virtual_partition() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "media/user/HOLDFAST", "iso9660", "/dev/sdb2");
    let free = fake.mount("8:17", "media/user/MY STICK", "vfat", "/dev/sdb1");
    let found = own_device(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.virtual_zone, virtual_zone);
    assert_eq!(found.free, Some(Block { node: "/dev/sdb1".into(), mounted: Some(free) }));
    assert_eq!(found.hidden, Some("/dev/sdb3".into()));
    assert_eq!(found.cd, None);
}

#[test]
fn a_free_zone_that_is_not_mounted_is_found_by_its_node() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let found = own_device(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.free, Some(Block { node: "/dev/sdb1".into(), mounted: None }));
}

#[test]
fn a_free_zone_mounted_by_a_program_of_its_own_is_found_by_its_source() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let free = fake.mount("0:55", "media/ntfs", "fuseblk", "/dev/sdb1");
    let found = own_device(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.free.unwrap().mounted, Some(free));
}

#[test]
fn a_free_zone_that_lost_its_name_is_the_first_partition_beside_the_hidden_one() {
    let mut fake = Fake::new();
    fake.block(DISK, "8:16");
    fake.partition(DISK, 1, "8:17", "");
    fake.partition(DISK, 2, "8:18", "");
    fake.partition(DISK, 3, "8:19", "HOLDFAST-HIDDEN");
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let found = own_device(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.free.unwrap().node, Path::new("/dev/sdb1"));
}

#[test]
fn a_dual_device_is_found_from_its_cd_by_the_disk_of_the_same_target() {
    let mut fake = Fake::new();
    let target = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0";
    fake.block(&format!("{target}/6:0:0:0/block/sr0"), "11:0");
    let disk = format!("{target}/6:0:0:1/block/sdb");
    fake.block(&disk, "8:16");
    fake.partition(&disk, 1, "8:17", "HOLDFAST-FREE");
    fake.partition(&disk, 2, "8:18", "HOLDFAST-HIDDEN");
    // Another stick with the same names, at another target.
    let other = "pci0000:00/usb1/1-3/1-3:1.0/host7/target7:0:0/7:0:0:1/block/sdc";
    fake.block(other, "8:32");
    fake.partition(other, 1, "8:33", "HOLDFAST-FREE");
    fake.partition(other, 2, "8:34", "HOLDFAST-HIDDEN");
    let virtual_zone = fake.mount("11:0", "media/cdrom", "iso9660", "/dev/sr0");
    let free = fake.mount("8:17", "media/free", "vfat", "/dev/sdb1");
    fake.mount("8:33", "media/other", "vfat", "/dev/sdc1");
    let found = own_device(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.cd, Some("/dev/sr0".into()));
    assert_eq!(found.free, Some(Block { node: "/dev/sdb1".into(), mounted: Some(free) }));
    assert_eq!(found.hidden, Some("/dev/sdb2".into()));
}

#[test]
fn a_launcher_without_a_configuration_beside_it_is_on_no_device() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let system = fake.system(&virtual_zone);
    fs::remove_file(virtual_zone.join("device.cfg")).unwrap();
    assert_eq!(own_device(&system), Err(FindError::NotOnADevice(virtual_zone)));
}

#[test]
fn a_launcher_on_an_ordinary_disk_or_a_memory_file_system_finds_no_zones() {
    let mut fake = Fake::new();
    let disk = "pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    fake.block(disk, "8:0");
    fake.partition(disk, 2, "8:2", "root");
    let on_disk = fake.mount("8:2", "home/user/copy", "ext4", "/dev/sda2");
    assert!(matches!(own_device(&fake.system(&on_disk)), Err(FindError::NoZones(_))));
    let in_memory = fake.mount("0:31", "run/user", "tmpfs", "tmpfs");
    assert!(matches!(own_device(&fake.system(&in_memory)), Err(FindError::NoBlockDevice(_))));
}

#[test]
fn the_mount_that_hides_the_others_counts() {
    let mut fake = Fake::new();
    stick(&fake);
    fake.mount("8:2", "media/x", "ext4", "/dev/sda2");
    let virtual_zone = fake.mount("8:18", "media/x", "iso9660", "/dev/sdb2");
    assert!(own_device(&fake.system(&virtual_zone)).is_ok());
}

#[test]
fn a_garbled_mountinfo_is_survived() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    fake.mounts.insert_str(0, "\n \n1 2\n- - -\n1 2 3 \\9 \\777 - -\n\u{fffd}\n");
    assert!(own_device(&fake.system(&virtual_zone)).is_ok());
}
