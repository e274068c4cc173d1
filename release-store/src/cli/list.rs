//! `list`: what a store holds.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use lines::{errln, outln};
use release_store::Directory;
use release_store::mirror::first_root;
use release_store::trust::{MemoryCache, Trust};
use serde_json::json;

use super::terminal;

/// List a store's releases
///
/// Needs no keys. The metadata must hang together under the store's own first root, or the one given.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  release-store list store --json")]
pub(super) struct List {
    /// The store
    store: PathBuf,
    /// The trusted root.json that the store must belong to [default: the store's own first root]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let root = match &self.root {
            Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => first_root(&self.store)?,
        };
        let transport = Directory::new(&self.store);
        let trust = Trust::new(&root, MemoryCache::new())?;
        let releases = trust.offline(&transport)?;
        let stale = trust.refresh(&transport, terminal::now()?).err();
        if self.json {
            let releases = releases.iter().map(|release| {
                json!({
                    "serial": release.serial,
                    "version": release.version,
                    "channel": release.channel,
                    "published": terminal::time(release.published),
                    "withdrawn": release.withdrawn.is_some(),
                    "reason": release.withdrawn,
                    "manifest": release.manifest_path(),
                    "base": release.base,
                })
            });
            let stale = stale.as_ref().map(ToString::to_string);
            terminal::print_json(&json!({"releases": releases.collect::<Vec<_>>(), "stale": stale}));
            return Ok(ExitCode::SUCCESS);
        }
        outln!("{:>6}  {:<16} {:<12} {:<22} state", "serial", "version", "channel", "published");
        for release in releases.iter() {
            let newest = releases.newest(&release.channel).is_some_and(|newest| newest.serial == release.serial);
            let state = match &release.withdrawn {
                Some(reason) if reason.is_empty() => "withdrawn".to_owned(),
                Some(reason) => format!("withdrawn: {reason}"),
                None if newest => "newest".to_owned(),
                None => String::new(),
            };
            let state = match release.base {
                Some(base) if state.is_empty() => format!("as patches on {base}"),
                Some(base) => format!("{state}; as patches on {base}"),
                None => state,
            };
            let published = terminal::time(release.published);
            let line = format!(
                "{:>6}  {:<16} {:<12} {published:<22} {state}",
                release.serial, release.version, release.channel
            );
            outln!("{}", line.trim_end());
        }
        if let Some(stale) = stale {
            errln!("warning: {stale}: run `renew`");
        }
        Ok(ExitCode::SUCCESS)
    }
}
