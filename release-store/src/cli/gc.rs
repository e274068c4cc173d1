//! `gc`: what a store no longer needs to hold goes.

use std::path::PathBuf;
use std::process::ExitCode;

use lines::{errln, outln};
use release_store::gc::{
    Collected, DEFAULT_GRACE_SECS, DEFAULT_WHOLE_EVERY, Fate, MAX_WHOLE_EVERY, Policy, collect, preview,
};
use release_store::keys::KeyDir;
use release_store::repository::Repository;
use serde_json::json;

use super::{KeysArgument, terminal};

/// Keep a store from growing: old releases as patches, and what nothing needs away
///
/// The newest release of each channel, pinned ones and one of every few keep their chunks. Each other release is thinned where
/// that saves bytes: it is made of the next newer one by a step back, and devices install it as before. Nothing is deleted that a
/// device may just be fetching: a file goes in the first run after nothing has named it for the grace period. Run it after
/// publishing, or from a scheduler. A release that was thinned stays so.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  release-store gc store --keys keys --dry-run
  release-store gc store --keys keys --pin 1.0.0
  release-store gc store --keys keys --whole 3 --keep 50 --grace 30d --jobs 2

A dry run needs no passphrase where KEYS is what `keys export --factory` made.")]
pub(super) struct Gc {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// How many of the last releases of each channel keep their chunks
    #[arg(long, value_name = "N", default_value_t = 1)]
    whole: usize,
    /// Of how many releases of a channel in a row one at least keeps its chunks: an old one is installed by so many steps back, less one
    #[arg(long, value_name = "N", default_value_t = DEFAULT_WHOLE_EVERY as u64,
          value_parser = clap::value_parser!(u64).range(1..=MAX_WHOLE_EVERY as u64))]
    whole_every: u64,
    /// A version that keeps its chunks. Repeatable; to be named at each run
    #[arg(long, value_name = "VERSION")]
    pin: Vec<String>,
    /// Forget releases of a channel that are older than so many of the last, unless others are made of them [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// How long a file stays that nothing names any more: days, or a number with s, m, h or d; 0 deletes at once
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = duration_secs)]
    grace: i64,
    /// Threads that make patches; each takes up to ten times the largest file in memory
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Say what would happen, and change nothing. Takes as long: patches are made to see their sizes
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Gc {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = terminal::now()?;
        let keep = self.keep.and_then(|keep| usize::try_from(keep).ok());
        let policy = Policy {
            whole: self.whole,
            whole_every: self.whole_every as usize,
            pins: self.pin.clone(),
            keep,
            grace_secs: self.grace,
            jobs: self.jobs.into(),
        };
        let collected = if self.dry_run { self.preview(&policy, now)? } else { self.collect(&policy, now)? };
        if self.json {
            terminal::print_json(&as_json(&collected, self.dry_run));
        } else {
            explain(&collected, self.dry_run, self.grace)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn preview(&self, policy: &Policy, now: i64) -> anyhow::Result<Collected> {
        self.keys.read(&self.store, |root, product, keys| {
            preview(&self.store, root, product, keys, policy, now, &mut terminal::Bar::new("reading"))
        })
    }

    fn collect(&self, policy: &Policy, now: i64) -> anyhow::Result<Collected> {
        let keys = KeyDir::open(&self.keys.dir)?;
        let mut repository = Repository::open(&self.store, &keys)?;
        let passphrase = terminal::passphrase()?;
        let collected = collect(&mut repository, &passphrase, policy, now, &mut terminal::Bar::new("collecting"))?;
        terminal::say_after_signing(&repository, now);
        Ok(collected)
    }
}

fn explain(collected: &Collected, dry_run: bool, grace_secs: i64) -> anyhow::Result<()> {
    outln!("{:>6}  {:<16} {:<12} kept", "serial", "version", "channel");
    for release in &collected.releases {
        let kept = match release.fate {
            Fate::Whole => "whole".to_owned(),
            Fate::Thinned { base } if release.is_new => format!("as patches on {base} from now on"),
            Fate::Thinned { base } => format!("as patches on {base}"),
            Fate::Forgotten => "not any more".to_owned(),
        };
        outln!("{:>6}  {:<16} {:<12} {kept}", release.serial, release.version, release.channel);
    }
    let bytes = terminal::bytes;
    let (would, goes) = if dry_run { ("would be ", "would go") } else { ("", "went") };
    let (before, after) = (bytes(collected.bytes_before), bytes(collected.bytes_after));
    errln!("The store: {before}, {after} once everything is gone that nothing names.");
    if collected.new_bytes > 0 {
        errln!("  {} {would}written anew", bytes(collected.new_bytes));
    }
    let (files, deleted) = (terminal::counted(collected.deleted_files, "file"), bytes(collected.deleted_bytes));
    errln!("  {deleted} in {files} {goes} now");
    if collected.doomed_files > 0 {
        let (files, doomed) = (terminal::counted(collected.doomed_files, "file"), bytes(collected.doomed_bytes));
        errln!("  {doomed} in {files}: at the first run after {} unnamed", duration(grace_secs));
    }
    Ok(())
}

fn as_json(collected: &Collected, dry_run: bool) -> serde_json::Value {
    let releases = collected.releases.iter().map(|release| {
        let (kept, base) = match release.fate {
            Fate::Whole => ("whole", None),
            Fate::Thinned { base } => ("patches", Some(base)),
            Fate::Forgotten => ("forgotten", None),
        };
        json!({
            "serial": release.serial,
            "version": release.version,
            "channel": release.channel,
            "kept": kept,
            "base": base,
            "new": release.is_new,
        })
    });
    json!({
        "dry_run": dry_run,
        "changed": collected.is_changed,
        "releases": releases.collect::<Vec<_>>(),
        "bytes_before": collected.bytes_before,
        "bytes_after": collected.bytes_after,
        "new_bytes": collected.new_bytes,
        "deleted_files": collected.deleted_files,
        "deleted_bytes": collected.deleted_bytes,
        "doomed_files": collected.doomed_files,
        "doomed_bytes": collected.doomed_bytes,
    })
}

const DAY_SECS: i64 = DEFAULT_GRACE_SECS / 14;

/// A number of days, or a number with its unit.
fn duration_secs(text: &str) -> Result<i64, String> {
    let wrong = || "write it like 14d, 12h, 30m or 0".to_owned();
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'd')) => (&text[..at], DAY_SECS),
        Some((at, 'h')) => (&text[..at], 60 * 60),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 's')) => (&text[..at], 1),
        _ => (text, DAY_SECS),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(i64::from(number) * unit)
}

fn duration(secs: i64) -> String {
    let units = [(DAY_SECS, "days"), (60 * 60, "hours"), (60, "minutes")];
    let unit = units.into_iter().find(|(unit, _)| secs >= *unit && secs % unit == 0);
    unit.map_or_else(|| format!("{secs} seconds"), |(unit, name)| format!("{} {name}", secs / unit))
}
