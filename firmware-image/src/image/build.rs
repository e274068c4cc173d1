//! A new device: partition table, an empty free zone, the virtual zone with its files, room for the hidden zone.
//!
//! The images are drafts: nothing waits for the disk, since an image that is not whole is not used. Nothing here is random and nothing reads a clock: equal arguments make equal bytes. Holes stay holes. What goes into
//! the hidden and the free zone is the caller's, through [`Device`](super::device::Device).

use std::io;
use std::path::{Path, PathBuf};

use super::fat::{self, FormatOptions};
use super::gpt::{self, ALIGN_BYTES, Extent, Guids, Plan, SECTOR_BYTES};
use super::iso::{self, IsoFile, IsoOptions};
use crate::ZoneError;
use crate::host::FileZone;
use crate::storage::Window;

/// What a new device is like.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Bytes at the end of the disk that no zone takes: a board's own partitions go there.
    pub leave_bytes: u64,
    /// Bytes of the hidden zone, rounded up to whole erase blocks.
    pub hidden_bytes: u64,
    /// The product's name, from which the volumes get theirs.
    pub product: String,
    /// The free volume's serial number.
    pub volume_id: u32,
    /// The partition table's numbers.
    pub guids: Guids,
    /// Seconds since 1970 (UTC) for the virtual zone's time stamps.
    pub timestamp: i64,
}

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A file for the virtual zone cannot be read.
    #[error("a file for the virtual zone cannot be read")]
    Input(#[source] io::Error),
    /// The zones do not fit the disk.
    #[error(
        "a disk of {disk_bytes} bytes is too small: the hidden zone takes {hidden_bytes}, the virtual zone \
         {virtual_bytes}, {leave_bytes} are to be left, and the free zone needs at least {MIN_FREE_BYTES}"
    )]
    TooSmall {
        /// What was asked for.
        disk_bytes: u64,
        /// The hidden zone.
        hidden_bytes: u64,
        /// The virtual zone; 0 where it is a CD of its own.
        virtual_bytes: u64,
        /// What no zone may take.
        leave_bytes: u64,
    },
    /// The image cannot be made.
    #[error("{path} cannot be made")]
    Create {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: ZoneError,
    },
    /// A zone cannot be written.
    #[error("the {zone} cannot be written to {path}")]
    Write {
        /// Which part.
        zone: &'static str,
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: ZoneError,
    },
}

/// The least free zone: a partition of 4 MiB, which FAT16 takes.
pub const MIN_FREE_BYTES: u64 = 4 * 1024 * 1024;

/// Makes the one disk of a *stick* at `disk`, which must not exist.
///
/// # Errors
/// See [`BuildError`]; what was made until then stays, for the caller to remove.
pub fn stick(disk: &Path, layout: &Layout, files: &[IsoFile]) -> Result<(), BuildError> {
    let virtual_bytes = iso::bytes_needed(files).map_err(BuildError::Input)?;
    let (zone, plan) = disk_with_tables(disk, layout, Some(virtual_bytes))?;
    let Some(place) = plan.virtual_zone else { return Ok(()) };
    let window = part(&zone, place).map_err(writing("virtual zone", disk))?;
    iso::build(window, files, &layout.iso_options()).map_err(writing("virtual zone", disk))?;
    Ok(())
}

/// Makes the disk of a *dual* device at `disk` and its CD at `cd`, neither of which may exist. Behind the CD's file system,
/// from the next 4 MiB boundary on, there is room for `tail_bytes`.
///
/// # Errors
/// See [`BuildError`]; what was made until then stays, for the caller to remove.
pub fn dual(disk: &Path, cd: &Path, tail_bytes: u64, layout: &Layout, files: &[IsoFile]) -> Result<(), BuildError> {
    disk_with_tables(disk, layout, None)?;
    let needed = iso::bytes_needed(files).map_err(BuildError::Input)?;
    let room = needed.next_multiple_of(ALIGN_BYTES) + tail_bytes.next_multiple_of(iso::SECTOR_BYTES);
    let create = |source| BuildError::Create { path: cd.to_owned(), source };
    let mut zone = FileZone::create_draft(cd, room).map_err(create)?;
    let copy = zone.try_clone().map_err(create)?;
    let length = iso::build(copy, files, &layout.iso_options()).map_err(writing("virtual zone", cd))?;
    // Known only now: where the tail begins.
    let end = length.next_multiple_of(ALIGN_BYTES) + tail_bytes.next_multiple_of(iso::SECTOR_BYTES);
    zone.set_len(end).map_err(create)
}

/// The label of a product's virtual zone.
pub fn volume_name(product: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    product.to_uppercase().chars().map(allowed).take(16).collect()
}

impl Layout {
    fn iso_options(&self) -> IsoOptions {
        IsoOptions { volume_name: volume_name(&self.product), timestamp: self.timestamp }
    }
}

fn disk_with_tables(disk: &Path, layout: &Layout, virtual_bytes: Option<u64>) -> Result<(FileZone, Plan), BuildError> {
    let plan = Plan::new(layout.disk_bytes.saturating_sub(layout.leave_bytes), virtual_bytes, layout.hidden_bytes);
    let plan = plan.ok().filter(|plan| plan.free.length >= MIN_FREE_BYTES).ok_or(BuildError::TooSmall {
        disk_bytes: layout.disk_bytes,
        hidden_bytes: layout.hidden_bytes,
        virtual_bytes: virtual_bytes.unwrap_or(0),
        leave_bytes: layout.leave_bytes,
    })?;
    let create = |source| BuildError::Create { path: disk.to_owned(), source };
    let zone = FileZone::create_draft(disk, layout.disk_bytes).map_err(create)?;
    gpt::write(zone.try_clone().map_err(create)?, &plan, &layout.guids).map_err(writing("partition table", disk))?;
    let options = FormatOptions {
        label: FormatOptions::label_of(&layout.product),
        volume_id: layout.volume_id,
        hidden_sectors: u32::try_from(plan.free.start / SECTOR_BYTES).unwrap_or(0),
    };
    part(&zone, plan.free)
        .and_then(|mut window| fat::format(&mut window, &options))
        .map_err(writing("free zone", disk))?;
    Ok((zone, plan))
}

fn part(zone: &FileZone, extent: Extent) -> Result<Window<FileZone>, ZoneError> {
    Window::new(zone.try_clone()?, extent.start, extent.length)
}

fn writing(zone: &'static str, path: &Path) -> impl Fn(ZoneError) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Write { zone, path: path.clone(), source }
}
