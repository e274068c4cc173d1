//! Digests of many files: one after the other, or on several threads where the zone allows it.

use std::sync::atomic::{AtomicUsize, Ordering};

use firmware_image::free_zone::FreeZone;
use firmware_image::{Digest, ZoneError};

use crate::host::Watch;
use crate::zone_io::{BUFFER_BYTES, digest_file};

/// What a file came to: its length and digest, `None` where there is no regular file.
pub type Hashed = Result<Option<(u64, Digest)>, ZoneError>;

/// Computes the digests of files, in the order of `paths`.
pub type HashFiles<F> = fn(&F, &[String], &dyn Watch) -> Vec<Hashed>;

/// The most threads: more do not help a USB stick, and take memory.
const MAX_THREADS: usize = 4;

/// One file after the other.
pub fn sequential<F: FreeZone>(zone: &F, paths: &[String], watch: &dyn Watch) -> Vec<Hashed> {
    let mut buffer = vec![0; BUFFER_BYTES];
    paths.iter().map(|path| digest_file(zone, path, &mut buffer, &|n| watch.advance(n))).collect()
}

/// On as many threads as the machine has processors, up to four.
pub fn parallel<F: FreeZone + Sync>(zone: &F, paths: &[String], watch: &dyn Watch) -> Vec<Hashed> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS).min(paths.len());
    if threads <= 1 {
        return sequential(zone, paths, watch);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(at) else { return done };
            done.push((at, digest_file(zone, path, &mut buffer, &|n| watch.advance(n))));
        }
    };
    let mut all: Vec<Hashed> = paths.iter().map(|_| Ok(None)).collect();
    std::thread::scope(|scope| {
        // Where there is no memory for another thread, fewer do it.
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let workers: Vec<_> = (1..threads).map_while(start).collect();
        let mut results = work();
        for worker in workers {
            match worker.join() {
                Ok(part) => results.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        for (at, hashed) in results {
            all[at] = hashed;
        }
    });
    all
}
