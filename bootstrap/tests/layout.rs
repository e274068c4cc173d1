//! The rules by which Windows' launcher finds the zones of its device, on made-up disks and units.

use std::fs;
use std::path::PathBuf;

use bootstrap::launcher::layout::{Partition, Place, Storage, Volume, hidden_beside, siblings, virtual_zone_beside};

const FREE: &str = "HOLDFAST-FREE";
const VIRTUAL: &str = "HOLDFAST-VIRTUAL";
const HIDDEN: &str = "HOLDFAST-HIDDEN";

/// Disks by their numbers, and what is part of one USB device.
#[derive(Default)]
struct Fake {
    /// The names of the partitions of each disk, which stand in this order, counted from 1.
    disks: Vec<&'static [&'static str]>,
    /// The units of each USB device.
    devices: Vec<Vec<Place>>,
}

impl Storage for Fake {
    fn partitions(&self, disk: u32) -> Vec<Partition> {
        let names = self.disks.get(disk as usize).copied().unwrap_or_default().iter();
        (1..)
            .zip(names)
            .map(|(number, name)| Partition { number, name: (*name).into(), start: number.into() })
            .collect()
    }

    fn beside(&self, own: Place, disks: bool) -> Vec<u32> {
        let unit = Place { partition: 0, ..own };
        let device = self.devices.iter().find(|device| device.contains(&unit));
        device.into_iter().flatten().filter(|place| place.is_disk == disks).map(|place| place.unit).collect()
    }
}

fn disk(unit: u32, partition: u32) -> Place {
    Place { is_disk: true, unit, partition }
}

fn cd(unit: u32) -> Place {
    Place { is_disk: false, unit, partition: 0 }
}

/// A volume for each place, called by letters from E on.
fn volumes(places: &[Place]) -> Vec<Volume> {
    let root = |letter: u8| PathBuf::from(format!("{}:\\", letter as char));
    (b'E'..).zip(places).map(|(letter, place)| Volume { place: *place, root: root(letter) }).collect()
}

/// The free zone's root and the hidden zone's device beside the virtual zone in `own`.
fn beside(fake: &Fake, own: Place, places: &[Place]) -> Option<(Option<String>, Option<String>)> {
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let found = siblings(fake, own, &volumes(places))?;
    assert_eq!(found.cd, None);
    Some((found.free.map(|block| text(block.mounted.unwrap())), found.hidden.map(text)))
}

fn some(free: &str, hidden: &str) -> Option<(Option<String>, Option<String>)> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some((text(free), text(hidden)))
}

#[test]
fn the_zones_of_a_stick_are_on_its_own_disk_and_on_no_other() {
    let fake = Fake { disks: vec![&[FREE, HIDDEN], &[FREE, VIRTUAL, HIDDEN]], ..Fake::default() };
    let places = [disk(0, 1), disk(1, 1)];
    assert_eq!(beside(&fake, disk(1, 2), &places), some("F:\\", r"\\.\Harddisk1Partition3"));
    assert_eq!(beside(&fake, disk(1, 2), &[disk(0, 1)]), some("", r"\\.\Harddisk1Partition3"), "it has no volume");
    assert_eq!(hidden_beside(&fake, disk(1, 1)), Some(r"\\.\Harddisk1Partition3".into()));
    assert_eq!(hidden_beside(&fake, cd(1)), None);
}

#[test]
fn beside_a_cd_are_the_disks_of_the_same_usb_device_only() {
    let devices = vec![vec![cd(0), disk(1, 0)], vec![cd(1), disk(2, 0)]];
    let fake = Fake { disks: vec![&[FREE, HIDDEN]; 3], devices };
    let places = [disk(0, 1), disk(1, 1), disk(2, 1)];
    assert_eq!(beside(&fake, cd(1), &places), some("G:\\", r"\\.\Harddisk2Partition2"));
    assert_eq!(beside(&fake, cd(5), &places), None, "it is on no USB device");
}

#[test]
fn a_free_zone_that_lost_its_name_is_the_first_in_front_of_the_zones() {
    let places = [disk(0, 1), disk(0, 2), disk(0, 3), disk(0, 4)];
    let of =
        |names: &'static [&'static str], own| beside(&Fake { disks: vec![names], ..Fake::default() }, own, &places);
    assert_eq!(of(&["", VIRTUAL, HIDDEN, ""], disk(0, 2)), some("E:\\", r"\\.\Harddisk0Partition3"));
    assert_eq!(of(&["", VIRTUAL, "", ""], disk(0, 2)), some("E:\\", ""));
    // What is behind the zones is a board's own.
    assert_eq!(of(&[VIRTUAL, HIDDEN, "", ""], disk(0, 1)), some("", r"\\.\Harddisk0Partition2"));
    // Whatever disk it is, nothing on it says that it is a device's.
    assert_eq!(of(&["", "", "", ""], disk(0, 2)), None);
}

#[test]
fn a_disk_formatted_anew_is_the_devices_if_it_is_the_only_one() {
    let one = Fake { disks: vec![&[]], devices: vec![vec![cd(0), disk(0, 0)]] };
    assert_eq!(beside(&one, cd(0), &[disk(0, 0)]), some("E:\\", ""), "it is a volume as a whole");
    let one = Fake { disks: vec![&["Basic data partition"]], ..one };
    assert_eq!(beside(&one, cd(0), &[disk(0, 1)]), some("E:\\", ""));
    let two = Fake { disks: vec![&[""], &[""]], devices: vec![vec![cd(0), disk(0, 0), disk(1, 0)]] };
    assert_eq!(beside(&two, cd(0), &[disk(0, 1), disk(1, 1)]), None);
}

#[test]
fn the_virtual_zone_beside_a_free_zone_has_a_configuration_and_is_never_the_free_zone() {
    let dir = tempfile::tempdir().unwrap();
    let volume = |place: Place, name: &str, is_configured: bool| {
        let root = dir.path().join(name);
        fs::create_dir(&root).unwrap();
        if is_configured {
            fs::write(root.join("device.cfg"), b"").unwrap();
        }
        Volume { place, root }
    };
    let fake = Fake { disks: vec![&[FREE], &[FREE]], devices: vec![vec![cd(0), disk(1, 0)], vec![cd(1)]] };
    let mut volumes = vec![
        volume(disk(1, 1), "own", true),
        volume(disk(0, 1), "another disk", true),
        volume(cd(1), "another cd", true),
        volume(disk(1, 2), "without configuration", false),
    ];
    assert_eq!(virtual_zone_beside(&fake, disk(1, 1), &volumes), None);
    volumes.push(volume(cd(0), "cd", true));
    assert_eq!(virtual_zone_beside(&fake, disk(1, 1), &volumes), Some(dir.path().join("cd")));
    volumes.insert(0, volume(disk(1, 3), "partition", true));
    assert_eq!(virtual_zone_beside(&fake, disk(1, 1), &volumes), Some(dir.path().join("partition")));
}
