//! Programs in the managed directory that no manifest lists are set aside: copied, flushed, and only then removed.
//!
//! Nothing is destroyed. The copy stands in `.holdfast/quarantine` under a name that no system starts.

use firmware_image::free_zone::FreeZone;
use firmware_image::{Digest, paths};

use crate::error::{EngineError, FailureKind};
use crate::inventory::client_path;
use crate::zone_io::{self, Copied};

/// Endings that Windows starts or loads, and what its shell runs.
const PROGRAM_ENDINGS: [&str; 14] =
    ["exe", "com", "bat", "cmd", "scr", "pif", "ps1", "vbs", "vbe", "wsf", "hta", "lnk", "msi", "dll"];
/// The ending of what was set aside.
const ENDING: &str = "quarantined";
/// The longest part of the original name that is kept.
const MAX_NAME_CHARS: usize = 60;

/// Why the file at `path` below the managed directory counts as a program; `None`: it does not.
pub fn is_program<F: FreeZone>(zone: &F, path: &str) -> Option<&'static str> {
    if let Some(ending) = program_ending(path) {
        return Some(ending);
    }
    let mut head = [0; 4];
    // A file that cannot be opened or read cannot be started either, and nobody's file stops the release's from being mended.
    let n = match zone.open(&client_path(path)) {
        Ok(Some(mut file)) => zone_io::read_full(&mut file, &mut head).unwrap_or(0),
        Ok(None) | Err(_) => return None,
    };
    match &head[..n] {
        [0x7f, b'E', b'L', b'F'] => Some("ELF"),
        [b'M', b'Z', ..] => Some("MZ"),
        [b'#', b'!', ..] => Some("#!"),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe] | [0xca, 0xfe, 0xba, 0xbe] => Some("Mach-O"),
        _ => None,
    }
}

/// The ending of `path` by which Windows takes whatever it leads to for a program.
pub fn program_ending(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (_, ending) = name.rsplit_once('.')?;
    PROGRAM_ENDINGS.iter().find(|known| known.eq_ignore_ascii_case(ending)).copied()
}

/// Sets the file at `path` below the managed directory aside; where it stands now.
///
/// # Errors
/// What reading and writing report; the file then still stands where it was.
pub fn set_aside<F: FreeZone>(zone: &F, path: &str) -> Result<String, EngineError> {
    let full = client_path(path);
    let mut buffer = vec![0; zone_io::BUFFER_BYTES];
    let found = zone_io::digest_file(zone, &full, &mut buffer, &|_| {}).map_err(EngineError::zone("read", &full))?;
    let Some((length, digest)) = found else {
        // A link or a device: nothing to keep, and nothing that is followed.
        zone_io::remove(zone, &full)?;
        return Ok(String::new());
    };
    // A cut while it was moved may have left it under both names: removed under one, it would lose its clusters under the other.
    if zone.metadata(&moved_place(&full)).map_err(EngineError::zone("read", &full))?.is_some() {
        return move_away(zone, &full);
    }
    let target = place(path, &digest);
    // Its name can be told beforehand, by who does not want it taken.
    crate::own_places::make_way(zone, &target)?;
    if !zone_io::file_is(zone, &target, length, &digest)? {
        match zone_io::copy_checked(zone, &full, &target, length, &digest, &|_| {}) {
            Ok(Copied::Whole) => {}
            Ok(Copied::WrongSource) => return Err(EngineError::Internal("a file changed while it was set aside")),
            // Moved, it takes no room.
            Err(error) if error.kind() == FailureKind::NoSpace => {
                zone_io::remove(zone, &target)?;
                return move_away(zone, &full);
            }
            Err(error) => return Err(error),
        }
    }
    zone_io::sync_parents(zone, &target)?;
    zone_io::remove(zone, &full)?;
    Ok(target)
}

/// Moves the file or directory at `path` aside, whatever is in it; where it stands now.
///
/// # Errors
/// What the zone reports.
pub fn move_away<F: FreeZone>(zone: &F, path: &str) -> Result<String, EngineError> {
    let mut target = moved_place(path);
    for number in 2.. {
        if zone.metadata(&target).map_err(EngineError::zone("read", &target))?.is_none() {
            break;
        }
        target = format!("{}-{number}", moved_place(path));
    }
    zone.create_dir_all(paths::QUARANTINE_DIR).map_err(EngineError::zone("write", paths::QUARANTINE_DIR))?;
    zone.rename(path, &target).map_err(EngineError::zone("move", path))?;
    zone_io::sync_parents(zone, &target)?;
    zone_io::sync_parents(zone, path)?;
    Ok(target)
}

/// Where what stands at `path` is moved first.
fn moved_place(path: &str) -> String {
    place(path, &Digest::of(path.as_bytes()))
}

fn place(path: &str, digest: &Digest) -> String {
    let name: String = path.replace('/', "_").chars().rev().take(MAX_NAME_CHARS).collect();
    let name: String = name.chars().rev().collect();
    format!("{}/{}-{name}.{ENDING}", paths::QUARANTINE_DIR, &digest.to_hex()[..16])
}
