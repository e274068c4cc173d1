//! `repair`: what stands around the zones.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::ValueEnum;
use firmware_image::image::gpt::Copy;
use lines::{errln, outln};
use partition_tools::printable::printable;
use partition_tools::repair::{FORMAT, Plan, Question, open};
use partition_tools::survey::{Options, survey};
use partition_tools::write::target::System;
use serde_json::json;

use super::{DeviceArgument, VendorArgument, terminal};

/// Mend the partition table, the protective MBR and the free zone's boot sector
///
/// Nobody on a device writes these. Each is made anew from its other copy, the partition table only from one that bears the
/// device's own disk GUID: everything else is asked, or refused with 5 where nobody can be asked. Nothing is written where
/// nothing is wrong. What is inside the zones the device mends by itself.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  partition-tools repair device.img --dry-run
  sudo partition-tools repair /dev/sdX
  sudo partition-tools repair /dev/sdX --virtual cd.iso --keys keys")]
pub(super) struct Repair {
    #[command(flatten)]
    device: DeviceArgument,
    #[command(flatten)]
    vendor: VendorArgument,
    /// Use this copy of the partition table, where only one of two is right or nothing shows whose it is
    #[arg(long, value_name = "COPY")]
    from: Option<From>,
    /// Say yes to what is asked, where something speaks for one answer
    #[arg(long)]
    yes: bool,
    /// Say what would be mended and end there
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// A copy of the partition table.
#[derive(Clone, std::marker::Copy, ValueEnum)]
enum From {
    /// The one at the start of the disk
    Primary,
    /// The one at its end
    Backup,
}

impl Repair {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let vendor = self.vendor.vendor()?;
        let target = &self.device.device;
        let from = self.from.map(|from| match from {
            From::Primary => Copy::Primary,
            From::Backup => Copy::Backup,
        });
        let mut disk = open(target, &System::default(), self.dry_run)?;
        let plan = Plan::make(&mut disk, target, from, &mut |question| ask(question, self.yes))?;
        if !self.dry_run && !plan.is_empty() {
            plan.carry_out(&mut disk, target)?;
        }
        drop(disk);
        let mended = plan.lines();
        // What is left is told of what is on the disk, and with the part that all else is opened with.
        let whole = plan.has_virtual_zone() || self.device.virtual_zone.is_some();
        let left = match (self.dry_run && !plan.is_empty()) || !whole {
            true => Vec::new(),
            false => {
                let options = Options { vendor, thorough: false };
                survey(target, self.device.virtual_zone.as_deref(), &options, &mut terminal::Bar::new())?.problems()
            }
        };
        if self.json {
            let to_format = plan.has_lost_free_zone();
            terminal::print_json(&json!({
                "target": target, "dry_run": self.dry_run, "mended": mended, "left": left, "to_format": to_format,
            }))?;
        } else {
            self.say(&mended, &left, plan.has_lost_free_zone());
        }
        Ok(if plan.has_lost_free_zone() { ExitCode::from(1) } else { ExitCode::SUCCESS })
    }

    fn say(&self, mended: &[String], left: &[String], is_lost: bool) {
        let target = self.device.device.display();
        let verb = if self.dry_run { "to mend" } else { "mended" };
        mended.iter().for_each(|line| outln!("{verb}: {}", printable(line)));
        match (mended.is_empty(), self.dry_run) {
            (true, _) if is_lost => {
                errln!("There is nothing on {target} from which anything could be mended; nothing was written.")
            }
            (true, _) => errln!("There is nothing to mend around the zones of {target}; nothing was written."),
            (false, true) => errln!("Nothing was written. Without --dry-run this is mended."),
            (false, false) => {
                errln!("Written to {target} and read back. Unplug it before anything else is done with it.")
            }
        }
        left.iter().for_each(|line| errln!("  left: {}", printable(line)));
        if is_lost {
            errln!("{FORMAT}");
            return;
        }
        match (left.is_empty(), self.dry_run) {
            (true, true) => {}
            (true, false) => errln!("Next: plug it in. `partition-tools verify {target}` looks at every file."),
            (false, _) => errln!(
                "Next: plug it in, and the device mends what it can of the rest; then `partition-tools verify {target}`."
            ),
        }
    }
}

/// Asks on the terminal; without one, `yes` answers where something speaks for one answer.
fn ask(question: &Question, yes: bool) -> Option<usize> {
    if let (true, Some(answer)) = (yes, question.yes) {
        return Some(answer);
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    errln!("{}", printable(&question.about));
    for (number, option) in (1..).zip(&question.options) {
        errln!("  {number}  {}", printable(option));
    }
    let mut out = std::io::stderr();
    write!(out, "Which? A number, or nothing to leave the device as it is: ").and_then(|()| out.flush()).ok()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok()?;
    line.trim().parse::<usize>().ok()?.checked_sub(1)
}
