//! Files and directories.

use alloc::vec::Vec;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;

use super::ffi::{OsStr, OsString};
use super::io::{Error, Read, Result, Seek, SeekFrom, Write};
use super::path::{Path, PathBuf};

/// An open file.
#[derive(Debug)]
pub struct File(OwnedFd);

impl File {
    pub fn open<P: AsRef<Path>>(path: P) -> Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    pub fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata(rustix::fs::fstat(&self.0)?))
    }

    pub fn set_len(&self, length: u64) -> Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, length)?)
    }

    pub fn sync_all(&self) -> Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    pub fn sync_data(&self) -> Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?))
    }

    pub fn set_permissions(&self, permissions: Permissions) -> Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(permissions.0))?)
    }
}

pub trait FileExt {
    fn read_at(&self, to: &mut [u8], at: u64) -> Result<usize>;
    fn write_at(&self, from: &[u8], at: u64) -> Result<usize>;
}

impl FileExt for File {
    fn read_at(&self, to: &mut [u8], at: u64) -> Result<usize> {
        Ok(rustix::io::pread(&self.0, to, at)?)
    }

    fn write_at(&self, from: &[u8], at: u64) -> Result<usize> {
        Ok(rustix::io::pwrite(&self.0, from, at)?)
    }
}

impl Read for File {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        Ok(rustix::io::read(&self.0, to)?)
    }
}

impl Write for File {
    fn write(&mut self, from: &[u8]) -> Result<usize> {
        Ok(rustix::io::write(&self.0, from)?)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => rustix::fs::SeekFrom::Start(at),
            SeekFrom::End(by) => rustix::fs::SeekFrom::End(by),
            SeekFrom::Current(by) => rustix::fs::SeekFrom::Current(by),
        };
        Ok(rustix::fs::seek(&self.0, to)?)
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        file.0
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// How a file is opened.
#[derive(Clone)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    more: OFlags,
    mode: RawMode,
}

impl OpenOptions {
    #[allow(clippy::new_without_default, reason = "as in std")]
    pub fn new() -> Self {
        Self { read: false, write: false, more: OFlags::CLOEXEC, mode: 0o666 }
    }

    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    pub fn create_new(&mut self, new: bool) -> &mut Self {
        self.more.set(OFlags::CREATE | OFlags::EXCL, new);
        self
    }

    pub fn open<P: AsRef<Path>>(&self, path: P) -> Result<File> {
        let access = match (self.read, self.write) {
            (_, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (true, true) => OFlags::RDWR,
        };
        path.as_ref().with(|path| {
            loop {
                match rustix::fs::open(path, access | self.more, Mode::from_raw_mode(self.mode)) {
                    Err(Errno::INTR) => {}
                    opened => return Ok(File(opened?)),
                }
            }
        })
    }
}

pub trait OpenOptionsExt {
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode as RawMode;
        self
    }
}

/// Who may do what.
pub struct Permissions(RawMode);

pub trait PermissionsExt {
    fn from_mode(mode: u32) -> Self;
}

impl PermissionsExt for Permissions {
    fn from_mode(mode: u32) -> Self {
        Self(mode as RawMode)
    }
}

/// What the system tells of a file.
pub struct Metadata(Stat);

impl Metadata {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.0.st_mode as RawMode)
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    #[allow(clippy::len_without_is_empty, reason = "as in std")]
    pub fn len(&self) -> u64 {
        self.0.st_size as u64
    }
}

pub trait MetadataExt {
    fn mode(&self) -> u32;
    fn uid(&self) -> u32;
    fn dev(&self) -> u64;
    fn rdev(&self) -> u64;
}

impl MetadataExt for Metadata {
    fn mode(&self) -> u32 {
        self.0.st_mode
    }

    fn uid(&self) -> u32 {
        self.0.st_uid
    }

    fn dev(&self) -> u64 {
        self.0.st_dev
    }

    fn rdev(&self) -> u64 {
        self.0.st_rdev
    }
}

pub fn metadata<P: AsRef<Path>>(path: P) -> Result<Metadata> {
    path.as_ref().with(|path| Ok(Metadata(rustix::fs::stat(path)?)))
}

pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> Result<Metadata> {
    path.as_ref().with(|path| Ok(Metadata(rustix::fs::lstat(path)?)))
}

pub fn create_dir<P: AsRef<Path>>(path: P) -> Result<()> {
    DirBuilder::new().create(path)
}

pub fn remove_dir<P: AsRef<Path>>(path: P) -> Result<()> {
    path.as_ref().with(|path| Ok(rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR)?))
}

pub fn remove_file<P: AsRef<Path>>(path: P) -> Result<()> {
    path.as_ref().with(|path| Ok(rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::empty())?))
}

/// Where a name leads when every link is followed: what the kernel says of a handle to it.
pub fn canonicalize<P: AsRef<Path>>(path: P) -> Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let handle = path.as_ref().with(|path| Ok(rustix::fs::open(path, flags, Mode::empty())?))?;
    read_link(&alloc::format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

pub fn read_link<P: AsRef<Path> + ?Sized>(path: &P) -> Result<PathBuf> {
    path.as_ref().with(|path| {
        let target = rustix::fs::readlink(path, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    })
}

/// Makes directories.
pub struct DirBuilder(RawMode);

impl DirBuilder {
    #[allow(clippy::new_without_default, reason = "as in std")]
    pub fn new() -> Self {
        Self(0o777)
    }

    pub fn create<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        path.as_ref().with(|path| Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(self.0))?))
    }
}

pub trait DirBuilderExt {
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.0 = mode as RawMode;
        self
    }
}

/// The entries of a directory, but for itself and its parent.
pub struct ReadDir {
    of: PathBuf,
    entries: rustix::fs::Dir,
}

/// An entry of a directory.
pub struct DirEntry(PathBuf);

impl DirEntry {
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

pub fn read_dir<P: AsRef<Path>>(path: P) -> Result<ReadDir> {
    let of = path.as_ref();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = of.with(|path| Ok(rustix::fs::open(path, flags, Mode::empty())?))?;
    Ok(ReadDir { of: of.to_path_buf(), entries: rustix::fs::Dir::new(directory)? })
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.entries.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(Error::from(error))),
            };
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                return Some(Ok(DirEntry(self.of.join(OsStr::of(name)))));
            }
        }
    }
}
