//! The ring's protocol (src/share/ring.rs) in all interleavings of its threads, within a bound, and with all that a
//! memory model allows each load to see.
//!
//!   cargo run --manifest-path tests/model/Cargo.toml            all properties, and all mutants
//!   cargo run --manifest-path tests/model/Cargo.toml NAME       one of either: `whole` or a mutant
//!
//! LOOM_MAX_PREEMPTIONS (2) says how often threads are interrupted within an execution. A mutant is the protocol with one thing in it spoilt: the model has to see it, or it sees nothing.
//!
//! loom knows barriers of sequential consistency, and takes accesses of that kind for acquire and release alone: the
//! protocol has only the former.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

macro_rules! module {
    ($name:ident) => {
        // A mutant leaves some of it unused.
        #[allow(dead_code, unused_variables)]
        mod $name {
            mod sync {
                pub use crate::fence;
                pub use loom::sync::atomic::{AtomicU64, Ordering};
            }
            pub mod ring {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/properties.rs"));
        }
    };
}

module!(whole);

macro_rules! mutants {
    ($($name:ident,)*) => {
        $(module!($name);)*
        const NAMES: &[&str] = &["whole", $(stringify!($name)),*];
        fn properties(name: &str) -> Option<&'static [(&'static str, fn())]> {
            match name {
                "whole" => Some(whole::PROPERTIES),
                $(stringify!($name) => Some($name::PROPERTIES),)*
                _ => None,
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/mutants.rs"));

loom::lazy_static! {
    static ref BARRIERS: loom::sync::atomic::AtomicU64 = loom::sync::atomic::AtomicU64::new(0);
}

/// A barrier. loom lets no other thread in between an access and the barrier after it, and tries no other order of
/// barriers, unless they touch something.
pub fn fence(order: loom::sync::atomic::Ordering) {
    BARRIERS.fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
    loom::sync::atomic::fence(order);
}

/// Executions of the property that is looked at.
pub static EXECUTIONS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn run(name: &str) -> ExitCode {
    let Some(properties) = properties(name) else {
        eprintln!("there is no {name}: {}", NAMES.join(", "));
        return ExitCode::from(2);
    };
    let mut all = 0;
    for (property, check) in properties {
        let begun = Instant::now();
        println!("{name}: {property}");
        check();
        let executions = EXECUTIONS.swap(0, std::sync::atomic::Ordering::Relaxed);
        all += executions;
        println!("{name}: {property}: {executions} executions, {:.1} s", begun.elapsed().as_secs_f64());
    }
    println!("{name}: {} properties hold in {all} executions", properties.len());
    ExitCode::SUCCESS
}

/// Each in a process of its own: a model that fails may end it.
fn run_all() -> ExitCode {
    let myself = std::env::current_exe().expect("this program");
    let mut failed = false;
    for name in NAMES {
        let begun = Instant::now();
        let output = Command::new(&myself).arg(name).stdin(Stdio::null()).output().expect("this program again");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        if *name == "whole" {
            print!("{said}");
            if !output.status.success() {
                eprint!("{errors}");
            }
            failed |= !output.status.success();
            continue;
        }
        let property = said.lines().last().unwrap_or("").to_owned();
        let why = errors.lines().skip_while(|line| !line.contains("panicked")).nth(1).unwrap_or("").trim().to_owned();
        match output.status.success() {
            // What fails has to be the property, not the model.
            false if !why.is_empty() => println!("{property}: caught: {why} ({:.1} s)", begun.elapsed().as_secs_f64()),
            false => {
                failed = true;
                println!("{name}: broken:\n{errors}");
            }
            true => {
                failed = true;
                println!("{name}: NOT CAUGHT ({:.1} s)", begun.elapsed().as_secs_f64());
            }
        }
    }
    let caught = if failed { "the model failed" } else { "the protocol holds, and every mutant was caught" };
    println!("{caught}: {} mutants", NAMES.len() - 1);
    ExitCode::from(u8::from(failed))
}

fn main() -> ExitCode {
    match std::env::args().nth(1) {
        Some(name) => run(&name),
        None => run_all(),
    }
}
