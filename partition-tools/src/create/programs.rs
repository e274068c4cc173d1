//! The programs on a device: launchers stamped with the vendor's key, updaters stamped and signed.

use std::fs;
use std::path::Path;

use firmware_image::signature::PublicKey;
use firmware_image::stamp;
use firmware_image::updater_image::{self, Floors, MAX_IMAGE_BYTES, MAX_TRAILER_BYTES};
use release_store::keys::{KeySource, Passphrase, SignedUpdater};

use super::kind::check_launcher;
use super::{Request, release};
use crate::error::ToolError;

/// The updaters for the device: those named, else the factory export's, else the release's own.
pub(super) fn updaters(
    request: &Request,
    keys: &KeySource,
    passphrase: Option<&Passphrase>,
    release: Option<&release::Opened>,
) -> Result<Vec<SignedUpdater>, ToolError> {
    let mut updaters: Vec<SignedUpdater> = Vec::new();
    for (platform, path) in &request.updaters {
        if updaters.iter().any(|updater| updater.platform == *platform) {
            return Err(ToolError::Refused(format!("the updater for {platform} is named twice")));
        }
        let program = read_program(path)?;
        updaters.push(keys.updater(passphrase, platform, program, request.updater_version, Floors::default())?);
    }
    if let KeySource::Factory(export) = keys {
        for listed in export.updaters() {
            if updaters.iter().all(|updater| updater.platform != listed.platform) {
                updaters.push(export.updater(&listed.platform)?);
            }
        }
    }
    if let Some(release) = release {
        for entry in &release.manifest().updaters {
            if updaters.iter().all(|updater| updater.platform != entry.platform) {
                let image = release.updater_image(entry)?;
                updaters.push(keys.updater(passphrase, &entry.platform, image, entry.version, Floors::default())?);
            }
        }
    }
    if updaters.is_empty() {
        return Err(ToolError::Refused(
            "a device needs an updater: give --updater PLATFORM=FILE, or a release that carries one".into(),
        ));
    }
    updaters.sort_by(|a, b| a.platform.cmp(&b.platform));
    Ok(updaters)
}

/// The launchers by platform, each with the vendor's key in it.
pub(super) fn launchers(request: &Request, vendor: &PublicKey) -> Result<Vec<(String, Vec<u8>)>, ToolError> {
    let mut launchers: Vec<(String, Vec<u8>)> = Vec::new();
    for (platform, path) in &request.bootstraps {
        release_store::manifest::check_platform(platform).map_err(ToolError::Refused)?;
        if launchers.iter().any(|(other, _)| other == platform) {
            return Err(ToolError::Refused(format!("the launcher for {platform} is named twice")));
        }
        let mut program = read_program(path)?;
        check_launcher(platform, path, &program)?;
        stamp::stamp(&mut program, vendor).map_err(|source| ToolError::Stamp { path: path.clone(), source })?;
        launchers.push((platform.clone(), program));
    }
    launchers.sort();
    Ok(launchers)
}

/// Says where one half of a pair is missing.
pub(super) fn check_platforms(updaters: &[SignedUpdater], launchers: &[(String, Vec<u8>)], warnings: &mut Vec<String>) {
    for (platform, _) in launchers {
        if updaters.iter().all(|updater| updater.platform != *platform) {
            warnings.push(format!("there is a launcher for {platform} and no updater for it to start"));
        }
    }
    for updater in updaters {
        if launchers.iter().all(|(platform, _)| *platform != updater.platform) {
            let platform = &updater.platform;
            warnings
                .push(format!("there is an updater for {platform} and no launcher; give --bootstrap {platform}=FILE"));
        }
    }
}

/// The trailer whose floors the record is to carry, by the rule that the updater has: the highest that every updater here
/// satisfies; empty where none raises one.
pub(super) fn floor_statement(images: &[(String, Vec<u8>)], vendor: &PublicKey) -> Vec<u8> {
    let mut buffers: Vec<[u8; MAX_TRAILER_BYTES]> = vec![[0; MAX_TRAILER_BYTES]; images.len()];
    let trailers: Vec<_> = images
        .iter()
        .zip(&mut buffers)
        .filter_map(|((_, image), buffer)| updater_image::verify_bytes(image, vendor, buffer).ok())
        .collect();
    let admits = |floors: &Floors| {
        trailers.iter().all(|trailer| floors.admits(trailer.body().version, trailer.body().certificate.serial))
    };
    let raising = trailers.iter().filter(|trailer| {
        let floors = trailer.body().floors;
        floors != Floors::default() && admits(&floors)
    });
    let highest = raising.max_by_key(|trailer| (trailer.body().floors.version, trailer.body().floors.key_serial));
    highest.map_or_else(Vec::new, |trailer| trailer.bytes().to_vec())
}

fn read_program(path: &Path) -> Result<Vec<u8>, ToolError> {
    let length = fs::metadata(path).map_err(ToolError::host("read", path))?.len();
    if length > MAX_IMAGE_BYTES {
        let (path, limit) = (path.display(), crate::size::show(MAX_IMAGE_BYTES));
        return Err(ToolError::Refused(format!("{path} is longer than a program on a device may be ({limit})")));
    }
    fs::read(path).map_err(ToolError::host("read", path))
}
