//! One start of the device: the configuration, then the application, restored where it must be.

use core::cell::RefCell;

use argon2::Block;
use bootstrap_core::device::{CopyFault, Product, Source};
use bootstrap_core::region::{NoCopy, Regions, Settled, settle};
use embedded_storage::nor_flash::NorFlash;
use firmware_image::device_config::{ConfigError, DeviceConfig};
use firmware_image::flash::FlashZone;
use firmware_image::hidden::HiddenZone;
use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::Memory;
use firmware_image::signature::PublicKey;
use firmware_image::slot::segment_buffer_bytes;
use firmware_image::{ZoneError, region};

use crate::table::{CONFIG_BYTES, LAYOUT, PLATFORM, RECORD_BYTES, SEGMENT_LOG2, UNLOCK_COST};

/// All memory that a start needs besides its stack and [`Blocks`].
pub struct Buffers {
    segment: [u8; segment_buffer_bytes(SEGMENT_LOG2)],
    record: [u8; RECORD_BYTES],
    config: [u8; CONFIG_BYTES],
}

impl Buffers {
    /// Zeroed memory.
    pub const fn new() -> Self {
        Self { segment: [0; segment_buffer_bytes(SEGMENT_LOG2)], record: [0; RECORD_BYTES], config: [0; CONFIG_BYTES] }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// Argon2's memory. Free for the application's own use afterwards.
pub type Blocks = [Block; UNLOCK_COST.memory_kib as usize];

/// Why nothing may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// The configuration's region cannot be read.
    Config(ZoneError),
    /// The configuration is not this vendor's.
    Untrusted(ConfigError),
    /// There is no good copy of the application.
    NoCopy(NoCopy),
}

/// Sees to it that a sound application stands in its region; with `wants_newer`, the newest. `on_fault` is told what had
/// nothing to offer.
///
/// # Errors
/// See [`StartError`].
pub fn start<F: NorFlash>(
    flash: &RefCell<F>,
    vendor: PublicKey,
    buffers: &mut Buffers,
    blocks: &mut Blocks,
    wants_newer: bool,
    on_fault: &mut dyn FnMut(Source, CopyFault),
) -> Result<Settled, StartError> {
    let zone = || FlashZone::new(flash);
    let region = |extent: region::Extent| extent.of(zone()).map_err(StartError::Config);
    let config = region::read(&mut region(LAYOUT.config)?, &mut buffers.config).map_err(StartError::Config)?;
    let config = DeviceConfig::open(config, &vendor).map_err(StartError::Untrusted)?;
    let product = Product { vendor, name: config.product, platform: PLATFORM, secret: config.secret() };
    let regions = Regions {
        hidden: HiddenZone::new(region(LAYOUT.hidden)?, LAYOUT.align_bytes.into()).ok(),
        factory: region(LAYOUT.factory)?,
        application: region(LAYOUT.application)?,
        memory: Memory { blocks, segment: &mut buffers.segment },
    };
    let note = LauncherNote::default();
    settle(&product, regions, &note, &mut buffers.record, wants_newer, on_fault).map_err(StartError::NoCopy)
}
