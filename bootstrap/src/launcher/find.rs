//! The device that this launcher was started from: its own file → the mount that holds it → the partition or CD-ROM unit
//! under that → the partitions beside it, by name.
//!
//! ```text
//! /proc/self/exe ─▶ mountinfo ─▶ MAJ:MIN ─▶ sysfs ┬▶ partition of a disk ─▶ the disk's partitions
//!                                                 └▶ CD-ROM of a SCSI target ─▶ disks of the same target ─▶ partitions
//! ```
//! Reads text files only, below roots that a test can set.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::paths;

/// The partition name of the free zone.
pub const FREE_NAME: &str = "HOLDFAST-FREE";
/// The partition name of the hidden zone.
pub const HIDDEN_NAME: &str = "HOLDFAST-HIDDEN";
/// The longest file that is read here, in bytes.
const MAX_TEXT_BYTES: u64 = 4 << 20;

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
}

impl Default for System {
    fn default() -> Self {
        Self {
            exe: std::env::current_exe().ok(),
            mountinfo: "/proc/self/mountinfo".into(),
            sys: "/sys".into(),
            dev: "/dev".into(),
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

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The virtual zone's directory.
    pub virtual_zone: PathBuf,
    /// The CD-ROM unit, if that is what the virtual zone is on.
    pub cd: Option<PathBuf>,
    /// The free zone.
    pub free: Option<Block>,
    /// The hidden zone's node.
    pub hidden: Option<PathBuf>,
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
    /// No partition of this disk has the names of a device.
    NoZones(PathBuf),
}

impl FindError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotOnADevice(_) | Self::NoProgram => {
                "Start the launcher from the device, or say which one: --device PATH, or --virtual DIR --free DIR."
            }
            Self::NoMounts(_) | Self::NoBlockDevice(_) | Self::NoZones(_) => {
                "Say where the zones are: --virtual DIR --free DIR --hidden DEVICE."
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
            Self::NoZones(disk) => write!(f, "No free and no hidden zone belongs to {}.", disk.display()),
        }
    }
}

impl std::error::Error for FindError {}

/// Finds the device that holds this program.
///
/// # Errors
/// See [`FindError`].
pub fn own_device(system: &System) -> Result<Found, FindError> {
    let exe = system.exe.as_deref().ok_or(FindError::NoProgram)?;
    let virtual_zone = exe.parent().ok_or(FindError::NoProgram)?.to_path_buf();
    if !virtual_zone.join(paths::DEVICE_CONFIG).is_file() {
        return Err(FindError::NotOnADevice(virtual_zone));
    }
    let text = read_text(&system.mountinfo).ok_or_else(|| FindError::NoMounts(system.mountinfo.clone()))?;
    let mounts: Vec<Mount> = text.lines().filter_map(Mount::parse).collect();
    // The last of the longest: what was mounted over an earlier mount hides it.
    let mount = mounts.iter().filter(|mount| virtual_zone.starts_with(&mount.at)).max_by_key(|mount| mount.depth());
    let no_block_device = || FindError::NoBlockDevice(virtual_zone.clone());
    let mount = mount.ok_or_else(no_block_device)?;
    let own = fs::canonicalize(system.sys.join("dev/block").join(&mount.device)).map_err(|_| no_block_device())?;
    let is_partition = own.join("partition").exists();
    let (disks, cd) = if is_partition {
        (own.parent().map(Path::to_path_buf).into_iter().collect(), None)
    } else {
        (units_beside(&own), own.file_name().map(|name| system.dev.join(name)))
    };
    for disk in &disks {
        let partitions = Partition::of(disk);
        let others = || partitions.iter().filter(|partition| partition.directory != own);
        let hidden = others().find(|partition| partition.name == HIDDEN_NAME);
        // A format may take the name away; the free zone is then the first partition beside a hidden zone.
        let free = others().find(|partition| partition.name == FREE_NAME).or_else(|| {
            let first = |partition: &&Partition| partition.number == 1 && partition.name != HIDDEN_NAME;
            hidden.and_then(|_| others().find(first))
        });
        if free.is_none() && hidden.is_none() {
            continue;
        }
        let free = free.map(|partition| {
            let node = partition.node(&system.dev);
            let mounted = mounts.iter().rev().find(|mount| {
                mount.root == "/"
                    && (Some(&mount.device) == partition.device.as_ref() || Path::new(&mount.source) == node)
            });
            Block { node, mounted: mounted.map(|mount| mount.at.clone()) }
        });
        let hidden = hidden.map(|partition| partition.node(&system.dev));
        return Ok(Found { virtual_zone, cd, free, hidden });
    }
    Err(FindError::NoZones(disks.first().cloned().unwrap_or(own)))
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
struct Mount {
    device: String,
    root: String,
    at: PathBuf,
    source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let root = unescape(fields.next()?);
        let at = PathBuf::from(unescape(fields.next()?));
        let mut rest = fields.skip_while(|field| *field != "-").skip(2);
        Some(Self { device, root, at, source: unescape(rest.next()?) })
    }

    fn depth(&self) -> usize {
        self.at.components().count()
    }
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            _ => {
                out.push(*byte);
                tail
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The disks at the same SCSI target as a unit: `…/targetH:C:T/H:C:T:L/block/NAME`.
fn units_beside(unit: &Path) -> Vec<PathBuf> {
    let Some(lun) = unit.parent().and_then(Path::parent) else { return Vec::new() };
    let Some(target) = lun.parent() else { return Vec::new() };
    let is_target = target.file_name().is_some_and(|name| name.to_string_lossy().starts_with("target"));
    if !is_target {
        return Vec::new();
    }
    let mut disks: Vec<PathBuf> = entries(target)
        .into_iter()
        .filter(|beside| beside != lun)
        .flat_map(|beside| entries(&beside.join("block")))
        .collect();
    disks.sort();
    disks
}

struct Partition {
    directory: PathBuf,
    number: u32,
    name: String,
    device: Option<String>,
}

impl Partition {
    fn of(disk: &Path) -> Vec<Self> {
        let mut partitions: Vec<Self> = entries(disk).into_iter().filter_map(Self::read).collect();
        partitions.sort_by_key(|partition| partition.number);
        partitions
    }

    fn read(directory: PathBuf) -> Option<Self> {
        let number = read_text(&directory.join("partition"))?.trim().parse().ok()?;
        let uevent = read_text(&directory.join("uevent")).unwrap_or_default();
        let name = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")).unwrap_or_default().to_owned();
        let device = read_text(&directory.join("dev")).map(|text| text.trim().to_owned());
        Some(Self { directory, number, name, device })
    }

    fn node(&self, dev: &Path) -> PathBuf {
        dev.join(self.directory.file_name().unwrap_or_default())
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(directory) else { return Vec::new() };
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn read_text(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MAX_TEXT_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
