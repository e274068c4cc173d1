//! `host`: what lets a Linux computer do more with the devices of a product.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{ArgGroup, ValueEnum};
use firmware_image::{Digest, paths};
use lines::errln;
use partition_tools::host::{Autorun, Board, Output, Paths, Subject, Wishes, board, files, user};
use partition_tools::printable::printable;
use partition_tools::system_files::{self, run_all};
use serde_json::json;

use super::{VendorArgument, files_shown, terminal};

/// Let a Linux computer reach a device's hidden zone, and start devices when they are plugged in, or at boot
///
/// Prints the files, or installs them: a udev rule, and with --autorun-as or --board a systemd unit and the launcher that it runs. That
/// launcher is taken from the device once, and is then the computer's own: nothing on a device that is plugged in later is
/// ever run with rights.
#[derive(clap::Args)]
#[command(group = ArgGroup::new("starts").args(["autorun_as", "board"]).multiple(true))]
#[command(after_help = "\
Examples:
  partition-tools host device.img      # print the rule
  # Whoever sits here may reach the hidden zone:
  sudo partition-tools host /dev/sdX --install
  sudo partition-tools host device.img --keys keys --autorun-as kiosk --install
  partition-tools host cd.iso --autorun-as kiosk --install \\
      --root image-of-a-host
  partition-tools host card.img --keys keys --board /dev/mmcblk0p2 \\
      --autorun-as kiosk --platform linux-aarch64 \\
      --install --root image-of-a-board
  # The application has a unit of its own:
  partition-tools host card.img --keys keys --board /dev/mmcblk0p2 --no-client
  sudo partition-tools host --uninstall --product 'Acme Notes'

The user must not be root. One for this purpose: useradd --system --shell /usr/sbin/nologin kiosk")]
pub(super) struct Host {
    /// A device, its image, or the CD of a dual device (drive or ISO image)
    #[arg(required_unless_present = "product")]
    device: Option<PathBuf>,
    /// The CD of a dual device whose disk is named
    #[arg(long = "virtual", value_name = "CD_ISO_OR_DIR", requires = "device")]
    virtual_zone: Option<PathBuf>,
    #[command(flatten)]
    vendor: VendorArgument,
    /// Only devices with this serial number (with * ? [] as in a shell)
    #[arg(long, value_name = "PATTERN")]
    serial: Option<String>,
    /// Start devices when they are plugged in, as this user
    #[arg(long, value_name = "USER")]
    autorun_as: Option<String>,
    /// This computer is a board: start at boot, from this partition of its own storage, the virtual zone of a card like the named
    /// device, by a name that stays: /dev/mmcblk0p2, or below /dev/disk/by-path/. As root, unless --autorun-as names a user
    #[arg(long, value_name = "NODE", requires = "device", conflicts_with_all = ["serial", "uninstall"])]
    board: Option<String>,
    /// With --board: start no client. The application has a unit of its own, behind this one, and finds the free zone mounted
    #[arg(long, requires = "board")]
    no_client: bool,
    /// Where the output of what is started goes
    #[arg(long, value_name = "WHERE", requires = "starts", default_value = "journal+console")]
    output: OutputArgument,
    /// What the computer is [default: what this program was built for; with --root, what the device's only Linux launcher is for]
    #[arg(long, value_name = "PLATFORM", requires = "starts")]
    platform: Option<String>,
    /// The launcher to install, instead of the device's own. It must carry the vendor's key
    #[arg(long, value_name = "FILE", requires = "starts")]
    bootstrap: Option<PathBuf>,
    /// Write the files, and make the system take notice
    #[arg(long, conflicts_with = "uninstall")]
    install: bool,
    /// Remove what --install wrote
    #[arg(long)]
    uninstall: bool,
    /// With --uninstall: the product, where no device of it is at hand
    #[arg(long, value_name = "NAME", requires = "uninstall", conflicts_with = "device")]
    product: Option<String>,
    /// The system to work on: the root of an image of a host
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Say what --install or --uninstall would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputArgument {
    /// The journal, and the console
    #[value(name = "journal+console")]
    JournalAndConsole,
    /// The journal
    Journal,
}

impl Host {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if !self.root.is_dir() {
            bail!("{} is no directory: --root names the root of an image of a host", self.root.display());
        }
        let subject = match &self.device {
            Some(device) => Some(Subject::read(device, self.virtual_zone.as_deref(), self.vendor.vendor()?)?),
            None => None,
        };
        match (subject, &self.product) {
            (Some(subject), _) if self.uninstall => self.uninstall(&subject.product),
            (None, Some(product)) => self.uninstall(product),
            (Some(subject), None) => self.install(&subject),
            _ => bail!("name a device"),
        }
    }

    fn is_running_system(&self) -> bool {
        self.root == Path::new("/")
    }

    fn install(&self, subject: &Subject) -> anyhow::Result<ExitCode> {
        let paths = Paths::of(&subject.product)?;
        let mut notes = Vec::new();
        if !subject.vendor_given {
            notes.push(format!(
                "The vendor's key {} is taken from the device itself, because no --keys were given. That shows that its parts fit \
                 together, not that it is genuine: do this with a device or image that you know.",
                hex::encode(subject.vendor.0)
            ));
        }
        let autorun = match self.autorun_as.is_some() || self.board.is_some() {
            true => Some(self.autorun(subject, &mut notes)?),
            false => None,
        };
        let wishes = Wishes { serial: self.serial.clone(), autorun };
        let files = files(subject, &wishes)?;
        let (mut ran, mut removed) = (Vec::new(), Vec::new());
        let written = match (self.install, self.dry_run) {
            (true, false) => {
                let written = system_files::install(&self.root, &files)?;
                // What an installation with other wishes left.
                let (mut stale, directories) = paths.installed();
                stale.retain(|(path, _)| files.iter().all(|file| file.path != *path));
                removed = system_files::uninstall(&self.root, &stale, &directories)?;
                if self.is_running_system() {
                    let board = wishes.autorun.as_ref().and_then(|autorun| autorun.board.as_ref());
                    ran = run_all(&paths.notices(&subject.label, board));
                }
                Some(written)
            }
            _ => None,
        };
        if self.json {
            terminal::print_json(&json!({
                "product": subject.product,
                "vendor_key": hex::encode(subject.vendor.0),
                "vendor_key_given": subject.vendor_given,
                "user": self.autorun_as,
                "board": self.board,
                "files": files_shown::as_json(&files),
                "installed": written.is_some(),
                "written": written.unwrap_or_default(),
                "removed": removed,
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
        removed.iter().for_each(|path| errln!("removed {}", files_shown::below(&self.root, path)));
        ran.iter().for_each(|line| errln!("{line}"));
        notes.iter().for_each(|note| errln!("note: {}", printable(note)));
        Ok(ExitCode::SUCCESS)
    }

    fn autorun(&self, subject: &Subject, notes: &mut Vec<String>) -> anyhow::Result<Autorun> {
        let board = match &self.board {
            Some(node) => Some(self.board(subject, node, notes)?),
            None => None,
        };
        let launcher = subject.launcher(&self.platform(subject)?, self.bootstrap.as_deref())?;
        notes.push(format!(
            "The launcher carries that vendor's key; its SHA-256 is {}. Compare it with the vendor's, where you can.",
            Digest::of(&launcher)
        ));
        if let Some(name) = &self.autorun_as {
            self.look_up(name, notes)?;
        }
        let output = match self.output {
            OutputArgument::JournalAndConsole => Output::JournalAndConsole,
            OutputArgument::Journal => Output::Journal,
        };
        Ok(Autorun { user: self.autorun_as.clone(), board, output, launcher })
    }

    /// What the computer is. Of an image of another one only the launchers tell, where there is no choice.
    fn platform(&self, subject: &Subject) -> anyhow::Result<String> {
        if let Some(platform) = &self.platform {
            return Ok(platform.clone());
        }
        if !self.is_running_system() && self.bootstrap.is_none() {
            match &*subject.platforms()? {
                [] => {}
                [only] => return Ok(only.clone()),
                several => bail!(
                    "{} may be of any computer: say with --platform what it is; there are launchers for {}",
                    self.root.display(),
                    several.join(", ")
                ),
            }
        }
        Ok(paths::THIS_PLATFORM.to_owned())
    }

    fn board(&self, subject: &Subject, node: &str, notes: &mut Vec<String>) -> anyhow::Result<Board> {
        let Some(numbers) = subject.numbers else {
            bail!("a board has its three zones on one card: name a device or image of profile stick");
        };
        let board = Board::new(node, numbers, self.no_client)?;
        if self.no_client {
            let at = board::mount_point(&Paths::of(&subject.product)?.slug);
            notes.push(format!(
                "The application's own unit takes one line, in its section [Unit]: RequiresMountsFor={0} . Its files are in {0}/client.",
                at.display()
            ));
        }
        if self.autorun_as.is_none() {
            notes.push(
                "Launcher, updater and client run as root, without any capability. If the board has a user for the application, \
                 name it with --autorun-as."
                    .into(),
            );
        }
        Ok(board)
    }

    /// Sees to it that the user is an ordinary one.
    fn look_up(&self, name: &str, notes: &mut Vec<String>) -> anyhow::Result<()> {
        match user::look_up(&self.root, name)? {
            user::Known::System => {}
            user::Known::Person => notes.push(format!(
                "{name} is no system user: udev of systemd 258 gives nodes to system users only. There the hidden zone is in reach \
                 when {name} sits at the computer, and else its mirrors serve."
            )),
            user::Known::Missing if self.install && self.is_running_system() => {
                bail!("there is no user {name} here; make one: useradd --system --shell /usr/sbin/nologin {name}")
            }
            user::Known::Missing => {
                notes.push(format!("There is no user {name} in {}: make one before a device is plugged in.", self.root.display()));
            }
        }
        Ok(())
    }

    fn uninstall(&self, product: &str) -> anyhow::Result<ExitCode> {
        let paths = Paths::of(product)?;
        let (files, directories) = paths.installed();
        let (before, after) = paths.farewell();
        let mut ran = Vec::new();
        let mut gone = Vec::new();
        if self.dry_run {
            let there = |path: &&PathBuf| system_files::place(&self.root, path).is_ok_and(|at| at.exists());
            gone.extend(files.iter().map(|(path, _)| path).filter(there).cloned());
        } else {
            if self.is_running_system() {
                ran = run_all(&before);
            }
            gone = system_files::uninstall(&self.root, &files, &directories)?;
            if self.is_running_system() {
                ran.extend(run_all(&after));
            }
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
