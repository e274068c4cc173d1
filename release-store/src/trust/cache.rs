//! What was accepted before: kept by the caller, never believed without being verified again.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Keeps verified metadata between runs. Names: `N.root.json`, `timestamp.json`, `snapshot.json`, `targets.json`,
/// `archive.json`; a device keeps two more, see [`super::Trust::statement`].
///
/// What is loaded is verified again from the trusted root, so a cache needs no protection; one that loses or tears a
/// file costs a request.
pub trait TrustCache {
    /// The bytes kept under `name`; `None` where there are none, or they cannot be read.
    fn load(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps `bytes` under `name`. Called only for bytes that differ from those loaded.
    ///
    /// # Errors
    /// Reported in [`super::Refreshed::cache_error`]; a refresh goes on without.
    fn store(&self, name: &str, bytes: &[u8]) -> std::io::Result<()>;
}

impl<C: TrustCache + ?Sized> TrustCache for &C {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        (**self).load(name)
    }
    fn store(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        (**self).store(name, bytes)
    }
}

/// A cache in memory.
#[derive(Debug, Default)]
pub struct MemoryCache(Mutex<BTreeMap<String, Vec<u8>>>);

impl MemoryCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // The map is whole between any two calls, so a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl TrustCache for MemoryCache {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        self.entries().get(name).cloned()
    }
    fn store(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.entries().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
}
