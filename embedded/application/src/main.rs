//! The application that the device exists for: it finds itself whole, says that it runs, and ends.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m_semihosting::{debug, hprintln};

#[path = "../../device/src/handover.rs"]
#[allow(dead_code)] // It asks for nothing.
mod handover;

/// Something to be whole: 12 KiB that the program can check by itself.
static TABLE: [u32; 3072] = {
    let mut table = [0; 3072];
    let mut state = 0x9e37_79b9_u32;
    let mut i = 0;
    while i < table.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        table[i] = state;
        i += 1;
    }
    table
};

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut state = 0x9e37_79b9_u32;
    let whole = (0..TABLE.len()).all(|i| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // SAFETY: `i` is within the table, whose entries are plain numbers. Volatile: what stands in flash is asked, not what
        // the compiler knows.
        state == unsafe { core::ptr::read_volatile(&raw const TABLE[i]) }
    });
    // SAFETY: the word is behind this program's memory.
    if unsafe { handover::read() } == handover::RECOVER {
        hprintln!("application: must fetch a newer one");
    }
    if whole {
        hprintln!("application: runs");
        debug::exit(debug::EXIT_SUCCESS);
    } else {
        hprintln!("application: not whole");
        debug::exit(debug::EXIT_FAILURE);
    }
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}
