//! An allocator for one thread. What is small comes in sizes that are powers of two, and is given out again in the same size;
//! what is large is the kernel's, and goes back to it.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags};

/// Of the smallest pieces, as a power of two: 16 bytes.
const SMALLEST: u32 = 4;
/// Of the largest small pieces: 32 KiB.
const LARGEST: u32 = 15;
/// How much is asked of the kernel for small ones.
const ARENA_BYTES: usize = 64 << 10;
/// What the kernel aligns to, or more.
const PAGE_BYTES: usize = 4 << 10;

struct Memory(UnsafeCell<State>);

struct State {
    /// Pieces of each size that were given back; each begins with the address of the next.
    free: [*mut u8; (LARGEST - SMALLEST + 1) as usize],
    /// What is left of the arena.
    next: *mut u8,
    left: usize,
}

// SAFETY: the program has one thread, and no handler of a signal allocates.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory = Memory(UnsafeCell::new(State {
    free: [ptr::null_mut(); (LARGEST - SMALLEST + 1) as usize],
    next: ptr::null_mut(),
    left: 0,
}));

/// The power of two that holds a layout; `None`: it is large.
fn size(layout: Layout) -> Option<u32> {
    let bytes = layout.size().max(layout.align()).max(1 << SMALLEST);
    let power = usize::BITS - (bytes - 1).leading_zeros();
    (power <= LARGEST).then_some(power)
}

fn map(bytes: usize) -> *mut u8 {
    let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
    let mapped = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, protection, flags) };
    mapped.map_or(ptr::null_mut(), <*mut _>::cast)
}

// SAFETY: pieces never overlap: each comes from the arena once, or back from whoever had it, or is a mapping of its own. A piece
// is as large as its power of two, and aligned to that or to a page; no type here asks for more.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(power) = size(layout) else { return map(layout.size()) };
        // SAFETY: one thread, and nothing below calls back.
        let state = unsafe { &mut *self.0.get() };
        let free = &mut state.free[(power - SMALLEST) as usize];
        if let Some(piece) = NonNull::new(*free) {
            // SAFETY: a piece that was given back begins with the address of the next.
            *free = unsafe { piece.cast::<*mut u8>().read() };
            return piece.as_ptr();
        }
        let bytes = 1 << power;
        let mut skip = state.next.align_offset(bytes.min(PAGE_BYTES));
        if state.left < skip + bytes {
            (state.next, skip) = (map(ARENA_BYTES), 0);
            if state.next.is_null() {
                state.left = 0;
                return ptr::null_mut();
            }
            state.left = ARENA_BYTES;
        }
        let piece = state.next.wrapping_add(skip);
        state.next = piece.wrapping_add(bytes);
        state.left -= skip + bytes;
        piece
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some(power) = size(layout) else {
            // SAFETY: a mapping of this length, made by `alloc`. A failure leaves it in place, which harms nobody.
            let _ = unsafe { rustix::mm::munmap(piece.cast(), layout.size()) };
            return;
        };
        // SAFETY: one thread; the piece is not used any more, and has room for an address, aligned to 16 bytes.
        unsafe {
            let free = &mut (*self.0.get()).free[(power - SMALLEST) as usize];
            piece.cast::<*mut u8>().write(*free);
            *free = piece;
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller vouches.
        let piece = unsafe { self.alloc(layout) };
        // The kernel's pages are zero, and cost nothing until they are used.
        if !piece.is_null() && size(layout).is_some() {
            // SAFETY: a piece of at least this size.
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the size, which is not over what a layout may have.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        if size(layout).is_some() && size(layout) == size(wanted) {
            return piece;
        }
        // SAFETY: as the caller vouches; both pieces hold what is copied, and are two.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                ptr::copy_nonoverlapping(piece, new, layout.size().min(bytes));
                self.dealloc(piece, layout);
            }
            new
        }
    }
}
