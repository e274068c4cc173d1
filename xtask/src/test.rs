//! `cargo xtask test`: every test, in an order that fails early.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use firmware_image::sim::figures;

use crate::cross::proof;
use crate::figures::Figures;
use crate::programs::{Profile, Programs};
use crate::{defences, demo, fuzz, microcontroller, mutants, run, system, tuf_suite, windows};

/// What to test.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the demonstration at the end.
    #[arg(long)]
    no_demo: bool,
    /// Leave out the tests on real machines.
    #[arg(long)]
    no_machines: bool,
    /// Leave out the builds for other platforms, and what is tried with them; the rest then uses programs for this system.
    #[arg(long)]
    no_cross: bool,
    /// Try every state that a cut or a failing write could have left, every flipped byte, more moments of kills and pulls, and
    /// fuzz each parser for ten minutes: no samples. Many hours.
    #[arg(long)]
    full: bool,
}

/// Runs everything; the first failure ends it.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    system::prepare();
    let dir = tempfile::tempdir()?;
    let figures = Figures::in_dir(dir.path());
    let mut parts: Vec<(&str, Duration)> = Vec::new();
    let mut part = |name: &'static str, run: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        eprintln!("\n== {name}");
        let start = Instant::now();
        run().with_context(|| format!("{name}: failed"))?;
        parts.push((name, start.elapsed()));
        Ok(())
    };
    part("the device core builds without std and without an allocator", &mut no_std)?;
    part("unit and integration tests", &mut || {
        let mut cargo = run::cargo();
        cargo.args(["test", "--workspace", "--exclude", "qemu-tests", "--quiet"]);
        if !args.no_cross {
            // Their turn comes when the programs for Windows are built.
            cargo.env("HOLDFAST_WINDOWS", "later");
        }
        run::show(figures.counting(in_full(&mut cargo, args.full)))
    })?;
    part("an independent reader agrees with the vectors", &mut || independent_reader(&figures))?;
    part("fuzzing, for a moment", &mut || fuzzing(&figures, args.full))?;
    part("a microcontroller, emulated", &mut || microcontroller::run(&figures, args.full))?;
    part("the public conformance suite for TUF clients", &mut || tuf_suite::run(&figures))?;
    let (bin, dist) = (dir.path().join("bin"), dir.path().join("dist"));
    if !args.no_cross {
        part("the programs of a device for every platform", &mut || proof::build(&dist, &figures))?;
        part("the launcher as it ships passes the launcher's tests", &mut || proof::test_launchers(&dist, &figures))?;
        part("launcher and updater for Windows, under Wine", &mut || windows::test(&dist, &figures))?;
    }
    if !(args.no_demo && args.no_machines) {
        part("the programs", &mut || {
            Programs::build(Profile::Dev, &bin, Some(&dist))?;
            if args.no_machines {
                return Ok(());
            }
            run::show(run::cargo().args(["test", "--package", "qemu-tests", "--quiet", "--no-run"]))
        })?;
    }
    if !(args.no_cross || args.no_demo && args.no_machines) {
        let programs = Programs::built_in(&bin);
        part("launcher and updater for ARM64 heal a device", &mut || {
            proof::heal_on_arm(&programs, &dist, dir.path(), &figures)
        })?;
    }
    if !args.no_demo {
        part("the demonstration", &mut || demo::tell(&Programs::built_in(&bin), &dir.path().join("demo")).map(drop))?;
    }
    if !args.no_machines {
        part("real machines, real sticks", &mut || real_machines(&bin, &figures, args.full))?;
    }
    if args.full {
        part("without its defence, each attack's test fails", &mut || {
            figures.add(figures::DEFENCES, defences::run(&defences::Args::default())?, 0)
        })?;
        part("mutants of what verifies, decides and commits", &mut || {
            if !mutants::is_installed() {
                return figures.skip("mutants", "cargo-mutants is missing (cargo install --locked cargo-mutants)");
            }
            mutants::run(&mutants::Args::default())
        })?;
    }
    eprintln!("\n{}", figures.total()?);
    for (name, took) in &parts {
        eprintln!("{:6.1} s  {name}", took.as_secs_f64());
    }
    eprintln!("{:6.1} s  in all; everything passed", start.elapsed().as_secs_f64());
    Ok(())
}

/// Has tests try all there is, not a sample.
fn in_full(cargo: &mut Command, full: bool) -> &mut Command {
    if full {
        cargo.env("HOLDFAST_FULL", "1");
    }
    cargo
}

/// Every fuzz target for some seconds, from the same seed each time.
fn fuzzing(figures: &Figures, full: bool) -> Result<()> {
    let seconds = if full { 600 } else { 4 };
    if system::find("c++").is_none() {
        return figures.skip("fuzzing", "c++ is missing (Debian package g++)");
    }
    let inputs = fuzz::run(&fuzz::Args { targets: Vec::new(), seconds, seed: 1 })?;
    figures.add(figures::INPUTS, inputs, 0)
}

/// The tests in emulated machines with a real kernel. Where one can be had, none of them may be skipped.
fn real_machines(programs: &Path, figures: &Figures, full: bool) -> Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["test", "--package", "qemu-tests", "--quiet"]).env("HOLDFAST_PROGRAMS", programs);
    if system::can_run_machines() {
        cargo.env("HOLDFAST_MACHINES", "required");
    }
    // As many tests as there may be machines at once.
    let machines = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    cargo.env("RUST_TEST_THREADS", machines.to_string());
    figures.counting(in_full(&mut cargo, full));
    // What the tests measured and counted is worth reading.
    cargo.args(["--", "--nocapture"]);
    run::show(&mut cargo)
}

/// The `no_std` crates, for this machine; for a microcontroller they are built with the programs for every platform.
fn no_std() -> Result<()> {
    for package in ["firmware-image", "bootstrap"] {
        run::show(run::cargo().args(["check", "--quiet", "--lib", "--no-default-features", "--package", package]))?;
    }
    // And the launcher, where the standard library is another one.
    let launcher =
        ["check", "--quiet", "--lib", "--no-default-features", "--features", "launcher", "--package", "bootstrap"];
    run::show(run::cargo().args(launcher))?;
    // With other packages it is tested as nothing but the standard library.
    run::show(run::cargo().args(["test", "--quiet", "--package", "tiny-std"]))
}

/// The Python programs that know the formats only from their pages: the reader of all vectors, and the writers of some, which
/// must write what is there.
fn independent_reader(figures: &Figures) -> Result<()> {
    let Some(python) = system::find("python3") else {
        return figures.skip("the independent reader", "python3 is missing");
    };
    let testdata = run::root().join("testdata");
    let program = testdata.join("independent/check.py");
    if !program.exists() {
        bail!("{} is missing", program.display());
    }
    run::show(std::process::Command::new(&python).arg(program).arg(&testdata))?;
    for format in std::fs::read_dir(&testdata)? {
        let writer = format?.path().join("v1/make.py");
        if writer.is_file() {
            run::show(std::process::Command::new(&python).arg(writer).arg("--check"))?;
        }
    }
    Ok(())
}
