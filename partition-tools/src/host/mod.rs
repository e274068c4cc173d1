//! What lets a Linux host do more with the devices of a product: a udev rule that gives rights, and a systemd unit that
//! starts the launcher when a device is plugged in.
//!
//! What runs is never the program on the stick: a launcher is installed on the host once, from a device or image that was
//! looked at, and belongs to root. It runs as an ordinary user. See `docs/host.md`.
//!
//! | module | subject |
//! |---|---|
//! | [`subject`] | the product, whose it is, and its launcher |
//! | [`rule`] | the udev rule |
//! | [`mod@unit`] | the systemd unit |
//! | [`user`] | the user that the unit runs as |

pub mod rule;
pub mod subject;
pub mod unit;
pub mod user;

use std::path::PathBuf;

use crate::error::ToolError;
use crate::system_files::{self, SystemFile, slug};

pub use self::subject::Subject;
pub use self::unit::Output;

/// What is wanted beside the rights.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Only devices whose serial number fits this pattern of udev's.
    pub serial: Option<String>,
    /// The user that the launcher runs as, with its launcher; `None`: nothing starts by itself.
    pub autorun: Option<Autorun>,
}

/// What starts by itself.
#[derive(Debug, Clone)]
pub struct Autorun {
    /// As whom.
    pub user: String,
    /// Where its output goes.
    pub output: Output,
    /// The launcher that is installed.
    pub launcher: Vec<u8>,
}

/// The files for a product.
///
/// # Errors
/// `Refused` for a serial pattern or product name that cannot stand in a rule.
pub fn files(subject: &Subject, wishes: &Wishes) -> Result<Vec<SystemFile>, ToolError> {
    let paths = Paths::of(&subject.product)?;
    let mark = system_files::mark(&format!("{} (vendor {})", subject.product, hex::encode(&subject.vendor.0[..8])));
    let user = wishes.autorun.as_ref().map(|autorun| &*autorun.user);
    let rule = rule::text(&mark, &paths.slug, &subject.label, wishes.serial.as_deref(), user)?;
    let mut files = vec![SystemFile::text(paths.rule, rule)];
    if let Some(autorun) = &wishes.autorun {
        let text = unit::text(&mark, &paths.slug, &subject.product, &paths.launcher, autorun);
        files.push(SystemFile::text(paths.unit, text));
        files.push(SystemFile::program(paths.launcher, autorun.launcher.clone()));
    }
    Ok(files)
}

/// Where a product's files are, from `/`.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The product, as a word for file names.
    pub slug: String,
    /// The udev rule: before `73-seat-late.rules`, which acts on the tag.
    pub rule: PathBuf,
    /// The systemd unit.
    pub unit: PathBuf,
    /// The launcher.
    pub launcher: PathBuf,
}

impl Paths {
    /// The paths for a product.
    ///
    /// # Errors
    /// As [`slug`].
    pub fn of(product: &str) -> Result<Self, ToolError> {
        let slug = slug(product)?;
        Ok(Self {
            rule: format!("/etc/udev/rules.d/70-holdfast-{slug}.rules").into(),
            unit: format!("/etc/systemd/system/holdfast-{slug}@.service").into(),
            launcher: format!("/usr/local/lib/holdfast/{slug}/bootstrap").into(),
            slug,
        })
    }

    /// What an installation wrote: each path, and whether it is a text; and the directories that are only ours.
    pub fn installed(&self) -> (Vec<(PathBuf, bool)>, Vec<PathBuf>) {
        let files = vec![(self.rule.clone(), true), (self.unit.clone(), true), (self.launcher.clone(), false)];
        let directories = self.launcher.ancestors().skip(1).take(2).map(Into::into).collect();
        (files, directories)
    }

    /// What a running system is told after an installation, so that what is plugged in now is looked at anew.
    pub fn notices(&self, label: &str) -> Vec<Vec<String>> {
        let mut trigger = words("udevadm trigger --action=change --subsystem-match=block");
        trigger.extend([rule::HIDDEN, rule::VIRTUAL].map(|name| format!("--property-match=PARTNAME={name}")));
        trigger.push(format!("--property-match=ID_FS_LABEL={label}"));
        vec![words("systemctl daemon-reload"), words("udevadm control --reload"), trigger]
    }

    /// What a running system is told before the files go, and after that.
    pub fn farewell(&self) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
        let stop = words(&format!("systemctl stop holdfast-{}@*.service", self.slug));
        (vec![stop], vec![words("systemctl daemon-reload"), words("udevadm control --reload")])
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
