//! Programs for ARM64 on another processor: `qemu-aarch64`, and the kernel told to start them with it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, system};

/// The emulator of Debian's package `qemu-user`.
pub const QEMU: &str = "qemu-aarch64";
/// Where the kernel is told (Documentation/admin-guide/binfmt-misc.rst).
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// Our entry.
const NAME: &str = "holdfast-aarch64";
/// The first 20 bytes of a 64-bit little-endian ELF program for AArch64, and which of their bits count.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// Finds the emulator, or installs it.
///
/// # Errors
/// It is not here.
pub fn find() -> Result<std::path::PathBuf> {
    if system::find(QEMU).is_none() && system::may_install() {
        system::install(&["qemu-user"]);
    }
    system::find(QEMU).with_context(|| format!("{QEMU} is missing (Debian package qemu-user)"))
}

/// As long as this lives, the kernel starts programs for ARM64 as if they were its own.
pub struct Registered {
    ours: bool,
}

impl Registered {
    /// Tells the kernel, unless it knows.
    ///
    /// # Errors
    /// Only root may, and not in every container.
    pub fn new(emulator: &Path) -> Result<Self> {
        if knows_arm()? {
            return Ok(Self { ours: false });
        }
        if !Path::new(BINFMT).join("register").exists() {
            run::text(Command::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", BINFMT]))?;
        }
        if knows_arm()? {
            return Ok(Self { ours: false });
        }
        // O: the emulator gets the program as an open file, so that one without a name runs. F: opened now, once.
        let entry = format!(":{NAME}:M::{MAGIC}:{MASK}:{}:OF", emulator.display());
        fs::write(Path::new(BINFMT).join("register"), entry).context("the kernel takes no other program format")?;
        if !knows_arm()? {
            bail!("the kernel did not keep the program format");
        }
        Ok(Self { ours: true })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.ours {
            // What stays if this fails is an entry that runs programs for ARM64.
            let _ = fs::write(Path::new(BINFMT).join(NAME), "-1");
        }
    }
}

/// Whether an entry of the kernel's is for our programs.
fn knows_arm() -> Result<bool> {
    let Ok(entries) = fs::read_dir(BINFMT) else { return Ok(false) };
    for entry in entries {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if text.contains("enabled") && text.contains("magic 7f454c46") && text.contains("0200b700") {
            return Ok(true);
        }
    }
    Ok(false)
}
