//! The peers: what each is, whether it is here, and what it needs for an update.
//!
//! Each is used as its own documentation recommends for small downloads. What a client gets is compared byte for byte with the
//! release.

mod backup;
mod chunked;
mod folders;
mod ostree;
mod single;
mod whole;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::outcome::{Base, CPU_PEER, Row, STORE_PEER, Update, WHOLE};
use super::solid::Solid;
use super::tools::Tools;
use crate::bench::trees;
use crate::run;
use crate::usage::{self, Usage};

/// After this long a peer's command counts as one that does not end.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// A release on disk.
#[derive(Debug)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Its files.
    pub tree: PathBuf,
}

/// How often what a client takes is measured, where that can be done again: the least counts.
pub const RUNS: usize = 5;

/// What a peer is measured on.
pub struct Case<'a> {
    /// The programs.
    pub tools: &'a Tools,
    /// An empty folder for this peer.
    pub dir: PathBuf,
    /// What peers share: archives of the releases.
    pub shared: &'a Path,
    /// The releases, oldest first.
    pub releases: &'a [Release],
    /// What changed, for tools that know single files only.
    pub solids: &'a [(Base, Solid)],
}

/// A peer with all releases published.
trait Peer {
    /// Updates from there, and checks what came of it.
    fn update(&mut self, case: &Case, base: Base) -> Result<Update>;

    /// The bytes of everything that it keeps to serve all releases, if it keeps a store.
    fn store_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

struct Candidate {
    name: &'static str,
    is_here: fn(&Tools) -> bool,
    open: fn(&Case) -> Result<Box<dyn Peer>>,
}

const CANDIDATES: &[Candidate] = &[
    Candidate { name: WHOLE, is_here: |tools| has(tools, &["zstd"]), open: whole::open },
    Candidate { name: CPU_PEER, is_here: |tools| tools.python().is_some(), open: single::hdiffpatch },
    Candidate {
        name: "HDiffPatch, folders",
        is_here: |tools| has(tools, &["hdiffz", "hpatchz"]),
        open: folders::hdiffpatch,
    },
    Candidate { name: "bsdiff", is_here: |tools| has(tools, &["bsdiff", "bspatch"]), open: single::bsdiff },
    Candidate { name: "xdelta3", is_here: |tools| has(tools, &["xdelta3"]), open: single::xdelta3 },
    Candidate { name: "zstd --patch-from", is_here: |tools| has(tools, &["zstd"]), open: single::zstd },
    Candidate { name: "OSTree", is_here: |tools| has(tools, &["ostree", "nginx"]), open: ostree::open },
    Candidate { name: "casync", is_here: |tools| has(tools, &["casync", "nginx"]), open: chunked::casync },
    Candidate { name: "bita", is_here: |tools| has(tools, &["bita", "nginx"]), open: chunked::bita },
    Candidate { name: "zsync", is_here: |tools| has(tools, &["zsync", "zsyncmake", "nginx"]), open: chunked::zsync },
    Candidate { name: "zchunk", is_here: |tools| has(tools, &["zck", "zckdl", "nginx"]), open: chunked::zchunk },
    Candidate { name: STORE_PEER, is_here: |tools| has(tools, &["borg"]), open: backup::borg },
    Candidate { name: "restic", is_here: |tools| has(tools, &["restic"]), open: backup::restic },
];

fn has(tools: &Tools, programs: &[&str]) -> bool {
    programs.iter().all(|program| tools.program(program).is_some())
}

/// Measures every peer that is here; also the names of those that are not. A peer that fails says so in its row and takes
/// nobody with it.
pub fn measure_all(
    tools: &Tools,
    dir: &Path,
    releases: &[Release],
    solids: &[(Base, Solid)],
) -> Result<(Vec<Row>, Vec<String>)> {
    let shared = trees::empty(&dir.join("archives"))?;
    let (here, absent): (Vec<_>, Vec<_>) = CANDIDATES.iter().partition(|candidate| (candidate.is_here)(tools));
    let mut rows = Vec::new();
    for candidate in here {
        eprintln!("  {}", candidate.name);
        let case = Case { tools, dir: trees::empty(&dir.join("peer"))?, shared: &shared, releases, solids };
        rows.push(measure(candidate, &case)?);
        std::fs::remove_dir_all(&case.dir)?;
    }
    Ok((rows, absent.iter().map(|candidate| candidate.name.to_owned()).collect()))
}

fn measure(candidate: &Candidate, case: &Case) -> Result<Row> {
    let mut row = Row { program: candidate.name.to_owned(), ..Row::default() };
    let mut note = |what: &str, error: &anyhow::Error| {
        eprintln!("    {what}: {error:#}");
        row.failures.push(format!("{what}: {}", first_line(error)));
    };
    match (candidate.open)(case) {
        Err(error) => note("publishing", &error),
        Ok(mut peer) => {
            for (base, _) in case.solids {
                let update = peer.update(case, *base).map_err(|error| note(base.describe(), &error)).ok();
                match base {
                    Base::Near => row.near = update,
                    Base::Far => row.far = update,
                }
            }
            row.store_bytes = peer.store_bytes()?;
        }
    }
    Ok(row)
}

/// What fits into a cell.
fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

impl Case<'_> {
    /// The newest release.
    fn newest(&self) -> Result<&Release> {
        self.releases.last().context("there are no releases")
    }

    /// The release that an update from there starts with.
    fn old(&self, base: Base) -> Result<&Release> {
        let at = self.releases.len().checked_sub(1 + base.back());
        at.and_then(|at| self.releases.get(at)).context("there is no such release")
    }

    /// What changed from there.
    fn solid(&self, base: Base) -> Result<&Solid> {
        Ok(&self.solids.iter().find(|(kind, _)| *kind == base).context("there is no such release")?.1)
    }

    /// A release as an archive that depends on names and bytes only.
    fn tar(&self, release: &Release) -> Result<PathBuf> {
        let path = self.shared.join(format!("{}.tar", release.version));
        if !path.exists() {
            let mut tar = Command::new("tar");
            tar.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
            tar.args(["--format=gnu", "--mode=a+rX,u+w,go-w", "--file"])
                .arg(&path)
                .arg("-C")
                .arg(&release.tree)
                .arg(".");
            run::text(&mut tar)?;
        }
        Ok(path)
    }
}

/// Runs a command of a peer's client [`RUNS`] times, each after `prepare`; the least that it took.
fn least(mut prepare: impl FnMut() -> Result<Command>) -> Result<Usage> {
    let first = took(&mut prepare()?)?;
    (1..RUNS).try_fold(first, |least, _| Ok(least.least(took(&mut prepare()?)?)))
}

/// Runs a peer's command to its end; what it took.
fn took(command: &mut Command) -> Result<Usage> {
    Ok(usage::measure_within(command, PATIENCE)?.0)
}
