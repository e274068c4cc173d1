//! Directories of the launcher's own on this computer, to run from.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How their names begin; sixteen hexadecimal digits follow.
const PREFIX: &str = "holdfast-";
/// What stands in one. The updater's own for its trials has the same.
pub const PROGRAM: &str = "updater.exe";
/// Older ones were left behind, where Windows lets go of them.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);
/// So many entries of the temporary directory are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Makes a directory in this user's temporary one, whose rights it has: no other ordinary user enters it.
///
/// # Errors
/// What the system reports.
pub fn private_directory() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    remove_left_behind(&base);
    loop {
        // Keyed with randomness of the system, a new key each time.
        let random = RandomState::new().build_hasher().finish();
        let path = base.join(format!("{PREFIX}{random:016x}"));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

/// Removes what launchers that were ended could not.
fn remove_left_behind(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.take(MAX_ENTRIES).flatten() {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).unwrap_or_default();
        let is_ours = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let age = entry.metadata().ok().and_then(|found| found.modified().ok()?.elapsed().ok());
        if is_ours && age.is_some_and(|age| age > LEFT_BEHIND) {
            remove(&entry.path());
        }
    }
}

/// Removes a directory and the program in it; what still runs stays.
pub fn remove(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(PROGRAM));
    let _ = std::fs::remove_dir(directory);
}
