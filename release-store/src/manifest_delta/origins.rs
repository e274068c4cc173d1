//! Which old file each file of a new manifest was, or is a copy of.
//!
//! Whatever is chosen, the difference gives the new manifest; a good choice only makes it short. No search looks at more than
//! two candidates for a file: its neighbours in an order in which what is alike stands together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::manifest::{FileEntry, Manifest};

/// Where the files of a manifest come from.
pub(super) struct Origins<'a> {
    /// Files that stay and files that move, by their place in the old manifest.
    pub moved: HashMap<usize, &'a FileEntry>,
    /// Other files with a content of the old manifest, with the place of one that had it.
    pub copied: Vec<(usize, &'a FileEntry)>,
    /// All others.
    pub added: Vec<&'a FileEntry>,
}

impl<'a> Origins<'a> {
    /// Finds out where the files of `new` come from.
    pub(super) fn find(old: &Manifest, new: &'a Manifest) -> Self {
        let mut moved = HashMap::new();
        let mut added = Vec::new();
        for file in &new.files {
            match old.files.binary_search_by(|before| before.path.cmp(&file.path)) {
                Ok(place) => drop(moved.insert(place, file)),
                Err(_) => added.push(file),
            }
        }
        let mut gone: BTreeSet<usize> = (0..old.files.len()).filter(|place| !moved.contains_key(place)).collect();
        let mut directories: HashMap<&str, &str> = HashMap::new();
        for alike in [by_content, by_name] {
            let pairs = pair(old, &mut gone, &mut added, alike, alike);
            let directory = |(place, after): &(usize, &'a FileEntry)| {
                let before = &old.files[*place];
                (name(&before.path) == name(&after.path)).then(|| (parent(&before.path), parent(&after.path)))
            };
            directories.extend(pairs.iter().filter_map(directory));
            moved.extend(pairs);
        }
        // What has another name, where its neighbours went.
        let moved_along = |file: &FileEntry| {
            let to = directories.get(parent(&file.path)).copied().unwrap_or(parent(&file.path));
            by_directory(&[to, name(&file.path)].concat())
        };
        moved.extend(pair(old, &mut gone, &mut added, moved_along, |file| by_directory(&file.path)));

        let known: BTreeMap<Vec<u8>, usize> =
            old.files.iter().enumerate().map(|(place, file)| (by_content(file).0, place)).collect();
        let mut copied = Vec::new();
        added.retain(|file| match nearest(&known, &by_content(file)) {
            Some(key) => {
                copied.push((known[&key], *file));
                false
            }
            None => true,
        });
        Self { moved, copied, added }
    }
}

/// What a file is found by: files that are alike agree in the first bytes of it, and how many of them must.
type Likeness = (Vec<u8>, usize);

/// Files of the same content, best with the most of the end of the path.
fn by_content(file: &FileEntry) -> Likeness {
    let key = [&file.sha256.0[..], &file.size.to_be_bytes()].concat();
    let least = key.len();
    ([key, backwards(&file.path)].concat(), least)
}

/// Files of the same name, best with the most of the directories above it.
fn by_name(file: &FileEntry) -> Likeness {
    (backwards(&file.path), name(&file.path).len() + 1)
}

/// Files of the same directory, best with the most of the beginning of the name.
fn by_directory(path: &str) -> Likeness {
    (path.into(), parent(path).len().max(1))
}

fn backwards(path: &str) -> Vec<u8> {
    path.bytes().rev().chain([b'/']).collect()
}

fn name(path: &str) -> &str {
    &path[parent(path).len()..]
}

/// With its last `/`.
fn parent(path: &str) -> &str {
    &path[..path.rfind('/').map_or(0, |at| at + 1)]
}

/// Takes those out of `fresh` that are like one of `gone`, and that one out of `gone`: its place, and the new file.
fn pair<'a>(
    old: &Manifest,
    gone: &mut BTreeSet<usize>,
    fresh: &mut Vec<&'a FileEntry>,
    like_old: impl Fn(&FileEntry) -> Likeness,
    like_new: impl Fn(&FileEntry) -> Likeness,
) -> Vec<(usize, &'a FileEntry)> {
    let mut known: BTreeMap<Vec<u8>, usize> =
        gone.iter().map(|place| (like_old(&old.files[*place]).0, *place)).collect();
    let mut pairs = Vec::new();
    fresh.retain(|file| {
        let Some(place) = nearest(&known, &like_new(file)).and_then(|key| known.remove(&key)) else { return true };
        gone.remove(&place);
        pairs.push((place, *file));
        false
    });
    pairs
}

/// The key in `known` that agrees in most first bytes.
fn nearest(known: &BTreeMap<Vec<u8>, usize>, (key, least): &Likeness) -> Option<Vec<u8>> {
    let neighbours = [known.range(..key.clone()).next_back(), known.range(key.clone()..).next()];
    let shared = |other: &Vec<u8>| other.iter().zip(key).take_while(|(a, b)| a == b).count();
    let found = neighbours.into_iter().flatten().map(|(other, _)| (shared(other), other));
    found.filter(|(shared, _)| shared >= least).max_by_key(|(shared, _)| *shared).map(|(_, other)| other.clone())
}
