//! Surprise removal: a device is pulled out in the middle of a restore, a download, a commit and the writes to the hidden
//! zone, at twenty moments and more each. Whatever the pull left must heal: at once with what is on the device alone, and
//! with a server in reach to the newest release. Nothing hangs in the guest, and nothing stays there.
//!
//! Every state is healed on this machine by the same programs; a share of them is plugged in again in the guest, with
//! `HOLDFAST_FULL=1` every one.

mod follow;
mod gate;
mod scene;
mod seen;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use firmware_image::journal::State;
use firmware_image::sim::figures;
use qemu_tests::block_log::BlockLog;
use qemu_tests::replay::{self, Recording};
use qemu_tests::stick::Profile;
use qemu_tests::world::{NEW, OLD, World};

use self::gate::Opening;
use self::scene::{Pulled, Scene, Starter};
use self::seen::Seen;
use crate::ward::copy_with_holes;

/// Moments that each phase must be hit at, over both profiles.
const DEMANDED: usize = 20;
/// Moments of each phase and profile.
const SHARE: usize = 10;
/// How long it may take from a pull until nothing of the device runs any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Restore,
    Download,
    Commit,
    Hidden,
}

/// What was hit, and what came of it.
#[derive(Default)]
struct Table {
    hits: BTreeMap<(Phase, String), usize>,
    missed: BTreeMap<Phase, usize>,
    ended: BTreeMap<String, usize>,
    healed: BTreeMap<String, usize>,
    in_guest: usize,
    slowest: Duration,
    defects: Vec<String>,
}

impl Table {
    fn count(&self, phase: Phase) -> usize {
        self.hits.iter().filter(|((of, _), _)| *of == phase).map(|(_, count)| count).sum()
    }

    /// Takes what another one counted.
    fn add(&mut self, other: Self) {
        let add = |to: &mut BTreeMap<String, usize>, from: BTreeMap<String, usize>| {
            from.into_iter().for_each(|(key, count)| *to.entry(key).or_default() += count);
        };
        other.hits.into_iter().for_each(|(key, count)| *self.hits.entry(key).or_default() += count);
        other.missed.into_iter().for_each(|(key, count)| *self.missed.entry(key).or_default() += count);
        add(&mut self.ended, other.ended);
        add(&mut self.healed, other.healed);
        self.in_guest += other.in_guest;
        self.slowest = self.slowest.max(other.slowest);
        self.defects.extend(other.defects);
    }

    fn tell(&self) {
        println!("{:<10} {:<50} {:>7}", "phase", "what the pull left", "moments");
        for ((phase, left), count) in &self.hits {
            println!("{:<10} {left:<50} {count:>7}", format!("{phase:?}"));
        }
        println!("too late, healed all the same: {:?}", self.missed);
        println!(
            "how the launcher ended: {:?}; nothing left after at most {:.1} s",
            self.ended,
            self.slowest.as_secs_f64()
        );
        println!(
            "healed to {:?}; {} of them in the guest; did not heal: {}",
            self.healed,
            self.in_guest,
            self.defects.len()
        );
        for defect in &self.defects {
            println!("--- {defect}");
        }
        figures::count(figures::MOMENTS, "pulled", self.hits.values().sum(), self.defects.len());
    }
}

/// Rounds over one device.
struct Rounds {
    scene: Scene,
    table: Table,
    number: usize,
    guest_every: usize,
}

impl Rounds {
    /// Pulls at a moment, looks what that left, and heals it.
    fn round(
        &mut self,
        phase: Phase,
        start: &Path,
        journal: State,
        opening: Opening,
        moment: impl Fn(&follow::Progress, bool) -> bool,
    ) {
        let begun = Instant::now();
        self.scene.gate.set(opening);
        let slow = phase != Phase::Download;
        let starter = if self.number.is_multiple_of(2) { Starter::Unit } else { Starter::Hand };
        let pulled = self.scene.plug_and_pull(start, journal, starter, slow, |follow, gate| {
            follow.until(|progress| moment(progress, gate.is_stalled())) || moment(&follow.progress, gate.is_stalled())
        });
        self.number += 1;
        let Some(pulled) = pulled else {
            if moments().is_some() {
                eprintln!("{phase:?}: the launcher had ended: {}", self.scene.said());
            }
            *self.table.missed.entry(phase).or_default() += 1;
            return self.judge(phase, "nothing: the launcher had ended", None);
        };
        let plugged = begun.elapsed();
        let left = left(phase, &self.scene, start);
        match &left {
            Some(left) => *self.table.hits.entry((phase, left.clone())).or_default() += 1,
            None => *self.table.missed.entry(phase).or_default() += 1,
        }
        self.judge(phase, left.as_deref().unwrap_or("too late"), Some(&pulled));
        if moments().is_some() {
            eprintln!("{phase:?} {left:?} {} {:?} {plugged:?} {:?}", pulled.ended, pulled.progress, begun.elapsed());
        }
    }

    fn judge(&mut self, phase: Phase, left: &str, pulled: Option<&Pulled>) {
        let profile = self.scene.stick.profile;
        let said = pulled.map_or("", |pulled| &pulled.said);
        let mut defect = |what: String| {
            self.table
                .defects
                .push(format!("{profile:?}, {phase:?}, {left}: {what}\nbefore, the launcher said:\n{said}"));
        };
        if let Some(pulled) = pulled {
            *self.table.ended.entry(pulled.ended.clone()).or_default() += 1;
            self.table.slowest = self.table.slowest.max(pulled.took);
            // That of a pulled device, or the client's own where it had run.
            // `killed TERM`: the service manager was quicker than the launcher's first steps.
            let by_client = pulled.ended == "exited 0" && pulled.said.contains("CLIENT ");
            if !matches!(&*pulled.ended, "exited 74" | "killed TERM") && !by_client {
                defect(format!("the launcher ended with {}", pulled.ended));
            }
            if pulled.took > PATIENCE {
                defect(format!("it took {:?} until nothing of it ran any more", pulled.took));
            }
        }
        let state = self.scene.keep("pulled");
        match self.scene.heal_here(self.number.is_multiple_of(3)) {
            Ok(version) => *self.table.healed.entry(version).or_default() += 1,
            Err(what) => defect(what),
        }
        if self.number.is_multiple_of(self.guest_every) {
            copy_with_holes(&state, &self.scene.stick.disk);
            self.scene.gate.set(if phase == Phase::Restore { Opening::Closed } else { Opening::Open });
            let again = self.scene.plug_to_the_end();
            let wanted = if phase == Phase::Restore { OLD } else { NEW };
            match self.scene.whole() {
                Ok(version) if version == wanted && again.ended == "exited 0" => self.table.in_guest += 1,
                other => defect(format!("plugged in again: {other:?}, {}\n{}", again.ended, again.said)),
            }
        }
    }
}

/// What a pull in this phase left; `None`: it came too late.
fn left(phase: Phase, scene: &Scene, start: &Path) -> Option<String> {
    let seen = scene.seen();
    let told = match phase {
        Phase::Restore if seen.updater => return None,
        Phase::Restore => match seen.beside {
            None => "no updater, nothing beside".into(),
            Some(0) => "no updater, an empty copy beside".into(),
            Some(_) => "no updater, a copy beside".into(),
        },
        Phase::Download if seen.journal != State::Idle => return None,
        Phase::Download if seen.spool == 0 => "nothing of it on the device yet".into(),
        Phase::Download => "a part of it in the spool".into(),
        Phase::Commit | Phase::Hidden => return open(phase, &seen, scene, start),
    };
    Some(told)
}

/// The same while a commit is open, or a backup is renewed.
fn open(phase: Phase, seen: &Seen, scene: &Scene, start: &Path) -> Option<String> {
    let unsound: Vec<&str> = seen.slots.iter().filter(|(_, sound, _)| !sound).map(|(slot, ..)| &**slot).collect();
    let untouched = scene.hidden(start) == scene.hidden(&scene.stick.disk);
    match (phase, seen.journal) {
        (Phase::Hidden, _) if !unsound.is_empty() => Some(format!("{} half written", unsound.join(" and "))),
        (Phase::Hidden, State::Committing { .. }) if !untouched => Some("between slots, the journal open".into()),
        (Phase::Commit, State::Committing { .. }) if untouched => {
            Some(match (seen.client(&scene.releases), seen.beside) {
                (_, Some(_)) => "open, a copy beside the updater".into(),
                (Some(version), None) => format!("open, the client is {version}"),
                (None, None) => "open, the client is a mixture".into(),
            })
        }
        (Phase::Commit, State::Cleaning { .. }) => Some("clearing away".into()),
        _ => None,
    }
}

/// For a quick look: so many moments of each phase and profile, fewer than are demanded.
fn moments() -> Option<usize> {
    std::env::var("HOLDFAST_PULL_MOMENTS").ok()?.parse().ok()
}

/// `n` numbers from 1 to `most`, evenly.
fn spread(n: usize, most: u64) -> impl Iterator<Item = u64> {
    (0..n as u64).map(move |i| 1 + i * (most - 1) / (n as u64 - 1).max(1))
}

/// `None`: there is no machine to be had.
fn rounds(profile: Profile) -> Option<Table> {
    let scene = Scene::new(profile)?;
    let full = std::env::var_os("HOLDFAST_FULL").is_some();
    let share = moments().unwrap_or(if full { 3 * SHARE } else { SHARE });
    let mut rounds = Rounds { scene, table: Table::default(), number: 0, guest_every: if full { 1 } else { 8 } };

    // Undisturbed, once: what there is to interrupt.
    let base = rounds.scene.keep("base");
    rounds.scene.gate.set(Opening::Open);
    let update = rounds.scene.plug_to_the_end();
    assert_eq!(rounds.scene.whole().as_deref(), Ok(NEW), "{}", update.said);
    let (updated, packs) = (rounds.scene.keep("updated"), rounds.scene.gate.passed());
    let (opened, (hidden_from, commits)) = (update.progress.opened.unwrap(), update.progress.hidden_from.unwrap());
    let recording = Recording::new(&base, BlockLog::open(&rounds.scene.log()).unwrap()).unwrap();
    let prefix = |cut: u64, name: &str| {
        let image = rounds.scene.stick.dir().join(name);
        let cut = usize::try_from(cut).unwrap();
        recording.write_image(&recording.overlay(&replay::State::Prefix { cut }).unwrap(), &image).unwrap();
        image
    };
    let (staged, late) = (prefix(opened, "staged.img"), prefix(hidden_from, "late.img"));

    copy_with_holes(&base, &rounds.scene.stick.disk);
    let disk = rounds.scene.stick.disk.to_string_lossy().into_owned();
    World::get().partition_tools(&["free", "rm", &disk, "updater-linux-x86_64"]);
    let bare = rounds.scene.keep("bare");
    rounds.scene.gate.set(Opening::Closed);
    let restore = rounds.scene.plug_to_the_end();
    assert_eq!(rounds.scene.whole().as_deref(), Ok(OLD), "{}", restore.said);

    // Up to the rename: after that the updater stands, and the rest is the updater's own work.
    let recording = Recording::new(&bare, BlockLog::open(&rounds.scene.log()).unwrap()).unwrap();
    let (mut missing, mut there) = (0, usize::try_from(restore.progress.entries).unwrap());
    while there - missing > 1 {
        let cut = missing.midpoint(there);
        let overlay = recording.overlay(&replay::State::Prefix { cut }).unwrap();
        recording.write_image(&overlay, &rounds.scene.stick.disk).unwrap();
        *(if rounds.scene.seen().updater { &mut there } else { &mut missing }) = cut;
    }
    for k in spread(share, missing as u64 * 9 / 10) {
        rounds.round(Phase::Restore, &bare, State::Idle, Opening::Closed, |progress, _| progress.entries >= k);
    }
    for i in 0..share as u64 {
        let k = i * packs / share as u64;
        // Every second time it is given the time to put away what has come.
        let rest = if i % 2 == 0 { Duration::ZERO } else { Duration::from_secs(2) };
        let silent = Cell::new(None);
        rounds.round(Phase::Download, &base, State::Idle, Opening::Packs(k), |_, stalled| {
            if stalled && silent.get().is_none() {
                silent.set(Some(Instant::now()));
            }
            silent.get().is_some_and(|since: Instant| since.elapsed() >= rest)
        });
    }
    for k in spread(share, commits * 3 / 4) {
        rounds.round(Phase::Commit, &staged, State::Idle, Opening::Open, |progress, _| progress.commit >= k);
    }
    rounds.round(Phase::Commit, &late, State::Idle, Opening::Open, |progress, _| progress.cleaning);
    for k in spread(share.div_ceil(2), update.progress.hidden * 5 / 8) {
        rounds.round(Phase::Hidden, &late, State::Idle, Opening::Open, |progress, _| progress.hidden >= k);
        rounds.round(Phase::Hidden, &updated, State::Idle, Opening::Open, |progress, _| progress.hidden >= k);
    }
    Some(rounds.table)
}

#[test]
fn a_device_that_is_pulled_at_any_moment_is_whole_when_it_is_plugged_in_again() {
    // Both at once: each emulated machine keeps one processor busy.
    let tables = std::thread::scope(|scope| {
        Profile::ALL.map(|profile| scope.spawn(move || rounds(profile))).map(|thread| thread.join().unwrap())
    });
    let mut table = Table::default();
    for of_profile in tables {
        let Some(of_profile) = of_profile else { return };
        table.add(of_profile);
    }
    table.tell();
    assert!(table.defects.is_empty(), "{} states did not heal", table.defects.len());
    for phase in [Phase::Restore, Phase::Download, Phase::Commit, Phase::Hidden] {
        assert!(
            moments().is_some() || table.count(phase) >= DEMANDED,
            "{phase:?} was hit at {} moments only",
            table.count(phase)
        );
    }
}
