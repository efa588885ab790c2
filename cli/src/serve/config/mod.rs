//! `cameras.toml`: which cameras are served, and how. It is read from text alone, so that it can be fuzzed: groups and
//! the names of cameras are looked up by whoever reads the file.

#[cfg(any(test, fuzzing))]
pub mod hostile;
mod table;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use camlease::FourCc;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use table::{Number, Table};

/// Sides of pictures that are asked for; the library's own bound.
const SIDE_MOST: u64 = 16_384;
/// The library's own bound, too.
const FPS_MOST: u64 = 1000;
/// V4L2 queues have no more, and with one alone the camera waits for its reader.
const BUFFERS: std::ops::RangeInclusive<u64> = 2..=32;
const HISTORY: std::ops::RangeInclusive<u64> = 1..=32;
/// What a preview's name has more than its camera's.
pub const PREVIEW_SUFFIX: &str = ".preview";
/// Bytes that a recording leaves free, where nothing else is configured.
pub const MIN_FREE: u64 = 256 << 20;
/// Less holds no frame of any use.
const BYTES_LEAST: u64 = 1 << 20;
const BYTES_MOST: u64 = 1 << 50;
const NAME_MOST: usize = 64;
/// A camera's table goes to its worker in one message.
const CONTROLS_MOST: usize = 256;

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// In the order of their names.
    pub cameras: Vec<Camera>,
    pub supervision: Supervision,
}

/// `[camera.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    pub name: String,
    pub uri: String,
    /// 0: the camera's own.
    pub width: u32,
    pub height: u32,
    /// Frames in so many seconds; 0/0: the camera's own.
    pub fps: (u32, u32),
    /// Empty: the camera's own.
    pub format: String,
    pub controls: Vec<Setting>,
    /// 0: the library's default, here and below.
    pub buffers: u32,
    pub history: u32,
    pub drop: Drop,
    pub start: Start,
    pub readers: Who,
    pub commanders: Who,
    pub priority: i32,
    pub max_bytes: u64,
    pub preview: Option<Preview>,
    pub recording: Option<Recording>,
}

impl Camera {
    /// Whether a worker that serves `self` can go on to serve `other`.
    pub fn differs_in_passing(&self, other: &Camera) -> bool {
        let Camera { controls, preview, recording, .. } = other.clone();
        Camera { controls, preview, recording, ..self.clone() } == *other
    }
}

/// A control, by its name or number, and its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub control: String,
    pub value: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Drop {
    Oldest,
    /// A process that comes late by some intervals still gets all frames to its readers, for as long as the camera's
    /// buffers last: with the other one, a busy machine costs recordings a third of them.
    #[default]
    Newest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Start {
    Always,
    #[default]
    OnDemand,
}

/// Who may read, or command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Who {
    #[default]
    Owner,
    Group(u32),
    Everyone,
}

/// `[camera.NAME.preview]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    pub width: u32,
    pub fps: (u32, u32),
    /// Of its JPEGs, from 1 to 100.
    pub quality: u8,
}

impl Default for Preview {
    fn default() -> Preview {
        Preview { width: 320, fps: (5, 1), quality: 75 }
    }
}

/// `[camera.NAME.recording]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Begins with the camera; else by command.
    pub on: bool,
    pub folder: PathBuf,
    pub format: Container,
    /// Of one file; 0: no bound, here and below.
    pub max_seconds: u64,
    pub max_bytes: u64,
    /// The oldest file goes when there would be more.
    pub max_files: u32,
    /// Bytes that stay free on the disk.
    pub min_free: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Container {
    #[default]
    Mkv,
    Y4m,
    Raw,
}

/// `[supervisor]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Supervision {
    /// The pause before a worker that failed is started again; doubled each time, up to `longest_delay`.
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// After so many failures within `window` comes a pause, and then one try.
    pub failures: u32,
    pub window: Duration,
    pub pause: Duration,
    /// A worker that was not heard of for so long is killed and replaced.
    pub hang_timeout: Duration,
    pub heartbeat: Duration,
    /// How long a worker has to stop in order.
    pub stop_grace: Duration,
}

impl Default for Supervision {
    fn default() -> Supervision {
        Supervision {
            first_delay: Duration::from_millis(250),
            longest_delay: Duration::from_secs(30),
            failures: 5,
            window: Duration::from_secs(60),
            pause: Duration::from_secs(60),
            hang_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_millis(500),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// Something in the file that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Complaint {
    pub file: String,
    /// Both count from 1, the column in characters.
    pub line: usize,
    pub column: usize,
    /// The table, such as "camera.front"; empty outside of any.
    pub table: String,
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.table.is_empty() {
            write!(f, "{}: ", self.table)?;
        }
        f.write_str(&self.message)
    }
}

/// What the text alone does not tell.
pub struct World<'a> {
    /// The number of a group.
    pub group: &'a dyn Fn(&str) -> Option<u32>,
    /// What is wrong with a camera's name, where something is.
    pub uri: &'a dyn Fn(&str) -> Option<String>,
}

/// Reads a file's text on this machine. All that is wrong with it is told, in the order of its lines.
pub fn parse(text: &str, name: &str) -> Result<Config, Vec<Complaint>> {
    let group = |name: &str| nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    parse_in(&World { group: &group, uri: &refusal_of_uri }, text, name)
}

/// The library's own reading of camera names, by a call that opens none.
fn refusal_of_uri(uri: &str) -> Option<String> {
    let error = camlease::holders(uri).err()?;
    matches!(error.kind(), camlease::Kind::InvalidArgument | camlease::Kind::Unsupported)
        .then(|| error.message().to_owned())
}

pub fn parse_in(world: &World<'_>, text: &str, name: &str) -> Result<Config, Vec<Complaint>> {
    let source = table::Source::new(text, name);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        source.complain(error.span().map_or(0, |span| span.start), "", error.message());
    }
    let root = Table::new(&source, "", 0, document.get_ref());
    let supervision = root.table("supervisor").map_or_else(Supervision::default, |table| read_supervision(&table));
    let mut cameras = Vec::new();
    if let Some(tables) = root.table("camera") {
        for (key, value) in tables.all() {
            cameras.extend(read_camera(world, &tables, key, value));
        }
        if tables.all().next().is_none() {
            tables.complain(NO_CAMERA);
        }
    } else if !root.has("camera") {
        root.complain_of_missing("camera", None, NO_CAMERA);
    }
    root.refuse_others();
    refuse_same(&source, &cameras);
    let complaints = source.complaints(errors.len());
    match complaints.is_empty() {
        true => Ok(Config { cameras: cameras.into_iter().map(|(camera, _)| camera).collect(), supervision }),
        false => Err(complaints),
    }
}

const NO_CAMERA: &str = "there is no camera in it: write [camera.NAME], and its uri below";

/// A camera, and where its uri stands.
fn read_camera<'i>(
    world: &World<'_>,
    cameras: &Table<'_, 'i>,
    key: &Spanned<toml::de::DeString<'i>>,
    value: &Spanned<DeValue<'i>>,
) -> Option<(Camera, usize)> {
    let name = key.get_ref().to_string();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_MOST || !name.bytes().all(allowed) {
        let message = format!("a camera's name has 1 to {NAME_MOST} letters, digits, dots, dashes and underscores");
        cameras.complain_at(key.span().start, format_args!("{}: {message}", table::shown(&format!("{name:?}"))));
    }
    let table = cameras.subtable(&name, value)?;
    let uri = table.text("uri", "the name of a camera, such as \"/dev/video0\"", |text| {
        let uri = crate::naming::camera(text)?;
        if uri.starts_with("shared:") {
            return Err("this is a camera that is served already; it has to be one of the machine's own".to_owned());
        }
        match (world.uri)(&uri) {
            Some(refusal) => Err(refusal.replace(&format!("camera name \"{uri}\": "), "")),
            None => Ok(uri),
        }
    });
    if !table.has("uri") {
        let advice = "write uri = \"/dev/video0\", or another of what \"camlease list\" shows";
        table.complain_of_missing("uri", None, format_args!("its uri is missing: {advice}"));
    }
    let side = |key| table.number(key, Number::new(1..=SIDE_MOST, "pixels")).unwrap_or(0) as u32;
    let (width, height) = (side("width"), side("height"));
    for (one, other) in [("width", "height"), ("height", "width")] {
        if table.has(one) && !table.has(other) {
            table.complain_of_missing(
                other,
                Some(one),
                format_args!("{one} stands alone: give {other}, too, or neither"),
            );
        }
    }
    let fps = fps(&table);
    let format = table.text("format", "a four-character code, such as \"MJPG\"", |text| {
        FourCc::parse(text).map(|_| text.to_owned()).ok_or_else(String::new)
    });
    let read = Camera {
        uri: uri.clone().unwrap_or_default(),
        width,
        height,
        fps: fps.unwrap_or_default(),
        format: format.unwrap_or_default(),
        controls: table.table("controls").map(|controls| read_controls(&controls)).unwrap_or_default(),
        buffers: table.number("buffers", Number::new(BUFFERS, "")).unwrap_or(0) as u32,
        history: table.number("history", Number::new(HISTORY, "frames")).unwrap_or(0) as u32,
        drop: table.choice("drop", &[("oldest", Drop::Oldest), ("newest", Drop::Newest)]).unwrap_or_default(),
        start: table.choice("start", &[("always", Start::Always), ("on-demand", Start::OnDemand)]).unwrap_or_default(),
        readers: who(world, &table, "readers"),
        commanders: who(world, &table, "commanders"),
        priority: table.integer("priority", i64::from(i32::MIN)..=i64::from(i32::MAX)).unwrap_or(0) as i32,
        max_bytes: table.bytes("max_bytes", BYTES_LEAST..=BYTES_MOST).unwrap_or(0),
        preview: table.table("preview").map(|preview| read_preview(&preview, &name)),
        recording: table.table("recording").map(|recording| read_recording(&recording)),
        name,
    };
    table.refuse_others();
    uri.is_some().then(|| (read, table.place_of("uri")))
}

fn read_controls(table: &Table<'_, '_>) -> Vec<Setting> {
    let read = |key: &Spanned<toml::de::DeString<'_>>| {
        let control = key.get_ref().to_string();
        if control.is_empty() || control.len() > NAME_MOST {
            table.complain_at(key.span().start, format_args!("a control's name has 1 to {NAME_MOST} bytes"));
        }
        Some(Setting { value: table.control_value(&control)?, control })
    };
    if table.all().count() > CONTROLS_MOST {
        table.complain(format_args!("there are more than {CONTROLS_MOST} controls in it"));
    }
    table.all().filter_map(|(key, _)| read(key)).collect()
}

fn read_preview(table: &Table<'_, '_>, camera: &str) -> Preview {
    let most = NAME_MOST - PREVIEW_SUFFIX.len();
    if camera.len() > most && camera.len() <= NAME_MOST {
        let shared = format!("it is shared as CAMERA{}", PREVIEW_SUFFIX);
        table.complain(format_args!("a camera with a preview has a name of at most {most} letters: {shared}"));
    }
    let default = Preview::default();
    let preview = Preview {
        width: table.number("width", Number::new(16..=SIDE_MOST, "pixels")).map_or(default.width, |width| width as u32),
        fps: fps(table).unwrap_or(default.fps),
        quality: table.number("quality", Number::new(1..=100, "")).map_or(default.quality, |quality| quality as u8),
    };
    table.refuse_others();
    preview
}

fn read_recording(table: &Table<'_, '_>) -> Recording {
    let folder = table.text("folder", "a folder's whole path, such as \"/var/lib/camlease/front\"", |text| {
        let path = PathBuf::from(text);
        if path.is_absolute() && !text.contains('\0') { Ok(path) } else { Err(String::new()) }
    });
    if !table.has("folder") {
        table.complain_of_missing("folder", None, "its folder is missing: write folder = \"/var/lib/camlease/front\"");
    }
    let containers = [("mkv", Container::Mkv), ("y4m", Container::Y4m), ("raw", Container::Raw)];
    let recording = Recording {
        on: table.flag("on").unwrap_or(false),
        folder: folder.unwrap_or_default(),
        format: table.choice("format", &containers).unwrap_or_default(),
        max_seconds: table.number("max_seconds", Number::new(1..=604_800, "seconds")).unwrap_or(0),
        max_bytes: table.bytes("max_bytes", BYTES_LEAST..=BYTES_MOST).unwrap_or(0),
        max_files: table.number("max_files", Number::new(1..=1_000_000, "files")).unwrap_or(0) as u32,
        min_free: table.bytes("min_free", 0..=BYTES_MOST).unwrap_or(MIN_FREE),
    };
    table.refuse_others();
    recording
}

fn read_supervision(table: &Table<'_, '_>) -> Supervision {
    let day = Duration::from_secs(86_400);
    let ms = Duration::from_millis;
    let default = Supervision::default();
    let read = Supervision {
        first_delay: table.time("first_delay", ms(1)..=day).unwrap_or(default.first_delay),
        longest_delay: table.time("longest_delay", ms(1)..=day).unwrap_or(default.longest_delay),
        failures: table.number("failures", Number::new(1..=1000, "")).map_or(default.failures, |number| number as u32),
        window: table.time("window", ms(100)..=day).unwrap_or(default.window),
        pause: table.time("pause", ms(1)..=day).unwrap_or(default.pause),
        hang_timeout: table.time("hang_timeout", ms(200)..=day).unwrap_or(default.hang_timeout),
        heartbeat: table.time("heartbeat", ms(10)..=day).unwrap_or(default.heartbeat),
        stop_grace: table.time("stop_grace", ms(100)..=day).unwrap_or(default.stop_grace),
    };
    table.refuse_others();
    let shown = crate::naming::shown;
    if read.first_delay > read.longest_delay {
        let key = if table.has("longest_delay") { "longest_delay" } else { "first_delay" };
        let (first, longest) = (shown(read.first_delay), shown(read.longest_delay));
        table.complain_of_key(key, format_args!("first_delay is {first}, and longest_delay {longest}, which is less"));
    }
    if read.heartbeat * 2 > read.hang_timeout {
        let key = if table.has("heartbeat") { "heartbeat" } else { "hang_timeout" };
        let (beat, hang) = (shown(read.heartbeat), shown(read.hang_timeout));
        table.complain_of_key(
            key,
            format_args!("hang_timeout is {hang}, which has to be at least twice the heartbeat's {beat}"),
        );
    }
    read
}

fn fps(table: &Table<'_, '_>) -> Option<(u32, u32)> {
    let what = format!("a number of frames per second up to {FPS_MOST}, such as 30 or \"30000/1001\"");
    table.literal("fps", &what, |text| {
        let rate = crate::naming::rate(text).map_err(|_| String::new())?;
        let fits = rate.per_second() <= FPS_MOST as f64;
        if fits { Ok((rate.numerator, rate.denominator)) } else { Err(String::new()) }
    })
}

fn who(world: &World<'_>, table: &Table<'_, '_>, key: &'static str) -> Who {
    let read = |text: &str| match (text, text.strip_prefix("group:")) {
        ("owner", _) => Ok(Who::Owner),
        ("everyone", _) => Ok(Who::Everyone),
        (_, Some(group)) => (world.group)(group)
            .map(Who::Group)
            .ok_or_else(|| format!("there is no group {}", table::shown(&format!("{group:?}")))),
        _ => Err(String::new()),
    };
    table.text(key, "\"owner\", \"group:NAME\" or \"everyone\"", read).unwrap_or_default()
}

/// Two workers would wait for each other.
fn refuse_same(source: &table::Source<'_>, cameras: &[(Camera, usize)]) {
    let camera = |uri: &str| {
        let uri = uri.strip_prefix("v4l2:").unwrap_or(uri);
        let end = if uri.starts_with("virtual:") { uri.find('?') } else { None };
        uri[..end.unwrap_or(uri.len())].to_owned()
    };
    // A name may be one that was refused.
    let named = |camera: &Camera| format!("camera.{}", table::shown(&camera.name));
    let mut ordered: Vec<_> = cameras.iter().collect();
    ordered.sort_by_key(|(_, place)| *place);
    for (index, (one, place)) in ordered.iter().enumerate() {
        // A file is nobody's alone.
        let is_same =
            |other: &&&(Camera, usize)| !one.uri.starts_with("file:") && camera(&other.0.uri) == camera(&one.uri);
        let shown = cameras.iter().find(|(other, _)| {
            other.preview.is_some() && one.name.strip_suffix(PREVIEW_SUFFIX) == Some(other.name.as_str())
        });
        if let Some((other, _)) = shown {
            let message = format!("the preview of {} has this name already", named(other));
            source.complain(*place, &named(one), &message);
        }
        if let Some((first, at)) = ordered[..index].iter().find(is_same) {
            let line = source.position(*at).0;
            let message = format!("{} has this camera already (line {line})", named(first));
            source.complain(*place, &named(one), &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let group = |name: &str| (name == "video").then_some(44);
        let uri = |uri: &str| uri.starts_with("bad").then(|| "a bad name".to_owned());
        let told = |complaints: Vec<Complaint>| complaints.iter().map(ToString::to_string).collect();
        parse_in(&World { group: &group, uri: &uri }, text, "c").map_err(told)
    }

    #[test]
    fn all_keys_are_read() {
        let config = read(
            r#"
            [camera.front]
            uri = "0"
            width = 1280
            height = 720
            fps = "30000/1001"
            format = "MJPG"
            controls = { Brightness = 12, "0x00980912" = true }
            buffers = 6
            history = 8
            drop = "newest"
            start = "always"
            readers = "group:video"
            commanders = "everyone"
            priority = -3
            max_bytes = "64MiB"
            preview = { width = 160, fps = 2.5, quality = 60 }
            [camera.front.recording]
            on = true
            folder = "/var/lib/camlease"
            format = "y4m"
            max_seconds = 60
            max_bytes = 1_000_000_000
            max_files = 10
            min_free = "1.5GiB"
            [camera."back.left"]
            uri = "virtual:x"
            [supervisor]
            first_delay = "100ms"
            hang_timeout = 2.5
            "#,
        )
        .unwrap();
        assert_eq!(config.supervision.first_delay, Duration::from_millis(100));
        assert_eq!(config.supervision.hang_timeout, Duration::from_millis(2500));
        assert_eq!(config.supervision.pause, Supervision::default().pause);
        assert_eq!(
            config.cameras.iter().map(|camera| camera.name.as_str()).collect::<Vec<_>>(),
            ["back.left", "front"]
        );
        let front = &config.cameras[1];
        assert_eq!((front.uri.as_str(), front.width, front.height), ("/dev/video0", 1280, 720));
        assert_eq!((front.fps, front.format.as_str(), front.buffers, front.history), ((30_000, 1001), "MJPG", 6, 8));
        let setting = |control: &str, value| Setting { control: control.into(), value };
        assert_eq!(front.controls, [setting("0x00980912", 1), setting("Brightness", 12)]);
        assert_eq!((front.drop, front.start), (Drop::Newest, Start::Always));
        assert_eq!((&front.readers, &front.commanders), (&Who::Group(44), &Who::Everyone));
        assert_eq!((front.priority, front.max_bytes), (-3, 64 << 20));
        assert_eq!(front.preview, Some(Preview { width: 160, fps: (2500, 1000), quality: 60 }));
        let recording = front.recording.as_ref().unwrap();
        assert_eq!((recording.max_bytes, recording.min_free), (1_000_000_000, 3 << 29));
        assert_eq!((recording.format, recording.max_files, recording.on), (Container::Y4m, 10, true));
    }

    #[test]
    fn all_that_is_wrong_is_told_in_order() {
        let complaints = read("[camera.a]\nuri = \"bad\"\nwidht = 3\n[camera.b]\n[kamera]\n").unwrap_err();
        assert_eq!(
            complaints,
            [
                "c:2:7: camera.a: uri = \"bad\": a bad name",
                "c:3:1: camera.a: there is no key \"widht\"; did you mean \"width\"?",
                "c:4:1: camera.b: its uri is missing: write uri = \"/dev/video0\", or another of what \"camlease list\" shows",
                "c:5:2: there is no key \"kamera\"; did you mean \"camera\"?",
            ]
        );
    }

    #[test]
    fn the_example_says_what_holds_without_it() {
        let text = include_str!("../../../../packaging/cameras.toml");
        let config = parse(text, "cameras.toml").unwrap();
        assert_eq!(config.supervision, Supervision::default());
        assert_eq!(config.cameras[0].preview, Some(Preview::default()));
        assert!(text.contains("preview]"));
    }

    #[test]
    fn what_applies_in_passing_is_told_from_what_does_not() {
        let camera = |more: &str| read(&format!("[camera.a]\nuri = \"0\"\n{more}")).unwrap().cameras.remove(0);
        assert!(camera("").differs_in_passing(&camera("controls = { Gain = 3 }\npreview = {}")));
        assert!(!camera("").differs_in_passing(&camera("buffers = 5")));
    }

    #[test]
    fn junk_is_refused_and_nothing_worse() {
        for text in [
            "",
            "\u{0}",
            "[",
            "[camera",
            "camera = 1",
            "[camera]\n",
            "camera = []",
            "[camera.a]\nuri = 1e999",
            "[camera.a]\nuri = \"\u{1b}[2J\"\nfps = 99999999999999999999\nmax_bytes = \"1e999GiB\"",
            "ä = [[[[[[",
            "[[camera]]\na = 1",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
