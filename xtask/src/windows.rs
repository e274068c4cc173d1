//! The tests that run the programs of Windows under Wine.

use std::path::Path;

use anyhow::Result;

use crate::{run, system};

/// Where Debian's package has Wine; nothing in the path leads there.
pub const WINE: &str = "/usr/lib/wine/wine64";
const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// Runs them with the programs in `dist`. What is missing for that is named, and they are left out.
///
/// # Errors
/// A test fails.
pub fn test(dist: &Path) -> Result<()> {
    let has = |path: &Path, package: &str| {
        let found = path.exists();
        if !found {
            eprintln!("{} is missing ({package}): skipped", path.display());
        }
        found
    };
    if system::find(COMPILER).is_none() {
        eprintln!("{COMPILER} is missing (Debian package gcc-mingw-w64-x86-64-win32): skipped");
        return Ok(());
    }
    let programs = ["bootstrap-windows-x86_64.exe", "updater-windows-x86_64.exe"].map(|name| dist.join(name));
    let made_by = "cargo xtask cross x86_64-pc-windows-gnu";
    if !has(Path::new(WINE), "Debian package wine64") || !programs.iter().all(|program| has(program, made_by)) {
        return Ok(());
    }
    let mut cargo = run::cargo();
    cargo.args(["test", "--quiet", "--package", "bootstrap", "--package", "updater", "--test", "windows"]);
    run::show(cargo.env("HOLDFAST_WINDOWS_PROGRAMS", dist).env("HOLDFAST_WINDOWS", "required"))
}
