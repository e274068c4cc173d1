//! `cargo xtask bench`: every figure that the project claims, as a ratio against a peer or a limit in the same run.

mod figures;
mod launcher;

use anyhow::Result;

use crate::programs::{Profile, Programs};
use crate::system;
use figures::Table;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Repetitions of the short measurements.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

/// Runs all benchmarks and prints one table.
pub fn run(args: &Args) -> Result<()> {
    system::prepare();
    let dir = tempfile::tempdir()?;
    let programs = Programs::build(Profile::Release, &dir.path().join("bin"))?;
    let mut table = Table::default();
    launcher::measure(&programs, dir.path(), args.rounds, &mut table)?;
    print!("{table}");
    Ok(())
}
