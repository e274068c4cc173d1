//! `verify`: whether everything on a device is sound.

use std::process::ExitCode;

use lines::{errln, outln};
use partition_tools::printable::printable;
use partition_tools::repair::FORMAT;
use partition_tools::survey::{Options, Survey, survey};
use serde_json::json;

use super::{DeviceArgument, VendorArgument, terminal};

/// What the verdict leaves out.
const NOT_CHECKED: &str =
    "Not told: damage in the middle of a launcher, since nothing on a device says what its bytes were.";

/// Read everything on a device and tell whether it is sound, as far as that can be told
///
/// Ends with 1 where something is not. Nothing is written. Nothing on a device says what its launchers were: of them the header,
/// the vendor's key and the free zone's copy are looked at, and no more.
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
            let sound = problems.is_empty();
            let for_repair = found.for_repair();
            terminal::print_json(&json!({
                "sound": sound, "problems": problems, "for_repair": for_repair, "not_checked": [NOT_CHECKED], "survey": found,
            }))?;
        } else if problems.is_empty() {
            errln!("Everything on {} is sound that the device can vouch for.", self.device.device.display());
            errln!("  {NOT_CHECKED}");
        } else {
            for problem in &problems {
                outln!("{}", printable(problem));
            }
            self.say_who_mends(&found, problems.len());
        }
        Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    /// Of `all` problems the first are around the zones.
    fn say_who_mends(&self, found: &Survey, all: usize) {
        let outside = found.for_repair().len();
        errln!("{all} thing{} not sound.", if all == 1 { " is" } else { "s are" });
        if outside > 0 {
            let (lines, target) = (if outside == 1 { "line" } else { "lines" }, self.device.device.display());
            errln!(
                "  The first {outside} {lines}: no start of the device mends that. `partition-tools repair {target}` does."
            );
        }
        if all > outside {
            let rest = match (found.to_format, outside > 0) {
                (true, _) => {
                    errln!("  {FORMAT}");
                    "Then the"
                }
                (false, true) => "The rest: the",
                (false, false) => "The",
            };
            errln!(
                "  {rest} device mends what it can of it at its next start; the virtual zone is written at the factory only."
            );
        }
    }
}
