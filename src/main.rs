//! The `valgate` binary; see the library for where things are.

fn main() {}
