use std::process::ExitCode;

fn main() -> ExitCode {
    give_large_buffers_back();
    audiohook_collector::run()
}

/// From this size on a buffer goes back to the system when it is freed, whatever was freed before.
///
/// By itself glibc raises that bound to the size of the largest buffer that was freed: pages of the history then come to lie
/// between small things, and what they took is kept for good.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_large_buffers_back() {
    const BYTES: i32 = 512 * 1024;
    // SAFETY: it takes two numbers, and no other thread is there yet.
    #[expect(unsafe_code, reason = "nothing safe sets it")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_buffers_back() {}
