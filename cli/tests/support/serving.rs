//! `camlease serve` as a program of its own, and what it logs.

#![allow(dead_code)] // each test uses its part of this

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;

use crate::support::{camlease, end_of, folder, signal, wait_for};

/// `camlease serve` with a file and a runtime folder of its own, and what it logs.
pub struct Serving {
    pub child: Child,
    pub folder: PathBuf,
    pub log: Arc<Mutex<Vec<String>>>,
    /// Lines that were looked at before.
    seen: usize,
}

/// Times that a test can wait for.
pub const QUICK: &str = "[supervisor]\nfirst_delay = \"50ms\"\nlongest_delay = \"200ms\"\nheartbeat = \"100ms\"\n";

impl Serving {
    pub fn start(test: &str, config: &str) -> Serving {
        Serving::start_with(test, config, |_| ())
    }

    /// In the runtime folder that this test's own handles use: names are the whole machine's then.
    pub fn start_for_all(test: &str, config: &str) -> Serving {
        Serving::start_with(test, config, |command| match std::env::var_os("CAMLEASE_RUNTIME_DIR") {
            Some(folder) => {
                command.env("CAMLEASE_RUNTIME_DIR", folder);
            }
            None => {
                command.env_remove("CAMLEASE_RUNTIME_DIR");
            }
        })
    }

    pub fn start_with(test: &str, config: &str, prepare: impl FnOnce(&mut Command)) -> Serving {
        let folder = folder(test);
        fs::DirBuilder::new().mode(0o700).create(folder.join("run")).unwrap();
        fs::write(folder.join("cameras.toml"), config).unwrap();
        let mut command = camlease(&["serve", "--config", folder.join("cameras.toml").to_str().unwrap()]);
        command.env("CAMLEASE_RUNTIME_DIR", folder.join("run")).env_remove("JOURNAL_STREAM");
        let (reader, writer) = std::io::pipe().unwrap();
        let pipe = fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer))).unwrap();
        command.env("PIPE", format!("{}:{}", pipe.dev(), pipe.ino()));
        command.stdout(Stdio::null()).stderr(writer);
        prepare(&mut command);
        let child = command.spawn().unwrap();
        drop(command); // and with it the pipe's end
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                eprintln!("  {line}");
                lines.lock().unwrap().push(line);
            }
        });
        Serving { child, folder, log, seen: 0 }
    }

    /// The next line that has this in it.
    #[track_caller]
    pub fn line(&mut self, text: &str) -> String {
        let (log, from) = (self.log.clone(), self.seen);
        let (at, line) = wait_for(&format!("\"{text}\" in the log"), || {
            let log = log.lock().unwrap();
            let at = (from..log.len()).find(|at| log[*at].contains(text))?;
            Some((at, log[at].clone()))
        });
        self.seen = at + 1;
        line
    }

    /// The pid of the process that is started next for this camera.
    #[track_caller]
    pub fn started(&mut self, name: &str) -> i32 {
        let line = self.line(&format!("{name}: started (pid "));
        line.rsplit(' ').next().unwrap().trim_end_matches(')').parse().unwrap()
    }

    #[track_caller]
    pub fn served(&mut self, name: &str) -> i32 {
        let pid = self.started(name);
        self.line(&format!("{name}: ")); // whatever it says first comes from the process itself
        self.wait_until_served(name);
        pid
    }

    #[track_caller]
    pub fn wait_until_served(&self, name: &str) {
        let log = self.log.clone();
        wait_for("the camera to be served", || {
            let log = log.lock().unwrap();
            let started = log.iter().rposition(|line| line.contains(&format!("{name}: started")))?;
            log[started..]
                .iter()
                .any(|line| line.contains(&format!("{name}: ")) && line.contains(" is served"))
                .then_some(())
        });
    }

    pub fn count(&self, text: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.folder.join("cameras.toml"), config).unwrap();
        self.signal(Signal::SIGHUP);
    }

    pub fn signal(&self, sent: Signal) {
        signal(self.child.id() as i32, sent);
    }

    pub fn left_in_the_runtime_folder(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join("run")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(end_of(&mut self.child).code(), Some(0));
        assert_eq!(self.left_in_the_runtime_folder(), Vec::<String>::new());
    }
}

/// A name to share a camera by that no other test uses.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
