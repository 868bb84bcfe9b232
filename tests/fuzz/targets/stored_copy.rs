//! See `valgate_fuzz::stored_copy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| valgate_fuzz::stored_copy(data));
