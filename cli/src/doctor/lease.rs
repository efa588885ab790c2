//! The folders in which holders tell of themselves: usable and trusted, or passed over.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::tree::{Entry, EntryKind};

const OWN: &str = "/run/camlease";
const COMMON: &str = "/tmp";

pub fn check(machine: &Machine) -> Vec<Finding> {
    let chosen = std::env::var_os("CAMLEASE_RUNTIME_DIR").filter(|path| !path.is_empty() && machine.tree.is_live());
    let folders = match chosen {
        Some(path) => vec![PathBuf::from(path)],
        None => vec![PathBuf::from(OWN), PathBuf::from(COMMON)],
    };
    folders.iter().filter_map(|folder| of_folder(machine, folder, &machine.tree.entry_itself(folder)?)).collect()
}

/// Files of holders that ended are left there and do no harm; who could put others' in their place would.
fn of_folder(machine: &Machine, folder: &Path, entry: &Entry) -> Option<Finding> {
    const STICKY: u32 = 0o1000;
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let path = folder.display();
    let is_own = folder == Path::new(OWN);
    let anew = match is_own {
        true => format!("sudo rm -r {path} && sudo install -d -m 1777 {path}"),
        false => "set CAMLEASE_RUNTIME_DIR to a folder that is root's or yours alone, or unset it".into(),
    };
    let (why, remedy) = if entry.kind == EntryKind::Link {
        ("a link".to_owned(), anew)
    } else if entry.kind != EntryKind::Folder {
        ("no folder".to_owned(), anew)
    } else if entry.uid != 0 && (entry.uid != machine.user.uid || is_own) {
        (format!("another user's ({})", machine.user_name(entry.uid)), format!("sudo chown root {path}"))
    } else if entry.mode & WRITABLE_BY_OTHERS != 0 && entry.mode & STICKY == 0 {
        ("writable for others without the sticky bit".to_owned(), format!("sudo chmod +t {path}"))
    } else {
        return None;
    };
    let what = format!(
        "{path}, in which holders of cameras tell of themselves, is {why} (mode {:04o}): it is passed over, and cameras \
         are not handed over between programs through it",
        entry.mode
    );
    Some(Finding::warning("lease-folder-unsafe", what).remedy(remedy).facts(json!({
        "folder": folder.display().to_string(), "mode": format!("{:04o}", entry.mode), "uid": entry.uid,
    })))
}

#[cfg(test)]
mod tests {
    use super::super::machine::tree::capture::capture;
    use super::*;

    fn remedy(kind: EntryKind, mode: u32, uid: u32) -> Option<String> {
        let machine = capture(&[]);
        let machine = Machine::read_from(machine.tree.clone(), 1000, vec![1000]);
        let entry = Entry { kind, mode, uid, gid: 0 };
        of_folder(&machine, Path::new(OWN), &entry).map(|finding| finding.remedy)
    }

    #[test]
    fn only_a_folder_in_which_others_cannot_remove_files_is_fine() {
        for mode in [0o1777, 0o755, 0o700] {
            assert_eq!(remedy(EntryKind::Folder, mode, 0), None, "{mode:o}");
        }
        assert_eq!(remedy(EntryKind::Folder, 0o777, 0).as_deref(), Some("sudo chmod +t /run/camlease"));
        assert_eq!(remedy(EntryKind::Folder, 0o1777, 1000).as_deref(), Some("sudo chown root /run/camlease"));
        for kind in [EntryKind::Link, EntryKind::File] {
            assert!(remedy(kind, 0o777, 0).unwrap().starts_with("sudo rm -r /run/camlease"));
        }
    }

    #[test]
    fn no_folder_at_all_is_fine() {
        let machine = capture(&[]);
        assert_eq!(check(&Machine::read_from(machine.tree.clone(), 0, vec![0])), []);
    }
}
