//! An image as a plain file whose every write and flush is recorded, without a guest: QEMU's storage daemon exports a
//! `blklogwrites` over FUSE, so that `--device FILE` runs on it unchanged.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::system;

use crate::block_log::BlockLog;

/// How long the daemon may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is missing on this machine to record without a guest; `None`: nothing.
pub fn missing() -> Option<&'static str> {
    if system::find("qemu-storage-daemon").is_none() {
        return Some("qemu-storage-daemon (Debian package qemu-system-common or qemu-utils)");
    }
    // The daemon mounts through fusermount3 where it is not root; the node must be there for both.
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    fuse.is_err().then_some("/dev/fuse, which this user may open")
}

/// A file that is recorded.
pub struct RecordedFile {
    child: Option<Child>,
    /// The file.
    pub path: PathBuf,
    log: PathBuf,
}

impl RecordedFile {
    /// Exports `image` as a file in `dir`; what is written there goes to the image too.
    ///
    /// # Errors
    /// The daemon does not start.
    pub fn new(image: &Path, dir: &Path) -> Result<Self> {
        let program = system::find("qemu-storage-daemon").context("qemu-storage-daemon is not installed")?;
        let (path, log) = (dir.join("recorded.img"), dir.join("recorded.log"));
        File::create(&path)?;
        File::create(&log)?;
        let node = |name: &str, path: &Path| format!("driver=file,node-name={name},filename={}", path.display());
        let filter =
            "driver=blklogwrites,node-name=recorded,file=image,log=log,log-sector-size=512,log-super-update-interval=1";
        let export = format!("type=fuse,id=export,node-name=recorded,writable=on,mountpoint={}", path.display());
        let mut daemon = Command::new(program);
        daemon.args(["--blockdev", &node("image", image), "--blockdev", &node("log", &log)]);
        daemon.args(["--blockdev", filter, "--export", &export]).stdin(Stdio::null()).stdout(Stdio::null());
        let child = daemon
            .stderr(File::create(dir.join("recorded.err"))?)
            .spawn()
            .context("cannot start qemu-storage-daemon")?;
        let mut recorded = Self { child: Some(child), path, log };
        let wanted = fs::metadata(image)?.len();
        let started = Instant::now();
        while fs::metadata(&recorded.path).map(|metadata| metadata.len()).ok() != Some(wanted) {
            let ended = recorded.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || started.elapsed() > PATIENCE {
                bail!("qemu-storage-daemon exports nothing: {}", fs::read_to_string(dir.join("recorded.err"))?.trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(recorded)
    }

    /// Ends the recording; the image is complete then.
    ///
    /// # Errors
    /// The daemon does not end well, or its log cannot be read.
    pub fn finish(mut self) -> Result<BlockLog> {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            let status = child.wait()?;
            ensure!(status.success() || status.signal().is_some(), "qemu-storage-daemon ended with {status}");
        }
        BlockLog::open(&self.log)
    }
}

impl Drop for RecordedFile {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Asked, not killed: it takes its mount away.
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
            let _ = child.wait();
        }
    }
}
