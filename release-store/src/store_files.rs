//! Files of a store and of a key directory, written so that a cut leaves the old file or the new one, whole.
//!
//! Everything goes to a temporary file in `.tmp/` of the store first, is flushed, renamed, and its directory flushed.
//! One lock, `.lock`, keeps a second writer out; readers need none, since what they may see is never changed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firmware_image::Digest;
use firmware_image::digest::Hasher;

use crate::error::StoreError;

/// What devices ask for first, and what is written last: with it everything else is published.
pub const TIMESTAMP: &str = "metadata/timestamp.json";
/// The lock's name in a store.
pub const LOCK: &str = ".lock";
/// The directory of half-written files in a store.
pub const TEMPORARY: &str = ".tmp";
/// The list of files that nothing names any more, in a store (see [`crate::gc`]).
pub const DOOMED: &str = ".gc.json";

/// How long another writer is waited for, which may be just ending.
const PATIENCE: Duration = Duration::from_secs(2);

/// The right to write to a store. Given back when dropped.
#[derive(Debug)]
pub struct StoreWriter {
    root: PathBuf,
    _lock: File,
}

impl StoreWriter {
    /// Locks the store at `root`, and removes what an interrupted writer left half-written.
    ///
    /// # Errors
    /// `Locked` where another program holds it; `Io`.
    pub fn lock(root: &Path) -> Result<Self, StoreError> {
        let lock = lock(root, Lock::Alone)?;
        let temporary = root.join(TEMPORARY);
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", temporary)(error));
            }
            _ => {}
        }
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `path` of the store is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A new temporary file, and where it is.
    ///
    /// # Errors
    /// `Io`.
    pub fn temporary(&self, name: &str) -> Result<(File, PathBuf), StoreError> {
        let directory = self.root.join(TEMPORARY);
        fs::create_dir_all(&directory).map_err(StoreError::io("create", &directory))?;
        let path = directory.join(name);
        let file = File::create(&path).map_err(StoreError::io("create", &path))?;
        Ok((file, path))
    }

    /// Flushes the temporary `file` at `from` and gives it its name `to` in the store.
    ///
    /// # Errors
    /// `Io`.
    pub fn place(&self, file: File, from: &Path, to: &str) -> Result<(), StoreError> {
        file.sync_all().map_err(StoreError::io("flush", from))?;
        drop(file);
        let path = self.at(to);
        let parent = path.parent().unwrap_or(&self.root);
        create_dirs(&self.root, parent)?;
        fs::rename(from, &path).map_err(StoreError::io("rename", &path))?;
        sync_dir(parent)
    }

    /// Writes a file whose name says what it holds. `false`: it is there already, with these bytes. A file that is there
    /// with other bytes is damaged and is put right where `digest` is given, and left alone and refused where not.
    ///
    /// # Errors
    /// `Io`; `Refused`.
    pub fn write_once(&self, path: &str, bytes: &[u8], digest: Option<&Digest>) -> Result<bool, StoreError> {
        let place = self.at(path);
        if let Some(is_same) = holds(&place, bytes)? {
            if is_same {
                return Ok(false);
            }
            if digest.is_none() {
                return Err(StoreError::Refused(format!(
                    "{} is there with other content and is never changed: does the store belong to other keys?",
                    place.display()
                )));
            }
        }
        self.replace(path, bytes)?;
        Ok(true)
    }

    /// Writes a file in place of the one that is there.
    ///
    /// # Errors
    /// `Io`.
    pub fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let (mut file, temporary) = self.temporary(name)?;
        file.write_all(bytes).map_err(StoreError::io("write", &temporary))?;
        self.place(file, &temporary, path)
    }
}

/// Whether others may hold the same lock meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    Alone,
    WithOthers,
}

/// Locks a directory by the file [`LOCK`] in it.
///
/// # Errors
/// `Locked` where another program holds it; `Io`.
pub(crate) fn lock(directory: &Path, how: Lock) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let made = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    // Whoever may only read a directory can hold a lock with others that somebody else has made there.
    let made = match made {
        Err(_) if how == Lock::WithOthers => File::open(&path),
        made => made,
    };
    let file = made.map_err(StoreError::io("create", &path))?;
    let patience = Instant::now() + PATIENCE;
    loop {
        let locked = match how {
            Lock::Alone => file.try_lock(),
            Lock::WithOthers => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => return Ok(file),
            // Whoever is just ending, or being started by the one who holds it, lets go of it in a moment.
            Err(fs::TryLockError::WouldBlock) if Instant::now() < patience => std::thread::sleep(PATIENCE / 50),
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::Locked { path: directory.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(StoreError::Io { action: "lock", path, source }),
        }
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        // Only tidiness: the next writer removes what is left, and an empty directory harms nobody.
        let _ = fs::remove_dir(self.root.join(TEMPORARY));
    }
}

/// Creates `directory` below `root`, flushing each new name.
fn create_dirs(root: &Path, directory: &Path) -> Result<(), StoreError> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|parent| parent.starts_with(root)) {
        create_dirs(root, parent)?;
        match fs::create_dir(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("create", directory)(error));
            }
            _ => sync_dir(parent)?,
        }
    }
    Ok(())
}

/// A path without links, of which the end need not be there yet; `None` for one that leads nowhere.
fn real(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(real(parent)?.map(|parent| parent.join(name)))
        }
        found => found.map(Some).map_err(StoreError::io("find", path)),
    }
}

/// Refuses a directory that is, or is to be, in one that `is_other` knows as something to be kept apart from it.
///
/// # Errors
/// `Refused`; `Io`.
pub(crate) fn check_not_in(
    directory: &Path,
    name: &str,
    is_other: impl Fn(&Path) -> bool,
    other_name: &str,
) -> Result<(), StoreError> {
    let above = real(directory)?.and_then(|real| real.ancestors().find(|above| is_other(above)).map(Path::to_owned));
    above.map_or(Ok(()), |above| Err(not_apart(directory, name, &above, other_name)))
}

/// Whether a directory is a store.
pub(crate) fn is_store(directory: &Path) -> bool {
    directory.join(TIMESTAMP).is_file()
}

/// What is said of a directory that has to be one.
pub(crate) fn not_a_store(directory: &Path) -> StoreError {
    StoreError::Refused(format!("{} is not a store: it has no {TIMESTAMP}", directory.display()))
}

/// Refuses two directories of which one holds the other, or is it; each has its name for people.
///
/// # Errors
/// `Refused`; `Io`.
pub(crate) fn check_apart(a: &Path, a_name: &str, b: &Path, b_name: &str) -> Result<(), StoreError> {
    let (Some(real_a), Some(real_b)) = (real(a)?, real(b)?) else { return Ok(()) };
    if !real_a.starts_with(&real_b) && !real_b.starts_with(&real_a) {
        return Ok(());
    }
    Err(not_apart(a, a_name, b, b_name))
}

fn not_apart(a: &Path, a_name: &str, b: &Path, b_name: &str) -> StoreError {
    let (a, b) = (a.display(), b.display());
    StoreError::Refused(format!(
        "{a_name} ({a}) and {b_name} ({b}) lie in one another: what is published is read by everybody, so keep them apart"
    ))
}

/// Makes the names in `directory` durable, where the platform lets a directory be flushed.
pub(crate) fn sync_dir(directory: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        let opened = File::open(directory).map_err(StoreError::io("open", directory))?;
        opened.sync_all().map_err(StoreError::io("flush", directory))?;
    }
    Ok(())
}

/// Reads a file of at most `limit` bytes; `None` where there is none.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    let mut limited = std::io::Read::take(&mut file, limit.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > limit {
        let (object, found) = (path.display().to_string(), bytes.len() as u64);
        return Err(StoreError::TooLarge { object, what: "the length of the file", limit, found });
    }
    Ok(Some(bytes))
}

/// Whether a file has just these bytes; `None` where there is none. What is longer is not read.
fn holds(path: &Path, bytes: &[u8]) -> Result<Option<bool>, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
        Ok(metadata) if metadata.len() != bytes.len() as u64 => Ok(Some(false)),
        Ok(_) => Ok(read_small(path, bytes.len() as u64)?.map(|found| found == bytes)),
    }
}

/// SHA-256 of a file.
pub(crate) fn digest_of(path: &Path) -> Result<Digest, StoreError> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).map_err(StoreError::io("read", path))? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(StoreError::io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("write", path))
}

/// JSON for people and programs, with a line end.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // The types written here hold strings, numbers, lists and maps with string keys: nothing that fails.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}
