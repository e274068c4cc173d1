//! What is there to install: the store's releases, the choice among them, manifests and chunk lists.

use firmware_image::free_zone::FreeZone;
use firmware_image::{RawZone, paths};
use release_store::StoreError;
use release_store::manifest::{MAX_ENCODED_BYTES, Manifest};
use release_store::trust::{Release, Releases, VerifiedManifest};

use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::plan::Installed;
use crate::servers::pause;
use crate::state::KnownRelease;
use crate::zone_io;

/// How many releases are named to whoever wishes for one that is none: the newest.
const NAMED_RELEASES: usize = 10;

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
                    let left = self.servers.meter().time_left();
                    if left.is_some_and(|left| left <= wait) || self.servers.is_empty() {
                        return Err(error);
                    }
                    let text = format!("No server answers; trying again in {:.1} s.", wait.as_secs_f64());
                    // Without a limit a person may wait for a minute.
                    if left.is_none() {
                        self.watch.note(&text)
                    } else {
                        self.watch.detail(&text)
                    }
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
        // Where what is current failed here, or was withdrawn, an older one may be what to go to; none is no error yet.
        let _ = self.seek(&Wish::Newest);
        Ok(())
    }

    /// The releases known without asking: authentic, maybe old.
    pub(crate) fn known_releases(&self) -> Option<Releases> {
        if self.releases.is_some() {
            return self.releases.clone();
        }
        let trust = self.trust().ok()?;
        match (trust.cached().ok(), self.offline_releases()) {
            // What was kept may name only what is current, and is newer.
            (Some(cached), Some(offline)) => Some(cached.with(offline)),
            (cached, offline) => cached.or(offline),
        }
    }

    /// The releases of the copy of a store that the device carries with it.
    pub(crate) fn offline_releases(&self) -> Option<Releases> {
        let offline = self.offline.as_deref()?;
        self.trust().ok()?.offline(offline).ok()
    }

    /// The signed statement about a release that the record names, from wherever one can be had without asking a server.
    pub(crate) fn authentic(&self, known: &KnownRelease) -> Option<Release> {
        let cached = || self.trust().ok()?.cached().ok();
        let kept = || self.trust().ok()?.vouched(&self.statement(known)?);
        let find = |releases: Releases| {
            releases.by_serial(known.serial).filter(|release| release.manifest == known.manifest).cloned()
        };
        let sources: [&dyn Fn() -> Option<Releases>; 4] =
            [&|| self.releases.clone(), &cached, &|| self.offline_releases(), &kept];
        sources.into_iter().find_map(|source| source().and_then(find))
    }

    /// The metadata that vouches for a release, from what is kept on the device.
    pub(crate) fn statement(&self, known: &KnownRelease) -> Option<Vec<u8>> {
        self.trust().ok()?.statement(known.serial, &known.manifest)
    }

    /// As [`Engine::authentic`], and asks for older releases where it takes that.
    pub(crate) fn find(&mut self, known: &KnownRelease) -> Option<Release> {
        if self.authentic(known).is_none() {
            self.ask_archive();
        }
        self.authentic(known)
    }

    /// As [`Engine::choose`], and asks for older releases where it takes that.
    ///
    /// # Errors
    /// `NoRelease`.
    pub(crate) fn seek(&mut self, wish: &Wish) -> Result<Release, EngineError> {
        if self.choose(wish).is_err() {
            self.ask_archive();
        }
        self.choose(wish)
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
                let there = releases.iter().rev().filter(|release| release.channel == *channel);
                let there: Vec<&str> = there.take(NAMED_RELEASES).map(|release| release.version.as_str()).collect();
                let there =
                    if there.is_empty() { "none is known".into() } else { format!("there are {}", there.join(", ")) };
                EngineError::NoRelease(format!("there is no release {version} in channel {channel}: {there}"))
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

    /// Asks for the releases that are not current, once in a run. Not having them is no error: what is missing says so.
    pub(crate) fn ask_archive(&mut self) {
        if self.on_device_only || std::mem::replace(&mut self.archive_asked, true) {
            return;
        }
        let Ok(trust) = self.trust() else { return };
        match self.servers.ask(|server| trust.archive(server)) {
            Ok(releases) => self.releases = Some(releases),
            Err(error) => self.watch.detail(&format!("older releases are out of reach: {error}")),
        }
    }

    /// The manifest of a release: from the device, else from the copy it carries, else by a step from the installed
    /// release, else from a server.
    ///
    /// # Errors
    /// As [`Engine::ask_patiently`]; what is had is verified. `Store` for one that does not open or is for another
    /// product.
    pub(crate) fn manifest(
        &mut self,
        release: &Release,
        installed: Option<&Installed>,
    ) -> Result<(VerifiedManifest, Manifest), EngineError> {
        let staged = Self::staged(&release.manifest);
        let mut found = None;
        for path in [paths::MANIFEST, paths::PREVIOUS_MANIFEST, &staged] {
            if found.is_none()
                && let Some(bytes) = zone_io::read_small(self.free, path, MAX_ENCODED_BYTES)?
            {
                found = VerifiedManifest::accept(release, bytes).ok();
            }
        }
        let keys = self.content_keys();
        if found.is_none()
            && let Some(offline) = self.offline.as_deref()
        {
            found = VerifiedManifest::fetch(release, offline, &keys).ok();
        }
        if found.is_none()
            && let Some(installed) = installed
        {
            found = self.manifest_by_step(release, installed)?;
        }
        let verified = match found {
            Some(verified) => verified,
            None => self.ask_patiently(|server| VerifiedManifest::fetch(release, server, &keys))?,
        };
        let manifest = verified.open(&self.config.product)?;
        Ok((verified, manifest))
    }

    /// The manifest of the installed release, if it is on the device and authentic. Never asks a server.
    pub(crate) fn local_manifest(&self, known: &KnownRelease) -> Option<Manifest> {
        let release = self.authentic(known)?;
        for path in [paths::MANIFEST, paths::PREVIOUS_MANIFEST] {
            let Ok(Some(bytes)) = zone_io::read_small(self.free, path, MAX_ENCODED_BYTES) else { continue };
            if let Ok(verified) = VerifiedManifest::accept(&release, bytes) {
                return verified.open(&self.config.product).ok();
            }
        }
        let verified = VerifiedManifest::fetch(&release, self.offline.as_deref()?, &self.content_keys()).ok()?;
        verified.open(&self.config.product).ok()
    }

    /// The installed release, if it is another one than `release` and its manifest is at hand.
    pub(crate) fn installed_other_than(&mut self, release: &Release) -> Option<Installed> {
        let known = self.state.release.clone().filter(|known| known.serial != release.serial)?;
        let release = self.find(&known)?;
        Some(Installed { release, manifest: self.local_manifest(&known)? })
    }

    /// The sealed chunk list of a release. `network`: whether a server may be asked.
    ///
    /// # Errors
    /// As asking reports.
    pub(crate) fn sealed_chunk_list(&self, release: &Release, network: bool) -> Result<Option<Vec<u8>>, EngineError> {
        let (object, name) = (release.chunks, release.chunks_name());
        let staged = Self::staged(&object.digest);
        for path in [paths::CHUNK_LIST, &staged] {
            if let Some(bytes) = zone_io::read_small(self.free, path, object.bytes)?
                && object.check(&name, &bytes).is_ok()
            {
                return Ok(Some(bytes));
            }
        }
        if let Some(offline) = self.offline.as_deref()
            && let Ok(bytes) = object.fetch(&name, offline)
        {
            return Ok(Some(bytes));
        }
        if !network {
            return Ok(None);
        }
        self.ask_patiently(|server| object.fetch(&name, server)).map(Some)
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
            let missing = matches!(&error, EngineError::NotThere { .. });
            let hopeless = missing || !matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic);
            if hopeless || round + 1 >= self.limits.rounds || self.servers.is_empty() {
                return Err(error);
            }
            self.host.sleep(pause(round, self.host));
            round += 1;
        }
    }
}
