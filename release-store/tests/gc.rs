//! What `gc` keeps, what it takes, and that nobody loses anything by it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use common::{DAY, NOW, Numbers, Vendor, content, copy_tree, files, passphrase};
use release_store::chunk_list::ChunkList;
use release_store::contents::ContentReader;
use release_store::gc::{Collected, DEFAULT_WHOLE_EVERY, Fate, Policy, collect, preview};
use release_store::keys::KeyDir;
use release_store::mirror::mirror_quietly;
use release_store::publish::{DeltaFrom, Published, publish};
use release_store::repository::{NoObserver, Observer, Repository, Step};
use release_store::trust::{MemoryCache, Releases, Trust, VerifiedManifest};
use release_store::verify::{Verified, verify};
use release_store::{Directory, StoreError};

/// A tree's files, by path.
type Tree = BTreeMap<String, Vec<u8>>;

/// A vendor with a series of releases, `1.0.0` and on.
struct Series {
    vendor: Vendor,
    trees: Vec<Tree>,
}

/// Six releases of one vendor, which most tests begin with a copy of.
static SIX: LazyLock<Series> = LazyLock::new(|| Series::made(6));

impl Series {
    /// Six releases whose files change as software does.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(SIX.vendor.dir.path(), dir.path());
        let keys = KeyDir::open(&dir.path().join("keys")).unwrap();
        Self { vendor: Vendor { dir, keys }, trees: SIX.trees.clone() }
    }

    fn made(count: usize) -> Self {
        let mut series = Self { vendor: Vendor::new(), trees: Vec::new() };
        for _ in 0..count {
            series.next();
        }
        series
    }

    /// Publishes one more.
    fn next(&mut self) -> Published {
        let at = self.trees.len();
        let tree = self.trees.last().map_or_else(first_tree, |last| changed(last, at as u64));
        self.trees.push(tree);
        self.publish_last()
    }

    fn publish_last(&mut self) -> Published {
        let (at, tree) = (self.trees.len() - 1, self.vendor.path("tree"));
        let _ = fs::remove_dir_all(&tree);
        for (path, bytes) in &self.trees[at] {
            let place = tree.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, bytes).unwrap();
        }
        let mut request = self.vendor.request(&tree, &version(at));
        request.deltas = DeltaFrom::Recent;
        // A day apart, and all of them before the store is tended.
        request.now = NOW + (at as i64 - 60) * DAY;
        publish(&mut self.vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap()
    }

    /// A copy of the store to try something on.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.vendor.path(name);
        let _ = fs::remove_dir_all(&copy);
        copy_tree(&self.vendor.store(), &copy);
        self.vendor.forget_signed();
        copy
    }

    fn collect(&self, store: &Path, policy: &Policy, now: i64) -> Collected {
        self.try_collect(store, policy, now, &mut NoObserver).unwrap()
    }

    fn try_collect(
        &self,
        store: &Path,
        policy: &Policy,
        now: i64,
        observer: &mut dyn Observer,
    ) -> Result<Collected, StoreError> {
        let mut repository = Repository::open(store, &self.vendor.keys).unwrap();
        collect(&mut repository, &passphrase(), policy, now, observer)
    }

    fn preview(&self, store: &Path, policy: &Policy, now: i64) -> Collected {
        let (root, keys) = (self.vendor.root(), self.vendor.content_keys());
        preview(store, &root, "Acme Notes", &keys, policy, now, &mut NoObserver).unwrap()
    }

    fn verify(&self, store: &Path) -> Verified {
        let keys = self.vendor.content_keys();
        verify(store, &self.vendor.root(), "Acme Notes", &keys, &mut NoObserver).unwrap()
    }

    /// That nothing is damaged, nothing lies about, and every release gives its files.
    fn check(&self, store: &Path) -> Releases {
        let verified = self.verify(store);
        assert!(verified.damage.is_empty(), "{:?}", verified.damage);
        assert!(verified.orphans.is_empty(), "{:?}", verified.orphans);
        let releases = releases(&self.vendor, store);
        let (transport, keys) = (Directory::new(store), self.vendor.content_keys());
        let mut reader = ContentReader::new(&releases, &transport, "Acme Notes", &keys).unwrap();
        for release in releases.iter() {
            let tree = &self.trees[release.serial as usize - 1];
            let manifest = VerifiedManifest::fetch(release, &transport, &keys).unwrap().open("Acme Notes").unwrap();
            assert_eq!(manifest.files.len(), tree.len());
            for file in &manifest.files {
                let bytes = reader.read(release.serial, &file.sha256).unwrap();
                assert!(*bytes == tree[&file.path], "{} of {}", file.path, release.version);
            }
        }
        releases
    }
}

fn version(at: usize) -> String {
    format!("1.{at}.0")
}

fn releases(vendor: &Vendor, store: &Path) -> Releases {
    Trust::new(&vendor.root(), MemoryCache::new()).unwrap().offline(&Directory::new(store)).unwrap()
}

/// Text of a vocabulary, in lines.
fn text(lines: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text = String::new();
    for line in 0..lines {
        let words: Vec<String> = (0..8).map(|_| format!("word{}", numbers.next() % 500)).collect();
        text.push_str(&format!("{line}: {}\n", words.join(" ")));
    }
    text.into_bytes()
}

fn first_tree() -> Tree {
    let mut tree = Tree::new();
    tree.insert("bin/client".into(), content(120_000, 1));
    tree.insert("lib/engine.so".into(), content(90_000, 2));
    tree.insert("data/fixed.bin".into(), content(60_000, 3));
    tree.insert("empty".into(), Vec::new());
    for at in 0..8 {
        tree.insert(format!("doc/page-{at}.txt"), text(40, 10 + at));
    }
    tree
}

/// The next release: some bytes of programs change, a few texts, files come, go and move.
fn changed(last: &Tree, at: u64) -> Tree {
    let mut tree = last.clone();
    let mut numbers = Numbers(at + 77);
    for name in ["bin/client", "lib/engine.so"] {
        let bytes = tree.get_mut(name).unwrap();
        for _ in 0..30 {
            let place = numbers.next() as usize % bytes.len();
            bytes.splice(place..(place + 4).min(bytes.len()), numbers.next().to_le_bytes());
        }
    }
    for _ in 0..3 {
        let name = format!("doc/page-{}.txt", numbers.next() % 8);
        if let Some(page) = tree.get_mut(&name) {
            page.extend(text(3, at + 1000));
        }
    }
    // Like nothing that was there, and larger than what patches give of that.
    tree.insert(format!("data/new-{at}.bin"), content(70_000, 5000 + at));
    if at > 2 {
        let before = tree.remove(&format!("data/new-{}.bin", at - 2)).unwrap();
        tree.insert("data/moved.bin".into(), before);
    }
    if let Some(bytes) = tree.get_mut(&format!("data/new-{}.bin", at - 1)) {
        bytes[100..110].fill(at as u8);
    }
    tree.insert("version".into(), at.to_string().into_bytes());
    tree
}

fn at_once() -> Policy {
    Policy { grace_secs: 0, ..Policy::default() }
}

fn bytes(store: &Path) -> u64 {
    files(store).iter().filter(|(name, _)| name != ".gc.json").map(|(_, bytes)| bytes.len() as u64).sum()
}

fn fates(collected: &Collected) -> Vec<(u64, Fate)> {
    collected.releases.iter().map(|release| (release.serial, release.fate)).collect()
}

/// The steps between a release and the one at the bottom of its line.
fn depth(releases: &Releases, serial: u64) -> usize {
    releases.by_serial(serial).unwrap().base.map_or(0, |base| 1 + depth(releases, base))
}

#[test]
fn every_policy_leaves_every_kept_release_readable_and_the_store_smaller() {
    let mut series = Series::new();
    series.next();
    series.next();
    let store = series.vendor.store();
    series.check(&store);
    let before = bytes(&store);
    let policies = [
        ("default", at_once(), vec![]),
        ("three whole", Policy { whole: 3, ..at_once() }, vec![6, 7]),
        ("short lines", Policy { whole_every: 3, ..at_once() }, vec![2, 5]),
        ("a pin", Policy { pins: vec![version(2), version(4)], ..at_once() }, vec![3, 5]),
        ("some kept", Policy { keep: Some(4), ..at_once() }, vec![]),
        ("some kept, and a pin", Policy { keep: Some(3), pins: vec![version(1)], ..at_once() }, vec![2]),
    ];
    for (name, policy, whole) in policies {
        let copy = series.copy("copy");
        let previewed = series.preview(&copy, &policy, NOW);
        assert_eq!(files(&copy), files(&store), "{name}: a preview changes nothing");
        let collected = series.collect(&copy, &policy, NOW);
        assert_eq!(fates(&collected), fates(&previewed), "{name}");
        assert_eq!(collected.new_bytes, previewed.new_bytes, "{name}");
        assert!(collected.is_changed && previewed.is_changed, "{name}");
        let after = bytes(&copy);
        assert_eq!((collected.bytes_before, collected.bytes_after), (before, after), "{name}");
        assert!(previewed.bytes_after.abs_diff(after) < 20_000, "{name}: {} {after}", previewed.bytes_after);
        assert!(after < before * 7 / 10, "{name}: {before} bytes became {after}");

        let releases = series.check(&copy);
        let expected = policy.keep.map_or(8, |keep| keep + policy.pins.len());
        assert_eq!(releases.iter().len(), expected, "{name}");
        for serial in [8].iter().chain(&whole) {
            assert_eq!(releases.by_serial(*serial).unwrap().base, None, "{name}: {serial}");
        }
        assert!(releases.iter().any(|release| release.base.is_some()), "{name}");
        for release in releases.iter() {
            assert!(depth(&releases, release.serial) < policy.whole_every, "{name}: {}", release.serial);
            let next = releases.iter().find(|next| next.serial > release.serial);
            assert!(release.base.is_none_or(|base| Some(base) == next.map(|next| next.serial)), "{name}");
            // One step leads on from each, and to the newest from the one before it.
            let leads_on = releases.iter().filter(|to| to.serial > release.serial && to.step(release.serial).is_some());
            let leads_on: Vec<u64> = leads_on.map(|to| to.serial).collect();
            match release.serial {
                8 => assert!(leads_on.is_empty(), "{name}"),
                7 => assert_eq!(leads_on, [8], "{name}"),
                // Those between may be forgotten.
                serial => {
                    let is_left = leads_on.len() == 1 || (leads_on.is_empty() && policy.keep.is_some());
                    assert!(is_left, "{name}: {leads_on:?} from {serial}");
                }
            }
        }

        let again = series.collect(&copy, &policy, NOW);
        assert!(!again.is_changed && again.new_bytes == 0 && again.deleted_files == 0, "{name}: {again:?}");
        assert_eq!(bytes(&copy), after, "{name}: a second run changes nothing");
    }
}

#[test]
fn what_nothing_names_stays_for_the_grace_period_and_goes_after_it() {
    let mut series = Series::new();
    let store = series.vendor.store();
    let before: BTreeMap<String, Vec<u8>> = files(&store).into_iter().collect();
    let policy = Policy::default();
    let first = series.collect(&store, &policy, NOW);
    assert!(first.deleted_files == 0 && first.doomed_files > 5, "{first:?}");
    let held = |before: &BTreeMap<String, Vec<u8>>| {
        let now: BTreeMap<String, Vec<u8>> = files(&store).into_iter().collect();
        before.iter().filter(|(name, bytes)| now.get(*name) == Some(bytes)).map(|(name, _)| name.clone()).collect()
    };
    let all: BTreeSet<String> = before.keys().filter(|name| *name != "metadata/timestamp.json").cloned().collect();
    let is_same: BTreeSet<String> = held(&before);
    assert_eq!(is_same, all, "everything that a device may be fetching is there");
    assert_eq!(series.verify(&store).doomed, first.doomed_files);
    series.check(&store);

    // Later runs within the period change nothing; one release more is published meanwhile.
    let list = fs::read(store.join(".gc.json")).unwrap();
    series.collect(&store, &policy, NOW + 13 * DAY);
    assert_eq!(fs::read(store.join(".gc.json")).unwrap(), list);
    series.next();
    let late = series.collect(&store, &policy, NOW + 14 * DAY - 1);
    assert_eq!(late.deleted_files, 0);
    let all_still: BTreeSet<String> = held(&before);
    assert_eq!(all_still, all);

    let due = series.collect(&store, &policy, NOW + 14 * DAY);
    assert_eq!((due.deleted_files, due.deleted_bytes), (first.doomed_files, first.doomed_bytes));
    assert!(due.doomed_files > 0, "what the last release made superfluous waits for its own time");
    let left: BTreeSet<String> = held(&before);
    assert_eq!(left.len() as u64, all.len() as u64 - first.doomed_files);
    assert!(left.contains("metadata/1.root.json"), "roots lead devices from the factory on");
    series.check(&store);
    let last = series.collect(&store, &policy, NOW + 60 * DAY);
    assert!(last.doomed_files == 0 && !store.join(".gc.json").exists(), "{last:?}");
    assert_eq!(series.verify(&store).doomed, 0);
    assert_eq!(bytes(&store), last.bytes_after);
}

#[test]
fn a_file_that_is_named_again_leaves_the_list_and_a_clock_that_jumped_takes_nothing_early() {
    let mut series = Series::new();
    let store = series.vendor.store();
    // An orphan of an interrupted run, under the name of what the next release will need.
    let ahead = series.copy("ahead");
    series.next();
    let made: Vec<(String, Vec<u8>)> = files(&store)
        .into_iter()
        .filter(|(name, _)| (name.starts_with("packs/") || name.starts_with("targets/")) && !ahead.join(name).exists())
        .collect();
    fs::remove_dir_all(&store).unwrap();
    copy_tree(&ahead, &store);
    series.vendor.forget_signed();
    for (name, bytes) in &made {
        fs::create_dir_all(store.join(name).parent().unwrap()).unwrap();
        fs::write(store.join(name), bytes).unwrap();
    }
    fs::write(store.join("packs/note.txt"), "somebody's own").unwrap();
    let policy = Policy { whole: 99, ..Policy::default() };
    // With a clock far in the future, and then a right one.
    series.collect(&store, &policy, NOW + 9000 * DAY);
    series.publish_last();
    let collected = series.collect(&store, &policy, NOW + 30 * DAY);
    assert_eq!(collected.deleted_files, 0);
    let listed = fs::read_to_string(store.join(".gc.json")).unwrap();
    let packs = made.iter().filter(|(name, _)| name.starts_with("packs/"));
    assert!(packs.clone().count() > 0);
    for (name, _) in packs {
        assert!(!listed.contains(name), "{name} is named again");
    }
    series.collect(&store, &policy, NOW + 50 * DAY);
    assert!(store.join("packs/note.txt").exists(), "what is not a store's is left alone");
    fs::remove_file(store.join("packs/note.txt")).unwrap();
    series.check(&store);
}

#[test]
fn publishing_goes_on_after_gc_with_steps_from_thinned_releases() {
    let mut series = Series::new();
    let untouched = series.copy("untouched");
    series.collect(&series.vendor.store(), &at_once(), NOW);
    let made = series.next();
    assert_eq!(made.steps.len(), 5);
    let releases = series.check(&series.vendor.store());
    assert!(made.steps.iter().filter(|step| releases.by_serial(step.from).unwrap().base.is_some()).count() >= 3);

    // The same steps as without gc in between, to the byte.
    let store = series.vendor.store();
    let with_gc: Vec<_> = made.steps.iter().map(|step| (step.from, step.pack)).collect();
    fs::remove_dir_all(&store).unwrap();
    copy_tree(&untouched, &store);
    series.vendor.forget_signed();
    let plain: Vec<_> = series.publish_last().steps.iter().map(|step| (step.from, step.pack)).collect();
    assert_eq!(with_gc, plain);
}

#[test]
fn a_run_after_each_release_keeps_the_store_sound_and_lines_short() {
    let mut series = Series::made(2);
    let store = series.vendor.store();
    for _ in 0..8 {
        series.next();
        series.collect(&store, &at_once(), NOW);
    }
    let releases = series.check(&store);
    assert_eq!(releases.iter().len(), 10);
    let thinned = releases.iter().filter(|release| release.base.is_some()).count();
    assert!(thinned >= 7, "{thinned}");
    assert!(releases.iter().all(|release| depth(&releases, release.serial) < DEFAULT_WHOLE_EVERY));

    // One that was pinned, and is no more, stays as it is where others are made of it.
    let whole: BTreeSet<u64> = releases.iter().filter(|release| release.base.is_none()).map(|r| r.serial).collect();
    let kept = series.collect(&store, &Policy { keep: Some(3), ..at_once() }, NOW);
    assert!(kept.releases.iter().any(|release| release.fate == Fate::Forgotten));
    let left = series.check(&store);
    assert!(left.iter().filter_map(|release| release.base).all(|base| left.by_serial(base).is_some()));
    assert!(left.iter().filter(|release| release.base.is_none()).all(|release| whole.contains(&release.serial)));
}

#[test]
fn one_of_every_few_releases_and_withdrawn_ones_that_are_newer_stay_whole() {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    fs::create_dir(&tree).unwrap();
    let mut series = Series { vendor, trees: Vec::new() };
    let mut program = content(60_000, 9);
    let last = 2 * DEFAULT_WHOLE_EVERY as u64;
    for at in 0..last as usize {
        // All in the first chunk.
        let place = at * 500;
        program[place..place + 8].fill(at as u8);
        series.trees.push(Tree::from([("client".to_owned(), program.clone())]));
        series.publish_last();
    }
    for serial in [last - 1, last] {
        let version = version(serial as usize - 1);
        series.vendor.open().withdraw("stable", &version, Some("worse"), &passphrase(), NOW).unwrap();
    }
    let store = series.vendor.store();
    series.collect(&store, &at_once(), NOW);
    let releases = series.check(&store);
    let whole: Vec<u64> =
        releases.iter().filter(|release| release.base.is_none()).map(|release| release.serial).collect();
    let newest = last - 2;
    assert_eq!(whole, [newest - DEFAULT_WHOLE_EVERY as u64, newest, last - 1, last]);
    assert!(releases.iter().all(|release| depth(&releases, release.serial) < DEFAULT_WHOLE_EVERY));
    let unknown = Policy { pins: vec!["9.9.9".into()], ..at_once() };
    let error = series.try_collect(&store, &unknown, NOW, &mut NoObserver).unwrap_err();
    assert!(error.to_string().contains("9.9.9"), "{error}");
}

#[test]
fn that_a_release_was_withdrawn_stays_known_when_it_is_forgotten() {
    let mut series = Series::new();
    let store = series.vendor.store();
    series.vendor.open().withdraw("stable", &version(1), Some("worse"), &passphrase(), NOW).unwrap();
    series.collect(&store, &Policy { keep: Some(2), ..at_once() }, NOW);
    series.next();
    let releases = series.check(&store);
    assert!(releases.by_serial(2).is_none());
    assert_eq!(releases.withdrawn(2), Some("worse"));
    assert_eq!(releases.iter().map(|release| release.serial).collect::<Vec<_>>(), [5, 6, 7]);
}

#[test]
fn a_list_that_cannot_be_read_costs_time_and_nothing_else() {
    let series = Series::new();
    let store = series.vendor.store();
    series.collect(&store, &Policy::default(), NOW);
    for damage in [&b"{"[..], b"", br#"{"format": 9, "unnamed_since": {}}"#, br#"{"format": 1}"#] {
        fs::write(store.join(".gc.json"), damage).unwrap();
        assert!(series.verify(&store).damage.is_empty());
        let collected = series.collect(&store, &Policy::default(), NOW + 30 * DAY);
        assert!(collected.deleted_files == 0 && collected.doomed_files > 0, "{collected:?}");
    }
    // Names of files that count delete nothing.
    let named = r#"{"format": 1, "unnamed_since": {"metadata/timestamp.json": 0, "../keys/root.key": 0}}"#;
    fs::write(store.join(".gc.json"), named).unwrap();
    series.collect(&store, &Policy::default(), NOW + 31 * DAY);
    assert!(store.join("metadata/timestamp.json").exists() && series.vendor.path("keys/root.key").exists());
    series.check(&store);
}

struct StopAt(Step);

impl Observer for StopAt {
    fn step(&mut self, step: Step) -> ControlFlow<()> {
        if step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn a_run_cut_off_after_any_step_leaves_a_sound_store_and_the_next_one_goes_on() {
    let series = Series::new();
    let whole = series.copy("whole");
    let expected = fates(&series.collect(&whole, &at_once(), NOW));
    let expected_bytes = bytes(&whole);
    let steps = [
        Step::PackWritten,
        Step::ChunkListWritten,
        Step::TargetsWritten,
        Step::SnapshotWritten,
        Step::TimestampWritten,
        Step::DoomedListed,
        Step::DoomedDeleted,
    ];
    for step in steps {
        let copy = series.copy("copy");
        let error = series.try_collect(&copy, &at_once(), NOW, &mut StopAt(step)).unwrap_err();
        assert!(matches!(error, StoreError::Stopped), "{step:?}: {error}");
        let verified = series.verify(&copy);
        assert!(verified.damage.is_empty(), "{step:?}: {:?}", verified.damage);
        let again = series.collect(&copy, &at_once(), NOW);
        assert_eq!(fates(&again), expected, "{step:?}");
        series.check(&copy);
        // Metadata's numbers may differ, and with them a few bytes.
        assert!(bytes(&copy).abs_diff(expected_bytes) < 100, "{step:?}: {} {expected_bytes}", bytes(&copy));
    }
}

#[test]
fn a_run_killed_at_any_moment_leaves_a_sound_store() {
    let series = Series::new();
    for millis in [1, 20, 60, 100, 150, 200, 300] {
        let copy = series.copy("copy");
        let mut child = Command::new(env!("CARGO_BIN_EXE_release-store"))
            .args(["gc", "--grace", "0", "--keys"])
            .arg(series.vendor.keys.path())
            .arg(&copy)
            .env("HOLDFAST_PASSPHRASE", "correct horse")
            .env("SOURCE_DATE_EPOCH", NOW.to_string())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        let verified = series.verify(&copy);
        assert!(verified.damage.is_empty(), "{millis}: {:?}", verified.damage);
        series.collect(&copy, &at_once(), NOW);
        series.check(&copy);
    }
}

#[test]
fn verify_reports_what_a_thinned_release_lacks_and_gc_takes_no_chunks_that_nothing_else_gives() {
    let series = Series::new();
    let thinned = series.copy("thinned");
    series.collect(&thinned, &at_once(), NOW);
    let releases = releases(&series.vendor, &thinned);
    let (serial, base) = releases.iter().find_map(|release| Some((release.serial, release.base?))).unwrap();
    let release = releases.by_serial(serial).unwrap();
    let step = release.step(base).unwrap().path(&release.step_name(base));
    let keys = series.vendor.content_keys();
    let sealed = fs::read(thinned.join(&step)).unwrap();
    let pack = release_store::Step::open(&sealed, &keys).unwrap().pack.unwrap().path();
    for name in [step, pack] {
        let copy = series.vendor.path("copy");
        for damage in ["flip", "gone"] {
            let _ = fs::remove_dir_all(&copy);
            copy_tree(&thinned, &copy);
            let mut bytes = fs::read(copy.join(&name)).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            match damage {
                "flip" => fs::write(copy.join(&name), bytes).unwrap(),
                _ => fs::remove_file(copy.join(&name)).unwrap(),
            }
            let found = series.verify(&copy).damage;
            let says = |text: &str| found.iter().any(|(object, error)| format!("{object} {error}").contains(text));
            assert!(says(&name) && says(&format!("release {serial}")), "{damage} {name}: {found:?}");
        }
    }

    // A chunk that is damaged before its release is thinned: nothing changes.
    let whole = series.copy("copy");
    let release = &series.vendor.release(&version(serial as usize - 1));
    let transport = Directory::new(&whole);
    let manifest = VerifiedManifest::fetch(release, &transport, &keys).unwrap().open("Acme Notes").unwrap();
    let list = ChunkList::fetch(release, &manifest, &transport, &keys).unwrap();
    for pack in &list.packs {
        let mut damaged = fs::read(whole.join(pack.path())).unwrap();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 4;
        fs::write(whole.join(pack.path()), damaged).unwrap();
    }
    let timestamp = fs::read(whole.join("metadata/timestamp.json")).unwrap();
    series.try_collect(&whole, &at_once(), NOW, &mut NoObserver).unwrap_err();
    assert_eq!(fs::read(whole.join("metadata/timestamp.json")).unwrap(), timestamp);
}

#[test]
fn a_mirror_leaves_the_list_behind_and_is_tended_by_gc_of_its_own() {
    let series = Series::new();
    let (store, copy) = (series.vendor.store(), series.vendor.path("mirror"));
    mirror_quietly(&store, &copy).unwrap();
    series.collect(&store, &Policy::default(), NOW);
    assert!(store.join(".gc.json").exists());
    mirror_quietly(&store, &copy).unwrap();
    assert!(!copy.join(".gc.json").exists());
    let done = series.collect(&copy, &at_once(), NOW);
    assert!(!done.is_changed && done.deleted_files > 0, "nothing is signed for a copy");
    let done = series.collect(&store, &at_once(), NOW);
    assert!(!done.is_changed);
    assert_eq!(files(&copy), files(&store));
    series.check(&copy);
}

#[test]
fn the_program_says_what_it_would_do_and_does_it() {
    let series = Series::new();
    let store = series.vendor.store();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_release-store"))
            .args(arguments)
            .arg("--keys")
            .arg(series.vendor.keys.path())
            .arg(&store)
            .env("HOLDFAST_PASSPHRASE", "correct horse")
            .env("SOURCE_DATE_EPOCH", NOW.to_string())
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let before = files(&store);
    let (code, table, people) = run(&["gc", "--dry-run"]);
    assert!(
        code == 0 && table.contains("as patches on 6 from now on") && people.contains("would be"),
        "{table}{people}"
    );
    let (_, text, _) = run(&["gc", "--dry-run", "--json"]);
    let would: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(files(&store), before);
    let (code, text, _) = run(&["gc", "--json", "--grace", "12h"]);
    let did: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    assert_eq!((&did["releases"], &did["new_bytes"]), (&would["releases"], &would["new_bytes"]));
    assert_eq!(did["deleted_files"], 0);
    let (_, listed, _) = run(&["gc", "--dry-run", "--grace", "0"]);
    assert!(listed.contains("as patches on 6\n"), "{listed}");
    for wrong in
        [["--grace", "soon"], ["--grace", "-1d"], ["--keep", "0"], ["--whole-every", "0"], ["--whole-every", "17"]]
    {
        assert_eq!(run(&["gc", wrong[0], wrong[1]]).0, 2, "{wrong:?}");
    }
    let (code, _, people) = run(&["verify"]);
    assert!(code == 0 && people.contains("wait for `gc`"), "{people}");
    let (code, _, people) = run(&["gc", "--pin", "7"]);
    assert!(code == 1 && people.contains("pinned"), "{people}");
}
