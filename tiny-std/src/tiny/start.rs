//! The program's begin, its end in a fault, and what others expect of a C library: its names for a system call, for the number
//! of that call's error, and for what the kernel tells of the processor.
#![allow(unsafe_code)]

use core::arch::{asm, global_asm};
use core::ffi::{c_char, c_int, c_long, c_ulong};
use core::ptr::{self, null_mut};
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

pub(super) type Strings = *const *const c_char;

static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(null_mut());
static ENVIRONMENT: AtomicPtr<*const c_char> = AtomicPtr::new(null_mut());
static AUXILIARY: AtomicPtr<[c_ulong; 2]> = AtomicPtr::new(null_mut());
static ERROR: AtomicI32 = AtomicI32::new(0);

pub(super) fn arguments() -> Strings {
    ARGUMENTS.load(Ordering::Relaxed)
}

pub(super) fn environment() -> Strings {
    ENVIRONMENT.load(Ordering::Relaxed)
}

unsafe extern "Rust" {
    /// The program, which returns its exit status; made by [`start`](crate::start).
    safe fn tiny_std_main() -> i32;
}

// Where the kernel lets a program begin: all it has is a stack.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    begin = sym begin
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, sp",
    "bl {begin}",
    begin = sym begin
);

/// # Safety
/// `stack` is where the kernel has put the number of arguments, the arguments, a null, the environment, a null, and the auxiliary
/// vector (System V ABI, "Initial Stack and Register State").
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: as the caller vouches; all of it stays where it is as long as the process.
    unsafe {
        let arguments = stack.add(1).cast::<*const c_char>();
        let environment = arguments.add(stack.read() + 1);
        let mut end = environment;
        while !end.read().is_null() {
            end = end.add(1);
        }
        ARGUMENTS.store(arguments.cast_mut(), Ordering::Relaxed);
        ENVIRONMENT.store(environment.cast_mut(), Ordering::Relaxed);
        AUXILIARY.store(end.add(1).cast::<[c_ulong; 2]>().cast_mut(), Ordering::Relaxed);
        // A pipe without a reader is an error to be told, and no reason to end: as std does it. The kernel's own structure
        // (handler, flags, restorer, signals) with nothing in it but what is no handler.
        let ignore = [libc::SIG_IGN, 0, 0, 0];
        syscall(libc::SYS_rt_sigaction, libc::SIGPIPE as usize, ptr::from_ref(&ignore).addr(), 0, 8, 0, 0);
    }
    fill_standard_streams();
    super::process::exit(tiny_std_main())
}

/// Has the numbers 0, 1 and 2 lead nowhere where they were not open: else the next file that is opened would get one of them, and
/// what is said to people would be written into it. Where that fails the program ends. std does the same.
fn fill_standard_streams() {
    for number in 0..3_usize {
        // SAFETY: a string that ends in zero, and the number of a descriptor; nobody has opened one before.
        unsafe {
            if syscall(libc::SYS_fcntl, number, libc::F_GETFD as usize, 0, 0, 0, 0) < 0 {
                // The lowest number that is free, which is this one.
                let null = c"/dev/null".as_ptr().addr();
                let opened = syscall(libc::SYS_openat, libc::AT_FDCWD as usize, null, libc::O_RDWR as usize, 0, 0, 0);
                if opened != number as c_long {
                    super::process::exit(134);
                }
            }
        }
    }
}

/// syscall(2), as C programs call it.
///
/// # Safety
/// As the call says.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "the kernel's")]
unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    let mut result: isize;
    // SAFETY: as the caller vouches; the kernel changes nothing of ours but what is named here, and what the call says.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
        #[cfg(target_arch = "aarch64")]
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            in("x5") f, options(nostack));
    }
    if (-4095..0).contains(&result) {
        ERROR.store(-result as i32, Ordering::Relaxed);
        result = -1;
    }
    result as c_long
}

/// errno(3).
#[unsafe(no_mangle)]
extern "C" fn __errno_location() -> *mut c_int {
    ERROR.as_ptr()
}

/// getauxval(3).
#[unsafe(no_mangle)]
extern "C" fn getauxval(wanted: c_ulong) -> c_ulong {
    let mut entry: *const [c_ulong; 2] = AUXILIARY.load(Ordering::Relaxed);
    if entry.is_null() {
        return 0;
    }
    loop {
        // SAFETY: the kernel ends the vector with an entry of type null.
        let [kind, value] = unsafe { entry.read() };
        if kind == wanted {
            return value;
        }
        if kind == 0 {
            return 0;
        }
        // SAFETY: it was not the last.
        entry = unsafe { entry.add(1) };
    }
}

#[panic_handler]
fn abort(_: &core::panic::PanicInfo<'_>) -> ! {
    super::process::exit(134)
}

/// Makes a function the program: it returns the exit status.
#[macro_export]
macro_rules! start {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn tiny_std_main() -> i32 {
            $main()
        }
    };
}
