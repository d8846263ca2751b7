//! What the fuzz targets share: bounded memory, and input that is taken apart into numbers and bytes.

pub mod service;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is allocated, and stops what allocates far too much at once.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Run what reads input, and panic if it allocates more than this at any time.
pub fn within<T>(bytes_max: usize, run: impl FnOnce() -> T) -> T {
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let result = run();
    let used = PEAK_BYTES.load(Ordering::Relaxed).saturating_sub(before);
    assert!(
        used <= bytes_max,
        "{used} bytes are allocated, where {bytes_max} should do"
    );
    result
}

/// What a decoder may allocate for an input of this length: some copies of it, and room for fixed structures.
pub fn decoder_bytes_max(input: &[u8]) -> usize {
    64 * 1024 + 64 * input.len()
}

/// Input as a source of numbers and bytes, zeros after its end.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// A number below this.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u16()) % bound
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their number, of two bytes, before them.
    pub fn counted(&mut self) -> &'a [u8] {
        let count = usize::from(self.u16());
        self.take(count)
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }
}

/// A directory of this process, in memory where there is such a place.
pub fn scratch() -> PathBuf {
    let shared_memory = PathBuf::from("/dev/shm");
    let parent = if shared_memory.is_dir() {
        shared_memory
    } else {
        std::env::temp_dir()
    };
    let path = parent.join(format!("zetakv-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory");
    path
}
