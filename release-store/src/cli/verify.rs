//! `verify`: whether a store is whole.

use std::path::PathBuf;
use std::process::ExitCode;

use lines::{errln, outln};
use release_store::verify::{Verified, verify};
use serde_json::json;

use super::{KeysArgument, terminal};

/// Check that every frame decrypts to what its manifest says
///
/// Reads everything and changes nothing. Files that no release names are reported and do no harm.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 whole, 1 damaged (repair with `mirror --check` from a sound copy), 3 keys.

Example:
  release-store verify store --keys keys")]
pub(super) struct Verify {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let verified = self.keys.read(&self.store, |root, product, keys| {
            verify(&self.store, root, product, keys, &mut terminal::Bar::new("verifying"))
        })?;
        if self.json {
            terminal::print_json(&as_json(&verified));
        } else {
            explain(&verified)?;
        }
        Ok(if verified.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn explain(verified: &Verified) -> anyhow::Result<()> {
    for orphan in &verified.orphans {
        errln!("not named by any release: {}", orphan.escape_debug());
    }
    for (object, error) in &verified.damage {
        outln!("damaged: {object}: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            outln!("  because: {error}");
            cause = error.source();
        }
    }
    if verified.doomed > 0 {
        errln!("{} files that no release names any more wait for `gc` to delete them", verified.doomed);
    }
    let counted = terminal::counted;
    let (releases, packs) = (counted(verified.releases, "release"), counted(verified.packs, "pack"));
    let frames = counted(verified.frames, "frame");
    let bytes = terminal::bytes(verified.bytes);
    let found = match verified.damage.len() {
        0 => "whole".to_owned(),
        n => format!("{} damaged; repair with `mirror --check` from a sound copy", counted(n as u64, "object")),
    };
    errln!("{releases}, {packs}, {frames}, {bytes} of content: {found}");
    Ok(())
}

fn as_json(verified: &Verified) -> serde_json::Value {
    let damage = verified.damage.iter().map(|(object, error)| json!({"object": object, "problem": error.to_string()}));
    json!({
        "whole": verified.damage.is_empty(),
        "releases": verified.releases,
        "packs": verified.packs,
        "frames": verified.frames,
        "bytes": verified.bytes,
        "damage": damage.collect::<Vec<_>>(),
        "orphans": verified.orphans,
        "doomed": verified.doomed,
    })
}
