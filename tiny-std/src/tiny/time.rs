//! A clock that never goes back.

use core::ops::Add;

pub use core::time::Duration;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    #[allow(unsafe_code)]
    pub fn now() -> Self {
        let mut now = [0_i64; 2];
        // SAFETY: room for the kernel's `timespec`, seconds and nanoseconds. It fails only for a clock that it does not know.
        unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now) };
        // The time since the computer's start: both are within their types.
        Self(Duration::new(now[0] as u64, now[1] as u32))
    }

    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, more: Duration) -> Self {
        Self(self.0.saturating_add(more))
    }
}
