//! The hidden zone: two record slots and two backup slots, each on its own boundary, so that a torn erase block takes one
//! copy and never two.
//!
//! Where a slot stands follows from the zone's length alone: nothing on the device has to be sound to find it.
//!
//! ```text
//! 0        record A
//! 1 × align record B
//! 2 × align backup A, half of the rest rounded down to align
//!           backup B, the same length
//! ```
//! To write: take the slot that nothing good depends on ([`SlotName::other`] of the newest good one), and let
//! [`slot::Write`](crate::slot::Write) do its order. A cut at any moment leaves the other slot whole.

use crate::ZoneError;
use crate::slot::{Header, Kind, SlotError};
use crate::storage::{RawZone, Window};

/// The boundary on which zones and slots of disks start: 4 MiB.
pub const DISK_ALIGN_BYTES: u64 = 4 << 20;

/// One of the four slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotName {
    /// The first record.
    RecordA,
    /// The second record.
    RecordB,
    /// The first backup.
    BackupA,
    /// The second backup.
    BackupB,
}

impl SlotName {
    /// All four, records first.
    pub const ALL: [Self; 4] = [Self::RecordA, Self::RecordB, Self::BackupA, Self::BackupB];
    /// Both records.
    pub const RECORDS: [Self; 2] = [Self::RecordA, Self::RecordB];
    /// Both backups.
    pub const BACKUPS: [Self; 2] = [Self::BackupA, Self::BackupB];

    /// What it holds.
    pub fn kind(self) -> Kind {
        match self {
            Self::RecordA | Self::RecordB => Kind::Record,
            Self::BackupA | Self::BackupB => Kind::Backup,
        }
    }

    /// The other slot of the same kind.
    pub fn other(self) -> Self {
        match self {
            Self::RecordA => Self::RecordB,
            Self::RecordB => Self::RecordA,
            Self::BackupA => Self::BackupB,
            Self::BackupB => Self::BackupA,
        }
    }
}

impl core::fmt::Display for SlotName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::RecordA => "record A",
            Self::RecordB => "record B",
            Self::BackupA => "backup A",
            Self::BackupB => "backup B",
        })
    }
}

/// Start and length of each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenLayout {
    align: u64,
    backup_bytes: u64,
}

impl HiddenLayout {
    /// The layout of a zone of `zone_bytes` with slots on multiples of `align`; `None` where it is too small.
    pub const fn of(zone_bytes: u64, align: u64) -> Option<Self> {
        if align == 0 || zone_bytes / align < 4 {
            return None;
        }
        let backup_bytes = (zone_bytes - 2 * align) / 2 / align * align;
        Some(Self { align, backup_bytes })
    }

    /// The least zone whose backup slots hold `backup_bytes` each.
    pub fn zone_bytes_for(backup_bytes: u64, align: u64) -> u64 {
        2 * align + 2 * backup_bytes.max(1).next_multiple_of(align)
    }

    /// Bytes of a slot.
    pub fn slot_bytes(&self, slot: SlotName) -> u64 {
        match slot.kind() {
            Kind::Record => self.align,
            Kind::Backup => self.backup_bytes,
        }
    }

    /// Where a slot starts in the zone.
    pub fn start(&self, slot: SlotName) -> u64 {
        match slot {
            SlotName::RecordA => 0,
            SlotName::RecordB => self.align,
            SlotName::BackupA => 2 * self.align,
            SlotName::BackupB => 2 * self.align + self.backup_bytes,
        }
    }
}

/// A hidden zone.
pub struct HiddenZone<Z> {
    zone: Z,
    layout: HiddenLayout,
}

impl<Z: RawZone> HiddenZone<Z> {
    /// The hidden zone that is all of `zone`.
    ///
    /// # Errors
    /// `OutOfBounds` where it is too small to be one, or what the zone reports.
    pub fn new(mut zone: Z, align: u64) -> Result<Self, ZoneError> {
        let layout = HiddenLayout::of(zone.len()?, align).ok_or(ZoneError::OutOfBounds)?;
        Ok(Self { zone, layout })
    }

    /// Where the slots are.
    pub fn layout(&self) -> HiddenLayout {
        self.layout
    }

    /// A slot as storage of its own.
    ///
    /// # Errors
    /// What the zone reports.
    pub fn slot(&mut self, slot: SlotName) -> Result<Window<&mut Z>, ZoneError> {
        Window::new(&mut self.zone, self.layout.start(slot), self.layout.slot_bytes(slot))
    }

    /// A slot's header.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn header(&mut self, slot: SlotName) -> Result<Header, SlotError> {
        Header::read(&mut self.slot(slot)?, slot.kind())
    }
}
