//! What `camlease serve --check` says of files with mistakes, word for word, and of the example.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::{camlease, folder, json, root, run, told};

fn bad_configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-configs")
}

/// The stems of the files in the folder that have this ending.
fn stems(ending: &str) -> BTreeSet<String> {
    let names = fs::read_dir(bad_configs()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(ending)?.to_owned())).collect()
}

/// Where a message is meant to change: CAMLEASE_WRITE_EXPECTED=1 writes what is said now.
#[test]
fn every_mistake_is_told_with_its_place() {
    let files = stems(".toml");
    assert!(files.len() >= 30, "{}", files.len());
    for name in &files {
        let output = camlease(&["serve", "--check", "--config", &format!("{name}.toml")])
            .current_dir(bad_configs())
            .output()
            .unwrap();
        let (code, out, err) = told(output);
        assert_eq!((code, out.as_str()), (2, ""), "{name}: {err}");
        let expected = bad_configs().join(format!("{name}.expected"));
        if std::env::var_os("CAMLEASE_WRITE_EXPECTED").is_some() {
            fs::write(&expected, &err).unwrap();
        }
        assert_eq!(err, fs::read_to_string(&expected).unwrap_or_default(), "{name}");
        for line in err.lines() {
            let mut parts = line.splitn(4, ':');
            assert_eq!(parts.next(), Some(format!("{name}.toml").as_str()), "{line}");
            assert!(parts.next().unwrap().parse::<usize>().is_ok_and(|line| line > 0), "{line}");
            assert!(parts.next().unwrap().parse::<usize>().is_ok_and(|column| column > 0), "{line}");
        }
    }
    assert_eq!(stems(".expected"), files, "each file has its snapshot, and each snapshot its file");
}

#[test]
fn the_example_has_no_mistakes() {
    let example = root().join("packaging/cameras.toml");
    let example = example.to_str().unwrap();
    let (code, answer) = json(&["serve", "--check", "--config", example]);
    assert_eq!((code, &answer["ok"]), (0, &true.into()), "{answer}");
    assert_eq!(answer["cameras"], serde_json::json!(["front", "front.test"]));
    let (code, out, err) = run(&["serve", "--check", "--config", example]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("no mistakes, front, front.test"), "{out}");
}

#[test]
fn mistakes_are_told_to_programs() {
    let file = bad_configs().join("many.toml");
    let (code, answer) = json(&["serve", "--check", "--config", file.to_str().unwrap()]);
    assert_eq!((code, &answer["ok"]), (2, &false.into()));
    let complaints = answer["complaints"].as_array().unwrap();
    assert_eq!(complaints.len(), fs::read_to_string(bad_configs().join("many.expected")).unwrap().lines().count());
    let slip = &complaints[1];
    assert_eq!((&slip["line"], &slip["column"]), (&6.into(), &5.into()));
    assert_eq!(slip["table"], "camera.front");
    assert_eq!(slip["message"], "there is no key \"widht\"; did you mean \"width\"?");
}

#[test]
fn files_that_cannot_be_read_are_no_mistakes_in_them() {
    let folder = folder("unreadable");
    let missing = folder.join("none.toml");
    let (code, _, err) = run(&["serve", "--check", "--config", missing.to_str().unwrap()]);
    assert_eq!(code, 4, "{err}");
    let binary = folder.join("binary.toml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    let (code, _, err) = run(&["serve", "--check", "--config", binary.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(err.contains("it is no text"), "{err}");
    assert_eq!(run(&["serve", "--check", "--config", folder.to_str().unwrap()]).0, 1);
}
