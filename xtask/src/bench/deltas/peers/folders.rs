//! Programs that make a patch from one folder to another, and from the old folder and the patch a new one.

use anyhow::Result;

use super::{Case, Peer, least, took};
use crate::bench::deltas::outcome::{Base, Update};
use crate::bench::trees;

/// HDiffPatch's own programs.
struct HDiffPatch;

impl Peer for HDiffPatch {
    fn update(&mut self, case: &Case, base: Base) -> Result<Update> {
        let (old, new) = (&case.old(base)?.tree, &case.newest()?.tree);
        let (patch, made) = (case.dir.join("patch"), case.dir.join("made"));
        let mut hdiffz = case.tools.command("hdiffz");
        hdiffz.args(["-m-6", "-SD", "-c-lzma2-9-16m", "-p-1", "-d", "-f"]).args([old, new, &patch]);
        let maker = took(&mut hdiffz)?;
        let client = least(|| {
            if made.exists() {
                std::fs::remove_dir_all(&made)?;
            }
            let mut hpatchz = case.tools.command("hpatchz");
            hpatchz.args(["-p-1", "-f"]).args([old, &patch, &made]);
            Ok(hpatchz)
        })?;
        trees::ensure_same(&made, new)?;
        let bytes = Some(trees::stored_bytes(&patch)?);
        Ok(Update { bytes, total_bytes: None, requests: None, client, maker: Some(maker) })
    }
}

pub(super) fn hdiffpatch(_case: &Case) -> Result<Box<dyn Peer>> {
    Ok(Box::new(HDiffPatch))
}
