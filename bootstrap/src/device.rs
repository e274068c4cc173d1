//! The zones of a device as far as they are in reach, and the bytes of the updater's copies in them.
//!
//! Nothing read here is trusted: what comes out of [`Device::with_copy`] is bytes, and [`crate::verified`] says whether
//! they are an updater.

use core::fmt;

use embedded_io::{ErrorType, Read, Seek};
use firmware_image::backup::{ImageReader, Index};
use firmware_image::key_slot::Identity;
use firmware_image::places::{Memory, MirrorFile, Place, Places};
use firmware_image::seal::Secret;
use firmware_image::signature::PublicKey;
use firmware_image::slot::{Header, Kind, OpenSlot, SlotError};
use firmware_image::updater_image::{ImageError, UpdaterVersion};
use firmware_image::{FreeZone, RawZone, ZoneError, paths};

/// What this launcher starts updaters of.
#[derive(Clone)]
pub struct Product<'c> {
    /// Whose signatures count.
    pub vendor: PublicKey,
    /// The product's name.
    pub name: &'c str,
    /// The platform that the updater must be for.
    pub platform: &'c str,
    /// Opens the hidden zone unattended.
    pub secret: Secret,
}

/// Where a copy of the updater may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The updater in the free zone: the one that is installed.
    Installed,
    /// A backup: in the hidden zone, its mirror, the CD's tail.
    Backup(Place),
    /// The plain copy in the virtual zone.
    Plain,
}

impl Source {
    /// All of them, in the order in which equally new ones are taken.
    pub const ALL: [Self; 6] = [
        Self::Installed,
        Self::Backup(Place::BACKUPS[0]),
        Self::Backup(Place::BACKUPS[1]),
        Self::Backup(Place::BACKUPS[2]),
        Self::Backup(Place::BACKUPS[3]),
        Self::Plain,
    ];

    /// Whether the factory wrote it and nothing renews it: allowed to run below the floor, with `--recover`.
    pub fn is_factory(self) -> bool {
        matches!(self, Self::Plain | Self::Backup(Place::CdTail))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("free zone"),
            Self::Backup(place) => write!(f, "{place}"),
            Self::Plain => f.write_str("copy in the virtual zone"),
        }
    }
}

/// Why a copy cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyFault {
    /// The place is there and holds none.
    Missing,
    /// The place itself is not in reach: no such zone here, or no right to open it.
    OutOfReach,
    /// The backup opens, and holds no updater for this platform.
    OtherPlatforms,
    /// The backup does not open.
    Slot(SlotError),
    /// The bytes are no updater that may run here.
    Image(ImageError),
    /// It is sound, and would not start before.
    FailedBefore(UpdaterVersion),
    /// There was no room to bring it to the place from which it runs.
    NoRoomToRun(ZoneError),
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no updater there"),
            Self::OutOfReach => f.write_str("not in reach"),
            Self::OtherPlatforms => f.write_str("holds no updater for this platform"),
            Self::Slot(error) => write!(f, "{error}"),
            Self::Image(error) => write!(f, "{error}"),
            Self::FailedBefore(version) => write!(f, "version {version} is sound, but would not start before"),
            Self::NoRoomToRun(error) => write!(f, "could not be loaded to run: {error}"),
        }
    }
}

impl core::error::Error for CopyFault {}

impl From<ZoneError> for CopyFault {
    fn from(error: ZoneError) -> Self {
        Self::Image(ImageError::Zone(error))
    }
}

impl From<ImageError> for CopyFault {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// Bytes of a copy, wherever they stand.
pub trait Stored: Read + Seek + ErrorType<Error = ZoneError> {}

impl<T: Read + Seek + ErrorType<Error = ZoneError> + ?Sized> Stored for T {}

/// A device: its zones in reach, and the memory to open them with.
pub struct Device<'d, H, F, C, V> {
    /// Hidden zone, free zone, CD tail.
    pub places: Places<'d, H, F, C>,
    /// The plain copy in the virtual zone.
    pub plain: Option<V>,
    /// For unlocking and unsealing.
    pub memory: Memory<'d>,
}

impl<'d, H: RawZone, F: FreeZone, C: RawZone, V: RawZone> Device<'d, H, F, C, V> {
    /// The free zone.
    pub fn free(&self) -> Option<&'d F> {
        self.places.free
    }

    /// Calls `use_copy` with the bytes of the copy in `source` and their number.
    ///
    /// # Errors
    /// Why there are none, or what `use_copy` returns.
    pub fn with_copy<R>(
        &mut self,
        source: Source,
        product: &Product<'_>,
        use_copy: impl FnOnce(&mut dyn Stored, u64) -> Result<R, CopyFault>,
    ) -> Result<R, CopyFault> {
        match source {
            Source::Installed => {
                let free = self.places.free.ok_or(CopyFault::OutOfReach)?;
                let file = free.open(&paths::updater_name(product.platform))?.ok_or(CopyFault::Missing)?;
                let mut file = MirrorFile(file);
                let length = file.len()?;
                use_copy(&mut file, length)
            }
            Source::Plain => {
                let file = self.plain.as_mut().ok_or(CopyFault::Missing)?;
                let length = file.len()?;
                use_copy(file, length)
            }
            Source::Backup(place) => self.with_backup(place, product, use_copy),
        }
    }

    fn with_backup<R>(
        &mut self,
        place: Place,
        product: &Product<'_>,
        use_copy: impl FnOnce(&mut dyn Stored, u64) -> Result<R, CopyFault>,
    ) -> Result<R, CopyFault> {
        let mut use_copy = Some(use_copy);
        let mut result = Err(CopyFault::Missing);
        // What is the same for every use stands in a program once.
        self.open_backup(place, product, &mut |file, length| {
            if let Some(use_copy) = use_copy.take() {
                result = use_copy(file, length);
            }
            result.as_ref().map(drop).map_err(|fault| *fault)
        })?;
        result
    }

    fn open_backup(
        &mut self,
        place: Place,
        product: &Product<'_>,
        use_copy: &mut dyn FnMut(&mut dyn Stored, u64) -> Result<(), CopyFault>,
    ) -> Result<(), CopyFault> {
        let in_reach = match place {
            Place::Hidden(_) => self.places.hidden.is_some(),
            Place::RecordMirror | Place::BackupMirror => self.places.free.is_some(),
            Place::CdTail => self.places.cd_tail.is_some(),
        };
        if !in_reach {
            return Err(CopyFault::OutOfReach);
        }
        let Memory { blocks, segment } = &mut self.memory;
        let used = self.places.with(place, |zone| {
            let header = Header::read(zone, Kind::Backup)?;
            let identity = header.unlock(product.secret.expose(), blocks)?;
            Ok(use_image(zone, header, &identity, segment, product, use_copy))
        });
        match used {
            Ok(used) => used,
            Err(SlotError::Zone(ZoneError::NotFound)) => Err(CopyFault::Missing),
            Err(error) => Err(CopyFault::Slot(error)),
        }
    }
}

/// Uses the image for this platform in an unlocked backup. A function of its own: a microcontroller's stack need not hold what
/// unlocking takes and this at the same time.
#[inline(never)]
fn use_image<Z: RawZone>(
    zone: Z,
    header: Header,
    identity: &Identity,
    segment: &mut [u8],
    product: &Product<'_>,
    use_copy: &mut dyn FnMut(&mut dyn Stored, u64) -> Result<(), CopyFault>,
) -> Result<(), CopyFault> {
    let body_bytes = header.body_bytes();
    let mut body = OpenSlot::new(zone, Kind::Backup, header, identity, segment);
    let index = match Index::read(&mut body, body_bytes) {
        Ok(index) => index,
        Err(error) => return Err(CopyFault::Slot(body.fault().unwrap_or(SlotError::Zone(error)))),
    };
    let Some(entry) = index.find(product.platform) else { return Err(CopyFault::OtherPlatforms) };
    let mut image = ImageReader::new(&mut body, entry);
    let length = image.len();
    let used = use_copy(&mut image, length);
    // A segment that does not open says more than the read that met it.
    match (used, body.fault()) {
        (Err(_), Some(fault)) => Err(CopyFault::Slot(fault)),
        (used, _) => used,
    }
}
