//! The names that Holdfast uses on a device. Whoever writes or reads one takes it from here.

/// The managed directory of the free zone: a release's files and nothing else that Holdfast touches.
pub const CLIENT_DIR: &str = "client";
/// Holdfast's own directory in the free zone.
pub const STATE_DIR: &str = ".holdfast";
/// Mirror of the newest record slot.
pub const RECORD_MIRROR: &str = ".holdfast/mirror/record";
/// The record's mirror under its second name, while it is the only copy and is being replaced.
pub const RECORD_MIRROR_NEW: &str = ".holdfast/mirror/record.new";
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
/// Accepted TUF metadata and manifests.
pub const TRUST_DIR: &str = ".holdfast/trust";
/// The installed release's manifest.
pub const MANIFEST: &str = ".holdfast/trust/manifest";
/// The manifest of the release before it.
pub const PREVIOUS_MANIFEST: &str = ".holdfast/trust/manifest.previous";
/// The targets or archive metadata that the installed release was taken from.
pub const STATEMENT: &str = ".holdfast/trust/installed.json";
/// The metadata that the release before it was taken from.
pub const PREVIOUS_STATEMENT: &str = ".holdfast/trust/previous.json";
/// The installed release's sealed chunk list.
pub const CHUNK_LIST: &str = ".holdfast/trust/chunks";
/// A copy of the signed configuration, so that a free zone alone suffices to start from.
pub const CONFIG_COPY: &str = ".holdfast/trust/device.cfg";
/// Another one, beside a launcher in the free zone (Windows): that one finds no virtual zone, and somebody may remove all of
/// [`STATE_DIR`].
pub const CONFIG_BESIDE: &str = "bootstrap.cfg";
/// Where the free zone has the signed configuration: the first one that holds counts.
pub const CONFIGS_IN_FREE: [&str; 2] = [CONFIG_COPY, CONFIG_BESIDE];
/// Digests of updater files that would not start here, one a line: they are not fetched again.
pub const REFUSED_UPDATERS: &str = ".holdfast/trust/refused-updaters";
/// Files that could not be removed because they run, moved out of the way (Windows). The next start empties it.
pub const ASIDE_DIR: &str = ".holdfast/aside";
/// Held by the updater at work where directories take no locks (Windows). Empty.
pub const DEVICE_LOCK: &str = ".holdfast/lock";
/// Held by a running client, and by an updater that changes it, where directories take no locks (Windows). Empty.
pub const CLIENT_LOCK: &str = ".holdfast/client-lock";
/// The bounded log.
pub const LOG: &str = ".holdfast/log";
/// The log before it.
pub const OLD_LOG: &str = ".holdfast/log.1";
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

/// Windows on x86-64, whose launcher stands in a stick's free zone, too.
pub const WINDOWS_PLATFORM: &str = "windows-x86_64";

/// The platform this code was built for, as the formats name it: `linux-x86_64`, `windows-x86_64`, `linux-aarch64`.
pub const THIS_PLATFORM: &str = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    "linux-x86_64"
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    "linux-aarch64"
} else if cfg!(all(target_os = "windows", target_arch = "x86_64")) {
    WINDOWS_PLATFORM
} else {
    "unknown"
};
