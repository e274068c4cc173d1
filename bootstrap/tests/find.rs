//! Finding a device, the launcher's own and one that was plugged in, on made-up trees of mountinfo and sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bootstrap::launcher::find::{Block, FindError, Found, Plugged, Siblings, System, own_device, plugged_device};

struct Fake {
    root: tempfile::TempDir,
    mounts: String,
}

impl Fake {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
        fs::create_dir_all(root.path().join("sys/class/block")).unwrap();
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
        let target = self.path(&format!("sys/devices/{directory}"));
        symlink(&target, self.path(&format!("sys/dev/block/{device}"))).unwrap();
        symlink(&target, self.path("sys/class/block").join(target.file_name().unwrap())).unwrap();
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
        System { exe: Some(virtual_zone.join("bootstrap-linux-x86_64")), ..self.host() }
    }

    /// A system whose launcher stands elsewhere.
    fn host(&self) -> System {
        self.write("mountinfo", &self.mounts);
        System {
            exe: Some(self.path("usr/local/lib/bootstrap")),
            mountinfo: self.path("mountinfo"),
            sys: self.path("sys"),
            dev: PathBuf::from("/dev"),
            udev: self.path("run/udev/data"),
        }
    }

    /// udev has finished with these devices.
    fn udev_knows(&self, devices: &[&str]) {
        devices.iter().for_each(|device| self.write(&format!("run/udev/data/b{device}"), "I:1\n"));
    }

    fn plugged(&self, node: &str) -> Result<Plugged, FindError> {
        plugged_device(&self.host(), Path::new(node), Duration::from_millis(60))
    }
}

/// The device that the launcher of this system stands on.
fn own(system: &System) -> Result<Found, FindError> {
    own_device(system, Duration::from_millis(60))
}

const DISK: &str = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sdb";
const CD: &str = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0/block/sr0";
/// The disk beside the CD.
const DISK_1: &str = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:1/block/sdb";

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
    let found = own(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.virtual_zone.as_ref(), Some(&virtual_zone));
    assert_eq!(found.siblings.free, Some(Block { node: "/dev/sdb1".into(), mounted: Some(free) }));
    assert_eq!(found.siblings.hidden, Some("/dev/sdb3".into()));
    assert_eq!(found.siblings.cd, None);
}

#[test]
fn a_free_zone_that_is_not_mounted_is_found_by_its_node() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let found = own(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.siblings.free, Some(Block { node: "/dev/sdb1".into(), mounted: None }));
}

#[test]
fn a_free_zone_mounted_by_a_program_of_its_own_is_found_by_its_source() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let free = fake.mount("0:55", "media/ntfs", "fuseblk", "/dev/sdb1");
    // Any user can mount one of these.
    fake.mount("0:56", "home/user/mine", "fuse.mine", "/dev/sdb1");
    let found = own(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.siblings.free.unwrap().mounted, Some(free));
}

#[test]
fn a_free_zone_that_lost_its_name_is_the_first_partition_beside_the_hidden_one() {
    let mut fake = Fake::new();
    fake.block(DISK, "8:16");
    fake.partition(DISK, 1, "8:17", "");
    fake.partition(DISK, 2, "8:18", "");
    fake.partition(DISK, 3, "8:19", "HOLDFAST-HIDDEN");
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let found = own(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.siblings.free.unwrap().node, Path::new("/dev/sdb1"));
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
    let found = own(&fake.system(&virtual_zone)).unwrap();
    assert_eq!(found.siblings.cd, Some("/dev/sr0".into()));
    assert_eq!(found.siblings.free, Some(Block { node: "/dev/sdb1".into(), mounted: Some(free) }));
    assert_eq!(found.siblings.hidden, Some("/dev/sdb2".into()));
}

#[test]
fn a_launcher_without_a_configuration_beside_it_is_on_no_device() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    let system = fake.system(&virtual_zone);
    fs::remove_file(virtual_zone.join("device.cfg")).unwrap();
    assert_eq!(own(&system), Err(FindError::NotOnADevice(virtual_zone)));
}

#[test]
fn a_launcher_on_an_ordinary_disk_or_a_memory_file_system_finds_no_zones() {
    let mut fake = Fake::new();
    let disk = "pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    fake.block(disk, "8:0");
    fake.partition(disk, 2, "8:2", "root");
    let on_disk = fake.mount("8:2", "home/user/copy", "ext4", "/dev/sda2");
    assert!(matches!(own(&fake.system(&on_disk)), Err(FindError::NoZones(_))));
    let in_memory = fake.mount("0:31", "run/user", "tmpfs", "tmpfs");
    assert!(matches!(own(&fake.system(&in_memory)), Err(FindError::NoBlockDevice(_))));
}

#[test]
fn the_mount_that_hides_the_others_counts() {
    let mut fake = Fake::new();
    stick(&fake);
    fake.mount("8:2", "media/x", "ext4", "/dev/sda2");
    let virtual_zone = fake.mount("8:18", "media/x", "iso9660", "/dev/sdb2");
    assert!(own(&fake.system(&virtual_zone)).is_ok());
}

#[test]
fn a_garbled_mountinfo_is_survived() {
    let mut fake = Fake::new();
    stick(&fake);
    let virtual_zone = fake.mount("8:18", "cd", "iso9660", "/dev/sdb2");
    fake.mounts.insert_str(0, "\n \n1 2\n- - -\n1 2 3 \\9 \\777 - -\n\u{fffd}\n");
    assert!(own(&fake.system(&virtual_zone)).is_ok());
}

/// What is beside the virtual zone on `node`: free and hidden zone.
fn zones(fake: &Fake, node: &str) -> (Option<PathBuf>, Option<PathBuf>) {
    let siblings = fake.plugged(node).unwrap().siblings;
    (siblings.free.map(|free| free.node), siblings.hidden)
}

fn nodes(free: &str, hidden: &str) -> (Option<PathBuf>, Option<PathBuf>) {
    let node = |node: &str| (!node.is_empty()).then(|| PathBuf::from(node));
    (node(free), node(hidden))
}

#[test]
fn a_plugged_stick_is_found_from_the_node_of_its_virtual_partition_although_nothing_is_mounted() {
    let fake = Fake::new();
    stick(&fake);
    let found = fake.plugged("/dev/sdb2").unwrap();
    assert_eq!(found.virtual_zone, Block { node: "/dev/sdb2".into(), mounted: None });
    assert_eq!(found.siblings.cd, None);
    assert_eq!(zones(&fake, "/dev/sdb2"), nodes("/dev/sdb1", "/dev/sdb3"));
}

#[test]
fn a_plugged_cd_is_found_with_its_disk_and_where_the_desktop_has_mounted_them() {
    let mut fake = Fake::new();
    fake.block(CD, "11:0");
    fake.block(DISK_1, "8:16");
    fake.partition(DISK_1, 1, "8:17", "HOLDFAST-FREE");
    fake.partition(DISK_1, 2, "8:18", "HOLDFAST-HIDDEN");
    let disc = fake.mount("11:0", "media/disc", "iso9660", "/dev/sr0");
    let free = fake.mount("8:17", "media/free", "vfat", "/dev/sdb1");
    let found = fake.plugged("/dev/sr0").unwrap();
    assert_eq!(found.virtual_zone, Block { node: "/dev/sr0".into(), mounted: Some(disc) });
    assert_eq!(found.siblings.cd, Some("/dev/sr0".into()));
    assert_eq!(found.siblings.free, Some(Block { node: "/dev/sdb1".into(), mounted: Some(free) }));
    assert_eq!(found.siblings.hidden, Some("/dev/sdb2".into()));
}

#[test]
fn a_node_may_be_named_by_a_link_to_it() {
    let fake = Fake::new();
    stick(&fake);
    fake.write("dev/sdb2", "");
    fs::create_dir_all(fake.path("dev/disk/by-partlabel")).unwrap();
    let link = fake.path("dev/disk/by-partlabel/HOLDFAST-VIRTUAL");
    symlink("../../sdb2", &link).unwrap();
    let found = plugged_device(&fake.host(), &link, Duration::ZERO).unwrap();
    assert_eq!(found.virtual_zone.node, Path::new("/dev/sdb2"));
}

#[test]
fn a_node_that_is_no_block_device_is_refused() {
    let fake = Fake::new();
    stick(&fake);
    for node in ["/dev/sdz2", "/dev/null", "/", ""] {
        assert_eq!(fake.plugged(node), Err(FindError::NoSuchUnit(node.into())));
    }
}

#[test]
fn the_free_zone_is_found_whatever_the_disk_beside_a_cd_has_lost() {
    for (partitions, expected) in [
        (&[(1, "HOLDFAST-FREE"), (2, "HOLDFAST-HIDDEN")][..], ("/dev/sdb1", "/dev/sdb2")),
        // No hidden partition any more.
        (&[(1, "HOLDFAST-FREE")], ("/dev/sdb1", "")),
        // The free zone was made anew, without a name, or with one of its own.
        (&[(1, ""), (2, "HOLDFAST-HIDDEN")], ("/dev/sdb1", "/dev/sdb2")),
        (&[(1, "MY STICK"), (2, "HOLDFAST-HIDDEN")], ("/dev/sdb1", "/dev/sdb2")),
        // The names outlive their order, and the numbers need not begin with one.
        (&[(1, "HOLDFAST-HIDDEN"), (2, "HOLDFAST-FREE")], ("/dev/sdb2", "/dev/sdb1")),
        (&[(1, "HOLDFAST-HIDDEN"), (3, "")], ("/dev/sdb3", "/dev/sdb1")),
        (&[(2, "other"), (3, "HOLDFAST-FREE")], ("/dev/sdb3", "")),
        // A new partition table.
        (&[(1, ""), (2, "")], ("/dev/sdb1", "")),
        // None at all: a file system on the whole disk.
        (&[], ("/dev/sdb", "")),
        (&[(2, "HOLDFAST-HIDDEN")], ("", "/dev/sdb2")),
    ] {
        let fake = Fake::new();
        fake.block(CD, "11:0");
        fake.block(DISK_1, "8:16");
        for (number, name) in partitions {
            fake.partition(DISK_1, *number, &format!("8:{}", 16 + number), name);
        }
        assert_eq!(zones(&fake, "/dev/sr0"), nodes(expected.0, expected.1), "{partitions:?}");
    }
}

#[test]
fn the_free_zone_is_found_whatever_a_stick_has_lost_beside_its_virtual_partition() {
    for (partitions, expected) in [
        (&[(1, "HOLDFAST-FREE"), (2, "HOLDFAST-VIRTUAL")][..], Some(("/dev/sdb1", ""))),
        (&[(1, ""), (2, "HOLDFAST-VIRTUAL"), (3, "")], Some(("/dev/sdb1", ""))),
        (&[(2, "HOLDFAST-VIRTUAL"), (3, "HOLDFAST-HIDDEN"), (4, "")], Some(("/dev/sdb4", "/dev/sdb3"))),
        (&[(2, "HOLDFAST-VIRTUAL")], None),
        // Nothing says that this is a device: nothing is taken.
        (&[(1, ""), (2, ""), (3, "")], None),
    ] {
        let fake = Fake::new();
        fake.block(DISK, "8:16");
        for (number, name) in partitions {
            fake.partition(DISK, *number, &format!("8:{}", 16 + number), name);
        }
        let found = fake.plugged("/dev/sdb2");
        match expected {
            Some((free, hidden)) => assert_eq!(zones(&fake, "/dev/sdb2"), nodes(free, hidden), "{partitions:?}"),
            None => assert_eq!(found, Err(FindError::NoZones("/dev/sdb2".into())), "{partitions:?}"),
        }
    }
}

#[test]
fn a_boards_own_partitions_behind_the_zones_are_never_taken_for_the_free_zone() {
    for (fourth_starts, free) in [(900_000, None), (8192, Some("/dev/sdb4"))] {
        let fake = Fake::new();
        fake.block(DISK, "8:16");
        let partitions = [(2, "HOLDFAST-VIRTUAL", 500_000), (3, "HOLDFAST-HIDDEN", 600_000), (4, "", fourth_starts)];
        for (number, name, start) in partitions.into_iter().chain([(5, "root", 1_000_000)]) {
            fake.partition(DISK, number, &format!("8:{}", 16 + number), name);
            fake.write(&format!("sys/devices/{DISK}/sdb{number}/start"), &format!("{start}\n"));
        }
        assert_eq!(zones(&fake, "/dev/sdb2"), (free.map(PathBuf::from), Some("/dev/sdb3".into())));
    }
}

#[test]
fn a_foreign_disk_is_never_taken() {
    let fake = Fake::new();
    fake.block(CD, "11:0");
    // Another device's disk, and this computer's own.
    let other = "pci0000:00/usb1/1-3/1-3:1.0/host7/target7:0:0/7:0:0:0/block/sdc";
    fake.block(other, "8:32");
    fake.partition(other, 1, "8:33", "HOLDFAST-FREE");
    fake.partition(other, 2, "8:34", "HOLDFAST-HIDDEN");
    let own = "pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda";
    fake.block(own, "8:0");
    fake.partition(own, 1, "8:1", "EFI");
    assert_eq!(fake.plugged("/dev/sr0"), Err(FindError::NoZones("/dev/sr0".into())));
    // Two disks beside the CD and no name: either might be somebody else's card.
    for (lun, name) in [(1, "sdb"), (2, "sdd")] {
        let disk = format!("pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:{lun}/block/{name}");
        fake.block(&disk, &format!("8:{}", 16 + 32 * lun));
        fake.partition(&disk, 1, &format!("8:{}", 17 + 32 * lun), "");
    }
    assert_eq!(fake.plugged("/dev/sr0"), Err(FindError::NoZones("/dev/sr0".into())));
    // A computer's own disk at the target of its CD-ROM drive, as some controllers have them; and a disk that is no CD-ROM unit.
    fake.block("pci0000:00/ata2/host1/target1:0:0/1:0:0:0/block/sr2", "11:2");
    fake.block("pci0000:00/ata2/host1/target1:0:0/1:0:0:1/block/sde", "8:224");
    assert_eq!(fake.plugged("/dev/sr2"), Err(FindError::NoZones("/dev/sr2".into())));
    fake.block("pci0000:00/usb1/1-4/1-4:1.0/host8/target8:0:0/8:0:0:0/block/sdf", "8:228");
    fake.block("pci0000:00/usb1/1-4/1-4:1.0/host8/target8:0:0/8:0:0:1/block/sdg", "8:232");
    assert_eq!(fake.plugged("/dev/sdf"), Err(FindError::NoZones("/dev/sdf".into())));
    // A CD-ROM drive without a target of its own finds nothing, and nothing is taken for its target.
    fake.block("pci0000:00/virtio1/block/sr1", "11:1");
    assert_eq!(fake.plugged("/dev/sr1"), Err(FindError::NoZones("/dev/sr1".into())));
}

#[test]
fn a_card_reader_without_a_card_beside_the_cd_is_passed_over() {
    let fake = Fake::new();
    fake.block(CD, "11:0");
    let empty = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:1/block/sdb";
    fake.block(empty, "8:16");
    fake.write(&format!("sys/devices/{empty}/size"), "0\n");
    let disk = "pci0000:00/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:2/block/sdc";
    fake.block(disk, "8:32");
    fake.write(&format!("sys/devices/{disk}/size"), "409600\n");
    assert_eq!(zones(&fake, "/dev/sr0"), nodes("/dev/sdc", ""));
}

#[test]
fn a_disk_that_appears_after_its_cd_is_waited_for() {
    const LONG: Duration = Duration::from_secs(60);
    is_waited_for(|system| plugged_device(&system, Path::new("/dev/sr0"), LONG).map(|found| found.siblings));
    is_waited_for(|system| own_device(&system, LONG).map(|found| found.siblings));
}

fn is_waited_for(find: impl FnOnce(System) -> Result<Siblings, FindError> + Send) {
    let mut fake = Fake::new();
    fake.block(CD, "11:0");
    fake.udev_knows(&["11:0"]);
    let disc = fake.mount("11:0", "media/disc", "iso9660", "/dev/sr0");
    std::thread::scope(|scope| {
        let system = fake.system(&disc);
        let found = scope.spawn(move || find(system));
        std::thread::sleep(Duration::from_millis(100));
        fake.block(DISK_1, "8:16");
        fake.partition(DISK_1, 1, "8:17", "HOLDFAST-FREE");
        fake.partition(DISK_1, 2, "8:18", "HOLDFAST-HIDDEN");
        std::thread::sleep(Duration::from_millis(100));
        assert!(!found.is_finished(), "the rules have not given their rights yet");
        fake.udev_knows(&["8:16", "8:17", "8:18"]);
        let found = found.join().unwrap().unwrap();
        assert_eq!(found.hidden, Some("/dev/sdb2".into()));
    });
}

#[test]
fn a_device_that_is_complete_is_not_waited_for() {
    let long = Duration::from_secs(60);
    let fake = Fake::new();
    stick(&fake);
    let started = Instant::now();
    plugged_device(&fake.host(), Path::new("/dev/sdb2"), long).unwrap();
    fake.udev_knows(&["8:16", "8:17", "8:18", "8:19"]);
    plugged_device(&fake.host(), Path::new("/dev/sdb2"), long).unwrap();
    let fake = Fake::new();
    fake.block(CD, "11:0");
    fake.block(DISK_1, "8:16");
    // udev has looked, and there are no partitions: none will come.
    fake.udev_knows(&["11:0", "8:16"]);
    plugged_device(&fake.host(), Path::new("/dev/sr0"), long).unwrap();
    assert!(started.elapsed() < long);
}
