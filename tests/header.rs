//! include/camlease.h and include/camlease.symbols say what the code says. `make header` writes both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

const INTRODUCTION: &str = r#"/**
 * @file camlease.h
 * Managed camera handles: opens that wait for a busy camera and say who has it, release that cannot leak.
 *
 * Conventions, for every call:
 * - A call that can fail returns a camlease_status; 0 is success. Outputs come last and are written on success; on
 *   failure a handle output is set to NULL.
 * - camlease_last_error_message() tells the calling thread's last failure in words.
 * - A handle is never dereferenced before it was looked up: one that was closed, made up, or belongs to the parent
 *   of a forked process gives CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED, in every call, for ever.
 * - Any call may be made from any thread. One on a camera that is closed or shut down meanwhile gives
 *   CAMLEASE_CLOSED or CAMLEASE_SHUT_DOWN.
 * - Structs begin with struct_size and grow at their end only. Initialise them with their macro CAMLEASE_..._INIT;
 *   non-zero bytes past the end that the library knows are refused.
 * - Any integer may be passed for an enumerated value: one that is not known is CAMLEASE_INVALID_ARGUMENT.
 * - No signal handler is installed, unless camlease_release_on_signals() asks for it.
 * - camlease_camera_info and camlease_camera_stats are calls and structs: write "struct" before the structs' names.
 *
 * Generated from the sources; do not edit.
 */"#;

/// Structs that a host fills or reads, with their initialisers' values after struct_size.
const INITIALISERS: [(&str, &str); 13] = [
    ("open_options", "5000, 0, 0, NULL, 0, NULL, NULL, NULL, NULL, 0, 0, 0"),
    ("asker", "0, 0, 0, 0, 0, NULL"),
    ("reset_options", "10000"),
    ("stream_options", "0, 0, 0, 0, 0, 0, 0, 0"),
    ("camera_info", "NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"),
    ("camera_stats", "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"),
    ("share_options", "NULL, 0, 0, 0, 0, 0, 0, 0, NULL"),
    (
        "frame_data",
        "NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, { { NULL, 0, 0 }, { NULL, 0, 0 }, { NULL, 0, 0 }, { NULL, 0, 0 } }",
    ),
    ("device_info", "NULL, NULL, NULL, NULL, NULL, 0"),
    ("holder", "0, 0, 0, 0, NULL, NULL, 0, NULL, 0, 0, 0, NULL"),
    ("evict_options", "0, 2000, NULL, NULL"),
    ("format_info", "0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"),
    ("control_info", "0, 0, NULL, 0, 0, 0, 0, 0, 0"),
];

/// Types that C programs name without "struct". A call of the same name keeps the other two from it.
const TYPEDEFS: [&str; 20] = [
    "camera",
    "frame",
    "device_list",
    "holder_list",
    "format_list",
    "control_list",
    "cancel",
    "reply",
    "share_options",
    "asker",
    "open_options",
    "stream_options",
    "reset_options",
    "frame_data",
    "plane",
    "device_info",
    "holder",
    "evict_options",
    "format_info",
    "control_info",
];

/// What cbindgen cannot derive from the code.
fn additions() -> String {
    let mut text = String::new();
    for (name, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        let _ = writeln!(text, "/** Version of this header. camlease_version() tells the library's. */");
        let _ = writeln!(text, "#define CAMLEASE_VERSION_{name} {value}\n");
    }
    let _ = writeln!(text, "/** A V4L2 pixel format, as CAMLEASE_FOURCC('Y', 'U', 'Y', 'V'). */");
    let _ = writeln!(
        text,
        "#define CAMLEASE_FOURCC(a, b, c, d) \\\n    ((uint32_t)(a) | ((uint32_t)(b) << 8) | ((uint32_t)(c) << 16) | ((uint32_t)(d) << 24))\n"
    );
    for (name, values) in INITIALISERS {
        let _ = writeln!(text, "/** Initialiser of a struct camlease_{name}. */");
        let upper = name.to_ascii_uppercase();
        let _ = writeln!(text, "#define CAMLEASE_{upper}_INIT {{ sizeof(struct camlease_{name}), {values} }}\n");
    }
    for name in TYPEDEFS {
        let _ = writeln!(text, "typedef struct camlease_{name} camlease_{name}; /**< See the struct. */");
    }
    text
}

fn generated() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    config.header = Some(INTRODUCTION.into());
    config.after_includes = Some(format!("\n{}", additions()));
    let mut header = Vec::new();
    let files = std::fs::read_dir(root().join("src/ffi")).unwrap().map(|file| file.unwrap().path());
    // cbindgen follows the module declarations in it, and would see every file twice.
    let mut files: Vec<_> = files.filter(|file| !file.ends_with("mod.rs")).collect();
    files.sort();
    files
        .into_iter()
        .fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src)
        .generate()
        .expect("cbindgen understands src/ffi")
        .write(&mut header);
    let header = String::from_utf8(header).unwrap();
    // The code's markup, which Doxygen would show as it stands.
    header.replace('`', "")
}

fn compare_or_write(path: &Path, wanted: &str) {
    if std::env::var_os("CAMLEASE_WRITE_HEADER").is_some() {
        std::fs::write(path, wanted).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == wanted, "{} is not what the code says: run `make header` and commit it", path.display());
}

#[test]
fn the_header_is_generated_from_the_code() {
    compare_or_write(&root().join("include/camlease.h"), &generated());
}

#[test]
fn the_library_exports_the_listed_names_and_nothing_else() {
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libcamlease.so");
    let output = Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&library).output().unwrap();
    assert!(output.status.success(), "nm {}: {}", library.display(), String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<_> = table.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    compare_or_write(&root().join("include/camlease.symbols"), &(names.join("\n") + "\n"));
}
