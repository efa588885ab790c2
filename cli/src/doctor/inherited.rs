//! Open cameras that a process did not open itself: it got them from the one who started it, and keeps the camera from
//! being free when that one closes it.

use std::collections::BTreeMap;

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::nodes::Node;
use super::machine::processes::{Descriptor, Process, Processes};

pub fn check(machine: &Machine) -> Vec<Finding> {
    machine.cameras().flat_map(|node| of_node(machine, node)).collect()
}

fn of_node(machine: &Machine, node: &Node) -> Vec<Finding> {
    // The processes that have one open file, by file.
    let mut files: BTreeMap<usize, Vec<(&Process, &Descriptor)>> = BTreeMap::new();
    for process in machine.processes.each() {
        for descriptor in process.open.iter().filter(|descriptor| descriptor.number == node.number) {
            let holders = files.entry(descriptor.file).or_default();
            // A copy in the same process (dup) is no other holder.
            if holders.iter().all(|(holder, _)| holder.pid != process.pid) {
                holders.push((process, descriptor));
            }
        }
    }
    files.values().flat_map(|holders| of_file(machine, node, holders)).collect()
}

fn of_file(machine: &Machine, node: &Node, holders: &[(&Process, &Descriptor)]) -> Vec<Finding> {
    let processes = &machine.processes;
    let mut findings = Vec::new();
    for (process, descriptor) in holders {
        let finding = match giver(processes, process, holders) {
            Some(giver) => Some(from_living(node, process, descriptor, giver)),
            None if holders.len() > 1 => {
                // Several without a common holder above: the first of them stands for the others.
                let first = holders
                    .iter()
                    .map(|(holder, _)| *holder)
                    .find(|holder| giver(processes, holder, holders).is_none());
                let first = first.filter(|first| first.pid != process.pid);
                first.map(|first| from_ended(node, process, descriptor, first))
            }
            None => left_behind(processes, node, process, descriptor),
        };
        findings.extend(finding.map(|finding| {
            finding
                .of(node.path_text())
                .facts(super::holders::facts(machine, process))
                .fact("descriptor", descriptor.fd)
                .fact("close_on_exec", descriptor.closes_on_exec())
                .fact("parents", chain(processes, process))
                .facts(json!({ "process_group": process.group, "session": process.session }))
        }));
    }
    findings
}

/// The nearest of a process's ancestors that has the same open file.
fn giver<'a>(
    processes: &'a Processes,
    process: &'a Process,
    holders: &[(&Process, &Descriptor)],
) -> Option<&'a Process> {
    processes.ancestors(process).find(|above| holders.iter().any(|(holder, _)| holder.pid == above.pid))
}

/// "sh (pid 700)", "systemd (pid 1)"
fn chain(processes: &Processes, process: &Process) -> Vec<String> {
    processes.ancestors(process).map(Process::called).collect()
}

/// What keeps it from happening again, and what helps now.
fn remedy(process: &Process, descriptor: &Descriptor) -> String {
    let code = match process.is_mere_fork || descriptor.closes_on_exec() {
        true => format!("close descriptor {} in the child right after the fork", descriptor.fd),
        false => "open the camera with O_CLOEXEC, so that programs that are started do not get it".to_owned(),
    };
    format!("in the code: {code}. Now: kill {}, if it is not needed", process.pid)
}

fn from_living(node: &Node, process: &Process, descriptor: &Descriptor, giver: &Process) -> Finding {
    let relation = if process.parent == giver.pid { "its parent" } else { "further up" };
    let what = format!(
        "{} has {} from {relation}, {}: descriptor {} is the same open file, and the camera is not free before both \
         have closed it",
        process.called(),
        node.path_text(),
        giver.called(),
        descriptor.fd
    );
    Finding::warning("inherited", what)
        .remedy(remedy(process, descriptor))
        .facts(json!({ "passed_on_by": giver.pid, "passed_on_by_program": giver.program }))
}

fn from_ended(node: &Node, process: &Process, descriptor: &Descriptor, other: &Process) -> Finding {
    let what = format!(
        "{} and {} share one open file of {} (descriptor {}): a parent that has ended passed it on, or it was sent over \
         a socket; the camera is not free before both have closed it",
        process.called(),
        other.called(),
        node.path_text(),
        descriptor.fd
    );
    Finding::warning("inherited", what)
        .remedy(remedy(process, descriptor))
        .facts(json!({ "passed_on_by": null, "shared_with": other.pid }))
}

/// A process alone with a camera, whose parent has ended. The kernel does not tell who opened a file: the descriptor has
/// to be one that starting a program does not close, and no sign of a service of its own.
fn left_behind(processes: &Processes, node: &Node, process: &Process, descriptor: &Descriptor) -> Option<Finding> {
    if !processes.is_orphan(process) || descriptor.closes_on_exec() {
        return None;
    }
    // It uses the camera itself: no mapping outlives the start of a program, and a service that forked to get into the
    // background opens its camera as a mere fork, alone with the open file.
    if process.maps(node.number) {
        return None;
    }
    let leader = |id: i32, what: &str| match processes.get(id) {
        Some(leader) if leader.pid != process.pid => Some(format!("its {what} is that of {}", leader.called())),
        Some(_) => None,
        None => Some(format!("its {what} ({id}) is that of a process that has ended")),
    };
    let leaders: Vec<String> =
        [leader(process.group, "process group"), leader(process.session, "session")].into_iter().flatten().collect();
    let what = format!(
        "{} has {} open by a descriptor ({}) that children inherit, and its parent has ended: probably the parent \
         opened the camera and left it behind; {}",
        process.called(),
        node.path_text(),
        descriptor.fd,
        if leaders.is_empty() { "it leads a process group of its own".into() } else { leaders.join(", ") }
    );
    Some(
        Finding::warning("left-behind", what)
            .remedy(remedy(process, descriptor))
            .facts(json!({ "passed_on_by": null, "parent_ended": true })),
    )
}

#[cfg(test)]
mod tests {
    use super::super::machine::processes::capture::holder;
    use super::super::machine::tree::capture::capture;
    use super::super::machine::usb::capture::plug;
    use super::*;

    fn found(list: Vec<Process>) -> Vec<Finding> {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        machine.processes = Processes::of(list);
        check(&machine)
    }

    fn process(pid: i32, parent: i32, program: &str) -> Process {
        Process { pid, parent, session: 700, group: pid, program: program.into(), ..Process::default() }
    }

    fn init() -> Process {
        Process { session: 1, ..process(1, 0, "systemd") }
    }

    #[test]
    fn a_child_with_its_parents_camera_is_told_and_who_passed_it_on() {
        let shell = process(700, 1, "sh");
        let child = Process { program: "sleep".into(), ..holder(813, 812) };
        let findings = found(vec![init(), shell.clone(), holder(812, 700), child]);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.id, &finding.facts["pid"]), ("inherited", &json!(813)));
        assert_eq!(finding.facts["passed_on_by"], 812);
        assert_eq!(finding.facts["parents"], json!(["grabber (pid 812)", "sh (pid 700)", "systemd (pid 1)"]));
        assert!(finding.remedy.contains("O_CLOEXEC") && finding.remedy.contains("kill 813"), "{}", finding.remedy);

        let fork = Process { is_mere_fork: true, ..holder(813, 812) };
        let forked = found(vec![init(), shell, holder(812, 700), fork]);
        assert!(forked[0].remedy.contains("after the fork"), "{}", forked[0].remedy);
    }

    #[test]
    fn two_who_opened_it_themselves_share_nothing() {
        let shell = process(700, 1, "sh");
        assert_eq!(found(vec![init(), shell.clone(), holder(812, 700), holder(813, 700)]), []);
        // Even a child, where the number is another: it opened the camera once more.
        let mut child = holder(813, 812);
        child.open[0].fd = 9;
        assert_eq!(found(vec![init(), shell, holder(812, 700), child]), []);
    }

    #[test]
    fn what_a_parent_left_behind_is_told() {
        let orphan = Process { group: 690, ..holder(812, 1) };
        let findings = found(vec![init(), process(700, 1, "bash"), orphan.clone()]);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.id, "left-behind");
        assert!(finding.what.contains("its parent has ended"), "{}", finding.what);
        assert!(finding.what.contains("process group (690) is that of a process that has ended"), "{}", finding.what);
        assert!(finding.what.contains("its session is that of bash (pid 700)"), "{}", finding.what);

        let mut tidy = orphan.clone();
        tidy.open[0].flags |= libc::O_CLOEXEC as u32;
        assert_eq!(found(vec![init(), tidy]), [], "nobody inherits such a descriptor over an exec");
        let user = Process { mapped: vec![(81, 0)], ..orphan.clone() };
        assert_eq!(found(vec![init(), user.clone()]), [], "it streams, in a program of its own");
        let service = Process { is_mere_fork: true, ..user };
        assert_eq!(found(vec![init(), service.clone()]), [], "it went into the background and opened the camera there");
        let sharing = Process { is_mere_fork: true, ..holder(813, 812) };
        assert_eq!(found(vec![init(), service, sharing])[0].id, "inherited", "one open file of two");
        let service = Process { session: 812, group: 812, ..orphan };
        assert_eq!(found(vec![init(), service]), [], "a service has the first process as its parent");
    }
}
