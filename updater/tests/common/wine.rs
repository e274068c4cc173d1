//! The real programs of Windows, run by Wine. It shows that their logic holds; what only Windows itself can show is listed in
//! `docs/windows.md`.
//!
//! `HOLDFAST_WINDOWS_PROGRAMS` names a directory with the launcher and the updater, as `cargo xtask cross` makes it.
//! Where that, Wine or a C compiler for Windows is missing, a test says so and is over, unless `HOLDFAST_WINDOWS=required`.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use firmware_image::sim::figures;

/// The platform that the programs are for.
pub const WINDOWS: &str = "windows-x86_64";

/// The programs under test.
pub const LAUNCHER: &str = "bootstrap-windows-x86_64.exe";
pub const UPDATER: &str = "updater-windows-x86_64.exe";

const WINE: &str = "/usr/lib/wine/wine64";
const COMPILER: &str = "x86_64-w64-mingw32-gcc";
/// Newer than Wine 8, and what Rust's standard library takes randomness from.
const PRNG: &str = r"
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length) {
    return length <= 0x10000000 && SystemFunction036(data, (ULONG)length);
}
";

/// Wine with a prefix of its own.
pub struct Wine {
    prefix: PathBuf,
    programs: PathBuf,
    place: PathBuf,
}

/// Wine, if everything is there. `place` is the tests' own directory, kept between runs.
pub fn wine(place: &str) -> Option<&'static Wine> {
    static ONCE: OnceLock<Result<Wine, String>> = OnceLock::new();
    match ONCE.get_or_init(|| Wine::set_up(Path::new(place))) {
        Ok(wine) => Some(wine),
        Err(missing) => {
            let wanted = std::env::var("HOLDFAST_WINDOWS").unwrap_or_default();
            assert!(wanted != "required", "{missing}");
            // Whoever runs the tests once more when the programs are built says what is missing then.
            if wanted != "later" {
                figures::skipped(missing);
            }
            None
        }
    }
}

impl Wine {
    fn set_up(place: &Path) -> Result<Self, String> {
        let programs = std::env::var_os("HOLDFAST_WINDOWS_PROGRAMS").map(PathBuf::from);
        let programs = programs.ok_or("HOLDFAST_WINDOWS_PROGRAMS names no directory with programs for Windows")?;
        for name in [LAUNCHER, UPDATER] {
            if !programs.join(name).is_file() {
                return Err(format!("{} is missing", programs.join(name).display()));
            }
        }
        if !Path::new(WINE).is_file() {
            return Err(format!("{WINE} is missing (Debian: wine64)"));
        }
        let compiler = Command::new(COMPILER).arg("--version").stdout(Stdio::null()).status();
        if !compiler.is_ok_and(|status| status.success()) {
            return Err(format!("{COMPILER} is missing (Debian: gcc-mingw-w64-x86-64-win32)"));
        }
        let wine = Self { prefix: place.join("wine"), programs, place: place.to_owned() };
        wine.make_prefix().map_err(|error| format!("Wine has no prefix: {error}"))?;
        Ok(wine)
    }

    fn make_prefix(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.place)?;
        let lock = File::create(self.place.join("wine.lock"))?;
        lock.lock()?;
        let done = self.place.join("wine.done");
        if done.exists() {
            return Ok(());
        }
        self.run(WINE).args(["wineboot", "-i"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        self.compile(PRNG, &["-shared"], &self.system32().join("bcryptprimitives.dll"), &["-ladvapi32"]);
        fs::write(done, [])
    }

    fn system32(&self) -> PathBuf {
        self.prefix.join("drive_c/windows/system32")
    }

    /// Compiles a C program or library for Windows.
    pub fn compile(&self, text: &str, flags: &[&str], to: &Path, libraries: &[&str]) {
        let source = to.with_extension("c");
        fs::write(&source, text).unwrap();
        let mut compiler = Command::new(COMPILER);
        compiler.args(["-O1", "-s"]).args(flags).arg("-o").arg(to).arg(&source).args(libraries);
        assert!(compiler.status().unwrap().success());
        fs::remove_file(source).unwrap();
    }

    /// A directory of the tests' own, kept between runs.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The program under test.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A command that runs a program of Windows.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.run(WINE);
        command.arg(program).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("WINEPREFIX", &self.prefix).env("WINEARCH", "win64").env("WINEDEBUG", "-all");
        // No questions, no menus, no debugger, no display.
        command.env("WINEDLLOVERRIDES", "mscoree=;mshtml=;winemenubuilder.exe=d;winedbg.exe=d").env_remove("DISPLAY");
        command
    }

    /// What the programs left in this user's temporary directory, and in the next one that they take.
    pub fn left_behind(&self) -> Vec<PathBuf> {
        let users = fs::read_dir(self.prefix.join("drive_c/users")).unwrap().flatten();
        let places = users.flat_map(|user| ["Temp", "AppData/Local"].map(|place| user.path().join(place)));
        let entries = places.filter_map(|path| fs::read_dir(path).ok()).flatten().flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("holdfast-")))
            .collect()
    }
}

/// A path of this system as Wine's programs see it.
pub fn there(path: &Path) -> String {
    format!("Z:{}", path.to_str().unwrap().replace('/', "\\"))
}
