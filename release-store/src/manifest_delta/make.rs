//! Making the difference between two manifests.

use super::origins::Origins;
use super::rename::Rename;
use super::{AlteredFile, ChangedFile, ManifestDelta};
use crate::manifest::{FileEntry, Manifest};

/// Rounds in which a rename replaces within one component of a path; what is left is replaced at once. With that one, all
/// renames stay within [`super::MAX_RENAMED`].
const ROUNDS_BY_COMPONENT: usize = 3;

impl ManifestDelta {
    /// What makes `new` of `old`, which are of one product and channel.
    pub fn between(old: &Manifest, new: &Manifest) -> Self {
        let origins = Origins::find(old, new);
        let (mut removed, mut copied, mut kept, mut next) = (Vec::new(), Vec::new(), 0, 0);
        let mut pairs: Vec<(&FileEntry, &FileEntry)> = Vec::new();
        for (place, before) in old.files.iter().enumerate() {
            match origins.moved.get(&place) {
                None => removed.push(std::mem::take(&mut kept)),
                Some(after) => {
                    kept += 1;
                    pairs.push((before, after));
                }
            }
        }
        for (place, after) in origins.copied {
            // A manifest has fewer files than that.
            copied.push(place as i32 - next);
            next = place as i32 + 1;
            pairs.push((&old.files[place], after));
        }
        let (changed, altered) = differences(&pairs);
        Self {
            serial: new.serial,
            version: new.version.clone(),
            published: new.published,
            blind: new.blind,
            modules: (new.modules != old.modules).then(|| new.modules.clone()),
            updaters: (new.updaters != old.updaters).then(|| new.updaters.clone()),
            ignore: (new.ignore != old.ignore).then(|| new.ignore.clone()),
            removed,
            copied,
            renamed: renames(&pairs),
            changed,
            altered,
            added: origins.added.into_iter().cloned().collect(),
        }
    }
}

/// What differs between old and new files, beside their paths.
fn differences(pairs: &[(&FileEntry, &FileEntry)]) -> (Vec<ChangedFile>, Vec<AlteredFile>) {
    let (mut changed, mut altered) = (Vec::new(), Vec::new());
    let (mut same, mut unaltered) = (0, 0);
    for (before, after) in pairs {
        let differs = (after.sha256, after.size) != (before.sha256, before.size);
        if differs {
            changed.push(ChangedFile {
                skip: std::mem::take(&mut same),
                sha256: after.sha256,
                size: after.size.wrapping_sub(before.size) as i64,
                stored_bytes: after.stored_bytes.wrapping_sub(before.stored_bytes) as i64,
            });
        } else {
            same += 1;
        }
        let of = |file: &FileEntry| (file.mode, file.policy, file.module);
        let only_the_cost = !differs && after.stored_bytes != before.stored_bytes;
        if of(after) != of(before) || only_the_cost {
            altered.push(AlteredFile {
                skip: std::mem::take(&mut unaltered),
                mode: after.mode,
                policy: after.policy,
                module: after.module,
                stored_bytes: after.stored_bytes,
            });
        } else {
            unaltered += 1;
        }
    }
    (changed, altered)
}

/// What makes the new paths of the old ones. Each rename brings the first path that it changes nearer to its end, and takes along
/// those behind it that it does the same good.
fn renames(pairs: &[(&FileEntry, &FileEntry)]) -> Vec<Rename> {
    let mut paths: Vec<(String, &str)> =
        pairs.iter().map(|(before, after)| (before.path.clone(), after.path.as_str())).collect();
    let mut renames = Vec::new();
    let mut next = 0;
    for round in 0..=ROUNDS_BY_COMPONENT {
        let mut place = 0;
        while place < paths.len() {
            let (path, wanted) = &paths[place];
            if path == wanted {
                place += 1;
                continue;
            }
            let (at, end, with) = difference(path, wanted, round < ROUNDS_BY_COMPONENT);
            let replaced = path[at..end].to_owned();
            let (at, length, with) = (at as u32, (end - at) as u32, with.to_owned());
            let mut rename = Rename { first: place as i32 - next, count: 0, at, length, with };
            while let Some((path, wanted)) = paths.get_mut(place) {
                let found = path.get(at as usize..end);
                let Some(renamed) = rename.renamed(path).filter(|_| found == Some(replaced.as_str())) else { break };
                let is_nearer = renamed == **wanted || shared(&renamed, wanted) > shared(path, wanted);
                if path == wanted || !is_nearer {
                    break;
                }
                *path = renamed;
                rename.count += 1;
                place += 1;
            }
            next = place as i32;
            renames.push(rename);
        }
    }
    renames
}

/// Where `path` differs from `wanted`, and what stands there instead. `by_component`: in the first component that differs, where
/// they have equally many, or else in whole components, as many other files in the same directory may do.
fn difference<'a>(path: &str, wanted: &'a str, by_component: bool) -> (usize, usize, &'a str) {
    let components = |path: &str| path.matches('/').count();
    let (mut at, mut end, mut until) = (shared(path, wanted), path.len(), wanted.len());
    if by_component && components(path) == components(wanted) {
        let cut = |path: &str| path[at..].find('/').map_or(path.len(), |slash| at + slash);
        (end, until) = (cut(path), cut(wanted));
    } else if by_component {
        at = path[..at].rfind('/').map_or(0, |slash| slash + 1);
    }
    let same = path[at..end].chars().rev().zip(wanted[at..until].chars().rev()).take_while(|(a, b)| a == b);
    let mut same: usize = same.map(|(c, _)| c.len_utf8()).sum();
    if by_component && components(path) != components(wanted) {
        // What is the same begins where a component does, in both.
        let begins = |path: &str, end: usize| end == at || path[..end].ends_with('/');
        while same > 0 && !(begins(path, end - same) && begins(wanted, until - same)) {
            same -= path[end - same..].chars().next().map_or(0, char::len_utf8);
        }
    }
    (at, end - same, &wanted[at..until - same])
}

/// The bytes of all characters that two paths begin with.
fn shared(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
}
