//! An initramfs under construction: files of this machine with the libraries that they load, and files of our own, as a
//! `newc` archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use cpio::newc::Builder;

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

enum Entry {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(String),
    Character(u32, u32),
}

/// A root file system with `/bin`, `/sbin` and `/lib` merged into `/usr`, whatever this machine does.
pub struct Root {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Root {
    /// An empty root with the usual directories.
    pub fn new() -> Self {
        let mut root = Self { entries: BTreeMap::new() };
        for directory in
            ["dev", "proc", "sys", "run", "mnt", "media", "host", "root", "var", "usr/bin", "usr/sbin", "usr/lib64"]
        {
            root.directory(directory, 0o755);
        }
        root.directory("tmp", 0o1777);
        for (name, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
            root.link(name, target);
        }
        root.link("var/run", "/run");
        // Before devtmpfs is mounted, the kernel opens this for the first process.
        root.put("dev/console", Entry::Character(5, 1));
        root
    }

    /// A directory with its parents.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Directory(mode));
    }

    /// A file of our own.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.put(path, Entry::File(mode, bytes.into()));
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    /// A character device's node.
    pub fn character(&mut self, path: &str, major: u32, minor: u32) {
        self.put(path, Entry::Character(major, minor));
    }

    /// All files below a directory of this machine, where they are below it.
    pub fn tree(&mut self, directory: &Path) -> Result<()> {
        let mut left = vec![directory.to_path_buf()];
        while let Some(next) = left.pop() {
            for entry in fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    left.push(path);
                    continue;
                }
                let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
                self.put(merged(path.strip_prefix(directory)?), Entry::File(mode, fs::read(&path)?));
            }
        }
        Ok(())
    }

    /// A file of this machine, at the same place, as it is.
    pub fn copy(&mut self, path: &Path) -> Result<()> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
        self.put(merged(path), Entry::File(mode, bytes));
        Ok(())
    }

    /// A program of this machine, with the libraries that it loads.
    pub fn program(&mut self, path: &Path) -> Result<()> {
        self.copy(path)?;
        self.libraries_of(path)
    }

    /// The libraries that a program loads; none for a static one.
    pub fn libraries_of(&mut self, path: &Path) -> Result<()> {
        for library in libraries(path)? {
            if !self.entries.contains_key(&merged(&library)) {
                self.copy(&library)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: impl AsRef<Path>, entry: Entry) {
        let path = path.as_ref().to_path_buf();
        let mut above = path.parent();
        while let Some(parent) = above.filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_path_buf()).or_insert(Entry::Directory(0o755));
            above = parent.parent();
        }
        self.entries.insert(path, entry);
    }

    /// The archive. Equal roots make equal bytes.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, entry)) in self.entries.iter().enumerate() {
            let name = path.to_string_lossy();
            let inode = u32::try_from(number + 1).map_err(io::Error::other)?;
            let header = Builder::new(&name).ino(inode).nlink(1).mtime(0);
            let (header, bytes): (Builder, &[u8]) = match entry {
                Entry::Directory(mode) => (header.mode(DIRECTORY | mode), &[]),
                Entry::File(mode, bytes) => (header.mode(FILE | mode), bytes),
                Entry::Link(target) => (header.mode(SYMLINK | 0o777), target.as_bytes()),
                Entry::Character(major, minor) => {
                    (header.mode(CHARACTER | 0o600).rdev_major(*major).rdev_minor(*minor), &[])
                }
            };
            let mut body = header.write(out, u32::try_from(bytes.len()).map_err(io::Error::other)?);
            body.write_all(bytes)?;
            out = body.finish()?;
        }
        cpio::newc::trailer(out)
    }
}

/// The same path below a root whose `/bin`, `/sbin`, `/lib` and `/lib64` are in `/usr`.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    let merge = ["bin", "sbin", "lib", "lib64"].iter().any(|top| path.starts_with(top));
    if merge { Path::new("usr").join(path) } else { path.to_path_buf() }
}

/// What the dynamic loader would load for a program; nothing for a script or a static one.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let mut found = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if line.contains("not found") {
            bail!("{} needs a library that is not installed: {}", program.display(), line.trim());
        }
        if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            found.insert(PathBuf::from(path));
        }
    }
    Ok(found)
}
