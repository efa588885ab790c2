#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("camlease is for 64-bit Linux");

mod acquire;
mod backend;
mod camera;
mod error;
mod evict;
mod exit;
mod ffi;
mod fork;
mod format;
mod frame;
mod holders;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod kernel;
mod lease;
mod memory;
mod policy;
mod process;
mod share;
mod signals;
mod slab;
mod timed;
mod uri;
mod worker;

pub use acquire::OnWait;
pub use backend::{Found, Identity, State, list};
pub use camera::{Access, Camera, OnBusy, OpenOptions, Stats, formats, holders, reset, shut_down};
pub use error::{Error, Kind, Result};
pub use evict::{EvictOptions, Evicted, Outcome, evict};
pub use exit::{set_timeout as set_shutdown_timeout, timeout as shutdown_timeout};
pub use format::{Control, ControlKind, DropPolicy, Format, FourCc, Rate, StreamFormat, StreamRequest};
pub use frame::Frame;
pub use holders::{Activity, Condition, Holder, Holders};
pub use kernel::Event;
pub use lease::{Answer, Asker, LastExit, OnAsk, Record, tidy};
pub use share::{
    Allowed, Commands, LateAnswer, Publisher, Served, ShareInfo, ShareOptions, ShareStart, command, shares, wire::Map,
};
pub use signals::release_on_signals;
