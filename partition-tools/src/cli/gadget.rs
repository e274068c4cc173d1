//! `gadget`: what makes a Linux board show a dual device.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use lines::errln;
use partition_tools::gadget::{Halves, Paths, UsbId, Wishes, files};
use partition_tools::printable::printable;
use partition_tools::system_files::{self, run_all};
use serde_json::json;

use super::{VendorArgument, files_shown, terminal};

/// Make a Linux board show a dual device: a CD-ROM and a disk
///
/// Prints the files, or installs them on the board or into an image of it: a script that sets up a USB gadget from the two
/// images, and the systemd unit that starts it with the board. For boards with a USB device controller, such as a Raspberry Pi
/// Zero.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  partition-tools gadget disk.img --virtual cd.iso      # print script and unit
  sudo partition-tools gadget /srv/disk.img --virtual /srv/cd.iso --install
  partition-tools gadget disk.img --virtual cd.iso --install \\
      --root image-of-a-board --board-disk /srv/disk.img \\
      --board-cd /srv/cd.iso
  sudo partition-tools gadget --uninstall --product 'Acme Notes'

After --install the device is shown from the board's next start on; at once: systemctl start UNIT. The installed script takes
start, stop and status.")]
pub(super) struct Gadget {
    /// The disk of a dual device: its image, or a block device that holds it
    #[arg(required_unless_present = "product")]
    device: Option<PathBuf>,
    /// The CD of the same device: its image
    #[arg(long = "virtual", value_name = "CD_ISO", required_unless_present = "product")]
    virtual_zone: Option<PathBuf>,
    #[command(flatten)]
    vendor: VendorArgument,
    /// Where the disk's image is on the board [default: where it is here, or below --root]
    #[arg(long, value_name = "PATH")]
    board_disk: Option<PathBuf>,
    /// Where the CD's image is on the board [default: where it is here, or below --root]
    #[arg(long, value_name = "PATH")]
    board_cd: Option<PathBuf>,
    /// The board's USB device controller [default: the first in /sys/class/udc]
    #[arg(long, value_name = "NAME", value_parser = controller)]
    udc: Option<String>,
    /// The device's USB numbers. A product needs its own; the default is for tests and for boards of one's own
    #[arg(long, value_name = "VENDOR:PRODUCT", value_parser = UsbId::parse, default_value = "1d6b:0104")]
    usb_id: UsbId,
    /// The device's maker, as computers show it
    #[arg(long, value_name = "NAME", default_value = "Holdfast")]
    manufacturer: String,
    /// The device's serial number: twelve or more digits and capital letters [default: the device's id]
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
    /// The controller cannot stall an endpoint
    #[arg(long)]
    no_stall: bool,
    /// Write the files, and have systemd start the unit with the board
    #[arg(long, conflicts_with = "uninstall")]
    install: bool,
    /// Remove what --install wrote. The images stay
    #[arg(long)]
    uninstall: bool,
    /// With --uninstall: the product, where its images are not at hand
    #[arg(long, value_name = "NAME", requires = "uninstall", conflicts_with = "device")]
    product: Option<String>,
    /// The system to work on: the root of an image of a board
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Say what --install or --uninstall would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn controller(text: &str) -> Result<String, String> {
    let sound = !text.is_empty() && !text.starts_with('.') && text.chars().all(|c| c.is_ascii_graphic() && c != '/');
    if sound { Ok(text.to_owned()) } else { Err("a name as in /sys/class/udc, for example 20980000.usb".into()) }
}

impl Gadget {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if !self.root.is_dir() {
            bail!("{} is no directory: --root names the root of an image of a board", self.root.display());
        }
        if let Some(product) = &self.product {
            return self.uninstall(product);
        }
        let (Some(disk), Some(cd)) = (&self.device, &self.virtual_zone) else {
            bail!("name the disk, and the CD with --virtual")
        };
        let halves = Halves::look(disk, cd, self.vendor.vendor()?)?;
        if self.uninstall { self.uninstall(&halves.product) } else { self.install(disk, cd, &halves) }
    }

    fn install(&self, disk: &Path, cd: &Path, halves: &Halves) -> anyhow::Result<ExitCode> {
        let mut notes = halves.notes.clone();
        if !halves.vendor_key_given {
            notes.push(format!(
                "The vendor's key {} is taken from the CD itself, because no --keys were given.",
                halves.vendor_key
            ));
        }
        let wishes = Wishes {
            cd: self.on_board(cd, self.board_cd.as_deref(), "--board-cd", &mut notes)?,
            disk: self.on_board(disk, self.board_disk.as_deref(), "--board-disk", &mut notes)?,
            udc: self.udc.clone(),
            usb_id: self.usb_id,
            manufacturer: self.manufacturer.clone(),
            serial: self.serial.clone().unwrap_or_else(|| halves.device_id.to_ascii_uppercase()),
            stall: !self.no_stall,
        };
        let files = files(&halves.product, &wishes)?;
        let paths = Paths::of(&halves.product)?;
        let mut ran = Vec::new();
        let written = if self.install && !self.dry_run {
            let written = system_files::install(&self.root, &files)?;
            ran = run_all(&paths.notices(&self.root));
            notes.push(format!("It is shown from the next start on; at once: systemctl start {}", paths.name));
            Some(written)
        } else {
            None
        };
        if self.json {
            terminal::print_json(&json!({
                "product": halves.product,
                "device_id": halves.device_id,
                "serial": wishes.serial,
                "vendor_key": halves.vendor_key,
                "vendor_key_given": halves.vendor_key_given,
                "unit": format!("{}.service", paths.name),
                "files": files_shown::as_json(&files),
                "installed": written.is_some(),
                "written": written.unwrap_or_default(),
                "commands": ran,
                "notes": notes,
            }))?;
            return Ok(ExitCode::SUCCESS);
        }
        match (&written, self.install) {
            (Some(written), _) => files_shown::tell_written(&self.root, &files, written),
            (None, true) => files_shown::tell_planned(&self.root, &files),
            (None, false) => files_shown::print(&files),
        }
        ran.iter().for_each(|line| errln!("{line}"));
        notes.iter().for_each(|note| errln!("note: {}", printable(note)));
        Ok(ExitCode::SUCCESS)
    }

    /// Where a file that is looked at here is on the board.
    fn on_board(
        &self,
        here: &Path,
        there: Option<&Path>,
        option: &str,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<PathBuf> {
        if let Some(there) = there {
            if !there.is_absolute() {
                bail!("{option} names a path on the board, from / on");
            }
            return Ok(there.to_path_buf());
        }
        let real = |path: &Path| path.canonicalize().with_context(|| format!("{} cannot be found", path.display()));
        let (here, root) = (real(here)?, real(&self.root)?);
        if let Ok(below) = here.strip_prefix(&root) {
            return Ok(Path::new("/").join(below));
        }
        notes.push(format!(
            "{} is not in {}: put it at the same place on the board, or name another with {option}",
            here.display(),
            root.display()
        ));
        Ok(here)
    }

    fn uninstall(&self, product: &str) -> anyhow::Result<ExitCode> {
        let paths = Paths::of(product)?;
        let (files, directories) = paths.installed();
        let (before, after) = paths.farewell(&self.root);
        let there = |path: &&PathBuf| system_files::place(&self.root, path).is_ok_and(|at| at.exists());
        let found: Vec<PathBuf> = files.iter().map(|(path, _)| path).filter(there).cloned().collect();
        let (mut ran, mut gone) = (Vec::new(), found.clone());
        if !self.dry_run && !found.is_empty() {
            ran = run_all(&before);
            gone = system_files::uninstall(&self.root, &files, &directories)?;
            ran.extend(run_all(&after));
        }
        if self.json {
            terminal::print_json(
                &json!({"product": product, "removed": gone, "dry_run": self.dry_run, "commands": ran}),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        let verb = if self.dry_run { "would remove" } else { "removed" };
        gone.iter().for_each(|path| errln!("{verb} {}", files_shown::below(&self.root, path)));
        if gone.is_empty() {
            errln!("nothing of '{}' is installed here", printable(product));
        }
        ran.iter().for_each(|line| errln!("{line}"));
        Ok(ExitCode::SUCCESS)
    }
}
