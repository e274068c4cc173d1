//! A store served on loopback by the project's own server, and what it was asked for.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::programs::Programs;

/// A running server; it ends with this.
#[derive(Default)]
pub struct Server {
    child: Option<Child>,
    log: PathBuf,
    /// Its address.
    pub url: String,
}

impl Server {
    /// Serves `store` on a free port, with its log at `log`.
    pub fn start(programs: &Programs, store: &Path, log: PathBuf) -> Result<Self> {
        let mut serve = Command::new(&programs.release_store);
        serve.arg("serve").arg(store).args(["--listen", "127.0.0.1:0", "--verbose"]);
        serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let mut child = serve.spawn().context("cannot start the server")?;
        let said = child.stdout.take().context("the server's output")?;
        let mut server = Self { child: Some(child), log, url: String::new() };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        server.url = line.trim().to_owned();
        ensure!(server.url.starts_with("http://"), "the server did not say where it listens: {line:?}");
        Ok(server)
    }

    /// Requests answered and bytes sent so far.
    pub fn total(&self) -> Result<(usize, u64)> {
        if self.log.as_os_str().is_empty() {
            return Ok((0, 0));
        }
        let log = fs::read_to_string(&self.log)?;
        let sent = log.lines().filter_map(|line| line.strip_suffix(" bytes")?.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(sent.fold((0, 0), |(requests, bytes), more| (requests + 1, bytes + more)))
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
