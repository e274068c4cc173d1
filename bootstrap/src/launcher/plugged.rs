//! A device that was plugged in: found from the node of its virtual zone, mounted where only this launcher and its children
//! see it, and then every privilege is given up.
//!
//! Invariant: while there is a capability, nothing is read from the device but what the kernel shows of it (partition
//! names); whatever comes from the device and is run or parsed by us comes after [`platform::give_up_privileges`].

use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use super::exit::Exit;
use super::find::{self, Block, Plugged};
use super::words::Teller;
use super::zones::Directories;
use crate::platform::{self, MountFault, ZoneMount};

/// Opens the device whose virtual zone is `node`.
///
/// # Errors
/// The exit status; why was told.
pub fn open(node: &Path, allow_root: bool, teller: &mut Teller) -> Result<Directories, Exit> {
    if platform::is_root() && !allow_root {
        teller.problem(
            "--plugged runs what is on a device, and root must not: root owns this computer's own files.",
            "Start it as another user who has the capability CAP_SYS_ADMIN, as the unit of `partition-tools host` does; or, \
             on a board that has no other user, add --allow-root.",
        );
        return Err(Exit::Refused);
    }
    let device = find::plugged_device(&find::System::default(), node, find::PATIENCE).map_err(|error| {
        teller.problem(&error.to_string(), error.hint());
        Exit::NoDevice
    })?;
    let mounted = mount(device);
    // Whatever became of the mounts.
    if let Err(error) = platform::give_up_privileges() {
        teller.problem(
            &format!(
                "The launcher cannot give up its privileges ({error}), and runs nothing from the device with them."
            ),
            "Start it as an ordinary user.",
        );
        return Err(Exit::System);
    }
    Mounted::tell(mounted, teller)
}

struct Mounted {
    virtual_zone: Result<PathBuf, MountFault>,
    free: Option<Result<ZoneMount, MountFault>>,
    device: Plugged,
}

/// Mounts what can be mounted. A zone that somebody else has mounted serves where it cannot be mounted here.
fn mount(device: Plugged) -> Mounted {
    let zone = &device.virtual_zone;
    let free = device.siblings.free.as_ref();
    let name = zone.node.file_name().unwrap_or_default();
    let (virtual_zone, free) = match platform::mount_zones(name, &zone.node, free.map(|block| &*block.node)) {
        Ok(mounts) => (mounts.virtual_zone, mounts.free),
        Err(MountFault::NotAllowed) => (Err(MountFault::NotAllowed), free.map(|_| Err(MountFault::NotAllowed))),
        // Told once is enough.
        Err(fault) => (Err(fault), free.map(|_| Err(MountFault::NotAllowed))),
    };
    let elsewhere = |fault, block: &Block| match &block.mounted {
        Some(directory) => Ok(ZoneMount { directory: directory.clone(), read_only: false }),
        None => Err(fault),
    };
    let virtual_zone = virtual_zone.or_else(|fault| elsewhere(fault, zone)).map(|mount| mount.directory);
    let free = match (free, &device.siblings.free) {
        (Some(Err(fault)), Some(block)) => Some(elsewhere(fault, block)),
        (free, _) => free,
    };
    Mounted { virtual_zone, free, device }
}

impl Mounted {
    fn tell(self, teller: &mut Teller) -> Result<Directories, Exit> {
        let Plugged { virtual_zone: Block { node, .. }, siblings } = self.device;
        let virtual_zone = self.virtual_zone.map_err(|fault| {
            let hint = match fault {
                MountFault::NotAllowed => {
                    "Start the launcher from the unit of `partition-tools host`, or by hand from the mounted virtual zone."
                }
                MountFault::NoFileSystem => "Is this the virtual zone of a device?",
                MountFault::System(_) => "Plug the device in again.",
            };
            teller.problem(&format!("The virtual zone {} cannot be mounted: {fault}.", node.display()), hint);
            if matches!(fault, MountFault::NotAllowed) { Exit::Refused } else { Exit::NoDevice }
        })?;
        let free = match (self.free, &siblings.free) {
            (Some(Ok(mount)), _) => {
                if mount.read_only {
                    teller.write_protected();
                }
                Some(mount.directory)
            }
            (Some(Err(fault)), Some(block)) => {
                teller.not_mounted(&block.node, &fault);
                None
            }
            _ => {
                teller.no_free_zone();
                None
            }
        };
        Ok(Directories::mounted(Some(virtual_zone), free, siblings))
    }
}
