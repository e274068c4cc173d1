//! `cargo xtask bench deltas`: what updates of real releases cost, us and the peers that are installed, in the same run.

mod chart;
mod fetch;
mod http;
mod ours;
mod outcome;
mod peers;
mod report;
mod series;
mod solid;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{page, trees};
use crate::programs::{Profile, Programs};
use crate::run;
use outcome::{Base, Outcome};
use peers::Release;
use series::Series;
use solid::Solid;
use tools::Tools;

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Measure this series only. Repeatable [default: all]
    #[arg(long, value_name = "NAME")]
    series: Vec<String>,
    /// Only the last two releases, so only from N-1, and a store of two.
    #[arg(long)]
    quick: bool,
    /// Install the peers that are missing: Debian's packages where that is allowed, the others below the work folder.
    #[arg(long)]
    install: bool,
    /// Where releases are kept, as SERIES/VERSION [default: corpus in the work folder].
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Where releases, peers and results are kept [default: bench-deltas where cargo builds].
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// Take release-store and updater from this folder instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Measure nothing: show what was kept.
    #[arg(long, conflicts_with_all = ["series", "quick", "install"])]
    kept: bool,
    /// Write the section of this page too, and its chart beside it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What stores, trees and peers' files of the largest series take, and more.
const MEMORY_BYTES: u64 = 8 << 30;
/// The chart's file, beside the page.
const CHART: &str = "update-bytes.svg";

/// Measures, and prints tables: of what was measured now, and of the other series as they were measured last.
pub fn run(args: &Args) -> Result<()> {
    let work = match &args.work {
        Some(work) => std::path::absolute(work)?,
        None => run::target_dir()?.join("bench-deltas"),
    };
    std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let kept = work.join("results");
    if !args.kept {
        measure(args, &work, &kept)?;
    }
    let load = |series: &Series| Outcome::load(&kept, series.name).transpose();
    let outcomes: Vec<Outcome> = series::ALL.iter().filter_map(load).collect::<Result<_>>()?;
    if outcomes.is_empty() {
        bail!("nothing was measured");
    }
    let section = report::section(&outcomes, CHART);
    print!("{section}");
    if let Some(out) = &args.out {
        let chart = out.with_file_name(CHART);
        std::fs::write(&chart, chart::draw(&outcomes)?).with_context(|| format!("cannot write {}", chart.display()))?;
        page::write_section(out, report::HEADING, &section)?;
    }
    Ok(())
}

/// Measures what is asked for, and keeps it.
fn measure(args: &Args, work: &Path, kept: &Path) -> Result<()> {
    let wanted = |series: &&Series| args.series.is_empty() || args.series.iter().any(|name| name == series.name);
    if let Some(unknown) = args.series.iter().find(|name| series::ALL.iter().all(|series| series.name != **name)) {
        let names: Vec<_> = series::ALL.iter().map(|series| series.name).collect();
        bail!("there is no series {unknown}; there are {}", names.join(", "));
    }
    let tools = work.join("tools");
    if args.install {
        tools::install(&tools);
    }
    let tools = Tools::find(&tools);
    let corpus = match &args.corpus {
        Some(corpus) => std::path::absolute(corpus)?,
        None => work.join("corpus"),
    };
    let dir = tempfile::tempdir_in(place(work))?;
    let programs = match &args.programs {
        Some(built) => Programs::built_in(&std::path::absolute(built)?),
        None => Programs::build_store_and_updater(Profile::Release, &dir.path().join("bin"))?,
    };
    for series in series::ALL.iter().filter(wanted) {
        let versions =
            if args.quick { &series.versions[series.versions.len().saturating_sub(2)..] } else { series.versions };
        let trees = match fetch::releases(series, versions, &corpus) {
            Ok(trees) => trees,
            Err(error) => {
                eprintln!("{}: skipped, its releases could not be fetched: {error:#}", series.name);
                continue;
            }
        };
        eprintln!("{}", series.name);
        let release = |(version, tree): (&&str, PathBuf)| Release { version: (*version).to_owned(), tree };
        let releases: Vec<Release> = versions.iter().zip(trees).map(release).collect();
        let outcome = measure_series(&programs, &tools, &dir.path().join(series.name), series, &releases)?;
        outcome.save(kept)?;
    }
    Ok(())
}

/// Where programs work: in memory where there is room for it, as a file system's own work, which differs by far from one to the
/// next, is nobody's processor time here.
fn place(work: &Path) -> &Path {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(room) if room.f_bavail * room.f_frsize >= MEMORY_BYTES => memory,
        _ => work,
    }
}

fn measure_series(
    programs: &Programs,
    tools: &Tools,
    dir: &Path,
    series: &Series,
    releases: &[Release],
) -> Result<Outcome> {
    let (new, _) = releases.split_last().context("there are no releases")?;
    let steps: Vec<Base> = [Base::Near, Base::Far].into_iter().filter(|base| base.back() < releases.len()).collect();
    let mut solids = Vec::new();
    for base in &steps {
        let place = trees::empty(&dir.join(base.describe()))?;
        solids.push((*base, Solid::make(&releases[releases.len() - 1 - base.back()].tree, &new.tree, &place)?));
    }
    let ours = ours::measure(programs, dir, releases, &steps)?;
    let (peers, absent) = peers::measure_all(tools, dir, releases, &solids)?;
    if !absent.is_empty() {
        eprintln!("  not installed, so not measured: {}", absent.join(", "));
    }
    let files = trees::walk(&new.tree)?;
    let mut largest_bytes = 0;
    for file in &files {
        largest_bytes = largest_bytes.max(trees::stored_bytes(file)?);
    }
    std::fs::remove_dir_all(dir)?;
    Ok(Outcome {
        series: series.name.to_owned(),
        versions: releases.iter().map(|release| release.version.clone()).collect(),
        files: files.len(),
        bytes: trees::stored_bytes(&new.tree)?,
        largest_bytes,
        publishing: ours.publishing,
        idle: ours.idle,
        rows: std::iter::once(ours.row).chain(peers).collect(),
        absent,
    })
}
