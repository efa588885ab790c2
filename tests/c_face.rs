//! The C face as a C program meets it: the header under every language standard, the layouts, the library as it is
//! installed, the examples, the documents' programs, and the header's documentation.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

mod support;
use support::{library, root, run, text};

const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"];

/// Whether a tool is there. Said past the test harness, which keeps what passing tests print to itself.
fn has(tool: &str, lost: &str) -> bool {
    let there = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {lost}: {tool} is not installed (make deps installs it)");
    }
    there
}

/// A folder of this run's own, new and empty. Those of former runs go.
fn folder(name: &str) -> PathBuf {
    static OLD: OnceLock<()> = OnceLock::new();
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    OLD.get_or_init(|| {
        for entry in fs::read_dir(all).into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.strip_prefix("c_face-")?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    });
    let own = all.join(format!("c_face-{}", std::process::id())).join(name);
    fs::create_dir_all(&own).unwrap();
    own
}

fn source(name: &str) -> PathBuf {
    root().join("tests/c").join(name)
}

/// A folder in which programs find the library that was just built, by its SONAME.
fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = folder("library");
        for name in ["libcamlease.so", "libcamlease.so.0"] {
            std::os::unix::fs::symlink(library(), folder.join(name)).unwrap();
        }
        folder
    })
}

/// Compiles and links against the library that was just built.
#[track_caller]
fn compile(compiler: &str, options: &[&str], sources: &[PathBuf], program: &Path) {
    let folder = library_folder();
    let mut command = Command::new(compiler);
    command.args(options).args(WARNINGS).arg("-I").arg(root().join("include")).args(sources).arg("-o").arg(program);
    command.arg("-L").arg(folder).args(["-x", "none", "-lcamlease"]).arg(format!("-Wl,-rpath,{}", folder.display()));
    run(&mut command);
}

/// `make install` of the library that was just built.
#[track_caller]
fn install(variables: &[(&str, &Path)]) {
    let mut make = Command::new("make");
    // What the make that runs the tests hands down is not for this one.
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR", "PREFIX", "LIBDIR", "INCLUDEDIR"] {
        make.env_remove(variable);
    }
    make.arg("-C").arg(root()).arg("install").arg(format!("BUILT={}", library().parent().unwrap().display()));
    run(make.args(variables.iter().map(|(name, value)| format!("{name}={}", value.display()))));
}

/// One installation for the tests that only look at it, and can be moved.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let folder = folder("installed");
        let (first, moved) = (folder.join("first"), folder.join("moved"));
        install(&[("PREFIX", &first)]);
        fs::rename(first, &moved).unwrap();
        moved
    })
}

/// What pkg-config says of an installation, as words.
#[track_caller]
fn pkg_config(options: &[&str], libraries: &Path, root_of_system: Option<&Path>) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_LIBDIR", libraries.join("pkgconfig")).env_remove("PKG_CONFIG_PATH");
    if let Some(root) = root_of_system {
        command.env("PKG_CONFIG_SYSROOT_DIR", root);
    }
    run(command.args(options).arg("camlease")).split_whitespace().map(str::to_owned).collect()
}

/// Builds the program for the installed library with these flags, and runs it.
#[track_caller]
fn works(name: &str, flags: &[String], libraries: &Path) -> PathBuf {
    let program = folder("works").join(name);
    run(Command::new("gcc").args(WARNINGS).arg(source("face_installed.c")).arg("-o").arg(&program).args(flags));
    run(Command::new(&program).env("LD_LIBRARY_PATH", libraries));
    program
}

#[test]
fn the_header_compiles_alone_and_twice_in_every_language() {
    let languages = [
        ("gcc", "c", ["-std=c99", "-std=c11", "-std=c17"]),
        ("g++", "c++", ["-std=c++11", "-std=c++17", "-std=c++20"]),
        ("clang", "c", ["-std=c99", "-std=c11", "-std=c17"]),
        ("clang++", "c++", ["-std=c++11", "-std=c++17", "-std=c++20"]),
    ];
    for (compiler, language, standards) in languages {
        if !has(compiler, "the header under one compiler") {
            continue;
        }
        for standard in standards {
            // As a program's only line, and once more by a program that includes it twice.
            for from in [root().join("include/camlease.h"), source("face_twice.c")] {
                let mut command = Command::new(compiler);
                command.args([standard, "-x", language, "-fsyntax-only", "-Wredundant-decls"]).args(WARNINGS);
                run(command.arg("-I").arg(root().join("include")).arg(from));
            }
        }
    }
}

#[test]
fn layouts_and_initialisers_are_as_programs_were_compiled_with() {
    let folder = folder("layout");
    for (compiler, options) in [("gcc", ["-std=c11", "-xc"]), ("g++", ["-std=c++11", "-xc++"])] {
        let program = folder.join(compiler);
        compile(compiler, &options, &[source("face_layout.c")], &program);
        run(&mut Command::new(program));
    }
}

#[test]
fn any_integer_may_be_passed_for_a_named_value() {
    let program = folder("numbers").join("face_numbers");
    compile("gcc", &["-std=c11"], &[source("face_numbers.c")], &program);
    run(&mut Command::new(program));
}

#[test]
fn pkg_config_finds_an_installed_library() {
    let folder = folder("prefix");
    install(&[("PREFIX", &folder)]);
    let libraries = folder.join("lib");
    let link = |name: &str| fs::read_link(libraries.join(name)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(link("libcamlease.so"), Path::new("libcamlease.so.0"));
    assert_eq!(link("libcamlease.so.0"), PathBuf::from(format!("libcamlease.so.{version}")));
    assert_eq!(pkg_config(&["--modversion"], &libraries, None), [version]);
    works("shared", &pkg_config(&["--cflags", "--libs"], &libraries, None), &libraries);
}

#[test]
fn pkg_config_finds_a_library_that_was_moved_or_staged() {
    let libraries = installed().join("lib");
    works("moved", &pkg_config(&["--define-prefix", "--cflags", "--libs"], &libraries, None), &libraries);

    let stage = folder("stage");
    let multiarch = Path::new("/usr/lib/x86_64-linux-gnu");
    install(&[("DESTDIR", &stage), ("PREFIX", Path::new("/usr")), ("LIBDIR", multiarch)]);
    let libraries = stage.join("usr/lib/x86_64-linux-gnu");
    works("staged", &pkg_config(&["--cflags", "--libs"], &libraries, Some(&stage)), &libraries);
    if has("cmake", "CMake with a LIBDIR of its own") {
        cmake(&stage.join("usr"), "multiarch", &[("CMAKE_LIBRARY_ARCHITECTURE", "x86_64-linux-gnu")]);
    }
}

#[test]
fn a_program_can_take_the_library_into_itself() {
    let libraries = installed().join("lib");
    let mut flags = pkg_config(&["--define-prefix", "--static", "--cflags", "--libs"], &libraries, None);
    for flag in &mut flags {
        if flag == "-lcamlease" {
            *flag = "-l:libcamlease.a".to_owned();
        }
    }
    let program = works("static", &flags, &libraries);
    let needed = run(Command::new("readelf").arg("-d").arg(program));
    assert!(!needed.contains("libcamlease"), "{needed}");
}

#[test]
fn uninstall_leaves_no_file() {
    let folder = folder("uninstall");
    install(&[("PREFIX", &folder)]);
    run(Command::new("make").arg("-C").arg(root()).arg("uninstall").arg(format!("PREFIX={}", folder.display())));
    let left = run(Command::new("find").arg(&folder).args(["!", "-type", "d"]));
    assert_eq!(left, "");
}

/// Configures and builds the examples by CMake; where they are then.
#[track_caller]
fn cmake(prefix: &Path, name: &str, variables: &[(&str, &str)]) -> PathBuf {
    let build = folder("cmake").join(name);
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(root().join("examples-c")).arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    run(configure.args(variables.iter().map(|(name, value)| format!("-D{name}={value}"))));
    run(Command::new("cmake").arg("--build").arg(&build));
    build
}

#[test]
fn cmake_finds_an_installed_library() {
    if !has("cmake", "the CMake package") {
        return;
    }
    let build = cmake(installed(), "moved", &[]);
    let picture = folder("cmake").join("picture");
    run(Command::new(build.join("capture")).arg("virtual:face-cmake?fps=200").arg(&picture));
    assert!(picture.with_extension("ppm").exists());

    for (asked, fits) in [("0.1", true), ("0.1.0", true), ("0.99", false), ("1.0", false)] {
        let project = folder("versions").join(asked);
        fs::create_dir_all(&project).unwrap();
        let lines =
            format!("cmake_minimum_required(VERSION 3.13)\nproject(x C)\nfind_package(camlease {asked} REQUIRED)\n");
        fs::write(project.join("CMakeLists.txt"), lines).unwrap();
        let mut command = Command::new("cmake");
        command.arg("-S").arg(&project).arg("-B").arg(project.join("build"));
        let output = command.arg(format!("-DCMAKE_PREFIX_PATH={}", installed().display())).output().unwrap();
        assert_eq!(output.status.success(), fits, "version {asked}: {}", text(&output));
    }
}

/// The examples, built by their own Makefile against the installed library.
fn examples() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = folder("examples");
        let libraries = installed().join("lib");
        let mut make = Command::new("make");
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
        make.arg("-C").arg(root().join("examples-c")).arg(format!("OUT={}", folder.display()));
        make.arg(format!("PKG_CONFIG_PATH={}", libraries.join("pkgconfig").display()))
            .arg("PKG_CONFIG=pkg-config --define-prefix");
        run(make.arg(format!("LDFLAGS=-Wl,-rpath,{}", libraries.display())));
        folder
    })
}

fn example(name: &str) -> Command {
    Command::new(examples().join(name))
}

#[test]
fn examples_without_arguments_say_how_they_are_used() {
    for name in ["capture", "wait_busy", "two_cameras", "recover", "share", "shared_reader"] {
        let output = example(name).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(text(&output).contains("usage: "), "{name}");
    }
    assert_eq!(example("list").arg("x").output().unwrap().status.code(), Some(2));
}

#[test]
fn capture_saves_the_colour_bars_of_every_format() {
    let folder = folder("pictures");
    for fourcc in ["YUYV", "UYVY", "NV12", "GREY", "RGB3", "BGR3"] {
        let prefix = folder.join(fourcc);
        run(example("capture")
            .arg(format!("virtual:face-{fourcc}?fourcc={fourcc}&width=64&height=48&fps=500"))
            .arg(&prefix));
        let ppm = fs::read(prefix.with_extension("ppm")).unwrap();
        let head = b"P6\n64 48\n255\n";
        assert!(ppm.starts_with(head) && ppm.len() == head.len() + 64 * 48 * 3, "{fourcc}");
        let pixel = |x: usize| &ppm[head.len() + (20 * 64 + x) * 3..][..3];
        let (yellow, blue): ([u8; 3], [u8; 3]) = match fourcc {
            "GREY" => ([162; 3], [35; 3]),
            _ => ([191, 191, 0], [0, 0, 191]),
        };
        let near = |found: &[u8], wanted: [u8; 3]| found.iter().zip(wanted).all(|(&a, b)| a.abs_diff(b) <= 3);
        assert!(near(pixel(12), yellow), "{fourcc}: {:?} is not yellow", pixel(12));
        assert!(near(pixel(52), blue), "{fourcc}: {:?} is not blue", pixel(52));
    }
}

#[test]
fn capture_keeps_a_jpeg_as_it_is() {
    let folder = folder("jpeg");
    let red = fs::read(root().join("tests/data/red.jpg")).unwrap();
    fs::write(folder.join("recording.mjpeg"), red.repeat(3)).unwrap();
    let uri = format!("file:{}?loop=1&fps=200", folder.join("recording.mjpeg").display());
    run(example("capture").arg(uri).arg(folder.join("picture")));
    assert_eq!(fs::read(folder.join("picture.jpg")).unwrap(), red);
}

#[test]
fn capture_tells_who_has_the_camera() {
    let mut holder = example("wait_busy").arg("virtual:face-held").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with("the first frame")));

    let output = example("capture").args(["virtual:face-held", "/nowhere/picture", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains(&format!("wait_busy (pid {}, ", holder.id())) && said.contains("streaming"), "{said}");

    let listed = run(&mut example("list"));
    assert!(listed.contains("virtual:face-held"), "{listed}");
    assert!(listed.contains(&format!("streaming by pid {}, ", holder.id())), "{listed}");

    // SAFETY: a child of ours that has not been waited for.
    unsafe { libc::kill(holder.id() as i32, libc::SIGINT) };
    assert_eq!(holder.wait().unwrap().code(), Some(130), "Ctrl+C ends it in good order");
}

#[test]
fn ctrl_c_ends_a_wait() {
    let mut holder = example("wait_busy").arg("virtual:face-wait").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(holder.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().ends_with("the first frame")));
    let mut waiter = example("wait_busy").arg("virtual:face-wait").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(waiter.stdout.take().unwrap()));
    let named = format!("holder: pid {}, ", holder.id());
    assert!(lines.any(|line| line.unwrap().contains(&named)));
    // SAFETY: a child of ours that has not been waited for.
    unsafe { libc::kill(waiter.id() as i32, libc::SIGINT) };
    assert_eq!(waiter.wait().unwrap().code(), Some(130));
    assert!(lines.any(|line| line.unwrap().ends_with("no longer waiting")));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn two_cameras_stream_in_one_loop() {
    let said = run(example("two_cameras").args(["virtual:face-left?fps=200", "virtual:face-right?fps=100", "5"]));
    for side in ["face-left", "face-right"] {
        assert!(said.lines().filter(|line| line.contains(side)).count() >= 5, "{said}");
    }
}

#[test]
fn recover_goes_on_after_an_unplug() {
    let said = run(example("recover").args(["virtual:face-recover?unplug=10&return=100&fps=10", "25"]));
    assert!(said.contains("25 frames, opened 3 times"), "{said}");
}

/// A program that runs, and what it prints.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            std::io::BufRead::lines(said).map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Running { child, lines }
    }

    /// Waits for a line that begins so.
    #[track_caller]
    fn says(&self, begin: &str) -> String {
        let mut before = String::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.starts_with(begin) => return line,
                Ok(line) => before += &format!("\n  {line}"),
                Err(error) => panic!("\"{begin}\" was not said ({error}):{before}"),
            }
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a child of ours that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Has it end by Ctrl+C; its exit code.
    fn interrupt(&mut self) -> Option<i32> {
        self.signal(libc::SIGINT);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn readers_of_a_shared_camera_go_on_when_its_process_was_killed_and_comes_back() {
    let name = format!("face-share-{}", std::process::id());
    let share = |query: &str| Running::start(example("share").arg(format!("virtual:{name}?fps=50&{query}")).arg(&name));
    let read = |arguments: &[&str]| Running::start(example("shared_reader").args(arguments));
    let every = format!("{name}?every=2");
    // One that is there before the camera, and one that comes later and takes all it can get.
    let early = read(&[&every]);
    let mut sharing = share("width=320&height=240");
    sharing.says("frame ");
    let late = read(&[&name, "--in-order", "--hold", "3"]);
    let mut readers = [early, late];
    for reader in &readers {
        assert_eq!(reader.says("format: "), "format: 320x240 YUYV");
    }
    sharing.signal(libc::SIGKILL);
    sharing.child.wait().unwrap();
    for reader in &readers {
        assert!(reader.says("no frames: ").contains("its process is gone"));
    }
    sharing = share("width=160&height=120");
    for reader in &readers {
        reader.says("frames come again");
        assert_eq!(reader.says("format: "), "format: 160x120 YUYV");
    }
    let status = run(example("shared_reader").args([&name, "--status"]));
    assert_eq!(status.matches("\"name\":\"shared_reader\"").count(), 2, "{status}");
    for mode in ["newest, every 2", "in order"] {
        assert!(status.contains(&format!("\"mode\":\"{mode}\"")), "{status}");
    }
    run(example("shared_reader").args([&name, "--stop"]));
    for reader in &readers {
        assert!(reader.says("no frames: ").contains("stopped by command"));
    }
    run(example("shared_reader").args([&name, "--start"]));
    for reader in &mut readers {
        reader.says("frames come again");
        assert_eq!(reader.interrupt(), Some(130));
    }
    assert_eq!(sharing.interrupt(), Some(0));
    assert!(sharing.says("status ").contains(&format!("\"name\":\"{name}\"")));
    let gone = example("shared_reader").args([&name, "--status"]).output().unwrap();
    assert!(!gone.status.success() && text(&gone).contains("nobody serves a camera by this name"), "{}", text(&gone));
}

#[test]
fn the_examples_of_sharing_are_cpp_as_well() {
    for compiler in ["g++", "clang++"] {
        if !has(compiler, "the examples under one C++ compiler") {
            continue;
        }
        for name in ["share.c", "shared_reader.c"] {
            let mut command = Command::new(compiler);
            command.args(["-std=c++11", "-fsyntax-only"]).args(WARNINGS).arg("-I").arg(root().join("include"));
            run(command.args(["-x", "c++"]).arg(root().join("examples-c").join(name)));
        }
    }
}

#[test]
fn examples_leave_no_memory_behind() {
    if !has("valgrind", "memory that the examples leave behind") {
        return;
    }
    let picture = folder("valgrind").join("picture");
    let programs: [(&str, &[&str]); 5] = [
        ("list", &[]),
        ("capture", &["virtual:face-memory?width=64&height=48", picture.to_str().unwrap()]),
        ("wait_busy", &["virtual:face-memory-wait?width=64&height=48&busy=3", "5"]),
        ("two_cameras", &["virtual:face-memory-a?width=64&height=48", "virtual:face-memory-b?width=64&height=48", "3"]),
        ("recover", &["virtual:face-memory-r?width=64&height=48&unplug=3&return=100", "5"]),
    ];
    let checked = |name: &str| {
        let mut command = Command::new("valgrind");
        command.args(["-q", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect", "--error-exitcode=9"]);
        command.arg(examples().join(name));
        command
    };
    for (name, arguments) in programs {
        run(checked(name).args(arguments));
    }
    let name = format!("face-memory-{}", std::process::id());
    let mut sharing =
        Running::start(checked("share").arg(format!("virtual:{name}?width=64&height=48&fps=20")).arg(&name));
    sharing.says("frame ");
    run(checked("shared_reader").args([&name, "--count", "5"]));
    run(checked("shared_reader").args([&name, "--status"]));
    assert_eq!(sharing.interrupt(), Some(0));
}

/// The blocks of C in a document.
fn blocks(document: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let blocks = text.split("```c\n").skip(1).map(|rest| rest.split("```").next().unwrap_or("").to_owned());
    blocks.collect()
}

#[test]
fn the_programs_in_the_documents_compile() {
    let folder = folder("documents");
    let first = blocks("README.md").remove(0);
    let code = folder.join("readme.c");
    fs::write(&code, first).unwrap();
    let program = folder.join("readme");
    compile("gcc", &["-std=c99"], &[code], &program);
    let said = run(Command::new(program).arg("virtual:face-readme?fps=500"));
    assert!(said.contains("640x480"), "{said}");

    // The manual's are functions.
    let headers =
        "#include <camlease.h>\n#include <poll.h>\n#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\n";
    for (number, block) in blocks("docs/manual.md").iter().enumerate() {
        let code = folder.join(format!("manual-{number}.c"));
        fs::write(&code, format!("{headers}{block}")).unwrap();
        let mut command = Command::new("gcc");
        command.args(["-std=c11", "-fsyntax-only", "-Wno-unused-function"]).args(WARNINGS);
        run(command.arg("-D_POSIX_C_SOURCE=200809L").arg("-I").arg(root().join("include")).arg(code));
    }
}

#[test]
fn the_header_is_documented_whole() {
    if !has("doxygen", "the header's documentation") {
        return;
    }
    let mut doxyfile = fs::read_to_string(root().join("Doxyfile")).unwrap();
    doxyfile += &format!("\nOUTPUT_DIRECTORY = {}\n", folder("doxygen").display());
    let check = |doxyfile: &str| {
        let mut doxygen = Command::new("doxygen")
            .arg("-")
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        doxygen.stdin.take().unwrap().write_all(doxyfile.as_bytes()).unwrap();
        doxygen.wait_with_output().unwrap()
    };
    let output = check(&doxyfile);
    assert!(output.status.success(), "{}", text(&output));
    assert!(folder("doxygen").join("html/camlease_8h.html").exists());

    // The check itself is checked: a parameter without a word fails it.
    let header = fs::read_to_string(root().join("include/camlease.h")).unwrap();
    let bare = folder("doxygen-bare").join("camlease.h");
    fs::write(
        &bare,
        header.replace(" * @param timeout_ms Milliseconds to wait; 0 tries once, -1 waits without end.\n", ""),
    )
    .unwrap();
    let output = check(&(doxyfile + &format!("INPUT = {}\n", bare.display())));
    assert!(!output.status.success() && text(&output).contains("timeout_ms"), "{}", text(&output));
}
