//! What the documents tell a person to type or to write into a file.

mod support;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::process::Command;

use support::{folder, root, run, target, told};

/// The blocks of a language in a document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap_or("").to_owned()).collect()
}

#[test]
fn the_manuals_files_have_no_mistakes() {
    let folder = folder("documents");
    let files = blocks("docs/manual.md", "toml");
    assert!(!files.is_empty());
    for (number, text) in files.iter().enumerate() {
        let path = folder.join(format!("{number}.toml"));
        fs::write(&path, text).unwrap();
        let (code, out, err) = run(&["serve", "--check", "--config", path.to_str().unwrap()]);
        assert_eq!(code, 0, "{text}\n{out}{err}");
    }
}

#[test]
fn the_readmes_way_to_one_camera_for_many_works_as_it_is_typed() {
    let blocks = blocks("README.md", "sh");
    let block = blocks.iter().find(|block| block.contains("camlease serve")).unwrap();
    // Names are the whole machine's.
    let name = format!("readme-{}", std::process::id());
    let typed = block.replace("virtual:test", &format!("virtual:{name}")).replace("front", &name);
    let folder = folder("readme");
    fs::DirBuilder::new().mode(0o700).create(folder.join("run")).unwrap();
    std::os::unix::fs::symlink(root().join("examples-python"), folder.join("examples-python")).unwrap();
    let path = format!("{}:{}", target().display(), std::env::var("PATH").unwrap());
    let script = format!("trap 'kill $!; wait' EXIT\n{typed}");
    let mut command = Command::new("timeout");
    command.args(["120", "bash", "-euc", &script]).current_dir(&folder).env("PATH", path);
    command.env("CAMLEASE_RUNTIME_DIR", folder.join("run"));
    command.env("CAMLEASE_LIBRARY", target().join("deps/libcamlease.so")).env("PYTHONDONTWRITEBYTECODE", "1");
    let (code, out, err) = told(command.output().unwrap());
    assert_eq!(code, 0, "{script}\n{out}{err}");
    assert!(fs::read(folder.join(format!("{name}.png"))).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(out.matches("640x480 YUYV>, 614400 bytes").count(), 3, "{out}");
    assert!(out.contains(&format!("{name}  streams 640x480 YUYV")), "{out}");
    let left = fs::read_dir(folder.join("run")).unwrap().count();
    assert_eq!(left, 0, "nothing is left when it has stopped");
}
