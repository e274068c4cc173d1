//! The numbered keys that a product's frames are encrypted under.
//!
//! Content keys keep a store's content from those who have no device of the product. They say nothing about who made
//! it: authenticity comes from signatures alone.

use std::fmt;

use zeroize::Zeroize;

/// Bytes of a content key.
pub const CONTENT_KEY_BYTES: usize = 32;
/// The most content keys that a ring holds.
pub const MAX_CONTENT_KEYS: usize = 64;

/// A content key and its number. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey {
    /// Its number, by which manifests and packs name it; grows by one with each new key.
    pub number: u32,
    /// The key.
    pub key: [u8; CONTENT_KEY_BYTES],
}

impl ContentKey {
    /// The key `key`, numbered `number`.
    pub fn new(number: u32, key: [u8; CONTENT_KEY_BYTES]) -> Self {
        Self { number, key }
    }
}

impl Drop for ContentKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentKey(number {})", self.number)
    }
}

/// The content keys at hand, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentKeys(Vec<ContentKey>);

impl ContentKeys {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key, in place of one with its number. `false`: there are [`MAX_CONTENT_KEYS`] already.
    #[must_use]
    pub fn insert(&mut self, key: ContentKey) -> bool {
        match self.0.binary_search_by_key(&key.number, |known| known.number) {
            Ok(at) => self.0[at] = key,
            Err(_) if self.0.len() >= MAX_CONTENT_KEYS => return false,
            Err(at) => self.0.insert(at, key),
        }
        true
    }

    /// The key numbered `number`.
    pub fn get(&self, number: u32) -> Option<&ContentKey> {
        self.0.iter().find(|key| key.number == number)
    }

    /// The key with the highest number.
    pub fn newest(&self) -> Option<&ContentKey> {
        self.0.last()
    }

    /// All keys, by number.
    pub fn iter(&self) -> impl Iterator<Item = &ContentKey> {
        self.0.iter()
    }
}

impl From<ContentKey> for ContentKeys {
    fn from(key: ContentKey) -> Self {
        Self(vec![key])
    }
}
