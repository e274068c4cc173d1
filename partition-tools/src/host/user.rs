//! The user that a unit runs as.

use std::path::Path;
use std::process::Command;

use crate::error::ToolError;
use crate::system_files::place;

/// The highest number of a system's own users (systemd's default).
const MAX_SYSTEM_UID: u32 = 999;

/// What is known of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A user of the system itself, as services have.
    System,
    /// A person's.
    Person,
    /// None of that name.
    Missing,
}

/// Looks a user up in the system below `root`.
///
/// # Errors
/// `Refused` for a name that no user has, and for root.
pub fn look_up(root: &Path, name: &str) -> Result<Known, ToolError> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let other = |c: char| first(c) || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !name.starts_with(first) || !name.chars().all(other) || name.len() > 32 {
        return Err(ToolError::Refused(format!("'{name}' is no name of a user")));
    }
    let uid = uid_of(root, name);
    if name == "root" || uid == Some(0) {
        return Err(ToolError::Refused(format!(
            "'{name}' is root, and what a device brings must not run as root: name an ordinary user, \
             for example one made with `useradd --system --shell /usr/sbin/nologin holdfast`"
        )));
    }
    Ok(match uid {
        None => Known::Missing,
        Some(0..=MAX_SYSTEM_UID) => Known::System,
        Some(_) => Known::Person,
    })
}

fn uid_of(root: &Path, name: &str) -> Option<u32> {
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    if root == Path::new("/") {
        // Users may come from elsewhere than the file.
        if let Ok(output) = Command::new("getent").args(["passwd", name]).output() {
            return String::from_utf8_lossy(&output.stdout).lines().find_map(of_line);
        }
    }
    let text = std::fs::read_to_string(place(root, Path::new("/etc/passwd")).ok()?).ok()?;
    text.lines().find_map(of_line)
}
