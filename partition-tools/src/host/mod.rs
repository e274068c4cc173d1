//! What lets a Linux host do more with the devices of a product: a udev rule that gives rights, and a systemd unit that
//! starts the launcher when a device is plugged in, or at boot from a board's own storage.
//!
//! What runs is never the program on the stick: a launcher is installed on the host once, from a device or image that was
//! looked at, and belongs to root. It runs as an ordinary user. See `docs/host.md`.
//!
//! | module | subject |
//! |---|---|
//! | [`subject`] | the product, whose it is, and its launcher |
//! | [`rule`] | the udev rule |
//! | [`mod@unit`] | the systemd unit |
//! | [`board`] | what a board has beside it |
//! | [`user`] | the user that the unit runs as |

pub mod board;
pub mod rule;
pub mod subject;
pub mod unit;
pub mod user;

use std::path::PathBuf;

use crate::error::ToolError;
use crate::system_files::{self, SystemFile, slug};

pub use self::board::Board;
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
    /// As whom; `None`: as root, on a board.
    pub user: Option<String>,
    /// At boot, from a board's own storage; `None`: when a device is plugged in.
    pub board: Option<Board>,
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
    let user = wishes.autorun.as_ref().and_then(|autorun| autorun.user.as_deref());
    let board = wishes.autorun.as_ref().and_then(|autorun| autorun.board.as_ref());
    let mut files = Vec::new();
    match (board, user) {
        (Some(board), Some(user)) => {
            files.push(SystemFile::text(paths.rule, rule::board_text(&mark, &board.hidden, user)));
        }
        // Root needs no rights.
        (Some(_), None) => {}
        (None, user) => {
            let text = rule::text(&mark, &paths.slug, &subject.label, wishes.serial.as_deref(), user)?;
            files.push(SystemFile::text(paths.rule, text));
        }
    }
    if let Some(autorun) = &wishes.autorun {
        let (slug, product, launcher) = (&*paths.slug, &*subject.product, &*paths.launcher);
        match board {
            Some(board) => {
                let text = unit::board_text(&mark, slug, product, launcher, autorun, board);
                files.push(SystemFile::text(paths.board_unit, text));
                files.push(SystemFile::text(paths.board_boot, board::boot_text(&mark, slug)));
                if board.no_client {
                    let text = board::mount_text(&mark, slug, product, board, user);
                    files.push(SystemFile::text(paths.board_mount, text));
                }
            }
            None => files.push(SystemFile::text(paths.unit, unit::text(&mark, slug, product, launcher, autorun))),
        }
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
    /// The systemd unit that starts when a device is plugged in.
    pub unit: PathBuf,
    /// The one that starts at boot, on a board.
    pub board_unit: PathBuf,
    /// What has the boot start it.
    pub board_boot: PathBuf,
    /// The mount of the free zone for an application with a unit of its own.
    pub board_mount: PathBuf,
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
            board_unit: format!("/etc/systemd/system/holdfast-{slug}.service").into(),
            board_boot: format!("/etc/systemd/system/multi-user.target.d/holdfast-{slug}.conf").into(),
            board_mount: format!("/etc/systemd/system/{}", board::mount_unit(&slug)).into(),
            launcher: format!("/usr/local/lib/holdfast/{slug}/bootstrap").into(),
            slug,
        })
    }

    /// What an installation wrote: each path, and whether it is a text; and the directories that are only ours.
    pub fn installed(&self) -> (Vec<(PathBuf, bool)>, Vec<PathBuf>) {
        let texts = [&self.rule, &self.unit, &self.board_unit, &self.board_boot, &self.board_mount];
        let files = texts.map(|path| (path.clone(), true)).into_iter().chain([(self.launcher.clone(), false)]);
        let own = self.launcher.ancestors().skip(1).take(2).chain(self.board_boot.parent());
        (files.collect(), own.map(Into::into).collect())
    }

    /// What a running system is told after an installation, so that what is plugged in now is looked at anew.
    pub fn notices(&self, label: &str, board: Option<&Board>) -> Vec<Vec<String>> {
        let mut trigger = words("udevadm trigger --action=change --subsystem-match=block");
        match board {
            Some(board) => trigger.push(format!("--name-match={}", board.hidden)),
            None => {
                trigger.extend([rule::HIDDEN, rule::VIRTUAL].map(|name| format!("--property-match=PARTNAME={name}")));
                trigger.push(format!("--property-match=ID_FS_LABEL={label}"));
            }
        }
        vec![words("systemctl daemon-reload"), words("udevadm control --reload"), trigger]
    }

    /// What a running system is told before the files go, and after that.
    pub fn farewell(&self) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
        // Patterns: a unit that is not loaded is no failure.
        let stop = words(&format!("systemctl stop holdfast-{0}@*.service holdfast-{0}[.]service", self.slug));
        (vec![stop], vec![words("systemctl daemon-reload"), words("udevadm control --reload")])
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::subject::ZoneNumbers;

    /// Every text of a product that is called so.
    fn texts(product: &str) -> Vec<String> {
        let board = Board::new("/dev/mmcblk0p2", ZoneNumbers { free: 1, virtual_zone: 2, hidden: 3 }, true).unwrap();
        let autorun = Autorun {
            user: Some("kiosk".into()),
            board: Some(board.clone()),
            output: Output::Journal,
            launcher: Vec::new(),
        };
        let (mark, launcher) = (system_files::mark(product), PathBuf::from("/launcher"));
        vec![
            unit::text(&mark, "acme", product, &launcher, &autorun),
            unit::board_text(&mark, "acme", product, &launcher, &autorun, &board),
            board::mount_text(&mark, "acme", product, &board, Some("kiosk")),
            board::boot_text(&mark, "acme"),
            rule::text(&mark, "acme", "ACME", None, Some("kiosk")).unwrap(),
            rule::board_text(&mark, &board.hidden, "kiosk"),
        ]
    }

    #[test]
    fn a_products_name_says_nothing_to_systemd_and_udev_whatever_it_is() {
        let said = |line: &str| line.starts_with("Description=") || line.starts_with(system_files::MARK);
        for product in
            ["Acme\\", "Acme\\ ", "Acme\\\\", "Acme\nRequires=x.service", "Acme\r[Service]", "%n \"$HOME\" `x` 'y' %"]
        {
            for (odd, plain) in texts(product).iter().zip(texts("Acme")) {
                assert_eq!(odd.lines().count(), plain.lines().count(), "{odd}");
                for (odd, plain) in odd.lines().zip(plain.lines()) {
                    assert!(!odd.trim_end().ends_with('\\') && !odd.contains('\r'), "{odd}");
                    assert!(odd == plain || said(odd) && said(plain), "{odd}");
                    assert!(
                        odd.starts_with('#') || !odd.replace("%%", "").replace("%i", "").contains('%') || odd == plain,
                        "{odd}"
                    );
                }
            }
        }
    }
}
