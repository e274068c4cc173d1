//! `virtual`: files of the virtual zone of an image or device, without mounting it. It is read-only.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use firmware_image::image::{AnyVirtualZone, VirtualZone as _};
use lines::outln;
use partition_tools::ToolError;
use partition_tools::host::subject::virtual_zone;
use partition_tools::printable::printable;
use serde_json::json;

use super::terminal;

/// Read files of the virtual zone, without mounting it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  partition-tools virtual ls device.img
  partition-tools virtual cat device.img updater-linux-x86_64 > updater
  partition-tools virtual cat cd.iso 'READ ME FIRST.html'")]
pub(super) struct Virtual {
    #[command(subcommand)]
    command: VirtualCommand,
}

#[derive(Subcommand)]
enum VirtualCommand {
    /// List all files
    Ls {
        /// The image or device, or the CD of a dual device
        image: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a file to stdout
    Cat {
        /// The image or device, or the CD of a dual device
        image: PathBuf,
        /// The file
        path: String,
    },
}

impl Virtual {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            VirtualCommand::Ls { image, json } => list(&virtual_zone(&image, None)?.0, json)?,
            VirtualCommand::Cat { image, path } => cat(&virtual_zone(&image, None)?.0, path.trim_matches('/'))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(zone: &AnyVirtualZone, as_json: bool) -> anyhow::Result<()> {
    let mut files = Vec::new();
    zone.walk("", &mut |path, bytes| files.push((path.to_owned(), bytes)))
        .map_err(ToolError::zone("read", "the virtual zone"))?;
    files.sort();
    if as_json {
        let list: Vec<_> = files.iter().map(|(path, bytes)| json!({"path": path, "bytes": bytes})).collect();
        return terminal::print_json(&list);
    }
    for (path, bytes) in &files {
        outln!("{bytes:>12} {}", printable(path));
    }
    Ok(())
}

fn cat(zone: &AnyVirtualZone, path: &str) -> anyhow::Result<()> {
    let failed = |error| ToolError::zone("read", format!("{path} in the virtual zone"))(error);
    let Some(mut file) = zone.open_file(path).map_err(failed)? else {
        bail!("there is no file {path} in the virtual zone; `virtual ls` lists what there is")
    };
    terminal::print_file(&mut file, failed)
}
