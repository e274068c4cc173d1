//! A disk in memory for tests: strict, recording, and as faulty as a test wants it. Never part of a program that ships.
//!
//! | module | subject |
//! |---|---|
//! | [`medium`] | what stands on a disk; a copy shares what is equal |
//! | [`disk`] | the disk as a [`RawZone`](crate::RawZone), its faults, and the record of what it was told |
//! | [`figures`] | what tests tried, counted; what they could not try |
//! | [`limits`] | programs with less memory than they want |
//! | [`loop_device`] | a real block device over a file |
//! | [`recording`] | every state that a cut in a recording could have left |
//! | [`power`] | files and raw zones that lose power at the n-th change, where the medium is the operating system's |
//! | [`room`] | files that find no more room at the n-th change, likewise |
//!
//! A disk has a write cache: a flush makes what was written before it durable; what came after the last flush may have
//! reached the medium or not, each write by itself and in any order, and the last one in part. Misuse is no fault of the medium and
//! panics: a read or write that begins past the end, a write across it, a write through a view that is for reading. A read across
//! the end is short, as of a file.

pub mod disk;
pub mod figures;
pub mod limits;
pub mod loop_device;
pub mod medium;
pub mod power;
pub mod recording;
pub mod room;

pub use disk::{Faults, SimDisk};
pub use loop_device::LoopDevice;
pub use medium::Medium;
pub use power::{Cut, CutZone, Power};
pub use recording::{Effort, Recording, State};
pub use room::{FullZone, Room};

/// Numbers that can be repeated (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next one below `end`; 0 where `end` is.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % (end.max(1) as u64)) as usize
    }

    /// At most `most` of `items`, in their order.
    pub fn some<T>(&mut self, items: Vec<T>, most: usize) -> Vec<T> {
        let (mut left, mut wanted) = (items.len(), most);
        let keep = |_: &T| {
            let taken = self.below(left) < wanted;
            left -= 1;
            wanted -= usize::from(taken);
            taken
        };
        items.into_iter().filter(keep).collect()
    }
}
