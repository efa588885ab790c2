//! A camera that is shared: the stream is the share's, all else stays the host's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Camera, ENDS, Shared, is_final};
use crate::error::{Error, Kind, Result};
use crate::format::{Control, Format, StreamFormat, StreamRequest};
use crate::frame::Frame;
use crate::lease::Lease;
use crate::share::wire::Map;
use crate::share::{Feed, Lending, Share, ShareInfo, ShareOptions};
use crate::{fork, policy, signals, timed};

impl Camera {
    /// Shares the camera: other processes, and this one, read it as `shared:NAME`, until it is closed or no longer
    /// shared. Its stream is the share's meanwhile.
    pub fn share(&self, options: ShareOptions) -> Result<()> {
        let _inside = signals::inside();
        let shared = &self.shared;
        shared.check()?;
        // What is got back for a share is the camera of that name; of this one it would be taken from its own share.
        if let Some(name) = shared.identity.uri.strip_prefix("shared:") {
            let name = name.split('?').next().unwrap_or(name);
            let message = format!("{}: it is shared already, by another process", shared.identity.uri);
            return Err(Error::new(Kind::Unsupported, message).hint(format!("have the readers open shared:{name}")));
        }
        if shared.is_shared.swap(true, Ordering::SeqCst) {
            return Err(shared.wrong_state("it is shared already"));
        }
        let begun = (|| {
            // A start of the host's came before, and is seen here, or sees that the camera is shared. Before the share has
            // its place: a driver that does not return keeps nobody waiting but this thread.
            if timed::lock(&shared.stream).stream.is_some() {
                return Err(shared
                    .wrong_state("it streams")
                    .hint("stop it first: a shared camera is started by its readers"));
            }
            let feed: Arc<dyn Feed> = shared.clone();
            Share::begin(options, shared.identity.clone(), Some(Arc::downgrade(&feed)))
        })();
        let share = begun.inspect_err(|_| shared.is_shared.store(false, Ordering::SeqCst))?;
        shared.put_share(share);
        shared.tell_share();
        // A close that came meanwhile found none to end.
        let Err(ended) = shared.check() else { return Ok(()) };
        match shared.take_share() {
            Some(share) => shared.end_share(share)?,
            None => shared.is_shared.store(false, Ordering::SeqCst),
        }
        Err(ended)
    }

    /// Shares it no longer: readers see that it is gone. It does not stream then. `Kind::Timeout` where a driver does not
    /// return: until it does, and this is called again, the stream is the share's.
    pub fn unshare(&self) -> Result<()> {
        let _inside = signals::inside();
        let shared = &self.shared;
        if shared.epoch != fork::epoch() {
            return Err(shared.refusal(0));
        }
        let share = shared.take_share().ok_or_else(|| shared.wrong_state("it is not shared"))?;
        shared.end_share(share)
    }

    pub fn share_info(&self) -> Option<ShareInfo> {
        timed::lock(&self.shared.share).as_ref().filter(|share| share.is_own()).map(Share::info)
    }

    /// Sends a command to the process that shares the camera; its answer. On the handle of the one who shares it, "status"
    /// alone is known.
    pub fn command(&self, request: Map, timeout: Duration) -> Result<Map> {
        if let Some(share) = timed::lock(&self.shared.share).as_ref().filter(|share| share.is_own()) {
            return match request.get("do").and_then(|verb| verb.as_str()) {
                Some("status") => Ok(share.status()),
                _ => Err(self.shared.wrong_state("commands to a camera that this process shares go to shared:NAME")),
            };
        }
        self.shared.with_device(|device| device.command(request, timeout))
    }
}

impl Shared {
    /// Whether the host may stream.
    pub(super) fn is_the_hosts(&self) -> Result<()> {
        match self.is_shared.load(Ordering::Relaxed) && self.check().is_ok() {
            false => Ok(()),
            true => Err(self.is_the_shares()),
        }
    }

    #[cold]
    fn is_the_shares(&self) -> Error {
        let name = timed::lock(&self.share).as_ref().map(|share| share.name().to_owned()).unwrap_or_default();
        self.wrong_state(&format!("it is shared as \"{name}\"")).hint(format!("open shared:{name} to read it"))
    }

    /// Not to be dropped under a lock: that waits for its threads.
    pub(super) fn take_share(&self) -> Option<Share> {
        timed::lock(&self.share).take()
    }

    pub(super) fn take_share_by(&self, deadline: Instant) -> Option<Share> {
        timed::lock_by(&self.share, Some(deadline))?.take()
    }

    fn put_share(&self, share: Share) {
        let mut place = timed::lock(&self.share);
        // Its thread may have begun to stream while there was no share to tell so.
        share.set_streaming(self.share_streams.load(Ordering::SeqCst));
        *place = Some(share);
    }

    /// Tells in the camera's lease by what name it is shared now.
    fn tell_share(&self) {
        if let Some(lease) = timed::lock(&self.lease).as_ref() {
            self.tell_share_in(lease);
        }
    }

    /// With the lease's lock: whoever comes last tells what is so.
    pub(super) fn tell_share_in(&self, lease: &Lease) {
        let share = timed::lock(&self.share);
        lease.set_share(share.as_ref().filter(|share| share.is_open()).map(Share::name));
    }

    /// Ends a share that was taken out of its place. It is put back where one of its threads does not return.
    fn end_share(&self, mut share: Share) -> Result<()> {
        self.tell_share();
        if share.try_end(Instant::now() + policy::HAND_OVER_END) {
            drop(share);
            self.is_shared.store(false, Ordering::SeqCst);
            return Ok(());
        }
        let name = share.name().to_owned();
        self.put_share(share);
        // A close that came meanwhile found none to end.
        if is_final(self.ended.load(Ordering::SeqCst)) {
            drop(self.take_share());
        }
        let message = format!(
            "{}: nobody reads it as shared:{name} any more, but its driver does not return to the thread that streams",
            self.identity.uri
        );
        Err(Error::new(Kind::Timeout, message).hint("call it again: the stream is the host's when that gives OK"))
    }

    /// The device is gone from under a camera that had not ended.
    fn lose(&self, reason: &Error) {
        *timed::lock(&self.lost) = reason.what().to_owned();
        if self.mark_ended(Kind::Disconnected) {
            let device = self.take_device(None, false);
            // First: another holder's lease must not stand beside it.
            drop(self.take_lease());
            drop(device);
        }
    }
}

impl Feed for Shared {
    fn formats(&self) -> Result<Vec<Format>> {
        self.with_device(|device| device.formats())
    }

    fn controls(&self) -> Result<Vec<Control>> {
        self.with_device(|device| device.controls())
    }

    fn control(&self, id: u32) -> Result<i64> {
        self.with_device(|device| device.control(id))
    }

    fn set_control(&self, id: u32, value: i64) -> Result<()> {
        self.with_device(|device| device.set_control(id, value))
    }

    fn begin(&self, request: &StreamRequest) -> Result<StreamFormat> {
        let format = self.start(request, |_| Ok(()))?;
        self.tell_sharing(true);
        Ok(format)
    }

    fn may_lend(&self) -> bool {
        self.with_device(|device| Ok(device.may_export())).unwrap_or(false)
    }

    fn lend(&self) -> Option<Lending> {
        let running = self.lock_stream().ok()?;
        let buffers = running.stream.as_ref()?.export();
        (!buffers.is_empty()).then(|| Lending { buffers, round: self.round.load(Ordering::Relaxed) })
    }

    fn end(&self) -> Result<()> {
        self.tell_sharing(false);
        self.stop(|_| Ok(()))
    }

    fn next(self: Arc<Self>, timeout: Duration) -> Result<Frame> {
        self.next_frame(Some(timeout))
    }

    fn recover(self: Arc<Self>, reason: &Error, timeout: Duration) -> Result<()> {
        if self.ended.load(Ordering::SeqCst) == 0 {
            self.lose(reason);
        }
        match self.ended.load(Ordering::SeqCst) {
            0 => Ok(()),
            end if usize::from(end) > ENDS.len() => Err(self.refusal(end)),
            _ => self.regain_within(Some(timeout)),
        }
    }
}

impl Shared {
    fn tell_sharing(&self, streams: bool) {
        let place = timed::lock(&self.share);
        self.share_streams.store(streams, Ordering::SeqCst);
        if let Some(share) = place.as_ref() {
            share.set_streaming(streams);
        }
    }
}
