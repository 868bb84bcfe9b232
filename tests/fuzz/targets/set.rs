//! See `valgate_fuzz::set`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| valgate_fuzz::set(data));
