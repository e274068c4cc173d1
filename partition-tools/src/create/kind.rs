//! What a program is: for which platform, and whether it is a launcher. What is neither ELF nor PE is a script, and is left to
//! whoever starts it.

use std::path::Path;

use release_store::keys::is_launcher;
use release_store::manifest::PLATFORMS;
use release_store::patch;

use crate::error::ToolError;

/// What a program on a device does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Launcher,
    Updater,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Launcher => "a launcher",
            Self::Updater => "an updater",
        }
    }
}

/// Refuses a platform that no launcher looks for.
///
/// # Errors
/// The reason, for a person.
pub fn check_platform(platform: &str) -> Result<(), String> {
    if PLATFORMS.contains(&platform) {
        return Ok(());
    }
    Err(format!("'{platform}' is no platform; there are {}", PLATFORMS.join(", ")))
}

/// Refuses a program that is another platform's, or the other one of launcher and updater.
pub(super) fn check(role: Role, platform: &str, path: &Path, program: &[u8]) -> Result<(), ToolError> {
    if patch::platform(program).is_none() {
        return Ok(());
    }
    let refuse = |is: &str| {
        let (path, wanted) = (path.display(), role.name());
        Err(ToolError::Refused(format!("{path} is {is}, and {wanted} for {platform} is wanted")))
    };
    if let Some(is) = header_fault(platform, program) {
        return refuse(&is);
    }
    match (role, is_launcher(program)) {
        (Role::Launcher, false) => refuse("no launcher"),
        (Role::Updater, true) => refuse("a launcher"),
        _ => Ok(()),
    }
}

/// What a file is that does not begin as a program for this platform does.
pub(crate) fn header_fault(platform: &str, program: &[u8]) -> Option<String> {
    match patch::platform(program) {
        Some(found) if PLATFORMS.contains(&platform) => (found != platform).then(|| format!("a program for {found}")),
        Some(_) => None,
        None => (!program.starts_with(b"#!")).then(|| "no program".into()),
    }
}
