//! Keeps the C library's allocator from holding on to memory per thread.

/// Transactions are allocated by the threads that read requests and freed by those that write
/// blocks. glibc gives threads arenas of their own, up to eight per core, and what is freed in one
/// is not used by another: under overload the resident memory grows for many minutes. Two are
/// enough for two handfuls of threads. Call before the first thread starts.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` only sets a parameter of the allocator; no other thread runs yet.
    unsafe {
        // Returns zero when it was refused: then memory is used less well, nothing else.
        let _ = libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
