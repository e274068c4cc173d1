//! Which paths a release may hold: those that every target system can hold, and that stay where they are put.
//!
//! A path is relative, its components are divided by `/`, and it means the same file on FAT, NTFS and a case-sensitive
//! file system. The reader refuses what breaks a rule, since a manifest is hostile until shown otherwise; the publisher
//! uses the same rules and says what to do.
//!
//! Sources: Microsoft, "Naming Files, Paths, and Namespaces"; FAT long names (255 UTF-16 units) and their 8.3 aliases.
//! Paths that differ in Unicode normalisation only are two paths on all of these, and are allowed.

use std::collections::HashMap;
use std::fmt;

use firmware_image::free_zone::is_device_name;

use crate::error::StoreError;

/// The longest path, in UTF-16 units and in bytes: Windows' 260 less a drive, the managed directory and a NUL.
pub const MAX_PATH_UNITS: usize = 240;
/// The longest component, in UTF-16 units.
pub const MAX_COMPONENT_UNITS: usize = 120;
/// The longest component, in bytes: NAME_MAX less what a temporary name adds.
pub const MAX_COMPONENT_BYTES: usize = 240;
/// The most components of a path.
pub const MAX_DEPTH: usize = 32;

/// What is wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathProblem {
    /// No path at all, or an empty component: `a//b`, `/a`, `a/`.
    Empty,
    /// `.` or `..`.
    Traversal,
    /// A character that FAT, NTFS or a terminal cannot hold.
    Character(char),
    /// A name that Windows gives to a device.
    Reserved(String),
    /// A component that ends in a dot or a space, which Windows drops.
    TrailingDotOrSpace,
    /// A component that looks like the short alias FAT gives to another file (`PROGRA~1`).
    ShortAlias(String),
    /// The path is too long.
    TooLong,
    /// A component is too long.
    ComponentTooLong,
    /// Too many components.
    TooDeep,
    /// The same path but for case: one file on FAT and Windows.
    Twin(String),
    /// A file where another path has a directory.
    FileAndDirectory(String),
    /// A name that is no Unicode text.
    NotUnicode,
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty name; write a relative path like `bin/run.sh`"),
            Self::Traversal => f.write_str("`.` and `..` are not allowed; write the path without them"),
            Self::Character(c) => {
                write!(f, "the character {c:?} cannot be in a name on FAT or Windows; rename the file")
            }
            Self::Reserved(name) => write!(f, "{name:?} is a device's name on Windows; rename the file"),
            Self::TrailingDotOrSpace => {
                f.write_str("a name must not end in a dot or a space, which Windows drops; rename the file")
            }
            Self::ShortAlias(name) => {
                write!(f, "{name:?} looks like the short alias of another file on FAT; rename the file")
            }
            Self::TooLong => write!(f, "longer than {MAX_PATH_UNITS} characters; shorten names or move the file up"),
            Self::ComponentTooLong => write!(f, "a name is longer than {MAX_COMPONENT_UNITS} characters; shorten it"),
            Self::TooDeep => write!(f, "more than {MAX_DEPTH} directories deep; move the file up"),
            Self::Twin(other) => {
                write!(f, "differs from {other:?} in case only: one file on FAT and Windows; rename one of them")
            }
            Self::FileAndDirectory(other) => write!(f, "{other:?} is a file and a directory; rename one of them"),
            Self::NotUnicode => f.write_str("the name is no Unicode text; rename the file"),
        }
    }
}

/// Checks one path by itself.
///
/// # Errors
/// The first problem found.
pub fn check(path: &str) -> Result<(), PathProblem> {
    if path.encode_utf16().count() > MAX_PATH_UNITS || path.len() > 4 * MAX_PATH_UNITS {
        return Err(PathProblem::TooLong);
    }
    let mut depth = 0;
    for component in path.split('/') {
        check_component(component)?;
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(PathProblem::TooDeep);
        }
    }
    Ok(())
}

fn check_component(name: &str) -> Result<(), PathProblem> {
    if name.is_empty() {
        return Err(PathProblem::Empty);
    }
    if name == "." || name == ".." {
        return Err(PathProblem::Traversal);
    }
    if let Some(c) = name.chars().find(|c| is_forbidden(*c)) {
        return Err(PathProblem::Character(c));
    }
    if name.ends_with(['.', ' ']) {
        return Err(PathProblem::TrailingDotOrSpace);
    }
    if name.encode_utf16().count() > MAX_COMPONENT_UNITS || name.len() > MAX_COMPONENT_BYTES {
        return Err(PathProblem::ComponentTooLong);
    }
    if is_device_name(name) {
        return Err(PathProblem::Reserved(name.to_owned()));
    }
    if is_short_alias(name) {
        return Err(PathProblem::ShortAlias(name.to_owned()));
    }
    Ok(())
}

/// Characters that FAT or NTFS cannot hold, and those that make a name look like another one.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\\' | ':' | '<' | '>' | '"' | '|' | '?' | '*')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{feff}' | '\u{fffd}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether FAT could have made this name up for another file: up to eight characters that end in `~` and digits, and an
/// extension of up to three.
fn is_short_alias(name: &str) -> bool {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    // Characters, not bytes: an alias is made in the system's code page, where a letter like Ä is one byte.
    if stem.chars().count() > 8 || extension.chars().count() > 3 || extension.contains('.') {
        return false;
    }
    let Some((front, digits)) = stem.rsplit_once('~') else { return false };
    !front.is_empty() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The path as a case-insensitive file system compares it: each character by its simple upper and then lower case.
pub fn fold(path: &str) -> String {
    path.chars().map(|c| single(single(c, char::to_uppercase), char::to_lowercase)).collect()
}

/// As [`fold`], and with the whole upper case, in which some letters become several: ß is SS, ﬁ is FI. A driver that compares so
/// takes more names for one.
fn fold_wholly(path: &str) -> String {
    fold(path).chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

fn single<I: Iterator<Item = char>>(c: char, map: impl Fn(char) -> I) -> char {
    let mut mapped = map(c);
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The paths of one release, each checked alone and against all the others.
#[derive(Debug, Default)]
pub struct PathSet {
    /// By folded path: its spelling, and whether it is a directory.
    seen: HashMap<String, (String, bool)>,
}

impl PathSet {
    /// No paths yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the file `path`.
    ///
    /// # Errors
    /// `Path`, with the first problem found.
    pub fn insert(&mut self, path: &str) -> Result<(), StoreError> {
        self.try_insert(path).map_err(|problem| StoreError::Path { path: path.to_owned(), problem })
    }

    fn try_insert(&mut self, path: &str) -> Result<(), PathProblem> {
        check(path)?;
        let folded = fold_wholly(path);
        // Folding keeps every `/` and adds none, so directories are cut at the same count of them.
        let ends = path.match_indices('/').map(|(at, _)| at);
        let folded_ends = folded.match_indices('/').map(|(at, _)| at);
        for (end, folded_end) in ends.zip(folded_ends) {
            self.place(&folded[..folded_end], &path[..end], true)?;
        }
        self.place(&folded, path, false)
    }

    fn place(&mut self, folded: &str, spelling: &str, directory: bool) -> Result<(), PathProblem> {
        match self.seen.get(folded) {
            None => {
                self.seen.insert(folded.to_owned(), (spelling.to_owned(), directory));
                Ok(())
            }
            Some((known, known_directory)) if *known_directory != directory => {
                Err(PathProblem::FileAndDirectory(known.clone()))
            }
            Some((known, true)) if known == spelling => Ok(()),
            Some((known, _)) => Err(PathProblem::Twin(known.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{fold, fold_wholly};

    #[test]
    fn whatever_meets_by_either_way_to_compare_meets_in_a_release() {
        let (mut upper, mut folded) = (HashMap::new(), HashMap::new());
        for c in ('\0'..=char::MAX).map(String::from) {
            let wholly = fold_wholly(&c);
            assert_eq!(upper.entry(c.to_uppercase()).or_insert_with(|| wholly.clone()), &wholly, "{c:?}");
            assert_eq!(folded.entry(fold(&c)).or_insert_with(|| wholly.clone()), &wholly, "{c:?}");
            assert_eq!(wholly.matches('/').count(), usize::from(c == "/"), "{c:?}");
        }
        assert_eq!(fold_wholly("ﬁ/straße"), fold_wholly("FI/STRASSE"));
    }
}
