//! The project's own chores: the demonstration, the tests, the benchmarks; and what they share with `qemu-tests`: the
//! programs as they ship, what the system lends, a served store.

pub mod bench;
pub mod corpus;
pub mod cross;
pub mod defences;
pub mod demo;
pub mod figures;
pub mod fuzz;
pub mod microcontroller;
pub mod mutants;
pub mod programs;
pub mod run;
pub mod server;
pub mod system;
pub mod test;
pub mod tuf_suite;
pub mod usage;
pub mod windows;
