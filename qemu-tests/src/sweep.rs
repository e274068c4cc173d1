//! Many states, judged one by one by as many threads as there are cores.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use firmware_image::sim::figures;

use crate::replay::{Effort, Kind, Overlay, Recording, State};
use crate::verdict::fsck::Harmless;
use crate::verdict::{Defect, Scrutiny, Verdict};

/// The environment variable that names one state to try instead of all.
pub const ONE_STATE: &str = "HOLDFAST_CUT_STATE";
/// The environment variable that names the directory in which that state's recording was kept.
pub const RECORDING: &str = "HOLDFAST_CUT_RECORDING";
/// The environment variable that asks for every state.
pub const ALL_STATES: &str = "HOLDFAST_FULL";
/// The environment variable that says how many states are tried of a recording at most.
pub const MOST_STATES: &str = "HOLDFAST_CUTS";
/// After so many states that did not heal, the rest is not tried.
const MAX_DEFECTS: usize = 25;

/// How much is tried.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Which states.
    pub effort: Effort,
    /// At most so many of them.
    pub most: usize,
    /// Every so many-th state is looked at from all sides.
    pub whole_every: usize,
    /// Every so many-th state meets servers that do not answer, and waits for them.
    pub patient_every: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// States that there are, and of them those that are like no other.
    pub states: (usize, usize),
    /// Those that were tried, by kind.
    pub tried: BTreeMap<Kind, usize>,
    /// What they healed to.
    pub versions: BTreeMap<String, usize>,
    /// What `fsck.vfat` found that does no harm, and how often.
    pub harmless: BTreeMap<Harmless, usize>,
    /// Those that did not heal.
    pub defects: Vec<(State, Defect)>,
    /// How long it took.
    pub took: Duration,
    /// Cores that worked.
    pub cores: usize,
}

impl Tally {
    /// Says on standard output what came of it. Where states did not heal, their recording is kept and it is said how to try
    /// one again.
    ///
    /// # Errors
    /// The recording cannot be kept.
    pub fn tell(&self, what: &str, recording: &Recording) -> Result<()> {
        println!("{what}: {self}");
        figures::count(figures::CUT_STATES, what, self.total(), self.defects.len());
        if let Some((state, _)) = self.defects.first() {
            let name: String = what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let dir = crate::cache_directory()?.join(format!("unhealed-{name}"));
            recording.keep(&dir)?;
            println!("again: {RECORDING}={} {ONE_STATE}={state}", dir.display());
        }
        Ok(())
    }

    /// States that were tried.
    pub fn total(&self) -> usize {
        self.tried.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_kind: Vec<String> = self.tried.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let total = self.total();
        let (all, different) = self.states;
        writeln!(
            f,
            "{total} states tried ({}) of {different} different ones ({all} ways to make them)",
            by_kind.join(", ")
        )?;
        let each = self.took.as_secs_f64() * self.cores as f64 / total.max(1) as f64;
        let (took, cores) = (self.took.as_secs_f64(), self.cores);
        writeln!(f, "in {took:.1} s on {cores} cores, {:.0} ms each; healed to {:?}", each * 1000.0, self.versions)?;
        writeln!(f, "harmless: {:?}; did not heal: {}", self.harmless, self.defects.len())?;
        for (state, defect) in &self.defects {
            writeln!(f, "--- {state}\n{defect}")?;
        }
        Ok(())
    }
}

/// A directory in memory where there is one, since every state is an image.
///
/// # Errors
/// There is no place for temporary files.
pub fn directory() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("holdfast-cuts-");
    let made = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
    made.context("there is no place for temporary files")
}

impl Sweep {
    /// The sweep that the environment asks for: one state, all of them, or `most`.
    pub fn sized(most: usize) -> Self {
        if std::env::var_os(ALL_STATES).is_some() {
            return Self {
                effort: Effort { exhaustive: 8, random: 200, ..Effort::default() },
                most: usize::MAX,
                whole_every: 4,
                patient_every: 50,
            };
        }
        let asked = std::env::var(MOST_STATES).ok().and_then(|number| number.parse().ok());
        Self { effort: Effort::default(), most: asked.unwrap_or(most), whole_every: 8, patient_every: 50 }
    }

    /// Judges the states of a recording. Each one's image is built in `dir`.
    ///
    /// # Errors
    /// A fault of this machine.
    pub fn run(&self, recording: &Recording, verdict: &Verdict, dir: &Path) -> Result<Tally> {
        if let Ok(name) = std::env::var(ONE_STATE) {
            let state: State = name.parse()?;
            let image = crate::cache_directory()?.join("state.img");
            recording.write_image(&recording.overlay(&state)?, &image)?;
            println!("{state}, as the cut left it: {}", image.display());
            return self.judge(recording, verdict, dir, vec![state]);
        }
        let states = recording.states(&self.effort);
        let all = states.len();
        let mut seen = HashSet::new();
        let mut different = Vec::new();
        for state in states {
            if seen.insert(recording.overlay(&state)?.digest()) {
                different.push(state);
            }
        }
        let count = different.len();
        let mut tally = self.judge(recording, verdict, dir, Recording::thinned(different, self.most))?;
        tally.states = (all, count);
        Ok(tally)
    }

    fn judge(&self, recording: &Recording, verdict: &Verdict, dir: &Path, states: Vec<State>) -> Result<Tally> {
        let started = Instant::now();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Some states wait for servers that do not answer.
        let threads = 2 * cores;
        let tally = Mutex::new(Tally { cores, ..Tally::default() });
        let (send, receive) = mpsc::sync_channel::<(usize, State, Overlay)>(threads);
        let receive = Mutex::new(receive);
        let worker = |number: usize| -> Result<()> {
            let image = dir.join(format!("state-{number}.img"));
            let spare = dir.join(format!("state-{number}.fat"));
            loop {
                let next = receive.lock().map_err(poisoned)?.recv();
                // The sender has no more.
                let Ok((count, state, overlay)) = next else { return Ok(()) };
                recording.write_image(&overlay, &image)?;
                let whole = count.is_multiple_of(self.whole_every);
                let scrutiny = if whole { Scrutiny::WHOLE } else { Scrutiny::BRIEF };
                let scrutiny = Scrutiny { patient: (count + 1).is_multiple_of(self.patient_every), ..scrutiny };
                let judged = verdict.judge(&image, &spare, scrutiny).with_context(|| format!("state {state}"))?;
                let mut tally = tally.lock().map_err(poisoned)?;
                *tally.tried.entry(state.kind()).or_default() += 1;
                match judged {
                    Ok(healed) => {
                        *tally.versions.entry(healed.version).or_default() += 1;
                        for harmless in healed.harmless {
                            *tally.harmless.entry(harmless).or_default() += 1;
                        }
                    }
                    Err(defect) => {
                        tally.defects.push((state, defect));
                    }
                }
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            let worker = &worker;
            let workers: Vec<_> = (0..threads).map(|number| scope.spawn(move || worker(number))).collect();
            for (count, state) in states.into_iter().enumerate() {
                let overlay = recording.overlay(&state)?;
                let enough = tally.lock().map_err(poisoned)?.defects.len() >= MAX_DEFECTS;
                if enough
                    || workers.iter().any(|worker| worker.is_finished())
                    || send.send((count, state, overlay)).is_err()
                {
                    break;
                }
            }
            drop(send);
            for worker in workers {
                worker.join().map_err(|_| anyhow!("a thread failed"))??;
            }
            Ok(())
        })?;
        let mut tally = tally.into_inner().map_err(poisoned)?;
        tally.took = started.elapsed();
        Ok(tally)
    }
}

fn poisoned<T>(_: std::sync::PoisonError<T>) -> anyhow::Error {
    anyhow!("another thread failed")
}
