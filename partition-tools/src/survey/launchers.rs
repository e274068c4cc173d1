//! Launchers. Nothing on a device says what their bytes were: what is looked at is what any launcher of this vendor has, and that
//! the free zone's copy is the same. Damage elsewhere in one is not seen.

use firmware_image::free_zone::FreeZone as _;
use firmware_image::image::{AnyFreeZone, AnyVirtualZone, VirtualZone as _};
use firmware_image::signature::PublicKey;
use firmware_image::updater_image::MAX_IMAGE_BYTES;
use firmware_image::{Digest, paths, stamp};

use super::{LauncherReport, State, Survey, digest};
use crate::create::kind::header_fault;

impl Survey {
    pub(super) fn launchers_in_files(
        &mut self,
        virtual_zone: &AnyVirtualZone,
        free: Option<&AnyFreeZone>,
        vendor: &PublicKey,
    ) {
        let mut names = Vec::new();
        // A directory that cannot be read is told of with the updaters.
        let _ = virtual_zone.walk("", &mut |path, _| names.push(path.to_owned()));
        for name in &names {
            let Some(platform) = platform_of(name) else { continue };
            let mut add = |place: &str, state| {
                let (place, platform) = (place.into(), platform.into());
                self.launchers.push(LauncherReport { place, platform, state });
            };
            let program = match virtual_zone.read_file(name, MAX_IMAGE_BYTES) {
                Ok(Some(program)) => program,
                Ok(None) => continue,
                Err(error) => {
                    add("virtual zone", State::of(error));
                    continue;
                }
            };
            add("virtual zone", state(platform, &program, vendor));
            let copy = free.and_then(|free| free.open(name).ok()?);
            if let Some(mut copy) = copy {
                let same = digest(&mut copy).is_ok_and(|found| found == Digest::of(&program));
                let differs = || State::Damaged("it is not the one in the virtual zone".into());
                add("free zone", if same { State::Sound } else { differs() });
            }
        }
    }
}

fn state(platform: &str, program: &[u8], vendor: &PublicKey) -> State {
    if let Some(is) = header_fault(platform, program) {
        return State::Damaged(format!("it is {is}"));
    }
    match stamp::stamped_key(program) {
        Ok(Some(key)) if key == *vendor => State::Sound,
        Ok(_) => State::Damaged("the vendor's key in it is another one, or none".into()),
        Err(error) => State::Damaged(error.to_string()),
    }
}

/// The platform in the name of a launcher's file.
fn platform_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("bootstrap-")?;
    let platform = rest.strip_suffix(".exe").unwrap_or(rest);
    (paths::bootstrap_name(platform).as_str() == name).then_some(platform)
}
