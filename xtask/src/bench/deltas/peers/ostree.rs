//! OSTree: a repository on a plain file server, with static deltas to the newest release.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Case, Peer, took};
use crate::bench::deltas::http::Http;
use crate::bench::deltas::outcome::{Base, Update};
use crate::bench::trees;
use crate::run;
use crate::usage::Usage;

/// Larger files get no delta of their own, in MiB. Its own default is lower, and would leave out the largest program.
const MAX_BSDIFF_MIB: u32 = 400;

struct Ostree {
    http: Http,
    repository: PathBuf,
    /// The commits of all releases.
    commits: Vec<String>,
    /// What committing the newest took.
    commit: Usage,
}

pub(super) fn open(case: &Case) -> Result<Box<dyn Peer>> {
    let www = trees::empty(&case.dir.join("www"))?;
    let repository = www.join("repo");
    run::text(ostree(case, &repository).args(["init", "--mode=archive"]))?;
    let mut commits = Vec::new();
    let mut last = Usage::default();
    for release in case.releases {
        let branch = branch(&release.version);
        let mut commit = ostree(case, &repository);
        commit.args(["commit", "--branch", &branch, "--owner-uid=0", "--owner-gid=0", "--no-xattrs"]);
        commit.args(["--canonical-permissions", "--timestamp=@0"]);
        last = took(commit.arg(format!("--tree=dir={}", release.tree.display())))?;
        commits.push(run::text(ostree(case, &repository).args(["rev-parse", &branch]))?.trim().to_owned());
    }
    let http = Http::start(&www, &case.dir.join("nginx"))?;
    Ok(Box::new(Ostree { http, repository, commits, commit: last }))
}

impl Peer for Ostree {
    fn update(&mut self, case: &Case, base: Base) -> Result<Update> {
        let (old, new) = (case.old(base)?, case.newest()?);
        let at = |version: &str| case.releases.iter().position(|release| release.version == version);
        let commit_of = |version: &str| at(version).and_then(|at| self.commits.get(at)).cloned().unwrap_or_default();
        let (old_commit, new_commit) = (commit_of(&old.version), commit_of(&new.version));
        let deltas = self.repository.join("deltas");
        let earlier = if deltas.exists() { trees::stored_bytes(&deltas)? } else { 0 };
        let mut generate = ostree(case, &self.repository);
        generate.args(["static-delta", "generate", "--min-fallback-size=0"]);
        generate.arg(format!("--max-bsdiff-size={MAX_BSDIFF_MIB}"));
        let delta = took(generate.arg(format!("--from={old_commit}")).arg(format!("--to={new_commit}")))?;
        let delta_bytes = trees::stored_bytes(&deltas)? - earlier;
        run::text(ostree(case, &self.repository).args(["summary", "--update"]))?;

        let local = trees::empty(&case.dir.join("client"))?;
        run::text(ostree(case, &local).args(["init", "--mode=bare-user-only"]))?;
        let url = format!("{}/repo", self.http.url);
        run::text(ostree(case, &local).args(["remote", "add", "--no-gpg-verify", "origin", &url]))?;
        run::text(ostree(case, &local).args(["pull", "origin", &old_commit]))?;
        let before = self.http.total()?;
        let mut pull = ostree(case, &local);
        let pulled = took(pull.args(["pull", "--require-static-deltas", "origin", &branch(&new.version)]))?;
        let after = self.http.total()?;
        let out = trees::empty(&case.dir.join("out"))?.join("tree");
        let checked_out = took(ostree(case, &local).args(["checkout", "--user-mode", &new_commit]).arg(&out))?;
        trees::ensure_same(&out, &new.tree)?;
        Ok(Update {
            // Its client may fetch objects that the delta gives as well: that is in the total only.
            bytes: Some(delta_bytes),
            total_bytes: Some(after.1 - before.1),
            requests: Some(after.0 - before.0),
            client: pulled.and(checked_out),
            maker: Some(self.commit.and(delta)),
        })
    }

    fn store_bytes(&self) -> Result<Option<u64>> {
        trees::stored_bytes(&self.repository).map(Some)
    }
}

fn ostree(case: &Case, repository: &Path) -> Command {
    let mut ostree = case.tools.command("ostree");
    ostree.arg(format!("--repo={}", repository.display()));
    ostree
}

fn branch(version: &str) -> String {
    format!("release/{version}")
}
