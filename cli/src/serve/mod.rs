//! The camera process.

#[allow(dead_code)] // until the camera process uses it
pub mod record;
