//! A device of the region profile, as three programs see it: the bootstrap, the sweep over power cuts, and the tests on a
//! computer. What a real product replaces is [`flash`] by its driver, [`table`] by its own numbers.
#![no_std]

pub mod flash;
pub mod handover;
pub mod start;
pub mod table;
