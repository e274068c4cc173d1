//! The bootstrap on a microcontroller: checks the application, restores it where it must, and jumps to it.
#![no_std]
#![no_main]

use core::cell::RefCell;
use core::panic::PanicInfo;
use core::ptr::addr_of_mut;

use cortex_m::peripheral::SCB;
use cortex_m_semihosting::debug;
use firmware_image::stamp;
use holdfast_device::flash::SimFlash;
use holdfast_device::handover;
use holdfast_device::start::{Blocks, Buffers, start};
use holdfast_device::table::{FLASH_BYTES, LAYOUT};

mod say;
mod stack;

use say::Line;

/// Where the processor sees the device's flash.
const FLASH_AT: usize = 0x2100_0000;

/// No interrupt is ever enabled here; the linker script wants one.
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(no_mangle)]
static __INTERRUPTS: [usize; 1] = [0];

static mut BUFFERS: Buffers = Buffers::new();
#[unsafe(link_section = ".blocks")]
static mut BLOCKS: core::mem::MaybeUninit<Blocks> = core::mem::MaybeUninit::uninit();

#[cortex_m_rt::entry]
fn main() -> ! {
    // SAFETY: `main` runs once and nothing else names these statics; Argon2's blocks are integers, which it writes before
    // it reads them. The device's flash is memory of its own that the linker knows nothing of.
    let (buffers, blocks, memory) = unsafe {
        let memory = core::slice::from_raw_parts_mut(FLASH_AT as *mut u8, FLASH_BYTES as usize);
        (&mut *addr_of_mut!(BUFFERS), (*addr_of_mut!(BLOCKS)).assume_init_mut(), memory)
    };
    let Some(vendor) = stamp::vendor_key() else { refuse("was never stamped") };
    let flash = RefCell::new(SimFlash::new(memory, None));
    // SAFETY: the word is behind this program's memory.
    let wants_newer = unsafe { handover::read() } == handover::INSTALL_NEWER;
    let settled = start(&flash, vendor, buffers, blocks, wants_newer, &mut |place, fault| {
        Line::begin(say::place(place)).text(": ").text(say::fault(fault)).end();
    });
    Line::begin("stack ").number(stack::most_used()).text(" bytes").end();
    match settled {
        Ok(settled) => {
            let line = Line::begin("application ").version(settled.claim.version);
            match settled.restored_from {
                Some(from) => line.text(" restored from ").text(say::place(from)).end(),
                None => line.text(" is sound").end(),
            }
            Line::begin("").number(flash.borrow().operations() as usize).text(" flash operations").end();
            let vectors = (FLASH_AT + LAYOUT.application.start as usize) as *const u32;
            // SAFETY: the word is behind this program's memory. What stands in the region was verified: an application for this
            // device begins with its vector table, at a multiple of what VTOR can say.
            unsafe {
                handover::write(if settled.recover { handover::RECOVER } else { handover::NOTHING });
                (*SCB::PTR).vtor.write(vectors as u32);
                cortex_m::asm::bootload(vectors)
            }
        }
        Err(_) => refuse("nothing may run"),
    }
}

/// Nothing can be started. A product would signal it, and wait to be programmed.
fn refuse(why: &str) -> ! {
    Line::begin(why).end();
    debug::exit(debug::EXIT_FAILURE);
    loop {
        cortex_m::asm::wfi();
    }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    refuse("panicked")
}
