//! `verify`: whether everything on a device is sound.

use std::process::ExitCode;

use partition_tools::survey::{Options, survey};
use serde_json::json;

use super::{DeviceArgument, VendorArgument, terminal};

/// Read everything on a device and tell whether it is sound
///
/// Ends with 1 where something is not. Nothing is written.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  partition-tools verify device.img --keys keys")]
pub(super) struct Verify {
    #[command(flatten)]
    device: DeviceArgument,
    #[command(flatten)]
    vendor: VendorArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let options = Options { vendor: self.vendor.vendor()?, thorough: true };
        let cd = self.device.virtual_zone.as_deref();
        let found = survey(&self.device.device, cd, &options, &mut terminal::Bar::new())?;
        let problems = found.problems();
        if self.json {
            terminal::print_json(&json!({"sound": problems.is_empty(), "problems": problems, "survey": found}))?;
        } else if problems.is_empty() {
            eprintln!("Everything on {} is sound.", self.device.device.display());
        } else {
            for problem in &problems {
                println!("{problem}");
            }
            eprintln!("{} things are not sound. The device mends them at its next start, if it can.", problems.len());
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}
