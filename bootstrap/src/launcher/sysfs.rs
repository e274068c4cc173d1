//! Block devices as sysfs shows them: disks, their partitions, and the units of one SCSI target.

use std::fs;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;

/// The longest file that is read here, in bytes.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// A disk, a CD-ROM unit or a partition: its directory in sysfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit(PathBuf);

impl Unit {
    /// The device with this number, `MAJOR:MINOR`.
    pub fn by_number(sys: &Path, number: &str) -> Option<Self> {
        fs::canonicalize(sys.join("dev/block").join(number)).ok().map(Self)
    }

    /// The device of this node. A link to a node, as udev makes them, is followed.
    pub fn by_node(sys: &Path, node: &Path) -> Option<Self> {
        let node = fs::canonicalize(node).unwrap_or_else(|_| node.to_path_buf());
        fs::canonicalize(sys.join("class/block").join(node.file_name()?)).ok().map(Self)
    }

    /// The device's name in the kernel.
    pub fn name(&self) -> &Path {
        Path::new(self.0.file_name().unwrap_or_default())
    }

    /// Whether it is a unit of a CD-ROM drive.
    pub fn is_cd_rom(&self) -> bool {
        self.name().as_os_str().to_string_lossy().starts_with("sr")
    }

    /// Whether it is part of a USB device: `…/usbN/…`.
    pub fn is_on_usb(&self) -> bool {
        let is_bus = |name: &str| {
            let number = name.strip_prefix("usb").unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        self.0.as_os_str().to_string_lossy().split('/').any(is_bus)
    }

    /// Its node.
    pub fn node(&self, dev: &Path) -> PathBuf {
        dev.join(self.name())
    }

    /// Its number, `MAJOR:MINOR`.
    pub fn number(&self) -> Option<String> {
        read_text(&self.0.join("dev")).map(|text| text.trim().to_owned())
    }

    /// Whether it has bytes at all: a drive without a medium has none, and one that is still being looked at.
    pub fn has_medium(&self) -> bool {
        read_text(&self.0.join("size")).is_none_or(|text| text.trim() != "0")
    }

    /// Its number among the partitions of its disk; `None`: it is no partition.
    pub fn partition_number(&self) -> Option<u32> {
        read_text(&self.0.join("partition"))?.trim().parse().ok()
    }

    /// Where it begins on its disk, in sectors; `None` where the system does not tell.
    pub fn start(&self) -> Option<u64> {
        read_text(&self.0.join("start"))?.trim().parse().ok()
    }

    /// The name that the partition table gives it; empty where there is none.
    pub fn partition_name(&self) -> String {
        let uevent = read_text(&self.0.join("uevent")).unwrap_or_default();
        uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")).unwrap_or_default().to_owned()
    }

    /// The disk of a partition.
    pub fn disk(&self) -> Option<Self> {
        self.0.parent().map(|parent| Self(parent.to_path_buf()))
    }

    /// The partitions of a disk, by number.
    pub fn partitions(&self) -> Vec<Self> {
        let numbered = |directory| {
            let unit = Self(directory);
            Some((unit.partition_number()?, unit))
        };
        let mut partitions: Vec<(u32, Self)> = entries(&self.0).into_iter().filter_map(numbered).collect();
        partitions.sort_unstable_by_key(|(number, _)| *number);
        partitions.into_iter().map(|(_, unit)| unit).collect()
    }

    /// The disks at the same SCSI target: `…/targetH:C:T/H:C:T:L/block/NAME`. None for what has no such target.
    pub fn beside(&self) -> Vec<Self> {
        let Some(lun) = self.0.parent().and_then(Path::parent) else { return Vec::new() };
        let Some(target) = lun.parent() else { return Vec::new() };
        if !target.file_name().is_some_and(|name| name.to_string_lossy().starts_with("target")) {
            return Vec::new();
        }
        let mut units: Vec<Self> = entries(target)
            .into_iter()
            .filter(|beside| **beside != *lun)
            .flat_map(|beside| entries(&beside.join("block")))
            .map(Self)
            .collect();
        units.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        units
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(directory) else { return Vec::new() };
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The text of a small file; `None` where it cannot be read.
pub fn read_text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_TEXT_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
