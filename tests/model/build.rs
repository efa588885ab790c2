//! The protocol as it is, and with one thing in it spoilt: each becomes a module of the model.

use std::path::Path;

const RING: &str = "../../src/share/ring.rs";

/// What stands there, and what instead.
type Change = (&'static str, &'static str);

const MUTANTS: [(&str, &[Change]); 13] = [
    (
        "reader_without_barrier",
        &[("        // Either the writer sees this, or the stamp is gone.\n        fence(Ordering::SeqCst);\n", "")],
    ),
    (
        "writer_without_barrier",
        &[(
            "or it sees that the frame is gone.\n        fence(Ordering::SeqCst);\n",
            "or it sees that the frame is gone.\n",
        )],
    ),
    (
        "writer_looks_once",
        &[("        if is_held() {\n            stamp.store", "        if false {\n            stamp.store")],
    ),
    ("reader_looks_before", &[("if place.stamp.load(Ordering::Acquire) != number + 1 {", "if false {")]),
    (
        "stamp_taken_after_the_look",
        &[
            ("        stamp.store(0, Ordering::Relaxed);\n", ""),
            (
                "            stamp.store(number + 1, Ordering::Release);\n            return false;\n        }\n",
                "            return false;\n        }\n        stamp.store(0, Ordering::Relaxed);\n",
            ),
        ],
    ),
    (
        "bytes_shown_too_early",
        &[
            ("place.stamp.store(number + 1, Ordering::Release);", "place.stamp.store(number + 1, Ordering::Relaxed);"),
            (
                "header.head.store(self.published, Ordering::Release);",
                "header.head.store(self.published, Ordering::Relaxed);",
            ),
        ],
    ),
    (
        "another_held_too_early",
        &[(
            "control.held.store(self.held | bit, Ordering::Release);",
            "control.held.store(self.held | bit, Ordering::Relaxed);",
        )],
    ),
    (
        "released_too_early",
        &[(
            "bytes come before.\n        control.held.store(self.held, Ordering::Release);",
            "bytes come before.\n        control.held.store(self.held, Ordering::Relaxed);",
        )],
    ),
    (
        "published_without_barrier",
        &[("or it sees this frame.\n        fence(Ordering::SeqCst);\n", "or it sees this frame.\n")],
    ),
    (
        "waits_without_barrier",
        &[(
            "or what it published is seen here.\n        fence(Ordering::SeqCst);\n",
            "or what it published is seen here.\n",
        )],
    ),
    ("losses_not_counted", &[("saturating_add(number.saturating_sub(self.wanted) / every)", "saturating_add(0)")]),
    ("newest_goes", &[("number + 1 == self.published => continue,", "number > self.published => continue,")]),
    (
        "end_without_barrier",
        &[(
            "        fence(Ordering::SeqCst);\n        self.wanted.swap(0, Ordering::AcqRel) != 0",
            "        self.wanted.load(Ordering::Relaxed) != 0",
        )],
    ),
];

fn main() {
    println!("cargo::rerun-if-changed={RING}");
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
    let ring = std::fs::read_to_string(RING).expect("the protocol");
    // A module's own documentation cannot be included.
    let ring = ring.lines().skip_while(|line| line.starts_with("//!"));
    let ring = ring.map(|line| format!("{line}\n")).collect::<String>();
    let out = std::env::var("OUT_DIR").expect("cargo says where");
    let write = |name: &str, text: &str| {
        std::fs::write(Path::new(&out).join(name).with_extension("rs"), text).expect("written");
    };
    write("whole", &ring);
    let mut list = String::new();
    for (name, changes) in MUTANTS {
        let spoilt = changes.iter().fold(ring.clone(), |text, (stands, instead)| {
            assert_eq!(text.matches(stands).count(), 1, "{name}: this does not stand once in the protocol: {stands}");
            text.replace(stands, instead)
        });
        write(name, &spoilt);
        list += &format!("{name}, ");
    }
    write("mutants", &format!("mutants!({list});\n"));
}
