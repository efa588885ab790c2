//! How a camera is opened that may be shared: itself, or by way of the process that shares it.

use std::path::{Path, absolute};
use std::time::{Duration, Instant};

use super::spawn::{Spawned, Wanted, name_of};
use crate::acquire::{self, Entry};
use crate::backend::shared::Shared;
use crate::backend::{self, Device, Notice, Port, Source};
use crate::camera::{Access, OpenOptions};
use crate::error::{Error, Kind, Result};
use crate::format::Format;
use crate::holders::Holders;
use crate::kernel::{self, Event, Fd, poll, readable};
use crate::lease::{self, Filing};
use crate::policy;
use crate::share::link::serving;
use crate::uri::Uri;

/// Where a camera is to be had.
pub fn source<'a>(uri: &str, options: &OpenOptions<'a>) -> Result<Box<dyn Source + 'a>> {
    let monitor = options.access == Access::Monitor;
    let parsed = Uri::parse(uri)?;
    if let Uri::Shared(name) = &parsed {
        return Ok(Box::new(Shared::new(name)?.for_reader(&options.name, monitor)));
    }
    let itself = backend::source(&parsed)?;
    if options.access == Access::Exclusive {
        return Ok(itself);
    }
    let (uri, reader) = (absolute_uri(uri, &parsed), options.name.clone());
    let camera = Wanted { uri, priority: options.priority };
    let patience = options.timeout.map_or(policy::SHARE_SPAWN, |timeout| timeout.min(policy::SHARE_SPAWN));
    let patience = patience.max(policy::SHARE_SPAWN_LEAST);
    Ok(Box::new(Sharing { itself, camera, reader, monitor, patience, cancel: options.cancel, until: None }))
}

/// A camera process does not stay in this one's folder.
fn absolute_uri(uri: &str, parsed: &Uri) -> String {
    match parsed {
        Uri::V4l2(path) => absolute(path).map_or_else(|_| uri.to_owned(), |path| format!("v4l2:{}", path.display())),
        Uri::File(options) => match absolute(Path::new(&options.target)) {
            Ok(path) => uri.replacen(&options.target, &path.display().to_string(), 1),
            Err(_) => uri.to_owned(),
        },
        _ => uri.to_owned(),
    }
}

/// A camera that is read through the process that shares it.
struct Sharing<'a> {
    itself: Box<dyn Source>,
    camera: Wanted,
    reader: String,
    monitor: bool,
    /// How long a process may take that is to share it.
    patience: Duration,
    cancel: Option<&'a Event>,
    /// Until when there will be attempts.
    until: Option<Instant>,
}

impl Sharing<'_> {
    /// By which name it is shared, if it is.
    fn name(&self) -> Option<String> {
        let filings = self.itself.filings();
        if !filings.is_empty() {
            return lease::find(&filings).into_iter().find_map(|found| found.record.share);
        }
        // Of a kind without leases. Another user may offer anything by its name.
        let name = self.own_name();
        serving(&name).filter(|found| [0, kernel::effective_user()].contains(&found.uid)).map(|_| name)
    }

    /// The name by which it will be shared.
    fn own_name(&self) -> String {
        name_of(self.itself.filings().first().map_or(&self.camera.uri, |filing| &filing.key))
    }

    fn attach(&self, name: &str) -> Result<Box<dyn Device>> {
        // One that somebody shares by a name of his own is that one's affair.
        let served_by = (!self.monitor && name == self.own_name()).then(|| self.camera.clone());
        let mut shared = Shared::named(name).for_reader(&self.reader, self.monitor).served_by(served_by);
        shared.will_wait(self.until, self.cancel)?;
        shared.acquire().map_err(|error| match error.kind() {
            // It has let go, or will in a moment.
            Kind::NotFound | Kind::Disconnected => Error::new(Kind::Busy, error.message()),
            _ => error,
        })
    }

    /// Has a process of its own share it.
    fn serve(&mut self) -> Result<Box<dyn Device>> {
        // Whether it can be had, and who has it if not: by this, and not by a new process each time.
        drop(self.itself.acquire()?);
        let name = self.own_name();
        let mut spawned = Spawned::start(&self.camera, &name, policy::SHARE_SPAWNED_OPEN.min(self.patience))?;
        let (deadline, shutdown) = (Instant::now() + self.patience, Entry::new()?);
        loop {
            if let Some(report) = spawned.report() {
                return report.and_then(|()| self.attach(&name));
            }
            let mut fds = vec![readable(spawned.fd()), readable(shutdown.event.fd())];
            fds.extend(self.cancel.map(|event| readable(event.fd())));
            let came = poll(&mut fds, Some(deadline))
                .map_err(|error| Error::system(format!("{}: waiting for its process", self.camera.uri), error))?;
            acquire::refuse_when_shut_down(&self.camera.uri)?;
            if fds.get(2).is_some_and(|cancel| cancel.revents != 0) {
                return Err(Error::new(Kind::Closed, format!("{}: the wait for it was cancelled", self.camera.uri)));
            }
            if !came {
                let message = format!("{}: the process that was to share it does not answer", self.camera.uri);
                return Err(Error::new(Kind::Timeout, message).hint("its driver may hang: see camlease doctor"));
            }
        }
    }
}

impl Source for Sharing<'_> {
    fn will_wait(&mut self, until: Option<Instant>, cancel: Option<&Event>) -> Result<()> {
        self.until = until;
        self.itself.will_wait(until, cancel)
    }

    fn acquire(&mut self) -> Result<Box<dyn Device>> {
        match self.name() {
            Some(name) => self.attach(&name),
            None if self.monitor => Err(Error::new(Kind::NotFound, format!("{}: nobody shares it", self.camera.uri))
                .hint("share it (camlease serve, camlease_share_start), or open it with access shared")),
            None => self.serve(),
        }
    }

    /// That of the camera itself; and a name that is put up.
    fn notice(&mut self) -> Result<Notice> {
        let mut notice = self.itself.notice()?;
        notice.folders.extend(lease::folders());
        Ok(notice)
    }

    fn holders(&self) -> Holders {
        self.itself.holders()
    }

    fn filings(&self) -> Vec<Filing> {
        self.itself.filings()
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        self.itself.port()
    }

    fn receive(&mut self, camera: Fd) -> Result<Box<dyn Device>> {
        // It is free by that, and a process of its own takes it.
        drop(self.itself.receive(camera)?);
        self.serve()
    }

    fn formats(&self) -> Result<Vec<Format>> {
        self.itself.formats()
    }
}
