//! One picture of a shared camera, in its full size, into the folder of recordings.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use camlease::{Camera, DropPolicy, Error, Kind, OpenOptions, Result, StreamRequest};
use serde_json::{Map, Value, json};

use super::folder::Folder;
use crate::capture::{picture, target};

/// Damaged frames are passed over until here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the newest frame of `shared:NAME`: a PNG where the file's name says so, else a JPEG. Not to be called where the
/// camera's own requests are answered, as it opens the camera itself.
pub fn take(name: &str, folder: &Path, file: Option<&Path>, quality: u8) -> Result<Map<String, Value>> {
    take_from(&format!("shared:{name}"), name, folder, file, quality)
}

pub(super) fn take_from(
    uri: &str,
    name: &str,
    folder: &Path,
    file: Option<&Path>,
    quality: u8,
) -> Result<Map<String, Value>> {
    let folder = Folder::open(folder)?;
    let is_png = file.and_then(Path::extension) == Some(OsStr::new("png"));
    let (kind, extension) = if is_png { (target::Kind::Png, "png") } else { (target::Kind::Jpg, "jpg") };
    let open = OpenOptions { timeout: Some(PATIENCE), name: "camlease snapshot".into(), ..OpenOptions::default() };
    let camera = Camera::open(uri, open)?;
    camera.start(&StreamRequest { drop_policy: DropPolicy::Oldest, ..StreamRequest::default() })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = camera.next_frame(Some(deadline.saturating_duration_since(Instant::now())))?;
        let Some(encoded) =
            Some(&frame).filter(|frame| !frame.is_corrupt()).and_then(|f| picture::encode(f, kind, quality))
        else {
            if Instant::now() < deadline {
                continue;
            }
            return Err(Error::new(Kind::Unsupported, format!("{name}: no frame that could be made a picture came"))
                .hint(format!("its pixel format is {}: see \"camlease ctl {name} formats\"", frame.fourcc())));
        };
        let (path, mut out) = folder.create(name, file, extension)?;
        out.write_all(&encoded).map_err(|error| {
            folder.remove(&path);
            super::failed(&path, error)
        })?;
        return Ok(told(&path, &encoded, &frame));
    }
}

fn told(path: &Path, encoded: &[u8], frame: &camlease::Frame) -> Map<String, Value> {
    let told = json!({
        "file": path.to_string_lossy(), "bytes": encoded.len(), "width": frame.width(), "height": frame.height(),
        "sequence": frame.sequence(), "timestamp_ns": frame.timestamp_ns(),
    });
    match told {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
