//! The client under test of the public TUF conformance suite (`docs/testing.md`): the trust code of a device, by the
//! letter of the specification ([`Trust::to_the_letter`]), over the updater's HTTP.
//!
//! Exit status: 0, or 1 for every failure, wrong usage and a panic included, as the suite knows no other.
#![forbid(unsafe_code)]

mod files;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser as _;
use release_store::trust::{MAX_ROOT_BYTES, Trust, percent_encoded};

use crate::files::{MetadataDir, Repository, replace};

/// A TUF client for the conformance suite.
#[derive(clap::Parser)]
#[command(version)]
struct Args {
    /// Where accepted metadata is kept.
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// The repository's metadata.
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// A target to download; several are done in order.
    #[arg(long, value_name = "PATH")]
    target_name: Vec<String>,
    /// The repository's targets.
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where verified targets are kept.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Trust a root.
    Init {
        /// The file with it.
        root: PathBuf,
    },
    /// Bring the metadata up to date.
    Refresh,
    /// Bring the metadata up to date, and download targets.
    Download,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::exit(1);
    }));
    let done = match Args::try_parse() {
        Ok(args) => run(&args),
        Err(help) if !help.use_stderr() => {
            print!("{help}");
            Ok(())
        }
        Err(usage) => Err(usage.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let metadata = MetadataDir::new(&args.metadata_dir);
    match &args.command {
        Command::Init { root } => {
            let root = files::read(root, MAX_ROOT_BYTES)?;
            Trust::to_the_letter(&root, metadata)?;
            replace(&args.metadata_dir, files::ROOT, &root).context("cannot keep the root")
        }
        Command::Refresh => fetch(args, metadata, None),
        Command::Download => {
            if args.target_name.is_empty() {
                bail!("--target-name is missing");
            }
            let directory = args.target_dir.as_ref().context("--target-dir is missing")?;
            args.target_base_url.as_ref().context("--target-base-url is missing")?;
            fetch(args, metadata, Some(directory))
        }
    }
}

/// Refreshes; with a directory for `targets`, downloads those that are wanted.
fn fetch(args: &Args, metadata: MetadataDir, targets: Option<&PathBuf>) -> Result<()> {
    let url = args.metadata_url.as_ref().context("--metadata-url is missing")?;
    let repository = Repository::new(url, args.target_base_url.as_deref());
    let root = files::read(&args.metadata_dir.join(files::ROOT), MAX_ROOT_BYTES)?;
    let trust = Trust::to_the_letter(&root, metadata)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut search = trust.search(&repository, i64::try_from(now)?)?;
    if let Some(directory) = targets {
        for path in &args.target_name {
            let target = search.find(path)?.with_context(|| format!("no role has the target {path}"))?;
            let name = percent_encoded(path);
            let kept = files::read(&directory.join(&name), target.length());
            if kept.is_ok_and(|bytes| target.verify(&bytes).is_ok()) {
                continue;
            }
            let bytes = search.fetch(&target)?;
            replace(directory, &name, &bytes).with_context(|| format!("cannot keep the target {path}"))?;
        }
    }
    match search.cache_error() {
        Some(error) => bail!("cannot keep metadata: {error}"),
        None => Ok(()),
    }
}
