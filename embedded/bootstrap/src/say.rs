//! What the bootstrap says over semihosting, without the formatting machinery: that would take 6 kB of its flash.

use bootstrap_core::device::{CopyFault, Source};
use cortex_m_semihosting::hio::{self, HostStream};
use firmware_image::hidden::SlotName;
use firmware_image::places::Place;
use firmware_image::slot::SlotError;
use firmware_image::updater_image::{ImageError, UpdaterVersion};

/// A line.
pub struct Line(Option<HostStream>);

impl Line {
    /// Begins one.
    pub fn begin(text: &str) -> Self {
        Self(hio::hstdout().ok()).text("bootstrap: ").text(text)
    }

    /// Goes on with a text.
    pub fn text(mut self, text: &str) -> Self {
        if let Some(stream) = &mut self.0 {
            // A host that does not listen changes nothing here.
            let _ = stream.write_all(text.as_bytes());
        }
        self
    }

    /// Goes on with a number.
    pub fn number(self, number: usize) -> Self {
        let mut digits = [0; 10];
        let mut at = digits.len();
        let mut rest = number as u32;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 || at == 0 {
                break;
            }
        }
        self.text(core::str::from_utf8(&digits[at..]).unwrap_or_default())
    }

    /// Goes on with a version.
    pub fn version(self, version: UpdaterVersion) -> Self {
        let UpdaterVersion { major, minor, patch } = version;
        self.number(major.into()).text(".").number(minor.into()).text(".").number(patch.into())
    }

    /// Ends it.
    pub fn end(self) {
        self.text("\n");
    }
}

/// The name of a place.
pub fn place(source: Source) -> &'static str {
    match source {
        Source::Installed => "application",
        Source::Backup(Place::Hidden(SlotName::BackupA)) => "backup A",
        Source::Backup(Place::Hidden(SlotName::BackupB)) => "backup B",
        Source::Plain => "factory copy",
        Source::Backup(_) => "elsewhere",
    }
}

/// What is wrong with it.
pub fn fault(fault: CopyFault) -> &'static str {
    match fault {
        CopyFault::Missing | CopyFault::OutOfReach => "missing",
        CopyFault::Slot(SlotError::Locked(_)) => "locked",
        CopyFault::Slot(_) => "does not open",
        CopyFault::Image(ImageError::BelowFloor(_)) => "too old",
        CopyFault::Image(ImageError::Zone(_)) => "cannot be read or written",
        CopyFault::Image(ImageError::ForeignKey | ImageError::BadSignature) => "not the vendor's",
        CopyFault::Image(_) => "damaged",
        _ => "of no use",
    }
}
