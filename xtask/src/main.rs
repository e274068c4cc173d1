//! `cargo xtask`: the project's own chores, so that a fresh machine needs two commands and no instructions.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::figures::Figures;
use xtask::{bench, cross, defences, demo, fuzz, microcontroller, mutants, test, usage};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Holdfast's chores: the demonstration, the tests, builds for every platform, the benchmarks, fuzzing"
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Tell the whole story on an image file and a server on loopback: plug in, break, heal, update.
    Demo(demo::Args),
    /// Pass every test; install what they need where that is allowed, and say what is skipped.
    Test(test::Args),
    /// Build the programs of a device for every platform, into dist/.
    Cross(cross::Args),
    /// Measure what is claimed, as ratios within the same run.
    Bench(bench::Args),
    /// Give every parser of outside bytes what it never expected.
    Fuzz(fuzz::Args),
    /// Change what verifies, decides and commits, and see whether a test notices.
    Mutants(mutants::Args),
    /// Take each defence against an attack out, and see whether the attack's test fails.
    Defences(defences::Args),
    /// Restore an application on an emulated microcontroller, power cut at every write; hold its size against its limits.
    Microcontroller,
    /// Run a command and write what it took.
    #[command(hide = true)]
    Usage(usage::Args),
}

fn main() -> Result<ExitCode> {
    match Args::parse().task {
        Task::Demo(args) => demo::run(&args)?,
        Task::Test(args) => test::run(&args)?,
        Task::Cross(args) => cross::run(&args)?,
        Task::Bench(args) => bench::run(&args)?,
        Task::Fuzz(args) => drop(fuzz::run(&args)?),
        Task::Mutants(args) => mutants::run(&args)?,
        Task::Defences(args) => drop(defences::run(&args)?),
        Task::Microcontroller => microcontroller::run(&Figures::in_dir(tempfile::tempdir()?.path()), false)?,
        Task::Usage(args) => return usage::record(&args),
    }
    Ok(ExitCode::SUCCESS)
}
