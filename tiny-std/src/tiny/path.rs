//! Paths (POSIX, 4.16): components between slashes; those that are empty or a dot count for nothing.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use super::ffi::{CStr, OsStr, OsString};
use super::{env, io};

/// A path.
#[derive(Debug)]
#[repr(transparent)]
pub struct Path(OsStr);

/// A path that is owned.
#[derive(Clone, Debug, Default)]
pub struct PathBuf(OsString);

/// The components of a path. The first of an absolute one is `/`.
#[derive(Clone)]
pub struct Components<'p> {
    bytes: &'p [u8],
    is_at_root: bool,
}

impl<'p> Iterator for Components<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        if core::mem::take(&mut self.is_at_root) {
            return self.bytes.split_off(..1);
        }
        loop {
            let end = self.bytes.iter().position(|byte| *byte == b'/').unwrap_or(self.bytes.len());
            let (part, rest) = self.bytes.split_at(end);
            self.bytes = rest.get(1..).unwrap_or_default();
            match part {
                b"" | b"." if rest.is_empty() => return None,
                b"" | b"." => {}
                part => return Some(part),
            }
        }
    }
}

impl Path {
    pub fn new<S: AsRef<OsStr> + ?Sized>(path: &S) -> &Self {
        Self::of(path.as_ref().bytes())
    }

    #[allow(unsafe_code)]
    fn of(bytes: &[u8]) -> &Self {
        // SAFETY: `Path` is nothing but these bytes (`repr(transparent)`), any of which it may hold.
        unsafe { &*(core::ptr::from_ref(OsStr::of(bytes)) as *const Self) }
    }

    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf(self.0.to_owned())
    }

    pub fn is_absolute(&self) -> bool {
        self.bytes().first() == Some(&b'/')
    }

    pub fn components(&self) -> Components<'_> {
        Components { bytes: self.bytes(), is_at_root: self.is_absolute() }
    }

    /// Where the last component begins and ends; `None`: there is none but a root.
    fn last(&self) -> Option<(usize, usize)> {
        let last = self.components().last().filter(|last| *last != b"/")?;
        let start = last.as_ptr().addr() - self.bytes().as_ptr().addr();
        Some((start, start + last.len()))
    }

    pub fn file_name(&self) -> Option<&OsStr> {
        let (start, end) = self.last()?;
        let name = &self.bytes()[start..end];
        (name != b"..").then(|| OsStr::of(name))
    }

    pub fn parent(&self) -> Option<&Self> {
        let (start, _) = self.last()?;
        let parent = &self.bytes()[..start];
        let end = parent.iter().rposition(|byte| *byte != b'/').map_or(parent.len().min(1), |last| last + 1);
        Some(Self::of(&parent[..end]))
    }

    pub fn join<P: AsRef<Self>>(&self, more: P) -> PathBuf {
        let mut joined = self.to_path_buf();
        joined.push(more);
        joined
    }

    pub fn starts_with<P: AsRef<Self>>(&self, base: P) -> bool {
        let mut own = self.components();
        base.as_ref().components().all(|part| own.next() == Some(part))
    }

    pub fn display(&self) -> Display<'_> {
        Display(self)
    }

    pub fn is_dir(&self) -> bool {
        super::fs::metadata(self).is_ok_and(|found| found.is_dir())
    }

    pub fn is_file(&self) -> bool {
        super::fs::metadata(self).is_ok_and(|found| found.is_file())
    }

    pub fn exists(&self) -> bool {
        super::fs::metadata(self).is_ok()
    }

    /// The path with a zero behind it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
        let mut bytes = Vec::with_capacity(self.bytes().len() + 1);
        bytes.extend_from_slice(self.bytes());
        bytes.push(0);
        match CStr::from_bytes_with_nul(&bytes) {
            Ok(path) => act(path),
            Err(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }
}

/// A path made absolute, without a look at what stands there.
pub fn absolute<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    let path = path.as_ref();
    if path.bytes().is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut whole = if path.is_absolute() { PathBuf::default() } else { env::current_dir()? };
    path.components().for_each(|part| whole.push(Path::of(part)));
    Ok(whole)
}

impl PathBuf {
    pub fn push<P: AsRef<Path>>(&mut self, more: P) {
        let more = more.as_ref();
        if more.is_absolute() {
            self.0 = OsString::default();
        } else if self.bytes().last().is_some_and(|last| *last != b'/') {
            self.0.push("/");
        }
        self.0.push(&more.0);
    }

    pub fn as_path(&self) -> &Path {
        self
    }

    pub fn into_os_string(self) -> OsString {
        self.0
    }
}

impl Deref for PathBuf {
    type Target = Path;
    fn deref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Borrow<Path> for PathBuf {
    fn borrow(&self) -> &Path {
        self
    }
}

impl ToOwned for Path {
    type Owned = PathBuf;
    fn to_owned(&self) -> PathBuf {
        self.to_path_buf()
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.components().eq(other.components())
    }
}

impl Eq for Path {}

impl PartialEq for PathBuf {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PathBuf {}

impl PartialOrd for PathBuf {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathBuf {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.components().cmp(other.components())
    }
}

impl AsRef<Path> for Path {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl AsRef<Path> for PathBuf {
    fn as_ref(&self) -> &Path {
        self
    }
}

impl AsRef<Path> for str {
    fn as_ref(&self) -> &Path {
        Path::new(self)
    }
}

impl AsRef<Path> for String {
    fn as_ref(&self) -> &Path {
        Path::new(self)
    }
}

impl AsRef<Path> for OsStr {
    fn as_ref(&self) -> &Path {
        Path::of(self.bytes())
    }
}

impl AsRef<Path> for OsString {
    fn as_ref(&self) -> &Path {
        Path::of(self.bytes())
    }
}

impl AsRef<OsStr> for Path {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

impl<S: AsRef<OsStr> + ?Sized> From<&S> for PathBuf {
    fn from(path: &S) -> Self {
        Self(path.as_ref().to_owned())
    }
}

impl From<OsString> for PathBuf {
    fn from(path: OsString) -> Self {
        Self(path)
    }
}

impl From<String> for PathBuf {
    fn from(path: String) -> Self {
        Self(path.into())
    }
}

impl From<PathBuf> for OsString {
    fn from(path: PathBuf) -> Self {
        path.0
    }
}

/// Shows a path; what is no text in it as a sign for that.
pub struct Display<'p>(&'p Path);

impl fmt::Display for Display<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.0.to_string_lossy())
    }
}

impl rustix::path::Arg for &Path {
    fn as_str(&self) -> rustix::io::Result<&str> {
        core::str::from_utf8(self.bytes()).map_err(|_| rustix::io::Errno::INVAL)
    }

    fn to_string_lossy(&self) -> alloc::borrow::Cow<'_, str> {
        self.0.to_string_lossy()
    }

    fn as_cow_c_str(&self) -> rustix::io::Result<alloc::borrow::Cow<'_, CStr>> {
        self.bytes().into_c_str()
    }

    fn into_c_str<'b>(self) -> rustix::io::Result<alloc::borrow::Cow<'b, CStr>>
    where
        Self: 'b,
    {
        self.bytes().into_c_str()
    }

    fn into_with_c_str<T, F>(self, act: F) -> rustix::io::Result<T>
    where
        F: FnOnce(&CStr) -> rustix::io::Result<T>,
    {
        self.bytes().into_with_c_str(act)
    }
}

impl rustix::path::Arg for &PathBuf {
    fn as_str(&self) -> rustix::io::Result<&str> {
        core::str::from_utf8(self.bytes()).map_err(|_| rustix::io::Errno::INVAL)
    }

    fn to_string_lossy(&self) -> alloc::borrow::Cow<'_, str> {
        self.0.to_string_lossy()
    }

    fn as_cow_c_str(&self) -> rustix::io::Result<alloc::borrow::Cow<'_, CStr>> {
        self.bytes().into_c_str()
    }

    fn into_c_str<'b>(self) -> rustix::io::Result<alloc::borrow::Cow<'b, CStr>>
    where
        Self: 'b,
    {
        self.bytes().into_c_str()
    }

    fn into_with_c_str<T, F>(self, act: F) -> rustix::io::Result<T>
    where
        F: FnOnce(&CStr) -> rustix::io::Result<T>,
    {
        self.bytes().into_with_c_str(act)
    }
}
