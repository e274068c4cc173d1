//! `stats`: what is in a store, and what devices download from it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use lines::outln;
use release_store::stats::{ReleaseStats, StoreStats, UpdateStats, Way, stats};
use serde_json::json;

use super::{KeysArgument, chart, terminal};

/// Show what a store's releases hold, and what updates download
///
/// Per release: its content, the chunks that came with it, the steps that lead to it. Per version in the field: what a device
/// that has it downloads to take the newest of its channel, by the step from there, by the shortest chain of steps, or by chunks;
/// metadata included.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  release-store stats store --keys keys
  release-store stats store --keys keys --chart updates.svg

Needs no passphrase where KEYS is what `keys export --factory` made.")]
pub(super) struct Stats {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// Draw what updates download, beside the whole release, as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (product, stats) = self.keys.read(&self.store, |root, product, keys| {
            let stats = stats(&self.store, root, product, keys, &mut terminal::Bar::new("reading"))?;
            Ok((product.to_owned(), stats))
        })?;
        if let Some(path) = &self.chart {
            let svg = chart::updates(&product, &stats.updates)?;
            std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if self.json {
            terminal::print_json(&as_json(&stats));
        } else {
            print(&stats);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(stats: &StoreStats) {
    let bytes = terminal::bytes;
    outln!(
        "{:>6}  {:<16} {:<12} {:>12} {:>12} {:>5} {:>12} {:>11} {:>11}  kept",
        "serial",
        "version",
        "channel",
        "content",
        "new chunks",
        "steps",
        "bytes",
        "manifest",
        "chunk list"
    );
    for release in &stats.releases {
        outln!(
            "{:>6}  {:<16} {:<12} {:>12} {:>12} {:>5} {:>12} {:>11} {:>11}  {}",
            release.serial,
            release.version,
            release.channel,
            bytes(release.content_bytes),
            bytes(release.new_chunk_bytes),
            release.steps,
            bytes(release.step_bytes),
            bytes(release.manifest_bytes),
            bytes(release.chunk_list_bytes),
            kept(release),
        );
    }
    if !stats.updates.is_empty() {
        outln!("");
        outln!(
            "{:<16} {:<12} {:<16} {:<10} {:>12} {:>12} {:>7}",
            "from",
            "channel",
            "to",
            "by",
            "download",
            "whole",
            ""
        );
    }
    for update in &stats.updates {
        outln!(
            "{:<16} {:<12} {:<16} {:<10} {:>12} {:>12} {:>6.2}%",
            update.version,
            update.channel,
            update.to,
            way(update),
            bytes(update.bytes),
            bytes(update.whole_bytes),
            100.0 * update.bytes as f64 / update.whole_bytes.max(1) as f64,
        );
    }
    outln!("");
    let (content, chunks) = (bytes(stats.content_bytes), bytes(stats.chunk_bytes));
    outln!("store   {}", bytes(stats.store_bytes));
    if let Some(ratio) = stats.dedup_ratio() {
        outln!("chunks  {chunks} for {content} of content: {ratio:.1} to 1");
    }
    if let Some(ratio) = stats.delta_ratio() {
        let (steps, instead) = (bytes(stats.step_bytes), bytes(stats.instead_of_step_bytes));
        outln!("steps   {steps} instead of {instead} by chunks: {:.1}%", 100.0 * ratio);
    }
}

fn kept(release: &ReleaseStats) -> String {
    match release.base {
        Some(base) => format!("as patches on {base}"),
        None => "whole".to_owned(),
    }
}

fn way(update: &UpdateStats) -> String {
    match update.way {
        Way::Steps(1) => "step".to_owned(),
        Way::Steps(count) => format!("{count} steps"),
        Way::Chunks => "chunks".to_owned(),
    }
}

pub(super) fn update_json(update: &UpdateStats) -> serde_json::Value {
    let steps = match update.way {
        Way::Steps(count) => Some(count),
        Way::Chunks => None,
    };
    json!({
        "channel": update.channel,
        "serial": update.serial,
        "version": update.version,
        "to": update.to,
        "steps": steps,
        "bytes": update.bytes,
        "whole_bytes": update.whole_bytes,
    })
}

fn as_json(stats: &StoreStats) -> serde_json::Value {
    let releases = stats.releases.iter().map(|release| {
        json!({
            "serial": release.serial,
            "version": release.version,
            "channel": release.channel,
            "withdrawn": release.withdrawn,
            "base": release.base,
            "files": release.files,
            "content_bytes": release.content_bytes,
            "new_chunk_bytes": release.new_chunk_bytes,
            "steps": release.steps,
            "step_bytes": release.step_bytes,
            "manifest_bytes": release.manifest_bytes,
            "chunk_list_bytes": release.chunk_list_bytes,
        })
    });
    json!({
        "releases": releases.collect::<Vec<_>>(),
        "updates": stats.updates.iter().map(update_json).collect::<Vec<_>>(),
        "store_bytes": stats.store_bytes,
        "content_bytes": stats.content_bytes,
        "chunk_bytes": stats.chunk_bytes,
        "step_bytes": stats.step_bytes,
        "instead_of_step_bytes": stats.instead_of_step_bytes,
        "dedup_ratio": stats.dedup_ratio(),
        "delta_ratio": stats.delta_ratio(),
    })
}
