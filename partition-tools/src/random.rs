//! Randomness that can be repeated: with a seed, equal inputs make equal images.
//!
//! Every draw has a label, so that one more draw elsewhere changes nothing here. With a seed, whoever knows the seed
//! knows the device key; a seeded image is for tests and for comparing builds, and `write` gives the device an identity
//! of its own.

use firmware_image::Digest;
use firmware_image::digest::Hasher;

/// A source of random bytes.
#[derive(Debug, Clone)]
pub struct Random {
    seed: Option<Digest>,
}

impl Random {
    /// The operating system's.
    pub fn system() -> Self {
        Self { seed: None }
    }

    /// Repeatable, from a text.
    pub fn seeded(seed: &str) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(b"holdfast image seed v1\0");
        hasher.update(seed.as_bytes());
        Self { seed: Some(hasher.finish()) }
    }

    /// Whether the bytes can be repeated.
    pub fn is_seeded(&self) -> bool {
        self.seed.is_some()
    }

    /// Bytes for `label`. Ask once for each label.
    ///
    /// # Errors
    /// The operating system has none to give.
    pub fn bytes<const N: usize>(&self, label: &str) -> std::io::Result<[u8; N]> {
        let mut out = [0; N];
        match self.seed {
            None => getrandom::fill(&mut out).map_err(std::io::Error::other)?,
            Some(seed) => {
                for (counter, part) in out.chunks_mut(32).enumerate() {
                    let mut hasher = Hasher::new();
                    hasher.update(&seed.0);
                    hasher.update(label.as_bytes());
                    hasher.update(&(counter as u64).to_le_bytes());
                    part.copy_from_slice(&hasher.finish().0[..part.len()]);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_labels_differ() {
        let one = Random::seeded("x").bytes::<64>("device").unwrap();
        assert_eq!(one, Random::seeded("x").bytes::<64>("device").unwrap());
        assert_ne!(one, Random::seeded("x").bytes::<64>("guids").unwrap());
        assert_ne!(one, Random::seeded("y").bytes::<64>("device").unwrap());
        assert_ne!(one[..32], one[32..]);
        let system = Random::system();
        assert_ne!(system.bytes::<32>("a").unwrap(), system.bytes::<32>("a").unwrap());
    }
}
