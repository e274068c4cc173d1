//! Accepted TUF metadata in `.holdfast/trust`. Everything is verified again when it is used, so a file that is lost or
//! torn costs one request; the floors that must outlive a format stand in the sealed record.

use firmware_image::free_zone::FreeZone;
use firmware_image::paths;
use release_store::trust::TrustCache;

use crate::zone_io;

/// The longest file of the cache, in bytes.
const MAX_FILE_BYTES: u64 = release_store::trust::MAX_ARCHIVE_BYTES;

/// The cache in a free zone.
pub struct ZoneTrustCache<'z, F> {
    /// The free zone.
    pub zone: &'z F,
    /// Keeps nothing: for a run that only says what it would do.
    pub read_only: bool,
}

impl<F> std::fmt::Debug for ZoneTrustCache<'_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ZoneTrustCache")
    }
}

impl<F: FreeZone> TrustCache for ZoneTrustCache<'_, F> {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = path(name)?;
        let found = zone_io::read_small(self.zone, &path, MAX_FILE_BYTES).ok()?;
        if found.is_none() && !self.read_only {
            // A file that cannot be read would be tried again at every start. Where that fails too, nothing is lost.
            let _ = zone_io::remove(self.zone, &path);
        }
        found
    }

    fn store(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let path = path(name).ok_or(std::io::ErrorKind::InvalidFilename)?;
        zone_io::write_durable(self.zone, &path, bytes).map_err(std::io::Error::other)
    }
}

/// Where `name` stands. Names come from version numbers, never from a server; look at them all the same.
fn path(name: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
    (name.bytes().all(plain) && !name.contains("..")).then(|| format!("{}/{name}", paths::TRUST_DIR))
}
