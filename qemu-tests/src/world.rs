//! What every test starts from: the programs as they ship, a vendor's keys, and a store with two releases. Made once,
//! kept by the digest of the programs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use firmware_image::paths::{self, THIS_PLATFORM};
use sha2::{Digest as _, Sha256};
use xtask::programs::{Profile, Programs};
use xtask::run;

/// The product's name.
pub const PRODUCT: &str = "Field Handbook";
/// What opens the keys.
pub const PASSPHRASE: &str = "correct horse battery staple";
/// The release that devices leave the factory with, and its updater.
pub const OLD: &str = "1.0.0";
/// The release that comes later, with another updater.
pub const NEW: &str = "1.1.0";
/// The updaters' versions.
pub const UPDATERS: [&str; 2] = ["0.1.0", "0.2.0"];
/// A release after those, whose updater leaves the older ones behind: they are below its floor. Its client is that of [`NEW`].
pub const FLOOR: &str = "1.2.0";
/// The version of its updater, and the floor.
pub const FLOOR_UPDATER: &str = "0.3.0";
/// The version of [`Special`] updaters: newer than all others.
pub const SPECIAL_UPDATER: &str = "0.9.0";
/// Raise this when what is made here changes.
const EDITION: &str = "2";

/// Signed updaters that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A sound one of another vendor.
    Foreign,
    /// The vendor's own, which ends in a fault before it is ready.
    Crashing,
    /// The vendor's own, which never gets ready.
    Silent,
    /// The vendor's own, of which no system can run the program.
    NoProgram,
}

impl Special {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Foreign, Self::Crashing, Self::Silent, Self::NoProgram];

    fn word(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Crashing => "crashing",
            Self::Silent => "silent",
            Self::NoProgram => "no-program",
        }
    }

    /// What is signed; `None`: a real updater.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Foreign => None,
            Self::Crashing => Some("#!/bin/sh\nkill -SEGV $$\nexit\n"),
            Self::Silent => Some("#!/bin/sh\nexec sleep 600\n"),
            Self::NoProgram => Some("\x7fneither of this system nor of another\n"),
        }
    }
}

/// Programs, keys and stores; never written to after it was made.
pub struct World {
    dir: PathBuf,
    /// The programs, as small as a factory would ship them.
    pub programs: Programs,
}

impl World {
    /// The world of these programs.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(|| Self::open().unwrap_or_else(|error| panic!("keys and store for a test: {error:#}")))
    }

    fn open() -> Result<Self> {
        let cache = crate::cache_directory()?;
        // Test runners start a process per test: one makes it, the others wait.
        let lock = File::create(cache.join("world.lock"))?;
        lock.lock()?;
        let built = build(&cache)?;
        let mut digest = Sha256::new();
        digest.update(EDITION);
        for program in built.all() {
            digest.update(fs::read(program)?);
        }
        let key = hex::encode(&digest.finalize()[..16]);
        let dir = cache.join(format!("world-{key}"));
        if !dir.exists() {
            for entry in fs::read_dir(&cache)?.flatten() {
                if entry.file_name().to_string_lossy().starts_with("world-") {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            let beside = cache.join("world-unfinished");
            make(&built, &beside).context("keys and store")?;
            fs::rename(&beside, &dir)?;
        }
        let programs = Programs::built_in(&dir.join("bin"));
        Ok(Self { dir, programs })
    }

    /// The vendor's keys.
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// A store that holds the first release, or both.
    pub fn store(&self, newest: &str) -> PathBuf {
        self.dir.join(format!("store-{newest}"))
    }

    /// The files of a release as the vendor has them.
    pub fn tree(&self, version: &str) -> PathBuf {
        let version = if version == FLOOR { NEW } else { version };
        self.dir.join(format!("tree-{version}"))
    }

    /// A signed updater that is not what it should be.
    pub fn special(&self, special: Special) -> PathBuf {
        self.dir.join(format!("updater-{}", special.word()))
    }

    /// A command of the project, with the passphrase in its environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("HOLDFAST_PASSPHRASE", PASSPHRASE).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs `partition-tools`; what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn partition_tools(&self, arguments: &[&str]) -> String {
        run::text(self.command(&self.programs.partition_tools).args(arguments))
            .unwrap_or_else(|error| panic!("{error:#}"))
    }
}

/// The programs that somebody has built already (`HOLDFAST_PROGRAMS`, a directory), or builds them; without what only a
/// debugger reads.
fn build(cache: &Path) -> Result<Programs> {
    let programs = match std::env::var_os("HOLDFAST_PROGRAMS") {
        Some(dir) => Programs::built_in(Path::new(&dir)),
        None => Programs::build(Profile::Dev, &cache.join("programs"), None)?,
    };
    let stripped = Programs::built_in(&cache.join("stripped"));
    fs::create_dir_all(cache.join("stripped"))?;
    for (program, to) in programs.all().into_iter().zip(stripped.all()) {
        run::text(Command::new("strip").arg(program).arg("-o").arg(to)).context("strip (Debian package binutils)")?;
    }
    Ok(stripped)
}

fn make(built: &Programs, dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    let programs = Programs::built_in(&dir.join("bin"));
    fs::create_dir_all(dir.join("bin"))?;
    for (program, to) in built.all().into_iter().zip(programs.all()) {
        fs::copy(program, to)?;
    }
    for version in [OLD, NEW] {
        tree(&dir.join(format!("tree-{version}")), version)?;
    }
    let tool = |arguments: &[&str]| {
        let mut tool = Command::new(&programs.release_store);
        tool.env("HOLDFAST_PASSPHRASE", PASSPHRASE).env_remove("SOURCE_DATE_EPOCH").current_dir(dir).args(arguments);
        run::text(&mut tool)
    };
    let updater = format!("{THIS_PLATFORM}={}", programs.updater.display());
    let old_store = format!("store-{OLD}");
    let new_store = format!("store-{NEW}");
    tool(&["init", &old_store, "--product", PRODUCT, "--keys", "keys"])?;
    let publish = |store: &str, version: &str, updater_version: &str| {
        let tree = format!("tree-{version}");
        tool(&[
            "publish",
            store,
            &tree,
            "--keys",
            "keys",
            "--release-version",
            version,
            "--updater",
            &updater,
            "--updater-version",
            updater_version,
            "--level",
            "3",
        ])
    };
    publish(&old_store, OLD, UPDATERS[0])?;
    copy_tree(&dir.join(&old_store), &dir.join(&new_store))?;
    publish(&new_store, NEW, UPDATERS[1])?;
    let floor_store = format!("store-{FLOOR}");
    copy_tree(&dir.join(&new_store), &dir.join(&floor_store))?;
    tool(&[
        "publish",
        &floor_store,
        &format!("tree-{NEW}"),
        "--keys",
        "keys",
        "--release-version",
        FLOOR,
        "--updater",
        &updater,
        "--updater-version",
        FLOOR_UPDATER,
        "--updater-floor",
        FLOOR_UPDATER,
        "--level",
        "3",
    ])?;
    tool(&["init", "store-foreign", "--product", PRODUCT, "--keys", "keys-foreign"])?;
    for special in Special::ALL {
        let keys = if special == Special::Foreign { "keys-foreign" } else { "keys" };
        let program = match special.program() {
            None => programs.updater.clone(),
            Some(start) => {
                let program = dir.join("program");
                // With a place for the vendor's key, as every program has one.
                fs::write(
                    &program,
                    [start.as_bytes(), b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a", &[0; 32]].concat(),
                )?;
                program
            }
        };
        let image = signed(&programs, dir, keys, &program)?;
        fs::write(dir.join(format!("updater-{}", special.word())), image)?;
    }
    Ok(())
}

/// A program as the updater of a device: what the factory's tool makes of it.
fn signed(programs: &Programs, dir: &Path, keys: &str, program: &Path) -> Result<Vec<u8>> {
    let tool = || {
        let mut tool = Command::new(&programs.partition_tools);
        tool.env("HOLDFAST_PASSPHRASE", PASSPHRASE).env_remove("SOURCE_DATE_EPOCH").current_dir(dir);
        tool
    };
    let updater = format!("{THIS_PLATFORM}={}", program.display());
    let mut create = tool();
    create.args(["create", "--profile", "stick", "--out", "signed.img", "--force", "--size", "128MiB"]);
    create.args(["--keys", keys, "--product", PRODUCT]);
    create.args(["--updater", &updater, "--updater-version", SPECIAL_UPDATER]);
    run::text(&mut create)?;
    let output = run::capture(tool().args(["virtual", "cat", "signed.img", &paths::updater_name(THIS_PLATFORM)]))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(dir.join("signed.img"))?;
    Ok(output.stdout)
}

/// A client: a program that says its version, texts and tables of which the releases share most, and some that come and go.
fn tree(dir: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(dir.join("pages/deep"))?;
    let script = format!("#!/bin/sh\necho \"CLIENT {version} says hello\"\n[ -z \"$1\" ] || sleep \"$1\"\n");
    fs::write(dir.join("run.sh"), script)?;
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o755))?;
    }
    fs::write(dir.join("VERSION"), format!("{version}\n"))?;
    for page in 0..20u64 {
        let edition = if page % 5 == 0 { version } else { "both" };
        let mut text = format!("Page {page}, {edition}\n");
        for line in noise(page, 400) {
            text += &format!("{line:016x} is written here, and stays so.\n");
        }
        fs::write(dir.join(format!("pages/{page:02}.txt")), text)?;
    }
    fs::write(dir.join("pages/deep/Größe.txt"), "grün\n")?;
    fs::write(dir.join("pages/empty"), "")?;
    let table = |seed, count| noise(seed, count).into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    let mut large = table(77, 40_000);
    if version == NEW {
        large.splice(100_000..100_000, table(78, 4_000));
        fs::write(dir.join("pages/new.txt"), "came with the new release\n")?;
    } else {
        fs::write(dir.join("pages/old.txt"), "goes with the old release\n")?;
    }
    fs::write(dir.join("tables.bin"), large)?;
    Ok(())
}

/// Numbers without a pattern, the same ones each time (xorshift).
pub fn noise(seed: u64, count: usize) -> Vec<u64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        })
        .collect()
}

/// Copies a directory with all that is in it.
///
/// # Errors
/// What the system reports.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
