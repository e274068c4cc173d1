//! Telling somebody how far a long piece of work is.

/// Hears of progress. Nothing depends on what it does with it.
pub trait Progress {
    /// A step of `total` bytes begins.
    fn begin(&mut self, step: &'static str, total: u64);
    /// `bytes` more of the step are done.
    fn advance(&mut self, bytes: u64);
}

/// Nobody watches.
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _step: &'static str, _total: u64) {}
    fn advance(&mut self, _bytes: u64) {}
}
