//! The command line, parsed by hand: a dozen words do not need a library in a program that is measured in kilobytes.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::prelude::v1::*;

/// Text about raw images, in a launcher that opens them.
#[cfg(feature = "image")]
macro_rules! if_images {
    ($text:literal) => {
        $text
    };
}
#[cfg(not(feature = "image"))]
macro_rules! if_images {
    ($text:literal) => {
        ""
    };
}

/// Text about mounting, where the launcher mounts.
#[cfg(not(windows))]
macro_rules! if_mounting {
    ($text:literal) => {
        $text
    };
}
#[cfg(windows)]
macro_rules! if_mounting {
    ($text:literal) => {
        ""
    };
}

/// What `--help` prints: only what this launcher does. By its line `Usage: bootstrap [options]` factories and release
/// machines tell a launcher from an updater.
pub const HELP: &str = concat!(
    "\
Checks the device's updater, restores it if it must, runs it, then runs the client.

Usage: bootstrap [options]
       bootstrap [options] --virtual DIR --free DIR [--hidden FILE_OR_DEVICE]
",
    if_images!("       bootstrap [options] --device IMAGE_OR_BLOCK_DEVICE [--virtual CD_ISO_OR_DIR]\n"),
    if_mounting!("       bootstrap [options] --plugged NODE\n"),
    "
Where no device is named the launcher finds the one that it was started from.

Options:
",
    if_images!("  --device PATH    a device image or a whole block device; the client runs from a private copy\n"),
    "  --virtual PATH   the virtual zone: a mounted directory",
    if_images!(" (with --device also an ISO image)"),
    "
  --free DIR       the free zone, mounted
  --hidden PATH    the hidden zone: its partition, or a file
",
    if_mounting!(
        "  --plugged NODE   the device whose virtual zone is this partition or CD-ROM unit: its zones are mounted where nobody else sees
                   them, then every capability is given up. For systemd units; wants CAP_SYS_ADMIN and no other right
  --allow-root     with --plugged: run what is on the device as root, on a board that has no other user
"
    ),
    "  --no-client      do everything but start the client
  --verbose        say what was looked at, also when all is well
  --json           print a report on standard output when all is done
  --version        print the version
  --help           print this

Examples:
  bootstrap                                    what autorun and a double-click do
",
    if_images!("  bootstrap --device device.img                heal, update and run a device image\n"),
    if_mounting!(
        "  bootstrap --virtual /media/cd --free /media/stick --hidden /dev/sdb2 --verbose
  bootstrap --plugged /dev/sr0                 what the unit of `partition-tools host` does
"
    ),
    "
Exit status: the client's own when it ran (128 + N: ended by signal N), or 0; else
  64  the command line makes no sense
  66  the device, or a zone that was named, was not found
  69  no good copy of the updater anywhere (also when the client ran all the same and ended with 0)
  70  there are good copies of the updater, and none of them starts (likewise)
  71  the operating system failed the launcher, or has no room to run an updater
  72  the client cannot be started
  73  the client is not whole, and was not started
  74  the device was pulled
  77  this system refuses to run the updater (likewise)",
    if_mounting!(", or to mount the device's zones; or root used --plugged"),
    "
  78  the device's configuration is missing, damaged, or another vendor's
  128+N  the launcher itself was ended by signal N
"
);

/// Which device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The one that the launcher was started from.
    Find,
    /// Mounted zones.
    Directories {
        /// The virtual zone.
        virtual_zone: PathBuf,
        /// The free zone.
        free: Option<PathBuf>,
        /// The hidden zone.
        hidden: Option<PathBuf>,
    },
    /// A raw device or image.
    Device {
        /// The image or block device.
        device: PathBuf,
        /// The virtual zone, where it is elsewhere.
        virtual_zone: Option<PathBuf>,
    },
    /// A device that was plugged in, to be mounted.
    Plugged {
        /// The block device that is its virtual zone.
        node: PathBuf,
        /// Whether root may run what is on it.
        allow_root: bool,
    },
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which device.
    pub mode: Mode,
    /// Do not start the client.
    pub no_client: bool,
    /// Say more.
    pub verbose: bool,
    /// Print a report.
    pub json: bool,
}

/// A command line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Do it.
    Run(Options),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// A command line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageError {
    /// Not an option of this program.
    Unknown(String),
    /// An option without the value it needs.
    NoValue(&'static str),
    /// An option that stands there twice.
    Twice(&'static str),
    /// Options that do not go together.
    Combination(&'static str),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "`{word}` is not an option of the launcher."),
            Self::NoValue(option) => write!(f, "{option} needs a path behind it."),
            Self::Twice(option) => write!(f, "{option} stands there twice."),
            Self::Combination(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for UsageError {}

/// Understands a command line.
///
/// # Errors
/// See [`UsageError`].
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed, UsageError> {
    let mut args = args;
    let (mut device, mut virtual_zone, mut free, mut hidden, mut plugged) = (None, None, None, None, None);
    let (mut no_client, mut verbose, mut json, mut allow_root) = (false, false, false, false);
    while let Some(word) = args.next() {
        let text = word.to_string_lossy();
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (&*text, None),
        };
        let (option, slot): (&'static str, &mut Option<PathBuf>) = match (name, attached.is_some()) {
            ("--device", _) => ("--device", &mut device),
            ("--virtual", _) => ("--virtual", &mut virtual_zone),
            ("--free", _) => ("--free", &mut free),
            ("--hidden", _) => ("--hidden", &mut hidden),
            ("--plugged", _) => ("--plugged", &mut plugged),
            ("--allow-root", false) => {
                allow_root = true;
                continue;
            }
            ("--no-client", false) => {
                no_client = true;
                continue;
            }
            ("--verbose" | "-v", false) => {
                verbose = true;
                continue;
            }
            ("--json", false) => {
                json = true;
                continue;
            }
            ("--help" | "-h", false) => return Ok(Parsed::Help),
            ("--version" | "-V", false) => return Ok(Parsed::Version),
            _ => return Err(UsageError::Unknown(text.into_owned())),
        };
        let value = attached.or_else(|| args.next()).filter(|value| !value.is_empty());
        if slot.replace(value.ok_or(UsageError::NoValue(option))?.into()).is_some() {
            return Err(UsageError::Twice(option));
        }
    }
    if allow_root && plugged.is_none() {
        return Err(UsageError::Combination("--allow-root goes with --plugged."));
    }
    if let Some(node) = plugged {
        if device.is_some() || virtual_zone.is_some() || free.is_some() || hidden.is_some() {
            return Err(UsageError::Combination("--plugged finds the zones by itself: name none beside it."));
        }
        return Ok(Parsed::Run(Options { mode: Mode::Plugged { node, allow_root }, no_client, verbose, json }));
    }
    let mode = match (device, virtual_zone) {
        (Some(_), _) if free.is_some() || hidden.is_some() => {
            return Err(UsageError::Combination("--device brings its own zones: leave out --free and --hidden."));
        }
        (Some(device), virtual_zone) => Mode::Device { device, virtual_zone },
        (None, Some(virtual_zone)) => Mode::Directories { virtual_zone, free, hidden },
        (None, None) if free.is_some() || hidden.is_some() => {
            return Err(UsageError::Combination("--free and --hidden need --virtual: the configuration stands there."));
        }
        (None, None) => Mode::Find,
    };
    Ok(Parsed::Run(Options { mode, no_client, verbose, json }))
}
