//! The mounts that this process sees: lines of mountinfo (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};
use std::prelude::v1::*;

/// A mount.
pub struct Mount {
    /// The device's number, `MAJOR:MINOR`.
    pub device: String,
    /// What of the file system is mounted; `/` is all of it.
    pub root: String,
    /// Where it is mounted.
    pub at: PathBuf,
    /// The kind of file system.
    pub kind: String,
    /// What was mounted: a node, or a word.
    pub source: String,
}

impl Mount {
    /// The mounts in the text of a mountinfo, in order; lines that are none are passed over.
    pub fn all(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::parse).collect()
    }

    /// The mount that holds `path`. What was mounted over an earlier mount hides it, so the last of the longest counts.
    pub fn of<'m>(mounts: &'m [Self], path: &Path) -> Option<&'m Self> {
        mounts.iter().filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.components().count())
    }

    /// Where all of a device is mounted, last.
    pub fn place_of(mounts: &[Self], device: Option<&str>, node: &Path) -> Option<PathBuf> {
        let of_device = |mount: &&Self| {
            // A file system that is a program shows its source only. Only root mounts one of this kind: any user can mount
            // one of another kind that names any source.
            let is_of_program = mount.kind == "fuseblk" && Path::new(&mount.source) == node;
            mount.root == "/" && (Some(&*mount.device) == device || is_of_program)
        };
        mounts.iter().rev().find(of_device).map(|mount| mount.at.clone())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let root = unescape(fields.next()?);
        let at = PathBuf::from(unescape(fields.next()?));
        let mut rest = fields.skip_while(|field| *field != "-").skip(1);
        let kind = rest.next()?.to_owned();
        Some(Self { device, root, at, kind, source: unescape(rest.next()?) })
    }
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            _ => {
                out.push(*byte);
                tail
            }
        };
    }
    String::from_utf8_lossy(&out).into_owned()
}
