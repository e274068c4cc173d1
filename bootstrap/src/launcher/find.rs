//! A device and its zones: the one that this launcher was started from, or the one that was just plugged in.
//!
//! ```text
//! /proc/self/exe ─▶ mountinfo ─▶ MAJ:MINOR ┐
//!                       --plugged ─▶ node ─┴▶ sysfs ┬▶ partition of a disk ─▶ the other partitions of that disk
//!                                                   └▶ CD-ROM of a SCSI target ─▶ the disks of the same target
//! ```
//! Nothing else is looked at: never another disk, whatever its partitions are called. Reads text files only, below roots
//! that a test can set.

use std::fmt;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;
use std::time::{Duration, Instant};

use firmware_image::paths;

use super::mountinfo::Mount;
use super::sysfs::{Unit, read_text};

/// The partition name of the free zone.
pub const FREE_NAME: &str = "HOLDFAST-FREE";
/// The partition name of the virtual zone.
pub const VIRTUAL_NAME: &str = "HOLDFAST-VIRTUAL";
/// The partition name of the hidden zone.
pub const HIDDEN_NAME: &str = "HOLDFAST-HIDDEN";
/// How long a device may take from its first unit to the last partition.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often a device that is still being recognised is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Where the system tells of itself.
#[derive(Debug, Clone)]
pub struct System {
    /// This program.
    pub exe: Option<PathBuf>,
    /// The mounts that this process sees.
    pub mountinfo: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
    /// What udev knows: an entry `bMAJOR:MINOR` for each device that it has finished with.
    pub udev: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self {
            exe: std::env::current_exe().ok(),
            mountinfo: "/proc/self/mountinfo".into(),
            sys: "/sys".into(),
            dev: "/dev".into(),
            udev: "/run/udev/data".into(),
        }
    }
}

/// A partition or unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its node.
    pub node: PathBuf,
    /// Where it is mounted.
    pub mounted: Option<PathBuf>,
}

/// The zones beside a virtual zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Siblings {
    /// The CD-ROM unit, if that is what the virtual zone is on.
    pub cd: Option<PathBuf>,
    /// The free zone.
    pub free: Option<Block>,
    /// The hidden zone's node.
    pub hidden: Option<PathBuf>,
}

/// The device that holds this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The virtual zone's directory; `None`: the program stands in the free zone, and the virtual zone is not in sight.
    pub virtual_zone: Option<PathBuf>,
    /// The zones beside it.
    pub siblings: Siblings,
    /// Whether the system tells of all of the device's partitions, so that one that is not among them is gone.
    pub is_complete: bool,
}

/// A device that was plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// The virtual zone.
    pub virtual_zone: Block,
    /// The zones beside it.
    pub siblings: Siblings,
}

/// Why there is no device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindError {
    /// The system does not say where this program stands.
    NoProgram,
    /// There is no configuration beside the program.
    NotOnADevice(PathBuf),
    /// The mounts cannot be read.
    NoMounts(PathBuf),
    /// The directory is on no block device.
    NoBlockDevice(PathBuf),
    /// The node is none of a disk, a partition or a CD-ROM.
    NoSuchUnit(PathBuf),
    /// Nothing beside this virtual zone can be a zone of its device.
    NoZones(PathBuf),
}

impl FindError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotOnADevice(_) | Self::NoProgram => {
                "Start the launcher from the device, or say where its zones are: --virtual DIR --free DIR."
            }
            Self::NoSuchUnit(_) => "Is the device still plugged in?",
            Self::NoMounts(_) | Self::NoBlockDevice(_) => {
                "Say where the zones are: --virtual DIR --free DIR --hidden DEVICE."
            }
            Self::NoZones(_) => {
                "Plug the device in again and start the launcher. If this stays so, its partitions are gone: make one (FAT32) \
                 where they were; or say where the zones are: --virtual DIR --free DIR --hidden DEVICE."
            }
        }
    }
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram => f.write_str("The system does not say where this launcher was started from."),
            Self::NotOnADevice(directory) => {
                write!(f, "There is no {} beside the launcher in {}.", paths::DEVICE_CONFIG, directory.display())
            }
            Self::NoMounts(path) => write!(f, "{} cannot be read.", path.display()),
            Self::NoBlockDevice(directory) => write!(f, "{} is on no disk or CD-ROM.", directory.display()),
            Self::NoSuchUnit(node) => write!(f, "{} is no disk, partition or CD-ROM of this computer.", node.display()),
            Self::NoZones(node) => write!(f, "No free and no hidden zone belongs to {}.", node.display()),
        }
    }
}

impl std::error::Error for FindError {}

/// Finds the device that holds this program, which may just have been plugged in, as [`plugged_device`].
///
/// # Errors
/// See [`FindError`].
pub fn own_device(system: &System, patience: Duration) -> Result<Found, FindError> {
    let exe = system.exe.as_deref().ok_or(FindError::NoProgram)?;
    let virtual_zone = exe.parent().ok_or(FindError::NoProgram)?.to_path_buf();
    if !virtual_zone.join(paths::DEVICE_CONFIG).is_file() {
        return Err(FindError::NotOnADevice(virtual_zone));
    }
    let text = read_text(&system.mountinfo).ok_or_else(|| FindError::NoMounts(system.mountinfo.clone()))?;
    let mounts = Mount::all(&text);
    let own = Mount::of(&mounts, &virtual_zone).and_then(|mount| Unit::by_number(&system.sys, &mount.device));
    let own = own.ok_or_else(|| FindError::NoBlockDevice(virtual_zone.clone()))?;
    let siblings = siblings_in_time(system, &own, patience)?;
    Ok(Found { virtual_zone: Some(virtual_zone), siblings, is_complete: true })
}

/// Finds the zones beside the virtual zone on `node`, which may just have appeared: waits up to `patience` until the system
/// has recognised what belongs to it.
///
/// # Errors
/// See [`FindError`].
pub fn plugged_device(system: &System, node: &Path, patience: Duration) -> Result<Plugged, FindError> {
    let own = Unit::by_node(&system.sys, node).ok_or_else(|| FindError::NoSuchUnit(node.to_path_buf()))?;
    let siblings = siblings_in_time(system, &own, patience)?;
    Ok(Plugged { virtual_zone: block(system, &own, &mounts_of(system)), siblings })
}

fn siblings_in_time(system: &System, own: &Unit, patience: Duration) -> Result<Siblings, FindError> {
    let until = Instant::now() + patience;
    while !is_settled(system, own) && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
    siblings(system, own, &mounts_of(system)).ok_or_else(|| FindError::NoZones(own.node(&system.dev)))
}

/// A mountinfo that cannot be read hides nothing that is needed: a zone is mounted anew.
fn mounts_of(system: &System) -> Vec<Mount> {
    Mount::all(&read_text(&system.mountinfo).unwrap_or_default())
}

fn block(system: &System, unit: &Unit, mounts: &[Mount]) -> Block {
    let node = unit.node(&system.dev);
    let mounted = Mount::place_of(mounts, unit.number().as_deref(), &node);
    Block { node, mounted }
}

/// Whether kernel and udev have finished with everything that may belong to the device: its disk is there, it has been looked
/// through for partitions, and their nodes have the rights that rules give them.
fn is_settled(system: &System, own: &Unit) -> bool {
    let knows = |unit: &Unit| unit.number().is_some_and(|number| system.udev.join(format!("b{number}")).exists());
    // Where no udev is at work there is nobody to wait for but the kernel.
    let done = |unit: &Unit| !knows(own) || knows(unit);
    if own.partition_number().is_some() {
        return own.disk().is_none_or(|disk| disk.partitions().iter().all(done));
    }
    // What is no part of a USB device is all there.
    if !own.is_on_usb() {
        return true;
    }
    let disks = own.beside();
    let recognised = |disk: &Unit| {
        let partitions = disk.partitions();
        // The kernel names the partitions before udev hears of the disk. Without udev, a disk without any may be one that is
        // still being read.
        disk.has_medium() && done(disk) && partitions.iter().all(done) && (knows(own) || !partitions.is_empty())
    };
    !disks.is_empty() && disks.iter().all(recognised)
}

/// The zones beside the virtual zone in `own`; `None`: there are none.
fn siblings(system: &System, own: &Unit, mounts: &[Mount]) -> Option<Siblings> {
    let found = |cd, free: Option<&Unit>, hidden: Option<&Unit>| Siblings {
        cd,
        free: free.map(|unit| block(system, unit, mounts)),
        hidden: hidden.map(|unit| unit.node(&system.dev)),
    };
    if own.partition_number().is_some() {
        let (free, hidden) = zones_of(&own.disk()?, own, own.partition_name() == VIRTUAL_NAME);
        return (free.is_some() || hidden.is_some()).then(|| found(None, free.as_ref(), hidden.as_ref()));
    }
    let cd = Some(own.node(&system.dev));
    let disks: Vec<Unit> = own.beside().into_iter().filter(Unit::has_medium).collect();
    for disk in &disks {
        let (free, hidden) = zones_of(disk, own, false);
        if free.is_some() || hidden.is_some() {
            return Some(found(cd, free.as_ref(), hidden.as_ref()));
        }
    }
    // No name is left. If a USB device has one disk only beside its CD, it is the device's: somebody partitioned or formatted it
    // anew. Elsewhere a CD-ROM drive may share its target with the disk of a computer, and what is no CD with anything.
    let [disk] = &disks[..] else { return None };
    if !own.is_cd_rom() || !own.is_on_usb() {
        return None;
    }
    match zones_of(disk, own, true) {
        (None, None) => Some(found(cd, Some(disk), None)),
        (free, hidden) => Some(found(cd, free.as_ref(), hidden.as_ref())),
    }
}

/// Free and hidden zone of a disk. A format may take the free zone's name away: it is then the first partition that nothing
/// else can be, provided that a hidden zone is there, or the disk is `known` to be a device's. It stands in front of the other
/// zones; what is behind them is a board's own and never taken.
fn zones_of(disk: &Unit, own: &Unit, known: bool) -> (Option<Unit>, Option<Unit>) {
    let mut others: Vec<(String, Unit)> = disk
        .partitions()
        .into_iter()
        .filter(|partition| partition != own)
        .map(|partition| (partition.partition_name(), partition))
        .collect();
    let mut take = |wanted: &dyn Fn(&str, &Unit) -> bool| {
        let at = others.iter().position(|(name, partition)| wanted(name, partition))?;
        Some(others.remove(at).1)
    };
    let hidden = take(&|name, _| name == HIDDEN_NAME);
    let zones_start =
        [hidden.as_ref(), Some(own)].into_iter().flatten().filter(|zone| zone.disk().as_ref() == Some(disk));
    let zones_start = zones_start.filter_map(Unit::start).min();
    let in_front = |partition: &Unit| match (partition.start(), zones_start) {
        (Some(start), Some(zones)) => start < zones,
        _ => true,
    };
    let free = take(&|name, _| name == FREE_NAME).or_else(|| {
        let may_be = |name: &str, partition: &Unit| name != HIDDEN_NAME && name != VIRTUAL_NAME && in_front(partition);
        if known || hidden.is_some() { take(&may_be) } else { None }
    });
    (free, hidden)
}
