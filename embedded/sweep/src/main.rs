//! Cuts the power of the bootstrap's own code at every write and erase of a restore, on the processor itself, and starts it
//! again: every state must heal to the same application. Some of the second starts are cut as well.
//!
//! Beside the device's flash stands a copy of it as the factory made it, to begin each case from.
#![no_std]
#![no_main]

use core::cell::RefCell;
use core::mem::MaybeUninit;
use core::panic::PanicInfo;
use core::ptr::addr_of_mut;

use cortex_m_semihosting::{debug, hprintln};
use firmware_image::signature::PublicKey;
use firmware_image::stamp;
use holdfast_device::flash::{Cut, SimFlash, Tear};
use holdfast_device::start::{Blocks, Buffers, start};
use holdfast_device::table::{FLASH_BYTES, LAYOUT};

/// Where the processor sees the device's flash, and the copy of it.
const FLASH_AT: usize = 0x2100_0000;
const COPY_AT: usize = 0x2180_0000;
/// Every so many first cuts the recovery is cut too, at every so many of its operations.
const SECOND_EVERY: (u32, u32) = (9, 13);

static mut BUFFERS: Buffers = Buffers::new();
#[unsafe(link_section = ".blocks")]
static mut BLOCKS: MaybeUninit<Blocks> = MaybeUninit::uninit();

/// The device under test.
struct Bench {
    vendor: PublicKey,
    flash: &'static mut [u8],
    copy: &'static [u8],
    buffers: &'static mut Buffers,
    blocks: &'static mut Blocks,
    starts: u32,
}

impl Bench {
    /// A device as it left the factory, but for its application.
    fn damage(&mut self) {
        self.flash.copy_from_slice(self.copy);
        damage(&mut self.flash[application()]);
    }

    /// A start that is cut at `cut`; whether it came so far.
    fn is_cut(&mut self, cut: Cut) -> bool {
        self.starts += 1;
        let flash = RefCell::new(SimFlash::new(self.flash, Some(cut)));
        let settled = start(&flash, self.vendor, self.buffers, self.blocks, false, &mut |_, _| {});
        let is_cut = flash.borrow().is_cut();
        if !is_cut && settled.is_err() {
            hprintln!("sweep: {:?} without a cut", settled);
            fail();
        }
        is_cut
    }

    /// A start with power to its end; whether the application stands there as the factory made it.
    fn heals(&mut self) -> bool {
        self.starts += 1;
        let flash = RefCell::new(SimFlash::new(self.flash, None));
        let settled = start(&flash, self.vendor, self.buffers, self.blocks, false, &mut |_, _| {});
        settled.is_ok() && self.flash[application()] == self.copy[application()]
    }
}

fn application() -> core::ops::Range<usize> {
    let start = LAYOUT.application.start as usize;
    start..start + LAYOUT.application.length as usize
}

/// What is wrong with the application at first.
fn damage(region: &mut [u8]) {
    region[5000] ^= 4;
}

#[cortex_m_rt::entry]
fn main() -> ! {
    // SAFETY: `main` runs once and nothing else names these statics; Argon2's blocks are integers, which it writes before
    // it reads them. Flash and copy are memory of their own that the linker knows nothing of.
    let (buffers, blocks, flash, copy) = unsafe {
        (
            &mut *addr_of_mut!(BUFFERS),
            (*addr_of_mut!(BLOCKS)).assume_init_mut(),
            core::slice::from_raw_parts_mut(FLASH_AT as *mut u8, FLASH_BYTES as usize),
            core::slice::from_raw_parts(COPY_AT as *const u8, FLASH_BYTES as usize),
        )
    };
    let Some(vendor) = stamp::vendor_key() else {
        hprintln!("sweep: was never stamped");
        fail();
    };
    let mut bench = Bench { vendor, flash, copy, buffers, blocks, starts: 0 };
    let (mut states, mut lost, mut at) = (0, 0, 0);
    'cuts: loop {
        for tear in Tear::ALL {
            bench.damage();
            if !bench.is_cut(Cut { at, tear }) {
                break 'cuts;
            }
            states += 1;
            if !bench.heals() {
                hprintln!("sweep: cut at {} ({:?}): not healed", at, tear);
                lost += 1;
            }
        }
        if at % SECOND_EVERY.0 == 0 {
            let (tried, failed) = second_cuts(&mut bench, at);
            states += tried;
            lost += failed;
        }
        at += 1;
    }
    hprintln!("sweep: {} operations", at);
    hprintln!("sweep: {} states, {} not healed, {} starts", states, lost, bench.starts);
    if lost > 0 || states == 0 {
        fail();
    }
    debug::exit(debug::EXIT_SUCCESS);
    idle()
}

/// Cuts the recovery after a cut at operation `at`; how many states that made, and how many of them did not heal.
fn second_cuts(bench: &mut Bench, at: u32) -> (u32, u32) {
    let (mut tried, mut lost) = (0, 0);
    let mut second = at % SECOND_EVERY.1;
    loop {
        bench.damage();
        bench.is_cut(Cut { at, tear: Tear::Half });
        let tear = Tear::ALL[(second % 3) as usize];
        if !bench.is_cut(Cut { at: second, tear }) {
            return (tried, lost);
        }
        tried += 1;
        if !bench.heals() {
            hprintln!("sweep: cut at {} and again at {} ({:?}): not healed", at, second, tear);
            lost += 1;
        }
        second += SECOND_EVERY.1;
    }
}

fn fail() -> ! {
    debug::exit(debug::EXIT_FAILURE);
    idle()
}

fn idle() -> ! {
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(why: &PanicInfo) -> ! {
    hprintln!("sweep: {}", why);
    fail()
}
