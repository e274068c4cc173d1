//! Whether a disk and a CD are the halves of one *dual* device, and such that a board can show them.

use std::path::Path;

use firmware_image::signature::PublicKey;

use crate::error::ToolError;
use crate::progress::Silent;
use crate::survey::{Options, State, survey};

/// The sector of a CD.
const CD_SECTOR_BYTES: u64 = 2048;
/// The gadget driver refuses a shorter CD: its smallest track.
const MIN_CD_SECTORS: u64 = 300;
/// And cuts off a longer one, with the factory's backup at its end: 256 minutes.
const MAX_CD_SECTORS: u64 = 256 * 60 * 75 - 1;

/// Two halves that belong together.
#[derive(Debug, Clone)]
pub struct Halves {
    /// The product.
    pub product: String,
    /// The device, as its newest record says.
    pub device_id: String,
    /// The vendor's key, and whether it was given.
    pub vendor_key: String,
    /// See there.
    pub vendor_key_given: bool,
    /// What a person should know, though it is no error.
    pub notes: Vec<String>,
}

impl Halves {
    /// Looks at both.
    ///
    /// # Errors
    /// `Device`, `Host`; `Untrusted` where the configuration is not signed; `Refused` where they do not belong together.
    pub fn look(disk: &Path, cd: &Path, vendor: Option<PublicKey>) -> Result<Self, ToolError> {
        let refuse = |text: String| Err(ToolError::Refused(text));
        let (disk_shown, cd_shown) = (disk.display(), cd.display());
        if cd.is_dir() {
            return refuse(format!("{cd_shown} is a directory; a board shows a CD from its image, cd.iso"));
        }
        let mut notes = Vec::new();
        check_cd(cd)?;
        let found = survey(disk, Some(cd), &Options { vendor, thorough: false }, &mut Silent)?;
        let Some(config) = &found.config else {
            let reason = match &found.config_state {
                State::Damaged(why) | State::Unknown(why) => why.clone(),
                State::Sound | State::Missing => "it has no configuration of a device".into(),
            };
            return Err(ToolError::Untrusted { object: format!("the CD {cd_shown}"), reason });
        };
        if config.profile != "dual" {
            let profile = &config.profile;
            return refuse(format!("{cd_shown} is of the profile '{profile}'; make both with `create --profile dual`"));
        }
        if found.zones.iter().any(|zone| zone.zone == "virtual" && zone.start.is_some()) {
            return refuse(format!(
                "{disk_shown} is a stick with a virtual zone of its own, and not half of a dual device; make both halves with \
                 `create --profile dual`"
            ));
        }
        let Some(record) = &found.record else {
            return refuse(format!(
                "nothing sealed on {disk_shown} opens with the configuration on {cd_shown}: they are not halves of one device, or \
                 the disk is damaged; `verify {disk_shown} --virtual {cd_shown}` tells more"
            ));
        };
        for problem in found.problems() {
            notes.push(format!("{problem}; the device mends this when it is plugged in, if it can"));
        }
        if let Some(note) = holes(disk)? {
            notes.push(note);
        }
        Ok(Self {
            product: config.product.clone(),
            device_id: record.device_id.clone(),
            vendor_key: found.vendor_key.clone().unwrap_or_default(),
            vendor_key_given: found.vendor_key_given,
            notes,
        })
    }
}

fn check_cd(cd: &Path) -> Result<(), ToolError> {
    use firmware_image::RawZone as _;
    use firmware_image::host::{Access, FileZone};
    let shown = cd.display();
    let failed = || ToolError::zone("read", format!("the CD {shown}"));
    let bytes = FileZone::open(cd, Access::ReadOnly).and_then(|mut zone| zone.len()).map_err(failed())?;
    let sectors = bytes / CD_SECTOR_BYTES;
    if sectors < MIN_CD_SECTORS {
        return Err(ToolError::Refused(format!(
            "the CD {shown} has {sectors} sectors of {CD_SECTOR_BYTES} bytes, and the gadget driver takes none with less than \
             {MIN_CD_SECTORS}; `create --profile dual` makes them long enough"
        )));
    }
    if sectors > MAX_CD_SECTORS {
        return Err(ToolError::Refused(format!(
            "the CD {shown} has {sectors} sectors of {CD_SECTOR_BYTES} bytes, and the gadget driver shows {MAX_CD_SECTORS} at most, \
             so that the factory's backup at its end would be lost; put less onto the virtual zone"
        )));
    }
    Ok(())
}

/// An image with holes takes room when somebody writes into them, and the board may have none left.
fn holes(disk: &Path) -> Result<Option<String>, ToolError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(disk).map_err(ToolError::host("read", disk))?;
        let held = found.blocks() * 512;
        if found.is_file() && held < found.len() {
            let missing = crate::size::show(found.len() - held);
            return Ok(Some(format!(
                "{} has holes: {missing} of it take no room yet. On the board, take the room beforehand (`fallocate --length {} \
                 FILE`), or writes fail when its card is full",
                disk.display(),
                found.len()
            )));
        }
    }
    #[cfg(not(unix))]
    let _ = disk;
    Ok(None)
}
