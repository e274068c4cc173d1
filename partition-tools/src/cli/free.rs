//! `free`: files in the free zone of an image or device, without mounting it.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use firmware_image::ZoneError;
use firmware_image::free_zone::{FreeZone as _, Kind};
use firmware_image::host::Access;
use firmware_image::image::{AnyFreeZone, Device};
use lines::{errln, outln};
use partition_tools::ToolError;
use partition_tools::identity::put_file;
use partition_tools::printable::printable;
use serde_json::json;

use super::terminal;

/// Work with files in the free zone, without mounting it
#[derive(clap::Args)]
#[command(after_help = "\
Paths in the free zone are written with /, and upper and lower case are the same.

Examples:
  partition-tools free ls device.img client
  partition-tools free cat device.img .holdfast/log
  partition-tools free put device.img report.pdf documents/report.pdf
  partition-tools free rm device.img updater-linux-x86_64")]
pub(super) struct Free {
    #[command(subcommand)]
    command: FreeCommand,
}

#[derive(Subcommand)]
enum FreeCommand {
    /// List a directory
    Ls {
        /// The image or device
        image: PathBuf,
        /// The directory [default: the zone's root]
        path: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a file to stdout
    Cat {
        /// The image or device
        image: PathBuf,
        /// The file
        path: String,
    },
    /// Put a file into the zone, over one that is there
    Put {
        /// The image or device
        image: PathBuf,
        /// The file of this computer; `-` for stdin
        source: PathBuf,
        /// The file in the zone; directories are made
        path: String,
        /// Print what was put as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a file or an empty directory
    Rm {
        /// The image or device
        image: PathBuf,
        /// What to remove
        path: String,
        /// A directory with all that is in it
        #[arg(short, long)]
        recursive: bool,
        /// Print what was removed as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Free {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            FreeCommand::Ls { image, path, json } => {
                let (_device, zone) = open(&image, Access::ReadOnly)?;
                list(&zone, trim(path.as_deref().unwrap_or_default()), json)?;
            }
            FreeCommand::Cat { image, path } => {
                let (_device, zone) = open(&image, Access::ReadOnly)?;
                cat(&zone, trim(&path))?;
            }
            FreeCommand::Put { image, source, path, json } => {
                let mut reader: Box<dyn std::io::Read> = match source.as_os_str() == "-" {
                    true => Box::new(std::io::stdin().lock()),
                    false => Box::new(File::open(&source).map_err(ToolError::host("read", &source))?),
                };
                let (_device, zone) = open(&image, Access::ReadWrite)?;
                let bytes = put(&zone, trim(&path), &mut reader)?;
                close(zone)?;
                if json {
                    terminal::print_json(&json!({"path": trim(&path), "bytes": bytes}))?;
                }
            }
            FreeCommand::Rm { image, path, recursive, json } => {
                let (_device, zone) = open(&image, Access::ReadWrite)?;
                remove(&zone, trim(&path), recursive)?;
                close(zone)?;
                if json {
                    terminal::print_json(&json!({"removed": trim(&path)}))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn open(image: &std::path::Path, access: Access) -> Result<(Device, AnyFreeZone), ToolError> {
    let device = Device::open(image, None, access)?;
    let zone = device.free_zone().map_err(ToolError::zone("opened", "the free zone"))?;
    Ok((device, zone))
}

fn close(zone: AnyFreeZone) -> Result<(), ToolError> {
    zone.close().map_err(ToolError::zone("written", "the free zone"))
}

fn trim(path: &str) -> &str {
    path.trim_matches('/')
}

fn named(path: &str) -> String {
    format!("{path} in the free zone")
}

fn list(zone: &AnyFreeZone, path: &str, as_json: bool) -> anyhow::Result<()> {
    if !path.is_empty() {
        match zone.metadata(path).map_err(ToolError::zone("read", named(path)))? {
            None => bail!("there is no {path} in the free zone"),
            Some(found) if found.kind != Kind::Directory => bail!("{path} is no directory; `free cat` prints a file"),
            Some(_) => {}
        }
    }
    let mut entries = Vec::new();
    zone.list(path, &mut |name, metadata| {
        entries.push((name.to_owned(), metadata));
        ControlFlow::Continue(())
    })
    .map_err(ToolError::zone("read", named(path)))?;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let kind = |kind: Kind| match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Other => "other",
    };
    if as_json {
        let list: Vec<_> = entries
            .iter()
            .map(|(name, found)| json!({"name": name, "kind": kind(found.kind), "bytes": found.length}))
            .collect();
        return terminal::print_json(&list);
    }
    for (name, found) in &entries {
        let slash = if found.kind == Kind::Directory { "/" } else { "" };
        outln!("{:>12} {}{slash}", found.length, printable(name));
    }
    Ok(())
}

fn cat(zone: &AnyFreeZone, path: &str) -> anyhow::Result<()> {
    let failed = |error| ToolError::zone("read", named(path))(error);
    let Some(mut file) = zone.open(path).map_err(failed)? else { bail!("there is no file {path} in the free zone") };
    terminal::print_file(&mut file, failed)
}

/// Written beside and renamed, so that a full zone leaves the old file.
fn put(zone: &AnyFreeZone, path: &str, reader: &mut dyn std::io::Read) -> anyhow::Result<u64> {
    let beside = format!("{path}.part");
    let mut written = 0;
    let result = put_file(zone, &beside, reader, |bytes| written += bytes);
    if let Err(error) = result {
        // What did not fit makes room again; the first fault is the one to report.
        let _ = zone.remove(&beside);
        return match error {
            ToolError::Zone { source: ZoneError::Full, .. } => {
                let available = zone.free_bytes().unwrap_or(0);
                let what = format!("{path}; remove something first, or take a larger device");
                Err(ToolError::FreeZoneFull { needed: written.max(available + 1), available, what }.into())
            }
            other => Err(other.into()),
        };
    }
    zone.rename(&beside, path).map_err(ToolError::zone("written", named(path)))?;
    errln!("Put {written} bytes into {}.", printable(path));
    Ok(written)
}

fn remove(zone: &AnyFreeZone, path: &str, recursive: bool) -> anyhow::Result<()> {
    let failed = || ToolError::zone("removed", named(path));
    match zone.metadata(path).map_err(failed())? {
        None => bail!("there is no {path} in the free zone"),
        Some(found) if found.kind == Kind::Directory => {
            let mut names = Vec::new();
            zone.list(path, &mut |name, _| {
                names.push(format!("{path}/{name}"));
                ControlFlow::Continue(())
            })
            .map_err(failed())?;
            if !names.is_empty() && !recursive {
                bail!("the directory {path} is not empty; give --recursive to remove all that is in it");
            }
            for name in &names {
                remove(zone, name, recursive)?;
            }
            zone.remove(path).map_err(failed())?;
        }
        Some(_) => {
            zone.remove(path).map_err(failed())?;
        }
    }
    Ok(())
}
