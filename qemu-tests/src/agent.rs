//! The shell in the guest: scripts go in, exit status and output come back, over a serial line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The line that the shell prints when it listens.
const HELLO: &str = "@AGENT";

/// What a script printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: i32,
    /// What it printed, standard output and error in order.
    pub text: String,
}

/// A connection to the shell.
pub struct Agent {
    reader: BufReader<UnixStream>,
}

impl Agent {
    /// A connection to a shell that listens, or will say that it does.
    pub fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// Waits until the shell of a booting guest listens.
    pub fn wait_hello(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.line(deadline).context("the guest has not come up")?.contains(HELLO) {}
        Ok(())
    }

    /// Runs a script.
    ///
    /// # Errors
    /// The guest does not answer in time, which says what it ran.
    pub fn run(&mut self, script: &str, patience: Duration) -> Result<Output> {
        self.start(script)?;
        self.finish(patience).with_context(|| format!("in the guest: {script}"))
    }

    /// Sends a script without waiting for its end; [`Self::finish`] does that.
    pub fn start(&mut self, script: &str) -> Result<()> {
        Ok(self.reader.get_mut().write_all(format!("{}\n{script}", script.len()).as_bytes())?)
    }

    /// Whether something has come back of what was started.
    pub fn has_answered(&mut self) -> bool {
        let at_once = Some(Duration::from_millis(1));
        self.reader.get_mut().set_read_timeout(at_once).is_ok()
            && self.reader.fill_buf().is_ok_and(|answer| !answer.is_empty())
    }

    /// Waits for the end of what was started.
    pub fn finish(&mut self, patience: Duration) -> Result<Output> {
        let line = self.line(Instant::now() + patience)?;
        let (status, text) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        let status = status.parse().with_context(|| format!("the guest's shell answered {line:?}"))?;
        let text = STANDARD.decode(text).context("the guest's shell answered no base64")?;
        Ok(Output { status, text: String::from_utf8_lossy(&text).into_owned() })
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the guest does not answer in time");
            self.reader.get_mut().set_read_timeout(Some(left))?;
            match self.reader.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the machine has ended"),
                Ok(_) if line.ends_with(b"\n") => return Ok(String::from_utf8_lossy(&line).into_owned()),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
