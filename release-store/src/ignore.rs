//! Patterns of files that are the user's own, relative to the managed directory.
//!
//! `*` and `?` match within a component, `**` any number of components (alone in one), `[a-z]` a set. A pattern matches
//! the whole path: `settings.ini`, `logs/**`, `**/*.log`. Case does not count, as on FAT and Windows. A file that
//! matches is installed where it is missing, and otherwise never touched.

use glob::{MatchOptions, Pattern};

use crate::error::StoreError;

/// The most patterns of a release.
pub const MAX_PATTERNS: usize = 256;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 240;
/// The most wildcards in a pattern: matching backtracks.
pub const MAX_WILDCARDS: usize = 6;

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: false, require_literal_separator: true, require_literal_leading_dot: false };

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct IgnorePatterns(Vec<Pattern>);

impl IgnorePatterns {
    /// Compiles `patterns`.
    ///
    /// # Errors
    /// `Malformed` names the pattern; `TooLarge` where there are too many.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, StoreError> {
        if patterns.len() > MAX_PATTERNS {
            let (limit, found) = (MAX_PATTERNS as u64, patterns.len() as u64);
            return Err(StoreError::TooLarge {
                object: "the ignore list".into(),
                what: "the number of patterns",
                limit,
                found,
            });
        }
        patterns.iter().map(|pattern| compile(pattern.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `path` (relative to the managed directory, `/` between components) is the user's own.
    pub fn matches(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches_with(path, OPTIONS))
    }
}

fn compile(pattern: &str) -> Result<Pattern, StoreError> {
    let refuse = |reason: &str| StoreError::malformed(format!("the ignore pattern {pattern:?}"), reason);
    if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
        return Err(refuse("it is empty or too long"));
    }
    if pattern.starts_with('/') || pattern.contains('\\') || pattern.split('/').any(|part| part == "..") {
        return Err(refuse("write it relative to the client directory, with `/` between names"));
    }
    let wildcards = pattern.replace("**", "*").chars().filter(|c| matches!(c, '*' | '?' | '[')).count();
    if wildcards > MAX_WILDCARDS {
        return Err(refuse("it has too many wildcards; divide it into several"));
    }
    Pattern::new(pattern).map_err(|error| refuse(error.msg))
}
