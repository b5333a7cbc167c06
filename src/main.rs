use std::process::ExitCode;

fn main() -> ExitCode {
    return_large_buffers();
    audiohook_collector::run()
}

/// Makes glibc return every freed buffer of at least 512 KiB to the system.
///
/// By default, glibc raises this threshold to the size of the largest buffer freed so far. History pages then end up
/// between small allocations, and their memory is never returned.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_large_buffers() {
    const BYTES: i32 = 512 * 1024;
    // SAFETY: `mallopt` takes two integers, and no other thread is running yet.
    #[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn return_large_buffers() {}
