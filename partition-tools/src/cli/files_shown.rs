//! Files of a system as people and scripts are shown them.

use std::path::{Path, PathBuf};

use firmware_image::Digest;
use lines::{errln, outln};
use partition_tools::size;
use partition_tools::system_files::{Content, SystemFile};
use serde_json::{Value, json};

/// Prints them to stdout, each below a line with its path and mode.
pub(super) fn print(files: &[SystemFile]) {
    for (i, file) in files.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        outln!("{gap}#### {} (mode {:04o}){}", file.path.display(), file.mode, summary(file));
        if let Content::Text(text) = &file.content {
            lines::bytes(text.as_bytes());
        }
    }
}

/// Says which of them were written.
pub(super) fn tell_written(root: &Path, files: &[SystemFile], written: &[PathBuf]) {
    for file in files {
        let verb = if written.contains(&file.path) { "wrote" } else { "unchanged" };
        errln!("{verb} {}{}", below(root, &file.path), summary(file));
    }
}

/// Says what would be written.
pub(super) fn tell_planned(root: &Path, files: &[SystemFile]) {
    files.iter().for_each(|file| errln!("would write {}{}", below(root, &file.path), summary(file)));
}

/// A path in the system below `root`.
pub(super) fn below(root: &Path, path: &Path) -> String {
    root.join(path.strip_prefix("/").unwrap_or(path)).display().to_string()
}

/// For scripts.
pub(super) fn as_json(files: &[SystemFile]) -> Vec<Value> {
    let one = |file: &SystemFile| {
        let text = match &file.content {
            Content::Text(text) => Some(text),
            Content::Program(_) => None,
        };
        let mode = format!("{:04o}", file.mode);
        let sha256 = Digest::of(file.bytes()).to_string();
        json!({"path": file.path, "mode": mode, "bytes": file.bytes().len(), "sha256": sha256, "text": text})
    };
    files.iter().map(one).collect()
}

fn summary(file: &SystemFile) -> String {
    match &file.content {
        Content::Text(_) => String::new(),
        Content::Program(bytes) => format!(": a program, {}", size::show(bytes.len() as u64)),
    }
}
