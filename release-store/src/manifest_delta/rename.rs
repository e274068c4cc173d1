//! Other paths for files, where a part of the path is all that changes: often the same part of many files in a row.

use serde::{Deserialize, Serialize};

use super::{misfit, within};
use crate::error::StoreError;
use crate::manifest::{FileEntry, MAX_ENCODED_BYTES, MAX_FILES};
use crate::paths::{MAX_PATH_UNITS, PathProblem};

/// The most files that all renames together may change, each file as often as one does; and the most renames.
pub const MAX_RENAMED: usize = 4 * MAX_FILES;
/// No path has more: a UTF-16 unit is at most three bytes of UTF-8.
const MAX_PATH_BYTES: usize = 3 * MAX_PATH_UNITS;

/// A part of the path of files in a row is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rename {
    /// The first of them, as the difference from one more than the last file of the rename in front.
    pub first: i32,
    /// How many.
    pub count: u32,
    /// Bytes of the path in front of what is replaced.
    pub at: u32,
    /// Bytes that are replaced.
    pub length: u32,
    /// What stands there instead.
    pub with: String,
}

impl Rename {
    /// The path that it makes of `path`; `None` where it does not fit it.
    pub(super) fn renamed(&self, path: &str) -> Option<String> {
        let (at, end) = (self.at as usize, (self.at as usize).checked_add(self.length as usize)?);
        Some([path.get(..at)?, &self.with, path.get(end..)?].concat())
    }
}

/// Renames `files`, one rename after the other.
///
/// # Errors
/// `Malformed` where one does not fit, `TooLarge`, `Path` where a path gets too long.
pub(super) fn apply(renames: &[Rename], files: &mut [FileEntry]) -> Result<(), StoreError> {
    let count = renames.iter().map(|rename| rename.count as usize).fold(0, usize::saturating_add);
    within("the number of files that it renames", MAX_RENAMED, count)?;
    let mut bytes: usize = files.iter().map(|file| file.path.len()).sum();
    let mut next = 0_i32;
    for rename in renames {
        let first = next.checked_add(rename.first).ok_or_else(misfit)?;
        let end = first.checked_add_unsigned(rename.count).ok_or_else(misfit)?;
        next = end;
        let range = usize::try_from(first).ok().zip(usize::try_from(end).ok());
        let files = range.and_then(|(first, end)| files.get_mut(first..end)).ok_or_else(misfit)?;
        for file in files {
            let longest = file.path.len().saturating_add(rename.with.len()).saturating_sub(rename.length as usize);
            if longest > MAX_PATH_BYTES {
                return Err(StoreError::Path { path: file.path.clone(), problem: PathProblem::TooLong });
            }
            let path = rename.renamed(&file.path).ok_or_else(misfit)?;
            bytes = bytes - file.path.len() + path.len();
            within("the bytes of its paths", MAX_ENCODED_BYTES as usize, bytes)?;
            file.path = path;
        }
    }
    Ok(())
}
