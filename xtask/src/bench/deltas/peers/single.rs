//! Tools that make a patch from one file to another: they get everything that changed as one file.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Case, Peer, least, took};
use crate::bench::deltas::outcome::{Base, Update};
use crate::bench::deltas::tools::Tools;
use crate::bench::trees;
use crate::usage::Usage;

/// A tool as two commands.
struct Single {
    /// Old file, new file, patch to be written.
    encode: fn(&Tools, &Path, &Path, &Path) -> Result<Command>,
    /// Old file, patch, new file to be written.
    decode: fn(&Tools, &Path, &Path, &Path) -> Result<Command>,
    /// What starting it takes that is not its own.
    start: Usage,
}

impl Peer for Single {
    fn update(&mut self, case: &Case, base: Base) -> Result<Update> {
        let solid = case.solid(base)?;
        let (patch, made) = (case.dir.join("patch"), case.dir.join("made"));
        let remove = |file: &Path| if file.exists() { std::fs::remove_file(file) } else { Ok(()) };
        remove(&patch)?;
        let maker = took(&mut (self.encode)(case.tools, &solid.old, &solid.new, &patch)?)?;
        let client = least(|| {
            remove(&made)?;
            (self.decode)(case.tools, &solid.old, &patch, &made)
        })?;
        solid.check(&made)?;
        Ok(Update {
            bytes: Some(trees::stored_bytes(&patch)?),
            total_bytes: None,
            requests: None,
            client: client.without(self.start),
            maker: Some(maker.without(self.start)),
        })
    }
}

pub(super) fn bsdiff(_case: &Case) -> Result<Box<dyn Peer>> {
    Ok(Box::new(Single {
        encode: |tools, old, new, patch| {
            let mut bsdiff = tools.command("bsdiff");
            bsdiff.args([old, new, patch]);
            Ok(bsdiff)
        },
        decode: |tools, old, patch, made| {
            let mut bspatch = tools.command("bspatch");
            bspatch.args([old, made, patch]);
            Ok(bspatch)
        },
        start: Usage::default(),
    }))
}

pub(super) fn zstd(_case: &Case) -> Result<Box<dyn Peer>> {
    Ok(Box::new(Single {
        encode: |tools, old, new, patch| {
            let mut zstd = tools.command("zstd");
            zstd.args(["-19", "--long=31", "-T1", "-q", "--patch-from"]).args([old, new]).arg("-o").arg(patch);
            Ok(zstd)
        },
        decode: |tools, old, patch, made| {
            let mut zstd = tools.command("zstd");
            zstd.args(["-d", "--long=31", "-q", "--patch-from"]).args([old, patch]).arg("-o").arg(made);
            Ok(zstd)
        },
        start: Usage::default(),
    }))
}

pub(super) fn xdelta3(_case: &Case) -> Result<Box<dyn Peer>> {
    /// A window that holds the whole old file, so that nothing in it is out of reach.
    fn window(old: &Path) -> Result<String> {
        const LEAST: u64 = 64 << 20;
        Ok(trees::stored_bytes(old)?.next_power_of_two().max(LEAST).to_string())
    }
    Ok(Box::new(Single {
        encode: |tools, old, new, patch| {
            let mut xdelta3 = tools.command("xdelta3");
            xdelta3.args(["-e", "-9", "-S", "lzma", "-W", "16777216", "-B", &window(old)?, "-s"]);
            xdelta3.args([old, new, patch]);
            Ok(xdelta3)
        },
        decode: |tools, old, patch, made| {
            let mut xdelta3 = tools.command("xdelta3");
            xdelta3.args(["-d", "-B", &window(old)?, "-s"]).args([old, patch, made]);
            Ok(xdelta3)
        },
        start: Usage::default(),
    }))
}

/// As a module of Python, whose start is taken off.
pub(super) fn hdiffpatch(case: &Case) -> Result<Box<dyn Peer>> {
    Ok(Box::new(Single {
        encode: |tools, old, new, patch| {
            python(
                tools,
                "compression = hdiffpatch.Lzma2Config(level=9, window=24, threads=1)\n\
                 write(hdiffpatch.diff(read(1), read(2), compression=compression, validate=False))",
                [old, new, patch],
            )
        },
        decode: |tools, old, patch, made| {
            python(tools, "write(hdiffpatch.apply(read(1), read(2)))", [old, patch, made])
        },
        start: least(|| python(case.tools, "", ["", "", ""]))?,
    }))
}

/// A few lines of Python with HDiffPatch at hand, which read their first two files and write the third.
fn python<P: AsRef<std::ffi::OsStr>>(tools: &Tools, lines: &str, files: [P; 3]) -> Result<Command> {
    let mut python = Command::new(tools.python().context("no python knows HDiffPatch")?);
    let head = "import sys, hdiffpatch\n\
        read = lambda n: open(sys.argv[n], 'rb').read()\n\
        write = lambda data: open(sys.argv[3], 'wb').write(data)\n";
    python.arg("-c").arg(format!("{head}{lines}")).args(files);
    Ok(python)
}
