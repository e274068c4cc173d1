//! The machine that the program runs on, as the engine sees it.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firmware_image::host::{Access, FileZone};
use firmware_image::updater_image::{MAX_TRAILER_BYTES, UpdaterVersion, authenticate, read_trailer};
use firmware_image::{RawZone as _, stamp};
use lines::errln;
use updater::Host;
use updater::host::{Guard, Probe};

use crate::platform::{self, Locked};

/// How often is looked whether the client has ended.
const LOOK: Duration = Duration::from_millis(500);

/// What to do while the client runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Fail.
    None,
    /// Say so, and wait.
    Wait,
}

/// The machine.
pub struct Machine {
    /// The managed directory, where it is mounted; an image's is not, and its client runs from a copy.
    pub client: Option<PathBuf>,
    /// What to do while the client runs.
    pub patience: Patience,
    /// The options that lead to the same zones.
    pub zone_args: Vec<OsString>,
    /// How long a new updater may take to become ready.
    pub ready_timeout: Duration,
}

impl Machine {
    fn users(&self) -> Vec<String> {
        self.client.as_deref().map(platform::in_use_by).unwrap_or_default()
    }
}

/// What `--version` says: as whose updater this program was signed, and what it was built from.
pub fn version() -> String {
    let built = concat!("built from Holdfast ", env!("CARGO_PKG_VERSION"));
    let signed = own_trailer().and_then(|(_, bytes)| {
        let trailer = authenticate(&bytes, &stamp::vendor_key()?).ok()?;
        let body = trailer.body();
        Some(format!("updater {} of {} for {}, {built}", body.version, body.product, body.platform))
    });
    signed.unwrap_or_else(|| format!("updater of no vendor: it is not signed, {built}"))
}

/// The version in the authenticated trailer of this program, and the trailer.
fn own_trailer() -> Option<(UpdaterVersion, Vec<u8>)> {
    let vendor = stamp::vendor_key()?;
    let mut file = FileZone::from_file(platform::own_image().ok()?, Access::ReadOnly).ok()?;
    let length = file.len().ok()?;
    let mut trailer = [0; MAX_TRAILER_BYTES];
    let trailer = authenticate(read_trailer(&mut file, length, &mut trailer).ok()?, &vendor).ok()?;
    Some((trailer.body().version, trailer.bytes().to_vec()))
}

impl Host for Machine {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), String> {
        getrandom::fill(bytes).map_err(|error| error.to_string())
    }

    fn own_version(&self) -> Option<UpdaterVersion> {
        own_trailer().map(|(version, _)| version)
    }

    fn launched_trailer(&self) -> Option<Vec<u8>> {
        platform::is_launched().then(own_trailer).flatten().map(|(_, trailer)| trailer)
    }

    fn probe(&self, image: &mut dyn Read) -> Probe {
        let mut args = self.zone_args.clone();
        args.push("probe".into());
        platform::probe(image, &args, self.ready_timeout)
    }

    fn lock_client(&self) -> Result<Option<Guard>, String> {
        let Some(client) = &self.client else { return Ok(Some(Box::new(()))) };
        // Its files are looked at whether there is a lock or not.
        match platform::lock_directory(client) {
            Ok(Locked::Busy) => Ok(None),
            _ if !self.users().is_empty() => Ok(None),
            Ok(Locked::Held(guard)) => Ok(Some(Box::new(guard))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn wait_for_client(&self) -> bool {
        let users = self.users();
        let by = if users.is_empty() { String::new() } else { format!(": {}", users.join(", ")) };
        if self.patience == Patience::None {
            errln!("The client is running{by}.");
            return false;
        }
        errln!("The client is running{by}. Close it; its files are replaced then. (Ctrl-C gives up; nothing is lost.)");
        loop {
            std::thread::sleep(LOOK);
            match self.lock_client() {
                Ok(None) => {}
                // Free, or not to be told: the engine looks again.
                _ => return true,
            }
        }
    }
}
