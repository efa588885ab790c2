//! The ring's words, written by anybody: a reader's view of them, and a writer's.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| camlease::hostile::ring(data));
