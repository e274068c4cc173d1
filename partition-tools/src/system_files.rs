//! Files that are written into a system, this one or an image of one, and taken out again.
//!
//! Each file appears under its name when it is complete. A text begins with a mark that says whose it is; a file without
//! that mark is somebody else's, and is neither replaced nor removed. Below a root that is not `/` no link is followed: it
//! would lead out of the image.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::error::ToolError;

/// What every text that this program writes into a system begins with.
pub const MARK: &str = "# Holdfast: ";
/// Read of a file to see whose it is.
const MAX_MARK_BYTES: u64 = 1024;

/// A file of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemFile {
    /// Where, from `/`.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text, whose first line or second line (after a script's interpreter) is its mark.
    Text(String),
    /// A program.
    Program(Vec<u8>),
}

impl SystemFile {
    /// A text of mode 0644.
    pub fn text(path: impl Into<PathBuf>, text: String) -> Self {
        Self { path: path.into(), mode: 0o644, content: Content::Text(text) }
    }

    /// A script.
    pub fn script(path: impl Into<PathBuf>, text: String) -> Self {
        Self { mode: 0o755, ..Self::text(path, text) }
    }

    /// A program.
    pub fn program(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), mode: 0o755, content: Content::Program(bytes) }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Text(text) => text.as_bytes(),
            Content::Program(bytes) => bytes,
        }
    }
}

/// The mark of a file: whose it is, in one line.
pub fn mark(of: &str) -> String {
    format!("{MARK}{}", one_line(of))
}

/// A text as one line of a file, whatever it holds: a backslash at its end would draw the next line to it.
pub fn one_line(text: &str) -> String {
    let plain = |c: char| match c {
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(plain).collect()
}

/// A text in one line of a unit's file (systemd.unit(5), *Specifiers*).
pub fn unit_text(text: &str) -> String {
    one_line(text).replace('%', "%%")
}

/// A word for file names: lower case letters, digits, and dashes between them.
///
/// # Errors
/// `Refused` for a name without a letter or digit.
pub fn slug(name: &str) -> Result<String, ToolError> {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
        if slug.len() == 40 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        return Err(ToolError::Refused(format!("the product '{name}' has no letter or digit to name files after")));
    }
    Ok(slug.to_owned())
}

/// Where a file is, in the system below `root`.
///
/// # Errors
/// `Refused` where a link would lead out of a root that is not `/`.
pub fn place(root: &Path, path: &Path) -> Result<PathBuf, ToolError> {
    let mut here = root.to_path_buf();
    for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
        here.push(part);
        let is_link = fs::symlink_metadata(&here).is_ok_and(|found| found.is_symlink());
        if is_link && root != Path::new("/") {
            let here = here.display();
            return Err(ToolError::Refused(format!(
                "{here} is a link, which may lead out of the image; install from within it (chroot), or replace the link"
            )));
        }
    }
    Ok(here)
}

/// Writes the files that are not there yet as they should be. Returns the paths of those that were written.
///
/// # Errors
/// `Refused` for a file of somebody else, `Host`. What was written until then stays; to repeat is safe.
pub fn install(root: &Path, files: &[SystemFile]) -> Result<Vec<PathBuf>, ToolError> {
    let mut places = Vec::new();
    for file in files {
        let at = place(root, &file.path)?;
        if let Content::Text(text) = &file.content {
            let wanted = text.lines().find(|line| line.starts_with(MARK));
            match found_mark(&at)? {
                Found::Nothing => {}
                Found::Marked(line) if Some(&*line) == wanted => {}
                Found::Marked(line) => {
                    let whose = line.trim_start_matches(MARK);
                    return Err(ToolError::Refused(format!(
                        "{} belongs to another installation ({whose}); uninstall that first",
                        at.display()
                    )));
                }
                Found::Foreign => return Err(foreign(&at)),
            }
        }
        places.push(at);
    }
    let mut written = Vec::new();
    for (file, at) in files.iter().zip(places) {
        if !is_there(&at, file) {
            write(&at, file)?;
            written.push(file.path.clone());
        }
    }
    Ok(written)
}

/// Removes files that an installation wrote, then the directories in `directories` (from `/`, innermost first) that are empty.
/// Returns the paths that are gone.
///
/// # Errors
/// `Refused` for a file of somebody else (nothing is removed then), `Host`.
pub fn uninstall(root: &Path, files: &[(PathBuf, bool)], directories: &[PathBuf]) -> Result<Vec<PathBuf>, ToolError> {
    let mut found = Vec::new();
    for (path, is_text) in files {
        let at = place(root, path)?;
        match found_mark(&at)? {
            Found::Nothing => {}
            Found::Foreign if *is_text => return Err(foreign(&at)),
            Found::Foreign | Found::Marked(_) => found.push((path, at)),
        }
    }
    let mut gone = Vec::new();
    for (path, at) in found {
        fs::remove_file(&at).map_err(ToolError::host("removed", &at))?;
        gone.push(path.clone());
    }
    for path in directories {
        // Not empty: somebody else's files are in it.
        if fs::remove_dir(place(root, path)?).is_ok() {
            gone.push(path.clone());
        }
    }
    Ok(gone)
}

fn foreign(at: &Path) -> ToolError {
    ToolError::Refused(format!("{} exists and was not written by this program; move it away first", at.display()))
}

enum Found {
    Nothing,
    Marked(String),
    Foreign,
}

fn found_mark(at: &Path) -> Result<Found, ToolError> {
    let mut head = Vec::new();
    match File::open(at) {
        Ok(file) => file.take(MAX_MARK_BYTES).read_to_end(&mut head).map_err(ToolError::host("read", at))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(ToolError::host("read", at)(error)),
    };
    let head = String::from_utf8_lossy(&head);
    Ok(match head.lines().take(2).find(|line| line.starts_with(MARK)) {
        Some(line) => Found::Marked(line.to_owned()),
        None => Found::Foreign,
    })
}

fn is_there(at: &Path, file: &SystemFile) -> bool {
    let same_mode = |found: &fs::Metadata| {
        #[cfg(unix)]
        return std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777 == file.mode;
        #[cfg(not(unix))]
        return found.is_file();
    };
    fs::symlink_metadata(at).is_ok_and(|found| found.is_file() && same_mode(&found))
        && fs::read(at).is_ok_and(|bytes| bytes == file.bytes())
}

fn write(at: &Path, file: &SystemFile) -> Result<(), ToolError> {
    let directory = at.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(ToolError::host("made", directory))?;
    let mut beside = OsString::from(".");
    beside.push(at.file_name().unwrap_or_default());
    beside.push(".new");
    let beside = directory.join(beside);
    let written = write_beside(&beside, file).and_then(|()| fs::rename(&beside, at));
    if let Err(error) = written {
        // The fault that led here is the one to report.
        let _ = fs::remove_file(&beside);
        return Err(ToolError::host("written", at)(error));
    }
    #[cfg(unix)]
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(ToolError::host("written", directory))?;
    Ok(())
}

fn write_beside(beside: &Path, file: &SystemFile) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).open(beside)?;
    out.write_all(file.bytes())?;
    // Whatever the umask says.
    #[cfg(unix)]
    out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(file.mode))?;
    out.sync_all()
}

/// Runs commands that make a running system take notice; says what became of each.
pub fn run_all(commands: &[Vec<String>]) -> Vec<String> {
    commands.iter().map(|words| run(words)).collect()
}

fn run(words: &[String]) -> String {
    let [program, arguments @ ..] = words else { return String::new() };
    let shown = words.join(" ");
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => format!("ran: {shown}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let why = said.lines().next().map_or_else(|| output.status.to_string(), str::to_owned);
            format!("failed: {shown} ({why})")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("not run, {program} is not here: {shown}"),
        Err(error) => format!("failed: {shown} ({error})"),
    }
}
