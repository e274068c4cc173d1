//! What makes a Linux board show the *dual* profile: a script that sets up a USB gadget with two units over configfs, and the
//! systemd unit that starts it. See `docs/gadget.md`.
//!
//! | module | subject |
//! |---|---|
//! | [`halves`] | whether two images are the halves of one device that a board can show |
//! | [`script`] | the script |

pub mod halves;
pub mod script;

use std::path::{Path, PathBuf};

use crate::error::ToolError;
use crate::system_files::{self, SystemFile, slug, unit_text};

pub use self::halves::Halves;

/// Vendor and product number of a USB device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsbId {
    /// The vendor, as the USB Implementers Forum numbers it.
    pub vendor: u16,
    /// The product, as that vendor numbers it.
    pub product: u16,
}

impl UsbId {
    /// Linux Foundation, multifunction composite gadget: for tests and for boards of one's own.
    pub const DEFAULT: Self = Self { vendor: 0x1d6b, product: 0x0104 };

    /// Reads `1d6b:0104`.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let sound = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            sound.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let parsed = text
            .split_once(':')
            .and_then(|(vendor, product)| Some(Self { vendor: number(vendor)?, product: number(product)? }));
        parsed.ok_or_else(|| "a USB id is two numbers of four hexadecimal digits, for example 1d6b:0104".into())
    }
}

/// How the board shows the device.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Where the CD's image is on the board.
    pub cd: PathBuf,
    /// Where the disk's image, or the block device with it, is on the board.
    pub disk: PathBuf,
    /// The device controller; `None`: the first that there is.
    pub udc: Option<String>,
    /// Its numbers.
    pub usb_id: UsbId,
    /// Its maker, as computers show it.
    pub manufacturer: String,
    /// Its serial number.
    pub serial: String,
    /// Whether the controller can stall an endpoint, as the standard wants it.
    pub stall: bool,
}

/// The files for a board.
///
/// # Errors
/// `Refused` for a text that USB or a unit's file cannot hold.
pub fn files(product: &str, wishes: &Wishes) -> Result<Vec<SystemFile>, ToolError> {
    let paths = Paths::of(product)?;
    let mark = system_files::mark(&format!("{product} as a USB device"));
    let text = script::text(&mark, &paths.name, product, wishes)?;
    let unit = unit(&mark, product, &paths, wishes)?;
    Ok(vec![SystemFile::script(paths.script, text), SystemFile::text(paths.unit, unit)])
}

/// Where a product's files are, from `/`.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The gadget in configfs, and the unit.
    pub name: String,
    /// The script.
    pub script: PathBuf,
    /// The systemd unit.
    pub unit: PathBuf,
}

impl Paths {
    /// The paths for a product.
    ///
    /// # Errors
    /// As [`slug`].
    pub fn of(product: &str) -> Result<Self, ToolError> {
        let slug = slug(product)?;
        Ok(Self {
            script: format!("/usr/local/lib/holdfast/{slug}/gadget").into(),
            unit: format!("/etc/systemd/system/holdfast-gadget-{slug}.service").into(),
            name: format!("holdfast-gadget-{slug}"),
        })
    }

    /// What an installation wrote: each path, and whether it is a text; and the directories that are only ours.
    pub fn installed(&self) -> (Vec<(PathBuf, bool)>, Vec<PathBuf>) {
        let files = vec![(self.script.clone(), true), (self.unit.clone(), true)];
        (files, self.script.ancestors().skip(1).take(2).map(Path::to_path_buf).collect())
    }

    /// What systemd is told after an installation into `root`.
    pub fn notices(&self, root: &Path) -> Vec<Vec<String>> {
        let enable = self.systemctl(root, "enable");
        if root == Path::new("/") { vec![words("systemctl daemon-reload"), enable] } else { vec![enable] }
    }

    /// What systemd is told before the files in `root` go, and after that.
    pub fn farewell(&self, root: &Path) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
        let disable = self.systemctl(root, "disable");
        if root == Path::new("/") {
            let stop = words(&format!("systemctl stop {}.service", self.name));
            (vec![stop, disable], vec![words("systemctl daemon-reload")])
        } else {
            (vec![disable], Vec::new())
        }
    }

    fn systemctl(&self, root: &Path, verb: &str) -> Vec<String> {
        let mut words = vec!["systemctl".to_owned()];
        if root != Path::new("/") {
            words.push(format!("--root={}", root.display()));
        }
        words.extend(["--quiet".to_owned(), verb.to_owned(), format!("{}.service", self.name)]);
        words
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The unit: starts with the board's device controller (systemd.special(7), usb-gadget.target).
fn unit(mark: &str, product: &str, paths: &Paths, wishes: &Wishes) -> Result<String, ToolError> {
    let mut needed = String::new();
    for path in [&wishes.cd, &wishes.disk] {
        let text = path.to_str().filter(|text| !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')));
        let text = text
            .ok_or_else(|| ToolError::Refused(format!("{} is no path for a unit's file: rename it", path.display())))?;
        needed += &format!(" \"{}\"", unit_text(text));
    }
    let (product, script) = (unit_text(product), paths.script.display());
    Ok(format!(
        "{mark}
[Unit]
Description={product} as a USB device
RequiresMountsFor={needed}
After=sys-kernel-config.mount systemd-modules-load.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={script} start
ExecStop={script} stop

[Install]
WantedBy=usb-gadget.target
",
        needed = needed.trim_start()
    ))
}
