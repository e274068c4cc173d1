//! What a program is: for which platform, and whether it is a launcher. What is neither ELF nor PE is a script, and is left to
//! whoever starts it. Whether a program may be an updater, whoever signs it sees (`release_store::keys`).

use std::path::Path;

use release_store::keys::is_launcher;
use release_store::manifest::PLATFORMS;
use release_store::patch;

use crate::error::ToolError;

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

/// Refuses a program that is no launcher for this platform.
pub(super) fn check_launcher(platform: &str, path: &Path, program: &[u8]) -> Result<(), ToolError> {
    let is_script = patch::platform(program).is_none();
    let fault = if is_script { None } else { header_fault(platform, program) };
    let fault = fault.or_else(|| (!is_script && !is_launcher(program)).then(|| "no launcher".into()));
    fault.map_or(Ok(()), |is| {
        Err(ToolError::Refused(format!("{} is {is}, and a launcher for {platform} is wanted", path.display())))
    })
}

/// What a file is that does not begin as a program for this platform does.
pub(crate) fn header_fault(platform: &str, program: &[u8]) -> Option<String> {
    match patch::platform(program) {
        Some(found) if PLATFORMS.contains(&platform) => (found != platform).then(|| format!("a program for {found}")),
        Some(_) => None,
        None => (!program.starts_with(b"#!")).then(|| "no program".into()),
    }
}
