//! The camera process.

#[allow(dead_code)] // until the camera process uses them
pub mod preview;
#[allow(dead_code)]
pub mod record;
