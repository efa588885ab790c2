//! The camera process that the library starts for a program that opens a camera as a shared one: it opens it, says how that
//! went, and shares it until its last user has gone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camlease::{Camera, Error, Event, FourCc, Kind, OpenOptions, Rate};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{ForkResult, fork, setsid};
use serde_json::json;

use super::config::{self, Drop, Start, Who};
use super::desk::Desk;
use super::journal::{self, Level, say};
use super::last_resort::LastResort;
use super::sharing;
use crate::naming;
use crate::output::Exit;
use crate::signals::{Signals, wait};

/// How long nobody has to be connected before it ends.
const LINGER: Duration = Duration::from_secs(1);

/// How long the first one may take to come, once it was told that the camera is shared.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);

/// How often it is looked whether somebody is connected.
const LOOK: Duration = Duration::from_millis(200);

/// A driver that did not return for so long hangs. Nobody replaces this process, but its users start another one.
const HANG: Duration = Duration::from_secs(5);

/// How long its end may take.
const END: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Serves this camera alone, away from whoever started it, until its last user has gone
    #[arg(long, hide = true, value_name = "URI", requires_all = ["share", "report_fd"], conflicts_with = "check")]
    pub detached: Option<String>,
    #[arg(long, hide = true, value_name = "NAME", requires = "detached")]
    share: Option<String>,
    /// Where it says how the open went, in one line of JSON; whoever hangs up there cancels the open
    #[arg(long, hide = true, value_name = "FD", requires = "detached")]
    report_fd: Option<RawFd>,
    /// How long it waits for the camera: milliseconds, or with a unit; without it, as long as it takes
    #[arg(long, hide = true, value_name = "TIME", requires = "detached", value_parser = milliseconds)]
    timeout: Option<Duration>,
    #[arg(long, hide = true, requires = "detached", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    #[arg(long, hide = true, value_name = "WxH", requires = "detached", value_parser = naming::size)]
    size: Option<(u32, u32)>,
    #[arg(long, hide = true, value_name = "RATE", requires = "detached", value_parser = naming::rate)]
    fps: Option<Rate>,
    #[arg(long, hide = true, value_name = "FOURCC", requires = "detached", value_parser = fourcc)]
    format: Option<FourCc>,
    /// Goes on to log on standard error
    #[arg(long, hide = true, requires = "detached")]
    log: bool,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        Err(_) => naming::time(text),
    }
}

fn fourcc(text: &str) -> Result<FourCc, String> {
    FourCc::parse(text).ok_or_else(|| "write a format as its four characters, such as MJPG".to_owned())
}

/// Its end is the only word of it that the one who started it waits for.
pub fn run(uri: &str, args: &Args) -> Exit {
    let (Some(name), Some(report)) = (&args.share, args.report_fd) else { return Exit::USAGE };
    let mut report = match leave(report, args.log) {
        Ok(report) => Report(Some(report)),
        Err(error) => {
            say(Level::Error, name, format_args!("its process cannot begin: {error}"));
            return Exit::FAILURE;
        }
    };
    journal::take_from_library(name);
    let camera = config::Camera {
        name: name.clone(),
        uri: uri.to_owned(),
        width: args.size.map_or(0, |size| size.0),
        height: args.size.map_or(0, |size| size.1),
        fps: args.fps.map_or((0, 0), |rate| (rate.numerator, rate.denominator)),
        format: args.format.map(|format| format.to_string()).unwrap_or_default(),
        controls: Vec::new(),
        buffers: 0,
        history: 0,
        drop: Drop::default(),
        start: Start::OnDemand,
        readers: Who::Owner,
        commanders: Who::Owner,
        priority: args.priority,
        max_bytes: 0,
        preview: None,
        recording: None,
    };
    match serve(camera, args.timeout, &mut report) {
        Ok(()) => Exit::OK,
        Err(error) => {
            say(Level::Error, name, &error);
            report.tell_failure(name, &error);
            Exit::of(error.kind())
        }
    }
}

/// Takes this process out of the reach of whoever started it, with nothing of that one's but its end of the report. The
/// process that was started ends here.
fn leave(report: RawFd, log: bool) -> io::Result<OwnedFd> {
    // SAFETY: borrowed for one call, which tells where there is no such descriptor.
    let report = unsafe { BorrowedFd::borrow_raw(report) };
    // Above the standard ones, as one of which it may have come: those are to be replaced.
    let number = fcntl(report, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: a new descriptor, nobody else's.
    let report: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(number) };
    close_others(report.as_raw_fd())?;
    reset_signals()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for standard in if log { 0..2 } else { 0..3 } {
        // SAFETY: both are open, and nobody uses the standard one now.
        if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    std::env::set_current_dir("/")?;
    // A session without a terminal; and then no leader of it, who could get one.
    become_child()?;
    setsid()?;
    become_child()?;
    let _ = nix::sys::prctl::set_name(c"camlease");
    Ok(report)
}

fn become_child() -> io::Result<()> {
    // SAFETY: no other thread was started yet.
    match unsafe { fork() }? {
        // What is to be done at an exit is the child's.
        // SAFETY: ends the process at once.
        ForkResult::Parent { .. } => unsafe { libc::_exit(0) },
        ForkResult::Child => Ok(()),
    }
}

/// Whoever started this may have had anything open: cameras among it, or another one's end of a pipe.
fn close_others(kept: RawFd) -> io::Result<()> {
    let kept = kept as u32;
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        // By its number: older C libraries have no such call.
        // SAFETY: three numbers; nothing is open yet that this program opened itself.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // Before Linux 5.9, or forbidden by a filter that does not know it.
                Some(libc::ENOSYS | libc::EPERM) => close_one_by_one(kept),
                _ => Err(error),
            };
        }
    }
    Ok(())
}

fn close_one_by_one(kept: u32) -> io::Result<()> {
    let number = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_str()?.parse().ok());
    let open: Vec<Option<u32>> = fs::read_dir("/proc/self/fd")?.map(number).collect::<io::Result<_>>()?;
    for number in open.into_iter().flatten().filter(|number| *number > 2 && *number != kept) {
        // SAFETY: nothing is open yet that this program opened itself; the folder's own is closed already, which is told.
        unsafe { libc::close(number as RawFd) };
    }
    Ok(())
}

/// A program that is started inherits what was ignored and blocked.
fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // What this program's own runtime set up stays: it ignores SIGPIPE, and looks at overflows of stacks.
        if [libc::SIGPIPE, libc::SIGSEGV, libc::SIGBUS].contains(&signal) {
            continue;
        }
        // SAFETY: no handler is installed. Some signals are refused, which nobody can ignore.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// The one line for whoever started this.
struct Report(Option<OwnedFd>);

impl Report {
    fn tell(&mut self, message: serde_json::Value) -> io::Result<()> {
        let Some(fd) = self.0.take() else { return Ok(()) };
        File::from(fd).write_all(format!("{message}\n").as_bytes())
    }

    fn tell_failure(&mut self, name: &str, error: &Error) {
        // Its message has its advice in it already.
        let message = json!({
            "camlease": 1, "ok": false, "share": name, "status": error.kind().name(), "errno": error.errno(),
            "message": error.message(),
        });
        let _ = self.tell(message);
    }
}

fn serve(camera: config::Camera, timeout: Option<Duration>, report: &mut Report) -> camlease::Result<()> {
    let failed = |error: io::Error| Error::system(format!("{}: its process cannot begin", camera.uri), error);
    let signals = Signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).map_err(failed)?;
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|e| failed(e.into()))?;
    let mut last_resort = LastResort::new().map_err(failed)?;
    let Some(opened) = open(&camera, timeout, report, &signals, &mut last_resort)? else { return Ok(()) };
    let wake = Arc::new(wake);
    let desk = Arc::new(Desk::new(wake.clone(), &camera).map_err(failed)?);
    let end = |opened: Camera, last_resort: &mut LastResort| {
        // Should its driver keep it.
        last_resort.is_due_in(END);
        desk.end(END / 2);
        sharing::end(&opened);
        opened.close();
    };
    if let Err(error) = sharing::share(&opened, &camera, desk.clone()) {
        end(opened, &mut last_resort);
        return Err(error);
    }
    desk.begin();
    say(Level::Info, &camera.name, format_args!("{} is served", camera.uri));
    // Whoever started it may have gone, and others may have come already: it is theirs then.
    let told = report.tell(json!({ "camlease": 1, "ok": true, "share": camera.name }));
    let patience = if told.is_ok() { FIRST_PATIENCE } else { Duration::ZERO };
    until_nobody_uses_it(&opened, &camera.name, &signals, &wake, &desk, patience);
    end(opened, &mut last_resort);
    Ok(())
}

/// `None` where whoever asked for the camera does not want it any more.
fn open(
    camera: &config::Camera,
    timeout: Option<Duration>,
    report: &Report,
    signals: &Signals,
    last_resort: &mut LastResort,
) -> camlease::Result<Option<Camera>> {
    let failed = |error: io::Error| Error::system(format!("{}: opening it", camera.uri), error);
    let (cancel, opened) = (Arc::new(Event::new().map_err(failed)?), Arc::new(Mutex::new(None)));
    let (reader, writer) = io::pipe().map_err(failed)?;
    let thread = {
        let (camera, cancel, opened) = (camera.clone(), cancel.clone(), opened.clone());
        std::thread::Builder::new().name("camlease-open".into()).spawn(move || {
            let options = OpenOptions {
                timeout,
                cancel: Some(&cancel),
                name: format!("camlease serve {}", camera.name),
                priority: camera.priority,
                ..OpenOptions::default()
            };
            *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(Camera::open(&camera.uri, options));
            drop(writer); // which the other end sees, also when this panics
        })
    }
    .map_err(failed)?;
    let asker = report.0.as_ref().map_or_else(|| reader.as_fd(), |report| report.as_fd());
    let [has_ended, ..] = wait([reader.as_fd(), asker, signals.as_fd()], None);
    if !has_ended {
        last_resort.is_due_in(END);
        cancel.signal();
    }
    let _ = thread.join();
    let result = opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    match result {
        Some(result) if has_ended => result.map(Some),
        Some(Ok(late)) => {
            late.close();
            Ok(None)
        }
        Some(Err(_)) => Ok(None),
        None => Err(Error::new(Kind::Internal, format!("{}: opening it panicked", camera.uri))),
    }
}

fn until_nobody_uses_it(
    camera: &Camera,
    name: &str,
    signals: &Signals,
    wake: &EventFd,
    desk: &Desk,
    patience: Duration,
) {
    let mut lonely = Some((Instant::now(), patience));
    loop {
        wait([signals.as_fd(), wake.as_fd()], Some(LOOK));
        let _ = wake.read();
        if signals.next().is_some() || desk.quits() {
            return;
        }
        let Some(info) = camera.share_info() else { return };
        if info.pulse > HANG {
            say(Level::Error, name, "its driver hangs: killed");
            let _ = raise(Signal::SIGKILL);
            exit(1);
        }
        lonely = match (info.clients, lonely) {
            (0, None) => Some((Instant::now(), LINGER)),
            (0, since) => since,
            _ => None,
        };
        if lonely.is_some_and(|(since, patience)| since.elapsed() >= patience) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};

    #[test]
    fn all_but_one_are_closed_where_the_kernel_has_no_call_for_it() {
        let open: Vec<File> = (0..5).map(|_| File::open("/dev/null").unwrap()).collect();
        let is_open = |file: &File| fcntl(file, FcntlArg::F_GETFD).is_ok();
        // SAFETY: the child closes, looks and ends.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
            ForkResult::Child => {
                let closed = close_one_by_one(open[2].as_raw_fd() as u32);
                let left: Vec<bool> = open.iter().map(is_open).collect();
                let is_well = closed.is_ok() && left == [false, false, true, false, false];
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!is_well)) }
            }
        }
    }
}
