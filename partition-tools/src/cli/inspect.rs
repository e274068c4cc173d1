//! `inspect`: what is on a device.

use std::process::ExitCode;

use lines::outln;
use partition_tools::printable::printable;
use partition_tools::size;
use partition_tools::survey::{Options, State, Survey, survey};

use super::{DeviceArgument, VendorArgument, terminal};

/// Show zones, versions, generations, and what is sound; never a secret
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  partition-tools inspect device.img
  partition-tools inspect disk.img --virtual cd.iso --json")]
pub(super) struct Inspect {
    #[command(flatten)]
    device: DeviceArgument,
    #[command(flatten)]
    vendor: VendorArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let options = Options { vendor: self.vendor.vendor()?, thorough: false };
        let cd = self.device.virtual_zone.as_deref();
        let found = survey(&self.device.device, cd, &options, &mut terminal::Bar::new())?;
        if self.json {
            terminal::print_json(&found)?;
        } else {
            show(&found);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(found: &Survey) {
    match &found.config {
        Some(config) => {
            line(format_args!("product   {} ({}, channel {})", config.product, config.profile, config.channel));
            for (url, weight) in &config.servers {
                line(format_args!("server    {url} (weight {weight})"));
            }
            for (platform, command) in &config.client_commands {
                let platform = if platform.is_empty() { "all platforms" } else { platform };
                line(format_args!("client    {command} ({platform})"));
            }
        }
        None => line(format_args!("device.cfg {}", state(&found.config_state))),
    }
    if let Some(key) = &found.vendor_key {
        let from = if found.vendor_key_given { "given" } else { "as the device's own launcher says" };
        line(format_args!("vendor    {key} ({from})"));
    }
    if let Some(record) = &found.record {
        line(format_args!("device    {}", record.device_id));
        match (&record.release_version, record.release_serial) {
            (Some(version), Some(serial)) => {
                let proven = if record.proven { "proven" } else { "not proven yet" };
                line(format_args!("release   {version} (serial {serial}), {proven}"));
            }
            _ => outln!("release   none yet"),
        }
        line(format_args!("floors    updater {}, key serial {}", record.updater_floor, record.key_serial_floor));
    }
    if let Some(table) = &found.table {
        outln!("");
        line(format_args!("partition table: {}", state(table)));
    }
    outln!("");
    line(format_args!("{:<10} {:>12} {:>12}  state", "zone", "size", "free"));
    for zone in &found.zones {
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size::show);
        line(format_args!(
            "{:<10} {:>12} {:>12}  {}",
            zone.zone,
            bytes(zone.bytes),
            bytes(zone.free_bytes),
            state(&zone.state)
        ));
    }
    for other in &found.others {
        line(format_args!(
            "{:<10} {:>12} {:>12}  partition {}, no zone: '{}'",
            "-",
            size::show(other.bytes),
            "-",
            other.number,
            other.name
        ));
    }
    outln!("");
    line(format_args!("{:<26} {:>10} {:>12}  state", "slot", "generation", "content"));
    for slot in &found.slots {
        let generation = slot.generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string());
        let content = slot.body_bytes.map_or_else(|| "-".to_owned(), size::show);
        line(format_args!("{:<26} {:>10} {:>12}  {}", slot.place, generation, content, state(&slot.state)));
    }
    outln!("");
    line(format_args!("{:<16} {:<26} {:>9} {:>4}  state", "updater", "place", "version", "key"));
    for updater in &found.updaters {
        let version = updater.version.as_deref().unwrap_or("-");
        let key = updater.key_serial.map_or_else(|| "-".to_owned(), |serial| serial.to_string());
        line(format_args!(
            "{:<16} {:<26} {version:>9} {key:>4}  {}",
            updater.platform,
            updater.place,
            state(&updater.state)
        ));
    }
    for launcher in found.launchers.iter().filter(|launcher| !launcher.state.is_sound()) {
        line(format_args!("launcher {:<16} {}: {}", launcher.platform, launcher.place, state(&launcher.state)));
    }
    for finding in &found.findings {
        outln!("");
        line(format_args!("note: {finding}"));
    }
}

/// Of what is shown a lot comes from the medium.
fn line(text: std::fmt::Arguments<'_>) {
    outln!("{}", printable(&text.to_string()));
}

fn state(state: &State) -> String {
    match state {
        State::Sound => "sound".into(),
        State::Damaged(why) => format!("DAMAGED: {why}"),
        State::Missing => "missing".into(),
        State::Unknown(why) => format!("unknown: {why}"),
    }
}
