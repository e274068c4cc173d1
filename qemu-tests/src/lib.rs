//! Real machines, real sticks: the main road proven on real host software. A real Linux kernel with its USB, disk, CD and
//! file system drivers, the real systemd and udevd, real images of `partition-tools`, a real plug and a real unplug.
//!
//! | module | subject |
//! |---|---|
//! | [`guest`] | kernel and initramfs, out of this machine's own files |
//! | [`machine`] | a QEMU process with a booted guest |
//! | [`qmp`], [`agent`] | its two ears: the machine's and the guest's |
//! | [`world`] | the programs as they ship, a vendor's keys, a store with two releases |
//! | [`unruly`] | a disk that lies about its size or stops taking writes |
//! | [`stick`] | a device made by `partition-tools`: plugged in, pulled out |
//! | [`host`] | a guest that starts what is plugged in, as `partition-tools host` arranges it |
//! | [`board`] | a board: zones on its own card, started at boot |
//! | [`block_log`] | what a disk was told, as QEMU recorded it |
//! | [`replay`] | the states that a power cut could have left of it |
//! | [`verdict`] | what is demanded of each |
//! | [`sweep`] | many of them, judged on all cores |
//! | [`scene`] | what the tests of power cuts share |
//! | [`recorded_file`] | an image whose writes are recorded, without a guest |
#![forbid(unsafe_code)]

pub mod agent;
pub mod block_log;
pub mod board;
pub mod guest;
pub mod host;
pub mod machine;
pub mod qmp;
pub mod recorded_file;
pub mod replay;
pub mod scene;
pub mod stick;
pub mod sweep;
pub mod unruly;
pub mod verdict;
pub mod world;

use std::path::PathBuf;

use anyhow::Result;

/// Where what is made once is kept: in the build's own directory.
///
/// # Errors
/// It cannot be made.
pub fn cache_directory() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| xtask::run::root().join("target"), PathBuf::from);
    let directory = std::path::absolute(target)?.join("qemu-tests");
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
