//! What a program is, by its first bytes and its words: for which platform (System V gABI, chapter 4; Microsoft PE/COFF
//! specification), and whether it is a launcher. What is neither ELF nor PE is a script, and is left to whoever starts it.

use std::path::Path;

use crate::error::ToolError;

/// The platforms that launcher and updater know, with the machines of their programs.
const PLATFORMS: [(&str, Machine); 3] =
    [("linux-aarch64", Machine::Elf(183)), ("linux-x86_64", Machine::Elf(62)), ("windows-x86_64", Machine::Pe(0x8664))];

/// What a launcher has in its `--help`, and no updater.
const LAUNCHER_USAGE: &[u8] = b"Usage: bootstrap [options]";

/// The format of a program, and its number of the processor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Machine {
    Elf(u16),
    Pe(u16),
}

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
    if PLATFORMS.iter().any(|(known, _)| *known == platform) {
        return Ok(());
    }
    Err(format!("'{platform}' is no platform; there are {}", PLATFORMS.map(|(known, _)| known).join(", ")))
}

/// Refuses a program that is another platform's, or the other one of launcher and updater.
pub(super) fn check(role: Role, platform: &str, path: &Path, program: &[u8]) -> Result<(), ToolError> {
    let Some(found) = machine(program) else { return Ok(()) };
    let refuse = |is: &str| {
        let (path, wanted) = (path.display(), role.name());
        Err(ToolError::Refused(format!("{path} is {is}, and {wanted} for {platform} is wanted")))
    };
    if let Some(is) = foreign(platform, found) {
        return refuse(&is);
    }
    let is_launcher = program.windows(LAUNCHER_USAGE.len()).any(|bytes| bytes == LAUNCHER_USAGE);
    match (role, is_launcher) {
        (Role::Launcher, false) => refuse("no launcher"),
        (Role::Updater, true) => refuse("a launcher"),
        _ => Ok(()),
    }
}

/// What a file is that does not begin as a program for this platform does.
pub(crate) fn header_fault(platform: &str, program: &[u8]) -> Option<String> {
    match machine(program) {
        Some(found) => foreign(platform, found),
        None => (!program.starts_with(b"#!")).then(|| "no program".into()),
    }
}

/// What a program is that is not this platform's.
fn foreign(platform: &str, found: Machine) -> Option<String> {
    if !PLATFORMS.iter().any(|(known, machine)| *known == platform && *machine != found) {
        return None;
    }
    let other = PLATFORMS.iter().find(|(_, machine)| *machine == found);
    Some(match (other, found) {
        (Some((other, _)), _) => format!("a program for {other}"),
        (None, Machine::Elf(number)) => format!("an ELF program for the machine {number}"),
        (None, Machine::Pe(number)) => format!("a PE program for the machine {number:#x}"),
    })
}

/// The machine of a program of 64 bits, low byte first; that of another ELF is 0.
fn machine(program: &[u8]) -> Option<Machine> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(program.get(at..at.checked_add(2)?)?.try_into().ok()?));
    if program.starts_with(b"\x7fELF") {
        let number = u16_at(18).filter(|_| program[4..].starts_with(b"\x02\x01"));
        return Some(Machine::Elf(number.unwrap_or_default()));
    }
    let header = u32::from_le_bytes(program.get(0x3c..0x40)?.try_into().ok()?) as usize;
    let is_pe = program.starts_with(b"MZ") && program.get(header..)?.starts_with(b"PE\0\0");
    is_pe.then(|| u16_at(header + 4)).flatten().map(Machine::Pe)
}
