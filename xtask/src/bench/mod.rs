//! `cargo xtask bench`: every figure that the project claims, as a ratio against a peer or a limit in the same run.

mod create;
mod deltas;
mod device;
mod figures;
mod launcher;
mod page;
mod sizes;
mod trees;
mod updater;

use anyhow::Result;

use crate::programs::{Profile, Programs};
use crate::system;
use figures::Table;

/// What to measure.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Repetitions of the short measurements.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Write the table to this page too; its other sections stay.
    #[arg(long, value_name = "FILE")]
    out: Option<std::path::PathBuf>,
}

#[derive(clap::Subcommand)]
enum Part {
    /// What updates of real releases cost, us and our peers: bytes, requests, time, memory, stores. Hours for all series.
    Deltas(deltas::Args),
    /// How large the programs of a device are, beside what else starts things.
    Sizes(sizes::Args),
}

const HEAD: &str = "# Benchmarks

What `cargo xtask bench --out docs/benchmarks.md` measured last. Each figure is a ratio or a limit within one run, never a time by itself: the machines
are noisy, shared, with two cores. A goal that is missed stays in the table.

";

/// Runs all benchmarks but those of a part of their own, and prints one table; or that part.
pub fn run(args: &Args) -> Result<()> {
    match &args.part {
        Some(Part::Deltas(args)) => return deltas::run(args),
        Some(Part::Sizes(args)) => return sizes::run(args),
        None => {}
    }
    system::prepare();
    let dir = tempfile::tempdir()?;
    let programs = Programs::build(Profile::Release, &dir.path().join("bin"), None)?;
    let mut table = Table::default();
    launcher::measure(&programs, dir.path(), args.rounds, &mut table)?;
    let device = updater::measure(&programs, dir.path(), &mut table)?;
    create::measure(&programs, dir.path(), &device, &mut table)?;
    print!("{table}");
    if let Some(path) = &args.out {
        page::write_front(path, &format!("{HEAD}{table}"))?;
    }
    Ok(())
}
