//! Strings of the system: any bytes.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::ops::Deref;

pub use alloc::ffi::CString;
pub use core::ffi::{CStr, c_char, c_int, c_void};

/// A string of the system.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct OsStr([u8]);

/// What Unix alone can do with one: it is bytes.
pub trait OsStrExt {
    fn from_bytes(bytes: &[u8]) -> &Self;
    fn as_bytes(&self) -> &[u8];
}

impl OsStrExt for OsStr {
    fn from_bytes(bytes: &[u8]) -> &Self {
        Self::of(bytes)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A string of the system that is owned.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct OsString(Vec<u8>);

impl OsStr {
    pub fn new<S: AsRef<Self> + ?Sized>(text: &S) -> &Self {
        text.as_ref()
    }

    #[allow(unsafe_code)]
    pub(super) fn of(bytes: &[u8]) -> &Self {
        // SAFETY: `OsStr` is nothing but these bytes (`repr(transparent)`), any of which it may hold.
        unsafe { &*(core::ptr::from_ref(bytes) as *const Self) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl OsString {
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }

    pub fn push<S: AsRef<OsStr>>(&mut self, more: S) {
        self.0.extend_from_slice(more.as_ref().bytes());
    }
}

impl Deref for OsString {
    type Target = OsStr;
    fn deref(&self) -> &OsStr {
        OsStr::of(&self.0)
    }
}

impl Borrow<OsStr> for OsString {
    fn borrow(&self) -> &OsStr {
        self
    }
}

impl ToOwned for OsStr {
    type Owned = OsString;
    fn to_owned(&self) -> OsString {
        OsString(self.0.to_vec())
    }
}

impl AsRef<OsStr> for OsStr {
    fn as_ref(&self) -> &OsStr {
        self
    }
}

impl AsRef<OsStr> for OsString {
    fn as_ref(&self) -> &OsStr {
        self
    }
}

impl AsRef<OsStr> for str {
    fn as_ref(&self) -> &OsStr {
        OsStr::of(self.as_bytes())
    }
}

impl AsRef<OsStr> for String {
    fn as_ref(&self) -> &OsStr {
        OsStr::of(self.as_bytes())
    }
}

impl From<&str> for OsString {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for OsString {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl Default for &OsStr {
    fn default() -> Self {
        OsStr::of(&[])
    }
}

impl PartialEq<str> for OsString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}
