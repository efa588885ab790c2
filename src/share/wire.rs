//! What a shared camera's process and its clients say to each other: each message is one JSON object. Whatever comes
//! may be anything; it is taken apart here and nowhere else.

use serde_json::{Value, json};

use super::ring::{Mode, PLANES_MOST, SLOTS_MOST};
use crate::error::{Error, Kind, Result};
use crate::format::{Control, ControlKind, DropPolicy, Format, FourCc, Rate, StreamFormat, StreamRequest};
use crate::policy;

/// A message: a JSON object.
pub type Map = serde_json::Map<String, Value>;

/// Of the protocol. One that is not known is refused.
const VERSION: u64 = 1;

/// The object of `json!({...})`.
pub fn map(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// As it goes over the socket: one line.
pub fn to_line(mut message: Map) -> Vec<u8> {
    message.insert("camlease".into(), VERSION.into());
    let mut line = Value::Object(message).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// `None` for what is no message of this version.
pub fn parse(line: &[u8]) -> Option<Map> {
    match serde_json::from_slice(line).ok()? {
        Value::Object(message) => (number(&message, "camlease") == Some(VERSION)).then_some(message),
        _ => None,
    }
}

pub fn number(message: &Map, key: &str) -> Option<u64> {
    message.get(key)?.as_u64()
}

pub fn word<'a>(message: &'a Map, key: &str) -> Option<&'a str> {
    message.get(key)?.as_str()
}

/// A number that must be one where the key is there.
fn number_or<N: TryFrom<u64>>(message: &Map, key: &str, default: N) -> Result<N> {
    match message.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_u64().and_then(|number| N::try_from(number).ok()).ok_or_else(|| {
            Error::new(Kind::InvalidArgument, format!("\"{key}\": {value} is not a whole number that fits"))
        }),
    }
}

/// The answer to the request with this id.
pub fn answer(id: &Value, outcome: Result<Map>) -> Map {
    let mut message = match outcome {
        Ok(mut fields) => {
            fields.insert("ok".into(), true.into());
            fields
        }
        Err(error) => {
            let mut fields = failure(&error);
            fields.insert("ok".into(), false.into());
            fields
        }
    };
    message.insert("id".into(), id.clone());
    message
}

/// A failure as words for others.
pub fn failure(error: &Error) -> Map {
    map(json!({ "status": error.kind().name(), "errno": error.errno(), "message": error.message() }))
}

/// The failure that a message tells of.
pub fn failure_of(message: &Map) -> Error {
    let kind = word(message, "status").and_then(Kind::of_name).unwrap_or(Kind::Internal);
    let errno = number(message, "errno").filter(|errno| *errno < ERRNO_END).unwrap_or(0);
    let words = word(message, "message").unwrap_or("the camera's process gives no reason");
    Error::new(kind, words).with_errno(errno as i32)
}

/// Greater ones would be addresses to the kernel.
const ERRNO_END: u64 = 4096;

fn rate_of(message: &Map) -> Result<Rate> {
    let Some(value) = message.get("fps").filter(|value| !value.is_null()) else { return Ok(Rate::default()) };
    let part = |value: &Value| value.as_u64().and_then(|part| u32::try_from(part).ok());
    let rate = match value {
        Value::Array(parts) if parts.len() == 2 => part(&parts[0]).zip(part(&parts[1])),
        whole => part(whole).map(|whole| (whole, u32::from(whole != 0))),
    };
    rate.map(|(numerator, denominator)| Rate { numerator, denominator }).ok_or_else(|| {
        Error::new(Kind::InvalidArgument, format!("\"fps\": {value} is neither a whole number nor two, [30000, 1001]"))
    })
}

/// Size, format and rate that a request asks for.
pub fn request_of(message: &Map) -> Result<StreamRequest> {
    let fourcc = match message.get("fourcc") {
        None | Some(Value::Null) => FourCc::default(),
        Some(Value::String(code)) if code.is_empty() => FourCc::default(),
        Some(Value::String(code)) => FourCc::parse(code).ok_or_else(|| {
            Error::new(Kind::InvalidArgument, format!("\"fourcc\": \"{code}\" is not a four-character code"))
        })?,
        Some(_) => FourCc(number_or(message, "fourcc", 0)?),
    };
    Ok(StreamRequest {
        width: number_or(message, "width", 0)?,
        height: number_or(message, "height", 0)?,
        fourcc,
        rate: rate_of(message)?,
        ..StreamRequest::default()
    })
}

/// What [`request_of`] reads.
pub fn of_request(request: &StreamRequest) -> Map {
    map(json!({
        "width": request.width, "height": request.height, "fourcc": request.fourcc.0,
        "fps": [request.rate.numerator, request.rate.denominator],
    }))
}

/// What a reader wants to read.
pub struct Attachment {
    pub mode: Mode,
    pub hold: u32,
    pub wants: StreamRequest,
}

pub fn of_attachment(attachment: &Attachment) -> Map {
    let Attachment { mode, hold, wants } = attachment;
    let mut message = of_request(wants);
    message.extend(map(json!({
        "do": "attach", "in_order": mode.in_order, "every": mode.every, "interval_ns": mode.interval_ns, "hold": hold,
    })));
    message
}

pub fn attachment_of(message: &Map) -> Result<Attachment> {
    let in_order = matches!(message.get("in_order"), Some(Value::Bool(true)));
    let mode = Mode {
        in_order,
        every: number_or::<u64>(message, "every", 1)?.max(1),
        interval_ns: number_or::<u32>(message, "interval_ns", 0)?.into(),
    };
    let hold = match number_or(message, "hold", 0)? {
        0 => policy::SHARE_HOLD,
        hold => hold,
    };
    Ok(Attachment { mode, hold, wants: request_of(message)? })
}

/// Where in a ring's memory the frames are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// In this memory.
    pub slots: usize,
    /// Further ones, which are a driver's buffers: each plane has a file of its own.
    pub lent: usize,
    /// Of the first slot.
    pub first: usize,
    pub slot_bytes: usize,
    /// Where in a slot each plane begins, and how many bytes it has.
    pub planes: Vec<(usize, usize)>,
}

impl Geometry {
    /// For frames of a format.
    pub fn of(format: &StreamFormat, slots: usize, lent: usize) -> Geometry {
        let first = size_of::<super::ring::Header>().next_multiple_of(policy::PAGE);
        let mut planes = Vec::new();
        let mut at = 0;
        for &(_, length) in format.planes.iter().take(PLANES_MOST) {
            planes.push((at, length));
            at += length.max(1).next_multiple_of(policy::PAGE);
        }
        Geometry { slots, lent, first, slot_bytes: at, planes }
    }

    /// Slots in this memory and elsewhere.
    pub fn all(&self) -> usize {
        self.slots + self.lent
    }

    /// Files that the slots which are elsewhere need.
    pub fn files(&self) -> usize {
        self.lent * self.planes.len()
    }

    pub fn bytes(&self) -> usize {
        self.first + self.slots * self.slot_bytes
    }

    /// Where a plane's bytes are in the whole, and how many.
    pub fn plane(&self, slot: usize, plane: usize) -> (usize, usize) {
        let (at, length) = self.planes[plane];
        (self.first + slot * self.slot_bytes + at, length)
    }

    /// Whether all of it lies within so many bytes, and as it can be mapped.
    fn is_sound(&self, bytes: u64) -> bool {
        let fits = |&(at, length): &(usize, usize)| {
            at.is_multiple_of(policy::PAGE)
                && length > 0
                && at.checked_add(length).is_some_and(|end| end <= self.slot_bytes)
        };
        let whole = self.slots.checked_mul(self.slot_bytes).and_then(|all| all.checked_add(self.first));
        self.slots >= 1
            && self.slots.checked_add(self.lent).is_some_and(|all| all <= SLOTS_MOST)
            && self.first >= size_of::<super::ring::Header>()
            && self.first.is_multiple_of(policy::PAGE)
            && self.slot_bytes.is_multiple_of(policy::PAGE)
            && (1..=PLANES_MOST).contains(&self.planes.len())
            && self.planes.iter().all(fits)
            && whole.is_some_and(|whole| whole as u64 <= bytes)
    }
}

/// A stream's format as others are told it.
pub fn of_format(format: &StreamFormat) -> Map {
    map(json!({
        "width": format.width, "height": format.height, "fourcc": format.fourcc.to_string(), "code": format.fourcc.0,
        "fps": [format.rate.numerator, format.rate.denominator], "stride": format.stride,
        "planes": format.planes, "buffers": format.buffers,
    }))
}

pub fn format_of(message: &Map) -> Option<StreamFormat> {
    let short = |key: &str| number(message, key).and_then(|number| u32::try_from(number).ok());
    let plane = |value: &Value| {
        let stride = u32::try_from(value.get(0)?.as_u64()?).ok()?;
        Some((stride, usize::try_from(value.get(1)?.as_u64()?).ok()?))
    };
    Some(StreamFormat {
        width: short("width")?,
        height: short("height")?,
        fourcc: FourCc(short("code")?),
        rate: rate_of(message).ok()?,
        stride: short("stride")?,
        planes: message.get("planes")?.as_array()?.iter().map(plane).collect::<Option<_>>()?,
        buffers: short("buffers")?,
    })
}

/// A new ring for a reader; its descriptors come with the message.
pub struct Generation {
    pub number: u64,
    pub format: StreamFormat,
    pub geometry: Geometry,
    pub quota: u32,
}

pub fn of_generation(generation: &Generation) -> Map {
    let Generation { number, format, geometry, quota } = generation;
    let Geometry { slots, lent, first, slot_bytes, planes } = geometry;
    map(json!({
        "event": "generation", "generation": number, "format": of_format(format), "quota": quota,
        "slots": slots, "lent": lent, "first": first, "slot_bytes": slot_bytes, "areas": planes,
    }))
}

/// `None` where it does not fit into a file of so many bytes.
pub fn generation_of(message: &Map, bytes: u64) -> Option<Generation> {
    let size = |key: &str| number(message, key).and_then(|number| usize::try_from(number).ok());
    let area = |value: &Value| {
        let part = |at: usize| usize::try_from(value.get(at)?.as_u64()?).ok();
        Some((part(0)?, part(1)?))
    };
    let geometry = Geometry {
        slots: size("slots")?,
        lent: size("lent")?,
        first: size("first")?,
        slot_bytes: size("slot_bytes")?,
        planes: message.get("areas")?.as_array()?.iter().map(area).collect::<Option<_>>()?,
    };
    let format = format_of(message.get("format")?.as_object()?)?;
    let quota = number(message, "quota").filter(|quota| (1..=SLOTS_MOST as u64).contains(quota))? as u32;
    let lengths = format.planes.iter().map(|plane| plane.1);
    let is_sound = geometry.is_sound(bytes) && lengths.eq(geometry.planes.iter().map(|plane| plane.1));
    is_sound.then_some(Generation { number: number(message, "generation")?, format, geometry, quota })
}

/// How a reader's drop policy reads on the wire.
pub fn mode_of(drop_policy: DropPolicy, every: u64, interval_ns: i64) -> Mode {
    Mode { in_order: drop_policy == DropPolicy::Newest, every, interval_ns }
}

const KINDS: [(ControlKind, &str); 8] = [
    (ControlKind::Integer, "integer"),
    (ControlKind::Boolean, "boolean"),
    (ControlKind::Menu, "menu"),
    (ControlKind::IntegerMenu, "integer-menu"),
    (ControlKind::Bitmask, "bitmask"),
    (ControlKind::Button, "button"),
    (ControlKind::Integer64, "integer64"),
    (ControlKind::Other, "other"),
];

fn rate_in(value: &Value, key: &str) -> Option<Rate> {
    let part = |at: usize| u32::try_from(value.get(key)?.get(at)?.as_u64()?).ok();
    Some(Rate { numerator: part(0)?, denominator: part(1)? })
}

/// What a camera offers, as others are told it.
pub fn of_offer(format: &Format) -> Value {
    json!({
        "fourcc": format.fourcc.to_string(), "code": format.fourcc.0, "description": format.description,
        "compressed": format.compressed, "width": format.width, "height": format.height,
        "slowest": [format.slowest.numerator, format.slowest.denominator],
        "fastest": [format.fastest.numerator, format.fastest.denominator],
    })
}

pub fn offer_of(value: &Value) -> Option<Format> {
    let span = |key: &str| {
        let part = |at: usize| u32::try_from(value.get(key)?.get(at)?.as_u64()?).ok();
        Some((part(0)?, part(1)?, part(2)?))
    };
    Some(Format {
        fourcc: FourCc(u32::try_from(value.get("code")?.as_u64()?).ok()?),
        description: value.get("description")?.as_str()?.to_owned(),
        compressed: value.get("compressed")?.as_bool()?,
        width: span("width")?,
        height: span("height")?,
        slowest: rate_in(value, "slowest")?,
        fastest: rate_in(value, "fastest")?,
    })
}

pub fn of_control(control: &Control) -> Value {
    let kind = KINDS.iter().find(|row| row.0 == control.kind).map_or("other", |row| row.1);
    json!({
        "id": control.id, "name": control.name, "kind": kind, "minimum": control.minimum, "maximum": control.maximum,
        "step": control.step, "default": control.default, "readable": control.readable,
        "writable": control.writable, "active": control.active, "menu": control.menu,
    })
}

pub fn control_of(value: &Value) -> Option<Control> {
    let whole = |key: &str| value.get(key)?.as_i64();
    let is = |key: &str| value.get(key)?.as_bool();
    let entry = |entry: &Value| Some((entry.get(0)?.as_i64()?, entry.get(1)?.as_str()?.to_owned()));
    let kind = value.get("kind")?.as_str()?;
    Some(Control {
        id: u32::try_from(whole("id")?).ok()?,
        name: value.get("name")?.as_str()?.to_owned(),
        kind: KINDS.iter().find(|row| row.1 == kind).map_or(ControlKind::Other, |row| row.0),
        minimum: whole("minimum")?,
        maximum: whole("maximum")?,
        step: whole("step")?,
        default: whole("default")?,
        readable: is("readable")?,
        writable: is("writable")?,
        active: is("active")?,
        menu: value.get("menu")?.as_array()?.iter().map(entry).collect::<Option<_>>()?,
    })
}
