//! Camera processes under their supervisor: they fail, hang, are killed and changed.

#[path = "support/serving.rs"]
mod serving;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use camlease::{Camera, DropPolicy, Frame, Kind, OpenOptions, StreamRequest};
use nix::sys::signal::Signal;
use serving::{QUICK, Serving, unique};
use support::{PATIENCE, camera, camlease, end_of, folder, holder, lives, signal, wait_for, wait_for_the_end_of_all};

#[track_caller]
fn wait_for_the_end_of(pid: i32) {
    wait_for(&format!("the end of process {pid}"), || (!lives(pid)).then_some(()));
}

fn one(camera: &str, more: &str) -> String {
    format!("[camera.front]\nuri = \"{camera}\"\n{more}\n{QUICK}")
}

#[test]
fn a_worker_that_is_killed_is_started_again() {
    let mut serving = Serving::start("killed", &one(&camera("killed"), ""));
    let first = serving.served("front");
    signal(first, Signal::SIGKILL);
    serving.line("front: its process");
    assert!(serving.line("front: started again in").ends_with("50 ms"));
    let second = serving.served("front");
    assert_ne!(first, second);
    assert!(!lives(first));
    signal(second, Signal::SIGKILL);
    assert!(serving.line("front: started again in").ends_with("100 ms"), "the pause is doubled");
    let third = serving.served("front");
    serving.stop();
    assert!(!lives(third));
}

#[test]
fn a_worker_that_fails_again_and_again_is_left_alone_and_tried_once() {
    let rules = "failures = 3\npause = \"400ms\"\n";
    let mut serving = Serving::start("breaker", &(one(&camera("breaker"), "") + rules));
    for _ in 0..3 {
        let pid = serving.started("front");
        signal(pid, Signal::SIGKILL);
    }
    let line = serving.line("left alone");
    assert!(line.contains("front: it fails again and again (3 times within 1 min 0 s"), "{line}");
    assert!(line.contains("left alone for 400 ms"), "{line}");
    let pid = serving.started("front");
    signal(pid, Signal::SIGKILL);
    serving.line("left alone");
    serving.served("front");
    serving.stop();
}

#[test]
fn a_worker_that_hangs_is_killed_and_replaced() {
    let mut serving = Serving::start("hang", &(one(&camera("hang"), "") + "hang_timeout = \"3s\"\n"));
    let pid = serving.served("front");
    signal(pid, Signal::SIGSTOP);
    let line = serving.line("was not well");
    assert!(line.contains(&format!("(pid {pid}) was not well for 3.0 s: killed")), "{line}");
    assert_ne!(serving.served("front"), pid);
    wait_for_the_end_of(pid);
    serving.stop();
}

#[test]
fn a_supervisor_that_was_stopped_itself_does_not_blame_its_workers() {
    let mut serving = Serving::start("paused", &(one(&camera("paused"), "") + "hang_timeout = \"3s\"\n"));
    let pid = serving.served("front");
    serving.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(5)); // what a person at a debugger does
    serving.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(3500)); // longer than it may be silent
    assert!(lives(pid));
    assert_eq!(serving.count("was not well"), 0);
    serving.stop();
}

#[test]
fn all_stop_in_order() {
    let config = one(&camera("stop"), "") + &format!("[camera.back]\nuri = \"{}\"\n", camera("stop"));
    for sent in [Signal::SIGTERM, Signal::SIGINT] {
        let mut serving = Serving::start("stop", &config);
        let pids = [serving.started("back"), serving.started("front")];
        ["back", "front"].iter().for_each(|name| serving.wait_until_served(name));
        serving.signal(sent);
        assert_eq!(end_of(&mut serving.child).code(), Some(0));
        assert!(pids.iter().all(|pid| !lives(*pid)));
        assert_eq!(serving.left_in_the_runtime_folder(), Vec::<String>::new());
    }
}

#[test]
fn a_worker_that_does_not_stop_is_killed() {
    let rules = "stop_grace = \"300ms\"\nhang_timeout = \"1h\"\n";
    let mut serving = Serving::start("stubborn", &(one(&camera("stubborn"), "") + rules));
    let pid = serving.served("front");
    let frozen = Frozen::new(pid);
    serving.signal(Signal::SIGTERM);
    serving.line("did not stop in time: killed");
    frozen.thaw();
    assert_eq!(end_of(&mut serving.child).code(), Some(0));
    assert!(!lives(pid));
}

#[test]
fn a_worker_that_not_even_sigkill_ends_is_replaced() {
    let mut serving = Serving::start("stuck", &(one(&camera("stuck"), "") + "hang_timeout = \"3s\"\n"));
    let pid = serving.served("front");
    // Its end is seen by its tracer alone: to the supervisor it is a process that stays where it is.
    let frozen = Frozen::new(pid);
    serving.line("was not well for 3.0 s: killed");
    serving.line(&format!("its process (pid {pid}) hangs in the driver"));
    assert_ne!(serving.served("front"), pid);
    frozen.thaw();
    serving.stop();
}

/// A process that is stopped for good, as a driver that hangs stops it: no SIGCONT has it go on, and nobody but the test
/// sees its end.
struct Frozen(Vec<i32>);

impl Frozen {
    fn new(pid: i32) -> Frozen {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let threads = threads.map(|thread| thread.unwrap().file_name().to_str().unwrap().parse().unwrap());
        let threads: Vec<i32> = threads.collect();
        for thread in &threads {
            // SAFETY: requests without memory, about a process of this test's.
            unsafe {
                assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, *thread, 0, 0), 0, "{}", std::io::Error::last_os_error());
                assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, *thread, 0, 0), 0);
            }
        }
        Frozen(threads)
    }

    /// Lets it end that was killed.
    #[track_caller]
    fn thaw(mut self) {
        wait_for("the end of the frozen process", || {
            self.0.retain(|thread| {
                let mut status = 0;
                // SAFETY: the status is written into a variable of its type.
                let waited = unsafe { libc::waitpid(*thread, &raw mut status, libc::__WALL | libc::WNOHANG) };
                waited == 0 || waited > 0 && libc::WIFSTOPPED(status)
            });
            self.0.is_empty().then_some(())
        });
    }
}

#[test]
fn nothing_remains_of_a_supervisor_that_is_killed() {
    let busy = camera("orphan");
    let config = one(&camera("orphan"), "") + &format!("[camera.waits]\nuri = \"{busy}\"\n");
    let _holder = holder(&busy, "open");
    let mut serving = Serving::start("orphan", &config);
    let front = serving.started("front");
    let waits = serving.started("waits");
    serving.wait_until_served("front");
    serving.line("waits: ");
    serving.signal(Signal::SIGKILL);
    end_of(&mut serving.child);
    [front, waits].into_iter().for_each(wait_for_the_end_of);
    assert_eq!(serving.left_in_the_runtime_folder(), Vec::<String>::new());
}

#[test]
fn nothing_remains_of_a_supervisor_that_is_killed_while_it_reads_its_file_again() {
    for round in 0..12 {
        let (stays, comes) = (unique("serve-midst"), unique("serve-midst"));
        let (uri, new) = (camera("serve-midst"), camera("serve-midst"));
        let mut serving = Serving::start("serve-midst", &named(&stays, &uri, ""));
        serving.served(&stays);
        // One is started anew, and one is new.
        serving.configure(&(format!("[camera.{comes}]\nuri = \"{new}\"\n") + &named(&stays, &uri, "buffers = 6")));
        std::thread::sleep(Duration::from_millis(4) * round);
        serving.signal(Signal::SIGKILL);
        end_of(&mut serving.child);
        wait_for_the_end_of_all(&[&stays, &comes]);
        assert_eq!(serving.left_in_the_runtime_folder(), Vec::<String>::new(), "{round}");
        is_free(&uri);
        is_free(&new);
    }
}

#[test]
fn nothing_remains_of_a_camera_that_is_left_alone_nor_of_its_supervisor() {
    let uri = camera("alone");
    let mut serving = Serving::start("alone", &(one(&uri, "") + "failures = 1\npause = \"1h\"\n"));
    let pid = serving.served("front");
    signal(pid, Signal::SIGKILL);
    serving.line("left alone for");
    // The next holder is to learn of the end of the last one, and of nothing else.
    let left = serving.left_in_the_runtime_folder();
    assert!(left.iter().all(|name| name.starts_with("camlease-virtual-")), "{left:?}");
    serving.signal(Signal::SIGKILL);
    end_of(&mut serving.child);
    assert!(!lives(pid));
    is_free(&uri);
}

#[track_caller]
fn is_free(uri: &str) {
    Camera::open(uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() }).unwrap().close();
}

#[test]
fn a_worker_that_hangs_does_not_outlive_its_supervisor() {
    let rules = "hang_timeout = \"3s\"\nstop_grace = \"200ms\"\n";
    let mut serving = Serving::start("hung-orphan", &(one(&camera("hung-orphan"), "") + rules));
    let pid = serving.served("front");
    serving.signal(Signal::SIGSTOP);
    signal(pid, Signal::SIGSTOP);
    serving.signal(Signal::SIGKILL);
    end_of(&mut serving.child);
    wait_for_the_end_of(pid);
}

#[test]
fn a_camera_that_is_not_there_or_busy_is_waited_for() {
    let busy = camera("waits");
    let config = one(&busy, "") + "[camera.absent]\nuri = \"/dev/video250\"\n";
    let mut program = holder(&busy, "open");
    let mut serving = Serving::start("waits", &config);
    wait_for("both waits", || (serving.count("waiting for it") >= 2).then_some(()));
    let said = serving.count("waiting for it");
    std::thread::sleep(std::time::Duration::from_millis(4500)); // longer than one try
    assert_eq!(serving.count("waiting for it"), said, "it is said once");
    program.child.kill().unwrap();
    serving.wait_until_served("front");
    assert_eq!(serving.count("started (pid"), 2, "no process failed");
    serving.stop();
}

#[test]
fn what_changed_in_the_file_is_applied_and_nothing_else() {
    let (front, back) = (camera("reload"), camera("reload"));
    let config = |front_more: &str, more: &str| {
        format!("[camera.front]\nuri = \"{front}\"\n{front_more}\n[camera.back]\nuri = \"{back}\"\n{more}\n{QUICK}")
    };
    let mut serving = Serving::start("reload", &config("", ""));
    let (back_pid, front_pid) = (serving.started("back"), serving.started("front"));
    ["back", "front"].iter().for_each(|name| serving.wait_until_served(name));

    // In passing.
    serving.configure(&config("controls = { Brightness = 77 }", ""));
    serving.line("front: changed while it goes on");
    assert!(lives(front_pid) && lives(back_pid));
    assert_eq!(brightness(&serving, "front"), 77);
    // By a new process.
    serving.configure(&config("controls = { Brightness = 77 }\nbuffers = 6", ""));
    serving.line("front: changed: its process is started anew");
    let front_pid = (serving.served("front"), front_pid);
    assert!(!lives(front_pid.1) && lives(back_pid));
    let front_pid = front_pid.0;

    // Nothing.
    serving.configure(&config("controls = { Brightness = 77 }\nbuffers = 6", ""));
    serving.line("supervisor: the file was read again");
    // With mistakes.
    serving.configure(&config("bufers = 6\nfps = 0", ""));
    serving.line("there is no key \"bufers\"; did you mean \"buffers\"?");
    serving.line("all stays as it was");
    assert!(serving.log.lock().unwrap().iter().any(|line| line.contains("fps = 0")), "all are told");
    fs::remove_file(serving.folder.join("cameras.toml")).unwrap();
    serving.signal(Signal::SIGHUP);
    serving.line("all stays as it was");
    assert!(lives(front_pid) && lives(back_pid));

    // More, and fewer.
    let third = camera("reload");
    serving.configure(&config("buffers = 6", &format!("[camera.third]\nuri = \"{third}\"")));
    let third_pid = serving.served("third");
    serving.configure(&format!("[camera.third]\nuri = \"{third}\"\n{QUICK}"));
    [front_pid, back_pid].into_iter().for_each(wait_for_the_end_of);
    assert!(lives(third_pid));
    assert_eq!(serving.count("started (pid"), 4);
    serving.stop();
}

#[test]
fn a_control_that_is_not_there_is_said_and_the_camera_served() {
    let mut serving =
        Serving::start("control", &one(&camera("control"), "controls = { Brigthness = 3, \"0x00980900\" = 9 }"));
    let line = serving.line("there is no control");
    assert!(line.contains("\"Brigthness\"; did you mean \"Brightness\"?"), "{line}");
    serving.wait_until_served("front");
    serving.stop();
}

/// What the service manager is sent, one message after the other.
fn next_message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).expect("a message for the service manager");
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

#[track_caller]
fn message_with(socket: &UnixDatagram, text: &str) -> String {
    let found = std::iter::repeat_with(|| next_message(socket)).take(1000).find(|message| message.contains(text));
    found.unwrap_or_else(|| panic!("\"{text}\" did not come"))
}

fn tells_the_service_manager(test: &str, address: &str, socket: &UnixDatagram) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = one(&camera(test), "");
    let mut serving = Serving::start_with(test, &config, |command| {
        // The socket keeps few messages, and this test may not come to read them for a while.
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "2000000").env_remove("WATCHDOG_PID");
    });
    assert!(message_with(socket, "STATUS=").contains("front starting"));
    assert!(message_with(socket, "STATUS=").contains("front"));
    message_with(socket, "READY=1");
    message_with(socket, "WATCHDOG=1");
    let before = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    serving.configure(&config);
    let reloading = message_with(socket, "RELOADING=1");
    let told =
        reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap().parse::<u128>().unwrap();
    assert!(told >= std::time::Duration::from(before).as_micros(), "{reloading}");
    message_with(socket, "READY=1");
    message_with(socket, "WATCHDOG=1");
    serving.stop();
    message_with(socket, "STOPPING=1");
}

#[test]
fn the_service_manager_is_told() {
    let folder = folder("notify-socket");
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    tells_the_service_manager("notify", path.to_str().unwrap(), &socket);
}

#[test]
fn the_service_manager_is_told_by_an_abstract_socket() {
    let name = format!("camlease-test-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    tells_the_service_manager("notify-abstract", &format!("@{name}"), &socket);
}

#[test]
fn the_watchdog_is_not_fed_by_a_supervisor_that_hangs_and_workers_do_not_inherit_it() {
    let folder = folder("watchdog-socket");
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut serving = Serving::start_with("watchdog", &one(&camera("watchdog"), ""), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").env_remove("WATCHDOG_PID");
    });
    let pid = serving.served("front");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
    message_with(&socket, "WATCHDOG=1");
    serving.signal(Signal::SIGSTOP);
    socket.set_read_timeout(Some(std::time::Duration::from_millis(700))).unwrap();
    let mut bytes = [0; 4096];
    // What was under way comes, as much as the socket keeps, and then nothing.
    let begun = Instant::now();
    while socket.recv(&mut bytes).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it goes on to be fed");
    }
    serving.signal(Signal::SIGCONT);
    serving.stop();
}

#[test]
fn lines_for_the_journal_have_their_level() {
    let mut serving = Serving::start_with("journal", &one(&camera("journal"), ""), |command| {
        let pipe =
            command.get_envs().find(|(name, _)| *name == "PIPE").and_then(|(_, value)| value).unwrap().to_owned();
        command.env("JOURNAL_STREAM", pipe);
    });
    serving.line("<6>front: started (pid ");
    serving.line("<6>front: ");
    serving.stop();
    assert!(serving.log.lock().unwrap().iter().all(|line| line.starts_with('<')));
}

#[test]
fn whoever_does_not_read_the_log_keeps_no_camera_waiting() {
    let folder = folder("unread-log");
    let run = folder.join("run");
    fs::DirBuilder::new().mode(0o700).create(&run).unwrap();
    fs::write(folder.join("cameras.toml"), one(&camera("unread-log"), "")).unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: a number only, about a pipe of this test's.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    writer.write_all(&vec![b'x'; size as usize]).unwrap();
    let mut command = camlease(&["serve", "--config", folder.join("cameras.toml").to_str().unwrap()]);
    command.env("CAMLEASE_RUNTIME_DIR", &run).env_remove("JOURNAL_STREAM").stdout(Stdio::null()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command); // and with it the pipe's end
    wait_for("the camera to be served", || {
        let mut asked = camlease(&["ctl", "front"]);
        asked.env("CAMLEASE_RUNTIME_DIR", &run).output().unwrap().status.success().then_some(())
    });
    // Full for all that was said until now.
    let mut full = vec![0; size as usize];
    reader.read_exact(&mut full).unwrap();
    assert!(full.iter().all(|byte| *byte == b'x'));
    signal(child.id() as i32, Signal::SIGHUP);
    // The camera's process may have something to say meanwhile.
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok).filter(|line| !line.starts_with("front: "));
    let first = lines.next().unwrap();
    assert!(first.starts_with("supervisor: ") && first.ends_with(" lines were left out: nobody read"), "{first}");
    assert_eq!(lines.next().unwrap(), "supervisor: the file was read again");
    signal(child.id() as i32, Signal::SIGTERM);
    assert_eq!(end_of(&mut child).code(), Some(0));
}

#[test]
fn lines_for_programs_are_json() {
    let folder = folder("json-log");
    let run = folder.join("run");
    fs::DirBuilder::new().mode(0o700).create(&run).unwrap();
    fs::write(folder.join("cameras.toml"), one(&camera("json-log"), "")).unwrap();
    let mut command = camlease(&["--json", "serve", "--config", folder.join("cameras.toml").to_str().unwrap()]);
    command.env("CAMLEASE_RUNTIME_DIR", &run);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..2 {
        let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((&line["level"], &line["camera"]), (&"info".into(), &"front".into()), "{line}");
    }
    signal(child.id() as i32, Signal::SIGTERM);
    assert_eq!(end_of(&mut child).code(), Some(0));
    drop(lines);
}

#[test]
fn a_file_with_mistakes_is_not_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-configs/many.toml");
    let (code, _, err) = support::run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(err.contains("did you mean \"width\"?"), "{err}");
}

fn named(name: &str, uri: &str, more: &str) -> String {
    format!("[camera.{name}]\nuri = \"{uri}\"\n{more}\n{QUICK}")
}

/// A handle that reads, in this process, and streams.
fn reader(name: &str) -> Camera {
    let options = OpenOptions { timeout: Some(PATIENCE), wait_for_device: true, ..OpenOptions::default() };
    let camera = Camera::open(&format!("shared:{name}"), options).unwrap();
    camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }).unwrap();
    camera
}

/// The next frame, however often the camera goes away before it.
#[track_caller]
fn next(camera: &Camera) -> Frame {
    let begun = Instant::now();
    loop {
        match camera.next_frame(Some(Duration::from_millis(500))) {
            Ok(frame) => return frame,
            Err(error) => {
                assert!(begun.elapsed() < PATIENCE, "{error}");
                assert!(matches!(error.kind(), Kind::Disconnected | Kind::Timeout | Kind::Busy), "{error}");
            }
        }
    }
}

/// Some frames in turn.
#[track_caller]
fn goes_on(camera: &Camera) {
    for _ in 0..5 {
        next(camera);
    }
}

#[test]
fn what_is_served_is_read_and_readers_stay_when_its_process_is_replaced() {
    let name = unique("serve-read");
    let camera = camera("serve-read") + "?fps=100&width=64&height=48";
    let mut serving = Serving::start_for_all("serve-read", &named(&name, &camera, ""));
    let first = serving.served(&name);
    let readers = [reader(&name), reader(&name)];
    readers.iter().for_each(goes_on);
    signal(first, Signal::SIGKILL);
    let second = serving.served(&name);
    readers.iter().for_each(goes_on);
    assert!(second != first && !lives(first));
    let file = serving.folder.join("cameras.toml");
    let text = fs::read_to_string(&file).unwrap().replace("width=64", "width=128");
    serving.configure(&text);
    let third = serving.served(&name);
    assert!(third != second);
    for reader in &readers {
        let begun = Instant::now();
        while next(reader).width() != 128 {
            assert!(begun.elapsed() < PATIENCE, "frames of the former size for ever");
        }
    }
    assert_eq!(serving.count("started (pid"), 3);
    drop(readers);
    serving.stop();
    assert!(camlease::shares().iter().all(|served| served.name != name));
}

#[test]
fn a_driver_that_hangs_is_seen_and_its_process_replaced() {
    let name = unique("serve-hang");
    let camera = camera("serve-hang") + "?fps=50&hang=20";
    let mut serving = Serving::start_for_all("serve-hang", &(named(&name, &camera, "") + "hang_timeout = \"3s\"\n"));
    let first = serving.served(&name);
    let reader = reader(&name);
    let mut taken = 0;
    while taken < 15 {
        next(&reader);
        taken += 1;
    }
    let line = serving.line("was not well");
    assert!(line.contains(&format!("(pid {first}) was not well for 3.0 s: killed")), "{line}");
    let second = serving.served(&name);
    goes_on(&reader);
    assert_ne!(second, first);
    wait_for_the_end_of(first); // it hangs where a signal reaches it
    drop(reader);
    serving.stop();
}

#[test]
fn a_camera_that_is_unplugged_comes_back_to_its_readers() {
    let name = unique("serve-unplug");
    let camera = camera("serve-unplug") + "?fps=100&unplug=20&return=200";
    let mut serving = Serving::start_for_all("serve-unplug", &named(&name, &camera, ""));
    let pid = serving.served(&name);
    let reader = reader(&name);
    for _ in 0..50 {
        next(&reader);
    }
    serving.line("was unplugged");
    assert!(lives(pid));
    assert_eq!(serving.count("started (pid"), 1, "no process failed");
    drop(reader);
    serving.stop();
}

/// What a camera's control has now.
fn brightness(serving: &Serving, name: &str) -> serde_json::Value {
    let mut asked = camlease(&["--json", "ctl", name, "control", "brightness"]);
    let answer = asked.env("CAMLEASE_RUNTIME_DIR", serving.folder.join("run")).output().unwrap();
    serde_json::from_slice::<serde_json::Value>(&answer.stdout)
        .map_or_else(|_| 0.into(), |answer| answer["value"].clone())
}

#[test]
fn other_rules_are_taken_without_harm_to_any_camera() {
    let front = camera("rules");
    let config = |rules: &str| format!("[camera.front]\nuri = \"{front}\"\n[supervisor]\n{rules}");
    let mut serving = Serving::start("rules", &config("heartbeat = \"10s\"\nhang_timeout = \"30s\"\n"));
    let pid = serving.served("front");
    serving.configure(&config("heartbeat = \"200ms\"\nhang_timeout = \"3s\"\n"));
    serving.line("the file was read again");
    std::thread::sleep(Duration::from_secs(4)); // longer than it may be silent now
    assert!(lives(pid));
    assert_eq!(serving.count("was not well"), 0);
    // And it is judged by them.
    signal(pid, Signal::SIGSTOP);
    serving.line("was not well for 3.0 s: killed");
    let pid = serving.served("front");
    // The other way round.
    serving.configure(&config("heartbeat = \"10s\"\nhang_timeout = \"30s\"\n"));
    serving.line("the file was read again");
    std::thread::sleep(Duration::from_secs(4)); // longer than it might be silent before
    assert!(lives(pid));
    assert_eq!(serving.count("was not well"), 1);
    serving.stop();
}

#[test]
fn a_camera_that_hangs_and_was_told_to_quit_is_not_started_again() {
    let name = unique("serve-quit");
    let camera = camera("serve-quit") + "?fps=50&hang=5";
    let rules = "hang_timeout = \"1h\"\nstop_grace = \"500ms\"\n";
    let mut serving = Serving::start_for_all("serve-quit", &(named(&name, &camera, "") + rules));
    let pid = serving.served(&name);
    let reader = reader(&name);
    wait_for("the driver to hang", || reader.next_frame(Some(Duration::from_secs(1))).is_err().then_some(()));
    let told = camlease(&["ctl", &name, "quit"]).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    serving.line("was told to quit");
    serving.line("all cameras were told to quit");
    assert_eq!(end_of(&mut serving.child).code(), Some(0));
    wait_for_the_end_of(pid);
    assert_eq!(serving.count("started"), 1);
}

#[test]
fn a_camera_that_comes_back_has_its_controls_again() {
    let name = unique("serve-controls");
    let camera = camera("serve-controls") + "?fps=50&unplug=20&return=300";
    let config = named(&name, &camera, "controls = { Brightness = 77 }\nstart = \"always\"");
    let mut serving = Serving::start("serve-controls", &config);
    serving.served(&name);
    wait_for("the first value", || (brightness(&serving, &name) == 77).then_some(()));
    serving.line("was unplugged");
    let set = ["--json", "ctl", name.as_str(), "control", "brightness", "5"];
    let run = serving.folder.join("run");
    wait_for("another value", || {
        camlease(&set).env("CAMLEASE_RUNTIME_DIR", &run).output().unwrap().status.success().then_some(())
    });
    serving.line("was unplugged");
    wait_for("its value again", || (brightness(&serving, &name) == 77).then_some(()));
    serving.stop();
}

#[test]
fn a_camera_that_is_left_alone_is_tried_at_once_when_the_file_is_read_again() {
    let rules = "failures = 1\npause = \"1h\"\n";
    let mut serving = Serving::start("reload-pause", &(one(&camera("reload-pause"), "") + rules));
    let pid = serving.served("front");
    signal(pid, Signal::SIGKILL);
    serving.line("left alone for");
    serving.signal(Signal::SIGHUP);
    assert_ne!(serving.served("front"), pid);
    serving.stop();
}

#[test]
fn a_camera_streams_on_demand_or_always() {
    let (demand, always) = (unique("serve-demand"), unique("serve-always"));
    let config = named(&demand, &camera("serve-demand"), "")
        + &format!("[camera.{always}]\nuri = \"{}\"\nstart = \"always\"\n", camera("serve-always"));
    let mut serving = Serving::start_for_all("serve-demand", &config);
    [&demand, &always].iter().for_each(|name| serving.wait_until_served(name));
    let streams = |name: &str| camlease::shares().iter().any(|served| served.name == name && served.streaming);
    wait_for("the camera to stream", || streams(&always).then_some(()));
    assert!(!streams(&demand));
    let reader = reader(&demand);
    goes_on(&reader);
    assert!(streams(&demand));
    reader.close();
    wait_for("the camera to stop", || (!streams(&demand)).then_some(()));
    assert!(streams(&always));
    serving.stop();
}

/// Three pictures, 16x16.
fn footage(folder: &Path) -> String {
    let file = folder.join("clip.y4m");
    let picture = |shade: u8| [&b"FRAME\n"[..], &vec![shade; 16 * 16 * 3 / 2]].concat();
    let head = b"YUV4MPEG2 W16 H16 F50:1 Ip A1:1 C420jpeg\n".to_vec();
    fs::write(&file, [head, picture(40), picture(120), picture(200)].concat()).unwrap();
    file.display().to_string()
}

#[test]
fn a_video_file_is_a_camera() {
    let name = unique("serve-file");
    let file = footage(&folder("serve-file-clip"));
    let mut serving = Serving::start_for_all("serve-file", &named(&name, &format!("file:{file}?loop=1"), ""));
    serving.wait_until_served(&name);
    let reader = reader(&name);
    let shade = |frame: Frame| (frame.sequence(), frame.data(0)[0]);
    let shades: Vec<(u64, u8)> = (0..12).map(|_| shade(next(&reader))).collect();
    assert!(shades.iter().all(|(_, shade)| [40, 120, 200].contains(shade)), "{shades:?}");
    // A machine that is busy leaves some out.
    let differ = |pair: &[(u64, u8)]| (pair[1].1 == pair[0].1) == (pair[1].0 - pair[0].0).is_multiple_of(3);
    assert!(shades.windows(2).all(differ), "they come in turn: {shades:?}");
    drop(reader);
    serving.stop();
}

#[test]
fn readers_of_a_supervisor_that_is_killed_are_told() {
    let name = unique("serve-orphan");
    let mut serving = Serving::start_for_all("serve-orphan", &named(&name, &camera("serve-orphan"), ""));
    let pid = serving.served(&name);
    let reader = reader(&name);
    goes_on(&reader);
    serving.signal(Signal::SIGKILL);
    end_of(&mut serving.child);
    wait_for_the_end_of(pid);
    let gone = (0..1000).find_map(|_| reader.next_frame(Some(PATIENCE)).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    assert!(camlease::shares().iter().all(|served| served.name != name));
}
