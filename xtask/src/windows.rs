//! The tests that run the programs of Windows under Wine.

use std::path::Path;

use anyhow::Result;

use crate::figures::Figures;
use crate::{run, system};

/// Where Debian's package has Wine; nothing in the path leads there.
pub const WINE: &str = "/usr/lib/wine/wine64";
const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// Runs them with the programs in `dist`. What is missing for that is named, and they are left out.
///
/// # Errors
/// A test fails.
pub fn test(dist: &Path, figures: &Figures) -> Result<()> {
    let skip = |what: &str, package: &str| {
        figures.skip("launcher and updater for Windows, under Wine", &format!("{what} is missing ({package})"))
    };
    if system::find(COMPILER).is_none() {
        return skip(COMPILER, "Debian package gcc-mingw-w64-x86-64-win32");
    }
    let programs = ["bootstrap-windows-x86_64.exe", "updater-windows-x86_64.exe"].map(|name| dist.join(name));
    let made_by = "cargo xtask cross x86_64-pc-windows-gnu";
    if !Path::new(WINE).exists() {
        return skip(WINE, "Debian package wine64");
    }
    if let Some(program) = programs.iter().find(|program| !program.exists()) {
        return skip(&program.display().to_string(), made_by);
    }
    let mut cargo = run::cargo();
    cargo.args(["test", "--quiet", "--package", "bootstrap", "--package", "updater", "--test", "windows"]);
    run::show(cargo.env("HOLDFAST_WINDOWS_PROGRAMS", dist).env("HOLDFAST_WINDOWS", "required"))
}
