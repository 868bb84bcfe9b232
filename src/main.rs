//! The `valgate` binary; see the library for where things are.

use std::process::ExitCode;

fn main() -> ExitCode {
    valgate::cli::main()
}
