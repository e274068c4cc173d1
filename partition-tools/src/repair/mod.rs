//! Mends what stands around the zones and what nobody on a device writes: the protective MBR, the two copies of the partition
//! table, and the free zone's boot sector with its copy. What is inside the zones is the launcher's and the updater's business.
//!
//! A copy of the table is used without a question where it *bears the device's own disk GUID*: where the hidden zone to which
//! this very copy points has a slot of a device with that GUID ([`gpt::disk_guid`]). Everything else is asked.
//!
//! Invariants: all is decided before anything is written; the copy that is used is written last, so that at any cut one
//! sound copy is left and the next run finishes.

mod question;

use std::fs::{File, OpenOptions};
use std::path::Path;

use firmware_image::boot_sector::{self, Finding, Which};
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenZone, SlotName};
use firmware_image::host::{Access, FileZone};
use firmware_image::image::device::{DeviceError, lock};
use firmware_image::image::gpt::{self, Copies, Copy, Extent, Mbr, Table, TableError};
use firmware_image::storage::Window;
use firmware_image::{RawZone, ZoneError};

pub use self::question::{Ask, Question};
use crate::error::ToolError;
use crate::write::target::{Checks, System};

/// What to do about a free zone whose boot sector and copy are both gone, or wrong.
pub const FORMAT: &str = "The free zone has no boot sector that fits it, nor a copy of one, and nothing on the device makes them anew: \
                          format that partition as FAT32 (a small one as FAT), then plug the device in, and it puts back what \
                          is its own. What of the user's files is wanted, file recovery has to fetch before that.";

/// Where the primary table's header stands on most disks, for whoever looks there.
const PRIMARY_AT: u64 = 512;

/// Opens the disk for [`Plan::make`], to itself; one to be read only as it is.
///
/// # Errors
/// `Target` for a disk that is mounted or in use, `Device` (`Busy`: another program writes to it).
pub fn open(target: &Path, system: &System, read_only: bool) -> Result<FileZone, ToolError> {
    let failed = |source| ToolError::Device(DeviceError::Open { path: target.to_owned(), source });
    if target.is_dir() {
        return Err(ToolError::Device(DeviceError::Directory { path: target.to_owned() }));
    }
    if read_only {
        return FileZone::open(target, Access::ReadOnly).map_err(failed);
    }
    system.check_idle(target)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    system.open_exclusively(&mut options, &Checks::default());
    let file: File = options.open(target).map_err(|error| failed(error.into()))?;
    let zone = FileZone::from_file(file, Access::ReadWrite).map_err(failed)?;
    lock(&zone).map_err(failed)?;
    Ok(zone)
}

/// What is to be written, decided and in order. See the module.
#[derive(Debug)]
pub struct Plan {
    table: Table,
    /// Which copy of the table is written from the other.
    copy: Option<Copy>,
    mbr: Option<Mbr>,
    /// Which boot sector is written from the other one.
    boot: Option<Which>,
    /// Whether somebody decided that.
    boot_decided: bool,
    /// Whether there is neither boot sector.
    lost: bool,
}

impl Plan {
    /// What is wrong with `disk`, called `target`, and what to do about it. `from` is the copy of the table that somebody said is
    /// right; all else that nothing on the disk tells is asked. Nothing is written.
    ///
    /// # Errors
    /// `Unmendable` where neither copy of the table is sound, `Device` for a disk without Holdfast's partitions, `Target` where a
    /// question was not answered, `Zone` where the disk can't be read.
    pub fn make<Z: RawZone>(
        disk: &mut Z,
        target: &Path,
        from: Option<Copy>,
        ask: &mut Ask<'_>,
    ) -> Result<Self, ToolError> {
        let read = || ToolError::zone("read", target.display().to_string());
        let copies = Copies::read(&mut *disk).map_err(read())?;
        let chosen = Choice::of(copies, disk, target, from)?;
        let answer = |question: &Question, ask: &mut Ask<'_>| match ask(question) {
            Some(answer) if answer < question.options.len() => Ok(answer),
            _ => Err(ToolError::Target { target: target.to_owned(), reason: question.refusal() }),
        };
        let (table, copy, question) = match chosen {
            Choice::Clear { table, copy } => (table, copy, None),
            Choice::Unproven { table, copy } => {
                let question = Question::unproven(&table, copy, &missing(&table, disk));
                (table, copy, Some(question))
            }
            Choice::Between { mut tables, question } => {
                let table = tables.swap_remove(answer(&question, ask)?);
                let copy = Some(other(table.copy));
                (table, copy, None)
            }
        };
        let mbr = Some(table.mbr(&mut *disk).map_err(read())?).filter(|mbr| *mbr != Mbr::Sound);
        let finding = boot_finding(&table, disk).map_err(read())?;
        let mut boot = match finding {
            Some(Finding::Wrong(which)) => Some(which),
            _ => None,
        };
        let unclear = matches!(finding, Some(Finding::Unclear { .. }));
        if let Some(question) = question
            && (copy.is_some() || mbr.is_some() || boot.is_some() || unclear)
        {
            answer(&question, ask)?;
        }
        if let Some(question) = mbr.and_then(Question::mbr) {
            answer(&question, ask)?;
        }
        if let Some(Finding::Unclear { first, backup }) = finding {
            let question = Question::boot_sector(first, backup);
            // The copy comes last, and is the only one where the other is damaged.
            boot = match answer(&question, ask)? + 1 == question.options.len() {
                true => Some(Which::First),
                false => Some(Which::Backup),
            };
        }
        Ok(Self { table, copy, mbr, boot, boot_decided: unclear, lost: finding == Some(Finding::Neither) })
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.copy.is_none() && self.mbr.is_none() && self.boot.is_none()
    }

    /// Whether the free zone has to be formatted: see [`FORMAT`].
    pub fn has_lost_free_zone(&self) -> bool {
        self.lost
    }

    /// Whether the virtual zone is on this disk; else it is a CD of its own.
    pub fn has_virtual_zone(&self) -> bool {
        self.table.virtual_zone().is_some()
    }

    /// What is written, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(copy) = self.copy {
            lines.push(format!("the partition table {}, from the copy {}", place(copy), place(other(copy))));
        }
        lines.extend(self.mbr.map(|mbr| match mbr {
            Mbr::OtherLength => "the protective MBR, for this disk's length".into(),
            _ => "the protective MBR".into(),
        }));
        lines.extend(self.boot.map(|which| match which {
            Which::First => "the free zone's boot sector, from its copy".into(),
            Which::Backup => "the copy of the free zone's boot sector".into(),
        }));
        lines
    }

    /// Writes what is to be written, and looks at it again past the cache.
    ///
    /// # Errors
    /// `Zone` where something can't be written, `ReadBack` where the disk does not keep what is written to it.
    pub fn carry_out<Z: RawZone>(&self, disk: &mut Z, target: &Path) -> Result<(), ToolError> {
        let failed = |what: &'static str| ToolError::zone("written", what);
        if self.copy.is_some() {
            self.table.write(&mut *disk, None).map_err(failed("the partition table"))?;
        }
        if self.mbr.is_some() {
            self.table.write_mbr(&mut *disk).map_err(failed("the protective MBR"))?;
        }
        if let (Some(which), Some(free)) = (self.boot, self.table.free()) {
            Window::new(&mut *disk, free.start, free.length)
                .and_then(|mut zone| match (self.boot_decided, which) {
                    (true, Which::First) => boot_sector::write_from(&mut zone, Which::Backup),
                    (true, Which::Backup) => boot_sector::write_from(&mut zone, Which::First),
                    (false, _) => boot_sector::mend(&mut zone).map(|_| ()),
                })
                .map_err(failed("the free zone's boot sector"))?;
        }
        disk.drop_caches().map_err(ToolError::zone("read", target.display().to_string()))?;
        let at = match Self::make(disk, target, None, &mut |_| None) {
            Ok(left) if left.is_empty() => return Ok(()),
            Ok(Self { copy: None, mbr: Some(_), .. }) => 0,
            Ok(Self { copy: None, mbr: None, table, .. }) => table.free().map_or(0, |free| free.start),
            Ok(_) | Err(_) => PRIMARY_AT,
        };
        Err(ToolError::ReadBack { target: target.to_owned(), offset: at })
    }
}

/// What is wrong in front of the zones and in the free zone's boot sector of a disk with this table, a line each: all that
/// `repair` would mend but for the copies of the table.
///
/// # Errors
/// What the disk reports.
pub fn around<Z: RawZone>(table: &Table, disk: &mut Z) -> Result<Vec<String>, ZoneError> {
    let mut found = Vec::new();
    match table.mbr(&mut *disk)? {
        Mbr::Sound => {}
        Mbr::OtherLength => found.push("the protective MBR says another length than the disk's".into()),
        Mbr::Damaged => found.push("the disk has no protective MBR".into()),
        Mbr::Partitions => found.push("the disk has no protective MBR, but one with other partitions".into()),
        Mbr::FileSystem => found.push("the disk has no protective MBR, but a file system of its own".into()),
    }
    found.extend(match boot_finding(table, disk)? {
        Some(Finding::Wrong(Which::First)) => Some("the free zone's boot sector is damaged; its copy is sound".into()),
        Some(Finding::Wrong(Which::Backup)) => {
            Some("the free zone's boot sector has no copy that says the same".into())
        }
        Some(Finding::Unclear { first: Some(_), .. }) => {
            Some("the free zone's boot sector and its copy name different places".into())
        }
        Some(Finding::Unclear { first: None, .. }) => Some("the free zone's boot sector is damaged".into()),
        Some(Finding::Sound | Finding::Neither) | None => None,
    });
    Ok(found)
}

/// Whether the free zone of a disk with this table has neither boot sector: see [`FORMAT`].
///
/// # Errors
/// What the disk reports.
pub fn has_lost_free_zone<Z: RawZone>(table: &Table, disk: &mut Z) -> Result<bool, ZoneError> {
    Ok(boot_finding(table, disk)? == Some(Finding::Neither))
}

fn boot_finding<Z: RawZone>(table: &Table, disk: &mut Z) -> Result<Option<Finding>, ZoneError> {
    let Some(free) = table.free() else { return Ok(None) };
    boot_sector::examine(&mut Window::new(disk, free.start, free.length)?).map(Some)
}

/// Which table to go by.
enum Choice {
    /// This one; `copy` is to be written from it.
    Clear { table: Table, copy: Option<Copy> },
    /// This one, if somebody says so: nothing shows that it is the device's.
    Unproven { table: Table, copy: Option<Copy> },
    /// One of these.
    Between { tables: Vec<Table>, question: Question },
}

impl Choice {
    fn of<Z: RawZone>(copies: Copies, disk: &mut Z, target: &Path, from: Option<Copy>) -> Result<Self, ToolError> {
        let agree = copies.agree();
        let foreign = || ToolError::Device(DeviceError::Table { path: target.to_owned(), source: TableError::Foreign });
        if let (Some(copy), false) = (from, agree) {
            let wanted = if copy == Copy::Primary { copies.primary } else { copies.backup };
            return match wanted {
                Ok(table) if table.is_holdfast() => Ok(Self::Clear { table, copy: Some(other(copy)) }),
                Ok(_) => Err(foreign()),
                Err(fault) => Err(ToolError::Target {
                    target: target.to_owned(),
                    reason: format!("the copy of the partition table {} is of no use: {fault}", place(copy)),
                }),
            };
        }
        let (table, copy) = match (copies.primary, copies.backup) {
            (Ok(primary), Ok(_)) if agree => (primary, None),
            (Ok(primary), Ok(backup)) => return Self::between(primary, backup, disk).ok_or_else(foreign),
            (Ok(primary), Err(_)) => (primary, Some(Copy::Backup)),
            (Err(_), Ok(backup)) => (backup, Some(Copy::Primary)),
            (Err(fault @ TableError::Unfinished), _) | (Err(fault), Err(TableError::None)) | (Err(_), Err(fault)) => {
                return Err(ToolError::Unmendable { target: target.to_owned(), source: fault });
            }
        };
        match table.is_holdfast() {
            false => Err(foreign()),
            true if from.is_some() || missing(&table, disk).is_empty() => Ok(Self::Clear { table, copy }),
            true => Ok(Self::Unproven { table, copy }),
        }
    }

    /// Two sound tables that differ; `None` where neither is Holdfast's.
    fn between<Z: RawZone>(primary: Table, backup: Table, disk: &mut Z) -> Option<Self> {
        let mut bears = |table: &Table| table.is_holdfast() && missing(table, disk).is_empty();
        let ours = [bears(&primary), bears(&backup)];
        let told = match ours {
            [true, false] => Some(Copy::Primary),
            [false, true] => Some(Copy::Backup),
            _ => None,
        };
        let all_holdfast = primary.is_holdfast() && backup.is_holdfast();
        match told {
            // Somebody else's table is not written over without a word.
            Some(Copy::Primary) if all_holdfast => Some(Self::Clear { table: primary, copy: Some(Copy::Backup) }),
            Some(Copy::Backup) if all_holdfast => Some(Self::Clear { table: backup, copy: Some(Copy::Primary) }),
            _ => {
                let tables: Vec<Table> = [primary, backup].into_iter().filter(Table::is_holdfast).collect();
                if tables.is_empty() {
                    return None;
                }
                let question = Question::between(&tables, told);
                Some(Self::Between { tables, question })
            }
        }
    }
}

/// What is missing for this table to be shown to be the device's, for people; empty where nothing is.
fn missing<Z: RawZone>(table: &Table, disk: &mut Z) -> String {
    let Some(Extent { start, length }) = table.hidden() else { return "it has no hidden zone".into() };
    let hidden = Window::new(disk, start, length).and_then(|zone| HiddenZone::new(zone, DISK_ALIGN_BYTES));
    let mut hidden = match hidden {
        Ok(hidden) => hidden,
        Err(error) => return format!("its hidden zone cannot be read: {error}"),
    };
    let owners: Vec<_> = SlotName::ALL
        .into_iter()
        .filter_map(|name| hidden.header(name).ok())
        .map(|header| header.device_id())
        .collect();
    match owners.first() {
        None => "where it has the hidden zone there are no records and no backups".into(),
        Some(_) if owners.iter().any(|id| gpt::disk_guid(id) == table.disk_guid) => String::new(),
        Some(id) => format!("the hidden zone there is that of device {id}, whose disk has another GUID"),
    }
}

fn other(copy: Copy) -> Copy {
    match copy {
        Copy::Primary => Copy::Backup,
        Copy::Backup => Copy::Primary,
    }
}

/// Where a copy of the table is.
fn place(copy: Copy) -> &'static str {
    match copy {
        Copy::Primary => "at the start",
        Copy::Backup => "at the end",
    }
}
