//! Steps: the new manifest comes out to the byte, whatever changed, and the patches are between the right contents; what
//! is torn, forged, or of another manifest gives an error.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::fs;

use common::{NOW, Numbers, Vendor, content, grow, passphrase};
use firmware_image::Digest;
use firmware_image::updater_image::UpdaterVersion;
use release_store::chunk_list::PackEntry;
use release_store::content_key::ContentKeys;
use release_store::frame::FrameReader;
use release_store::manifest::{FileEntry, MAX_FILES, Manifest, ModuleEntry, Policy, UpdaterEntry};
use release_store::manifest_delta::MAX_RENAMED;
use release_store::publish::{DeltaFrom, Published, publish};
use release_store::repository::{NoObserver, Observer};
use release_store::step::{MAX_ENTRIES, MAX_PLACES, NewPatch, Patch, PatchPart};
use release_store::transport::get_range;
use release_store::trust::{MAX_STEPS, Release, VerifiedManifest};
use release_store::{ChunkList, Step, StoreError, patch};
use serde::Serialize;

fn file(path: &str, content: u64) -> FileEntry {
    let sha256 = Digest::of(&content.to_le_bytes());
    let (path, size, stored_bytes) = (path.to_owned(), content % 5000, content % 5000 + 40);
    FileEntry { path, mode: 0o644, size, stored_bytes, sha256, policy: Policy::Managed, module: 0 }
}

fn updater(platform: &str, content: u64) -> UpdaterEntry {
    let version = UpdaterVersion { major: 1, minor: 2, patch: 3 };
    let sha256 = Digest::of(&content.to_le_bytes());
    UpdaterEntry { platform: platform.into(), version, size: content, stored_bytes: content, sha256 }
}

fn module(id: &str, version: &str) -> ModuleEntry {
    ModuleEntry { id: id.into(), version: version.into() }
}

/// A release of 12 files.
fn release() -> Manifest {
    Manifest {
        product: "Acme Notes".into(),
        channel: "stable".into(),
        serial: 7,
        version: "1.7.0".into(),
        published: NOW,
        modules: vec![module("client", "1.7.0"), module("help", "3")],
        files: (0..12).map(|at| file(&format!("part-{:02}/file", 2 * at), 100 + at)).collect(),
        updaters: vec![updater("linux-x86_64", 1000), updater("windows-x86_64", 2000)],
        ignore: vec!["settings.ini".into()],
        blind: [7; 16],
    }
}

/// The release after `old`: nothing but what every release has anew.
fn next(old: &Manifest) -> Manifest {
    let (serial, published) = (old.serial + 1, old.published + 60);
    Manifest { serial, version: format!("1.{serial}.0"), published, blind: [serial as u8; 16], ..old.clone() }
}

fn sort(manifest: &mut Manifest) {
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
}

/// The encoded step, and the manifest that it gives once it was read again.
fn through_the_step(old: &Manifest, new: &Manifest) -> (Vec<u8>, Manifest) {
    let encoded = Step::new(old, new, None, &[]).unwrap().encode().unwrap();
    let given = Step::decode(&encoded).unwrap().manifest(old).unwrap();
    (encoded, given)
}

#[test]
fn every_kind_of_change_comes_out_to_the_byte() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 25] = [
        ("nothing", |_| {}),
        ("a file added", |new| new.files.push(file("part-03/file", 1))),
        ("files added at both ends", |new| new.files.extend([file("0", 1), file("z", 2)])),
        ("the first file removed", |new| drop(new.files.remove(0))),
        ("the last file removed", |new| drop(new.files.pop())),
        ("every other file removed", |new| new.files.retain(|file| file.size.is_multiple_of(2))),
        ("all files removed", |new| new.files.clear()),
        ("all files replaced", |new| new.files = vec![file("a", 1), file("b", 2)]),
        ("a file changed", |new| new.files[3] = file("part-06/file", 4999)),
        ("a file emptied", |new| {
            (new.files[3].sha256, new.files[3].size, new.files[3].stored_bytes) = (Digest::of(b""), 0, 0)
        }),
        ("a file as large as may be", |new| {
            (new.files[0].sha256, new.files[0].size) = (Digest::of(b"large"), u32::MAX.into())
        }),
        ("all files changed", |new| new.files.iter_mut().for_each(|file| file.sha256 = Digest::of(&file.sha256.0))),
        ("a file renamed", |new| new.files[5].path = "moved/file".into()),
        ("a file renamed and changed", |new| new.files[5] = file("part-10/other", 9)),
        ("all files renamed", |new| new.files.iter_mut().for_each(|file| file.path.insert_str(0, "acme/1.8/"))),
        ("directories and files renamed", |new| {
            new.files.iter_mut().for_each(|file| file.path = file.path.replace("part", "piece").replace("file", "page"))
        }),
        ("files renamed deep down", |new| {
            new.files.iter_mut().for_each(|file| file.path = format!("é/b/c/{}/d/é-{}", file.path, file.size))
        }),
        ("two files change places", |new| {
            let content = (new.files[2].sha256, new.files[2].size, new.files[2].stored_bytes);
            (new.files[2].sha256, new.files[2].size, new.files[2].stored_bytes) =
                (new.files[9].sha256, new.files[9].size, new.files[9].stored_bytes);
            (new.files[9].sha256, new.files[9].size, new.files[9].stored_bytes) = content;
        }),
        ("a file copied", |new| {
            let copy = FileEntry { path: "copy".into(), ..new.files[4].clone() };
            new.files.push(copy);
        }),
        ("files moved and copied", |new| {
            let copies = |name: &str| {
                new.files
                    .iter()
                    .map(|file| FileEntry { path: file.path.replace("part", name), ..file.clone() })
                    .collect()
            };
            let copies: [Vec<FileEntry>; 3] = ["a", "b", "z"].map(copies);
            new.files = copies.concat();
        }),
        ("mode, policy and module altered", |new| {
            new.files[0].mode = 0o755;
            new.files[1].policy = Policy::Seed;
            (new.files[11].module, new.files[11].stored_bytes) = (1, 9);
        }),
        ("a file changed and altered", |new| (new.files[2].sha256, new.files[2].mode) = (Digest::of(b"x"), 0o755)),
        ("modules changed", |new| new.modules = vec![module("client", "2")]),
        ("updaters changed", |new| drop(new.updaters.remove(0))),
        ("patterns changed", |new| new.ignore = vec!["logs/**".into(), "*.ini".into()]),
    ];
    let old = release();
    for (what, change) in changes {
        let mut new = next(&old);
        change(&mut new);
        sort(&mut new);
        let (_, given) = through_the_step(&old, &new);
        assert!(given.encode().unwrap() == new.encode().unwrap(), "{what}");
    }
}

/// `old` after random edits; contents come from a small pool, so that files share them.
fn edited(old: &Manifest, numbers: &mut Numbers) -> Manifest {
    let mut new = next(old);
    for _ in 0..numbers.next() % 12 {
        let at = (numbers.next() % (new.files.len() as u64 + 1)) as usize;
        let seed = numbers.next() % 40;
        let (from, to) =
            [("new-", "old-"), ("part-", "piece-"), ("/", "/deep/"), ("1", "é")][(numbers.next() % 4) as usize];
        match (numbers.next() % 10, new.files.get_mut(at)) {
            (0 | 1, _) | (_, None) => {
                let path = format!("new-{}", numbers.next() % 30);
                if new.file(&path).is_none() {
                    new.files.push(file(&path, seed));
                    sort(&mut new);
                }
            }
            (2, Some(_)) => drop(new.files.remove(at)),
            (3, Some(found)) => found.mode = if seed.is_multiple_of(2) { 0o755 } else { 0o644 },
            (4, Some(found)) => found.module = (seed % 2) as u16,
            (5, Some(found)) => found.stored_bytes = seed,
            (7, Some(_)) => {
                let mut renamed = new.clone();
                renamed.files.iter_mut().for_each(|file| file.path = file.path.replacen(from, to, 1));
                sort(&mut renamed);
                // Where that is no tree, it stays as it was.
                if renamed.check().is_ok() {
                    new = renamed;
                }
            }
            (8, Some(found)) => {
                let copy = FileEntry { path: format!("copy-{seed}"), ..found.clone() };
                if new.file(&copy.path).is_none() {
                    new.files.push(copy);
                    sort(&mut new);
                }
            }
            (6, Some(found)) => found.policy = if seed.is_multiple_of(2) { Policy::Seed } else { Policy::Managed },
            (_, Some(found)) => *found = file(&found.path.clone(), seed),
        }
    }
    match numbers.next() % 6 {
        0 => new.modules[1].version = numbers.next().to_string(),
        1 => new.updaters = vec![updater("linux-x86_64", numbers.next() % 5000 + 1)],
        2 => new.ignore.push(format!("{}.ini", numbers.next() % 100)),
        _ => {}
    }
    new
}

/// Up to `count` of the contents of `manifest`, in any order, some more than once.
fn some_contents(manifest: &Manifest, count: u64, numbers: &mut Numbers) -> Vec<(Digest, u64)> {
    let contents = manifest.contents();
    (0..numbers.next() % (count + 1)).map(|_| contents[(numbers.next() % contents.len() as u64) as usize]).collect()
}

#[test]
fn a_chain_of_random_releases_comes_out_to_the_byte_and_with_the_right_patches() {
    let mut numbers = Numbers(11);
    let mut old = release();
    for round in 0..600 {
        let new = edited(&old, &mut numbers);
        let (mut named, mut expected, mut at) = (Vec::new(), Vec::new(), 0);
        let pack = PackEntry { digest: Digest::of(b"pack"), bytes: 1 << 20, key: 3 };
        for _ in 0..numbers.next() % 4 {
            let (sources, mut targets) = (some_contents(&old, 5, &mut numbers), some_contents(&new, 5, &mut numbers));
            targets.push(new.contents()[0]);
            let part = || PatchPart { digest: Digest::of(b"part"), raw_len: 900, stored_len: 500 };
            let parts = vec![part(); 1 + (numbers.next() % 3) as usize];
            let digests = |contents: &[(Digest, u64)]| contents.iter().map(|(digest, _)| *digest).collect();
            named.push(NewPatch { sources: digests(&sources), targets: digests(&targets), parts: parts.clone() });
            let patch = Patch { sources, targets, parts, pack, offset: at };
            at += patch.stored_bytes();
            expected.push(patch);
        }
        let pack = (!named.is_empty()).then_some(pack);
        let made = Step::new(&old, &new, pack, &named).unwrap();
        let read = Step::decode(&made.encode().unwrap()).unwrap();
        assert_eq!(read, made);
        let given = read.manifest(&old).unwrap();
        assert!(given.encode().unwrap() == new.encode().unwrap(), "round {round}");
        assert_eq!(read.patches(&old, &given).unwrap(), expected, "round {round}");
        old = new;
    }
    assert!(old.files.len() > 5 && old.serial == 607);
}

#[test]
fn a_step_is_some_forty_bytes_a_changed_file() {
    let mut old = release();
    old.files = (0..300).map(|at| file(&format!("directory/file-{at:03}"), 1000 + at)).collect();
    let mut new = next(&old);
    let (nothing, _) = through_the_step(&old, &new);
    for at in (0..300).step_by(15) {
        new.files[at] = file(&new.files[at].path.clone(), 7000 + at as u64);
    }
    let (changed, _) = through_the_step(&old, &new);
    assert!(nothing.len() <= 50, "{} bytes", nothing.len());
    assert!(changed.len() - nothing.len() <= 20 * 38, "{} bytes", changed.len());
}

#[test]
fn a_directory_that_is_renamed_costs_one_rename_and_what_changes_in_it_its_digest() {
    let mut old = release();
    old.files = (0..3000).map(|at| file(&format!("acme-1.7/part-{}/file-{at:04}", at / 100), 1000 + at)).collect();
    sort(&mut old);
    let mut new = next(&old);
    let (nothing, _) = through_the_step(&old, &new);
    new.files.iter_mut().for_each(|file| file.path = file.path.replace("1.7", "1.8"));
    let (moved, given) = through_the_step(&old, &new);
    assert_eq!(given, new);
    assert!(moved.len() - nothing.len() <= 10, "{} bytes", moved.len());
    for at in (0..3000).step_by(150) {
        new.files[at] = file(&new.files[at].path.clone(), 7000 + at as u64);
    }
    let (changed, given) = through_the_step(&old, &new);
    assert_eq!(given, new);
    assert!(changed.len() - moved.len() <= 20 * 38, "{} bytes", changed.len());
    // And a name of its own for each of these.
    for at in (0..3000).step_by(150) {
        new.files[at].path.push_str(".changed");
    }
    let (renamed, given) = through_the_step(&old, &new);
    assert_eq!(given, new);
    assert!(renamed.len() - changed.len() <= 20 * 15, "{} bytes", renamed.len());
}

#[test]
fn a_directory_that_is_copied_costs_a_byte_a_file_and_one_rename() {
    let mut old = release();
    old.files = (0..3000).map(|at| file(&format!("part-{}/file-{at:04}", at / 100), 1000 + at)).collect();
    sort(&mut old);
    let mut new = next(&old);
    let (nothing, _) = through_the_step(&old, &new);
    let copies = old.files.iter().map(|file| FileEntry { path: format!("copy/{}", file.path), ..file.clone() });
    new.files.extend(copies);
    sort(&mut new);
    let (copied, given) = through_the_step(&old, &new);
    assert_eq!(given, new);
    assert!(copied.len() - nothing.len() <= 3000 + 20, "{} bytes", copied.len());
}

#[test]
fn contents_that_the_releases_do_not_have_are_in_no_patch() {
    let old = release();
    let new = next(&old);
    let pack = PackEntry { digest: Digest::of(b"pack"), bytes: 1000, key: 1 };
    let known = vec![old.files[0].sha256];
    for (sources, targets) in [(vec![Digest::of(b"x")], known.clone()), (known, vec![Digest::of(b"x")])] {
        let patch = NewPatch { sources, targets, parts: Vec::new() };
        let error = Step::new(&old, &new, Some(pack), &[patch]).unwrap_err();
        assert!(matches!(error, StoreError::MissingContent { .. }), "{error}");
    }
}

#[test]
fn a_step_on_another_manifest_gives_nothing_that_counts() {
    let old = release();
    let mut new = next(&old);
    new.files[3] = file("part-06/file", 4999);
    new.files.remove(7);
    new.files[8].mode = 0o755;
    let step = Step::new(&old, &new, None, &[]).unwrap();
    let mut other = old.clone();
    other.serial = 6;
    assert!(matches!(step.manifest(&other), Err(StoreError::Malformed { .. })));

    // Another manifest that claims the serial.
    let expected = Digest::of(&new.encode().unwrap());
    let mut numbers = Numbers(5);
    let (mut refused, mut differ) = (0, 0);
    for _ in 0..500 {
        let mut other = edited(&old, &mut numbers);
        if (&other.files, &other.modules, &other.updaters, &other.ignore)
            == (&old.files, &old.modules, &old.updaters, &old.ignore)
        {
            continue;
        }
        other.serial = old.serial;
        match step.manifest(&other) {
            Err(_) => refused += 1,
            // What differed was changed by the step anyway.
            Ok(given) if given == new => {}
            Ok(given) => {
                assert_ne!(Digest::of(&given.encode().unwrap()), expected, "{other:?}");
                differ += 1;
            }
        }
    }
    assert!(refused > 0 && differ > 100, "{refused} refused, {differ} differ");
    let mut few = old.clone();
    few.files.truncate(3);
    assert!(matches!(step.manifest(&few), Err(StoreError::Malformed { .. })));
}

/// A step as it is encoded, with any numbers.
#[derive(Serialize, Clone)]
struct Raw {
    from: u64,
    new: (u64, &'static str, i64, [u8; 16]),
    modules: Option<Vec<ModuleEntry>>,
    updaters: Option<Vec<UpdaterEntry>>,
    ignore: Option<Vec<String>>,
    removed: Vec<u32>,
    copied: Vec<i32>,
    renamed: Vec<(i32, u32, u32, u32, String)>,
    changed: Vec<(u32, Digest, i64, i64)>,
    altered: Vec<(u32, u32, Policy, u16, u64)>,
    added: Vec<FileEntry>,
    pack: Option<PackEntry>,
    patches: Vec<(Vec<i32>, Vec<i32>, Vec<PatchPart>)>,
}

impl Raw {
    fn new() -> Self {
        Self {
            from: 7,
            new: (8, "1.8.0", NOW + 60, [8; 16]),
            modules: None,
            updaters: None,
            ignore: None,
            removed: Vec::new(),
            copied: Vec::new(),
            renamed: Vec::new(),
            changed: Vec::new(),
            altered: Vec::new(),
            added: Vec::new(),
            pack: Some(PackEntry { digest: Digest::of(b"pack"), bytes: 1 << 30, key: 1 }),
            patches: Vec::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap()
    }
}

/// All that a device does with a step before it looks for frames.
fn used(encoded: &[u8], old: &Manifest) -> Result<(Manifest, Vec<Patch>), StoreError> {
    let step = Step::decode(encoded)?;
    let new = step.manifest(old)?;
    let patches = step.patches(old, &new)?;
    Ok((new, patches))
}

#[test]
fn the_raw_encoding_of_these_tests_is_the_steps() {
    let old = release();
    let step = Step::new(&old, &next(&old), Raw::new().pack, &[]).unwrap();
    assert_eq!(step.encode().unwrap(), Raw::new().encode());
}

#[test]
fn more_than_a_reader_takes_is_refused() {
    let old = release();
    let part = PatchPart { digest: Digest::of(b"part"), raw_len: 1, stored_len: 40 };
    let taken = |raw: &Raw| used(&raw.encode(), &old);
    let with = |patches| Raw { patches, ..Raw::new() };
    let patch = (vec![0], vec![0], vec![part]);
    assert_eq!(taken(&with(vec![patch.clone(); MAX_ENTRIES])).unwrap().1.len(), MAX_ENTRIES);
    assert!(taken(&with(vec![patch; MAX_ENTRIES + 1])).is_err());
    // A place again and again: back by one.
    let places = |count: usize| -> Vec<i32> { (0..count).map(|at| if at == 0 { 0 } else { -1 }).collect() };
    assert!(taken(&with(vec![(places(MAX_ENTRIES), places(MAX_ENTRIES), vec![])])).is_ok());
    assert!(taken(&with(vec![(places(MAX_ENTRIES + 1), places(1), vec![])])).is_err());
    assert!(taken(&with(vec![(places(1), places(MAX_ENTRIES + 1), vec![])])).is_err());
    // And all together, here half sources and half targets.
    let half = (places(MAX_ENTRIES / 2), places(MAX_ENTRIES / 2), vec![]);
    assert!(taken(&with(vec![half.clone(); MAX_PLACES / MAX_ENTRIES])).is_ok());
    assert!(taken(&with(vec![half; MAX_PLACES / MAX_ENTRIES + 1])).is_err());

    let files = |count: usize| (0..count).map(|at| file(&format!("more/{at}"), 1)).collect::<Vec<_>>();
    let added = |count: usize| taken(&Raw { added: files(count), ..Raw::new() });
    assert_eq!(added(MAX_FILES - 12).unwrap().0.files.len(), MAX_FILES);
    assert!(matches!(added(MAX_FILES - 11), Err(StoreError::TooLarge { .. })));
    assert!(matches!(added(MAX_FILES), Err(StoreError::TooLarge { .. })));
    assert!(matches!(added(MAX_FILES + 1), Err(StoreError::Malformed { .. })));
    let removed = |count: usize| taken(&Raw { removed: vec![0; count], ..Raw::new() });
    assert!(removed(12).unwrap().0.files.is_empty() && removed(13).is_err());
    let changed = |count: usize| taken(&Raw { changed: vec![(0, Digest::of(b"x"), 0, 0); count], ..Raw::new() });
    assert!(changed(12).is_ok() && changed(13).is_err());
    let copied = |count: usize| taken(&Raw { copied: vec![0; count], ..Raw::new() });
    assert!(matches!(copied(12), Err(StoreError::Path { .. })), "twice under one name");
    assert!(matches!(copied(13), Err(StoreError::Malformed { .. })));
    // The first file again and again, and nothing of its path replaced.
    let renamed = |count: usize, last: u32| {
        let rename = |at: usize| (-i32::from(at > 0), if at + 1 == count { last } else { 1 }, 0, 0, String::new());
        taken(&Raw { renamed: (0..count).map(rename).collect(), ..Raw::new() })
    };
    assert!(renamed(MAX_RENAMED, 1).is_ok());
    assert!(matches!(renamed(MAX_RENAMED, 2), Err(StoreError::TooLarge { .. })));
    assert!(matches!(renamed(MAX_RENAMED + 1, 1), Err(StoreError::Malformed { .. })));
    let altered = |count: usize| taken(&Raw { altered: vec![(0, 0o755, Policy::Managed, 0, 9); count], ..Raw::new() });
    assert!(altered(12).is_ok() && altered(13).is_err());
}

#[test]
fn patches_stay_within_their_pack_and_the_contents() {
    let old = release();
    let part = |stored_len| PatchPart { digest: Digest::of(b"part"), raw_len: 1000, stored_len };
    let with = |bytes: u64, sources: Vec<i32>, targets: Vec<i32>, parts: Vec<PatchPart>| {
        let pack = Some(PackEntry { digest: Digest::of(b"pack"), bytes, key: 1 });
        used(&Raw { pack, patches: vec![(sources, targets, parts)], ..Raw::new() }.encode(), &old)
    };
    // The contents are those of 12 files and two updaters.
    assert!(with(100, vec![13], vec![0, 12], vec![part(60), part(40)]).is_ok());
    assert!(with(99, vec![13], vec![0, 12], vec![part(60), part(40)]).is_err());
    assert!(with((1 << 40) + 1, vec![], vec![0], vec![part(60)]).is_err());
    let wrong = [
        vec![14],
        vec![13, 0],
        vec![-1],
        vec![0, -2],
        vec![i32::MAX],
        vec![i32::MIN],
        vec![13, i32::MAX],
        vec![0, i32::MIN],
    ];
    for places in wrong {
        assert!(with(100, places.clone(), vec![0], vec![part(60)]).is_err(), "sources {places:?}");
        assert!(with(100, vec![0], places.clone(), vec![part(60)]).is_err(), "targets {places:?}");
    }
    assert!(with(100, vec![0], vec![], vec![part(60)]).is_err(), "nothing given");
    for pack in [None, Some(PackEntry { digest: Digest::of(b"pack"), bytes: 0, key: 1 })] {
        let raw = |parts| Raw { pack, patches: vec![(vec![0], vec![0], parts)], ..Raw::new() };
        assert!(used(&raw(vec![part(60)]).encode(), &old).is_err());
        assert_eq!(used(&raw(vec![]).encode(), &old).is_ok(), pack.is_some());
    }
}

/// Numbers that are near where something ends.
fn edge(numbers: &mut Numbers) -> u64 {
    match numbers.next() % 6 {
        0 => u64::MAX >> (numbers.next() % 64),
        1 => 1 << (numbers.next() % 64),
        2 => (numbers.next() % 4).wrapping_neg(),
        _ => numbers.next() % 14,
    }
}

#[test]
fn no_numbers_make_a_reader_panic_and_what_it_takes_was_checked() {
    let old = release();
    let mut numbers = Numbers(3);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut raw = Raw::new();
        let n = &mut numbers;
        for _ in 0..n.next() % 3 {
            match n.next() % 7 {
                0 => raw.removed.push(edge(n) as u32),
                4 => raw.copied.push(edge(n) as i32),
                5 => {
                    let with = ["", "x", "é", "../", "part-02"][(n.next() % 5) as usize].to_owned();
                    let (first, count) = (edge(n) as i32, edge(n) as u32);
                    raw.renamed.push((first, count, edge(n) as u32, edge(n) as u32, with));
                }
                1 => raw.changed.push((edge(n) as u32, Digest::of(b"x"), edge(n) as i64, edge(n) as i64)),
                2 => raw.altered.push((edge(n) as u32, 0o644, Policy::Seed, edge(n) as u16, edge(n))),
                3 => raw.added.push(FileEntry { size: edge(n), ..file(&format!("new-{}", n.next() % 3), 1) }),
                _ => {
                    let places = |n: &mut Numbers| (0..n.next() % 3).map(|_| edge(n) as i32).collect();
                    let part = |n: &mut Numbers| PatchPart {
                        digest: Digest::of(b"part"),
                        raw_len: edge(n) as u32,
                        stored_len: 33 + edge(n) as u32 % 100,
                    };
                    let parts = (0..n.next() % 3).map(|_| part(n)).collect();
                    raw.patches.push((places(n), places(n), parts));
                }
            }
        }
        raw.pack = raw.pack.map(|pack| PackEntry { bytes: edge(n), ..pack }).filter(|_| !n.next().is_multiple_of(4));
        match used(&raw.encode(), &old) {
            Ok((new, patches)) => {
                taken += 1;
                new.encode().unwrap();
                assert!(patches.iter().all(|patch| patch.offset + patch.stored_bytes() <= patch.pack.bytes));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
}

#[test]
fn torn_and_random_bytes_are_refused_or_harmless() {
    let old = release();
    let mut numbers = Numbers(9);
    let mut new = edited(&old, &mut numbers);
    new.files[0] = file(&new.files[0].path.clone(), 12_345);
    new.files.push(file("zz", 1));
    let part = PatchPart { digest: Digest::of(b"part"), raw_len: 100, stored_len: 90 };
    let patches: Vec<NewPatch> = (0..3)
        .map(|at| NewPatch {
            sources: vec![old.files[at].sha256],
            targets: vec![new.files[at].sha256],
            parts: vec![part],
        })
        .collect();
    let whole = Step::new(&old, &new, Raw::new().pack, &patches).unwrap().encode().unwrap();
    assert_eq!(used(&whole, &old).unwrap().0, new);
    for at in 0..whole.len() {
        assert!(Step::decode(&whole[..at]).is_err(), "cut at {at}");
    }
    let check = |bytes: &[u8]| {
        if let Ok((manifest, _)) = used(bytes, &old) {
            manifest.encode().unwrap();
        }
    };
    for at in 0..whole.len() {
        for value in [0, 1, 2, 13, 14, 0x7f, 0x80, 0xfe, 0xff] {
            let mut torn = whole.clone();
            torn[at] = value;
            check(&torn);
        }
    }
    for _ in 0..20_000 {
        let mut torn = whole.clone();
        for _ in 0..1 + numbers.next() % 4 {
            let at = (numbers.next() % torn.len() as u64) as usize;
            match numbers.next() % 3 {
                0 => torn[at] = numbers.next() as u8,
                1 => drop(torn.splice(at..at, numbers.bytes(3))),
                _ => drop(torn.drain(at..(at + 3).min(torn.len()))),
            }
        }
        check(&torn);
        let length = (numbers.next() % 200) as usize;
        check(&numbers.bytes(length));
    }
}

/// Publishes with steps from recent releases.
fn publish_with_steps(vendor: &Vendor, tree: &std::path::Path, version: &str) -> Published {
    let mut request = vendor.request(tree, version);
    request.deltas = DeltaFrom::Recent;
    publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap()
}

fn step_of(vendor: &Vendor, release: &Release, from: u64) -> Step {
    let object = release.step(from).unwrap();
    let sealed = object.fetch(&release.step_name(from), &vendor.transport()).unwrap();
    Step::open(&sealed, &vendor.content_keys()).unwrap()
}

#[test]
fn what_publish_makes_gives_the_manifest_that_the_release_names() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 12, 3000, 1);
    let program = vendor.path("updater");
    let mut image = content(20_000, 5);
    image.extend_from_slice(b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a");
    image.extend_from_slice(&[0; 32]);
    fs::write(&program, &image).unwrap();
    publish_with_steps(&vendor, &tree, "1");
    for (version, change) in (2..).zip(0..7) {
        let mut request = vendor.request(&tree, &version.to_string());
        request.deltas = DeltaFrom::Recent;
        match change {
            0 => fs::write(tree.join("part-0/file-0.bin"), content(3000, 50)).unwrap(),
            1 => fs::rename(tree.join("part-1/file-1.bin"), tree.join("moved")).unwrap(),
            2 => fs::remove_file(tree.join("part-2/file-2.bin")).unwrap(),
            3 => fs::write(tree.join("part-3/new"), "").unwrap(),
            4 => request.ignore = vec!["part-4/*".into()],
            5 => request.updaters = vec![("linux-x86_64".into(), program.clone())],
            _ => request.module = "main".into(),
        }
        let published = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
        let release = vendor.release(&version.to_string());
        assert_eq!(release, published.release);
        let expected: Vec<u64> = (1..version).filter(|from| *from == 1 || from + 4 >= version).collect();
        assert_eq!(release.steps.iter().map(|(from, _)| *from).collect::<Vec<_>>(), expected);
        let whole = vendor.verified(&release);
        for from in expected {
            let old = vendor.manifest(&from.to_string());
            let step = step_of(&vendor, &release, from);
            assert_eq!(step.from, from);
            let given = step.manifest(&old).unwrap().encode().unwrap();
            assert_eq!(VerifiedManifest::accept(&release, given).unwrap().bytes(), whole.bytes());
        }
        // The step from another release leads nowhere else.
        let older = release.steps[0].0;
        if older != version - 1 {
            let step = step_of(&vendor, &release, older);
            assert!(step.manifest(&vendor.manifest(&(version - 1).to_string())).is_err());
        }
        let stale = vendor.manifest(&(version - 1).to_string()).encode().unwrap();
        let error = VerifiedManifest::accept(&release, stale).unwrap_err();
        assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    }
}

/// The contents of a release, from its chunks.
fn contents(vendor: &Vendor, version: &str) -> HashMap<Digest, Vec<u8>> {
    let (transport, keys) = (vendor.transport(), vendor.content_keys());
    let list = ChunkList::fetch(&vendor.release(version), &vendor.manifest(version), &transport, &keys).unwrap();
    let read = |content| {
        let chunks = list.chunks_of(content);
        chunks
            .flat_map(|(_, chunk)| frame(vendor, &keys, list.pack_of(chunk).unwrap(), chunk.range(), &chunk.frame_id()))
            .collect()
    };
    list.contents.iter().map(|content| (content.digest, read(content))).collect()
}

fn frame(
    vendor: &Vendor,
    keys: &ContentKeys,
    pack: &PackEntry,
    range: std::ops::Range<u64>,
    id: &release_store::frame::FrameId,
) -> Vec<u8> {
    let mut stored = Vec::new();
    get_range(&vendor.transport(), &pack.path(), range, pack.bytes, &mut |_, piece| {
        stored.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    FrameReader::new().unwrap().open(keys.get(pack.key).unwrap(), id, &stored).unwrap().bytes().to_vec()
}

#[test]
fn the_patches_of_a_step_give_the_new_contents_from_the_old_ones() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    grow(&tree, 30, 20_000, 1);
    publish_with_steps(&vendor, &tree, "1");
    for at in [0, 7, 14, 3] {
        let path = tree.join(format!("part-{}/file-{at}.bin", at % 7));
        let mut bytes = fs::read(&path).unwrap();
        bytes.splice(100..200, content(300, at));
        fs::write(&path, bytes).unwrap();
    }
    fs::write(tree.join("like-file-5.bin"), [&fs::read(tree.join("part-5/file-5.bin")).unwrap()[..], b"more"].concat())
        .unwrap();
    let published = publish_with_steps(&vendor, &tree, "2");
    let (old, new) = (vendor.manifest("1"), vendor.manifest("2"));
    let patches = step_of(&vendor, &published.release, 1).patches(&old, &new).unwrap();
    let (before, after, keys) = (contents(&vendor, "1"), contents(&vendor, "2"), vendor.content_keys());
    let mut given = BTreeSet::new();
    for patch in &patches {
        let join = |digests: &[(Digest, u64)], from: &HashMap<Digest, Vec<u8>>| -> Vec<u8> {
            digests.iter().flat_map(|(digest, _)| from[digest].clone()).collect()
        };
        let (source, target) = (join(&patch.sources, &before), join(&patch.targets, &after));
        let mut at = patch.offset;
        let mut bytes = Vec::new();
        for part in &patch.parts {
            let end = at + u64::from(part.stored_len);
            bytes.extend(frame(&vendor, &keys, &patch.pack, at..end, &part.frame_id()));
            at = end;
        }
        let mut made = Vec::new();
        let lengths = (source.len() as u64, target.len() as u64);
        patch::apply(&mut bytes.as_slice(), &mut source.as_slice(), lengths.0, lengths.1, &mut |piece| {
            made.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert!(made == target);
        given.extend(patch.targets.iter().map(|(digest, _)| *digest));
    }
    let known: BTreeSet<Digest> = old.files.iter().map(|file| file.sha256).collect();
    let changed: BTreeSet<Digest> =
        new.files.iter().map(|file| file.sha256).filter(|digest| !known.contains(digest)).collect();
    assert_eq!(given, changed, "each new content once");
    let stored: u64 = patches.iter().map(Patch::stored_bytes).sum();
    assert_eq!(published.steps[0].pack.unwrap().bytes, stored, "nothing else is in the pack");
}

#[test]
fn no_more_steps_are_made_than_readers_take() {
    let (vendor, tree) = Vendor::with_release();
    let mut request = vendor.request(&tree, "2");
    request.deltas = DeltaFrom::Versions((0..=MAX_STEPS).map(|at| format!("0.{at}")).collect());
    let error = publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap_err();
    assert!(error.to_string().contains(&format!("at most {}", MAX_STEPS - 1)), "{error}");
}

/// Tells what it was told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

#[test]
fn a_release_that_no_step_can_say_is_published_without() {
    let (vendor, tree) = Vendor::with_release();
    let name = "x".repeat(110);
    fs::create_dir(tree.join(&name)).unwrap();
    // Some 280 bytes each, in the manifest as in the step.
    for at in 0..34_000 {
        fs::write(tree.join(format!("{name}/{name}-{at:06}")), "").unwrap();
    }
    let mut request = vendor.request(&tree, "2");
    request.deltas = DeltaFrom::Recent;
    let mut notes = Notes::default();
    let published = publish(&mut vendor.open(), &passphrase(), &request, &mut notes).unwrap();
    assert!(published.steps.is_empty() && published.release.steps.is_empty());
    assert!(notes.0.len() == 1 && notes.0[0].contains("1.0.0"), "{:?}", notes.0);
    assert_eq!(vendor.manifest("2").files.len(), 34_005);
}
