#![allow(missing_docs, reason = "what std's documentation says of these names")]

pub mod env;
pub mod ffi;
pub mod fs;
pub mod io;
#[cfg(not(test))]
mod memory;
pub mod os;
pub mod path;
pub mod process;
#[cfg(not(test))]
pub mod start;
#[cfg(test)]
#[path = "start_of_tests.rs"]
mod start;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod time;

pub use alloc::{borrow, boxed, format, rc, string, vec};
pub use core::{array, cell, cmp, error, fmt, iter, mem, num, ops, option, ptr, result, slice, str};

pub mod prelude {
    pub mod v1 {
        pub use alloc::borrow::ToOwned;
        pub use alloc::boxed::Box;
        pub use alloc::string::{String, ToString};
        pub use alloc::vec::Vec;
        pub use alloc::{format, vec};
    }
}
