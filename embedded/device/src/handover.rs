//! What bootstrap and application tell each other: a word of RAM that neither's start-up code clears, and that a reset
//! leaves as it is. After power-up it says anything: what the application asks for with it must do no harm when nobody did.

/// The bootstrap says: nothing.
pub const NOTHING: u32 = 0;
/// The bootstrap says: you are below the floors, fetch a newer one and do nothing else.
pub const RECOVER: u32 = 0x5245_434f;
/// The application says, and resets: there is a newer one in a backup slot, install it.
pub const INSTALL_NEWER: u32 = 0x4e45_5745;

/// Where it stands: behind the memory of both, as their `memory.x` say.
pub const AT: usize = 0x2000_fff8;

/// What was said.
///
/// # Safety
/// Only on the device, where this word is RAM and nobody else's.
pub unsafe fn read() -> u32 {
    // SAFETY: the caller's.
    unsafe { (AT as *const u32).read_volatile() }
}

/// Says it.
///
/// # Safety
/// As [`read`].
pub unsafe fn write(word: u32) {
    // SAFETY: the caller's.
    unsafe { (AT as *mut u32).write_volatile(word) }
}
