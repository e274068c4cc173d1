//! A product as a device, an image or a CD shows it: what it is called, who signed that, and its launcher.
//!
//! Trust begins with the vendor's public key: from the keys that are given, else from the stamp in the device's own
//! launcher, which is trust on first use: it shows that the device's parts fit together, not that the device is genuine.
//! A launcher is not signed by itself. Its stamp says whose updaters it will run; its digest is shown so that it can be
//! compared.

use std::path::Path;

use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES};
use firmware_image::host::Access;
use firmware_image::image::build::volume_name;
use firmware_image::image::gpt::{Extent, Table};
use firmware_image::image::{AnyVirtualZone, Device, VirtualZone as _};
use firmware_image::paths;
use firmware_image::signature::PublicKey;
use firmware_image::stamp;
use firmware_image::updater_image::MAX_IMAGE_BYTES;

use crate::error::ToolError;
use crate::survey::stamped_vendor;

/// A product. See the module.
pub struct Subject {
    /// What it is called.
    pub product: String,
    /// The label of its virtual zones.
    pub label: String,
    /// Whose it is.
    pub vendor: PublicKey,
    /// Whether the vendor's key was given, and not taken from the device itself.
    pub vendor_given: bool,
    /// The numbers of the zones' partitions, where all three are on one disk.
    pub numbers: Option<ZoneNumbers>,
    zone: AnyVirtualZone,
}

/// The numbers of the zones' partitions, as a system counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneNumbers {
    /// The free zone's.
    pub free: u32,
    /// The virtual zone's.
    pub virtual_zone: u32,
    /// The hidden zone's.
    pub hidden: u32,
}

impl ZoneNumbers {
    fn of(table: &Table) -> Option<Self> {
        let number = |extent: Option<Extent>| {
            let extent = extent?;
            table.partitions.iter().find(|partition| partition.extent == extent).map(|partition| partition.number)
        };
        Some(Self {
            free: number(table.free())?,
            virtual_zone: number(table.virtual_zone())?,
            hidden: number(table.hidden())?,
        })
    }
}

impl Subject {
    /// Reads `device`: a disk or its image, the CD of a dual device, or its ISO image; `cd` names the CD beside a disk.
    ///
    /// # Errors
    /// `Device`, `Zone`; `Untrusted` where the configuration is not signed by the vendor.
    pub fn read(device: &Path, cd: Option<&Path>, vendor: Option<PublicKey>) -> Result<Self, ToolError> {
        let (zone, numbers) = virtual_zone(device, cd)?;
        let object = || "device.cfg on the virtual zone".to_owned();
        let bytes = zone
            .read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64)
            .map_err(ToolError::zone("read", object()))?
            .ok_or_else(|| ToolError::Refused(format!("{} has no device.cfg on its virtual zone", device.display())))?;
        let key = vendor.or_else(|| stamped_vendor(&zone)).ok_or_else(|| ToolError::Untrusted {
            object: object(),
            reason: "no launcher on it carries a vendor's key; name the keys with --keys".into(),
        })?;
        let config = DeviceConfig::open(&bytes, &key)
            .map_err(|error| ToolError::Untrusted { object: object(), reason: error.to_string() })?;
        let (product, label) = (config.product.to_owned(), volume_name(config.product));
        Ok(Self { product, label, vendor: key, vendor_given: vendor.is_some(), numbers, zone })
    }

    /// The Linux platforms that the virtual zone has a launcher for.
    ///
    /// # Errors
    /// `Zone`.
    pub fn platforms(&self) -> Result<Vec<String>, ToolError> {
        let mut platforms = Vec::new();
        let mut visit = |path: &str, _| platforms.extend(path.strip_prefix("bootstrap-").map(str::to_owned));
        self.zone.walk("", &mut visit).map_err(ToolError::zone("read", "the virtual zone"))?;
        platforms.retain(|platform| platform.starts_with("linux-"));
        platforms.sort();
        Ok(platforms)
    }

    /// The launcher for `platform`: `own`, or the device's.
    ///
    /// # Errors
    /// `Untrusted` where it does not carry this vendor's key, `Refused` where there is none, `Host`, `Zone`.
    pub fn launcher(&self, platform: &str, own: Option<&Path>) -> Result<Vec<u8>, ToolError> {
        let (name, program) = match own {
            Some(path) => (path.display().to_string(), std::fs::read(path).map_err(ToolError::host("read", path))?),
            None => {
                let name = paths::bootstrap_name(platform);
                let program = self
                    .zone
                    .read_file(&name, MAX_IMAGE_BYTES)
                    .map_err(ToolError::zone("read", format!("{name} on the virtual zone")))?
                    .ok_or_else(|| {
                        ToolError::Refused(format!(
                            "there is no {name} on the virtual zone; say with --platform what the host is, or give one \
                             with --bootstrap"
                        ))
                    })?;
                (name.to_string(), program)
            }
        };
        let reason = match stamp::stamped_key(&program) {
            Ok(Some(key)) if key == self.vendor => return Ok(program),
            Ok(Some(_)) => "it carries another vendor's key".to_owned(),
            Ok(None) => "it carries no vendor's key; `create` stamps one into the launchers of an image".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(ToolError::Untrusted { object: format!("the launcher {name}"), reason })
    }
}

/// The virtual zone of a disk, or of a CD by itself, and the numbers of a disk's zones.
///
/// # Errors
/// `Device`, `Zone`.
pub fn virtual_zone(device: &Path, cd: Option<&Path>) -> Result<(AnyVirtualZone, Option<ZoneNumbers>), ToolError> {
    let opened = match Device::open(device, cd, Access::ReadOnly) {
        Ok(opened) => opened,
        Err(error) => {
            let disc = Device::from_parts(Some(device), None, None, Access::ReadOnly)?;
            if cd.is_some() || disc.virtual_zone().is_err() {
                return Err(error.into());
            }
            disc
        }
    };
    let zone = opened.virtual_zone().map_err(ToolError::zone("opened", "the virtual zone"))?;
    Ok((zone, opened.table().and_then(ZoneNumbers::of)))
}
