//! Parse, run, exit code.

/// A boot is some hundred small allocations on one thread that are freed on another, which the C library's own allocator
/// takes a third longer for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    kiwispray::cli::main()
}
