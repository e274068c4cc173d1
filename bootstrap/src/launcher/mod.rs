//! The program: finds the device, lets the library decide, starts the updater and then the client, and says what it did.
//!
//! | module | subject |
//! |---|---|
//! | [`args`] | the command line |
//! | [`find`] | the device this launcher was started from, or that was plugged in |
//! | [`layout`] | zones among numbered disks and units, as Windows tells of them |
//! | [`mountinfo`], [`sysfs`] | what the system tells of mounts and block devices |
//! | [`plugged`] | mounting a device that was plugged in, and giving up every privilege |
//! | [`zones`] | a device's zones as directories and block devices |
//! | [`session`] | the updater: start, wait until it is ready, try the next |
//! | [`client`] | the client: start, watch, wait |
//! | [`words`] | what people are told |
//! | [`exit`] | exit statuses |

pub mod args;
pub mod client;
pub mod exit;
pub mod find;
#[cfg(feature = "image")]
pub mod image;
pub mod layout;
pub mod mountinfo;
pub mod plugged;
pub mod session;
pub mod sysfs;
pub mod words;
pub mod zones;

use std::ffi::OsString;
use std::prelude::v1::*;

use args::{Mode, Options, Parsed};
use exit::Exit;
use firmware_image::paths;
use words::Teller;

use crate::platform;

/// The whole program. `args` are those behind the program's name.
pub fn main(args: impl Iterator<Item = OsString>) -> i32 {
    platform::prepare();
    let options = match args::parse(args) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            words::out(args::HELP.trim_end());
            return 0;
        }
        Ok(Parsed::Version) => {
            words::out(&format!("bootstrap {} ({})", env!("CARGO_PKG_VERSION"), paths::THIS_PLATFORM));
            return 0;
        }
        Err(error) => {
            words::err(&format!("{error}\nRun with --help for what can be said."));
            return Exit::Usage.status();
        }
    };
    let mut teller = Teller::new(options.verbose);
    let exit = run(&options, &mut teller);
    if options.json {
        // Read by a program, which waits for the end of this one.
        words::out(&teller.json(exit));
    } else if exit.is_failure() {
        teller.show();
    }
    exit.status()
}

fn run(options: &Options, teller: &mut Teller) -> Exit {
    let zones = match &options.mode {
        Mode::Find => match platform::own_device() {
            Ok(found) => Ok(zones::Directories::of_device(found, teller)),
            Err(error) => {
                teller.problem(&error.to_string(), error.hint());
                return Exit::NoDevice;
            }
        },
        Mode::Plugged { .. } if !platform::MOUNTS => {
            teller.problem(
                "--plugged is for systems on which the launcher mounts the device's zones. This one mounts them by itself.",
                "Start the launcher from the device.",
            );
            return Exit::Usage;
        }
        Mode::Plugged { node, allow_root } => match plugged::open(node, *allow_root, teller) {
            Ok(zones) => return session::run(&zones, options, teller),
            Err(exit) => return exit,
        },
        Mode::Directories { virtual_zone, free, hidden } => {
            zones::Directories::given(virtual_zone, free.as_deref(), hidden.as_deref())
        }
        Mode::Device { device, virtual_zone } => {
            #[cfg(feature = "image")]
            return match image::Image::open(device, virtual_zone.as_deref()) {
                Ok(image) => session::run(&image, options, teller),
                Err(error) => {
                    teller.problem(&error.to_string(), error.hint());
                    Exit::NoDevice
                }
            };
            #[cfg(not(feature = "image"))]
            {
                let _ = (device, virtual_zone);
                teller.problem(
                    "This launcher was built without support for raw images.",
                    "Mount the device and use --virtual, --free and --hidden, or build it with the feature `image`.",
                );
                return Exit::Usage;
            }
        }
    };
    match zones {
        Ok(zones) => session::run(&zones, options, teller),
        Err(error) => {
            teller.problem(&error.to_string(), error.hint());
            Exit::NoDevice
        }
    }
}
