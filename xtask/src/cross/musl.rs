//! musl for a processor: the system's own, or Debian's package for that processor, fetched and unpacked beside the build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{run, system};

/// The file that tells GCC to take musl for `arch` in place of its own C library.
///
/// # Errors
/// There is no musl for it here; says what is missing.
pub fn specs(arch: &str, work: &Path) -> Result<PathBuf> {
    let root = root(arch, work)?;
    let original = root.join(format!("usr/lib/{arch}-linux-musl/musl-gcc.specs"));
    let text = std::fs::read_to_string(&original).with_context(|| format!("cannot read {}", original.display()))?;
    let shown = root.to_str().context("the build directory's path is no text")?;
    let text = if shown == "/" {
        text
    } else {
        text.replace(" /usr/", &format!(" {shown}/usr/")).replace("-L/usr/", &format!("-L{shown}/usr/"))
    };
    let specs = work.join(format!("musl-{arch}.specs"));
    std::fs::write(&specs, text)?;
    Ok(specs)
}

/// What Rust's library asks of a `libunwind` for a program that aborts: backtraces, which find nothing here.
const UNWINDING: &str = "\
/* _URC_END_OF_STACK */
int _Unwind_Backtrace(void *step, void *argument) { return 5; }
unsigned long _Unwind_GetIP(void *context) { return 0; }
unsigned long _Unwind_GetCFA(void *context) { return 0; }
void *_Unwind_FindEnclosingFunction(void *address) { return 0; }
";

/// A directory with a `libunwind.a` for programs that never unwind.
///
/// # Errors
/// The compiler fails.
pub fn no_unwinding(gcc: &str, arch: &str, work: &Path) -> Result<PathBuf> {
    let dir = work.join(format!("no-unwinding-{arch}"));
    std::fs::create_dir_all(&dir)?;
    let [source, object] = ["unwind.c", "unwind.o"].map(|name| dir.join(name));
    std::fs::write(&source, UNWINDING)?;
    run::text(Command::new(gcc).args(["-Os", "-ffunction-sections", "-w", "-c"]).arg(&source).arg("-o").arg(&object))?;
    // The linker takes a script for a library (ld(1)), so no archiver for this processor is wanted.
    std::fs::write(dir.join("libunwind.a"), format!("INPUT(\"{}\")\n", object.display()))?;
    Ok(dir)
}

/// The directory below which `usr/lib/ARCH-linux-musl` is.
fn root(arch: &str, work: &Path) -> Result<PathBuf> {
    let has_it = |root: &Path| root.join(format!("usr/lib/{arch}-linux-musl/libc.a")).is_file();
    let (system_root, own) = (PathBuf::from("/"), work.join(format!("musl-{arch}")));
    if has_it(&system_root) {
        return Ok(system_root);
    }
    if arch == std::env::consts::ARCH && system::may_install() {
        system::install(&["musl-dev"]);
        if has_it(&system_root) {
            return Ok(system_root);
        }
    }
    if !has_it(&own) {
        fetch(arch, &own).with_context(|| format!("musl for {arch} (Debian package musl-dev) is missing"))?;
    }
    if !has_it(&own) {
        bail!("Debian's musl-dev has no libc.a for {arch}");
    }
    Ok(own)
}

/// Fetches and unpacks Debian's package for another processor. Needs no rights, and leaves the system's own lists alone.
fn fetch(arch: &str, to: &Path) -> Result<()> {
    let debian = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => bail!("no package for this processor"),
    };
    if system::find("apt-get").is_none() || system::find("dpkg-deb").is_none() {
        bail!("it can be fetched on Debian only");
    }
    let dir = tempfile::tempdir()?;
    for name in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(dir.path().join(name))?;
    }
    eprintln!("fetching musl-dev for {debian} with apt-get");
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(dir.path()).arg("-q");
        for option in [format!("APT::Architecture={debian}"), format!("APT::Architectures={debian}")] {
            apt.args(["-o", &option]);
        }
        for (option, name) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            apt.args(["-o", &format!("{option}={}", dir.path().join(name).display())]);
        }
        run::text(apt.args(args))
    };
    apt(&["update"])?;
    apt(&["download", "musl-dev"])?;
    let package = std::fs::read_dir(dir.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get fetched no package")?;
    run::text(Command::new("dpkg-deb").arg("-x").arg(package).arg(to)).map(drop)
}
