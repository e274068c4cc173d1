//! Backup programs: the densest stores that hold every release. They know no updates; a client restores the newest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{Case, Peer, took};
use crate::bench::deltas::outcome::{Base, Update};
use crate::bench::trees;
use crate::run;
use crate::usage::Usage;

/// One of them, with all releases in its repository.
struct Backup {
    repository: PathBuf,
    maker: Usage,
    client: Usage,
}

impl Peer for Backup {
    fn update(&mut self, _case: &Case, _base: Base) -> Result<Update> {
        let maker = Some(self.maker);
        Ok(Update { bytes: None, total_bytes: None, requests: None, client: self.client, maker })
    }

    fn store_bytes(&self) -> Result<Option<u64>> {
        trees::stored_bytes(&self.repository).map(Some)
    }
}

pub(super) fn borg(case: &Case) -> Result<Box<dyn Peer>> {
    let repository = case.dir.join("repository");
    let borg = || -> Command {
        let mut borg = case.tools.command("borg");
        borg.env("BORG_PASSPHRASE", "bench").env("BORG_BASE_DIR", case.dir.join("home"));
        borg
    };
    run::text(borg().args(["init", "--encryption", "repokey-blake2"]).arg(&repository))?;
    let archive = |version: &str| format!("{}::{version}", repository.display());
    let mut maker = Usage::default();
    for release in case.releases {
        let mut create = borg();
        create.args(["create", "--compression", "zstd,19", &archive(&release.version), "."]);
        maker = took(create.current_dir(&release.tree))?;
    }
    let new = case.newest()?;
    let out = trees::empty(&case.dir.join("out"))?;
    let client = took(borg().args(["extract", &archive(&new.version)]).current_dir(&out))?;
    trees::ensure_same(&out, &new.tree)?;
    Ok(Box::new(Backup { repository, maker, client }))
}

pub(super) fn restic(case: &Case) -> Result<Box<dyn Peer>> {
    let repository = case.dir.join("repository");
    let restic = || -> Command {
        let mut restic = case.tools.command("restic");
        restic.env("RESTIC_PASSWORD", "bench").env("RESTIC_CACHE_DIR", case.dir.join("cache"));
        restic.arg("--repo").arg(&repository);
        restic
    };
    run::text(restic().arg("init"))?;
    let mut maker = Usage::default();
    for release in case.releases {
        let mut backup = restic();
        backup.args(["backup", "--quiet", "--compression", "max", "."]);
        maker = took(backup.current_dir(&release.tree))?;
    }
    let new = case.newest()?;
    let out = trees::empty(&case.dir.join("out"))?;
    // It keeps the path that the files had.
    let client = took(restic().args(["restore", "latest", "--target"]).arg(&out))?;
    let kept = new.tree.strip_prefix("/").unwrap_or(&new.tree);
    let restored = if out.join(kept).is_dir() { out.join(kept) } else { out };
    trees::ensure_same(&restored, &new.tree)?;
    Ok(Box::new(Backup { repository, maker, client }))
}
