//! The directory that becomes a release: plain files under paths that every target system can hold.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::StoreError;
use crate::keys::key_file::{self, MAX_KEY_FILE_BYTES};
use crate::manifest::{MAX_FILE_BYTES, MAX_FILES};
use crate::paths::{PathProblem, PathSet};

/// A file to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Its path in the release.
    pub path: String,
    /// Where it is.
    pub source: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// `0o755` or `0o644`.
    pub mode: u32,
    /// When it was written, where the file system says so.
    pub modified: Option<SystemTime>,
}

/// The files below `tree`, by path.
pub(super) fn scan(tree: &Path) -> Result<Vec<SourceFile>, StoreError> {
    let mut files = Vec::new();
    walk(tree, "", &mut files)?;
    if files.is_empty() {
        return Err(unfit(tree, "there are no files in it, and an empty release would empty every device".into()));
    }
    if files.len() > MAX_FILES {
        let problem = format!("{} files, and a release holds at most {MAX_FILES}: put some into archives", files.len());
        return Err(unfit(tree, problem));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut paths = PathSet::new();
    for file in &files {
        paths.insert(&file.path)?;
    }
    Ok(files)
}

/// What is said of what no release can hold.
fn unfit(path: &Path, problem: String) -> StoreError {
    StoreError::Tree { path: path.to_owned(), problem }
}

/// Refuses files that are keys: a release goes to every device.
pub(super) fn check_no_keys(tree: &Path, files: &[SourceFile]) -> Result<(), StoreError> {
    let mut keys = Vec::new();
    for file in files.iter().filter(|file| file.size <= MAX_KEY_FILE_BYTES) {
        if key_file::is_at(&file.source)? {
            keys.push(file.path.as_str());
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let problem =
        format!("there are keys in it, and a release goes to every device; take them out: {}", keys.join(", "));
    Err(unfit(tree, problem))
}

/// Whether `files`, which were read meanwhile, are still what is below `tree`. What would be signed else is a release that nobody made.
///
/// # Errors
/// `Refused`, with one that is not; what [`scan`] reports.
pub(super) fn check_at_rest(tree: &Path, files: &[SourceFile]) -> Result<(), StoreError> {
    let now = scan(tree)?;
    let differing = files.iter().zip(&now).find(|(before, now)| before != now).map(|(before, now)| [before, now]);
    let further = files.get(now.len()).or(now.get(files.len()));
    let found = differing.into_iter().flatten().chain(further).map(|file| &file.source).min();
    found.map_or(Ok(()), |path| Err(changed(path)))
}

/// What is said of a file that was written meanwhile.
pub(super) fn changed(path: &Path) -> StoreError {
    let path = path.display();
    StoreError::Refused(format!("{path} changed while it was read: publish again when it is at rest"))
}

fn walk(directory: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> Result<(), StoreError> {
    let entries = fs::read_dir(directory).map_err(StoreError::io("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read", directory))?;
        let source = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            let path = source.display().to_string();
            return Err(StoreError::Path { path, problem: PathProblem::NotUnicode });
        };
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        // Before anything below it is read: a name that cannot be, or one level too deep, ends the walk.
        crate::paths::check(&path).map_err(|problem| StoreError::Path { path: path.clone(), problem })?;
        let metadata = fs::symlink_metadata(&source).map_err(StoreError::io("read", &source))?;
        if metadata.is_dir() {
            walk(&source, &path, files)?;
        } else if metadata.is_file() {
            if metadata.len() > MAX_FILE_BYTES {
                let found = metadata.len();
                let problem = format!("{found} bytes, and FAT32 holds no file of more than {MAX_FILE_BYTES}: split it");
                return Err(unfit(&source, problem));
            }
            let mode = if is_executable(&source, &metadata) { 0o755 } else { 0o644 };
            let (size, modified) = (metadata.len(), metadata.modified().ok());
            files.push(SourceFile { path, source, size, mode, modified });
        } else {
            let kind = if metadata.is_symlink() { "a symbolic link" } else { "a device, socket or pipe" };
            return Err(StoreError::NotAFile { path: source, kind });
        }
    }
    Ok(())
}

#[cfg(unix)]
fn is_executable(_: &Path, metadata: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
}

/// Without an executable bit to go by, what a Unix system would run: ELF files and scripts.
#[cfg(not(unix))]
fn is_executable(source: &Path, _: &Metadata) -> bool {
    let mut head = [0; 4];
    let read = fs::File::open(source).and_then(|mut file| std::io::Read::read(&mut file, &mut head));
    read.is_ok() && (head == *b"\x7fELF" || head[..2] == *b"#!")
}
