//! Lines: which release is made of which.

use std::collections::BTreeMap;

use super::survey::Known;
use crate::contents::MAX_LINE;
use crate::error::StoreError;

/// What releases are made of: the base of each that has one.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bases: BTreeMap<u64, u64>,
}

impl Lines {
    /// The lines of a store.
    ///
    /// # Errors
    /// `Malformed` for one that is longer than readers follow, or leads round.
    pub(super) fn of(known: &[Known]) -> Result<Self, StoreError> {
        let bases = known.iter().filter_map(|known| Some((known.release.serial, known.release.base?))).collect();
        let lines = Self { bases };
        for serial in lines.bases.keys() {
            if lines.below(*serial).count() > MAX_LINE {
                let reason = "it is made of more releases, one of the other, than a reader follows";
                return Err(StoreError::malformed(format!("release {serial}"), reason));
            }
        }
        Ok(lines)
    }

    /// The releases that this one is made of, one of the other.
    pub(super) fn below(&self, serial: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(self.bases.get(&serial).copied(), |at| self.bases.get(at).copied()).take(MAX_LINE + 1)
    }

    /// The steps from the release that stands by itself to this one.
    pub(super) fn depth(&self, serial: u64) -> usize {
        self.below(serial).count()
    }

    /// The steps from this one to the last that is made of it.
    pub(super) fn height(&self, serial: u64) -> usize {
        let above = |top: &u64| self.below(*top).position(|at| at == serial).map(|at| at + 1);
        self.bases.keys().filter_map(above).max().unwrap_or(0)
    }

    /// That `serial` is made of `base` from now on.
    pub(super) fn put(&mut self, serial: u64, base: u64) {
        self.bases.insert(serial, base);
    }
}
