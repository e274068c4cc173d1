//! What people are told, on standard error: what was found, what was done, what to do next. Silent when all is well.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::prelude::v1::*;

use firmware_image::ZoneError;
use firmware_image::paths;
use firmware_image::updater_image::ImageError;

use super::exit::Exit;
use crate::decide::Session;
use crate::device::{CopyFault, Source};
use crate::platform::{self, MountFault};
use crate::report::Event;

/// Prints a line for people. A reader that has gone away is no reason to leave a device half healed.
pub fn err(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints a line of data; as [`err`] where nobody reads it.
pub fn out(line: &str) {
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Speaks, and remembers what was said.
pub struct Teller {
    verbose: bool,
    said: Vec<String>,
    events: usize,
    installed_was: Option<CopyFault>,
}

impl Teller {
    /// One that says nothing while all is well, unless `verbose`.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, said: Vec::new(), events: 0, installed_was: None }
    }

    /// Says what everybody should know.
    pub fn say(&mut self, line: &str) {
        err(line);
        self.said.push(line.to_owned());
    }

    /// Says what went wrong, and what to do about it.
    pub fn problem(&mut self, what: &str, hint: &str) {
        self.say(what);
        if !hint.is_empty() {
            self.say(hint);
        }
    }

    /// Says what only the curious want to know.
    pub fn detail(&mut self, line: &str) {
        if self.verbose {
            self.say(line);
        }
    }

    /// Says that the free zone is not mounted, and what to do.
    pub fn not_mounted(&mut self, node: &Path, fault: &MountFault) {
        let node = node.display();
        match fault {
            MountFault::NotAllowed => self.problem(
                &format!("The free zone {node} is not mounted, and this user may not mount it."),
                &format!(
                    "Open it once in the file manager (or: `udisksctl mount -b {node}`), then start the launcher again."
                ),
            ),
            MountFault::NoFileSystem => self.problem(
                &format!("The free zone {node} has no file system that this computer knows."),
                "`partition-tools repair` mends a boot sector. If nothing is to be saved, format it as FAT32; then start again.",
            ),
            MountFault::System(error) => self.problem(
                &format!("The free zone {node} cannot be mounted: {error}."),
                "Plug the device in again; if this stays so, it may be wearing out.",
            ),
        }
    }

    /// Says that there is no free zone.
    pub fn no_free_zone(&mut self) {
        self.problem(
            "The device's free zone was not found: its disk has no partition that could be it.",
            "`partition-tools repair` mends a table. Else make one where it was, formatted as FAT32; then start again.",
        );
    }

    /// Says that the free zone can only be read.
    pub fn write_protected(&mut self) {
        self.problem("The free zone is write-protected.", "Nothing can be repaired on it.");
    }

    /// Says what this user could not reach: aloud where something had to be healed or failed, else to the curious.
    pub fn tell_out_of_reach(&mut self, session: &Session<'_>, lines: impl FnOnce() -> Vec<String>) {
        let calm = |event: &Event| matches!(event, Event::Unusable { source, .. } if *source != Source::Installed);
        let all_is_well = session.report().events().iter().all(calm);
        if self.verbose || !all_is_well {
            lines().iter().for_each(|line| self.say(line));
        }
    }

    /// Says what a session found and did since the last call.
    pub fn tell(&mut self, session: &Session<'_>) {
        let new = &session.report().events()[self.events..];
        self.events += new.len();
        for event in new {
            match event {
                Event::Unusable { source: Source::Installed, fault } => {
                    self.installed_was = Some(*fault);
                    self.detail(&format!("The updater in the free zone {}.", was(fault)));
                }
                Event::Unusable { .. } => self.detail(&format!("Not usable: {event}.")),
                Event::Restored { version, from } => {
                    let from = place(*from);
                    let line = match self.installed_was.take() {
                        Some(fault) => {
                            format!(
                                "The updater in the free zone {}; restored version {version} from {from}.",
                                was(&fault)
                            )
                        }
                        None => format!("Restored updater {version} from {from}."),
                    };
                    self.say(&line);
                }
                Event::NotRestored { version, from, why } => {
                    if let Some(fault) = self.installed_was.take() {
                        self.say(&format!("The updater in the free zone {}.", was(&fault)));
                    }
                    let from = place(*from);
                    self.say(&format!("Version {version} from {from} runs without being installed: {why}."));
                    self.say(match why {
                        crate::restore::RestoreError::Zone(ZoneError::Full) => {
                            "Make room in the free zone, so that it can be restored there."
                        }
                        crate::restore::RestoreError::Zone(ZoneError::ReadOnly) => {
                            "Take off the write protection, so that it can be restored there."
                        }
                        crate::restore::RestoreError::Zone(ZoneError::Denied) => {
                            "Mount the free zone for this user, so that it can be restored there."
                        }
                        crate::restore::RestoreError::NoFreeZone => {
                            "Mount the free zone. Where it has lost its file system: `partition-tools repair` mends a boot \
                             sector; if nothing is to be saved, format it as FAT32."
                        }
                        _ => "If this happens again, the device may be wearing out: copy what you need from it.",
                    });
                }
                Event::Crashed { version, from, crash } => {
                    self.say(&format!(
                        "Updater {version} from {} is sound, but would not start: {crash}.",
                        place(*from)
                    ));
                }
                Event::Recovery { .. } | Event::NoRecord | Event::NotNoted(_) => self.say(&event.to_string()),
            }
        }
    }

    /// Says that nothing is left: where was looked, why each place failed, and how to recover by hand.
    pub fn give_up(&mut self, session: &Session<'_>, virtual_zone: &str, out_of_reach: &[String]) {
        let product = session.product();
        let lacked_room = session.lacked_room() && !session.has_started_any();
        self.say(if session.has_started_any() {
            "No copy of the updater on this device starts."
        } else if lacked_room {
            "This computer has no room to run the updater. This is where the launcher looked:"
        } else {
            "There is no good copy of the updater on this device. This is where the launcher looked:"
        });
        for event in session.report().events() {
            if let Event::Unusable { source, fault } = event {
                self.say(&format!("  {source}: {fault}"));
            }
        }
        for line in out_of_reach {
            self.say(&format!("  {line}"));
        }
        if lacked_room {
            return self.say("Close other programs and start the launcher again, or use another computer.");
        }
        let name = paths::updater_name(product.platform);
        self.say("To recover by hand:");
        self.say(&format!(
            "  1. Get a good {name} for {}: from {virtual_zone}, from another device of the same kind,",
            product.name
        ));
        self.say("     or from whoever gave you this one.");
        self.say(&format!(
            "  2. Copy it into the free zone, beside the folder {}, under that name.",
            paths::CLIENT_DIR
        ));
        self.say("  3. Start the launcher again. Everything else comes back by itself.");
    }

    /// Shows what was said where nobody can have read it: a window where Windows gave no console, and where a
    /// desktop started `autorun.sh`.
    pub fn show(&self) {
        if !self.said.is_empty() {
            platform::show("Holdfast", &self.said.join("\n"));
        }
    }

    /// The report for scripts: the exit status, its word, and what was said.
    pub fn json(&self, exit: Exit) -> String {
        let mut out = format!("{{\"status\":{},\"outcome\":\"{}\",\"messages\":[", exit.status(), exit.word());
        for (i, line) in self.said.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            quote(line, &mut out);
        }
        out.push_str("]}");
        out
    }
}

/// The rest of a sentence about the installed updater.
fn was(fault: &CopyFault) -> String {
    match fault {
        CopyFault::Missing => "was missing".into(),
        CopyFault::OutOfReach => "is out of reach".into(),
        CopyFault::Image(ImageError::BelowFloor(version)) => {
            format!("was version {version}, which is too old to be allowed")
        }
        CopyFault::Image(ImageError::WrongProduct | ImageError::WrongPlatform | ImageError::ForeignKey) => {
            format!("was foreign ({fault})")
        }
        CopyFault::Image(ImageError::Zone(error)) => format!("could not be read ({error})"),
        CopyFault::FailedBefore(version) => format!("was version {version}, which would not start before"),
        CopyFault::NoRoomToRun(error) => format!("could not be loaded to run ({error})"),
        _ => format!("was damaged ({fault})"),
    }
}

fn place(source: Source) -> String {
    match source {
        Source::Installed | Source::Plain => format!("the {source}"),
        Source::Backup(firmware_image::places::Place::Hidden(_)) => source.to_string(),
        Source::Backup(_) => format!("the {source}"),
    }
}

/// A JSON string (RFC 8259, section 7).
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing into a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
