//! The C library's SONAME: plain cargo sets none.

fn main() {
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap();
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcamlease.so.{major}");
    println!("cargo:rerun-if-changed=build.rs");
}
