//! Folders full of files: listing, comparing, measuring, copying.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Every file below `dir`, sorted.
pub fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

/// The lengths of all files below `path`, or of the file that it is, in bytes.
pub fn stored_bytes(path: &Path) -> Result<u64> {
    let files = if path.is_dir() { walk(path)? } else { vec![path.to_path_buf()] };
    let length = |file: &PathBuf| fs::metadata(file).map(|metadata| metadata.len());
    files.iter().map(length).sum::<Result<u64, _>>().with_context(|| format!("cannot measure {}", path.display()))
}

/// Fails unless both folders hold the same files with the same bytes.
pub fn ensure_same(found: &Path, expected: &Path) -> Result<()> {
    let names = |dir: &Path| -> Result<Vec<PathBuf>> {
        walk(dir)?.into_iter().map(|file| Ok(file.strip_prefix(dir)?.to_path_buf())).collect()
    };
    let (have, want) = (names(found)?, names(expected)?);
    ensure!(have == want, "{} has other files than {}", found.display(), expected.display());
    for name in want {
        ensure_same_file(&found.join(&name), &expected.join(&name))?;
    }
    Ok(())
}

/// Fails unless both files hold the same bytes.
pub fn ensure_same_file(found: &Path, expected: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    ensure!(read(found)? == read(expected)?, "{} differs from {}", found.display(), expected.display());
    Ok(())
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in walk(from)? {
        let target = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(&file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

/// Makes `dir` an empty folder.
pub fn empty(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_the_same_only_with_the_same_names_and_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(a.join("sub")).unwrap();
        fs::write(a.join("sub/file"), "bytes").unwrap();
        copy(&a, &b).unwrap();
        ensure_same(&a, &b).unwrap();
        assert_eq!(stored_bytes(&b).unwrap(), 5);
        fs::write(b.join("sub/file"), "bytez").unwrap();
        assert!(ensure_same(&a, &b).is_err());
        fs::rename(b.join("sub/file"), b.join("sub/other")).unwrap();
        assert!(ensure_same(&a, &b).is_err());
    }
}
