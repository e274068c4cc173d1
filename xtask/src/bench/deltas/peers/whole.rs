//! No delta at all: the whole release, compressed.

use std::path::PathBuf;

use anyhow::Result;

use super::{Case, Peer, took};
use crate::bench::deltas::outcome::{Base, Update};
use crate::bench::trees;
use crate::usage::Usage;

struct Whole {
    archive: PathBuf,
    maker: Usage,
}

pub(super) fn open(case: &Case) -> Result<Box<dyn Peer>> {
    let archive = case.dir.join("whole.tar.zst");
    let mut zstd = case.tools.command("zstd");
    zstd.args(["-19", "--long=27", "-T1", "-q"]).arg(case.tar(case.newest()?)?).arg("-o").arg(&archive);
    Ok(Box::new(Whole { maker: took(&mut zstd)?, archive }))
}

impl Peer for Whole {
    fn update(&mut self, case: &Case, _base: Base) -> Result<Update> {
        let out = trees::empty(&case.dir.join("out"))?.join("whole.tar");
        let mut zstd = case.tools.command("zstd");
        let client = took(zstd.args(["-d", "--long=27", "-q"]).arg(&self.archive).arg("-o").arg(&out))?;
        trees::ensure_same_file(&out, &case.tar(case.newest()?)?)?;
        let bytes = Some(trees::stored_bytes(&self.archive)?);
        Ok(Update { bytes, total_bytes: bytes, requests: Some(1), client, maker: Some(self.maker) })
    }
}
