//! No step, whatever it says, makes a device take more memory than one that it needs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use firmware_image::Digest;
use release_store::Step;
use release_store::manifest::{FileEntry, MAX_FILES, Manifest, ModuleEntry, Policy};
use serde::Serialize;

/// What a sealed step holds at most.
const STEP_BYTES: usize = 8 << 20;
/// What reading and applying one takes at most.
const ALLOWED_BYTES: usize = 40 << 20;

/// The system's allocator, with a count of what it gives.
struct Counted;

/// Bytes that are in use.
static USED: AtomicUsize = AtomicUsize::new(0);
/// The most that were.
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: all is the system allocator's own doing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How far the memory in use grows while `work` is done, in bytes. Memory that moves counts in both places.
fn growth<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let done = work();
    (done, PEAK.load(Ordering::Relaxed) - before)
}

fn old() -> Manifest {
    let file = |at: usize| FileEntry {
        path: format!("directory/{at:05}"),
        mode: 0o644,
        size: 1,
        stored_bytes: 40,
        sha256: Digest::of(&at.to_le_bytes()),
        policy: Policy::Managed,
        module: 0,
    };
    Manifest {
        product: "Acme Notes".into(),
        channel: "stable".into(),
        serial: 1,
        version: "1".into(),
        published: 0,
        modules: vec![ModuleEntry { id: "client".into(), version: "1".into() }],
        files: (0..1000).map(file).collect(),
        updaters: Vec::new(),
        ignore: Vec::new(),
        blind: [0; 16],
    }
}

/// The fields in front of the lists: from, serial, version, published, blind.
fn head() -> Vec<u8> {
    postcard::to_allocvec(&(1_u64, 2_u64, "2", 0_i64, [0_u8; 16])).unwrap()
}

fn encoded<T: Serialize>(fields: &T) -> Vec<u8> {
    [head(), postcard::to_allocvec(fields).unwrap()].concat()
}

/// A step that is cut to what may be sealed: a list in it says that it is as long as fits.
fn endless(in_front: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut step = [&head()[..], in_front].concat();
    let count = (STEP_BYTES - step.len() - 8) / entry.len();
    step.extend(postcard::to_allocvec(&count).unwrap());
    step.extend(entry.repeat(count));
    step.resize(STEP_BYTES, 0);
    step
}

#[test]
fn the_most_hostile_steps_are_refused_within_bounded_memory() {
    let old = old();
    // Copies of the first file, which are then renamed.
    let renames = |copies: usize, renames: Vec<(i32, u32, u32, u32, String)>| {
        let copied: Vec<i32> = (0..copies).map(|at| -i32::from(at > 0)).collect();
        encoded(&([0_u8; 4], copied, renames, [0_u8; 5]))
    };
    let places = |count: usize, patches: usize| {
        let patch = (vec![-1_i32; count], vec![0_i32], Vec::<()>::new());
        encoded(&([0_u8; 9], None::<()>, vec![patch; patches]))
    };
    let all = MAX_FILES as u32;
    let most = MAX_FILES - old.files.len();
    let cases = [
        ("modules", "longer than a reader takes", endless(&[1], &[0, 0])),
        ("updaters", "longer than a reader takes", endless(&[0, 1], &[0; 37])),
        ("patterns", "longer than a reader takes", endless(&[0, 0, 1], &[0])),
        ("removed", "longer than a reader takes", endless(&[0; 3], &[0])),
        ("copied", "longer than a reader takes", endless(&[0; 4], &[0])),
        ("renamed", "longer than a reader takes", endless(&[0; 5], &[0; 5])),
        ("changed", "longer than a reader takes", endless(&[0; 6], &[0; 35])),
        ("altered", "longer than a reader takes", endless(&[0; 7], &[0; 5])),
        ("added", "longer than a reader takes", endless(&[0; 8], &[0; 38])),
        ("patches", "longer than a reader takes", endless(&[0; 10], &[0; 3])),
        ("sources", "longer than a reader takes", endless(&[&[0; 10][..], &[1]].concat(), &[0])),
        ("places", "more contents than", places(65_536, 120)),
        ("places, a little over a half of what a list may have", "more contents than", places(32_769, 255)),
        ("paths of copies", "the bytes of its paths", renames(most, vec![(0, all, 0, 0, "x".repeat(600))])),
        ("a path", "longer than", renames(0, vec![(0, 1, 0, 0, "x".repeat(STEP_BYTES - 100))])),
    ];
    for (what, reason, step) in cases {
        assert!(step.len() <= STEP_BYTES, "{what}");
        let (result, grown) = growth(|| Step::decode(&step).and_then(|step| step.manifest(&old)));
        let error = result.unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
        assert!(grown <= ALLOWED_BYTES, "{what}: {grown} bytes");
    }
}
