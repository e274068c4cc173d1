//! Files of the client under a damaged name.
//!
//! FAT gives a file two names and opens it by either. Where the long one is damaged, a file of a release opens by the short one,
//! is listed under a name that no release has, or in capitals, and what is written to it keeps that. It gets its name back by being
//! renamed, over a name that tells which one it had, so that a cut between the two takes nothing from anybody.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use firmware_image::Digest;
use firmware_image::free_zone::FreeZone;
use release_store::paths::fold;

use crate::error::EngineError;
use crate::inventory::client_path;
use crate::zone_io::{joined, parent, sync_parents};

/// How a name between two names begins.
pub const BETWEEN: &str = "holdfast-found-";

/// What stands at one of these paths below the managed directory, or on the way to it, and is not listed so: paths in the zone,
/// directories in front of what is in them. `exactly`: another spelling is another name, where the zone keeps spellings.
///
/// # Errors
/// What the zone reports.
pub fn find<'p, F: FreeZone>(
    zone: &F,
    paths: impl Iterator<Item = &'p str>,
    exactly: bool,
) -> Result<BTreeSet<String>, EngineError> {
    let exactly = exactly && zone.spells_exactly();
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for path in paths {
        let full = client_path(path);
        let ends = full.match_indices('/').map(|(at, _)| at).skip(1).chain([full.len()]);
        for at in ends.map(|end| &full[..end]) {
            if !seen.insert(at.to_owned()) {
                continue;
            }
            let is_wrong = match is_there(zone, at) {
                true => !is_listed(zone, at, exactly)?,
                // The power was cut between its two names, and nothing took its place.
                false => is_there(zone, &between(at)),
            };
            if is_wrong {
                found.insert(at.to_owned());
            }
        }
    }
    Ok(found)
}

/// Gives what [`find`] found its name.
///
/// # Errors
/// What the zone reports; whatever was not renamed stands under the name that it had.
pub fn mend<F: FreeZone>(zone: &F, path: &str) -> Result<(), EngineError> {
    let (between, failed) = (between(path), || EngineError::zone("move", path));
    if is_there(zone, path) {
        zone.rename(path, &between).map_err(failed())?;
    }
    zone.rename(&between, path).map_err(failed())?;
    sync_parents(zone, path)
}

fn is_there<F: FreeZone>(zone: &F, path: &str) -> bool {
    matches!(zone.metadata(path), Ok(Some(_)))
}

fn between(path: &str) -> String {
    joined(parent(path), &format!("{BETWEEN}{}", &Digest::of(path.as_bytes()).to_hex()[..16]))
}

/// Whether its directory lists what stands at `path`.
fn is_listed<F: FreeZone>(zone: &F, path: &str, exactly: bool) -> Result<bool, EngineError> {
    let (directory, mut found) = (parent(path), false);
    let wanted = fold(path);
    let mut visit = |name: &str, _| {
        let listed = joined(directory, name);
        found = if exactly { listed == path } else { fold(&listed) == wanted };
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    zone.list(directory, &mut visit).map_err(EngineError::zone("list", directory))?;
    Ok(found)
}
