//! What tools for single files are given of two trees: the contents that changed, one behind the other, old and new.
//!
//! Each content counts once, whatever the number of files that hold it; one that both releases have counts not at all. They
//! are sorted by extension, then path, so that what is alike stands together.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use firmware_image::Digest;

use crate::bench::trees;

/// Two releases as two files.
#[derive(Debug)]
pub struct Solid {
    /// What changed, as it was.
    pub old: PathBuf,
    /// What changed, as it is.
    pub new: PathBuf,
    parts: Vec<Part>,
}

/// A content of the new release and the files that hold it.
#[derive(Debug)]
struct Part {
    bytes: u64,
    files: Vec<PathBuf>,
}

impl Solid {
    /// Writes both files into `dir`.
    pub fn make(old: &Path, new: &Path, dir: &Path) -> Result<Self> {
        let (olds, news) = (contents(old)?, contents(new)?);
        let digests = |files: &[(Digest, PathBuf)]| files.iter().map(|(digest, _)| *digest).collect::<HashSet<_>>();
        let solid = Self { old: dir.join("solid-old"), new: dir.join("solid-new"), parts: Vec::new() };
        write(&changed(&olds, &digests(&news)), &solid.old)?;
        let changed = changed(&news, &digests(&olds));
        write(&changed, &solid.new)?;
        let part = |files: Vec<PathBuf>| -> Result<Part> { Ok(Part { bytes: fs::metadata(&files[0])?.len(), files }) };
        Ok(Self { parts: changed.into_iter().map(part).collect::<Result<_>>()?, ..solid })
    }

    /// Fails unless `made`, split, is every changed file of the new release.
    pub fn check(&self, made: &Path) -> Result<()> {
        let bytes = fs::read(made).with_context(|| format!("nothing was made at {}", made.display()))?;
        let mut rest = bytes.as_slice();
        for part in &self.parts {
            let (content, behind) = rest.split_at_checked(part.bytes as usize).context("what was made is too short")?;
            for file in &part.files {
                ensure!(content == fs::read(file)?, "what was made differs base {}", file.display());
            }
            rest = behind;
        }
        ensure!(rest.is_empty(), "what was made is too long");
        Ok(())
    }
}

/// Every file's digest and path, by extension, then path.
fn contents(tree: &Path) -> Result<Vec<(Digest, PathBuf)>> {
    let mut files = trees::walk(tree)?;
    files.sort_by_cached_key(|file| (file.extension().map(ToOwned::to_owned), file.clone()));
    files.into_iter().map(|file| Ok((Digest::of(&fs::read(&file)?), file))).collect()
}

/// The files of each content that the other release lacks.
fn changed(files: &[(Digest, PathBuf)], other: &HashSet<Digest>) -> Vec<Vec<PathBuf>> {
    let mut order = BTreeMap::new();
    let mut changed: Vec<Vec<PathBuf>> = Vec::new();
    for (digest, file) in files.iter().filter(|(digest, _)| !other.contains(digest)) {
        let at = *order.entry(*digest).or_insert(changed.len());
        if at == changed.len() {
            changed.push(Vec::new());
        }
        changed[at].push(file.clone());
    }
    changed
}

fn write(contents: &[Vec<PathBuf>], to: &Path) -> Result<()> {
    let mut file = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    for files in contents {
        std::io::copy(&mut fs::File::open(&files[0])?, &mut file)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_stands_there_once_and_splits_again() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for (tree, files) in [
            (&old, [("a.txt", "same"), ("b.txt", "was"), ("c.bin", "code")]),
            (&new, [("z.txt", "same"), ("b.txt", "is"), ("c.bin", "is")]),
        ] {
            fs::create_dir_all(tree).unwrap();
            files.iter().for_each(|(name, text)| fs::write(tree.join(name), text).unwrap());
        }
        let solid = Solid::make(&old, &new, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&solid.old).unwrap(), "codewas");
        assert_eq!(fs::read_to_string(&solid.new).unwrap(), "is");
        solid.check(&solid.new).unwrap();
        let wrong = dir.path().join("wrong");
        for text in ["i", "iz", "isis"] {
            fs::write(&wrong, text).unwrap();
            assert!(solid.check(&wrong).is_err(), "{text}");
        }
    }
}
