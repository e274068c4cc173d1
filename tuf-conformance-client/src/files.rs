//! Where metadata and targets come from and stay.

use std::fs::File;
use std::io::{Read as _, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use release_store::transport::{GetOutcome, Sink};
use release_store::trust::TrustCache;
use release_store::{Transport, TransportError};
use updater::http::{Http, agent};
use updater::meter::Meter;

/// The name of the newest trusted root.
pub const ROOT: &str = "root.json";

/// Accepted metadata in a directory, byte for byte, without versions in the names. Nothing else there ends in `.json`.
pub struct MetadataDir(PathBuf);

impl MetadataDir {
    /// What is kept in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }
}

/// Whether this is `N.root.json`. A delegated role's file never is: `Trust` writes the dots in its name otherwise.
fn is_versioned_root(name: &str) -> bool {
    let version = name.strip_suffix(".root.json");
    version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
}

impl TrustCache for MetadataDir {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        // The trusted root is the newest one: no later one is kept beside it.
        if is_versioned_root(name) {
            return None;
        }
        std::fs::read(self.0.join(name)).ok()
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Roots are stored in their order, so the last one stays.
        replace(&self.0, if is_versioned_root(name) { ROOT } else { name }, bytes)
    }
}

/// Puts `bytes` into `directory` as `name`: the old file or the new one, never a part.
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let new = directory.join("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, directory.join(name))
}

/// The file at `path`, of at most `max_bytes`.
pub fn read(path: &Path, max_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > max_bytes {
        anyhow::bail!("{} is longer than {max_bytes} bytes", path.display());
    }
    Ok(bytes)
}

/// A repository whose metadata and targets have addresses of their own.
pub struct Repository {
    metadata: Http,
    targets: Option<Http>,
}

impl Repository {
    /// The repository at these addresses.
    pub fn new(metadata: &str, targets: Option<&str>) -> Self {
        let (agent, meter) = (agent(), Meter::new(None, None));
        let http = |base: &str| Http::new(agent.clone(), base, meter.clone());
        Self { metadata: http(metadata), targets: targets.map(http) }
    }
}

impl Transport for Repository {
    fn describe(&self) -> String {
        self.metadata.describe()
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> std::result::Result<GetOutcome, TransportError> {
        let (place, rest) = match path.split_once('/') {
            Some(("metadata", rest)) => (Some(&self.metadata), rest),
            Some(("targets", rest)) => (self.targets.as_ref(), rest),
            _ => (None, path),
        };
        let no_place = || TransportError::Refused { path: path.to_owned(), reason: "it has no address".into() };
        place.ok_or_else(no_place)?.get(rest, range, max_bytes, sink)
    }
}
