//! Rust's own library for a target: installed beside the compiler, or built from its source with the program.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{run, system};

/// Debian's compiler, its library's source, and the packages that hold them.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Leaves out of a panic everything but the abort: no message, no place, no formatting of one.
const IMMEDIATE_ABORT: [&str; 4] =
    ["-Zunstable-options", "-Cpanic=immediate-abort", "-Zlocation-detail=none", "-Zfmt-debug=none"];

/// Where the library comes from.
pub enum Library {
    /// The compiler that runs by default has it.
    Installed,
    /// This compiler has its source.
    Source {
        /// The compiler.
        rustc: PathBuf,
        /// Whether it can abort immediately.
        immediate_abort: bool,
    },
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => f.write_str("library installed"),
            Self::Source { rustc, .. } => write!(f, "library built from source with {}", rustc.display()),
        }
    }
}

impl Library {
    /// The library for a target; with `small`, its source is taken first.
    ///
    /// # Errors
    /// There is none; says what to install.
    pub fn find(triple: &str, small: bool) -> Result<Self> {
        let installed = || has_library(triple).then_some(Self::Installed);
        let found = if small { Self::source().or_else(installed) } else { installed().or_else(Self::source) };
        if let Some(found) = found {
            return Ok(found);
        }
        if system::may_install() {
            system::install(&DEBIAN_PACKAGES);
            if let Some(found) = Self::source() {
                return Ok(found);
            }
        }
        bail!(
            "neither the Rust target nor the source of Rust's library is here: `rustup target add {triple}`, or `rustup \
             component add rust-src`, or on Debian `apt-get install {}`",
            DEBIAN_PACKAGES.join(" ")
        );
    }

    /// Whether it is built for size.
    pub fn is_small(&self) -> bool {
        matches!(self, Self::Source { immediate_abort: true, .. })
    }

    /// Whether it was built by Rust's own project, with what it links against.
    pub fn is_installed(&self) -> bool {
        matches!(self, Self::Installed)
    }

    /// Has cargo take it, with `std` unless the program is `bare`; returns the compiler's flags for that.
    pub fn prepare(&self, cargo: &mut Command, small: bool, bare: bool) -> Vec<String> {
        let Self::Source { rustc, immediate_abort } = self else { return Vec::new() };
        cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        if bare {
            // What else a C library would bring: copying and comparing memory.
            cargo.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=optimize_for_size,compiler-builtins-mem"]);
        } else {
            // A feature named here takes the place of those that unwind: every program of a device aborts.
            cargo.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"]);
        }
        // One function an object: the linker for Windows leaves out whole objects only.
        cargo.args(["--config", "profile.launcher.package.compiler_builtins.codegen-units=10000"]);
        if small && *immediate_abort { IMMEDIATE_ABORT.map(str::to_owned).to_vec() } else { Vec::new() }
    }

    /// Has cargo take its core only.
    pub fn prepare_core(&self, cargo: &mut Command) {
        if let Self::Source { rustc, .. } = self {
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
        }
    }

    fn source() -> Option<Self> {
        let default = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let rustc = [default, DEBIAN_RUSTC.into()].into_iter().find(|rustc| {
            let sysroot = run::text(Command::new(rustc).args(["--print", "sysroot"])).unwrap_or_default();
            let library = PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust/library");
            !sysroot.is_empty() && library.join("std/src/lib.rs").is_file()
        })?;
        let mut ask = Command::new(&rustc);
        ask.env("RUSTC_BOOTSTRAP", "1").args(IMMEDIATE_ABORT).args(["--print", "cfg"]);
        let immediate_abort = run::text(&mut ask).is_ok();
        Some(Self::Source { rustc, immediate_abort })
    }
}

/// Whether the compiler that runs by default has a target's library.
fn has_library(triple: &str) -> bool {
    let mut ask = run::rustc();
    ask.args(["--print", "target-libdir", "--target", triple]);
    let dir = run::text(&mut ask).unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(dir.trim()) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}
