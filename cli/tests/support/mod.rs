//! The command as a person or a script runs it, and programs that keep cameras.

#![allow(dead_code)] // each test uses its part of this

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `target/PROFILE`, of the running test.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_camlease")).parent().unwrap().to_owned()
}

pub fn camlease(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camlease"));
    command.args(arguments).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

/// Runs the command to its end: exit code, standard output, standard error.
#[track_caller]
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    told(camlease(arguments).output().unwrap())
}

pub fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What the command prints as JSON: one line on standard output, and nothing on standard error.
#[track_caller]
pub fn json(arguments: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(&[&["--json"], arguments].concat());
    assert_eq!(err, "", "{arguments:?}");
    assert_eq!(out.lines().count(), 1, "{arguments:?}: {out}");
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}

/// The failure that the command reports as JSON on standard error.
#[track_caller]
pub fn json_error(arguments: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(&[&["--json"], arguments].concat());
    assert_eq!(out, "", "{arguments:?}");
    let mut value: Value = serde_json::from_str(&err).unwrap_or_else(|error| panic!("{error}: {err}"));
    let error = value["error"].take();
    assert_eq!(error["exit_code"], code, "{error}");
    assert!(error["errno"].is_i64() && error["message"].is_string(), "{error}");
    (code, error)
}

/// Said past the test harness, which keeps what passing tests print to itself.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// A virtual camera that no other test uses: their names are the whole machine's.
pub fn camera(test: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("virtual:cli-{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A folder of this test's own, empty.
pub fn folder(test: &str) -> PathBuf {
    let folder = target().join("cli-tests").join(format!("{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A program that is ended with the test.
pub struct Program {
    pub child: Child,
    /// Whoever keeps the camera: the program or a child of it.
    pub pid: i32,
}

impl Program {
    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_ready(command: &mut Command) -> Program {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "{command:?}: {line}");
    let pid = line.trim().rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(child.id() as i32);
    Program { child, pid }
}

/// `tests/foreign.c`, compiled.
pub fn foreign() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = target().join("cli-tests").join(std::process::id().to_string()).join("foreign");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign.c");
        let status = Command::new("cc").args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program).arg(source).status();
        assert!(status.unwrap().success());
        program
    })
}

/// A program without the library has the camera.
pub fn foreign_holder(camera: &str, mode: &str) -> Program {
    spawn_ready(Command::new(foreign()).args([camera.strip_prefix("virtual:").unwrap(), mode]))
}

/// A program with the library has the camera: `tests/c/holder.c`, in this state.
pub fn holder(camera: &str, state: &str) -> Program {
    let build = Command::new(root().join("tests/c/build")).arg("-t").arg(target()).arg("holder.c").output().unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let program = String::from_utf8(build.stdout).unwrap();
    let library = target().join("deps/libcamlease.so");
    spawn_ready(Command::new(program.trim()).arg(library).args([camera, state, "signal"]))
}

pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Whether there is such a process, and it has not ended.
pub fn lives(pid: i32) -> bool {
    // The first thread may have ended before another one, which keeps all that is open.
    states(pid).iter().any(|state| !state.starts_with(['Z', 'X']))
}

/// Whether it was stopped by a signal and none of its threads runs any more: that takes its time.
pub fn stands(pid: i32) -> bool {
    states(pid).iter().all(|state| state.starts_with('T'))
}

/// Of each thread, what the kernel says from its state on.
fn states(pid: i32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .filter_map(|stat| stat.rsplit(") ").next().map(str::to_owned))
        .filter(|state| !state.is_empty())
        .collect()
}

#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the end of a program that is to end by itself.
#[track_caller]
pub fn end_of(child: &mut Child) -> std::process::ExitStatus {
    wait_for("the end of the program", || child.try_wait().unwrap())
}

/// The command in a terminal of its own.
pub struct Terminal {
    pub child: Child,
    master: File,
    slave: OwnedFd,
    seen: String,
    /// Its settings before the command was there.
    pub before: String,
}

impl Terminal {
    pub fn start(arguments: &[&str]) -> Terminal {
        let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let (master, slave) = pty(&size);
        let end = || Stdio::from(slave.try_clone().unwrap());
        // setsid -c: the terminal is the controlling one, so that its Ctrl+C is a signal.
        let mut command = Command::new("setsid");
        command.args(["-c", "-w", env!("CARGO_BIN_EXE_camlease")]).args(arguments);
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let before = settings(&slave);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Terminal { child, master, slave, seen: String::new(), before }
    }

    /// Reads until this is on the screen, or was; all that was printed so far.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            assert!(begun.elapsed() < PATIENCE, "\"{text}\" did not come: {:?}", self.seen);
            self.read();
        }
        self.seen.clone()
    }

    /// Whether anything came.
    fn read(&mut self) -> bool {
        use nix::poll::{PollFd, PollFlags, poll};
        use std::os::fd::AsFd;
        let ready = poll(&mut [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)], 100u16).unwrap_or(0);
        let mut bytes = [0; 4096];
        let count = if ready > 0 { self.master.read(&mut bytes).unwrap_or(0) } else { 0 };
        self.seen += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    pub fn forget(&mut self) {
        self.seen.clear();
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// The terminal is closed, as by its window.
    pub fn hang_up(&mut self) {
        self.master = File::open(root()).unwrap();
    }

    pub fn settings(&self) -> String {
        settings(&self.slave)
    }

    /// The exit code, and all that was printed.
    #[track_caller]
    pub fn end(&mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;
        let begun = Instant::now();
        let status = loop {
            self.read();
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {:?}", self.seen);
        };
        while self.read() {}
        (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), self.seen.clone())
    }
}

/// Both ends of a new terminal. No program inherits them, as it does those of openpty: a terminal with an end in another
/// test's program would never close.
fn pty(size: &libc::winsize) -> (File, OwnedFd) {
    let master = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx").unwrap();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: an open descriptor, and calls that take a number or read a struct of their type.
    let slave = unsafe {
        assert_eq!(libc::unlockpt(master.as_raw_fd()), 0);
        assert_eq!(libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, size), 0);
        libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags)
    };
    assert!(slave >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    (master, unsafe { OwnedFd::from_raw_fd(slave) })
}

/// A terminal's settings, as `stty` names them.
fn settings(terminal: &OwnedFd) -> String {
    let stty = Command::new("stty").arg("-a").stdin(terminal.try_clone().unwrap()).output().unwrap();
    String::from_utf8(stty.stdout).unwrap()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of all that were started with one of these words on their command line.
#[track_caller]
pub fn wait_for_the_end_of_all(words: &[&str]) {
    let mut seen = Vec::new();
    wait_for("the end of all", || {
        // One that ends has no command line for a while before it lets go of what it has open.
        let now: Vec<i32> = words.iter().flat_map(|word| with_argument(word)).collect();
        seen.extend(&now);
        (now.is_empty() && !seen.iter().any(|pid| lives(*pid))).then_some(())
    });
}

/// Those that were started with this word on their command line.
pub fn with_argument(word: &str) -> Vec<i32> {
    let own = |entry: fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()).then_some(())?;
        entry.file_name().to_str()?.parse().ok()
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(own).collect()
}
