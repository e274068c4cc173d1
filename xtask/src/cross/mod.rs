//! `cargo xtask cross`: the programs of a device for every platform, and the `no_std` crates for a microcontroller.
//!
//! Each target is built with its installed library where there is one, else with a library built from its source; the
//! launcher always from source where that is here, since only then its library is as small as itself. What a target wants
//! of the system is installed where that is allowed, else named.

mod elf;
mod emulator;
mod library;
mod musl;
mod pe;
pub mod proof;
mod target;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use firmware_image::paths;

use crate::programs::executable;
use crate::run;
use library::Library;
use target::{TARGETS, Target, Tools};

/// What to build.
#[derive(clap::Args)]
#[command(after_help = "\
Targets: x86_64-unknown-linux-musl, aarch64-unknown-linux-musl, x86_64-pc-windows-gnu, thumbv7em-none-eabihf

Each wants either its Rust target (rustup target add TARGET) or the source of Rust's library (rustup component add rust-src,
or Debian's packages rustc-web and rust-web-src), and beside that:
  x86_64-unknown-linux-musl    gcc, musl-dev
  aarch64-unknown-linux-musl   gcc-aarch64-linux-gnu; musl-dev for arm64 is fetched with apt-get
  x86_64-pc-windows-gnu        gcc-mingw-w64-x86-64-win32
On Debian, as root, what is missing is installed.

Examples:
  cargo xtask cross                                 everything, into dist/
  cargo xtask cross aarch64-unknown-linux-musl      only the programs for ARM64
  partition-tools create … --bootstrap linux-x86_64=dist/bootstrap-linux-x86_64 --updater linux-x86_64=dist/updater-linux-x86_64 \\
      --bootstrap linux-aarch64=dist/bootstrap-linux-aarch64 --updater linux-aarch64=dist/updater-linux-aarch64")]
pub struct Args {
    /// The targets to build [default: all]
    #[arg(value_name = "TARGET", value_parser = Target::find)]
    targets: Vec<&'static Target>,
    /// Where the programs go, one file for each program and platform
    #[arg(long, value_name = "DIR", default_value = "dist")]
    dist: PathBuf,
    /// Only the launchers.
    #[arg(long)]
    launchers: bool,
}

/// A program of a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `bootstrap`.
    Launcher,
    /// `updater`.
    Updater,
}

impl Program {
    /// Its package.
    pub fn package(self) -> &'static str {
        match self {
            Self::Launcher => "bootstrap",
            Self::Updater => "updater",
        }
    }

    /// Its file for a platform.
    pub fn file(self, platform: &str) -> String {
        let name = match self {
            Self::Launcher => paths::bootstrap_name(platform),
            Self::Updater => paths::updater_name(platform),
        };
        name.as_str().to_owned()
    }
}

/// The largest launchers that count as tiny, built with a library of their own: for Linux, and for Windows. Their size is a
/// promise.
pub const MAX_LAUNCHER_BYTES: u64 = 225_000;
/// See [`MAX_LAUNCHER_BYTES`].
pub const MAX_WINDOWS_LAUNCHER_BYTES: u64 = 265_000;

/// What was built, for people.
#[derive(Default)]
pub struct Built {
    lines: Vec<(String, String, String)>,
    /// Targets that cannot be built here, and why.
    pub skipped: Vec<String>,
}

impl std::fmt::Display for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: fn(&(String, String, String)) -> &String| {
            self.lines.iter().map(|line| column(line).len()).max().unwrap_or_default()
        };
        let (first, second) = (width(|line| &line.0), width(|line| &line.1));
        for (name, size, how) in &self.lines {
            writeln!(f, "{name:first$}  {size:>second$}  {how}")?;
        }
        Ok(())
    }
}

/// Builds what was asked for; an error where any of it cannot be had.
pub fn run(args: &Args) -> Result<()> {
    let targets: Vec<&Target> = if args.targets.is_empty() { TARGETS.iter().collect() } else { args.targets.clone() };
    let programs: &[Program] =
        if args.launchers { &[Program::Launcher] } else { &[Program::Launcher, Program::Updater] };
    let built = build(&targets, programs, &run::root().join(&args.dist), false)?;
    print!("{built}");
    if !built.skipped.is_empty() {
        bail!("{}", built.skipped.join("\n"));
    }
    Ok(())
}

/// Builds for every target that can be built here, into `dist`: launchers as they ship, updaters without optimising across
/// crates, which takes most of the time and changes nothing that a test looks at.
///
/// # Errors
/// Something does not compile, or is not what it must be.
pub fn build_all(dist: &Path) -> Result<Built> {
    build(&TARGETS.iter().collect::<Vec<_>>(), &[Program::Launcher, Program::Updater], dist, true)
}

fn build(targets: &[&Target], programs: &[Program], dist: &Path, hurried: bool) -> Result<Built> {
    let work = run::target_dir()?.join("cross");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let order = Order { work: &work, dist, hurried };
    let mut built = Built::default();
    for target in targets {
        let tools = match target.tools(&work) {
            Ok(tools) => tools,
            Err(error) => {
                built.skipped.push(format!("{}: {error:#}", target.triple));
                continue;
            }
        };
        match target.platform {
            None => check(target, &work, &mut built)?,
            Some(platform) => {
                for program in programs.iter().filter(|program| target.programs.contains(program)) {
                    make(target, platform, *program, &tools, &order, &mut built)?;
                }
            }
        }
    }
    Ok(built)
}

/// How programs are built.
struct Order<'a> {
    /// Where cargo works.
    work: &'a Path,
    /// Where the programs go.
    dist: &'a Path,
    /// Updaters are optimised crate by crate.
    hurried: bool,
}

/// Builds one program and puts it into `dist`.
fn make(
    target: &Target,
    platform: &str,
    program: Program,
    tools: &Tools,
    order: &Order<'_>,
    built: &mut Built,
) -> Result<()> {
    let Order { work, dist, hurried } = *order;
    let small = program == Program::Launcher;
    let library = match Library::find(target.triple, small) {
        Ok(library) => library,
        Err(error) => {
            built.skipped.push(format!("{}: {error:#}", target.triple));
            return Ok(());
        }
    };
    let name = program.file(platform);
    eprintln!("building {name} for {}, {library}", target.triple);
    let mut cargo = run::cargo();
    let bare = small && tools.has_bare(&library);
    let (package, profile) = (program.package(), if small { "launcher" } else { "device" });
    cargo.args(["build", "--quiet", "--package", package, "--bin", package, "--profile", profile]);
    if small {
        cargo.args(["--no-default-features", "--features", if bare { "small" } else { "small,std" }]);
    }
    if hurried && !small {
        cargo.env("CARGO_PROFILE_DEVICE_LTO", "off").env("CARGO_PROFILE_DEVICE_CODEGEN_UNITS", "16");
    }
    // One directory for each set of flags: cargo would build the library anew at every change between two.
    cargo.args(["--target", target.triple]).arg("--target-dir").arg(work.join(package));
    let mut flags = tools.flags(&library, small);
    flags.extend(library.prepare(&mut cargo, small, bare));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env_remove("RUSTFLAGS");
    cargo.envs(tools.env.iter().map(|(name, value)| (name, value)));
    let made = executable(&mut cargo, package)?;
    std::fs::create_dir_all(dist).with_context(|| format!("cannot make {}", dist.display()))?;
    let kept = dist.join(&name);
    std::fs::copy(&made, &kept).with_context(|| format!("cannot copy {} to {}", made.display(), kept.display()))?;
    let bytes = std::fs::read(&kept)?;
    let max_bytes = if platform.starts_with("linux-") {
        elf::check_static(&bytes).with_context(|| format!("{name} is no static program"))?;
        MAX_LAUNCHER_BYTES
    } else {
        pe::check(&bytes, !small).with_context(|| format!("{name} is not what Windows is to get"))?;
        MAX_WINDOWS_LAUNCHER_BYTES
    };
    if small && library.is_small() && bytes.len() as u64 > max_bytes {
        bail!("{name} has {} bytes; {max_bytes} are what a launcher may have", bytes.len());
    }
    built.lines.push((name, format!("{} bytes", bytes.len()), format!("{}, {library}", target.triple)));
    Ok(())
}

/// Builds the libraries that know no operating system.
fn check(target: &Target, work: &Path, built: &mut Built) -> Result<()> {
    let library = match Library::find(target.triple, false) {
        Ok(library) => library,
        Err(error) => {
            built.skipped.push(format!("{}: {error:#}", target.triple));
            return Ok(());
        }
    };
    for package in ["firmware-image", "bootstrap"] {
        eprintln!("building {package} for {}, {library}", target.triple);
        let mut cargo = run::cargo();
        cargo.args(["build", "--quiet", "--lib", "--no-default-features", "--package", package, "--profile", "device"]);
        cargo.args(["--target", target.triple]).arg("--target-dir").arg(work.join("no-std"));
        library.prepare_core(&mut cargo);
        cargo.env_remove("RUSTFLAGS");
        run::show(&mut cargo)?;
        let mut how = String::new();
        let _ = write!(how, "{}, {library}", target.triple);
        built.lines.push((format!("{package} (library)"), "builds".into(), how));
    }
    Ok(())
}
