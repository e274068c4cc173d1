//! The targets, and what each wants of the system.

use std::path::Path;

use anyhow::{Result, bail};

use super::Program;
use super::library::Library;
use super::musl;
use crate::system;

/// A target.
pub struct Target {
    /// As Rust calls it.
    pub triple: &'static str,
    /// As the formats call it; `None`: a microcontroller, for which libraries are built.
    pub platform: Option<&'static str>,
    /// What is built for it.
    pub programs: &'static [Program],
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        triple: "x86_64-unknown-linux-musl",
        platform: Some("linux-x86_64"),
        programs: &[Program::Launcher, Program::Updater],
    },
    Target {
        triple: "aarch64-unknown-linux-musl",
        platform: Some("linux-aarch64"),
        programs: &[Program::Launcher, Program::Updater],
    },
    Target {
        triple: "x86_64-pc-windows-gnu",
        platform: Some("windows-x86_64"),
        programs: &[Program::Launcher, Program::Updater],
    },
    Target { triple: "thumbv7em-none-eabihf", platform: None, programs: &[] },
];

/// Crates that have code for one size and code for speed: what a launcher does with them is short.
const COMPACT: [&str; 3] =
    ["sha2_backend_soft=\"compact\"", "aes_backend_soft=\"compact\"", "sha2_512_backend=\"soft\""];

/// Linker and C compiler.
#[derive(Default)]
pub struct Tools {
    flags: Vec<String>,
    /// Flags only where the library is not the installed one, which brings its own C library.
    flags_from_source: Vec<String>,
    /// Flags in the place of those, for a program that needs neither the standard library nor a C library.
    flags_of_bare: Option<Vec<String>>,
    /// For build scripts.
    pub env: Vec<(String, String)>,
}

impl Target {
    /// The target of this name.
    pub fn find(triple: &str) -> Result<&'static Self, String> {
        let names = || TARGETS.iter().map(|target| target.triple).collect::<Vec<_>>().join(", ");
        TARGETS.iter().find(|target| target.triple == triple).ok_or_else(|| format!("there are {}", names()))
    }

    /// Finds linker and C compiler, or installs them.
    pub fn tools(&self, work: &Path) -> Result<Tools> {
        let mut tools = Tools::default();
        let arch = self.triple.split('-').next().unwrap_or_default();
        if self.triple.ends_with("-linux-musl") {
            let gcc = if arch == std::env::consts::ARCH { "gcc".to_owned() } else { format!("{arch}-linux-gnu-gcc") };
            let package = if gcc == "gcc" { gcc.clone() } else { format!("gcc-{}-linux-gnu", arch.replace('_', "-")) };
            program(&gcc, &package)?;
            let specs = musl::specs(arch, work)?;
            let specs = format!("-specs={}", specs.display());
            tools.c_compiler(self.triple, &gcc, &specs);
            // The installed library brings musl and the files that a program starts with.
            let always = [
                format!("-Clinker={gcc}"),
                "-Clink-self-contained=no".into(),
                // musl's specs know no position-independent static programs.
                "-Crelocation-model=static".into(),
                "-Cforce-unwind-tables=no".into(),
                "-Clink-arg=-Wl,--no-eh-frame-hdr,-z,norelro,-z,noseparate-code,--build-id=none".into(),
            ];
            tools.flags_from_source = always.to_vec();
            tools.flags_from_source.extend([
                format!("-Clink-arg={specs}"),
                format!("-Lnative={}", musl::no_unwinding(&gcc, arch, work)?.display()),
            ]);
            tools.flags_of_bare = Some([&always[..], &["-Clink-arg=-nostdlib".into()]].concat());
        }
        if self.triple == "x86_64-pc-windows-gnu" {
            let gcc = "x86_64-w64-mingw32-gcc";
            program(gcc, "gcc-mingw-w64-x86-64-win32")?;
            tools.flags = vec![format!("-Clinker={gcc}")];
            tools.c_compiler(self.triple, gcc, "");
        }
        Ok(tools)
    }
}

impl Tools {
    /// Whether a program for this target can be built without the standard library, with a library that is small.
    pub fn has_bare(&self, library: &Library) -> bool {
        library.is_small() && self.flags_of_bare.is_some()
    }

    /// The compiler's flags.
    pub fn flags(&self, library: &Library, small: bool) -> Vec<String> {
        let mut flags = self.flags.clone();
        match (&self.flags_of_bare, library.is_installed()) {
            (_, true) if self.flags.is_empty() => flags.push("-Clinker=rust-lld".into()),
            (_, true) => {}
            (Some(bare), false) if small && library.is_small() => flags.extend(bare.iter().cloned()),
            (_, false) => flags.extend(self.flags_from_source.iter().cloned()),
        }
        if small {
            flags.extend(COMPACT.iter().map(|cfg| format!("--cfg={cfg}")));
        }
        flags
    }

    fn c_compiler(&mut self, triple: &str, gcc: &str, flags: &str) {
        let triple = triple.replace('-', "_");
        self.env.push((format!("CC_{triple}"), gcc.into()));
        self.env.push((format!("CFLAGS_{triple}"), flags.into()));
    }
}

/// Finds a program, or has it installed.
fn program(name: &str, package: &str) -> Result<()> {
    if system::find(name).is_none() && system::may_install() {
        system::install(&[package]);
    }
    if system::find(name).is_none() {
        bail!("{name} is missing (Debian package {package})");
    }
    Ok(())
}
