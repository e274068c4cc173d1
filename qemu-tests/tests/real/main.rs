//! Holdfast in real machines: a Linux kernel, systemd and udevd of this computer's own, real USB, CD, FAT and ISO 9660
//! drivers, images made by `partition-tools`. One program, so that one machine more runs than there are processors.
//! Tests begin in the order of their names: `cable_pull`, the longest, early.

mod bad_media;
mod block_log;
mod board;
mod by_hand;
mod cable_pull;
mod desktop;
mod factory;
mod gadget;
mod heal;
mod machine;
mod plug;
mod power_cuts;
mod power_cuts_raw;
mod two_programs;

mod ward;
