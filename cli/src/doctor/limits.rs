//! Limits of the kernel's that opens run into: notices of files (inotify), and open files of a process.

use std::path::Path;

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::kernel::{InotifyLimit, try_inotify};

/// A holder with less than this part of its descriptors left soon cannot open a camera.
const NEAR: f64 = 0.9;

pub fn check(machine: &Machine) -> Vec<Finding> {
    let mut findings = descriptors(machine);
    if machine.tree.is_live()
        && let Err((limit, error)) = try_inotify(Path::new("/dev"))
    {
        findings.extend(inotify(machine, limit, error.raw_os_error().unwrap_or(0)));
    }
    findings
}

fn inotify(machine: &Machine, limit: InotifyLimit, errno: i32) -> Option<Finding> {
    let (name, what) = match (limit, errno) {
        (InotifyLimit::Instances, libc::EMFILE) => ("max_user_instances", "instances"),
        (InotifyLimit::Watches, libc::ENOSPC) => ("max_user_watches", "watches"),
        _ => return None,
    };
    let now = machine.tree.number(format!("/proc/sys/fs/inotify/{name}")).unwrap_or(0);
    let text = format!(
        "user {} has no inotify {what} left (fs.inotify.{name} is {now}): opens notice up to 50 ms late that a busy \
         camera is free",
        machine.user.name
    );
    let more = (now * 4).max(1024);
    let remedy = format!(
        "sudo sysctl fs.inotify.{name}={more}; for good: echo fs.inotify.{name}={more} | sudo tee \
         /etc/sysctl.d/60-inotify.conf"
    );
    Some(Finding::warning("inotify-exhausted", text).remedy(remedy).facts(json!({ "limit": name, "value": now })))
}

/// Of the processes that have a camera: others are no concern of it.
fn descriptors(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for process in machine.processes.each() {
        let Some(node) = machine.nodes.iter().find(|node| process.has(node.number)) else { continue };
        let (count, Some(most)) = (process.descriptors, process.descriptors_most) else { continue };
        if (count as f64) < most as f64 * NEAR {
            continue;
        }
        let what =
            format!("{} has {count} of {most} descriptors open: soon it can open nothing more", process.called());
        let remedy = format!(
            "look for what it leaves open: ls -l /proc/{}/fd; or give it more: ulimit -n, LimitNOFILE= of its service",
            process.pid
        );
        findings.push(
            Finding::warning("descriptors-near-limit", what)
                .of(node.path_text())
                .remedy(remedy)
                .facts(json!({ "pid": process.pid, "descriptors": count, "limit": most })),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::machine::processes::capture::holder;
    use super::super::machine::processes::{Process, Processes};
    use super::super::machine::tree::capture::capture;
    use super::super::machine::usb::capture::plug;
    use super::*;

    #[test]
    fn a_limit_that_is_reached_is_told_with_a_higher_one() {
        let machine = capture(&[("/proc/sys/fs/inotify/max_user_instances", "128")]);
        let machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        let finding = inotify(&machine, InotifyLimit::Instances, libc::EMFILE).unwrap();
        assert!(finding.remedy.starts_with("sudo sysctl fs.inotify.max_user_instances=1024"), "{}", finding.remedy);
        let other = inotify(&machine, InotifyLimit::Instances, libc::ENOSYS);
        assert_eq!(other, None, "a kernel without inotify is no exhausted one");
    }

    #[test]
    fn a_holder_that_is_near_its_limit_is_told() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        for (count, told) in [(1000, true), (100, false)] {
            let process = Process { descriptors: count, descriptors_most: Some(1024), ..holder(812, 700) };
            machine.processes = Processes::of(vec![process]);
            assert_eq!(!check(&machine).is_empty(), told, "{count}");
        }
    }
}
