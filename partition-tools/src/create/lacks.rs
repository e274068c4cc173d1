//! What a device will lack, though it can be made: said while it is easily made otherwise.

use firmware_image::device_config::DeviceConfig;
use firmware_image::signature::PublicKey;
use release_store::keys::KeySource;

use super::release;
use crate::error::ToolError;
use crate::size;

/// Says what a device with this configuration cannot do; whether it knows a server.
pub(super) fn settings(
    config: &[u8],
    keys: &KeySource,
    launchers: &[(String, Vec<u8>)],
    has_release: bool,
    warnings: &mut Vec<String>,
) -> Result<bool, ToolError> {
    let vendor: &PublicKey = keys.vendor_key();
    let config = DeviceConfig::open(config, vendor)
        .map_err(|error| ToolError::Refused(format!("the device.cfg that was signed: {error}")))?;
    let give = match keys {
        KeySource::Keys(_) => "give",
        KeySource::Factory(_) => "make the factory export with",
    };
    let has_server = !config.servers.is_empty();
    if !has_server {
        let lack = match has_release {
            true => "it keeps the release that it is made with",
            false => "it has no client and gets none",
        };
        warnings.push(format!("the device knows no server: {lack}; {give} --server URL"));
    }
    for (platform, _) in launchers {
        if config.client_command(platform).is_none() {
            warnings
                .push(format!("nothing says how the client is started on {platform}; {give} --client-command COMMAND"));
        }
    }
    Ok(has_server)
}

/// Says where the next release may find too little room: one that has nothing in common with this one takes as much again until
/// it has taken its place, and one file more while that is made.
pub(super) fn room(
    disk_bytes: u64,
    left: u64,
    client_bytes: u64,
    release: &release::Opened,
    warnings: &mut Vec<String>,
) {
    let needed = client_bytes + release.manifest().files.iter().map(|file| file.size).max().unwrap_or(0);
    if left >= needed {
        return;
    }
    // A larger file system has larger tables: less than a 256th part of it.
    let more = needed - left;
    let enough = (disk_bytes + more + more / 256).div_ceil(1 << 20) + 1;
    warnings.push(format!(
        "the free zone has {} left, and an update of this client may need {}: until its user makes room the device then stays \
         at this release; --size {enough}MiB is enough",
        size::show(left),
        size::show(needed)
    ));
}
