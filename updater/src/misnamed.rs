//! Files of the client under a damaged name.
//!
//! FAT gives a file two names and opens it by either. Where the long one is damaged, a file of a release opens by the short one,
//! is listed under a name that no release has, or in capitals, and what is written to it keeps that. It gets its name back by being
//! renamed.

use std::ops::ControlFlow;

use firmware_image::free_zone::FreeZone;
use release_store::paths::fold;

use crate::error::EngineError;
use crate::inventory::client_path;
use crate::zone_io::{joined, parent, sync_parents};

/// What a file is called between two names.
const BETWEEN: &str = "holdfast-found";
/// So many of those may be there.
const MAX_BETWEEN: usize = 100;

/// Gives those of the files `missing`, paths below the managed directory that no listing shows, which are there nevertheless
/// their names back, and the directories on the way to them. The first of them; `None`: there is none. A cut leaves one under
/// another name, and its own missing.
///
/// # Errors
/// What the zone reports.
pub fn mend<'p, F: FreeZone>(zone: &F, missing: impl Iterator<Item = &'p str>) -> Result<Option<&'p str>, EngineError> {
    let mut first = None;
    for path in missing {
        let full = client_path(path);
        if !matches!(zone.metadata(&full), Ok(Some(_))) {
            continue;
        }
        let ends = full.match_indices('/').map(|(at, _)| at).skip(1).chain([full.len()]);
        for end in ends.collect::<Vec<_>>() {
            if !is_listed(zone, &full[..end])? {
                rename_to_itself(zone, &full[..end])?;
                first = first.or(Some(path));
            }
        }
    }
    Ok(first)
}

/// Whether its directory lists what stands at `path`, in the same spelling where the zone keeps that.
fn is_listed<F: FreeZone>(zone: &F, path: &str) -> Result<bool, EngineError> {
    let (directory, mut found) = (parent(path), false);
    let wanted = fold(path);
    let mut visit = |name: &str, _| {
        let listed = joined(directory, name);
        found = if zone.spells_exactly() { listed == path } else { fold(&listed) == wanted };
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    zone.list(directory, &mut visit).map_err(EngineError::zone("list", directory))?;
    Ok(found)
}

fn rename_to_itself<F: FreeZone>(zone: &F, path: &str) -> Result<(), EngineError> {
    let failed = || EngineError::zone("move", path);
    for between in (1..=MAX_BETWEEN).map(|number| joined(parent(path), &format!("{BETWEEN}-{number}"))) {
        if zone.metadata(&between).map_err(EngineError::zone("read", &between))?.is_none() {
            zone.rename(path, &between).map_err(failed())?;
            zone.rename(&between, path).map_err(failed())?;
            return sync_parents(zone, path);
        }
    }
    Ok(())
}
