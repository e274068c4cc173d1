//! A copy of the workspace, whose files are changed and put back, and whose tests are run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use firmware_image::sim::figures;

use super::{CRATES, Cut, Test};
use crate::run;

/// Memory that a compiler or a test may have, in KiB: what a limit held would take all there is.
const MAX_KIB: u32 = 6 << 20;

/// How long a test may run, in seconds. One that hangs has not failed: what it waits for has an end of its own.
const MAX_SECONDS: u32 = 240;

/// How long a build may take, in seconds: the first one builds everything.
const MAX_BUILD_SECONDS: u32 = 3600;

/// What stands before the place at which a test failed; the reason is in the next line.
const PANICKED: &str = " panicked at ";

/// As many characters of the reason are told.
const MAX_SAID: usize = 100;

/// How a test ended.
pub enum Ended {
    /// It passed.
    Passed,
    /// It ran and failed; where, and what it said.
    Failed(String),
    /// It was stopped.
    TookTooLong,
    /// It ended in another way, for want of memory perhaps: that shows nothing.
    BrokeOff,
    /// It could not be built; what the compiler said.
    NotBuilt(String),
    /// There is no test of that name.
    NotThere,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("it passes"),
            Self::Failed(said) => write!(f, "it fails{said}"),
            Self::TookTooLong => write!(f, "it takes longer than {MAX_SECONDS} s"),
            Self::BrokeOff => f.write_str("it is ended by the system, or ends itself, without a verdict"),
            Self::NotBuilt(said) => write!(f, "it does not compile\n{said}"),
            Self::NotThere => f.write_str("it is not there"),
        }
    }
}

/// The copy.
pub struct Scratch {
    dir: PathBuf,
    /// Held as long as it is used.
    _lock: File,
}

/// Files that were changed, as they were.
pub struct TakenOut {
    files: BTreeMap<PathBuf, String>,
}

impl TakenOut {
    /// Puts them back.
    pub fn put_back(self) -> Result<()> {
        for (file, text) in self.files {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}

impl Scratch {
    /// The copy in `dir`, made like the workspace as it stands, changes that are not committed included.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!("another run works in {}", dir.display());
        }
        let root = run::root();
        let mut git = Command::new("git");
        git.current_dir(&root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = run::text(&mut git).context("which files are the workspace's, git says")?;
        let files = listed.split_terminator('\0').map(PathBuf::from).filter(|file| root.join(file).is_file());
        same(&root, &dir.join("workspace"), files.collect())?;
        for (name, from) in sources()? {
            let mut files = BTreeSet::new();
            list(&from, &from, &mut files)?;
            same(&from, &dir.join("crates").join(name), files)?;
        }
        Ok(Self { dir: dir.to_path_buf(), _lock: lock })
    }

    /// Takes texts out.
    pub fn take_out(&self, cuts: &[Cut]) -> Result<TakenOut> {
        let mut changed: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut before = BTreeMap::new();
        for Cut(name, text, left) in cuts {
            let first = Path::new(name).components().next();
            let is_crate = CRATES.iter().any(|theirs| first == Some(Component::Normal(theirs.as_ref())));
            let file = self.dir.join(if is_crate { "crates" } else { "workspace" }).join(name);
            if !changed.contains_key(&file) {
                let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                changed.insert(file.clone(), text.clone());
                before.insert(file.clone(), text);
            }
            let whole = changed.entry(file).or_default();
            if whole.matches(text).count() != 1 {
                bail!("{name} does not have this once:\n{text}");
            }
            *whole = whole.replacen(text, left, 1);
        }
        for (file, text) in changed {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(TakenOut { files: before })
    }

    /// Builds a test and runs it.
    pub fn try_test(&self, test: &Test) -> Result<Ended> {
        let built = run::capture(self.cargo(&test.program()?, MAX_BUILD_SECONDS).arg("--no-run"))?;
        if !built.status.success() {
            return Ok(Ended::NotBuilt(String::from_utf8_lossy(&built.stderr).trim_end().to_owned()));
        }
        let ran = run::capture(self.cargo(&test.program()?, MAX_SECONDS).args(["--", "--exact"]).arg(test.path()))?;
        let said = String::from_utf8_lossy(&ran.stdout);
        Ok(match ran.status.code() {
            Some(0) if said.contains("1 passed") => Ended::Passed,
            Some(0) => Ended::NotThere,
            // So says `timeout`, the second where it had to kill.
            Some(124 | 137) => Ended::TookTooLong,
            Some(101) if said.contains("1 failed") => Ended::Failed(reason(&said)),
            _ => Ended::BrokeOff,
        })
    }

    /// `cargo test` in the copy, with limits.
    fn cargo(&self, options: &[String], seconds: u32) -> Command {
        let mut cargo = Command::new("sh");
        let limits = format!("ulimit -v {MAX_KIB} && exec timeout -k 5 {seconds} \"$@\"");
        cargo.args(["-c", &limits, "sh"]).arg(run::cargo().get_program()).args(["test", "--quiet"]).args(options);
        for name in CRATES {
            let place = self.dir.join("crates").join(name);
            cargo.arg("--config").arg(format!("patch.crates-io.{name}.path='{}'", place.display()));
        }
        cargo.current_dir(self.dir.join("workspace")).env("CARGO_TARGET_DIR", self.dir.join("target"));
        // Each is built once: what is for debuggers, nobody reads.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("HOLDFAST_FULL").env_remove(figures::FILE);
        cargo
    }
}

/// Where a test failed, and the first line of what it said.
fn reason(said: &str) -> String {
    let mut lines = said.lines().skip_while(|line| !line.contains(PANICKED));
    let Some((_, place)) = lines.next().and_then(|line| line.split_once(PANICKED)) else { return String::new() };
    let why: String = lines.next().unwrap_or_default().trim().chars().take(MAX_SAID).collect();
    format!(" at {place} {why}")
}

/// Where cargo keeps the sources of the crates of others.
///
/// # Errors
/// Cargo does not know one of them.
pub fn sources() -> Result<Vec<(&'static str, PathBuf)>> {
    let metadata =
        run::text(run::cargo().args(["metadata", "--format-version", "1", "--filter-platform", &run::host()?]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo lists no packages")?;
    let source = |name: &&'static str| {
        let package = packages.iter().find(|package| package["name"] == **name);
        let manifest = package.and_then(|package| package["manifest_path"].as_str());
        let dir = manifest.and_then(|manifest| Path::new(manifest).parent());
        Ok((*name, dir.with_context(|| format!("cargo has no sources of {name}"))?.to_path_buf()))
    };
    CRATES.iter().map(source).collect()
}

/// Makes the directory `to` have these files of `from`, and no others. What is the same already is not written, so that it is not
/// built again.
fn same(from: &Path, to: &Path, files: BTreeSet<PathBuf>) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut there = BTreeSet::new();
    list(to, to, &mut there)?;
    for old in there.difference(&files) {
        fs::remove_file(to.join(old))?;
    }
    for file in &files {
        let (source, copy) = (from.join(file), to.join(file));
        let bytes = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        if fs::read(&copy).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&copy, bytes).with_context(|| format!("cannot write {}", copy.display()))?;
        fs::set_permissions(&copy, fs::metadata(&source)?.permissions())?;
    }
    Ok(())
}

/// Adds the files below `dir`, from `root` on.
fn list(root: &Path, dir: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, files)?;
        } else {
            files.insert(path.strip_prefix(root)?.to_path_buf());
        }
    }
    Ok(())
}
