//! See `valgate_fuzz::feed_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| valgate_fuzz::feed_line(data));
