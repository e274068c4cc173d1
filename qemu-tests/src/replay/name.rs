//! Names of states, to print and to read again.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};

/// The most numbers in a name.
const MAX_NUMBERS: usize = 1 << 20;

/// Which kind of misfortune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Everything up to a moment.
    Prefix,
    /// The last write by half.
    Torn,
    /// Writes between two flushes lost.
    Lost,
    /// Writes between two flushes in another order.
    Reordered,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefix => "prefix",
            Self::Torn => "torn",
            Self::Lost => "lost",
            Self::Reordered => "reordered",
        })
    }
}

/// Sectors of one write, as ranges of first and last.
pub type Sectors = Vec<(u64, u64)>;

/// What a cut left. See the module above.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// `at:CUT`
    Prefix {
        /// Entries that were done.
        cut: usize,
    },
    /// `torn:CUT=SECTORS`
    Torn {
        /// Entries that were done; the next one is torn.
        cut: usize,
        /// Which of its sectors landed.
        landed: Sectors,
    },
    /// `lost:CUT=ENTRIES`
    Lost {
        /// Entries that were done.
        cut: usize,
        /// Those of them that never landed, ascending.
        lost: Vec<usize>,
    },
    /// `kept:CUT=ENTRIES`
    Kept {
        /// Entries that were done.
        cut: usize,
        /// Those after the last flush that landed, in this order.
        kept: Vec<usize>,
    },
}

impl State {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Prefix { .. } => Kind::Prefix,
            Self::Torn { .. } => Kind::Torn,
            Self::Lost { .. } => Kind::Lost,
            Self::Kept { kept, .. } if kept.is_sorted() => Kind::Lost,
            Self::Kept { .. } => Kind::Reordered,
        }
    }

    /// How many entries were done.
    pub fn cut(&self) -> usize {
        match self {
            Self::Prefix { cut } | Self::Torn { cut, .. } | Self::Lost { cut, .. } | Self::Kept { cut, .. } => *cut,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix { cut } => write!(f, "at:{cut}"),
            Self::Torn { cut, landed } => write!(f, "torn:{cut}={}", Ranges(landed)),
            Self::Lost { cut, lost } => write!(f, "lost:{cut}={}", Ranges(&ranges(lost))),
            Self::Kept { cut, kept } => write!(f, "kept:{cut}={}", Ranges(&ranges(kept))),
        }
    }
}

struct Ranges<'r>(&'r [(u64, u64)]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Neighbours in a list as ranges; the order stays.
fn ranges(numbers: &[usize]) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for number in numbers.iter().map(|number| *number as u64) {
        match out.last_mut() {
            Some(last) if last.1 + 1 == number => last.1 = number,
            _ => out.push((number, number)),
        }
    }
    out
}

impl FromStr for State {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, rest) = text.trim().split_once(':').with_context(|| format!("`{text}` is no state's name"))?;
        let (cut, list) = rest.split_once('=').map_or((rest, None), |(cut, list)| (cut, Some(list)));
        let cut = cut.parse().with_context(|| format!("`{cut}` is no number of entries"))?;
        let listed = || parse_ranges(list.with_context(|| format!("`{text}` lacks its list"))?);
        Ok(match kind {
            "at" => Self::Prefix { cut },
            "torn" => Self::Torn { cut, landed: listed()? },
            "lost" => Self::Lost { cut, lost: numbers(&listed()?)? },
            "kept" => Self::Kept { cut, kept: numbers(&listed()?)? },
            _ => bail!("`{kind}` is no kind of state"),
        })
    }
}

fn parse_ranges(text: &str) -> Result<Vec<(u64, u64)>> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u64>().with_context(|| format!("`{text}` is no number"));
        let (first, last) = (number(first)?, number(last)?);
        ensure!(first <= last, "{part} runs backwards");
        Ok((first, last))
    };
    text.split(',').map(range).collect()
}

fn numbers(ranges: &[(u64, u64)]) -> Result<Vec<usize>> {
    let mut out = Vec::new();
    for (first, last) in ranges {
        ensure!(last - first < (MAX_NUMBERS - out.len()) as u64, "too many numbers in a state's name");
        for number in *first..=*last {
            out.push(usize::try_from(number)?);
        }
    }
    Ok(out)
}
