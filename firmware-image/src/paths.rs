//! The names that Holdfast uses on a device. Whoever writes or reads one takes it from here.

/// The managed directory of the free zone: a release's files and nothing else that Holdfast touches.
pub const CLIENT_DIR: &str = "client";
/// Holdfast's own directory in the free zone.
pub const STATE_DIR: &str = ".holdfast";
/// Mirror of the newest record slot.
pub const RECORD_MIRROR: &str = ".holdfast/mirror/record";
/// Mirror of the newest backup slot.
pub const BACKUP_MIRROR: &str = ".holdfast/mirror/backup";
/// The double-slot commit journal.
pub const JOURNAL: &str = ".holdfast/journal";
/// Complete, verified new files, named by digest, and the spool of fetched frames.
pub const STAGING_DIR: &str = ".holdfast/staging";
/// Copies of what the last commit replaced, named by digest.
pub const UNDO_DIR: &str = ".holdfast/undo";
/// Executables found in the managed directory that no manifest lists.
pub const QUARANTINE_DIR: &str = ".holdfast/quarantine";
/// Accepted TUF metadata and sealed manifests.
pub const TRUST_DIR: &str = ".holdfast/trust";
/// The bounded log.
pub const LOG: &str = ".holdfast/log";
/// What the launcher noted: digests of updaters that would not start.
pub const LAUNCHER_NOTE: &str = ".holdfast/launcher-note";
/// The signed configuration, on the virtual zone.
pub const DEVICE_CONFIG: &str = "device.cfg";
/// The offline copy of a release store, on the virtual zone, where the factory put one.
pub const OFFLINE_STORE_DIR: &str = "store";
/// The longest platform name, in bytes.
pub const MAX_PLATFORM_BYTES: usize = 32;

/// The updater's file name for a platform, in the free and the virtual zone: `updater-linux-x86_64`,
/// `updater-windows-x86_64.exe`.
pub fn updater_name(platform: &str) -> heapless::String<64> {
    program_name("updater-", platform)
}

/// The launcher's file name for a platform, in the virtual zone.
pub fn bootstrap_name(platform: &str) -> heapless::String<64> {
    program_name("bootstrap-", platform)
}

fn program_name(prefix: &str, platform: &str) -> heapless::String<64> {
    let mut name = heapless::String::new();
    let end = platform.len().min(MAX_PLATFORM_BYTES);
    // The capacity holds the longest prefix, platform and ending.
    let _ = name.push_str(prefix);
    let _ = name.push_str(platform.get(..end).unwrap_or_default());
    if platform.starts_with("windows-") {
        let _ = name.push_str(".exe");
    }
    name
}

/// The platform this code was built for, as the formats name it: `linux-x86_64`, `windows-x86_64`, `linux-aarch64`.
pub const THIS_PLATFORM: &str = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    "linux-x86_64"
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    "linux-aarch64"
} else if cfg!(all(target_os = "windows", target_arch = "x86_64")) {
    "windows-x86_64"
} else {
    "unknown"
};
