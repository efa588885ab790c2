//! Commands to a camera process that the library does not know itself.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::EventFd;
use serde_json::{Map, Value};

pub struct Desk {
    /// Wakes the worker's main thread.
    wake: EventFd,
    quits: AtomicBool,
}

impl Desk {
    pub fn new(wake: EventFd) -> Desk {
        Desk { wake, quits: AtomicBool::new(false) }
    }

    pub fn command(&self, verb: &str, _request: &Map<String, Value>) -> Option<camlease::Result<Map<String, Value>>> {
        match verb {
            "quit" => {
                self.quits.store(true, Ordering::SeqCst);
                let _ = self.wake.write(1);
                Some(Ok(Map::new()))
            }
            _ => None,
        }
    }

    /// What is added to the answer to "status".
    pub fn status(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Whether somebody told the process to end.
    pub fn quits(&self) -> bool {
        self.quits.load(Ordering::SeqCst)
    }
}
