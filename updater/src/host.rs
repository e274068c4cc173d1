//! What the engine needs of the machine it runs on: the time, randomness, other processes. The program's platform code
//! is one body, tests are others.

use std::time::Duration;

use firmware_image::updater_image::UpdaterVersion;

/// A lock that is held as long as this lives.
pub type Guard = Box<dyn std::any::Any>;

/// What came of starting a new updater once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It loaded this device's state and said so.
    Ready,
    /// It crashed, stalled, or ended without a word.
    Failed(String),
    /// It could not be tried here (another platform, no right to run it).
    NotTried(String),
}

/// The machine.
pub trait Host: Sync {
    /// Seconds since 1970 (UTC).
    fn now(&self) -> i64;

    /// Waits.
    fn sleep(&self, time: Duration);

    /// Fills `bytes` with randomness.
    ///
    /// # Errors
    /// The reason, for people.
    fn random(&self, bytes: &mut [u8]) -> Result<(), String>;

    /// The version of the updater that runs, as its own trailer says; `None` for a program that is no signed image.
    fn own_version(&self) -> Option<UpdaterVersion>;

    /// The trailer of the updater that runs, where a launcher verified every byte of it and runs it from where nobody can
    /// change it.
    fn launched_trailer(&self) -> Option<Vec<u8>> {
        None
    }

    /// Starts the image once, with the arguments that this process has for its zones, and waits until it is ready.
    fn probe(&self, image: &mut dyn std::io::Read) -> Probe;

    /// Keeps the client from starting while its files are replaced. `None`: it runs now.
    ///
    /// # Errors
    /// The reason, for people.
    fn lock_client(&self) -> Result<Option<Guard>, String>;

    /// Waits until the client has ended, or asks for it. `false`: it will not.
    fn wait_for_client(&self) -> bool;
}

/// Who is told what happens, while it happens.
pub trait Watch: Sync {
    /// Work of `total` bytes begins; 0: nobody knows how much.
    fn begin(&self, what: &str, total: u64) {
        let _ = (what, total);
    }
    /// So many bytes more are done.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// The work is done.
    fn end(&self) {}
    /// Something that a person should know.
    fn note(&self, text: &str) {
        let _ = text;
    }
    /// Something that only a curious person wants to know.
    fn detail(&self, text: &str) {
        let _ = text;
    }
    /// A point that tests stop or fail at. Nothing else uses it.
    fn step(&self, name: &'static str) {
        let _ = name;
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Watch for Silent {}
