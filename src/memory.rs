//! The program's memory: mimalloc, and a count of the bytes that each thread holds, so that a growing script is seen at its
//! next step.
#![expect(unsafe_code, reason = "an allocator can't be written without; each call is passed on as it is")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::{c_int, c_long};

use mimalloc::MiMalloc;

thread_local! {
    // Without a destructor and without an allocation of its own, and so fit for an allocator. What one thread takes and
    // another gives back makes it less than nothing there.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// The bytes that this thread has taken and not given back.
pub fn held() -> u64 {
    u64::try_from(HELD.get()).unwrap_or(0)
}

struct Counting(MiMalloc);

#[global_allocator]
static ALLOCATOR: Counting = Counting(MiMalloc);

/// `mi_option_arena_eager_commit` of mimalloc.h.
const ARENA_EAGER_COMMIT: c_int = 4;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Has the memory taken from the system as it is needed. By default it is a gigabyte at once that is marked as good for huge
/// pages, of which the kernel makes, now and then, 2 MiB of each place that is in use a little: a server's memory grows by
/// a third, in steps.
extern "C" fn take_as_needed() {
    // SAFETY: mimalloc takes options at any time, also before it is used.
    unsafe { mi_option_set(ARENA_EAGER_COMMIT, 0) }
}

/// Before `main`, since the runtime takes memory before it too.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = take_as_needed;

fn come(size: usize) {
    HELD.set(HELD.get().wrapping_add_unsigned(size));
}

fn gone(size: usize) {
    HELD.set(HELD.get().wrapping_sub_unsigned(size));
}

// SAFETY: every call goes to mimalloc with the caller's own arguments, and what it answers is given back as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        come(layout.size());
        // SAFETY: the caller keeps to what `GlobalAlloc::alloc` asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        gone(layout.size());
        // SAFETY: the caller keeps to what `GlobalAlloc::dealloc` asks for.
        unsafe { self.0.dealloc(piece, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        come(layout.size());
        // SAFETY: the caller keeps to what `GlobalAlloc::alloc_zeroed` asks for.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps to what `GlobalAlloc::realloc` asks for.
        let moved = unsafe { self.0.realloc(piece, layout, size) };
        if !moved.is_null() {
            gone(layout.size());
            come(size);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_taken_as_it_is_needed() {
        unsafe extern "C" {
            fn mi_option_get(option: c_int) -> c_long;
        }
        // SAFETY: it only reads.
        assert_eq!(unsafe { mi_option_get(ARENA_EAGER_COMMIT) }, 0);
        let folder = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let huge = folder.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
        let setting =
            std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        if setting.contains("[madvise]") {
            assert_eq!(huge.map(str::trim), Some("0 kB"));
        }
    }

    #[test]
    fn what_a_thread_holds_is_counted() {
        // What others have given to this thread makes it less than nothing at first.
        let base = vec![0_u8; 1 << 20];
        let before = super::held();
        let mut bytes: Vec<u8> = Vec::with_capacity(1000);
        assert_eq!(super::held(), before + 1000);
        bytes.resize(10, 1);
        bytes.shrink_to_fit();
        assert_eq!(super::held(), before + 10);
        let zeroes = vec![0_u8; 500];
        assert_eq!(super::held(), before + 510);
        drop((bytes, zeroes));
        assert_eq!(super::held(), before);
        drop(base);
    }
}
