//! Lists of limited length: a longer one is refused before room is made for it.
//!
//! An entry takes more memory than its encoding, so that a limit on the encoding alone would allow a multiple of it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Reads a list of at most `MOST` entries: for `#[serde(deserialize_with = "list::<_, _, MOST>")]`.
///
/// # Errors
/// As the deserializer reports, and where the list is longer.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Limited::<T, MOST>(PhantomData))
}

/// The same of a list that may be missing.
///
/// # Errors
/// As [`list`].
pub(crate) fn option<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    deserializer.deserialize_option(LimitedOption::<T, MOST>(PhantomData))
}

struct Limited<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Limited<T, MOST> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list of at most {MOST} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        if let Some(length) = entries.size_hint().filter(|length| *length > MOST) {
            return Err(A::Error::invalid_length(length, &self));
        }
        // As long as it says, since growing would take up to twice the room; one that says too much ends the decoding.
        let mut list = Vec::with_capacity(entries.size_hint().unwrap_or(0));
        while let Some(entry) = entries.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            list.push(entry);
        }
        Ok(list)
    }
}

struct LimitedOption<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for LimitedOption<T, MOST> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "nothing, or a list of at most {MOST} entries")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        list::<_, _, MOST>(deserializer).map(Some)
    }
}
