//! What this process was started with.

use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char};

use super::ffi::{OsStr, OsString};
use super::fs;
use super::io::Result;
use super::path::{Path, PathBuf};
use super::start;

/// Strings up to a null: arguments, or the environment.
struct Strings(*const *const c_char);

impl Iterator for Strings {
    type Item = &'static [u8];

    #[allow(unsafe_code)]
    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: the kernel ends both of a process's lists with a null, and keeps them, each string with a zero at its end,
        // as long as the process. Nobody writes to them.
        unsafe {
            let string = *self.0;
            if string.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            Some(CStr::from_ptr(string).to_bytes())
        }
    }
}

pub fn args_os() -> impl Iterator<Item = OsString> {
    Strings(start::arguments()).map(|arg| OsStr::of(arg).to_owned())
}

pub fn vars_os() -> impl Iterator<Item = (OsString, OsString)> {
    let split = |var: &'static [u8]| {
        let at = var.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::of(&var[..at]).to_owned(), OsStr::of(&var[at + 1..]).to_owned()))
    };
    Strings(start::environment()).filter_map(split)
}

pub fn var_os(name: &str) -> Option<OsString> {
    let mut values = Strings(start::environment())
        .filter_map(|var| var.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(OsStr::of));
    values.next().map(|value| value.to_owned())
}

pub fn split_paths(all: &OsString) -> impl Iterator<Item = PathBuf> {
    all.bytes().split(|byte| *byte == b':').map(|path| OsStr::of(path).to_owned().into())
}

pub fn temp_dir() -> PathBuf {
    var_os("TMPDIR").unwrap_or_else(|| "/tmp".into()).into()
}

pub fn current_exe() -> Result<PathBuf> {
    fs::read_link("/proc/self/exe")
}

pub fn current_dir() -> Result<PathBuf> {
    let here = rustix::process::getcwd(Vec::new())?;
    // The kernel says "(unreachable)" of a directory whose volume was unmounted.
    if here.as_bytes().first() != Some(&b'/') {
        return Err(rustix::io::Errno::NOENT.into());
    }
    Ok(Path::new(OsStr::of(here.as_bytes())).to_path_buf())
}
