//! `write`: an image onto a real device.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lines::errln;
use partition_tools::random::Random;
use partition_tools::size;
use partition_tools::write::target::{Checks, System};
use partition_tools::write::{Request, write};
use serde_json::json;

use super::{VendorArgument, terminal};

/// Write an image onto a device, and read it back
///
/// Refuses a device that is mounted, in use, the image itself, too small, not removable, or of sectors other than 512 bytes. The device gets keys
/// and numbers of its own. Everything on it is lost. A device that has less room than it claims, or loses what is written, is
/// found out. One whose writing was interrupted is no device until it is written anew.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  partition-tools write device.img --to /dev/sdX
  partition-tools write disk.img --to /dev/sdX --virtual cd.iso")]
pub(super) struct Write {
    /// The image of a disk
    image: PathBuf,
    /// The device to overwrite
    #[arg(long, value_name = "DEVICE")]
    to: PathBuf,
    /// The CD of a dual device: its ISO image
    #[arg(long = "virtual", value_name = "CD_ISO")]
    virtual_zone: Option<PathBuf>,
    #[command(flatten)]
    vendor: VendorArgument,
    /// Keep the image's identity: two such devices cannot be told apart, and share their keys
    #[arg(long)]
    clone: bool,
    /// Write zeros too, over everything that was there before
    #[arg(long)]
    zeros_too: bool,
    /// Overwrite a device that is mounted or in use
    #[arg(long)]
    force_mounted: bool,
    /// Overwrite a device that is not removable, or a plain file
    #[arg(long)]
    force_fixed: bool,
    /// Give the device the same identity each time. For tests
    #[arg(long, value_name = "TEXT", conflicts_with = "clone")]
    seed: Option<String>,
    /// Check the target and end there
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Write {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let checks = Checks { force_mounted: self.force_mounted, force_fixed: self.force_fixed };
        let system = System::default();
        if self.dry_run {
            let bytes = std::fs::metadata(&self.image)?.len();
            let sources: Vec<&Path> =
                [&self.image].into_iter().chain(&self.virtual_zone).map(PathBuf::as_path).collect();
            system.check(&self.to, &sources, bytes, &checks)?;
            errln!("{} would be overwritten with {}.", self.to.display(), self.image.display());
            return Ok(ExitCode::SUCCESS);
        }
        let request = Request {
            image: self.image,
            target: self.to,
            cd: self.virtual_zone,
            clone_identity: self.clone,
            zeros_too: self.zeros_too,
            checks,
            random: self.seed.as_deref().map_or_else(Random::system, Random::seeded),
            vendor: self.vendor.vendor()?,
        };
        let written = write(&request, &system, &mut terminal::Bar::new())?;
        let device_id = written.device_id.map(|id| id.to_string());
        if self.json {
            let target = &request.target;
            terminal::print_json(&json!({"target": target, "bytes": written.bytes, "device_id": device_id}))?;
        } else {
            errln!("Wrote {} to {} and read it back.", size::show(written.bytes), request.target.display());
            match device_id {
                Some(id) => errln!("  It is now device {id}."),
                None => errln!("  It is a clone: it has the image's identity."),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
