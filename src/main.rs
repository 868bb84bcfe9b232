//! The `valgate` binary; see the library for where things are.

use std::process::ExitCode;

/// Less than half the instructions of the system's for what a request allocates (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    valgate::cli::main()
}
