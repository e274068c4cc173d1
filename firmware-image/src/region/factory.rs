//! What the factory writes into a device of the region profile: every region, from the same parts as on a stick.
//!
//! No allocator is needed: it runs on a computer that makes an image for the programmer, or on the device itself at the
//! end of its line, once it has made random bytes for an identity.

use crate::backup::{BackupBody, Index};
use crate::device_config::{DeviceConfig, Profile};
use crate::hidden::{HiddenZone, SlotName};
use crate::key_slot::Identity;
use crate::places::Memory;
use crate::record::VersionRecord;
use crate::slot::{self, Body, Kind, SlotError};
use crate::storage::{RawZone, SliceReader};

use super::{Extent, RegionLayout, write};

/// The generation of everything in a new device.
const FIRST_GENERATION: u64 = 1;

/// A new device.
pub struct Factory<'a> {
    /// Where the regions stand.
    pub layout: RegionLayout,
    /// `device.cfg`, signed.
    pub config: &'a [u8],
    /// The platform that the application is for.
    pub platform: &'a str,
    /// The application: a signed updater image.
    pub application: &'a [u8],
    /// Who the device is.
    pub identity: &'a Identity,
    /// The size of segments as a power of two: how much memory whoever opens or writes a slot has to have.
    pub segment_log2: u8,
}

impl Factory<'_> {
    /// Writes all regions of `flash`. `record_bytes` is room for the encoded record: as much as the device's program will give.
    ///
    /// # Errors
    /// `Malformed` where `config` is none, or says another profile or another `align_bytes` than `layout`: nothing is written
    /// then. `TooLong` for what does not fit its region, else what sealing or the flash reports: the device is then to be
    /// written again.
    pub fn write<Z: RawZone>(
        &self,
        flash: &mut Z,
        memory: &mut Memory<'_>,
        record_bytes: &mut [u8],
    ) -> Result<(), SlotError> {
        let layout = &self.layout;
        let config = DeviceConfig::read_unverified(self.config).map_err(|_| SlotError::Malformed)?;
        if config.profile != Profile::Region || config.align_bytes != layout.align_bytes {
            return Err(SlotError::Malformed);
        }
        file(flash, layout.config, self.config)?;
        file(flash, layout.factory, self.application)?;
        file(flash, layout.application, self.application)?;
        let mut record = VersionRecord::new(self.identity.device_id);
        record.backup_generation = FIRST_GENERATION;
        let record = record.encode(record_bytes).map_err(|_| SlotError::TooLong)?;
        let mut hidden = HiddenZone::new(layout.hidden.of(flash)?, layout.align_bytes.into())?;
        for name in SlotName::BACKUPS {
            let images = [(self.platform, self.application.len() as u64)];
            let index = Index::layout(images.into_iter()).map_err(|_| SlotError::TooLong)?;
            let mut images = [self.application];
            let mut body = BackupBody::new(index, &mut images)?;
            self.seal(name.kind(), &mut hidden.slot(name)?, &mut body, memory)?;
        }
        for name in SlotName::RECORDS {
            self.seal(name.kind(), &mut hidden.slot(name)?, &mut &*record, memory)?;
        }
        Ok(())
    }

    fn seal<Z: RawZone>(
        &self,
        kind: Kind,
        slot: &mut Z,
        body: &mut dyn Body,
        memory: &mut Memory<'_>,
    ) -> Result<(), SlotError> {
        let Self { identity, segment_log2, .. } = *self;
        let write = slot::Write { kind, generation: FIRST_GENERATION, identity, segment_log2 };
        write.write(slot, body, memory.segment).map(drop)
    }
}

fn file<Z: RawZone>(flash: &mut Z, region: Extent, bytes: &[u8]) -> Result<(), SlotError> {
    write(&mut region.of(flash)?, &mut SliceReader::new(bytes), bytes.len() as u64).map_err(|error| match error {
        crate::ZoneError::Full => SlotError::TooLong,
        error => error.into(),
    })
}
