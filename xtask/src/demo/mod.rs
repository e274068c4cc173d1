//! `cargo xtask demo`: the whole story on an image file and a server on loopback, step by step, each step checked.

mod by_hand;
mod story;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use story::Told;

use crate::programs::{Profile, Programs};
use crate::{run, system};

/// How to tell it.
#[derive(clap::Args)]
pub struct Args {
    /// Leave everything in this folder, and print the commands to go on by hand.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Build quickly instead of small and fast.
    #[arg(long)]
    dev: bool,
    /// Take launcher and updater from here, where `cargo xtask cross` has put them, and build the rest
    #[arg(long, value_name = "DIR")]
    shipped: Option<PathBuf>,
}

/// Builds the programs and tells the story.
pub fn run(args: &Args) -> Result<()> {
    system::prepare();
    let temporary;
    let dir = match &args.keep {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            std::path::absolute(dir)?
        }
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_path_buf()
        }
    };
    let profile = if args.dev { Profile::Dev } else { Profile::Release };
    let programs = Programs::build(profile, &dir.join("built"), args.shipped.as_deref())?;
    let start = Instant::now();
    let told = tell(&programs, &dir)?;
    println!("\nAll of it in {:.1} s.", start.elapsed().as_secs_f64());
    if args.keep.is_some() {
        by_hand::print(&dir, &told);
    } else {
        println!("To break it yourself: cargo xtask demo --keep DIR");
    }
    Ok(())
}

/// Tells the story in `dir`; an error where a step does not end as it must. Returns what a person needs to go on.
pub fn tell(programs: &Programs, dir: &Path) -> Result<Told> {
    std::fs::create_dir_all(dir)?;
    story::tell(programs, dir).with_context(|| format!("the demonstration in {}", dir.display()))
}

/// The folder from which people type the commands that are printed.
fn shown_from(dir: &Path) -> String {
    dir.strip_prefix(run::root()).unwrap_or(dir).display().to_string()
}
