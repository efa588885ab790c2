//! Cameras and holders as the command tells them: in words, and as JSON with keys that stay.

use std::time::Duration;

use camlease::{Activity, Condition, Error, Format, Found, Holder, Holders, Outcome, State};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint, kind_name};

/// Why something did not work, inside of a larger answer.
#[derive(Debug, Serialize)]
pub struct ErrorJson {
    pub kind: &'static str,
    pub message: String,
    pub errno: i32,
    pub exit_code: u8,
}

impl From<&Error> for ErrorJson {
    fn from(error: &Error) -> ErrorJson {
        ErrorJson {
            kind: kind_name(error.kind()),
            message: error.message().to_owned(),
            errno: error.errno(),
            exit_code: Exit::of(error.kind()).0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HolderJson {
    pub pid: i32,
    pub uid: u32,
    pub start_time: u64,
    pub activity: &'static str,
    pub condition: &'static str,
    pub command: String,
    /// What it tells of itself; null for a program without this library.
    pub lease: Option<LeaseJson>,
    pub other_node: Option<String>,
    pub locks_other_node: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeaseJson {
    pub name: String,
    pub priority: i32,
    /// CLOCK_BOOTTIME.
    pub since_ns: u64,
    pub streaming: bool,
    /// The name by which it shares the camera, which `shared:NAME` opens.
    pub share: Option<String>,
}

impl From<&Holder> for HolderJson {
    fn from(holder: &Holder) -> HolderJson {
        HolderJson {
            pid: holder.pid,
            uid: holder.uid,
            start_time: holder.start_time,
            activity: match holder.activity {
                Activity::Open => "open",
                Activity::Streaming => "streaming",
            },
            condition: match holder.condition {
                Condition::Alive => "alive",
                Condition::Stopped => "stopped",
                Condition::Stuck => "stuck",
                Condition::Zombie => "zombie",
            },
            command: holder.command.clone(),
            lease: holder.lease.as_ref().map(|lease| LeaseJson {
                name: lease.name.clone(),
                priority: lease.priority,
                since_ns: lease.since_ns,
                streaming: lease.streaming,
                share: lease.share.clone(),
            }),
            other_node: holder.other_node.as_ref().map(|node| node.display().to_string()),
            locks_other_node: holder.locks_other_node,
        }
    }
}

pub fn holders_json(holders: &Holders) -> Vec<HolderJson> {
    holders.list.iter().map(HolderJson::from).collect()
}

pub fn state_name(state: State) -> &'static str {
    match state {
        State::Free => "free",
        State::Open => "open",
        State::Streaming => "streaming",
        State::Unknown => "unknown",
    }
}

pub fn state_paint(state: State) -> Paint {
    match state {
        State::Free => Paint::Good,
        State::Open => Paint::Warn,
        State::Streaming => Paint::Bad,
        State::Unknown => Paint::Faint,
    }
}

pub fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::None => "none",
        Outcome::Yielded => "yielded",
        Outcome::Terminated => "terminated",
        Outcome::Killed => "killed",
        Outcome::Refused => "refused",
        Outcome::Survived => "survived",
    }
}

/// How long ago a holder got the camera, where it tells.
pub fn held_for(holder: &Holder) -> Option<Duration> {
    let since = holder.lease.as_ref().map(|lease| lease.since_ns).filter(|since| *since > 0)?;
    let now: Duration = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.into();
    now.checked_sub(Duration::from_nanos(since))
}

/// What else is to be said of a holder than [`Holder`]'s own line, one line each.
pub fn details(holder: &Holder) -> Vec<String> {
    let mut lines = vec![format!("command: {}", holder.command)];
    // Its name and priority stand in the holder's own line.
    lines.extend(held_for(holder).map(|time| format!("has it for {}", naming::shown(time))));
    lines.extend(match holder.condition {
        Condition::Alive => None,
        Condition::Stopped => Some(format!(
            "stopped (Ctrl+Z, SIGSTOP or a debugger): it answers nobody; kill -CONT {} lets it go on",
            holder.pid
        )),
        Condition::Stuck => {
            Some("stuck in the kernel (state D): no signal reaches it, a driver or the device hangs".into())
        }
        Condition::Zombie => Some("its first thread has ended, others of it go on".into()),
    });
    lines
}

/// That there may be holders whom this user cannot see.
pub fn incomplete(unreadable: usize) -> Option<String> {
    let processes = if unreadable == 1 { "1 process".into() } else { format!("{unreadable} processes") };
    (unreadable > 0).then(|| {
        format!("the open files of {processes} of other users cannot be read, so there may be more; root sees all: sudo camlease ...")
    })
}

/// A camera of the machine, in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraJson {
    pub uri: String,
    pub name: String,
    pub driver: String,
    pub serial: String,
    pub bus: String,
    pub state: &'static str,
}

impl From<&Found> for CameraJson {
    fn from(found: &Found) -> CameraJson {
        let identity = &found.identity;
        CameraJson {
            uri: identity.uri.clone(),
            name: identity.name.clone(),
            driver: identity.driver.clone(),
            serial: identity.serial.clone(),
            bus: identity.bus.clone(),
            state: state_name(found.state),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct FormatJson {
    pub fourcc: String,
    pub description: String,
    pub compressed: bool,
    pub width: RangeJson,
    pub height: RangeJson,
    pub fps_least: f64,
    pub fps_most: f64,
}

#[derive(Debug, Serialize)]
pub struct RangeJson {
    pub least: u32,
    pub most: u32,
    pub step: u32,
}

impl From<(u32, u32, u32)> for RangeJson {
    fn from((least, most, step): (u32, u32, u32)) -> RangeJson {
        RangeJson { least, most, step }
    }
}

impl From<&Format> for FormatJson {
    fn from(format: &Format) -> FormatJson {
        FormatJson {
            fourcc: format.fourcc.to_string(),
            description: format.description.clone(),
            compressed: format.compressed,
            width: format.width.into(),
            height: format.height.into(),
            fps_least: format.slowest.per_second(),
            fps_most: format.fastest.per_second(),
        }
    }
}

/// One line for each pixel format: its sizes and its fastest rate.
pub fn formats_in_short(formats: &[Format]) -> Vec<String> {
    let mut codes = Vec::new();
    formats.iter().for_each(|format| {
        if !codes.contains(&format.fourcc) {
            codes.push(format.fourcc);
        }
    });
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let line = |code| {
        let of_it = || formats.iter().filter(move |format| format.fourcc == code);
        let least = of_it().map(|format| (format.width.0, format.height.0)).min_by_key(|size| area(*size));
        let most = of_it().map(|format| (format.width.1, format.height.1)).max_by_key(|size| area(*size));
        let ((w, h), (most_w, most_h)) = least.zip(most)?;
        let sizes = if (w, h) == (most_w, most_h) { String::new() } else { format!(" to {most_w}x{most_h}") };
        let fastest = of_it().map(|format| format.fastest).max_by(|a, b| a.per_second().total_cmp(&b.per_second()))?;
        let rate = if fastest.is_set() { format!(", up to {fastest}") } else { String::new() };
        Some(format!("{code} {w}x{h}{sizes}{rate}"))
    };
    codes.into_iter().filter_map(line).collect()
}

/// "who is waited for", painted for standard error.
pub fn note_holders(output: &Output, holders: &Holders) {
    for holder in &holders.list {
        output.note(format_args!("  {}", output.paint_note(Paint::Strong, holder)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camlease::{FourCc, Rate};

    #[test]
    fn formats_are_summed_up_by_pixel_format() {
        let yuyv = FourCc::new(b"YUYV");
        let formats = [
            Format::single(yuyv, "YUYV 4:2:2", false, 640, 480, Rate::new(30, 1)),
            Format::single(yuyv, "YUYV 4:2:2", false, 1280, 720, Rate::new(10, 1)),
            Format::single(FourCc::new(b"MJPG"), "Motion-JPEG", true, 1280, 720, Rate::new(30, 1)),
        ];
        let lines = formats_in_short(&formats);
        assert_eq!(lines, ["YUYV 640x480 to 1280x720, up to 30 fps", "MJPG 1280x720, up to 30 fps"]);
    }
}
