//! `make install` of the command, its man pages and completions.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{folder, root, target};

#[test]
fn make_installs_the_command_and_takes_it_away_again() {
    let folder = folder("install");
    let built = folder.join("built");
    fs::create_dir_all(&built).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_camlease"), built.join("camlease")).unwrap();
    for library in ["libcamlease.so", "libcamlease.a"] {
        std::os::unix::fs::symlink(target().join("deps").join(library), built.join(library)).unwrap();
    }
    let prefix = folder.join("prefix");
    let make = |goal: &str| {
        let mut make = Command::new("make");
        for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR", "PREFIX", "LIBDIR", "INCLUDEDIR"] {
            make.env_remove(variable);
        }
        make.arg("-C").arg(root()).arg(goal);
        make.args([format!("BUILT={}", built.display()), format!("PREFIX={}", prefix.display())]);
        let output = make.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    make("install");
    let has = |path: &str| fs::metadata(prefix.join(path)).is_ok_and(|file| file.len() > 0);
    let installed = [
        "bin/camlease",
        "share/man/man1/camlease.1",
        "share/man/man1/camlease-run.1",
        "share/bash-completion/completions/camlease",
        "share/zsh/site-functions/_camlease",
        "share/fish/vendor_completions.d/camlease.fish",
        "share/man/man1/camlease-ctl.1",
        "lib/systemd/system/camlease.service",
        "share/doc/camlease/cameras.toml",
        "lib/libcamlease.so",
        "include/camlease.h",
    ];
    installed.iter().for_each(|path| assert!(has(path), "{path}"));
    let version = Command::new(prefix.join("bin/camlease")).arg("--version").output().unwrap();
    assert!(version.status.success());
    let sample = prefix.join("share/doc/camlease/cameras.toml");
    let checked = Command::new(prefix.join("bin/camlease")).args(["serve", "--check", "--config"]).arg(sample).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    check_unit(&prefix.join("lib/systemd/system/camlease.service"), &prefix.join("bin/camlease"));
    make("uninstall");
    assert_eq!(files_under(&prefix), Vec::<String>::new());
}

/// The service starts what was installed, and systemd understands it, where there is one.
fn check_unit(unit: &Path, command: &Path) {
    let text = fs::read_to_string(unit).unwrap();
    assert!(text.contains(&format!("\nExecStart={} serve\n", command.display())) && !text.contains("@BIN"), "{text}");
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output() {
        Ok(verified) => {
            let complaints = String::from_utf8_lossy(&verified.stderr);
            let ours: Vec<_> = complaints.lines().filter(|line| line.contains("camlease")).collect();
            assert!(verified.status.success() && ours.is_empty(), "{complaints}");
        }
        Err(error) => support::skipped(&format!("systemd-analyze: {error}")),
    }
}

fn files_under(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(files_under(&entry.path())),
            false => files.push(entry.path().display().to_string()),
        }
    }
    files
}
