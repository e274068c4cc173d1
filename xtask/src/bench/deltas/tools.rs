//! The peers' programs: looked up, installed if that is asked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bench::trees;
use crate::{run, system};

/// What HDiffPatch is called where Python programs come from, and the version that was measured.
const HDIFFPATCH: &str = "hdiffpatch==2.6.0";
/// The same for bita.
const BITA: (&str, &str) = ("bita", "0.15.0");

/// Debian's packages of the peers, and of what serves and unpacks for them.
const PACKAGES: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("zstd", "zstd"),
    ("bsdiff", "bsdiff"),
    ("xdelta3", "xdelta3"),
    ("casync", "casync"),
    ("zsync", "zsync"),
    ("zck", "zchunk"),
    ("ostree", "ostree"),
    ("borg", "borgbackup"),
    ("restic", "restic"),
];

/// Where programs are looked for.
pub struct Tools {
    dir: PathBuf,
    python: Option<PathBuf>,
}

impl Tools {
    /// What the system has, and what was installed in `dir`.
    pub fn find(dir: &Path) -> Self {
        let own = dir.join("venv/bin/python3");
        let pythons = [Some(own), system::find("python3")].into_iter().flatten().filter(|path| path.is_file());
        let python = pythons.into_iter().find(|python| knows_hdiffpatch(python));
        Self { dir: dir.to_path_buf(), python }
    }

    /// Where a program is.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let built = ["cargo/bin", "hdiffpatch"].map(|place| self.dir.join(place).join(name));
        built.into_iter().find(|path| path.is_file()).or_else(|| system::find(name))
    }

    /// A command that starts a program; one that is not there fails when it is started.
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.program(name).unwrap_or_else(|| name.into()))
    }

    /// A Python that knows HDiffPatch.
    pub fn python(&self) -> Option<&Path> {
        self.python.as_deref()
    }
}

fn knows_hdiffpatch(python: &Path) -> bool {
    let mut import = Command::new(python);
    run::capture(import.args(["-c", "import hdiffpatch"])).is_ok_and(|output| output.status.success())
}

/// Installs every peer that is missing: Debian's packages where that is allowed, the rest into `dir`. What could not be
/// installed is said, and later named as absent.
pub fn install(dir: &Path) {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| system::find(program).is_none()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        if system::may_install() {
            system::install(&missing);
        } else {
            eprintln!("not installed, since this is not Debian or not root: {}", missing.join(", "));
        }
    }
    let tools = Tools::find(dir);
    if tools.python().is_none() {
        report(install_hdiffpatch(dir));
    }
    if tools.program("hdiffz").is_none() || tools.program("hpatchz").is_none() {
        report(build_hdiffpatch(&dir.join("hdiffpatch")));
    }
    if tools.program(BITA.0).is_none() {
        eprintln!("installing {} with cargo", BITA.0);
        let mut cargo = run::cargo();
        cargo.args(["install", "--quiet", "--locked", BITA.0, "--version", BITA.1, "--root"]).arg(dir.join("cargo"));
        report(run::text(&mut cargo).map(drop));
    }
}

fn install_hdiffpatch(dir: &Path) -> Result<()> {
    eprintln!("installing {HDIFFPATCH} with pip");
    let python = system::find("python3").context("python3 is not installed")?;
    let venv = dir.join("venv");
    run::text(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
    run::text(Command::new(venv.join("bin/python3")).args(["-m", "pip", "install", "--quiet", HDIFFPATCH]))?;
    Ok(())
}

/// Its own programs, from the sources that the module is built of: with folders and LZMA2, without what else it can compress with.
fn build_hdiffpatch(dir: &Path) -> Result<()> {
    eprintln!("building {HDIFFPATCH}'s programs");
    let python = system::find("python3").context("python3 is not installed")?;
    let sources = trees::empty(&dir.join("sources"))?;
    let mut download = Command::new(python);
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "hdiffpatch", "--dest"]);
    run::text(download.arg(&sources).arg(HDIFFPATCH))?;
    let archive = trees::walk(&sources)?.pop().context("nothing came")?;
    run::text(Command::new("tar").arg("-xzf").arg(archive).args(["--strip-components=1", "-C"]).arg(&sources))?;
    let built = sources.join("hdiffpatch/_c_src/HDiffPatch");
    let without = ["LDEF", "ZLIB", "BSD", "BZIP2", "VCD", "MD5", "XXH"].map(|part| format!("{part}=0"));
    run::text(Command::new("make").arg("-C").arg(&built).args(without).args(["hdiffz", "hpatchz"]))?;
    for program in ["hdiffz", "hpatchz"] {
        std::fs::rename(built.join(program), dir.join(program))?;
    }
    Ok(std::fs::remove_dir_all(sources)?)
}

fn report(installed: Result<()>) {
    if let Err(error) = installed {
        eprintln!("not installed: {error:#}");
    }
}
