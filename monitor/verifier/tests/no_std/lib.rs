//! Links the verifier where there is no standard library: any use of one, in the verifier or below it, would bring a second panic handler.

#![no_std]

extern crate alloc;
#[cfg(canary)]
extern crate std;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};

use zetakv_verifier::clocks::Clocks;
use zetakv_verifier::kv::KeyValue;
use zetakv_verifier::{Progress, StandardCrypto, ThreadConfig, Verifier};

struct NoMemory;

unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _pointer: *mut u8, _layout: Layout) {}
}

#[global_allocator]
static NO_MEMORY: NoMemory = NoMemory;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Uses a whole thread, so that all of it is compiled.
#[unsafe(no_mangle)]
pub extern "C" fn verify(log: *const u8, length: usize) -> bool {
    let log = unsafe { core::slice::from_raw_parts(log, length) };
    let config = ThreadConfig {
        thread: 0,
        slots: 1,
        certified_epoch: 0,
        root: Some(Default::default()),
        queue_bytes: 0,
    };
    let Some(clocks) = Clocks::new(0) else {
        return false;
    };
    let crypto = StandardCrypto::new([0; 32]);
    let verifier = Verifier::<_, KeyValue>::new(config, crypto, Default::default(), Arc::new(clocks));
    verifier.is_some_and(|mut verifier| verifier.process(log, &mut Vec::new()) == Progress::Done)
}
