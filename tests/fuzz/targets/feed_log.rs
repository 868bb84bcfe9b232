//! See `valgate_fuzz::feed_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| valgate_fuzz::feed_log(data));
