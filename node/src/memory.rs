//! Keeps the C library's allocator from holding on to memory.

/// From this size on an allocation is a mapping of its own, which freeing gives back to the system.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;
/// More free memory than this at the end of a heap is given back.
#[cfg(target_env = "gnu")]
const KEPT_AT_THE_END: libc::c_int = 256 << 10;

/// Bounds what the allocator keeps. Call before the first thread starts.
///
/// Transactions are allocated by the threads that read requests and freed by those that write
/// blocks. glibc gives threads arenas of their own, up to eight per core, and what is freed in one
/// is not used by another: two are enough for two handfuls of threads. Unless told otherwise it
/// also raises the size from which allocations are mapped, up to 32 MiB, once one of that size was
/// freed; blocks, batches and write buffers then lie between small things that live longer, and
/// under overload the resident memory grows for as long as anybody looks (`docs/chaos.md`).
pub fn hold_little() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` only sets a parameter of the allocator; no other thread runs yet.
    unsafe {
        // Each returns zero when it was refused: then memory is used less well, nothing else.
        let _ = libc::mallopt(libc::M_ARENA_MAX, 2);
        let _ = libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        let _ = libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_THE_END);
    }
}
