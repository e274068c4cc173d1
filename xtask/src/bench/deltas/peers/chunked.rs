//! Tools that fetch from a plain file server the chunks that the client lacks.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{Case, Peer, Release, took};
use crate::bench::deltas::http::Http;
use crate::bench::deltas::outcome::{Base, Update};
use crate::bench::trees;
use crate::usage::Usage;

/// One of them, with all releases published.
struct Chunked {
    http: Http,
    www: PathBuf,
    /// What making the newest release took.
    maker: Usage,
    fetch: Fetch,
}

/// With the first release at hand fetches the second, and checks it. What it took, and how many of the bytes sent are lists.
type Fetch = fn(&Case, &Http, &Release, &Release) -> Result<(Usage, u64)>;

impl Chunked {
    fn open(case: &Case, publish: fn(&Case, &Release) -> Result<Usage>, fetch: Fetch) -> Result<Box<dyn Peer>> {
        let www = trees::empty(&www(case))?;
        let mut maker = Usage::default();
        for release in case.releases {
            maker = publish(case, release)?;
        }
        Ok(Box::new(Self { http: Http::start(&www, &case.dir.join("nginx"))?, www, maker, fetch }))
    }
}

fn www(case: &Case) -> PathBuf {
    case.dir.join("www")
}

impl Peer for Chunked {
    fn update(&mut self, case: &Case, base: Base) -> Result<Update> {
        let before = self.http.total()?;
        let (client, list_bytes) = (self.fetch)(case, &self.http, case.old(base)?, case.newest()?)?;
        let after = self.http.total()?;
        let total = after.1 - before.1;
        Ok(Update {
            bytes: Some(total.saturating_sub(list_bytes)),
            total_bytes: Some(total),
            requests: Some(after.0 - before.0),
            client,
            maker: Some(self.maker),
        })
    }

    fn store_bytes(&self) -> Result<Option<u64>> {
        trees::stored_bytes(&self.www).map(Some)
    }
}

pub(super) fn casync(case: &Case) -> Result<Box<dyn Peer>> {
    // Names and bytes only, as for the others: no times, no owners.
    const METADATA: &str = "--without=all";
    fn publish(case: &Case, release: &Release) -> Result<Usage> {
        let mut casync = case.tools.command("casync");
        casync.args(["make", METADATA, "--store"]).arg(www(case).join("store.castr"));
        casync.arg(www(case).join(format!("{}.caidx", release.version))).arg(&release.tree);
        took(&mut casync)
    }
    fn fetch(case: &Case, http: &Http, old: &Release, new: &Release) -> Result<(Usage, u64)> {
        let out = trees::empty(&case.dir.join("out"))?;
        let mut casync = case.tools.command("casync");
        casync.args(["extract", METADATA, "--store"]).arg(format!("{}/store.castr", http.url));
        casync.arg(format!("--seed={}", old.tree.display()));
        casync.arg(format!("{}/{}.caidx", http.url, new.version)).arg(out.join("tree"));
        let client = took(&mut casync)?;
        trees::ensure_same(&out.join("tree"), &new.tree)?;
        Ok((client, trees::stored_bytes(&www(case).join(format!("{}.caidx", new.version)))?))
    }
    Chunked::open(case, publish, fetch)
}

pub(super) fn bita(case: &Case) -> Result<Box<dyn Peer>> {
    fn publish(case: &Case, release: &Release) -> Result<Usage> {
        let mut bita = case.tools.command("bita");
        bita.args(["compress", "--input"]).arg(case.tar(release)?);
        took(bita.arg(www(case).join(format!("{}.cba", release.version))))
    }
    fn fetch(case: &Case, http: &Http, old: &Release, new: &Release) -> Result<(Usage, u64)> {
        let out = trees::empty(&case.dir.join("out"))?.join("new.tar");
        let mut bita = case.tools.command("bita");
        bita.args(["clone", "--seed"]).arg(case.tar(old)?);
        let client = took(bita.arg(format!("{}/{}.cba", http.url, new.version)).arg(&out))?;
        trees::ensure_same_file(&out, &case.tar(new)?)?;
        Ok((client, 0))
    }
    Chunked::open(case, publish, fetch)
}

pub(super) fn zsync(case: &Case) -> Result<Box<dyn Peer>> {
    fn publish(case: &Case, release: &Release) -> Result<Usage> {
        // Compressed on the server, where the client looks inside of it. It is made beside the archive.
        let name = format!("{}.tar", release.version);
        let archive = www(case).join(&name);
        std::fs::copy(case.tar(release)?, &archive)?;
        let mut zsyncmake = case.tools.command("zsyncmake");
        zsyncmake.args(["-z", "-u", &format!("{name}.gz"), "-o", &format!("{name}.zsync"), &name]);
        let made = took(zsyncmake.current_dir(www(case)))?;
        std::fs::remove_file(&archive)?;
        Ok(made)
    }
    fn fetch(case: &Case, http: &Http, old: &Release, new: &Release) -> Result<(Usage, u64)> {
        let out = trees::empty(&case.dir.join("out"))?;
        let mut zsync = case.tools.command("zsync");
        zsync.arg("-q").arg("-i").arg(case.tar(old)?).args(["-o", "new"]);
        zsync.arg(format!("{}/{}.tar.zsync", http.url, new.version)).current_dir(&out);
        let client = took(&mut zsync)?;
        trees::ensure_same_file(&out.join("new"), &case.tar(new)?)?;
        Ok((client, trees::stored_bytes(&www(case).join(format!("{}.tar.zsync", new.version)))?))
    }
    Chunked::open(case, publish, fetch)
}

pub(super) fn zchunk(case: &Case) -> Result<Box<dyn Peer>> {
    fn publish(case: &Case, release: &Release) -> Result<Usage> {
        let mut zck = case.tools.command("zck");
        took(zck.arg("-o").arg(www(case).join(format!("{}.zck", release.version))).arg(case.tar(release)?))
    }
    fn fetch(case: &Case, http: &Http, old: &Release, new: &Release) -> Result<(Usage, u64)> {
        let out = trees::empty(&case.dir.join("out"))?;
        let name = format!("{}.zck", new.version);
        let mut zckdl = case.tools.command("zckdl");
        zckdl.arg("-s").arg(www(case).join(format!("{}.zck", old.version)));
        let fetched = took(zckdl.arg(format!("{}/{name}", http.url)).current_dir(&out))?;
        let unpacked = took(case.tools.command("unzck").arg(&name).current_dir(&out))?;
        let tar = out.join(&new.version);
        let tar = if tar.exists() { tar } else { out.join(name.strip_suffix(".zck").context("a name")?) };
        trees::ensure_same_file(&tar, &case.tar(new)?)?;
        Ok((fetched.and(unpacked), 0))
    }
    Chunked::open(case, publish, fetch)
}
