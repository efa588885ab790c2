//! What the documents tell a person to type or to write into a file.

mod support;

use std::fs;

use support::{folder, root, run};

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
