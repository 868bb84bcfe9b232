//! See `valgate_fuzz::signed_feed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| valgate_fuzz::signed_feed(data));
