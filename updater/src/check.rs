//! What is there to install: the store's releases, the choice among them, manifests and chunk lists.

use firmware_image::free_zone::FreeZone;
use firmware_image::{Digest, RawZone, paths};
use release_store::chunk_list::ChunkList;
use release_store::manifest::{MAX_SEALED_BYTES, Manifest};
use release_store::transport::get_all;
use release_store::trust::{Release, Releases, SealedManifest};
use release_store::{StoreError, TransportError};

use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::servers::pause;
use crate::state::KnownRelease;
use crate::zone_io;

/// Which release is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The newest that was not withdrawn and did not fail here.
    Newest,
    /// The one with this version.
    Version(String),
    /// The one before the installed one.
    Previous,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Asks the servers what is newest, and remembers what they are believed (requests: two where nothing is new).
    ///
    /// # Errors
    /// `Offline`, `NotAuthentic`, `NoServers`, `LimitReached`.
    pub fn refresh(&mut self) -> Result<(), EngineError> {
        let trust = self.trust()?;
        let now = self.host.now();
        let mut round = 0;
        let refreshed = loop {
            match self.servers.ask(|server| trust.refresh(server, now)) {
                Ok(refreshed) => break refreshed,
                Err(error) if error.kind() == FailureKind::Offline && round + 1 < self.limits.rounds => {
                    let wait = pause(round, self.host);
                    if self.servers.meter().time_left().is_some_and(|left| left <= wait) || self.servers.is_empty() {
                        return Err(error);
                    }
                    self.watch.detail(&format!("no server answers; trying again in {:.1} s", wait.as_secs_f64()));
                    self.host.sleep(wait);
                    round += 1;
                }
                Err(error) => return Err(error),
            }
        };
        if refreshed.clock_disputed.is_some() {
            self.alarm("this machine's clock is wrong: the server's time was believed");
        }
        if let Some(error) = refreshed.cache_error {
            self.watch.detail(&format!("what the server said could not be kept: {error}"));
        }
        self.state.root = refreshed.accepted.root;
        self.state.timestamp = refreshed.accepted.timestamp;
        self.state.snapshot = refreshed.accepted.snapshot;
        self.releases = Some(refreshed.releases);
        Ok(())
    }

    /// The releases known without asking: authentic, maybe old.
    pub(crate) fn known_releases(&self) -> Option<Releases> {
        if self.releases.is_some() {
            return self.releases.clone();
        }
        let trust = self.trust().ok()?;
        trust.cached().ok().filter(|releases| !releases.is_empty()).or_else(|| self.offline_releases())
    }

    /// The releases of the copy of a store that the device carries with it.
    pub(crate) fn offline_releases(&self) -> Option<Releases> {
        let offline = self.offline.as_deref()?;
        self.trust().ok()?.offline(offline).ok()
    }

    /// The signed statement about a release that the record names, from wherever one can be had without asking a server.
    pub(crate) fn authentic(&self, known: &KnownRelease) -> Option<Release> {
        let cached = || self.trust().ok()?.cached().ok();
        let sources = [self.releases.clone(), cached(), self.offline_releases()];
        let find = |releases: Releases| {
            releases.by_serial(known.serial).filter(|release| release.manifest_digest == known.manifest).cloned()
        };
        sources.into_iter().flatten().find_map(find)
    }

    /// The release that `wish` means.
    ///
    /// # Errors
    /// `NoRelease`.
    pub fn choose(&self, wish: &Wish) -> Result<Release, EngineError> {
        let channel = &self.config.channel;
        let releases = self.known_releases().unwrap_or_default();
        match wish {
            Wish::Newest => {
                let newest = releases.iter().rev().find(|release| self.eligible(release)).cloned();
                newest.ok_or_else(|| EngineError::NoRelease(format!("the store has no release for channel {channel}")))
            }
            Wish::Version(version) => releases.by_version(channel, version).cloned().ok_or_else(|| {
                EngineError::NoRelease(format!("there is no release {version} in channel {channel}: see `check`"))
            }),
            Wish::Previous => {
                let none = || EngineError::NoRelease("no earlier release is known: name one with --to VERSION".into());
                let previous = self.state.previous.as_ref();
                if let Some(release) = previous.and_then(|previous| self.authentic(previous)) {
                    return Ok(release);
                }
                let installed = self.state.release.as_ref().ok_or_else(none)?;
                let earlier = |release: &&Release| release.serial < installed.serial && self.eligible(release);
                releases.iter().rev().find(earlier).cloned().ok_or_else(none)
            }
        }
    }

    /// Whether a release may be installed by itself: of this channel, not withdrawn, and it did not fail here.
    pub(crate) fn eligible(&self, release: &Release) -> bool {
        release.channel == self.config.channel && release.withdrawn.is_none() && !self.state.skips(release.serial)
    }

    /// The sealed manifest of a release: from the device, else from the copy it carries, else from a server.
    ///
    /// # Errors
    /// As [`Engine::get`]; what is had is verified.
    pub(crate) fn sealed_manifest(&self, release: &Release) -> Result<SealedManifest, EngineError> {
        let staged = Self::staged(&release.manifest_digest);
        for path in [paths::MANIFEST, paths::PREVIOUS_MANIFEST, &staged] {
            if let Some(bytes) = zone_io::read_small(self.free, path, MAX_SEALED_BYTES)?
                && let Ok(sealed) = SealedManifest::accept(release, bytes)
            {
                return Ok(sealed);
            }
        }
        if let Some(offline) = self.offline.as_deref()
            && let Ok(sealed) = SealedManifest::fetch(release, offline)
        {
            return Ok(sealed);
        }
        self.ask_patiently(|server| SealedManifest::fetch(release, server))
    }

    /// The manifest of a release.
    ///
    /// # Errors
    /// As [`Engine::sealed_manifest`]; `Store` for one that does not open or is for another product.
    pub(crate) fn manifest(&self, release: &Release) -> Result<(SealedManifest, Manifest), EngineError> {
        let sealed = self.sealed_manifest(release)?;
        let manifest = sealed.open(&self.config.product, &self.content_keys())?;
        Ok((sealed, manifest))
    }

    /// The manifest of the installed release, if it is on the device and authentic. Never asks a server.
    pub(crate) fn local_manifest(&self, known: &KnownRelease) -> Option<Manifest> {
        let release = self.authentic(known)?;
        for path in [paths::MANIFEST, paths::PREVIOUS_MANIFEST] {
            let Ok(Some(bytes)) = zone_io::read_small(self.free, path, MAX_SEALED_BYTES) else { continue };
            if let Ok(sealed) = SealedManifest::accept(&release, bytes) {
                return sealed.open(&self.config.product, &self.content_keys()).ok();
            }
        }
        let sealed = SealedManifest::fetch(&release, self.offline.as_deref()?).ok()?;
        sealed.open(&self.config.product, &self.content_keys()).ok()
    }

    /// The sealed chunk list of a manifest. `network`: whether a server may be asked.
    ///
    /// # Errors
    /// As asking reports.
    pub(crate) fn sealed_chunk_list(&self, manifest: &Manifest, network: bool) -> Result<Option<Vec<u8>>, EngineError> {
        let at = &manifest.chunk_list;
        let limit = u64::from(at.stored_len);
        let good = |bytes: &Vec<u8>| Digest::of(bytes) == at.pack;
        let staged = Self::staged(&at.pack);
        for path in [paths::CHUNK_LIST, &staged] {
            if let Some(bytes) = zone_io::read_small(self.free, path, limit)?.filter(good) {
                return Ok(Some(bytes));
            }
        }
        if let Some(offline) = self.offline.as_deref()
            && let Some(bytes) = get_all(offline, &at.path(), limit).ok().filter(good)
        {
            return Ok(Some(bytes));
        }
        if !network {
            return Ok(None);
        }
        let bytes = self.ask_patiently(|server| {
            let bytes = get_all(server, &at.path(), limit)?;
            let found = Digest::of(&bytes);
            if found == at.pack {
                return Ok(bytes);
            }
            Err(StoreError::WrongDigest { object: at.path(), expected: at.pack, found })
        })?;
        Ok(Some(bytes))
    }

    pub(crate) fn open_chunk_list(&self, sealed: &[u8], manifest: &Manifest) -> Result<ChunkList, EngineError> {
        Ok(ChunkList::open(sealed, manifest, &self.content_keys())?)
    }

    /// Asks the servers again and again, with pauses, as long as that may help.
    pub(crate) fn ask_patiently<R>(
        &self,
        mut ask: impl FnMut(&dyn release_store::Transport) -> Result<R, StoreError>,
    ) -> Result<R, EngineError> {
        if self.on_device_only {
            return Err(EngineError::OutOfReach);
        }
        let mut round = 0;
        loop {
            let error = match self.servers.ask(&mut ask) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let missing = matches!(&error, EngineError::Store(StoreError::Transport(TransportError::NotFound { .. })));
            let hopeless = missing || !matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic);
            if hopeless || round + 1 >= self.limits.rounds || self.servers.is_empty() {
                return Err(error);
            }
            self.host.sleep(pause(round, self.host));
            round += 1;
        }
    }
}
