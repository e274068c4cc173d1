//! Directories of the launcher's own on this computer, to run from.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;
use std::time::Duration;

/// How their names begin; sixteen hexadecimal digits follow.
const PREFIX: &str = "holdfast-";
/// What stands in one. The updater's own for its trials has the same.
pub const PROGRAM: &str = "updater.exe";
/// Older ones were left behind, where Windows lets go of them.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);
/// So many entries of a place are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Where programs may run is often said by place: behind the temporary directory come this user's other own ones. None is
/// everybody's, in which others could put a library beside the program.
const OTHERS: [&str; 2] = ["LOCALAPPDATA", "USERPROFILE"];
/// How many places there are.
pub const PLACES: usize = 1 + OTHERS.len();

/// Makes a directory in one of this user's own, whose rights it has: no other ordinary user enters it.
///
/// # Errors
/// What the system reports of the last place.
pub fn private_directory() -> io::Result<PathBuf> {
    directory_behind(0)
}

/// As [`private_directory`], but not in the first `refused` places.
///
/// # Errors
/// As there.
pub fn directory_behind(refused: usize) -> io::Result<PathBuf> {
    let others = OTHERS.iter().filter_map(std::env::var_os).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut last = io::ErrorKind::NotFound.into();
    for base in std::iter::once(std::env::temp_dir()).chain(others).skip(refused) {
        remove_left_behind(&base);
        // Keyed with randomness of the system, a new key each time: no name is met twice.
        let random = RandomState::new().build_hasher().finish();
        let path = base.join(format!("{PREFIX}{random:016x}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
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
            let _ = remove(&entry.path());
        }
    }
}

/// Removes a directory and the program in it, if that does not run any more.
///
/// # Errors
/// The directory stays, and why.
pub fn remove(directory: &Path) -> io::Result<()> {
    // That it is not there any more is as good.
    let _ = std::fs::remove_file(directory.join(PROGRAM));
    std::fs::remove_dir(directory)
}
