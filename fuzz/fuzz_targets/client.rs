//! What a shared camera's process sends to a reader.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| camlease::hostile::client(data));
