//! Cameras that are opened, started, read and closed again and again leave nothing behind: descriptors, threads, mappings
//! and resident memory are the same after the last cycle as after the first few.
//!
//! The full run, 100,000 cycles: `CAMLEASE_CYCLES=100000 cargo test --test leaks -- --nocapture`

mod support;

use support::{cycles_leave_nothing, number};

fn cycles() -> u64 {
    number("CAMLEASE_CYCLES", 5_000)
}

#[test]
fn virtual_cameras_leave_nothing() {
    let uri = format!("virtual:cycles-{}?width=64&height=48&fps=1000", std::process::id());
    cycles_leave_nothing(&uri, cycles());
}
