//! See `valgate_fuzz::feed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| valgate_fuzz::feed(data));
