//! `cargo xtask fuzz`: the fuzz targets in `fuzz/`, built with coverage counters by the installed toolchain, no other tool needed.
//! `cargo fuzz` takes the same targets where a nightly toolchain and sanitizers are at hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, system};

/// What libFuzzer reads to see where an input leads, by flags of LLVM that the stable compiler takes.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What to fuzz.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz --seconds 30                 # every target, half a minute each
  cargo xtask fuzz patch step --seconds 3600    # two of them, for an hour each

What an input found is kept under the target directory, in fuzz-corpus, and the next run begins with it. An input that
fails is kept in fuzz-failures, and its path is printed.")]
pub struct Args {
    /// The targets; all, unless named
    pub targets: Vec<String>,
    /// How long each runs, in seconds
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
    /// Where the random numbers begin; the same seed and corpus give the same inputs
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
}

/// Builds the targets, runs them one after the other, and prints what each did; how many inputs were tried in all. Every target is run; an error names those that failed.
pub fn run(args: &Args) -> Result<u64> {
    if system::find("c++").is_none() {
        bail!("a C++ compiler (Debian: g++) is missing: libFuzzer is built with it");
    }
    let known = targets()?;
    for wanted in &args.targets {
        if !known.contains(wanted) {
            bail!("there is no target {wanted}: there are {}", known.join(", "));
        }
    }
    let wanted = if args.targets.is_empty() { &known } else { &args.targets };
    let (programs, target_dir) = build()?;
    let (mut failed, mut total) = (Vec::new(), 0);
    println!("{:<16} {:>12} {:>9} {:>10}", "target", "executions", "inputs", "peak MiB");
    for name in wanted {
        let corpus = target_dir.join("fuzz-corpus").join(name);
        let failures = target_dir.join("fuzz-failures").join(name);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&failures)?;
        plant(name, &corpus)?;
        let mut fuzz = Command::new(programs.join(name));
        fuzz.arg(&corpus)
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-seed={}", args.seed))
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .args(["-print_final_stats=1", "-rss_limit_mb=1024", "-timeout=20", "-verbosity=0"]);
        let output = run::capture(&mut fuzz)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let number = |key: &str| -> u64 {
            let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        let (executions, peak) = (number("stat::number_of_executed_units"), number("stat::peak_rss_mb"));
        println!("{name:<16} {executions:>12} {:>9} {peak:>10}", fs::read_dir(&corpus)?.count());
        total += executions;
        if !output.status.success() || executions == 0 {
            eprintln!("{said}");
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        let failures = target_dir.join("fuzz-failures");
        bail!("{} failed; the inputs are in {}", failed.join(", "), failures.display());
    }
    Ok(total)
}

fn folder() -> PathBuf {
    run::root().join("fuzz")
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(folder().join("fuzz_targets"))?
        .flatten()
        .filter_map(|entry| entry.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds all targets; where their programs are, and the workspace's target directory.
fn build() -> Result<(PathBuf, PathBuf)> {
    let host = run::host()?;
    let target_dir = run::target_dir()?;
    let build_dir = target_dir.join("fuzz");
    let mut cargo = run::cargo();
    cargo.current_dir(folder());
    // With a target named, what runs at build time has no counters.
    cargo
        .args(["build", "--release", "--locked", "--bins", "--quiet", "--target", &host])
        .arg("--target-dir")
        .arg(&build_dir);
    cargo.env("RUSTFLAGS", COUNTERS);
    run::show(&mut cargo)?;
    Ok((build_dir.join(host).join("release"), target_dir))
}

/// Begins the corpus of a target with the vectors of its format, and with the target's own seeds.
fn plant(name: &str, corpus: &Path) -> Result<()> {
    let (vectors, ending) = match name {
        "chunk_list" => ("pack", "list"),
        "device_config" => ("device-config", "cfg"),
        "frame" => ("sealed", "sealed"),
        "hidden_zone" => ("hidden-zone", "slot"),
        "journal" => ("journal", "journal"),
        "manifest" => ("manifest", "manifest"),
        "patch" => ("patch", "patch"),
        "region" => ("region", "region"),
        "step" => ("step", "step"),
        "updater_image" => ("updater-image", "img"),
        _ => ("", ""),
    };
    let mut seeds = Vec::new();
    if !vectors.is_empty() {
        seeds.extend(files(&run::root().join("testdata").join(vectors).join("v1"), ending)?);
    }
    let own = folder().join("seeds").join(name);
    if own.is_dir() {
        seeds.extend(files(&own, "")?);
    }
    for seed in seeds {
        let mut bytes = fs::read(&seed)?;
        if name == "patch" {
            bytes = with_lengths(&bytes);
        }
        // Larger ones only make it slow.
        if bytes.len() <= 64 << 10 {
            fs::write(corpus.join(seed.file_name().context("a seed without a name")?), bytes)?;
        }
    }
    Ok(())
}

/// A patch as its target takes it: how long it, the old and the new bytes are; the patch; some old bytes.
fn with_lengths(patch: &[u8]) -> Vec<u8> {
    const OLD: u16 = 4096;
    let length = u16::try_from(patch.len()).unwrap_or(u16::MAX);
    let mut bytes: Vec<u8> = [length, OLD, 4096].into_iter().flat_map(u16::to_le_bytes).collect();
    bytes.extend_from_slice(patch);
    bytes.extend((0..OLD).map(|at| (at % 251) as u8));
    bytes
}

fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file() && (ending.is_empty() || path.extension().is_some_and(|found| found == ending)));
    files.sort();
    Ok(files)
}
