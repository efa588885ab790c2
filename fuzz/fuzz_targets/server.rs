//! What clients send to a shared camera's process.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| camlease::hostile::server(data));
