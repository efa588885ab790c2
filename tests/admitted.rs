//! Who may read a shared camera, and who may command it: this user and root, a group, everyone. Visitors are processes of
//! other users; the kernel tells who they are.

mod support;

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use camlease::{Access, Allowed, Camera, Error, Kind, Map, OpenOptions, ShareOptions, ShareStart, StreamRequest};
use support::rough;
use support::stamped::eventually;

const VISIT: &str = "CAMLEASE_TEST_VISIT";
const SECONDS: Duration = Duration::from_secs(20);

const NOBODY: u32 = 65534;
// Nobody's else.
const STRANGER: u32 = 54321;
const READERS: u32 = 54322;
const COMMANDERS: u32 = 54323;
/// How many cameras one process of a crowd opens.
const CROWD: usize = 40;

/// Tries all that a client may, and tells what came of each: a status and its words.
#[test]
fn visits() {
    let Ok(visit) = std::env::var(VISIT) else { return };
    if let Some(name) = visit.strip_prefix("serve ") {
        let _camera = shared(name, Allowed::Everyone, Allowed::Everyone);
        println!("serves");
        return stay();
    }
    if let Some(name) = visit.strip_prefix("crowd ") {
        let open = || Camera::open(&format!("shared:{name}"), OpenOptions::default());
        let (mut held, mut refused) = (Vec::new(), String::new());
        while held.len() < CROWD && refused.is_empty() {
            match open() {
                Ok(camera) => held.push(camera),
                Err(error) => refused = error.to_string(),
            }
        }
        println!("\ncrowd: {} {refused}", held.len());
        return stay();
    }
    let (name, access) = match visit.strip_prefix("monitor ") {
        Some(name) => (name, Access::Monitor),
        None => (&visit[..], Access::Exclusive),
    };
    let tell = |what: &str, outcome: Result<(), Error>| match outcome {
        Ok(()) => println!("{what}: OK"),
        Err(error) => println!("{what}: {} {error}", error.kind().name()),
    };
    let options = OpenOptions { name: "visitor".into(), access, ..OpenOptions::default() };
    let camera = match Camera::open(&format!("shared:{name}"), options) {
        Ok(camera) => camera,
        Err(error) => return tell("open", Err(error)),
    };
    tell("open", Ok(()));
    let started = camera.start(&StreamRequest::default());
    let frame = started.and_then(|_| camera.next_frame(Some(SECONDS)));
    tell("read", frame.map(|frame| assert_eq!(frame.data(0).len(), 64 * 48 * 2)));
    let ask = |verb: &str| {
        let request = Map::from_iter([("do".to_owned(), verb.into())]);
        camera.command(request, SECONDS).map(drop)
    };
    tell("look", ask("status"));
    tell("command", ask("start"));
    tell("control", ask("take-control"));
    let id = camera.controls().unwrap()[0].id;
    tell("set", camera.set_control(id, 10));
}

/// Until it is killed, or whoever started it has ended.
fn stay() {
    std::io::stdin().lines().for_each(drop);
}

fn shared(name: &str, readers: Allowed, commanders: Allowed) -> Camera {
    let camera = Camera::open(&format!("virtual:{name}?width=64&height=48&fps=100"), OpenOptions::default()).unwrap();
    let start = ShareStart::Always;
    camera
        .share(ShareOptions { name: name.to_owned(), readers, commanders, start, ..ShareOptions::default() })
        .unwrap();
    camera
}

/// The test binary once more, as somebody else.
fn as_user(user: u32, group: u32, groups: &[u32], visit: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={group}")]);
    match groups {
        [] => command.arg("--clear-groups"),
        groups => {
            let list: Vec<_> = groups.iter().map(u32::to_string).collect();
            command.arg(format!("--groups={}", list.join(",")))
        }
    };
    command.arg("--").arg(program()).args(["--exact", "visits", "--nocapture", "--test-threads=1", "-q"]);
    command.env(VISIT, visit).stdin(Stdio::piped());
    command
}

/// What somebody says of a visit.
fn visit(user: u32, group: u32, groups: &[u32], visit: &str) -> String {
    support::text(&as_user(user, group, groups, visit).output().unwrap())
}

/// The test binary, where others can run it.
fn program() -> PathBuf {
    folder().join("program")
}

fn folder() -> PathBuf {
    std::env::var_os("CAMLEASE_RUNTIME_DIR").unwrap().into()
}

/// What a visitor says of one thing.
fn of<'a>(told: &'a str, what: &str) -> &'a str {
    told.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": ")).unwrap_or("nothing")
}

#[track_caller]
fn expect(told: &str, expected: &[(&str, &str)]) {
    for (what, words) in expected {
        let said = of(told, what);
        assert!(said.starts_with(words), "{what}: {said:?}, and not {words:?}, of:\n{told}");
    }
}

const ALL: [(&str, &str); 6] =
    [("open", "OK"), ("read", "OK"), ("look", "OK"), ("command", "OK"), ("control", "OK"), ("set", "OK")];
const READ_ONLY: [(&str, &str); 6] = [
    ("open", "OK"),
    ("read", "OK"),
    ("look", "OK"),
    ("command", "PERMISSION"),
    ("control", "PERMISSION"),
    ("set", "PERMISSION"),
];
const COMMAND_ONLY: [(&str, &str); 6] =
    [("open", "OK"), ("read", "PERMISSION"), ("look", "OK"), ("command", "OK"), ("control", "OK"), ("set", "OK")];
const NOTHING: [(&str, &str); 2] = [("open", "PERMISSION"), ("read", "nothing")];

#[test]
fn who_may_read_and_who_may_command() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        skipped("who_may_read_and_who_may_command: only root can be other users as well");
        return;
    }
    if std::env::var_os(VISIT).is_some() {
        return;
    }
    let folder = PathBuf::from("/dev/shm").join(format!("camlease-admitted-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
    // SAFETY: of this process's threads only Rust code reads its environment, under std's lock.
    unsafe { std::env::set_var("CAMLEASE_RUNTIME_DIR", &folder) };
    // By another process: nobody can start what somebody has open for writing.
    assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(program()).status().unwrap().success());
    let name = format!("admitted-{}", std::process::id());
    let (owner, everyone) = (Allowed::Owner, Allowed::Everyone);
    let (readers, commanders) = (Allowed::Group(READERS), Allowed::Group(COMMANDERS));
    let stranger = (NOBODY, STRANGER, &[][..]);
    let member = (NOBODY, READERS, &[][..]);
    let one_of_many = (NOBODY, STRANGER, &[7, READERS][..]);
    let commander = (NOBODY, STRANGER, &[COMMANDERS][..]);
    let both = (NOBODY, COMMANDERS, &[READERS][..]);
    let root = (0, 0, &[][..]);
    let cases = [
        (owner, owner, vec![(stranger, &NOTHING[..]), (member, &NOTHING), (root, &ALL)]),
        (
            readers,
            owner,
            vec![
                (stranger, &NOTHING[..]),
                (member, &READ_ONLY),
                (one_of_many, &READ_ONLY),
                (commander, &NOTHING),
                (root, &ALL),
            ],
        ),
        (readers, readers, vec![(stranger, &NOTHING[..]), (member, &ALL), (one_of_many, &ALL)]),
        (
            readers,
            commanders,
            vec![(stranger, &NOTHING[..]), (member, &READ_ONLY), (commander, &COMMAND_ONLY), (both, &ALL)],
        ),
        (owner, commanders, vec![(member, &NOTHING[..]), (commander, &COMMAND_ONLY), (root, &ALL)]),
        (everyone, owner, vec![(stranger, &READ_ONLY[..]), (member, &READ_ONLY), (root, &ALL)]),
        (everyone, commanders, vec![(stranger, &READ_ONLY[..]), (commander, &ALL)]),
        (everyone, everyone, vec![(stranger, &ALL[..])]),
    ];
    for (may_read, may_command, visitors) in cases {
        let camera = shared(&name, may_read, may_command);
        let door = rough::door(&folder, &name).unwrap();
        let mode = fs::metadata(&door).unwrap().permissions().mode() & 0o777;
        println!("{may_read:?} {may_command:?}: {mode:o}");
        for ((user, group, groups), expected) in visitors {
            let told = visit(user, group, groups, &name);
            println!(
                "  {user}:{group} {groups:?}: {}",
                told.lines().filter(|line| line.contains(": ")).collect::<Vec<_>>().join("; ")
            );
            expect(&told, expected);
        }
        drop(camera);
    }
    // What is said names the camera, who is refused, and what to do.
    let camera = shared(&name, owner, owner);
    let told = visit(NOBODY, STRANGER, &[], &name);
    let words =
        format!("PERMISSION shared:{name}: user 0 serves it for others; its readers setting says who may read it");
    assert_eq!(of(&told, "open"), words);
    drop(camera);
    let camera = shared(&name, readers, commanders);
    let told = visit(NOBODY, STRANGER, &[], &name);
    assert_eq!(
        of(&told, "open"),
        format!("PERMISSION shared:{name}: user {NOBODY} may not read it; its readers setting says who may")
    );
    let told = visit(NOBODY, READERS, &[], &name);
    let words = format!("PERMISSION shared:{name}: user {NOBODY} may read it and not command it; its commanders");
    assert!(of(&told, "command").starts_with(&words), "{told}");
    drop(camera);
    // A monitor commands nothing, whoever it is.
    let camera = shared(&name, everyone, everyone);
    for told in [visit(NOBODY, STRANGER, &[], &format!("monitor {name}")), visit(0, 0, &[], &format!("monitor {name}"))]
    {
        expect(&told, &READ_ONLY);
    }
    drop(camera);

    // A plain user's share is found by everybody, and its readers setting says who is let in.
    let mut serve = as_user(STRANGER, STRANGER, &[], &format!("serve {name}"));
    let mut own = serve.stdout(Stdio::null()).spawn().unwrap();
    eventually("a user's share", || visit(STRANGER, STRANGER, &[], &name), |told| of(told, "read") == "OK");
    for (user, group, expected) in [(STRANGER, STRANGER, &ALL[..]), (0, 0, &ALL), (NOBODY, READERS, &ALL)] {
        expect(&visit(user, group, &[], &name), expected);
    }
    // Whoever takes the name while its process is away is not the one whose camera was opened.
    let reader = Camera::open(&format!("shared:{name}"), OpenOptions::default()).unwrap();
    reader.start(&StreamRequest::default()).unwrap();
    reader.next_frame(Some(SECONDS)).unwrap();
    let mut serve_as = |user: u32| {
        own.kill().unwrap();
        own.wait().unwrap();
        let mut serve = as_user(user, STRANGER, &[], &format!("serve {name}"));
        own = serve.stdout(Stdio::null()).spawn().unwrap();
        eventually("another user's share", || visit(user, STRANGER, &[], &name), |told| of(told, "read") == "OK");
    };
    serve_as(NOBODY);
    while reader.next_frame(Some(Duration::ZERO)).is_ok() {}
    for _ in 0..4 {
        let refused = reader.next_frame(Some(Duration::from_millis(250))).err().unwrap();
        assert_eq!(refused.kind(), Kind::Disconnected, "{refused}");
    }
    let refused = reader.controls().unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound, "{refused}");
    assert!(refused.message().contains(&format!("user {NOBODY} has taken the name")), "{refused}");
    serve_as(STRANGER);
    eventually("its own share", || reader.next_frame(Some(SECONDS)).is_ok(), |came| *came);
    assert!(!reader.controls().unwrap().is_empty());
    reader.close();
    own.kill().unwrap();
    own.wait().unwrap();
    a_crowd_of_one_users_keeps_no_other_user_out(&name);
    fs::remove_dir_all(&folder).unwrap();
}

fn a_crowd_of_one_users_keeps_no_other_user_out(name: &str) {
    let camera = shared(name, Allowed::Everyone, Allowed::Everyone);
    let mut crowd = Vec::new();
    let mut come = || {
        let mut process =
            as_user(NOBODY, STRANGER, &[], &format!("crowd {name}")).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.find_map(|line| line.strip_prefix("crowd: ").map(str::to_owned)).expect("how many came in");
        crowd.push((process, lines));
        told
    };
    assert_eq!(come(), format!("{CROWD} "), "one process alone is no crowd");
    let told = come();
    let words = format!("{} shared:{name}: user {NOBODY} has 64 connections to it already", 64 - CROWD);
    assert!(told.starts_with(&words), "{told}");
    for (user, expected) in [(STRANGER, "OK"), (0, "OK"), (NOBODY, "BUDGET")] {
        let told = visit(user, STRANGER, &[], name);
        assert!(of(&told, "open").starts_with(expected), "{user}: {told}");
    }
    for (process, _) in &mut crowd {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    eventually("the crowd", || camera.share_info().unwrap().clients, |clients| *clients == 0);
    expect(&visit(NOBODY, STRANGER, &[], name), &ALL);
}

/// Said past the test harness, which keeps what passing tests print to itself.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
