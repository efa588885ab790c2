//! `camlease doctor` on real drivers: each trouble is made, is found with its remedy, and is gone again once it is cured.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use camlease::{Camera, OpenOptions};
use camlease_rig::foreign::Stream;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, udev, wait_for};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
/// The doctor's exit code when it found something.
const TROUBLE: i32 = 8;
/// nobody
const USER: u32 = 65534;

fn vivid() -> String {
    let node = vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0);
    udev::settle();
    text(&node)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_camlease")).arg("doctor").args(arguments).output().unwrap()
}

/// The doctor's answer to a user without rights, who is in this group besides.
#[track_caller]
fn diagnosis_for_user(group: Option<u32>) -> Value {
    let groups = group.map_or("--clear-groups".to_owned(), |group| format!("--groups={group}"));
    let output = Command::new("setpriv")
        .args([&format!("--reuid={USER}"), &format!("--regid={USER}"), &groups])
        .args([env!("CARGO_BIN_EXE_camlease"), "doctor", "--json"])
        .output()
        .expect("setpriv is installed");
    parsed(&output)
}

#[track_caller]
fn diagnosis(cameras: &[&str]) -> Value {
    parsed(&doctor(&[&["--json"], cameras].concat()))
}

#[track_caller]
fn parsed(output: &Output) -> Value {
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let healthy = answer["healthy"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(if healthy { 0 } else { TROUBLE }), "{answer}");
    for finding in answer["findings"].as_array().unwrap() {
        assert!(!finding["what"].as_str().unwrap().is_empty(), "{finding}");
        assert!(!finding["remedy"].as_str().unwrap().is_empty(), "{finding}");
    }
    answer
}

fn with_id<'a>(answer: &'a Value, id: &str) -> Option<&'a Value> {
    answer["findings"].as_array().unwrap().iter().find(|finding| finding["id"] == id)
}

/// The finding with this id, of this severity, about this camera.
#[track_caller]
fn found(answer: &Value, id: &str, severity: &str, camera: &str) -> Value {
    let finding = with_id(answer, id).unwrap_or_else(|| panic!("no {id} in {answer}"));
    assert_eq!((finding["severity"].as_str(), finding["camera"].as_str()), (Some(severity), Some(camera)), "{finding}");
    finding.clone()
}

/// Udev, which one of these tests starts for all that come after it, opens each new node for a moment, and takes a while
/// to remove the links to one that is gone: it is waited for, and where there is none that returns at once.
#[track_caller]
fn finding(id: &str, severity: &str, camera: &str) -> Value {
    udev::settle();
    found(&diagnosis(&[]), id, severity, camera)
}

#[track_caller]
fn assert_quiet() {
    udev::settle(); // as for a finding
    assert_eq!(diagnosis(&[])["findings"], json!([]), "not quiet on a healthy machine");
}

#[track_caller]
fn says(finding: &Value, part: &str, words: &str) {
    assert!(finding[part].as_str().unwrap().contains(words), "\"{words}\" is not in: {finding}");
}

fn signal(pid: i32, signal: libc::c_int) {
    // SAFETY: no pointers; a process of this test's.
    unsafe { libc::kill(pid, signal) };
}

fn wait_for_the_end(pid: i32) {
    // A child whose parent has ended is another process's to wait for: that it has no files any more is what counts.
    let folder = format!("/proc/{pid}/fd");
    let has_files = || fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some());
    wait_for("a program to end", PATIENCE, || (!has_files()).then_some(()));
}

/// A program that has a camera until this is dropped.
struct Having {
    process: Child,
    /// Kept open: a program that writes into a closed pipe ends.
    _output: BufReader<ChildStdout>,
    /// Who has it: the program, or a child of it.
    pid: i32,
}

impl Having {
    fn start(command: &mut Command) -> Having {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let pid = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{command:?}: {line:?}"));
        Having { pid: pid.parse().unwrap(), process, _output: output }
    }

    /// A program of the library's tests/c.
    fn c_program(name: &str, node: &str, what: &str) -> Having {
        let target = Path::new(env!("CARGO_BIN_EXE_camlease")).parent().unwrap();
        let program = target.join("c-programs").join(name);
        assert!(program.exists(), "{} is not there: tests/c/build comes before the rig's tests", program.display());
        Having::start(Command::new(program).args([node, what]))
    }

    /// A shell that runs this line, in which $1 is the node, and then waits.
    fn shell(line: &str, node: &str) -> Having {
        let script = format!("{line}\necho ready $$; read -r");
        Having::start(Command::new("bash").args(["-c", &script, "bash", node]))
    }
}

impl Drop for Having {
    fn drop(&mut self) {
        signal(self.pid, libc::SIGKILL);
        let _ = self.process.kill();
        let _ = self.process.wait();
        wait_for_the_end(self.pid);
    }
}

/// A file that has another content until this is dropped.
struct Changed {
    path: PathBuf,
    before: String,
}

impl Changed {
    fn write(path: impl Into<PathBuf>, content: &str) -> Changed {
        let path = path.into();
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, content).unwrap();
        Changed { path, before }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, &self.before);
    }
}

fn make_node(path: &str, major: u32, minor: u32) {
    let name = std::ffi::CString::new(path).unwrap();
    // SAFETY: a string that ends with NUL.
    assert_eq!(unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(major, minor)) }, 0);
}

#[test]
fn healthy_cameras_are_met_with_silence() {
    let _alone = alone();
    require_guest();
    udev::start();
    let node = vivid();
    let webcam = Webcam::plug(WebcamOptions::default());
    udev::settle();
    assert_quiet();
    let output = doctor(&[]);
    let words = String::from_utf8(output.stdout).unwrap();
    println!("{words}");
    assert!(words.starts_with("no trouble found: 2 cameras looked at; checks run: nodes, permissions"), "{words}");
    assert_eq!(output.status.code(), Some(0));

    // A user in the node's group has nothing to complain about either, and is told what was not seen.
    let answer = diagnosis_for_user(Some(fs::metadata(&node).unwrap().gid()));
    assert_eq!(answer["findings"], json!([]));
    assert_eq!(answer["cameras"], json!([text(&webcam.node()), node]));
    let unseen = answer["not_looked_at"].as_array().unwrap();
    assert!(unseen.iter().any(|what| what.as_str().unwrap().contains("of other users")), "{unseen:?}");
}

#[test]
fn a_camera_by_its_name() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let webcam = Webcam::plug(WebcamOptions::default());
    udev::settle();
    let _open = Having::shell("exec 3<>$1", &node);
    assert!(with_id(&diagnosis(&["40"]), "open").is_some());
    assert!(with_id(&diagnosis(&[&text(&webcam.node())]), "open").is_none());
    let by_id = diagnosis(&["usb:1209:0001:RIG0001"]);
    assert_eq!(by_id["cameras"], json!([text(&webcam.node())]));
    found(&diagnosis(&["/dev/video99"]), "no-such-camera", "problem", "/dev/video99");
    assert_eq!(doctor(&["virtual:x"]).status.code(), Some(2));
}

#[test]
fn a_user_without_rights() {
    let _alone = alone();
    require_guest();
    udev::start();
    let node = vivid();
    udev::settle();
    let set = |mode: u32, group: u32| {
        chown(&node, Some(0), Some(group)).unwrap();
        fs::set_permissions(&node, fs::Permissions::from_mode(mode)).unwrap();
    };
    let video = fs::metadata(&node).unwrap().gid();
    assert_ne!(video, 0, "udev gives cameras to a group");
    let told = found(&diagnosis_for_user(None), "no-permission", "problem", &node);
    says(&told, "remedy", "sudo usermod -aG video nobody");

    let groups = fs::read_to_string("/etc/group").unwrap();
    let joined: Vec<String> = groups
        .lines()
        .map(|line| if line.starts_with("video:") { format!("{line}nobody") } else { line.to_owned() })
        .collect();
    let changed = Changed::write("/etc/group", &(joined.join("\n") + "\n"));
    let told = found(&diagnosis_for_user(None), "group-not-active", "problem", &node);
    says(&told, "remedy", "newgrp video");
    drop(changed);

    set(0o600, 0);
    let told = found(&diagnosis_for_user(None), "no-group", "problem", &node);
    says(&told, "remedy", "/etc/udev/rules.d/60-cameras.rules");

    set(0o666, video);
    says(&finding("open-to-all", "warning", &node), "remedy", &format!("sudo chmod 0660 {node}"));
    set(0o660, video);
    assert_quiet();
}

#[test]
fn held_by_a_foreign_program_which_is_then_stopped() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let stream = Stream::start(Path::new(&node));
    let pid = stream.process_id() as i32;
    let held = finding("held", "note", &node);
    assert_eq!(held["facts"]["pid"], pid);
    says(&held, "what", &format!("v4l2-ctl (pid {pid}, user root, started "));
    says(&held, "remedy", &format!("camlease release {node}"));

    signal(pid, libc::SIGSTOP);
    let stopped = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ").then_some(());
    wait_for("the program to stop", PATIENCE, stopped);
    let told = finding("stopped-holder", "problem", &node);
    says(&told, "remedy", &format!("kill -CONT {pid}"));
    stream.kill();
    assert_quiet();
}

#[test]
fn held_by_somebody_whom_the_user_does_not_see() {
    let _alone = alone();
    require_guest();
    udev::start();
    let node = vivid();
    udev::settle();
    let group = fs::metadata(&node).unwrap().gid();
    let stream = Stream::start(Path::new(&node));
    let told = found(&diagnosis_for_user(Some(group)), "held-out-of-sight", "warning", &node);
    says(&told, "remedy", &format!("sudo camlease doctor {node}"));
    stream.kill();
    assert_eq!(diagnosis_for_user(Some(group))["findings"], json!([]));
}

#[test]
fn merely_open() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let webcam = Webcam::plug(WebcamOptions::default());
    udev::settle();
    let open = Having::shell("exec 3<>$1", &node);
    let answer = diagnosis(&[]);
    assert_eq!(found(&answer, "open", "note", &node)["facts"]["pid"], open.pid);
    assert_eq!(answer["healthy"], true, "it keeps nobody from streaming: {answer}");
    drop(open);

    let (camera, metadata) = (text(&webcam.node()), text(&webcam.metadata_node()));
    let open = Having::shell("exec 3<>$1", &metadata);
    let told = finding("other-node-open", "note", &camera);
    assert_eq!((&told["facts"]["pid"], &told["facts"]["other_node"]), (&json!(open.pid), &json!(metadata)));
    drop(open);
    assert_quiet();
}

#[test]
fn a_media_controller_that_is_locked() {
    let _alone = alone();
    require_guest();
    vivid::unload();
    let webcam = Webcam::plug(WebcamOptions::default());
    let controller = "/dev/media0";
    wait_for("a media controller", PATIENCE, || Path::new(controller).exists().then_some(()));
    let owner = Having::c_program("neighbour", controller, "lock");
    let told = finding("controller-locked", "warning", &text(&webcam.node()));
    assert_eq!(told["facts"]["pid"], owner.pid);
    says(&told, "what", controller);
    drop(owner);
    assert_quiet();
}

#[test]
fn a_camera_that_was_inherited() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    // A shell opens without O_CLOEXEC, so that all that it starts has the camera as well.
    let shell = Having::shell("exec 3<>$1; sleep 1000 &", &node);
    let told = wait_for("the shell to have started its child", PATIENCE, || {
        let answer = diagnosis(&[]);
        let finding = answer["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| finding["id"] == "inherited" && finding["facts"]["program"] == "sleep");
        finding.cloned()
    });
    assert_eq!((&told["facts"]["passed_on_by"], &told["facts"]["descriptor"]), (&json!(shell.pid), &json!(3)));
    says(&told, "what", &format!("from its parent, bash (pid {})", shell.pid));
    says(&told, "remedy", "O_CLOEXEC");
    let child = told["facts"]["pid"].as_i64().unwrap() as i32;

    // The shell ends; what it started goes on.
    drop(shell);
    let told = finding("left-behind", "warning", &node);
    assert_eq!(told["facts"]["pid"], child);
    says(&told, "what", "its parent has ended");
    says(&told, "remedy", &format!("kill {child}"));
    signal(child, libc::SIGKILL);
    wait_for_the_end(child);
    assert_quiet();
}

#[test]
fn a_stream_that_a_parent_left_to_its_fork() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let child = Having::c_program("neighbour", &node, "inherit");
    // While both live the file is one of two; then the fork streams alone, as a service that went into the background
    // does that opened the camera there.
    let answer = wait_for("the parent to end", PATIENCE, || {
        let answer = diagnosis(&[]);
        (with_id(&answer, "held").is_some() && with_id(&answer, "inherited").is_none()).then_some(answer)
    });
    assert_eq!(found(&answer, "held", "note", &node)["facts"]["pid"], child.pid);
    assert_eq!((with_id(&answer, "left-behind"), &answer["healthy"]), (None, &json!(true)), "{answer}");
    drop(child);
    assert_quiet();
}

#[test]
fn a_program_that_streams_without_its_parent_left_nothing_behind() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let shell = Having::shell("v4l2-ctl -d $1 --stream-mmap > /dev/null 2>&1 &", &node);
    wait_for("v4l2-ctl to stream", PATIENCE, || with_id(&diagnosis(&[]), "held").is_some().then_some(()));
    drop(shell);
    let answer = diagnosis(&[]);
    let stream = found(&answer, "held", "note", &node)["facts"]["pid"].as_i64().unwrap() as i32;
    assert_eq!(with_id(&answer, "left-behind"), None);
    signal(stream, libc::SIGKILL);
    wait_for_the_end(stream);
    assert_quiet();
}

#[test]
fn held_with_a_lease() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let options = OpenOptions { name: "inspection".into(), ..OpenOptions::default() };
    let camera = Camera::open(&node, options).unwrap();
    let answer = diagnosis(&[]);
    let told = found(&answer, "leased", "note", &node);
    assert_eq!((&told["facts"]["pid"], &told["facts"]["lease"]), (&json!(std::process::id()), &json!("inspection")));
    says(&told, "what", " as inspection for ");
    assert_eq!(answer["healthy"], true, "a program that has its camera is no trouble: {answer}");
    drop(camera);
    assert_quiet();
}

#[test]
fn who_opened_a_camera_itself_inherited_nothing() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    // Parent and child have the same node at the same number, and each has opened it: only the kernel can tell.
    let line = "exec 3<>$1; bash -c 'exec 3<>$1; echo ready $$; read -r' bash $1; true";
    let child = Having::shell(line, &node);
    let answer = diagnosis(&[]);
    let open = answer["findings"].as_array().unwrap().iter().filter(|finding| finding["id"] == "open");
    assert_eq!(open.count(), 2, "{answer}");
    assert_eq!(with_id(&answer, "inherited"), None);
    drop(child);
    assert_quiet();
}

#[test]
fn memory_that_was_forgotten_and_a_first_thread_that_ended() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let mapping = Having::c_program("troubled", &node, "mapping");
    let told = finding("mapping-only", "problem", &node);
    assert_eq!(told["facts"]["pid"], mapping.pid);
    says(&told, "remedy", "munmap");
    drop(mapping);

    let thread = Having::c_program("troubled", &node, "thread");
    let told = finding("zombie-holder", "problem", &node);
    assert_eq!(told["facts"]["pid"], thread.pid);
    says(&told, "remedy", &format!("kill -KILL {}", thread.pid));
    drop(thread);
    assert_quiet();
}

#[test]
fn a_program_that_is_stuck_in_the_driver() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    let node = text(&webcam.node());
    webcam.order("delay-controls 4500");
    // The driver waits for the webcam's answer in a way that no signal ends.
    let told = wait_for("a program to be stuck", PATIENCE * 2, || {
        let mut setting = Command::new("v4l2-ctl").args(["-d", &node, "-c", "brightness=3"]).spawn().unwrap();
        wait_for("it to have the camera", PATIENCE, || {
            let files = fs::read_dir(format!("/proc/{}/fd", setting.id())).ok()?.flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| text(&file) == node).then_some(())
        });
        let answer = diagnosis(&[]);
        setting.kill().unwrap();
        setting.wait().unwrap();
        with_id(&answer, "stuck-holder").cloned()
    });
    assert_eq!(told["facts"]["program"], "v4l2-ctl");
    says(&told, "remedy", &format!("camlease reset {node}"));
    webcam.order("delay-controls 0");
    assert_quiet();
}

#[test]
fn two_webcams_that_ask_for_more_than_their_bus_has() {
    let _alone = alone();
    require_guest();
    vivid::unload();
    let first = Webcam::plug(WebcamOptions::default());
    assert_quiet();
    let second = Webcam::plug(WebcamOptions { serial: "RIG0002".into(), ..WebcamOptions::default() });
    let (one, other) = (text(&first.node()), text(&second.node()));
    let told = finding("usb-bandwidth", "warning", &one);
    for camera in [&one, &other] {
        says(&told, "what", &format!("{camera} (YUYV 640x360 at 30 fps)"));
    }
    assert!(told["facts"]["percent"].as_u64().unwrap() > 100, "{told}");
    says(&told, "what", "480 Mbit/s");
    says(&told, "remedy", "another USB controller");

    // The one that streams has its share: it is the other that is warned of.
    let stream = Stream::start(&first.node());
    let told = finding("usb-bandwidth", "warning", &other);
    says(&told, "what", &format!("{one} (YUYV 640x360 at 30 fps, streaming)"));
    stream.kill();
    drop(second);
    assert_quiet();
}

#[test]
fn a_webcam_without_a_driver_or_not_let_in() {
    let _alone = alone();
    require_guest();
    vivid::unload();
    let webcam = Webcam::plug(WebcamOptions::default());
    let device = webcam.usb_device();
    let name = "usb:1209:0001:RIG0001";
    let authorized = Changed::write(device.join("authorized"), "0");
    let told = finding("not-authorized", "problem", name);
    says(&told, "remedy", &format!("echo 1 | sudo tee {}/authorized", device.display()));
    drop(authorized);
    webcam.node();
    assert_quiet();

    let interface = format!("{}:1.0", device.file_name().unwrap().to_string_lossy());
    fs::write("/sys/bus/usb/drivers/uvcvideo/unbind", &interface).unwrap();
    let told = finding("no-driver", "problem", name);
    says(&told, "remedy", &format!("echo {interface} | sudo tee /sys/bus/usb/drivers/uvcvideo/bind"));

    assert!(Command::new("modprobe").args(["-r", "uvcvideo"]).status().unwrap().success());
    says(&finding("no-driver", "problem", name), "remedy", "sudo modprobe uvcvideo");
    let rule = Path::new("/etc/modprobe.d/no-cameras.conf");
    fs::create_dir_all(rule.parent().unwrap()).unwrap();
    fs::write(rule, "blacklist uvcvideo\n").unwrap();
    let told = finding("no-driver", "problem", name);
    fs::remove_file(rule).unwrap();
    says(&told, "what", "\"blacklist uvcvideo\" in /etc/modprobe.d/no-cameras.conf");
    assert!(Command::new("modprobe").arg("uvcvideo").status().unwrap().success());
    webcam.node();
    assert_quiet();
}

#[test]
fn a_webcam_that_a_program_drives_by_itself() {
    let _alone = alone();
    require_guest();
    vivid::unload();
    let webcam = Webcam::plug(WebcamOptions::default());
    let driver = Having::c_program("troubled", &text(&webcam.usb_node()), "claim");
    let told = finding("driven-by-libusb", "note", "usb:1209:0001:RIG0001");
    assert_eq!(told["facts"]["pid"], driver.pid);
    says(&told, "remedy", &format!("end troubled (pid {})", driver.pid));
    drop(driver);
    // It left the webcam to nobody.
    let told = finding("no-driver", "problem", "usb:1209:0001:RIG0001");
    says(&told, "remedy", "sudo tee /sys/bus/usb/drivers/uvcvideo/bind");
    webcam.unplug();
    webcam.replug();
    assert_quiet();
}

#[test]
fn a_webcam_that_is_gone_and_still_open() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    let node = text(&webcam.node());
    let open = Having::shell("exec 3<>$1", &node);
    webcam.unplug();
    let told = finding("gone-camera-open", "warning", &node);
    assert_eq!(told["facts"]["pid"], open.pid);
    says(&told, "remedy", "/dev/v4l/by-id");
    drop(open);
    assert_quiet();
}

#[test]
fn nodes_and_links_that_are_not_what_they_seem() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let number = fs::metadata(&node).unwrap().rdev();
    let (major, minor) = (libc::major(number), libc::minor(number));

    fs::remove_file(&node).unwrap();
    let told = finding("node-missing", "problem", &node);
    says(&told, "remedy", &format!("mknod {node} c {major} {minor}"));
    fs::write(&node, "a film that went to a node which was not there").unwrap();
    says(&finding("node-wrong", "problem", &node), "what", "an ordinary file");
    fs::remove_file(&node).unwrap();
    make_node(&node, major, minor + 7);
    says(&finding("node-wrong", "problem", &node), "what", &format!("the device {major}:{}", minor + 7));
    fs::remove_file(&node).unwrap();
    make_node(&node, major, minor);
    assert_quiet();

    make_node("/dev/video63", major, 63);
    finding("node-without-camera", "warning", "/dev/video63");
    fs::remove_file("/dev/video63").unwrap();

    fs::create_dir_all("/dev/v4l/by-id").unwrap();
    let link = Path::new("/dev/v4l/by-id/usb-Old_Camera-video-index0");
    symlink("../../video55", link).unwrap();
    finding("dangling-link", "warning", &text(link));
    fs::remove_file(link).unwrap();
    assert_quiet();
}

#[test]
fn folders_for_leases_that_cannot_be_trusted() {
    let _alone = alone();
    require_guest();
    vivid();
    let folder = Path::new("/run/camlease");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).unwrap();
    let set = |mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    let told = || with_id(&diagnosis(&[]), "lease-folder-unsafe").cloned();
    set(0o777);
    says(&told().expect("others could remove files"), "remedy", "sudo chmod +t /run/camlease");
    set(0o1777);
    fs::write(folder.join("v4l2-81-0"), "left by a holder that died").unwrap();
    assert_quiet();
    chown(folder, Some(USER), None).unwrap();
    says(&told().expect("it is another's"), "remedy", "sudo chown root /run/camlease");
    fs::remove_dir_all(folder).unwrap();
    symlink("/tmp", folder).unwrap();
    says(&told().expect("it is a link"), "what", "is a link");
    fs::remove_file(folder).unwrap();
    assert_quiet();
}

#[test]
fn limits_that_are_reached() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    for name in ["max_user_instances", "max_user_watches"] {
        let limit = Changed::write(format!("/proc/sys/fs/inotify/{name}"), "0");
        let answer = diagnosis(&[]);
        let told = with_id(&answer, "inotify-exhausted").unwrap_or_else(|| panic!("{name}: {answer}"));
        says(told, "remedy", &format!("sudo sysctl fs.inotify.{name}=1024"));
        drop(limit);
    }
    let full = Having::shell("exec 3<>$1 4<&0 5<&0 6<&0 7<&0; ulimit -n 8", &node);
    let told = finding("descriptors-near-limit", "warning", &node);
    assert_eq!((&told["facts"]["pid"], &told["facts"]["limit"]), (&json!(full.pid), &json!(8)));
    drop(full);
    assert_quiet();
}

#[test]
fn words_for_a_person() {
    let _alone = alone();
    require_guest();
    let node = vivid();
    let mut stream = Having::c_program("neighbour", &node, "stream");
    let output = doctor(&[&node]);
    let words = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "a program that has its camera is no trouble: {words}");
    let expected = format!("note: neighbour (pid {}, user root, started ", stream.pid);
    assert!(words.starts_with(&expected) && words.contains(&format!(") streams from {node}")), "{words}");
    let remedy =
        format!("\n    remedy: if another program is to have the camera: camlease release {node} takes it from");
    assert!(words.contains(&remedy), "{words}");
    assert!(words.contains("\nno trouble found, 1 note: 1 camera looked at; checks run: "), "{words}");

    // It lets go and keeps the node: still told.
    stream.process.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let words = wait_for("the stream to end", PATIENCE, || {
        let output = doctor(&[&node]);
        let words = String::from_utf8(output.stdout).unwrap();
        words.contains("no memory of it mapped").then_some(words)
    });
    assert!(words.contains("no trouble found, 1 note: 1 camera looked at"), "{words}");
}
