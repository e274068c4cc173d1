//! Holdfast in real machines: a Linux kernel, systemd and udevd of this computer's own, real USB, CD, FAT and ISO 9660
//! drivers, images made by `partition-tools`. One program, so that as many machines run as there are processors.

mod bad_media;
mod block_log;
mod by_hand;
mod desktop;
mod gadget;
mod heal;
mod machine;
mod plug;
mod power_cuts;
mod power_cuts_raw;
mod pull;
mod ward;
