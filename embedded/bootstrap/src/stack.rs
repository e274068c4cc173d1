//! How deep the stack has been: it was painted before `main`.

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// Bytes of the stack that were ever used; all of it where it may have run over.
pub fn most_used() -> usize {
    let (start, end) = (&raw const _stack_start, &raw const _stack_end);
    let mut at = end;
    // SAFETY: both symbols come from the linker, words of RAM are between them, and nobody else writes there meanwhile.
    while at < start && unsafe { at.read_volatile() } == cortex_m_rt::STACK_PAINT_VALUE {
        at = at.wrapping_add(1);
    }
    start as usize - at as usize
}
