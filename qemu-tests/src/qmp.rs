//! QEMU's machine protocol (QEMU, docs/interop/qmp-spec): one command, its answer, and the events in between.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection to one machine.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<Value>,
}

/// No command takes longer on a machine that is well.
const PATIENCE: Duration = Duration::from_secs(60);

impl Qmp {
    /// Greets a machine.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self { reader: BufReader::new(stream), events: Vec::new() };
        qmp.read(Instant::now() + PATIENCE)?;
        qmp.run("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; what it returned.
    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).with_context(|| format!("QMP {command}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.read(deadline).with_context(|| format!("QMP {command}"))?;
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("QMP {command}: {}", error["desc"].as_str().unwrap_or("failed"));
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Waits for an event of this name that `wanted` accepts; earlier events are forgotten with it.
    pub fn wait_event(&mut self, name: &str, patience: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + patience;
        let is_it = |event: &Value| event["event"] == name && wanted(&event["data"]);
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                let event = self.events.swap_remove(at);
                self.events.clear();
                return Ok(event);
            }
            let message = self.read(deadline).with_context(|| format!("waiting for the event {name}"))?;
            if message.get("event").is_some() {
                self.events.push(message);
            }
        }
    }

    /// Waits until the machine's state has been saved or restored.
    pub fn wait_migration(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.run("query-migrate", json!({}))?;
            match status["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed") => bail!("the machine's state: {}", status["error-desc"]),
                _ if Instant::now() > deadline => bail!("the machine's state takes too long"),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the machine does not answer");
        }
        self.reader.get_mut().set_read_timeout(Some(left))?;
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("the machine does not answer")? == 0 {
            bail!("the machine has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
