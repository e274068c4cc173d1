//! The updater renews itself: in the free zone, then in the backups, then in the record (D13, M9).
//!
//! Order: a new image is staged and verified, run once to *ready*, written beside the old one, read back, put in its
//! place; when the commit is closed and the client may start, the older backup slot, then the mirror. The other backup slot
//! follows in a later run, when the new updater runs by itself; floors rise only when both satisfy them. So that at every
//! cut one good updater stands somewhere where the launcher finds it.

use std::io;

use embedded_io::Write as _;
use firmware_image::backup::{BackupBody, ImageReader, Index};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::hidden::SlotName;
use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::{MirrorFile, Place};
use firmware_image::slot::{self, Body, Header, Kind, OpenSlot, SlotError};
use firmware_image::storage::read_exact_at;
use firmware_image::updater_image::{Floors, ImageError, UpdaterVersion, authenticate};
use firmware_image::{Digest, RawZone, ZoneError, paths};
use release_store::Manifest;

use crate::backups::{FoundBackup, Look, read_images, same_images, verify};
use crate::commit::UpdaterStep;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::host::Probe;
use crate::own_places;
use crate::zone_io::{self, Copied};

/// The longest list of them, in bytes.
const MAX_REFUSED_BYTES: u64 = 16 << 10;
/// Segments of backups, as a power of two.
const BACKUP_SEGMENT_LOG2: u8 = 16;
/// What an updater is called while it is written beside the one in use.
pub(crate) const NEW_ENDING: &str = ".new";

/// An updater image that was verified whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundImage {
    /// Its platform.
    pub platform: String,
    /// Its version.
    pub version: UpdaterVersion,
    /// The serial of the key that signed it.
    pub key_serial: u32,
    /// SHA-256 of its executable, as its trailer says.
    pub sha256: Digest,
    /// The length of the whole file.
    pub length: u64,
    /// What it raises the floors to.
    pub floors: Floors,
    /// The trailer: the signed statement.
    pub statement: Vec<u8>,
}

impl SoundImage {
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.platform == other.platform && self.length == other.length && self.statement == other.statement
    }
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// The lowest updater that may run here.
    pub fn floors(&self) -> Floors {
        match authenticate(&self.state.statement, &self.vendor) {
            Ok(trailer) if trailer.body().product == self.config.product => trailer.body().floors,
            _ => Floors::default(),
        }
    }

    /// Verifies a file of the free zone as an updater image.
    ///
    /// # Errors
    /// Why it is none that may run here.
    pub(crate) fn sound_image(&self, path: &str, platform: &str) -> Result<SoundImage, ImageError> {
        let known = self.images.borrow().get(path).filter(|image| image.platform == platform).cloned();
        if let Some(image) = known.filter(|image| self.admitted(image)) {
            return Ok(image);
        }
        let mut file = self.free.open(path)?.ok_or(ImageError::Zone(ZoneError::NotFound))?;
        let length = file.len()?;
        let (vendor, product, floors) = (&self.vendor, &self.config.product, &self.floors());
        let image = verify(&mut file, length, platform, vendor, product, floors, Look::Whole)?;
        self.images.borrow_mut().insert(path.to_owned(), image.clone());
        Ok(image)
    }

    /// An updater in the free zone, as closely looked at as this run does. At a glance: a file with the trailer of the very
    /// program that runs is what the launcher verified a moment ago, byte by byte, and the launcher does so at every start;
    /// those for other platforms have their turn like the backups. Whatever is copied from, run or installed is verified
    /// whole when that is done.
    pub(crate) fn updater_in_free(&self, path: &str, platform: &str) -> Result<SoundImage, ImageError> {
        if self.look == Look::Glance {
            let mut file = self.free.open(path)?.ok_or(ImageError::Zone(ZoneError::NotFound))?;
            let length = file.len()?;
            let (vendor, product, floors) = (&self.vendor, &self.config.product, &self.floors());
            let image = verify(&mut file, length, platform, vendor, product, floors, Look::Glance)?;
            let own = platform == paths::THIS_PLATFORM;
            if !own || self.host.launched_trailer().is_some_and(|trailer| trailer == image.statement) {
                return Ok(image);
            }
        }
        self.sound_image(path, platform)
    }

    /// The updaters in the free zone: paths and platforms.
    fn updaters_in_free(&self) -> Result<Vec<(String, String)>, EngineError> {
        let mut updaters = Vec::new();
        for (name, _) in zone_io::files_in(self.free, "")? {
            let Some(rest) = name.strip_prefix("updater-") else { continue };
            let platform = rest.strip_suffix(".exe").unwrap_or(rest).to_owned();
            if release_store::manifest::check_platform(&platform).is_ok() && *paths::updater_name(&platform) == *name {
                updaters.push((name, platform));
            }
        }
        Ok(updaters)
    }

    /// Those that are not for this platform. What cannot be listed has no turn, and is read whole.
    pub(crate) fn other_updaters(&self) -> Vec<(String, String)> {
        let mut all = self.updaters_in_free().unwrap_or_default();
        all.retain(|(_, platform)| platform != paths::THIS_PLATFORM);
        all
    }

    /// Which updaters of a release the free zone lacks: places in the manifest's list.
    pub(crate) fn outdated_updaters(&self, manifest: &Manifest) -> Result<Vec<usize>, EngineError> {
        let refused = self.refused()?;
        let mut outdated = Vec::new();
        for (at, entry) in manifest.updaters.iter().enumerate() {
            if refused.contains(&entry.sha256) {
                continue;
            }
            let path = paths::updater_name(&entry.platform);
            let newer = |image: &SoundImage| image.version >= entry.version;
            match self.updater_in_free(&path, &entry.platform) {
                Ok(image) if newer(&image) => {}
                _ => outdated.push(at),
            }
        }
        Ok(outdated)
    }

    fn refused(&self) -> Result<Vec<Digest>, EngineError> {
        let bytes = zone_io::read_small(self.free, paths::REFUSED_UPDATERS, MAX_REFUSED_BYTES)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(Digest::from_hex).collect())
    }

    fn refuse(&mut self, digest: &Digest) -> Result<(), EngineError> {
        let mut refused = self.refused()?;
        refused.push(*digest);
        let newest = &refused[refused.len().saturating_sub(64)..];
        let text: String = newest.iter().map(|digest| format!("{digest}\n")).collect();
        zone_io::write_durable(self.free, paths::REFUSED_UPDATERS, text.as_bytes())
    }

    /// Installs the staged updaters of a commit. One that is not accepted or does not start is refused and reported: it
    /// never keeps a client from its update.
    pub(crate) fn install_updaters(&mut self, steps: &[UpdaterStep]) -> Result<(), EngineError> {
        for step in steps {
            let target = paths::updater_name(&step.platform);
            if zone_io::file_is(self.free, &target, step.size, &step.digest)? || self.refused()?.contains(&step.digest)
            {
                continue;
            }
            match self.install_updater(step, &target) {
                Ok(version) => self.note(format!("updater {version} for {} was installed", step.platform)),
                Err(error @ (EngineError::Image { .. } | EngineError::ProbeFailed { .. })) => {
                    let reason =
                        std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
                    self.alarm(format!("{error}{reason}"));
                    self.refuse(&step.digest)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn install_updater(&mut self, step: &UpdaterStep, target: &str) -> Result<UpdaterVersion, EngineError> {
        let staged = Self::staged(&step.digest);
        let image = match self.sound_image(&staged, &step.platform) {
            Ok(image) => image,
            // As it was published it is refused; otherwise the medium has lost it.
            Err(source) if zone_io::file_is(self.free, &staged, step.size, &step.digest)? => {
                return Err(EngineError::Image { platform: step.platform.clone(), source });
            }
            Err(_) => return Err(EngineError::StagingDamaged { path: target.to_owned() }),
        };
        let note = LauncherNote::read(self.free).map_err(EngineError::zone("read", paths::LAUNCHER_NOTE))?;
        let failed = |reason: String| EngineError::ProbeFailed { version: image.version.to_string(), reason };
        if note.has_failed(&image.sha256) {
            return Err(failed("the launcher could not start it".into()));
        }
        if step.platform == paths::THIS_PLATFORM {
            // The new program reads the device through a view of its own.
            self.free.sync_dir("").map_err(EngineError::zone("sync", "/"))?;
            let file = self.free.open(&staged).map_err(EngineError::zone("read", &staged))?;
            let file = file.ok_or(EngineError::Internal("a staged updater went away"))?;
            let mut image = CheckedReader::new(file, step.size, step.digest);
            let probe = self.host.probe(&mut image);
            if image.wrong {
                return Err(EngineError::StagingDamaged { path: target.to_owned() });
            }
            match probe {
                Probe::Ready => {}
                Probe::NotTried(reason) => self.watch.detail(&format!("the new updater was not tried: {reason}")),
                Probe::Failed(reason) => return Err(failed(reason)),
            }
        }
        self.put_updater(&staged, target, step.size, &step.digest)?;
        let version = image.version;
        self.images.borrow_mut().insert(target.to_owned(), image);
        Ok(version)
    }

    /// Copies a verified image over the updater in the free zone: beside it, flushed, read back, and only then in its
    /// place.
    fn put_updater(&self, from: &str, target: &str, length: u64, digest: &Digest) -> Result<(), EngineError> {
        let beside = format!("{target}{NEW_ENDING}");
        if zone_io::copy_checked(self.free, from, &beside, length, digest, &|_| {})? != Copied::Whole {
            return Err(EngineError::StagingDamaged { path: target.to_owned() });
        }
        self.finish_updater(&beside, target, length, digest)
    }

    fn finish_updater(&self, beside: &str, target: &str, length: u64, digest: &Digest) -> Result<(), EngineError> {
        let failed = || EngineError::zone("write", target);
        if let Some(mut file) = self.free.open(beside).map_err(failed())? {
            file.drop_caches().map_err(failed())?;
        }
        if !zone_io::file_is(self.free, beside, length, digest)? {
            return Err(EngineError::StagingDamaged { path: target.to_owned() });
        }
        self.free.sync_dir("").map_err(failed())?;
        self.images.borrow_mut().clear();
        self.free.rename(beside, target).map_err(failed())?;
        self.free.set_executable(target, true).map_err(failed())?;
        self.free.sync_dir("").map_err(failed())
    }

    /// Brings backups and updaters in the free zone up to each other: what one lacks comes from the other. Writes nothing
    /// where all is as it should be. The caller saves the state afterwards.
    pub(crate) fn renew_backups(&mut self) -> Result<(), EngineError> {
        if self.limits.dry_run {
            return Ok(());
        }
        if self.look == Look::Glance {
            let found = self.backups_at_a_glance();
            if self.look == Look::Glance && self.are_renewed(&found)? {
                return Ok(());
            }
            self.look = Look::Whole;
        }
        let found = self.whole_backups();
        let newest = found.iter().max_by_key(|backup| backup.precedence());
        if let Some(newest) = newest.cloned() {
            self.restore_updaters(&newest)?;
        }
        let newest = found.iter().max_by_key(|backup| backup.precedence());
        let wanted = self.best_images(newest.map_or(&[], |backup| &backup.images[..]))?;
        if wanted.is_empty() {
            return Ok(());
        }
        let holds = |place: Place| {
            let backup = found.iter().find(|backup| backup.place == place)?;
            Some(same_images(&backup.images, &wanted))
        };
        let generation = newest.map_or(0, |backup| backup.generation);
        let mut written = None;
        if self.records.has_hidden() {
            let slots = SlotName::BACKUPS.map(|slot| (slot, holds(Place::Hidden(slot))));
            let generation_of = |slot: SlotName| {
                found.iter().find(|backup| backup.place == Place::Hidden(slot)).map_or(0, |backup| backup.generation)
            };
            let older = if generation_of(SlotName::BackupA) <= generation_of(SlotName::BackupB) { 0 } else { 1 };
            let proven = self.runs_newest(&wanted);
            let targets: Vec<SlotName> = match (slots[0].1, slots[1].1) {
                // What is damaged is mended at once, from the other slot or from the free zone.
                (None, _) | (_, None) => {
                    slots.iter().filter(|(_, held)| held.is_none()).map(|(slot, _)| *slot).collect()
                }
                (Some(true), Some(true)) => Vec::new(),
                (Some(false), Some(false)) => vec![slots[older].0],
                // One holds the new updaters; the other follows when they have run by themselves.
                (Some(true), Some(false)) if proven => vec![slots[1].0],
                (Some(false), Some(true)) if proven => vec![slots[0].0],
                _ => Vec::new(),
            };
            for slot in targets {
                let next = written.unwrap_or(generation).saturating_add(1);
                if let Some(generation) = self.write_backup(Place::Hidden(slot), &wanted, next)? {
                    written = Some(generation);
                    self.state.backup_generation = generation;
                    self.note(format!("the updater's copy in the hidden zone's {slot} was renewed"));
                }
            }
        }
        if holds(Place::BackupMirror) != Some(true) {
            let generation = written.unwrap_or(generation.max(1));
            match self.write_backup(Place::BackupMirror, &wanted, generation) {
                Ok(Some(_)) if written.is_none() => self.note("the mirror of the updater's copy was renewed"),
                Ok(_) => {}
                // The mirror is a convenience where a hidden zone holds the backups.
                Err(error) if self.records.has_hidden() => {
                    self.watch.detail(&format!("the mirror of the updater's copy could not be written: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        let standing = self.whole_backups();
        if let Some(image) = self.higher_floors(&standing) {
            let (before, now) = (self.floors(), image.floors);
            if now.version > before.version {
                self.lines.push(format!("note updaters before {} may no longer run", now.version));
            }
            if now.key_serial > before.key_serial {
                self.lines
                    .push(format!("note updaters signed by a key before serial {} may no longer run", now.key_serial));
            }
            self.state.statement = image.statement;
        }
        Ok(())
    }

    /// Whether these backups and the updaters in the free zone need nothing.
    fn are_renewed(&mut self, found: &[FoundBackup]) -> Result<bool, EngineError> {
        let Some(newest) = found.iter().max_by_key(|backup| backup.precedence()) else { return Ok(false) };
        let restored =
            |image: &SoundImage| self.updater_in_free(&paths::updater_name(&image.platform), &image.platform).is_ok();
        if !newest.images.iter().all(restored) {
            return Ok(false);
        }
        let wanted = self.best_images(&newest.images)?;
        let hold = |backup: &FoundBackup| backup.place == Place::CdTail || same_images(&backup.images, &wanted);
        Ok(found.iter().all(hold) && self.higher_floors(found).is_none())
    }

    /// Restores updaters in the free zone from the newest backup, where one of these (places in the manifest's list) is
    /// missing or damaged and a backup has it.
    pub(crate) fn restore_from_backups(&mut self, manifest: &Manifest, outdated: &[usize]) -> Result<(), EngineError> {
        let found = if self.look == Look::Glance { self.backups_at_a_glance() } else { self.whole_backups() };
        let entries = || outdated.iter().filter_map(|at| manifest.updaters.get(*at));
        let serves = |image: &SoundImage| {
            entries().any(|entry| entry.platform == image.platform && entry.version <= image.version)
        };
        if !found.iter().flat_map(|backup| &backup.images).any(serves) {
            return Ok(());
        }
        self.look = Look::Whole;
        let newest = self.whole_backups().into_iter().max_by_key(FoundBackup::precedence);
        newest.map_or(Ok(()), |newest| self.restore_updaters(&newest))
    }

    /// Restores updaters in the free zone that are missing or damaged, from a backup.
    fn restore_updaters(&mut self, backup: &FoundBackup) -> Result<(), EngineError> {
        for image in &backup.images {
            let target = paths::updater_name(&image.platform);
            if self.sound_image(&target, &image.platform).is_ok() || !self.admitted(image) {
                continue;
            }
            let restored = own_places::make_way(self.free, &target).and_then(|told| {
                told.into_iter().for_each(|told| self.alarm(told));
                self.restore_updater(backup.place, image, &target)
            });
            match restored {
                Ok(()) => {
                    self.note(format!("the updater for {} was restored from the {}", image.platform, backup.place))
                }
                Err(error) => self.alarm(format!("the updater for {} could not be restored: {error}", image.platform)),
            }
        }
        Ok(())
    }

    fn admitted(&self, image: &SoundImage) -> bool {
        self.floors().admits(image.version, image.key_serial)
    }

    fn restore_updater(&mut self, place: Place, image: &SoundImage, target: &str) -> Result<(), EngineError> {
        let beside = format!("{target}{NEW_ENDING}");
        let free = self.free;
        let identity = self.owner(place).map_err(|source| EngineError::Slot { place, source })?;
        let mut file = free.create(&beside).map_err(EngineError::zone("write", &beside))?;
        file.reserve(image.length).map_err(EngineError::zone("write", &beside))?;
        let segment = &mut self.records.scratch.segment;
        let mut hasher = Hasher::new();
        self.records
            .places
            .with(place, |zone| {
                let header = Header::read(zone, Kind::Backup)?;
                let body_bytes = header.body_bytes();
                let mut open = OpenSlot::new(zone, Kind::Backup, header, &identity, segment);
                let index = Index::read(&mut open, body_bytes)?;
                let entry = index.find(&image.platform).ok_or(SlotError::Malformed)?;
                let mut reader = ImageReader::new(&mut open, entry);
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let n = zone_io::read_full(&mut reader, &mut buffer)?;
                    hasher.update(&buffer[..n]);
                    zone_io::write_all(&mut file, &buffer[..n])?;
                    if n < buffer.len() {
                        return Ok(());
                    }
                }
            })
            .map_err(|source| EngineError::Slot { place, source })?;
        file.flush().map_err(EngineError::zone("write", &beside))?;
        drop(file);
        self.finish_updater(&beside, target, image.length, &hasher.finish())?;
        Ok(())
    }

    /// The best sound image for each platform that a backup or the free zone has.
    fn best_images(&mut self, backed_up: &[SoundImage]) -> Result<Vec<SoundImage>, EngineError> {
        let mut platforms: Vec<String> = backed_up.iter().map(|image| image.platform.clone()).collect();
        platforms.extend(self.updaters_in_free()?.into_iter().map(|(_, platform)| platform));
        platforms.sort();
        platforms.dedup();
        let note = LauncherNote::read(self.free).map_err(EngineError::zone("read", paths::LAUNCHER_NOTE))?;
        let mut best = Vec::new();
        for platform in platforms.iter().take(firmware_image::backup::MAX_IMAGES) {
            let old = backed_up.iter().find(|image| image.platform == *platform);
            let found = self.updater_in_free(&paths::updater_name(platform), platform).ok();
            let found = found.filter(|image| !note.has_failed(&image.sha256));
            // What cannot be had from the free zone cannot be copied; an image that is older must not replace a newer.
            best.extend(match (found, old) {
                (Some(found), Some(old)) if found.version < old.version => Some(old.clone()),
                (Some(found), _) => Some(found),
                (None, old) => old.cloned(),
            });
        }
        Ok(best)
    }

    /// Whether this very program is the newest of `images`: it has shown that it runs.
    fn runs_newest(&self, images: &[SoundImage]) -> bool {
        let newest = images.iter().find(|image| image.platform == paths::THIS_PLATFORM);
        newest.is_none_or(|newest| self.host.own_version().is_some_and(|own| own >= newest.version))
    }

    /// Writes a backup of `images`, which stand in the free zone. `None`: one of them does not, or there is no room.
    fn write_backup(
        &mut self,
        place: Place,
        images: &[SoundImage],
        generation: u64,
    ) -> Result<Option<u64>, EngineError> {
        let free = self.free;
        let mut bodies = Vec::new();
        for image in images {
            let path = paths::updater_name(&image.platform);
            // What is known from a backup alone, where another one stands here, must not cost the slot what it holds.
            if self.updater_in_free(&path, &image.platform).ok().is_none_or(|found| found.sha256 != image.sha256) {
                return Ok(None);
            }
            // Verified a moment ago. Whether what is sealed now is that shows when it is read back.
            let Some(file) = free.open(&path).map_err(EngineError::zone("read", &path))? else { return Ok(None) };
            bodies.push(ImageFile { file, length: image.length });
        }
        let layout = Index::layout(images.iter().map(|image| (image.platform.as_str(), image.length)));
        let layout = layout.map_err(|_| EngineError::Internal("more updaters than a backup holds"))?;
        let length = slot::slot_bytes(layout.body_bytes(), BACKUP_SEGMENT_LOG2);
        let mut body = BackupBody::new(layout, &mut bodies)
            .map_err(|source| EngineError::Slot { place, source: source.into() })?;
        self.whole_backups.retain(|backup| backup.place != place);
        let (vendor, product) = (self.vendor, self.config.product.clone());
        let (identity, segment) = (&self.records.identity, &mut self.records.scratch.segment);
        let write = slot::Write { kind: Kind::Backup, generation, identity, segment_log2: BACKUP_SEGMENT_LOG2 };
        let result = match place {
            Place::BackupMirror => {
                let path = paths::BACKUP_MIRROR;
                let room = free.free_bytes().map_err(EngineError::zone("measure", "/"))?;
                let there = free.metadata(path).map_err(EngineError::zone("read", path))?;
                if room.saturating_add(there.map_or(0, |there| there.length)) < length {
                    return Ok(None);
                }
                let mut file = free.create(path).map_err(EngineError::zone("write", path))?;
                file.reserve(length).map_err(EngineError::zone("write", path))?;
                file.set_len(length).map_err(EngineError::zone("write", path))?;
                let written = write.write_checked(&mut MirrorFile(file), &mut body, segment, |open| {
                    holds_all(open, &vendor, &product, images)
                });
                zone_io::sync_parents(free, path)?;
                written
            }
            place => self.records.places.with(place, |mut zone| {
                write.write_checked(&mut zone, &mut body, segment, |open| holds_all(open, &vendor, &product, images))
            }),
        };
        match result {
            Ok(_) => {
                self.whole_backups.push(FoundBackup { place, generation, images: images.to_vec() });
                Ok(Some(generation))
            }
            Err(SlotError::Changed) => {
                self.images.borrow_mut().clear();
                self.alarm(format!(
                    "an updater in the free zone changed while it was copied to the {place}: that copy counts for nothing"
                ));
                Ok(None)
            }
            Err(SlotError::TooLong) => {
                // It will be so at every plug-in: said each time, logged never.
                self.watch.note(&format!("the {place} is too small for the updaters: they are not backed up there"));
                Ok(None)
            }
            Err(SlotError::Zone(ZoneError::ReadOnly | ZoneError::Denied)) => {
                self.watch.detail(&format!("the {place} cannot be written by this user"));
                Ok(None)
            }
            Err(source) => Err(EngineError::Slot { place, source }),
        }
    }

    /// The updater that raises the floors to what it asks for, if both backups satisfy that.
    fn higher_floors(&self, backups: &[FoundBackup]) -> Option<SoundImage> {
        let hidden: Vec<&FoundBackup> =
            backups.iter().filter(|backup| matches!(backup.place, Place::Hidden(_))).collect();
        if hidden.len() < SlotName::BACKUPS.len() {
            return None;
        }
        let now = self.floors();
        let all = || hidden.iter().flat_map(|backup| &backup.images);
        let satisfied = |floors: &Floors| all().all(|image| floors.admits(image.version, image.key_serial));
        all()
            .filter(|image| image.floors.max(now) == image.floors && image.floors != now && satisfied(&image.floors))
            .max_by_key(|image| (image.floors.version, image.floors.key_serial))
            .cloned()
    }
}

/// Reads a new backup back: `Changed` where it does not hold exactly these images, each sound.
fn holds_all<Z: RawZone>(
    open: &mut OpenSlot<'_, Z>,
    vendor: &firmware_image::signature::PublicKey,
    product: &str,
    images: &[SoundImage],
) -> Result<(), SlotError> {
    match read_images(open, vendor, product, Look::Whole) {
        Ok(found) if same_images(&found, images) => Ok(()),
        // What was sealed is read back as it was, and is no updater any more.
        Ok(_) | Err(SlotError::Malformed) => Err(SlotError::Changed),
        Err(error) => Err(error),
    }
}

/// An updater in the free zone as part of a backup's body.
struct ImageFile<T> {
    file: T,
    length: u64,
}

impl<T: firmware_image::ZoneFile> Body for ImageFile<T> {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        read_exact_at(&mut self.file, offset, buf)
    }
}

/// A file of the zone for the standard library. Reading ends well only where every byte of `length` came and is what
/// `digest` says: what was verified a moment ago may have changed since, and this reading is the one that is run.
struct CheckedReader<T> {
    file: T,
    left: u64,
    digest: Digest,
    hasher: Option<Hasher>,
    wrong: bool,
}

impl<T> CheckedReader<T> {
    fn new(file: T, length: u64, digest: Digest) -> Self {
        Self { file, left: length, digest, hasher: Some(Hasher::new()), wrong: false }
    }
}

impl<T: embedded_io::Read<Error = ZoneError>> io::Read for CheckedReader<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf).map_err(io::Error::other)?;
        let Some(left) = self.left.checked_sub(n as u64) else {
            self.wrong = true;
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.left = left;
        if n > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buf[..n]);
            }
        } else if !buf.is_empty()
            && let Some(hasher) = self.hasher.take()
            && (left > 0 || hasher.finish() != self.digest)
        {
            self.wrong = true;
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    struct Bytes<'b>(&'b [u8]);

    impl embedded_io::ErrorType for Bytes<'_> {
        type Error = ZoneError;
    }

    impl embedded_io::Read for Bytes<'_> {
        fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
            let n = self.0.len().min(buf.len()).min(3);
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn an_image_that_changed_since_it_was_verified_is_not_read_to_its_end() {
        let good = b"verified";
        let read = |bytes: &[u8]| {
            let mut reader = CheckedReader::new(Bytes(bytes), good.len() as u64, Digest::of(good));
            (reader.read_to_end(&mut Vec::new()).is_ok(), reader.wrong)
        };
        assert_eq!(read(good), (true, false));
        for changed in [&b"verifieD"[..], b"verifie", b"verified!", b""] {
            assert_eq!(read(changed), (false, true), "{changed:?}");
        }
    }
}
