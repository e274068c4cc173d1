//! What a command took, as the kernel counted it: processor time and memory.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::run;

/// How often is looked whether a command has ended that may not run for ever.
const LOOK: Duration = Duration::from_millis(20);

/// What a command and everything that it waited for took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, of user and system together, in seconds.
    pub cpu_secs: f64,
    /// The most memory that one process had, in bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Two commands, one after the other.
    pub fn and(self, other: Self) -> Self {
        Self { cpu_secs: self.cpu_secs + other.cpu_secs, peak_bytes: self.peak_bytes.max(other.peak_bytes) }
    }

    /// Of two that did the same, the one that was disturbed less.
    pub fn least(self, other: Self) -> Self {
        if other.cpu_secs < self.cpu_secs { other } else { self }
    }

    /// What `other` takes of the time, too, is left out.
    pub fn without(self, other: Self) -> Self {
        Self { cpu_secs: (self.cpu_secs - other.cpu_secs).max(0.0), ..self }
    }
}

/// The hidden subcommand: this program is small, so that a child's peak is its own and not what the parent had.
#[derive(clap::Args)]
pub struct Args {
    /// Where to write what it took, as JSON.
    #[arg(long)]
    report: PathBuf,
    /// End it after so many seconds.
    #[arg(long)]
    patience_secs: Option<u64>,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs a command with this process's own streams, and writes what it took.
pub fn record(args: &Args) -> Result<ExitCode> {
    let (program, rest) = args.command.split_first().context("no command")?;
    let mut command = Command::new(program);
    let child = command.args(rest).spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let status = wait(child, args.patience_secs.map(Duration::from_secs))?;
    let usage = serde_json::to_vec(&of_children()?)?;
    fs::write(&args.report, usage).with_context(|| format!("cannot write {}", args.report.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `command` quietly to its end; what it took, and its standard output.
pub fn measure(command: &mut Command) -> Result<(Usage, String)> {
    measured(command, None)
}

/// The same; a command that takes longer than `patience` is ended, and has failed.
pub fn measure_within(command: &mut Command, patience: Duration) -> Result<(Usage, String)> {
    measured(command, Some(patience))
}

fn measured(command: &mut Command, patience: Option<Duration>) -> Result<(Usage, String)> {
    let report = tempfile::NamedTempFile::new()?;
    let mut timed = Command::new(std::env::current_exe().context("where this program is")?);
    timed.arg("usage").arg("--report").arg(report.path());
    if let Some(patience) = patience {
        timed.arg("--patience-secs").arg(patience.as_secs().to_string());
    }
    timed.arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        timed.current_dir(dir);
    }
    let output = run::capture(&mut timed)?;
    if !output.status.success() {
        bail!("{} failed: {}", run::line(command), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let usage = serde_json::from_slice(&fs::read(report.path())?).context("what it took")?;
    Ok((usage, String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn wait(mut child: Child, patience: Option<Duration>) -> Result<ExitStatus> {
    let Some(patience) = patience else { return Ok(child.wait()?) };
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            bail!("it was ended after {} s", patience.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(target_os = "linux")]
fn of_children() -> Result<Usage> {
    // SAFETY: `getrusage` fills the structure it is given, which is plain integers.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        if libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) != 0 {
            bail!("the kernel does not say what it took");
        }
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Usage { cpu_secs: seconds(usage.ru_utime) + seconds(usage.ru_stime), peak_bytes: usage.ru_maxrss as u64 * 1024 })
}

#[cfg(not(target_os = "linux"))]
fn of_children() -> Result<Usage> {
    bail!("this is measured on Linux only")
}
