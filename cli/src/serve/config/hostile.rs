//! Any text as a configuration: fuzzed (fuzz/), and here what the fuzzer found worth keeping.

use super::{Complaint, World, parse_in};

/// Reads it; what is complained of stands where the complaint says.
pub fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let group = |name: &str| name.len().is_multiple_of(2).then_some(44);
    let uri = |uri: &str| uri.contains("bad").then(|| "a bad name".to_owned());
    let lines = text.split('\n').count();
    match parse_in(&World { group: &group, uri: &uri }, text, "cameras.toml") {
        Ok(config) => {
            assert!(!config.cameras.is_empty(), "a file without a camera was taken");
            for camera in &config.cameras {
                assert!(is_name(&camera.name), "{:?}", camera.name);
                assert!(!camera.uri.starts_with("shared:") && !camera.uri.contains("bad"), "{:?}", camera.uri);
                assert_eq!(camera.width == 0, camera.height == 0);
                assert!(camera.recording.as_ref().is_none_or(|recording| recording.folder.is_absolute()));
            }
            let read = &config.supervision;
            assert!(read.first_delay <= read.longest_delay);
        }
        Err(complaints) => {
            assert!(!complaints.is_empty(), "refused without a reason");
            for complaint in &complaints {
                let Complaint { line, column, message, .. } = complaint;
                assert!((1..=lines).contains(line) && *column >= 1, "{complaint}");
                // Nothing in a file steers the terminal of whoever reads what is wrong with it.
                assert!(!message.is_empty() && !complaint.to_string().contains(char::is_control), "{complaint:?}");
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_kept_is_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/config");
        let mut read = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read(file.unwrap().path()).unwrap();
            super::read(&text);
            // Cut off anywhere, and without any one of its lines.
            (0..text.len()).step_by(7).for_each(|at| super::read(&text[..at]));
            let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            (0..lines.len()).for_each(|at| super::read(&[&lines[..at], &lines[at + 1..]].concat().concat()));
            read += 1;
        }
        assert!(read > 0);
    }
}
