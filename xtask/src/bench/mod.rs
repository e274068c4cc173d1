//! `cargo xtask bench`: every figure that the project claims, as a ratio against a peer or a limit in the same run.

mod create;
mod figures;
mod launcher;
mod updater;

use anyhow::{Context, Result};

use crate::programs::{Profile, Programs};
use crate::system;
use figures::Table;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Repetitions of the short measurements.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Write the table to this page too.
    #[arg(long, value_name = "FILE")]
    out: Option<std::path::PathBuf>,
}

const HEAD: &str = "# Benchmarks

What `cargo xtask bench --out docs/benchmarks.md` measured last. Each figure is a ratio or a limit within one run, never a time by itself: the machines
are noisy, shared, with two cores. A goal that is missed stays in the table.

";

/// Runs all benchmarks and prints one table.
pub fn run(args: &Args) -> Result<()> {
    system::prepare();
    let dir = tempfile::tempdir()?;
    let programs = Programs::build(Profile::Release, &dir.path().join("bin"))?;
    let mut table = Table::default();
    launcher::measure(&programs, dir.path(), args.rounds, &mut table)?;
    let device = updater::measure(&programs, dir.path(), &mut table)?;
    create::measure(&programs, dir.path(), &device, &mut table)?;
    print!("{table}");
    if let Some(path) = &args.out {
        std::fs::write(path, format!("{HEAD}{table}")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
