//! What is added to copies: nearly all of it is zero, so that only the other bytes stand in a patch, each with the number of
//! zeros in front of it.

use super::PatchError;
use super::streams::StreamReader;

/// Reads it, from pairs of bytes.
pub(super) struct ResidualReader<'a> {
    pairs: StreamReader<'a>,
    /// Zeros that are left in front of the next byte.
    zeros: usize,
    next: Option<u8>,
}

impl<'a> ResidualReader<'a> {
    pub(super) fn new(pairs: StreamReader<'a>) -> Self {
        Self { pairs, zeros: 0, next: None }
    }

    /// Puts the next bytes into `out`, which is zero.
    pub(super) fn put(&mut self, out: &mut [u8]) -> Result<(), PatchError> {
        let mut at = 0;
        loop {
            let next = match self.next {
                Some(next) => next,
                // Behind the last pair all is zero.
                None if self.pairs.left() == 0 => return Ok(()),
                None => {
                    let mut pair = [0; 2];
                    self.pairs.read_exact(&mut pair)?;
                    self.zeros = pair[0].into();
                    *self.next.insert(pair[1])
                }
            };
            if self.zeros >= out.len() - at {
                self.zeros -= out.len() - at;
                return Ok(());
            }
            out[at + self.zeros] = next;
            at += self.zeros + 1;
            self.next = None;
        }
    }

    /// Bytes that are left and would be used for something.
    pub(super) fn left(&self) -> u64 {
        self.pairs.left() + u64::from(self.next.is_some())
    }
}

/// Writes it.
#[cfg(feature = "publish")]
#[derive(Debug, Default)]
pub(super) struct ResidualWriter {
    pairs: Vec<u8>,
    zeros: u8,
}

#[cfg(feature = "publish")]
impl ResidualWriter {
    pub(super) fn push(&mut self, byte: u8) {
        if byte == 0 && self.zeros < u8::MAX {
            self.zeros += 1;
        } else {
            self.pairs.extend([self.zeros, byte]);
            self.zeros = 0;
        }
    }

    /// The pairs; zeros behind the last are left out.
    pub(super) fn finish(self) -> Vec<u8> {
        self.pairs
    }
}
