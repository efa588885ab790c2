//! Any text as a `cameras.toml`.

#![no_main]

// A part of what the command has is used here.
#[allow(dead_code)]
#[path = "../../cli/src/serve/config/mod.rs"]
mod config;
#[allow(dead_code)]
#[path = "../../cli/src/naming.rs"]
mod naming;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::hostile::read(data));
