//! `camlease ctl`: commands to the process that shares a camera.

mod telling;

use std::os::fd::AsFd;
use std::time::Duration;

use camlease::{Camera, Error, FourCc, Kind, Map, OpenOptions};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::{Value, json};

use crate::naming;
use crate::output::{Exit, Output, Paint};
use crate::signals::{Signals, wait};

/// For the help.
pub const JSON: &str = r#"Without a name: what is shared on this machine. With a name alone: its status.

JSON without a name: {"shares": [{"name", "pid", "uid", "streaming"}]}
Else it is the camera process's answer as it came, {"camlease": 1, "id", "ok": true, ...}:
  status      "name", "uri", "camera", "pid", "streaming", "format": {"width", "height", "fourcc", "fps": [30, 1], "stride", ...} or null, "published", "dropped", "copied", "lent", "generation", "controller": {"pid", "name", "priority"} or null, "readers": [{"pid", "uid", "name", "mode", "hold", "held", "lag", "taken", "lost", "since_ms"}], "trouble": {"status", "message", ...} or null, "stopped", "pulse_ms", "preview", "recording"
  formats     "formats": [{"fourcc", "description", "compressed", "width": [least, most, step], "height": [...], "slowest": [1, 1], "fastest": [30, 1]}]
  controls    "controls": [{"id", "name", "kind", "minimum", "maximum", "step", "default", "value", "readable", "writable", "active", "menu": [[0, "Manual"]]}]
  control     "control": its number, "name", "value"
  format, start, stop   "format"
  preview     "on", "readers", "width", "height", "frames", "error"
  record      "on", "file", "frames", "bytes", "seconds", "thinned", "damaged", "missed", "error", "ended"
  snapshot    "file", "width", "height", "bytes", "sequence", "timestamp_ns"
A refusal comes on standard error, as with every other command."#;

/// How long an answer may take: a camera that is slow to start takes seconds.
const TIMEOUT: &str = "10s";

/// How often a controller looks whether it is one still.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub struct Args {
    /// What the camera is shared as; shared:NAME is the same
    #[arg(value_parser = name)]
    name: Option<String>,
    /// How long the answer may take
    #[arg(long, global = true, value_name = "TIME", value_parser = naming::time, default_value = TIMEOUT)]
    timeout: Duration,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show what is streamed, who reads it, and how far each reader is; the same as the name alone
    #[command(override_usage = "camlease ctl NAME status")]
    Status,
    /// Have it stream, whether somebody reads or not
    #[command(override_usage = "camlease ctl NAME start")]
    Start,
    /// Have it stop, whoever reads: they wait until it is started again
    #[command(override_usage = "camlease ctl NAME stop")]
    Stop,
    /// Have it stream another size, rate or pixel format, to all who read
    #[command(override_usage = "camlease ctl NAME format [WxH][@FPS] [FOURCC]")]
    Format {
        /// 1280x720, 1280x720@30, @15, MJPG, or a size and then a pixel format
        #[arg(required = true, num_args = 1..=2, value_names = ["WxH[@FPS]", "FOURCC"])]
        wanted: Vec<String>,
    },
    /// Show what sizes, rates and pixel formats the camera offers
    #[command(override_usage = "camlease ctl NAME formats")]
    Formats,
    /// Show the camera's controls and their values
    #[command(override_usage = "camlease ctl NAME controls")]
    Controls,
    /// Show one control, or set it
    #[command(override_usage = "camlease ctl NAME control ID|NAME [VALUE]")]
    Control {
        /// Its name as "controls" shows it, whatever its case and signs, or its number, decimal or with 0x
        #[arg(value_name = "ID|NAME")]
        control: String,
        /// A whole number; on or off; the name of a menu's entry; "press" for a button
        #[arg(allow_negative_numbers = true)]
        value: Option<String>,
    },
    /// Offer small JPEG pictures as shared:NAME.preview, or do so no longer
    #[command(override_usage = "camlease ctl NAME preview on|off")]
    Preview { on: Switch },
    /// Record to a file on the machine's disk, or end that
    #[command(override_usage = "camlease ctl NAME record on|off [FILE]")]
    Record {
        on: Switch,
        /// Its name in the camera's recording folder; one of name and time where it is left out
        file: Option<String>,
    },
    /// Write one picture to a file
    #[command(override_usage = "camlease ctl NAME snapshot [FILE]")]
    Snapshot {
        /// Its name in the camera's recording folder; one of name and time where it is left out
        file: Option<String>,
    },
    /// Have the camera's process end; a supervisor starts it again only when it reads its file anew (SIGHUP), and ends itself
    /// with the last camera
    #[command(override_usage = "camlease ctl NAME quit")]
    Quit,
    /// Be the only one who may command the camera, for as long as this runs (Ctrl+C ends it); frames go on for all
    #[command(override_usage = "camlease ctl NAME take-control [--priority N]")]
    TakeControl {
        /// The control goes to whoever asks with a higher one
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

fn name(text: &str) -> Result<String, String> {
    Ok(text.strip_prefix("shared:").unwrap_or(text).to_owned())
}

#[derive(Serialize)]
struct Shares {
    shares: Vec<Share>,
}

#[derive(Serialize)]
struct Share {
    name: String,
    pid: i32,
    uid: u32,
    streaming: bool,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let Some(name) = &args.name else {
        return match args.verb {
            None => list(output),
            Some(_) => output.fail_with(
                Exit::USAGE,
                "usage",
                "which camera? write camlease ctl NAME VERB; camlease ctl lists the names",
            ),
        };
    };
    let desk = Desk { name, timeout: args.timeout };
    let done = match args.verb.as_ref().unwrap_or(&Verb::Status) {
        Verb::Status => desk.ask("status", json!({})).inspect(|reply| telling::status(reply, output)),
        Verb::Start => desk.stream("start", json!({}), output),
        Verb::Stop => desk.ask("stop", json!({})).inspect(|_| desk.say("stopped, until somebody starts it", output)),
        Verb::Format { wanted } => match wanted_format(wanted) {
            Ok(format) => desk.stream("format", format, output),
            Err(complaint) => return output.fail_with(Exit::USAGE, "usage", complaint),
        },
        Verb::Formats => desk.ask("formats", json!({})).inspect(|reply| telling::formats(reply, output)),
        Verb::Controls => desk.controls().inspect(|reply| telling::controls(reply, output)),
        Verb::Control { control, value } => desk
            .control(control, value.as_deref())
            .inspect(|(reply, control)| telling::control(reply, control, output))
            .map(|(reply, _)| reply),
        Verb::Preview { on } => desk
            .ask("preview", json!({ "on": *on == Switch::On }))
            .inspect(|reply| desk.say(telling::preview(name, &reply.clone().into()), output)),
        Verb::Record { on, file } => desk
            .ask("record", json!({ "on": *on == Switch::On, "file": file }))
            .inspect(|reply| desk.say(telling::recording(&reply.clone().into()), output)),
        Verb::Snapshot { file } => desk
            .ask("snapshot", json!({ "file": file }))
            .inspect(|reply| desk.say(telling::snapshot(&reply.clone().into()), output)),
        Verb::Quit => desk.ask("quit", json!({})).inspect(|_| desk.say("its process ends", output)),
        Verb::TakeControl { priority } => return desk.keep_control(*priority, output),
    };
    match done {
        Ok(reply) => {
            output.json(&reply);
            Exit::OK
        }
        Err(error) => output.fail(&error),
    }
}

fn list(output: &Output) -> Exit {
    let of = |served: camlease::Served| {
        let camlease::Served { name, pid, uid, streaming } = served;
        Share { name, pid, uid, streaming }
    };
    let mut shares: Vec<Share> = camlease::shares().into_iter().map(of).collect();
    shares.sort_by(|one, other| one.name.cmp(&other.name));
    if shares.is_empty() {
        output.note(
            "nobody shares a camera here; camlease serve does, and programs that open one with access \"shared\"",
        );
    }
    for Share { name, pid, uid, streaming } in &shares {
        let state = match streaming {
            true => output.paint(Paint::Good, "streaming"),
            false => output.paint(Paint::Faint, "idle"),
        };
        let by = if *pid == 0 { "a process of another container".to_owned() } else { format!("pid {pid}") };
        output.line(format_args!("{}  {state}  by {by}, user {uid}", output.paint(Paint::Strong, name)));
    }
    output.json(&Shares { shares });
    Exit::OK
}

/// Size, rate and pixel format as they are asked for.
fn wanted_format(words: &[String]) -> Result<Value, String> {
    let mut wanted = json!({});
    for (at, word) in words.iter().enumerate() {
        let (size, rate) = word.split_once('@').map_or((word.as_str(), None), |(size, rate)| (size, Some(rate)));
        let is_size = rate.is_some() || naming::size(size).is_ok();
        // A size whose sides are wrong is no pixel format either.
        if at == 0 && (is_size || size.starts_with(|c: char| c.is_ascii_digit()) && size.contains('x')) {
            if !size.is_empty() {
                let (width, height) = naming::size(size)?;
                wanted["width"] = width.into();
                wanted["height"] = height.into();
            }
            if let Some(rate) = rate {
                let rate = naming::rate(rate)?;
                wanted["fps"] = json!([rate.numerator, rate.denominator]);
            }
        } else if wanted.get("fourcc").is_none() && FourCc::parse(word).is_some() {
            wanted["fourcc"] = word.as_str().into();
        } else {
            return Err(format!("\"{word}\": write a size and a pixel format as 1280x720@30 MJPG"));
        }
    }
    Ok(wanted)
}

/// Where commands to one shared camera go.
struct Desk<'a> {
    name: &'a str,
    timeout: Duration,
}

impl Desk<'_> {
    fn ask(&self, verb: &str, mut request: Value) -> camlease::Result<Map> {
        request["do"] = verb.into();
        let Value::Object(request) = request else { return Err(Error::new(Kind::Internal, "a request is an object")) };
        let answered = camlease::command(
            self.name,
            request.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            self.timeout,
        );
        answered.map_err(|error| match error.kind() {
            Kind::NotFound => self.with_the_nearest(error),
            _ => error,
        })
    }

    /// What else could have been meant.
    fn with_the_nearest(&self, error: Error) -> Error {
        let own = self.name.to_lowercase();
        let shares = camlease::shares();
        let distance = |name: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &own);
        match shares.iter().map(|served| served.name.as_str()).min_by_key(|name| distance(name)) {
            Some(near) if distance(near) <= near.len().div_ceil(3) => {
                error.hint(format_args!("did you mean \"{near}\"?"))
            }
            _ => error,
        }
    }

    fn say(&self, text: impl std::fmt::Display, output: &Output) {
        output.line(format_args!("{}: {text}", output.paint(Paint::Strong, self.name)));
    }

    /// What comes back with the format that is streamed then.
    fn stream(&self, verb: &str, request: Value, output: &Output) -> camlease::Result<Map> {
        let reply = self.ask(verb, request)?;
        match reply.get("format").and_then(telling::format) {
            Some(format) => self.say(format_args!("streams {format}"), output),
            None => self.say("is to stream", output),
        }
        Ok(reply)
    }

    /// With their values, which are asked for one by one.
    fn controls(&self) -> camlease::Result<Map> {
        let mut reply = self.ask("controls", json!({}))?;
        for control in reply.get_mut("controls").and_then(Value::as_array_mut).into_iter().flatten() {
            let is_readable = control["readable"] == true && control["kind"] != "button";
            let asked = is_readable.then(|| self.ask("control", json!({ "control": control["id"] })));
            // One that cannot be read now, such as one that another one rules, is shown all the same.
            let value = asked.and_then(Result::ok).and_then(|answer| answer.get("value").cloned());
            control["value"] = value.unwrap_or_default();
        }
        Ok(reply)
    }

    /// Its answer, and what the control is.
    fn control(&self, wanted: &str, value: Option<&str>) -> camlease::Result<(Map, Value)> {
        let controls = self.ask("controls", json!({}))?;
        let offered = controls.get("controls").and_then(Value::as_array).cloned().unwrap_or_default();
        let name_of = |control: &Value| control["name"].as_str().unwrap_or("").to_owned();
        let names: Vec<(u32, String)> =
            offered.iter().map(|control| (control["id"].as_u64().unwrap_or(0) as u32, name_of(control))).collect();
        let at = crate::serve::controls::find_among(&names, wanted).map_err(|error| error.context(self.name))?;
        let control = offered[at].clone();
        let mut request = json!({ "control": control["id"] });
        if let Some(value) = value {
            request["value"] = value_of(&control, value).map_err(|error| error.context(self.name))?.into();
        } else if control["kind"] == "button" {
            let message = format!("{}: {} is a button and has no value", self.name, name_of(&control));
            return Err(Error::new(Kind::InvalidArgument, message).hint("press it: control NAME press"));
        }
        let mut reply = self.ask("control", request)?;
        reply.insert("control".into(), control["id"].clone());
        reply.insert("name".into(), control["name"].clone());
        Ok((reply, control))
    }

    /// The control is that of a connection: it is kept for as long as this one lasts.
    fn keep_control(&self, priority: i32, output: &Output) -> Exit {
        let signals = match Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]) {
            Ok(signals) => signals,
            Err(error) => return output.fail_with(Exit::FAILURE, "io", format_args!("signalfd: {error}")),
        };
        let options =
            OpenOptions { timeout: Some(self.timeout), name: "camlease ctl".into(), ..OpenOptions::default() };
        let ask = |camera: &Camera, request: Value| match request {
            Value::Object(request) => camera.command(request, self.timeout),
            _ => Ok(Map::new()),
        };
        let begun = Camera::open(&format!("shared:{}", self.name), options).and_then(|camera| {
            let reply = ask(&camera, json!({ "do": "take-control", "priority": priority }))?;
            Ok((camera, reply))
        });
        let (camera, reply) = match begun {
            Ok(begun) => begun,
            Err(error) if error.kind() == Kind::NotFound => return output.fail(&self.with_the_nearest(error)),
            Err(error) => return output.fail(&error),
        };
        self.say("has the control, until this ends", output);
        output.json(&reply);
        loop {
            if wait([signals.as_fd()], Some(LOOK))[0] {
                let by = signals.next().map_or(0, |received| received.signal as u8);
                let _ = ask(&camera, json!({ "do": "release-control" }));
                camera.close();
                return Exit(128 + by);
            }
            let status = match ask(&camera, json!({ "do": "status" })) {
                Ok(status) => status,
                Err(error) => return output.fail(&error),
            };
            let controller = status.get("controller").unwrap_or(&Value::Null);
            if controller["pid"] != std::process::id() {
                let now = telling::controller(controller).unwrap_or_else(|| "nobody".into());
                let message = format!("shared:{}: the control was taken away; {now} has it now", self.name);
                return output.fail(&Error::new(Kind::Evicted, message));
            }
        }
    }
}

/// What a person writes as a control's value.
fn value_of(control: &Value, text: &str) -> camlease::Result<i64> {
    let word = text.to_lowercase();
    let entry = control["menu"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry[1].as_str().is_some_and(|name| name.to_lowercase() == word));
    let known = match (word.as_str(), control["kind"].as_str().unwrap_or("")) {
        ("press", "button") => Some(1),
        ("on" | "true" | "yes", "boolean") => Some(1),
        ("off" | "false" | "no", "boolean") => Some(0),
        _ => entry.and_then(|entry| entry[0].as_i64()),
    };
    let digits = word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |hex| i64::from_str_radix(hex, 16).ok());
    known.or(digits).ok_or_else(|| {
        let name = control["name"].as_str().unwrap_or("");
        let error = Error::new(Kind::InvalidArgument, format!("{name}: \"{text}\" is no value of it"));
        match telling::menu(control) {
            Some(menu) => error.hint(format_args!("it has {menu}")),
            None => error.hint(format_args!("it takes {}", telling::range(control))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_as_people_write_them() {
        let read = |words: &[&str]| wanted_format(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["640x480"]), Ok(json!({ "width": 640, "height": 480 })));
        assert_eq!(
            read(&["640x480@7.5", "MJPG"]),
            Ok(json!({ "width": 640, "height": 480, "fps": [7500, 1000], "fourcc": "MJPG" }))
        );
        assert_eq!(read(&["@30"]), Ok(json!({ "fps": [30, 1] })));
        assert_eq!(read(&["YUYV"]), Ok(json!({ "fourcc": "YUYV" })));
        for wrong in [&["640x"][..], &["0x480"], &["640x480@fast"], &["YUYV", "MJPG"], &["MJPEG"], &["YUYV", "640x480"]]
        {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn values_are_numbers_switches_and_entries() {
        let menu = json!({ "name": "Exposure", "kind": "menu", "menu": [[1, "Manual Mode"], [3, "Aperture"]] });
        assert_eq!(value_of(&menu, "manual mode").unwrap(), 1);
        assert_eq!(value_of(&menu, "3").unwrap(), 3);
        let refusal = value_of(&menu, "auto").unwrap_err();
        assert!(refusal.message().contains("1 Manual Mode, 3 Aperture"), "{refusal}");
        let switch = json!({ "name": "Auto", "kind": "boolean", "menu": [] });
        assert_eq!((value_of(&switch, "On").unwrap(), value_of(&switch, "0").unwrap()), (1, 0));
        let number = json!({ "name": "Gain", "kind": "integer", "minimum": -5, "maximum": 9, "step": 1, "menu": [] });
        assert_eq!((value_of(&number, "-5").unwrap(), value_of(&number, "0x10").unwrap()), (-5, 16));
        assert!(value_of(&number, "much").unwrap_err().message().contains("-5 to 9"));
    }
}
