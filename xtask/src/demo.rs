//! The demonstration.
use crate::programs::Programs;
use anyhow::Result;
use std::path::Path;
/// .
#[derive(clap::Args)]
pub struct Args {}
/// .
pub fn run(_args: &Args) -> Result<()> {
    Ok(())
}
/// .
pub fn tell(_programs: &Programs, _dir: &Path) -> Result<()> {
    Ok(())
}
