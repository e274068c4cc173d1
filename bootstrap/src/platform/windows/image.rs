//! Where verified bytes run: a private file that nobody can write, rename or remove as long as it is held open, and that
//! was read through that very handle.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use firmware_image::ZoneError;
use firmware_image::digest::Hasher;
use windows_sys::Win32::Storage::FileSystem::FILE_SHARE_READ;

use super::patiently;
use super::places::{self, PROGRAM, directory_behind};
use crate::device::Stored;
use crate::verified::{LoadError, RunPlace, SealedBytes};

/// Bytes copied at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes that nobody can change, and the file that runs.
pub struct RunImage {
    bytes: Vec<u8>,
    path: PathBuf,
    /// Opened without sharing write or delete. Closed before the file is removed.
    held: Option<File>,
}

impl RunImage {
    /// What a child executes.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl SealedBytes for RunImage {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for RunImage {
    fn drop(&mut self) {
        self.held = None;
        let Some(directory) = self.path.parent() else { return };
        // One that still runs is left to a later launcher.
        let _ = patiently(|error| error.kind() != io::ErrorKind::NotFound, || places::remove(directory));
    }
}

fn place(error: impl Into<io::Error>) -> LoadError {
    LoadError::Place(error.into().into())
}

/// Private files. The name is that of what stands in this place on Linux.
#[derive(Default)]
pub struct SealedMemory {
    /// From so many places this computer runs nothing.
    refused: usize,
}

impl SealedMemory {
    /// Use the next place from now on; `false`: this was the last.
    pub fn forbid(&mut self) -> bool {
        self.refused += 1;
        self.refused < places::PLACES
    }
}

impl RunPlace for SealedMemory {
    type Image = RunImage;

    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
        load_behind(self.refused, source, length)
    }
}

/// A file in a fresh directory of this user's.
pub struct PrivateDirectory;

impl RunPlace for PrivateDirectory {
    type Image = RunImage;

    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
        load_behind(0, source, length)
    }
}

fn load_behind(refused: usize, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
    let directory = directory_behind(refused).map_err(place)?;
    let loaded = load_into(&directory.join(PROGRAM), source, length);
    if loaded.is_err() {
        // A later launcher removes what stays.
        let _ = places::remove(&directory);
    }
    loaded
}

fn load_into(path: &Path, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
    source.seek(embedded_io::SeekFrom::Start(0)).map_err(LoadError::Read)?;
    let mut file = OpenOptions::new().write(true).create_new(true).share_mode(0).open(path).map_err(place)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = length;
    let mut hasher = Hasher::new();
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match source.read(&mut buffer[..take]) {
            Ok(0) => return Err(LoadError::Read(ZoneError::OutOfBounds)),
            Ok(n) => {
                file.write_all(&buffer[..n]).map_err(place)?;
                hasher.update(&buffer[..n]);
                left -= n as u64;
            }
            Err(error) => return Err(LoadError::Read(error)),
        }
    }
    // What is open for writing does not run. Whatever happens before it is open again shows: all of it is read then.
    drop(file);
    let mut file = hold(path).map_err(place)?;
    let mut bytes = Vec::new();
    let wanted = usize::try_from(length).map_err(|_| LoadError::Place(ZoneError::Full))?;
    bytes.try_reserve_exact(wanted).map_err(|_| LoadError::Place(ZoneError::Full))?;
    (&mut file).take(length).read_to_end(&mut bytes).map_err(place)?;
    let mut again = Hasher::new();
    again.update(&bytes);
    if file.metadata().map_err(place)?.len() != length || again.finish() != hasher.finish() {
        // Somebody wrote to it in between, as a scanner that disinfects does: that says nothing of the copy.
        return Err(LoadError::Place(ZoneError::Corrupt));
    }
    Ok(RunImage { bytes, path: path.to_path_buf(), held: Some(file) })
}

/// Opens a file so that nobody else can write, rename or remove it, nor a directory above it.
fn hold(path: &Path) -> io::Result<File> {
    patiently(|_| true, || OpenOptions::new().read(true).share_mode(FILE_SHARE_READ).open(path))
}

/// Every file may be run that may be read.
///
/// # Errors
/// None.
pub fn make_executable(_file: &File) -> io::Result<()> {
    Ok(())
}
