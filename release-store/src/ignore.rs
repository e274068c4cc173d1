//! Patterns of files that are the user's own, relative to the managed directory.
//!
//! `*` and `?` match within a component, `**` any number of components (alone in one), `[a-z]` a set. A pattern matches
//! the whole path: `settings.ini`, `logs/**`, `**/*.log`. Case does not count, as on FAT and Windows. A file that
//! matches is installed where it is missing, and otherwise never touched.
//!
//! Names on a device are hostile. Components are matched one by one, so that no name makes a pattern try all ways of
//! dividing it: within a component, a `*` that finds no match to the end ends the attempt.

use glob::{MatchOptions, Pattern};

use crate::error::StoreError;
use crate::paths::fold;

/// The most patterns of a release.
pub const MAX_PATTERNS: usize = 256;
/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 240;
/// The most wildcards in a pattern.
pub const MAX_WILDCARDS: usize = 6;

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: false, require_literal_separator: true, require_literal_leading_dot: false };

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct IgnorePatterns(Vec<Vec<Component>>);

/// A component of a pattern.
#[derive(Debug, Clone)]
enum Component {
    /// `**`: any number of components; at the end, at least one.
    Any,
    /// One component.
    One(Pattern),
}

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
        let path = fold(path);
        let path: Vec<&str> = path.split('/').collect();
        self.0.iter().any(|pattern| matches(pattern, &path))
    }
}

/// Whether `pattern` matches the whole of `path`. Where a later `**` is reached, no earlier one needs another try: what
/// the later one may skip covers it.
fn matches(pattern: &[Component], path: &[&str]) -> bool {
    let (mut at, mut name) = (0, 0);
    let mut retry = None;
    loop {
        match (pattern.get(at), path.get(name)) {
            (None, None) => return true,
            (Some(Component::Any), Some(_)) if at + 1 == pattern.len() => return true,
            (Some(Component::Any), _) if at + 1 < pattern.len() => {
                retry = Some((at + 1, name));
                at += 1;
                continue;
            }
            (Some(Component::One(one)), Some(found)) if one.matches_with(found, OPTIONS) => {
                at += 1;
                name += 1;
                continue;
            }
            _ => {}
        }
        // The last `**` takes one component more.
        match retry {
            Some((after, from)) if from < path.len() => {
                retry = Some((after, from + 1));
                (at, name) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

fn compile(pattern: &str) -> Result<Vec<Component>, StoreError> {
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
    let component = |part: &str| match part {
        "**" => Ok(Component::Any),
        part => Pattern::new(part).map(Component::One),
    };
    fold(pattern).split('/').map(component).collect::<Result<_, _>>().map_err(|error| refuse(error.msg))
}
