//! The end of this process.
#![allow(unsafe_code)]

/// Ends it at once: nobody has registered anything to be done before, and no output is held back.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes no memory of ours.
        unsafe { libc::syscall(libc::SYS_exit_group, status as usize, 0_usize, 0_usize, 0_usize, 0_usize, 0_usize) };
    }
}
