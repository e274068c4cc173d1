//! The command line: one module a subcommand, and what they share.
//!
//! Data goes to stdout, people read stderr, an exit status tells scripts what happened.

mod create;
mod files_shown;
mod free;
mod gadget;
mod host;
mod inspect;
mod repair;
mod terminal;
mod verify;
mod virtual_zone;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use firmware_image::ZoneError;
use firmware_image::image::DeviceError;
use firmware_image::image::build::BuildError;
use partition_tools::ToolError;
use release_store::StoreError;

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  failed; `verify`: something is not sound; `repair`: the free zone has to be formatted
  2  wrong usage
  3  keys: missing, damaged, of another product or vendor, or the passphrase is wrong
  4  not a Holdfast device, or one that is cut off or damaged as a whole
  5  the target is refused: mounted or in use; `write`: fixed, too small, other sectors than 512 bytes; `repair`: somebody has to decide
  6  no room: the zones do not fit, or the free zone is full
  7  another program works on the image

The passphrase of the keys comes from HOLDFAST_PASSPHRASE, or from the terminal. SOURCE_DATE_EPOCH (seconds since 1970)
sets the time stamps on the virtual zone.

Examples:
  partition-tools create --profile stick --out device.img --size 256MiB \\
      --keys keys --product 'Acme Notes' \\
      --server https://updates.example.com/store \\
      --client-command client/run.sh \\
      --bootstrap linux-x86_64=dist/bootstrap-linux-x86_64 \\
      --updater linux-x86_64=dist/updater-linux-x86_64 \\
      --store store --release-version 1.0.0
  partition-tools inspect device.img
  partition-tools free put device.img notes.txt my/notes.txt
  sudo partition-tools write device.img --to /dev/sdX
  sudo partition-tools repair /dev/sdX
  sudo partition-tools host device.img --autorun-as kiosk --install";

/// Builds, writes, checks, reads and mends device images and devices.
#[derive(Parser)]
#[command(name = "partition-tools", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(Box<create::Create>),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Repair(repair::Repair),
    Free(free::Free),
    Virtual(virtual_zone::Virtual),
    Write(write::Write),
    Host(Box<host::Host>),
    Gadget(Box<gadget::Gadget>),
}

/// Which device.
#[derive(clap::Args)]
struct DeviceArgument {
    /// A device image, or a whole block device
    device: PathBuf,
    /// The CD of a dual device: its ISO image, its block device, or where it is mounted
    #[arg(long = "virtual", value_name = "CD_ISO_OR_DIR")]
    virtual_zone: Option<PathBuf>,
}

/// Whose device it should be.
#[derive(clap::Args)]
struct VendorArgument {
    /// The product's keys, or a factory export, whose vendor the device must be from [default: the stamp in the device's own
    /// launcher]
    #[arg(long, value_name = "KEYS")]
    keys: Option<PathBuf>,
}

impl VendorArgument {
    fn vendor(&self) -> Result<Option<firmware_image::signature::PublicKey>, StoreError> {
        self.keys
            .as_deref()
            .map(|dir| release_store::keys::KeySource::open(dir).map(|keys| *keys.vendor_key()))
            .transpose()
    }
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Create(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Repair(command) => command.run(),
        Command::Free(command) => command.run(),
        Command::Virtual(command) => command.run(),
        Command::Write(command) => command.run(),
        Command::Host(command) => command.run(),
        Command::Gadget(command) => command.run(),
    };
    match result {
        Ok(_) if lines::were_lost() => ExitCode::from(1),
        Ok(status) => status,
        Err(error) => {
            terminal::report(&error);
            ExitCode::from(status(&error))
        }
    }
}

fn status(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ToolError>() {
        Some(ToolError::Store(error)) => store_status(error),
        Some(ToolError::WrongProduct { .. } | ToolError::Stamp { .. } | ToolError::Untrusted { .. }) => 3,
        Some(ToolError::Device(DeviceError::Open { source: ZoneError::Busy, .. } | DeviceError::InUse { .. })) => 7,
        Some(ToolError::Device(DeviceError::Table { .. }) | ToolError::Unmendable { .. }) => 4,
        Some(ToolError::Target { .. }) => 5,
        Some(ToolError::FreeZoneFull { .. } | ToolError::Build(BuildError::TooSmall { .. })) => 6,
        Some(ToolError::Zone { source: ZoneError::Full, .. }) => 6,
        Some(ToolError::Zone { source: ZoneError::Corrupt, .. }) => 4,
        Some(_) => 1,
        None => error.downcast_ref::<StoreError>().map_or(1, store_status),
    }
}

fn store_status(error: &StoreError) -> u8 {
    match error {
        StoreError::Key { .. } | StoreError::WrongPassphrase { .. } => 3,
        _ => 1,
    }
}
