//! Directory operations on Windows: by path, below a root that is named in full.
//!
//! - Names that Windows takes for something else than a file of that name are refused: devices (`NUL`, `COM1.txt`), streams,
//!   wildcards, a dot or blank at the end, which it drops.
//! - No reparse point is followed (links, junctions): parents are looked at first, the last component is opened as what it
//!   is and looked at through its handle.
//! - FAT's driver flushes the whole volume for its root directory and nothing for any other, so every flush of a directory is
//!   one of the root as well.
//! - What another program holds for a moment, as scanners do, is tried again; then it is [`ZoneError::Busy`].
//! - A program that runs cannot be written or removed, but renamed: it makes room by moving to [`paths::ASIDE_DIR`], which
//!   the next start empties.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf, Prefix};
use std::prelude::v1::*;
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER, ERROR_LOCK_VIOLATION, ERROR_NOT_SUPPORTED,
    ERROR_SHARING_VIOLATION, ERROR_USER_MAPPED_FILE, GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, GetDiskFreeSpaceExW, MOVEFILE_DELAY_UNTIL_REBOOT, MOVEFILE_REPLACE_EXISTING,
    MOVEFILE_WRITE_THROUGH, MoveFileExW,
};

use crate::free_zone::{Kind, Metadata, is_device_name};
use crate::{ZoneError, paths};

/// How often something that is held is tried, and how long between.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// The most names that are tried for a file that is put aside.
const MAX_ASIDE: u32 = 1000;

/// The zone's directory.
pub struct Root(PathBuf);

/// A file open to be written.
pub struct Written;

impl Written {
    /// Nothing that was replaced is kept here.
    pub fn give_way(&mut self) -> Result<bool, ZoneError> {
        Ok(false)
    }

    /// The driver takes clusters in its own order.
    pub fn reserve(&mut self, _file: &File, _length: u64) -> Result<(), ZoneError> {
        Ok(())
    }

    /// The same of several.
    pub fn reserve_all<'f>(_files: &mut dyn Iterator<Item = (&'f mut Self, &'f File, u64)>) -> Result<(), ZoneError> {
        Ok(())
    }

    /// Makes the file durable.
    pub fn flush(&mut self, file: &File) -> Result<(), ZoneError> {
        Ok(file.sync_all()?)
    }
}

impl Root {
    pub fn open(directory: &Path) -> Result<Self, ZoneError> {
        if !fs::metadata(directory)?.is_dir() {
            return Err(ZoneError::BadPath);
        }
        // In full and verbatim (`\\?\`), so that no length and no current directory matters. Windows has no such name for what is
        // on a volume without a drive's letter: there the name that was given has to do.
        let in_full = fs::canonicalize(directory).or_else(|_| std::path::absolute(directory).map(verbatim));
        Ok(Self(in_full?))
    }

    /// The host path of `path`, refused where a parent is a link; `None` where a parent is missing or a file.
    fn resolve(&self, path: &str) -> Result<Option<PathBuf>, ZoneError> {
        let mut here = self.0.clone();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            check_name(part)?;
            here.push(part);
            if parts.peek().is_none() {
                break;
            }
            match stat(&here)? {
                Some(found) if found.kind == Kind::Other => return Err(ZoneError::BadPath),
                Some(found) if found.kind == Kind::Directory => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// Opens a file to be read. `None`: there is no regular file of that name.
    pub fn open_file(&self, path: &str) -> Result<Option<File>, ZoneError> {
        let Some(host) = self.resolve(path)? else { return Ok(None) };
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::File) => {}
            _ => return Ok(None),
        }
        let file = patiently(|| as_it_is(OpenOptions::new().read(true)).open(&host))?;
        Ok((kind(&file.metadata()?) == Kind::File).then_some(file))
    }

    /// Opens a file to be written as it is, or an empty one.
    pub fn open_rw(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let host = self.resolve(path)?.ok_or(ZoneError::BadPath)?;
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::Directory | Kind::Other) => return Err(ZoneError::BadPath),
            None | Some(Kind::File) => {}
        }
        let open = || as_it_is(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(&host);
        let file = patiently(open).or_else(|error| {
            if error == ZoneError::Denied && make_writable(&host) { patiently(open) } else { Err(error) }
        })?;
        if kind(&file.metadata()?) != Kind::File {
            return Err(ZoneError::BadPath);
        }
        Ok((file, Written))
    }

    /// Makes an empty file, in place of one that was there.
    pub fn create(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let host = self.resolve(path)?.ok_or(ZoneError::BadPath)?;
        let removed = match stat(&host)?.map(|found| found.kind) {
            Some(Kind::Directory) => return Err(ZoneError::BadPath),
            Some(kind) => self.remove_host(&host, kind)?,
            None => false,
        };
        let open = || as_it_is(OpenOptions::new().read(true).write(true).create_new(true)).open(&host);
        let file = patiently(|| {
            open().map_err(|error| match error.kind() {
                // The name goes when the last one who still has the removed file open closes it.
                ErrorKind::PermissionDenied if removed => {
                    io::Error::from_raw_os_error(ERROR_SHARING_VIOLATION.cast_signed())
                }
                _ => error,
            })
        })?;
        Ok((file, Written))
    }

    pub fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        match self.resolve(path)? {
            Some(host) => stat(&host),
            None => Ok(None),
        }
    }

    pub fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        let Some(host) = self.resolve(path)? else { return Ok(()) };
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::Directory) => {}
            Some(Kind::Other) => return Err(ZoneError::BadPath),
            _ => return Ok(()),
        }
        for entry in fs::read_dir(host)? {
            let entry = entry?;
            let name = entry.file_name();
            let flow = match name.to_str().filter(|name| check_name(name).is_ok()) {
                // Gone since the directory was read: not an entry any more.
                Some(name) => match stat(&entry.path())? {
                    Some(found) => visit(name, found),
                    None => ControlFlow::Continue(()),
                },
                // Shown, but no path of this trait can name it.
                None => visit(&name.to_string_lossy(), Metadata { length: 0, kind: Kind::Other }),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        let Some(host) = self.resolve(path)? else { return Ok(false) };
        match stat(&host)? {
            None => Ok(false),
            Some(found) => self.remove_host(&host, found.kind),
        }
    }

    fn remove_host(&self, host: &Path, kind: Kind) -> Result<bool, ZoneError> {
        let remove = || match kind {
            Kind::Directory => fs::remove_dir(host),
            // A directory link is removed as a directory.
            Kind::Other => fs::remove_file(host).or_else(|_| fs::remove_dir(host)),
            Kind::File => fs::remove_file(host),
        };
        let mut done = patiently(remove);
        if done == Err(ZoneError::Denied) && make_writable(host) {
            done = patiently(remove);
        }
        match done {
            Ok(()) => Ok(true),
            Err(ZoneError::NotFound) => Ok(false),
            Err(error @ (ZoneError::Busy | ZoneError::Denied)) if kind == Kind::File => {
                self.put_aside(host).map(|_| true).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        let from = self.resolve(from)?.ok_or(ZoneError::NotFound)?;
        let to = self.resolve(to)?.ok_or(ZoneError::BadPath)?;
        let replace = || move_file(&from, &to);
        let mut done = patiently(replace);
        if done == Err(ZoneError::Denied) && make_writable(&to) {
            done = patiently(replace);
        }
        let Err(error @ (ZoneError::Busy | ZoneError::Denied)) = done else { return done };
        let is_file = stat(&to)?.is_some_and(|found| found.kind == Kind::File);
        if !is_file || is_kept(&from) {
            return Err(error);
        }
        let Some(aside) = self.put_aside(&to) else { return Err(error) };
        patiently(replace).inspect_err(|_| {
            // It was not what kept the other from its name.
            let _ = patiently(|| move_file(&aside, &to));
        })
    }

    /// Moves a file out of the way that can be neither written nor removed now; `None`: it cannot be moved either.
    fn put_aside(&self, host: &Path) -> Option<PathBuf> {
        self.create_dir_all(paths::ASIDE_DIR).ok()?;
        let directory = self.resolve(paths::ASIDE_DIR).ok()??;
        if host.starts_with(&directory) {
            return None;
        }
        let mut free = (0..MAX_ASIDE).map(|number| directory.join(format!("{number}")));
        let aside = free.find(|aside| matches!(stat(aside), Ok(None)))?;
        patiently(|| move_file(host, &aside)).ok()?;
        // Only an administrator may ask for that; everybody else's next start removes it.
        // SAFETY: a string that ends in zero and lives through the call; the other may be null.
        unsafe { MoveFileExW(wide(&aside).as_ptr(), std::ptr::null(), MOVEFILE_DELAY_UNTIL_REBOOT) };
        Some(aside)
    }

    pub fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        let mut here = self.0.clone();
        for part in path.split('/') {
            check_name(part)?;
            here.push(part);
            match stat(&here)?.map(|found| found.kind) {
                Some(Kind::Directory) => {}
                Some(_) => return Err(ZoneError::BadPath),
                None => match fs::create_dir(&here) {
                    // Somebody else was as quick.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    made => made?,
                },
            }
        }
        Ok(())
    }

    /// Flushes the directory and the zone's root, where this file system lets an ordinary user; where not, its driver orders its
    /// directories by itself, and renames were written through.
    pub fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        let host = self.resolve(path)?.filter(|host| host.is_dir()).ok_or(ZoneError::NotFound)?;
        if host != self.0 {
            flush_directory(&host)?;
        }
        flush_directory(&self.0)
    }

    /// No such mark here: a name's ending decides.
    pub fn set_executable(&self, path: &str, _executable: bool) -> Result<(), ZoneError> {
        match self.metadata(path)? {
            Some(found) if found.kind == Kind::File => Ok(()),
            _ => Err(ZoneError::NotFound),
        }
    }

    pub fn free_bytes(&self) -> Result<u64, ZoneError> {
        let directory = wide(&self.0);
        let mut free = 0;
        // SAFETY: a string that ends in zero and a place for the number, both of which live through the call; the others may
        // be null.
        let done =
            unsafe { GetDiskFreeSpaceExW(directory.as_ptr(), &mut free, std::ptr::null_mut(), std::ptr::null_mut()) };
        if done == 0 { Err(io::Error::last_os_error().into()) } else { Ok(free) }
    }
}

/// Refuses a name that Windows does not take for that of a file, or takes for another.
fn check_name(name: &str) -> Result<(), ZoneError> {
    let strange = name.contains(['<', '>', '"', '|', '?', '*', ':', '\\']) || name.ends_with(['.', ' ']);
    if strange || is_device_name(name) { Err(ZoneError::BadPath) } else { Ok(()) }
}

/// Opens what stands there, and not what it leads to.
fn as_it_is(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
}

/// Tries again what somebody else holds, and tells what came of it in the end.
fn patiently<T>(mut act: impl FnMut() -> io::Result<T>) -> Result<T, ZoneError> {
    let mut tries = TRIES;
    loop {
        match act() {
            Err(error) if is_held(&error) && tries > 1 => {
                tries -= 1;
                std::thread::sleep(BETWEEN_TRIES);
            }
            done => return Ok(done?),
        }
    }
}

fn is_held(error: &io::Error) -> bool {
    const HELD: [u32; 3] = [ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE];
    error.raw_os_error().is_some_and(|code| HELD.contains(&code.cast_unsigned()))
}

/// Flushes a directory, where the driver knows how and lets this user.
fn flush_directory(host: &Path) -> Result<(), ZoneError> {
    const NOT_HERE: [u32; 4] =
        [ERROR_ACCESS_DENIED, ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED, ERROR_INVALID_PARAMETER];
    let mut options = OpenOptions::new();
    options.access_mode(GENERIC_WRITE).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    patiently(|| match options.open(host).and_then(|directory| directory.sync_all()) {
        Err(error) if error.raw_os_error().is_some_and(|code| NOT_HERE.contains(&code.cast_unsigned())) => Ok(()),
        done => done,
    })
}

/// Whether somebody keeps what stands there from another name.
fn is_kept(host: &Path) -> bool {
    as_it_is(OpenOptions::new().access_mode(DELETE)).open(host).is_err()
}

/// Takes the attribute *read-only* off, which no mount stands behind. `false`: it was not there.
fn make_writable(host: &Path) -> bool {
    let Ok(mut permissions) = fs::symlink_metadata(host).map(|found| found.permissions()) else { return false };
    if !permissions.readonly() {
        return false;
    }
    #[allow(clippy::permissions_set_readonly_false, reason = "the attribute of Windows, which is about everybody")]
    permissions.set_readonly(false);
    fs::set_permissions(host, permissions).is_ok()
}

/// Renames, in place of what stands there, and comes back when that is on the medium.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    let flags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    // SAFETY: two strings that end in zero and live through the call.
    let done = unsafe { MoveFileExW(wide(from).as_ptr(), wide(to).as_ptr(), flags) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `E:\zone` as `\\?\E:\zone`; any other path as it is.
fn verbatim(path: PathBuf) -> PathBuf {
    match path.components().next() {
        Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::Disk(_)) => {
            let mut whole = OsString::from(r"\\?\");
            whole.push(path);
            whole.into()
        }
        _ => path,
    }
}

/// A path as Windows takes it. A zero in it, which no checked path has, ends it.
fn wide(path: &Path) -> Vec<u16> {
    path.as_os_str().encode_wide().chain([0]).collect()
}

fn kind(found: &fs::Metadata) -> Kind {
    match found.file_attributes() {
        attributes if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 => Kind::Other,
        attributes if attributes & FILE_ATTRIBUTE_DIRECTORY != 0 => Kind::Directory,
        _ => Kind::File,
    }
}

fn stat(host: &Path) -> Result<Option<Metadata>, ZoneError> {
    match fs::symlink_metadata(host) {
        Ok(found) => {
            let kind = kind(&found);
            Ok(Some(Metadata { length: if kind == Kind::File { found.len() } else { 0 }, kind }))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
