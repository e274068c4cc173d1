//! Figures: what was measured against what, and whether the goal is met.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::run;

/// One line of the result.
pub struct Figure {
    /// What is claimed.
    pub claim: String,
    /// What was measured.
    pub measured: f64,
    /// What the goal allows.
    pub goal: f64,
    /// The figures behind it.
    pub detail: String,
}

/// All lines.
#[derive(Default)]
pub struct Table(Vec<Figure>);

impl Table {
    /// Adds a line, and says it at once.
    pub fn add(&mut self, claim: impl Into<String>, measured: f64, goal: f64, detail: impl Into<String>) {
        let figure = Figure { claim: claim.into(), measured, goal, detail: detail.into() };
        eprintln!("{}: {:.2} (goal {:.2}); {}", figure.claim, figure.measured, figure.goal, figure.detail);
        self.0.push(figure);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| claim | measured | goal | | behind it |\n|---|---|---|---|---|")?;
        for figure in &self.0 {
            let met = if figure.measured <= figure.goal { "met" } else { "**missed**" };
            let Figure { claim, measured, goal, detail } = figure;
            writeln!(f, "| {claim} | {measured:.2} | ≤ {goal:.2} | {met} | {detail} |")?;
        }
        Ok(())
    }
}

/// The middle of several durations.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How long a command takes from start to end; it must succeed.
pub fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let output = run::capture(command)?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!("{} failed: {}", run::line(command), String::from_utf8_lossy(&output.stderr));
    }
    Ok(took)
}

/// Milliseconds, for people.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
