//! The client: where its command points, how it is started, and whether it may be.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::prelude::v1::*;

use firmware_image::free_zone::check_path;

use super::zones::ClientHome;
use crate::platform::{Child, Lock, Program, Start, StartError};

/// Why there is no client process.
#[derive(Debug)]
pub enum ClientError {
    /// The configuration names a path outside the free zone.
    BadCommand(String),
    /// It cannot be started.
    Start {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: StartError,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCommand(command) => write!(f, "The client's command `{command}` points outside the free zone."),
            Self::Start { path, error } => write!(f, "The client {} could not be started: {error}.", path.display()),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// Whether this speaks against the release, and not against this computer.
    pub fn is_the_release(&self) -> bool {
        matches!(self, Self::Start { error: StartError::NotAProgram(_) | StartError::Missing(_), .. })
    }
}

/// Starts the client by its command from the configuration: a path in the free zone, and arguments.
///
/// # Errors
/// See [`ClientError`].
pub fn start(home: &ClientHome, command: &str, lock: Option<&Lock>) -> Result<Child, ClientError> {
    let mut words = command.split_ascii_whitespace();
    let file = words.next().filter(|file| check_path(file).is_ok());
    let file = file.ok_or_else(|| ClientError::BadCommand(command.to_owned()))?;
    let path = home.path().join(file);
    let start = Start {
        program: Program::File(path.clone()),
        name: path.clone().into(),
        args: words.map(OsString::from).collect(),
        directory: Some(home.path().to_path_buf()),
        pipes: false,
        client_beside: false,
        all_backups: false,
        lock,
    };
    Child::start_file(start).map_err(|error| ClientError::Start { path, error })
}
