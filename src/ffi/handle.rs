//! Handles: pointers that point nowhere. One table for each kind.

use std::ffi::c_void;

use crate::error::{Error, Kind, Result};
use crate::fork;
use crate::slab::{Pin, Slab};

/// The things of one kind that the host has handles of.
pub struct Handles<T> {
    slab: Slab<Owned<T>>,
    /// What the handle is of, for messages.
    what: &'static str,
}

/// A thing and the process that it belongs to.
pub struct Owned<T> {
    thing: T,
    epoch: u64,
}

impl<T> std::ops::Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.thing
    }
}

impl<T> Handles<T> {
    pub const fn new(kind: u8, what: &'static str) -> Self {
        Handles { slab: Slab::new(kind), what }
    }

    /// A handle for `thing`, as the opaque type `H`.
    pub fn add<H>(&self, thing: T) -> Result<*mut H> {
        fork::watch(); // a list may be there before the first descriptor
        match self.slab.insert(Owned { thing, epoch: fork::epoch() }) {
            Ok(token) => Ok(std::ptr::without_provenance_mut(token as usize)),
            Err(_) => Err(Error::new(Kind::Internal, format!("a million handles of a {} are in use", self.what))
                .hint("does the host release what it gets?")),
        }
    }

    pub fn get<H>(&self, handle: *const H) -> Result<Pin<'_, Owned<T>>> {
        self.own(handle.cast(), self.slab.get(handle.addr() as u64))
    }

    /// Ends the handle; the thing lives until the last call that uses it returns.
    pub fn remove<H>(&self, handle: *mut H) -> Result<Pin<'_, Owned<T>>> {
        // A parent's handle stays, and goes on to tell whose it is.
        self.get(handle)?;
        self.own(handle.cast(), self.slab.remove(handle.addr() as u64))
    }

    /// Everything of this process that there is a handle of.
    pub fn each(&self) -> impl Iterator<Item = Pin<'_, Owned<T>>> {
        self.slab.each().map(|(_, pin)| pin).filter(|pin| pin.epoch == fork::epoch())
    }

    /// Room for `more` handles that will not allocate.
    pub fn reserve(&self, more: u32) {
        self.slab.reserve(more);
    }

    fn own<'a>(&self, handle: *const c_void, found: Option<Pin<'a, Owned<T>>>) -> Result<Pin<'a, Owned<T>>> {
        match found {
            Some(pin) if pin.epoch == fork::epoch() => Ok(pin),
            found => Err(self.refusal(handle, found.is_some())),
        }
    }

    #[cold]
    fn refusal(&self, handle: *const c_void, forked: bool) -> Error {
        let what = self.what;
        if forked {
            return Error::new(Kind::Forked, format!("this handle of a {what} belongs to the parent process"))
                .hint("open the camera in this process, once the parent has closed it");
        }
        if handle.is_null() {
            return Error::new(Kind::InvalidHandle, format!("NULL is no handle of a {what}"));
        }
        Error::new(Kind::InvalidHandle, format!("{handle:p} is no handle of a {what}"))
            .hint("it was closed or released, is of another kind, or never was one")
    }
}
