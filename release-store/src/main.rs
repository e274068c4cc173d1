//! Keys, publishing, and reading of a static, encrypted, deduplicated release store.
#![deny(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    give_back_large_blocks();
    cli::main()
}

/// Large blocks go back to the system when they are freed. glibc would else keep more and more of them for later, and
/// patches need half as much memory again.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn give_back_large_blocks() {
    const LARGE_BYTES: libc::c_int = 1 << 20;
    // SAFETY: sets one number of the allocator, before there is another thread. Where it is refused, all stays as it was.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back_large_blocks() {}
