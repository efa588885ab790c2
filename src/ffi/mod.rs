//! The C face: convert, call, convert back. An export reads like a sentence, because reading
//! arguments, catching panics and mapping errors each live in one place.
//!
//! Conventions, for every export:
//! - a handle is looked up, never dereferenced;
//! - outputs are written on success alone, but for a handle output, which is NULL on failure;
//! - pointers that a caller passes are valid for what the header says of them, or NULL.

#![allow(non_camel_case_types)]
#![allow(clippy::missing_safety_doc)] // the header tells the callers, who are in C

mod camera;
mod cancel;
mod control_list;
mod device_list;
mod evict;
mod format_list;
mod frame;
mod handle;
mod holder_list;
mod library;
mod reset;
mod share;
mod signals;
mod status;
mod structs;
