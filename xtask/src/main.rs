//! `cargo xtask`: the project's own chores, so that a fresh machine needs two commands and no instructions.

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{bench, demo, memory, test};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Holdfast's chores: the demonstration, the tests, the benchmarks")]
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
    /// Measure what is claimed, as ratios within the same run.
    Bench(bench::Args),
    /// Run a command and print the most memory that it had, in bytes.
    #[command(hide = true)]
    PeakMemory {
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

fn main() -> Result<()> {
    match Args::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::PeakMemory { command } => memory::print_peak(&command),
    }
}
