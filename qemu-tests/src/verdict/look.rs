//! What stands on a device, read from its image without any program of the project but its own readers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use embedded_io::Read as _;
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES};
use firmware_image::free_zone::Kind;
use firmware_image::hidden::HiddenZone;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::any_zone::{AnyFreeZone, VirtualZone as _, walk};
use firmware_image::image::{self};
use firmware_image::places::{Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::signature::PublicKey;
use firmware_image::storage::{Window, read_exact_at};
use firmware_image::updater_image::{MAX_IMAGE_BYTES, MAX_TRAILER_BYTES, verify_bytes};
use firmware_image::{FreeZone as _, RawZone as _, paths, stamp};

use sha2::{Digest as _, Sha256};

use super::Release;

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 << 10;
/// The longest file that is compared, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What of a device never changes.
pub struct Device {
    /// The vendor's key, as the device's own launcher has it.
    pub vendor: PublicKey,
    config: Vec<u8>,
}

/// What was found.
pub struct Found {
    /// Every file outside `.holdfast/` but the updaters.
    pub files: Files,
    /// Whether the updater in the free zone is sound.
    pub updater: Result<(), String>,
    /// The version that the newest record names.
    pub recorded: Option<String>,
}

impl Device {
    /// Reads what never changes from an image.
    ///
    /// # Errors
    /// It is not that of a whole device.
    pub fn open(image: &Path) -> Result<Self> {
        let zone = image::Device::open(image, None, Access::ReadOnly)?.virtual_zone()?;
        let config =
            zone.read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64)?.context("there is no device.cfg")?;
        let name = paths::bootstrap_name(paths::THIS_PLATFORM);
        let launcher = zone.read_file(&name, MAX_IMAGE_BYTES)?.with_context(|| format!("there is no {name}"))?;
        let vendor = stamp::stamped_key(&launcher)?.context("the device's launcher trusts nobody")?;
        Ok(Self { vendor, config })
    }

    /// Looks at the device in an image.
    ///
    /// # Errors
    /// Its free zone cannot be read.
    pub fn look(&self, image: &Path) -> Result<Found> {
        let device = image::Device::open(image, None, Access::ReadOnly)?;
        let free = device.free_zone().context("the free zone cannot be opened")?;
        let mut listed = Vec::new();
        walk(&free, "", &mut |path, _| listed.push(path.to_owned())).context("the free zone cannot be listed")?;
        let updater = paths::updater_name(paths::THIS_PLATFORM);
        let ours = |path: &str| path.split('/').next() == Some(paths::STATE_DIR) || path == updater.as_str();
        let mut files = Files::new();
        for path in listed.into_iter().filter(|path| !ours(path)) {
            let bytes = read(&free, &path).with_context(|| format!("{path} cannot be read"))?;
            files.insert(path, bytes);
        }
        let updater = read(&free, &updater).map_err(|error| format!("{error:#}")).and_then(|bytes| {
            let mut buffer = [0; MAX_TRAILER_BYTES];
            verify_bytes(&bytes, &self.vendor, &mut buffer).map(|_| ()).map_err(|error| error.to_string())
        });
        let config = DeviceConfig::open(&self.config, &self.vendor).map_err(|error| anyhow!("device.cfg: {error}"))?;
        let hidden = device.hidden_zone().and_then(|zone| HiddenZone::new(zone, u64::from(config.align_bytes)));
        let mut places = Places { hidden: hidden.ok(), free: Some(&free), cd_tail: None::<Window<FileZone>> };
        let mut record = vec![0; MAX_RECORD_BYTES];
        let newest = places.newest_record(&config.secret(), &mut Box::<Scratch>::default().memory(), &mut record);
        let recorded = newest.and_then(|found| Some(found.record.release.as_ref()?.version.to_owned()));
        Ok(Found { files, updater, recorded })
    }

    /// A digest of everything in the free zone but the log, and of the whole hidden zone.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn fingerprint(&self, image: &Path) -> Result<[u8; 32]> {
        let device = image::Device::open(image, None, Access::ReadOnly)?;
        let free = device.free_zone().context("the free zone cannot be opened")?;
        let mut listed = Vec::new();
        walk(&free, "", &mut |path, _| listed.push(path.to_owned())).context("the free zone cannot be listed")?;
        let mut digest = Sha256::new();
        for path in listed.iter().filter(|path| ![paths::LOG, paths::OLD_LOG].contains(&path.as_str())) {
            digest.update(path);
            // What cannot be read stays so.
            digest.update(read(&free, path).unwrap_or_default());
        }
        let mut hidden = device.hidden_zone()?;
        let (length, mut piece) = (hidden.len()?, vec![0; PIECE_BYTES]);
        let mut at = 0;
        while at < length {
            let take = usize::try_from(length - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            read_exact_at(&mut hidden, at, &mut piece[..take])?;
            digest.update(&piece[..take]);
            at += take as u64;
        }
        Ok(digest.finalize().into())
    }

    /// Whether there is a directory at `path` in the free zone.
    pub fn has_directory(&self, image: &Path, path: &str) -> bool {
        let found =
            || -> Result<_> { Ok(image::Device::open(image, None, Access::ReadOnly)?.free_zone()?.metadata(path)?) };
        matches!(found(), Ok(Some(metadata)) if metadata.kind == Kind::Directory)
    }

    /// Copies the free zone of an image into a file of its own, with holes.
    ///
    /// # Errors
    /// It cannot be read, or the file not be written.
    pub fn copy_free_zone(&self, image: &Path, to: &Path) -> Result<()> {
        copy_zone(&mut image::Device::open(image, None, Access::ReadOnly)?.free_raw()?, to)
    }
}

/// Copies a zone into a file of its own, with holes.
pub(super) fn copy_zone(zone: &mut Window<FileZone>, to: &Path) -> Result<()> {
    let length = zone.len()?;
    let failed = || format!("cannot write {}", to.display());
    let file = File::create(to).with_context(failed)?;
    file.set_len(length).with_context(failed)?;
    let (mut piece, zeros) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut at = 0;
    while at < length {
        let take = usize::try_from(length - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        read_exact_at(zone, at, &mut piece[..take])?;
        if piece[..take] != zeros[..take] {
            file.write_all_at(&piece[..take], at).with_context(failed)?;
        }
        at += take as u64;
    }
    Ok(())
}

/// Files by their paths.
type ByPath<'f> = BTreeMap<&'f str, &'f Vec<u8>>;

impl Found {
    /// The files of `client/`, by their paths below it, and all others.
    pub(super) fn split(&self) -> (ByPath<'_>, ByPath<'_>) {
        let (mut client, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (path, bytes) in &self.files {
            match path.strip_prefix(paths::CLIENT_DIR).and_then(|rest| rest.strip_prefix('/')) {
                Some(below) => client.insert(below, bytes),
                None => others.insert(path.as_str(), bytes),
            };
        }
        (client, others)
    }

    /// The files that are no release's.
    pub(super) fn users(&self, releases: &[Release]) -> Files {
        let of_a_release = |path: &str| {
            let below = path.strip_prefix(paths::CLIENT_DIR).and_then(|rest| rest.strip_prefix('/'));
            below.is_some_and(|below| releases.iter().any(|release| release.files.contains_key(below)))
        };
        self.files
            .iter()
            .filter(|(path, _)| !of_a_release(path))
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect()
    }
}

fn read(free: &AnyFreeZone, path: &str) -> Result<Vec<u8>> {
    let mut file = free.open(path)?.with_context(|| format!("there is no {path}"))?;
    let length = firmware_image::free_zone::ZoneFile::len(&mut file)?;
    anyhow::ensure!(length <= MAX_FILE_BYTES, "{path} has {length} bytes");
    let mut bytes = vec![0; usize::try_from(length)?];
    file.read_exact(&mut bytes).map_err(|error| anyhow!("{path} cannot be read: {error:?}"))?;
    Ok(bytes)
}

/// The files below a directory, as a release of it has them.
///
/// # Errors
/// What the file system reports.
pub fn tree_files(directory: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let below = path.strip_prefix(directory)?.to_string_lossy().into_owned();
                files.insert(below, fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            }
        }
    }
    Ok(files)
}
