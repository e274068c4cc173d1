//! Programs with less than they want.

use std::process::{Command, Stdio};

/// The program and its arguments under a limit of its address space, and of all that it starts. Its environment and its
/// directory are the caller's.
pub fn address_space(command: &Command, kibibytes: u64) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v $0; exec \"$@\"", &kibibytes.to_string()]);
    limited.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    limited
}
