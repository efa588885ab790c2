//! Holders that cannot let go: stopped, inside the kernel for good, or half ended.

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::nodes::Node;
use super::machine::processes::Process;

pub fn check(machine: &Machine) -> Vec<Finding> {
    machine.cameras().flat_map(|node| of_node(machine, node)).collect()
}

fn of_node(machine: &Machine, node: &Node) -> Vec<Finding> {
    machine
        .processes
        .having(node.number)
        .filter_map(|process| {
            let finding =
                stuck(machine, node, process).or_else(|| stopped(node, process)).or_else(|| zombie(node, process))?;
            Some(finding.of(node.path_text()).facts(super::holders::facts(machine, process)))
        })
        .collect()
}

fn stopped(node: &Node, process: &Process) -> Option<Finding> {
    let path = node.path_text();
    let release = format!("camlease release {path}");
    match process.state {
        'T' => Some(
            Finding::problem(
                "stopped-holder",
                format!("{} is stopped (SIGSTOP, Ctrl+Z) and has {path}: it will not let go", process.called()),
            )
            .remedy(format!("let it go on: kill -CONT {}; or take the camera from it: {release}", process.pid)),
        ),
        't' => Some(
            Finding::problem(
                "traced-holder",
                format!("a debugger has stopped {}, which has {path}: it will not let go", process.called()),
            )
            .remedy(format!("let it go on in the debugger, or end both; or {release}")),
        ),
        _ => None,
    }
}

fn stuck(machine: &Machine, node: &Node, process: &Process) -> Option<Finding> {
    let thread = process.threads.iter().find(|thread| thread.state == 'D')?;
    let path = node.path_text();
    let place = if thread.waits_in.is_empty() { String::new() } else { format!(", in {}", thread.waits_in) };
    let reset = match machine.usb_of(node) {
        Some(_) => format!("camlease reset {path}, or unplug the camera: the driver's call then fails and returns"),
        None => "load the driver's module anew, which may want a restart of the machine".into(),
    };
    Some(
        Finding::problem(
            "stuck-holder",
            format!(
                "{} has {path}, and its thread {} is inside the kernel (state D{place}): no signal reaches it, SIGKILL \
                 neither",
                process.called(),
                thread.id
            ),
        )
        .remedy(format!("{reset}; sudo dmesg may tell what it waits for"))
        .facts(json!({ "thread": thread.id, "waits_in": thread.waits_in })),
    )
}

fn zombie(node: &Node, process: &Process) -> Option<Finding> {
    let living: Vec<i32> =
        process.threads.iter().filter(|thread| !matches!(thread.state, 'Z' | 'X')).map(|thread| thread.id).collect();
    if process.state != 'Z' || living.is_empty() {
        return None;
    }
    let path = node.path_text();
    let count = if living.len() == 1 { "a thread".to_owned() } else { format!("{} threads", living.len()) };
    Some(
        Finding::problem(
            "zombie-holder",
            format!("the first thread of {} has ended, and {count} of it still has {path}", process.called()),
        )
        .remedy(format!(
            "its main function has to end the program, not the thread alone. Now: kill -KILL {}",
            process.pid
        ))
        .facts(json!({ "threads": living })),
    )
}

#[cfg(test)]
mod tests {
    use super::super::machine::processes::capture::{holder, stat};
    use super::super::machine::processes::{Processes, Thread};
    use super::super::machine::tree::capture::capture;
    use super::super::machine::usb::capture::plug;
    use super::*;

    fn found(process: Process) -> Vec<Finding> {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        machine.processes = Processes::of(vec![process]);
        check(&machine)
    }

    fn thread(id: i32, state: char) -> Thread {
        Thread { id, state, waits_in: "usb_start_wait_urb".into() }
    }

    #[test]
    fn each_way_of_not_letting_go_has_its_remedy() {
        let of = |state, threads| found(Process { state, threads, ..holder(812, 700) });
        let one = |state, threads| {
            let findings = of(state, threads);
            assert_eq!(findings.len(), 1, "{findings:?}");
            (findings[0].id, findings[0].remedy.clone())
        };
        let (id, remedy) = one('T', vec![thread(812, 'T')]);
        assert_eq!((id, remedy.starts_with("let it go on: kill -CONT 812")), ("stopped-holder", true));
        assert_eq!(one('t', vec![thread(812, 't')]).0, "traced-holder");
        let (id, remedy) = one('S', vec![thread(812, 'S'), thread(815, 'D')]);
        assert_eq!((id, remedy.starts_with("camlease reset /dev/video0")), ("stuck-holder", true));
        let (id, remedy) = one('Z', vec![thread(812, 'Z'), thread(815, 'S')]);
        assert_eq!((id, remedy.ends_with("kill -KILL 812")), ("zombie-holder", true));
        assert_eq!(of('S', vec![thread(812, 'S')]), []);
        assert_eq!(of('Z', vec![thread(812, 'Z')]), [], "a zombie without threads has nothing");
    }

    #[test]
    fn a_holder_in_state_d_is_found_in_a_capture() {
        let machine = capture(&[
            ("/proc/812/cmdline", "grabber"),
            ("/proc/812/fd/3", "-> /dev/video0"),
            ("/proc/812/task/812/wchan", "usb_start_wait_urb"),
        ]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        for file in ["/proc/812/stat", "/proc/812/task/812/stat"] {
            machine.add(file, stat(812, "grabber", 'D', 700, 812, 700).as_bytes());
        }
        let findings = check(&Machine::read_from(machine.tree.clone(), 0, vec![0]));
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.id, "stuck-holder");
        assert_eq!(finding.facts["waits_in"], "usb_start_wait_urb");
    }
}
