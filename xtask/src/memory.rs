//! The memory that a command had at most, as the kernel counted it.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` quietly and prints the peak resident bytes of it and of what it waited for.
pub fn print_peak(command: &[OsString]) -> Result<()> {
    let (program, args) = command.split_first().context("no command")?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{} failed: {}", program.to_string_lossy(), String::from_utf8_lossy(&output.stderr));
    }
    println!("{}", peak_of_children()?);
    Ok(())
}

#[cfg(target_os = "linux")]
fn peak_of_children() -> Result<u64> {
    // SAFETY: `getrusage` fills the structure it is given, which is plain integers.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        if libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) != 0 {
            bail!("the kernel does not say how much memory was used");
        }
        usage
    };
    Ok(usage.ru_maxrss as u64 * 1024)
}

#[cfg(not(target_os = "linux"))]
fn peak_of_children() -> Result<u64> {
    bail!("this is measured on Linux only")
}
