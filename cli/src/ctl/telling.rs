//! What a camera's process answers, in words.

use std::time::Duration;

use camlease::{Map, Rate};
use serde_json::Value;

use crate::naming::shown;
use crate::output::{Output, Paint};

/// What an answer has beside what was asked for.
const FRAME: [&str; 3] = ["camlease", "id", "ok"];

/// The keys of a status that have words of their own.
const KNOWN: [&str; 21] = [
    "camlease",
    "id",
    "ok",
    "name",
    "uri",
    "camera",
    "pid",
    "streaming",
    "format",
    "published",
    "dropped",
    "copied",
    "lent",
    "generation",
    "controller",
    "readers",
    "trouble",
    "stopped",
    "pulse_ms",
    "preview",
    "recording",
];

pub fn status(reply: &Map, output: &Output) {
    let get = |key: &str| reply.get(key).unwrap_or(&Value::Null);
    let text = |key: &str| get(key).as_str().unwrap_or("");
    let state = match (get("trouble").is_null(), get("streaming") == true, format(get("format"))) {
        (false, ..) => output.paint(Paint::Bad, "in trouble"),
        (_, true, Some(format)) => format!("{} {format}", output.paint(Paint::Good, "streams")),
        (_, true, None) => output.paint(Paint::Good, "streams"),
        (_, false, _) if get("stopped") == true => output.paint(Paint::Warn, "stopped by command"),
        (_, false, _) => output.paint(Paint::Faint, "idle"),
    };
    output.line(format_args!("{}  {state}", output.paint(Paint::Strong, text("name"))));
    let line = |words: String| output.line(format_args!("    {words}"));
    let camera = if text("camera").is_empty() { String::new() } else { format!(" ({})", text("camera")) };
    line(format!("{}{camera}, served by pid {}", text("uri"), get("pid")));
    if let Some(message) = get("trouble")["message"].as_str() {
        line(output.paint(Paint::Bad, message));
    }
    if get("published") != 0 {
        let [all, lent, copied, dropped] = ["published", "lent", "copied", "dropped"].map(get);
        line(format!("{all} frames, {lent} lent and {copied} copied; {dropped} without room for them"));
    }
    if let Some(controller) = controller(get("controller")) {
        line(format!("controlled by {controller}"));
    }
    let readers = get("readers").as_array().map_or(&[][..], Vec::as_slice);
    if readers.is_empty() {
        line(output.paint(Paint::Faint, "nobody reads it"));
    }
    for reader in readers {
        let number = |key: &str| reader[key].as_u64().unwrap_or(0);
        let name = reader["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("a program");
        let since = shown(Duration::from_millis(number("since_ms")));
        line(format!(
            "read by {name} (pid {}, user {}) for {since}: {}, {} taken, {} lost, {} behind, holds {} of {}",
            number("pid"),
            number("uid"),
            reader["mode"].as_str().unwrap_or("newest"),
            number("taken"),
            number("lost"),
            number("lag"),
            number("held"),
            number("hold"),
        ));
    }
    let (preview, recording) = (get("preview"), get("recording"));
    if preview["on"] == true || preview["error"].is_string() {
        line(self::preview(text("name"), preview));
    }
    if recording["file"].is_string() || recording["error"].is_string() {
        line(self::recording(recording));
    }
    let added = reply.iter().filter(|(key, _)| !KNOWN.contains(&key.as_str()));
    for (key, value) in added {
        line(format!("{key}: {}", fact(value)));
    }
}

/// `1280x720 MJPG at 30 fps`
pub fn format(format: &Value) -> Option<String> {
    let rate = rate(&format["fps"]).filter(|rate| rate.is_set()).map(|rate| format!(" at {rate}")).unwrap_or_default();
    Some(format!("{}x{} {}{rate}", format["width"].as_u64()?, format["height"].as_u64()?, format["fourcc"].as_str()?))
}

fn rate(value: &Value) -> Option<Rate> {
    let part = |at: usize| u32::try_from(value.get(at)?.as_u64()?).ok();
    Some(Rate { numerator: part(0)?, denominator: part(1)? })
}

pub fn controller(controller: &Value) -> Option<String> {
    let name = controller["name"].as_str()?;
    Some(format!("{name} (pid {}) with priority {}", controller["pid"], controller["priority"]))
}

pub fn formats(reply: &Map, output: &Output) {
    for offer in reply.get("formats").and_then(Value::as_array).into_iter().flatten() {
        let side = |key: &str| {
            let [least, most, step] = [0, 1, 2].map(|at| offer[key][at].as_u64().unwrap_or(0));
            match (least == most, step) {
                (true, _) => least.to_string(),
                (_, 0 | 1) => format!("{least}..{most}"),
                _ => format!("{least}..{most}/{step}"),
            }
        };
        let rates = match (rate(&offer["slowest"]), rate(&offer["fastest"]).filter(|rate| rate.is_set())) {
            (Some(slowest), Some(fastest)) if slowest != fastest => format!("  {slowest} to {fastest}"),
            (_, Some(fastest)) => format!("  {fastest}"),
            _ => String::new(),
        };
        let [fourcc, description] = ["fourcc", "description"].map(|key| offer[key].as_str().unwrap_or(""));
        output.line(format_args!("{fourcc}  {}x{}{rates}  {description}", side("width"), side("height")));
    }
}

pub fn controls(reply: &Map, output: &Output) {
    let controls = reply.get("controls").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if controls.is_empty() {
        output.note("it has no controls");
    }
    for control in controls {
        one(control, &control["value"], output);
    }
}

pub fn control(reply: &Map, control: &Value, output: &Output) {
    one(control, reply.get("value").unwrap_or(&Value::Null), output);
}

fn one(control: &Value, value: &Value, output: &Output) {
    let name = control["name"].as_str().unwrap_or("");
    let value = match (control["kind"].as_str(), value) {
        (_, Value::Null) => String::new(),
        (Some("boolean"), value) => format!(" = {}", if value == 0 { "off" } else { "on" }),
        _ => match entries(control).into_iter().find(|(number, _)| value == number) {
            Some((number, entry)) => format!(" = {number} ({entry})"),
            None => format!(" = {value}"),
        },
    };
    let id = control["id"].as_u64().unwrap_or(0);
    let default = match control["kind"].as_str() {
        Some("button") => String::new(),
        _ => format!(", default {}", control["default"]),
    };
    let not = |key: &str, words: &'static str| if control[key] == false { words } else { "" };
    let (fixed, asleep) = (not("writable", ", read only"), not("active", ", without effect now"));
    let about = format!("0x{id:08x}, {}{default}{fixed}{asleep}", menu(control).unwrap_or_else(|| range(control)));
    output.line(format_args!("{}{value}  {}", output.paint(Paint::Strong, name), output.paint(Paint::Faint, about)));
}

fn entries(control: &Value) -> Vec<(i64, String)> {
    let entry = |entry: &Value| Some((entry[0].as_i64()?, entry[1].as_str()?.to_owned()));
    control["menu"].as_array().into_iter().flatten().filter_map(entry).collect()
}

/// The entries of a menu.
pub fn menu(control: &Value) -> Option<String> {
    let entries: Vec<_> = entries(control).into_iter().map(|(number, name)| format!("{number} {name}")).collect();
    (!entries.is_empty()).then(|| entries.join(", "))
}

/// The values of what is no menu.
pub fn range(control: &Value) -> String {
    match control["kind"].as_str() {
        Some("boolean") => "on or off".into(),
        Some("button") => "a button".into(),
        _ => {
            let step = if control["step"].as_i64().unwrap_or(1) > 1 {
                format!(" by {}", control["step"])
            } else {
                String::new()
            };
            format!("{} to {}{step}", control["minimum"], control["maximum"])
        }
    }
}

pub fn preview(name: &str, preview: &Value) -> String {
    let trouble = preview["error"].as_str().map(|error| format!("; {error}")).unwrap_or_default();
    match preview["on"] == true {
        true => {
            let [width, height, readers] = ["width", "height", "readers"].map(|key| preview[key].as_u64().unwrap_or(0));
            format!("offers shared:{name}.preview, {width}x{height}, read by {readers}{trouble}")
        }
        false => format!("offers no preview{trouble}"),
    }
}

pub fn recording(recording: &Value) -> String {
    let number = |key: &str| recording[key].as_u64().unwrap_or(0);
    let lost = [("thinned", "left out for a slow disk"), ("damaged", "damaged"), ("missed", "missed")];
    let lost: String = lost
        .into_iter()
        .filter(|(key, _)| number(key) > 0)
        .map(|(key, words)| format!(", {} {words}", number(key)))
        .collect();
    let reasons = ["error", "ended"].into_iter().filter_map(|key| recording[key].as_str());
    let reasons: String = reasons.map(|reason| format!("; {reason}")).collect();
    let does = if recording["on"] == true { "records" } else { "recorded" };
    match recording["file"].as_str().filter(|file| !file.is_empty()) {
        Some(file) => {
            let (frames, seconds) = (number("frames"), recording["seconds"].as_f64().unwrap_or(0.0));
            format!("{does} to {file}: {frames} frames, {seconds:.1} s, {} bytes{lost}{reasons}", number("bytes"))
        }
        None if recording["on"] == true => format!("is to record{reasons}"),
        None => format!("does not record{reasons}"),
    }
}

pub fn snapshot(reply: &Value) -> String {
    match (reply["file"].as_str(), reply["width"].as_u64(), reply["height"].as_u64()) {
        (Some(file), Some(width), Some(height)) => format!("wrote {file}, {width}x{height}"),
        _ => reply.as_object().map(facts).unwrap_or_default(),
    }
}

/// An answer whose keys say all.
fn facts(reply: &Map) -> String {
    let facts: Vec<_> = reply
        .iter()
        .filter(|(key, value)| !FRAME.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| format!("{key} {}", fact(value)))
        .collect();
    if facts.is_empty() { "done".into() } else { facts.join(", ") }
}

fn fact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Object(map) => facts(map),
        other => other.to_string(),
    }
}
