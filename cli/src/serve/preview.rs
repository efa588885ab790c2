//! A small picture of a shared camera, as a stream of JPEGs that is shared itself, by the name `NAME.preview`. While nobody
//! reads it nothing is computed, and the camera is not read either.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camlease::{
    Access, Allowed, Camera, DropPolicy, Error, Event, FourCc, Frame, Kind, OpenOptions, Publisher, Rate, Result,
    ShareOptions, StreamFormat, StreamRequest,
};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde_json::{Map, Value, json};
use zune_jpeg::zune_core::colorspace::ColorSpace;

use super::config::PREVIEW_SUFFIX;
use super::record::spawn;
use crate::capture::jpeg;
use crate::capture::pixels::{Pixels, tight};
use crate::signals::wait;

/// How often it is looked whether somebody reads: as late may the first picture be, and the last look at the camera end.
const LOOK: Duration = Duration::from_millis(100);

/// How long one attempt to attach to the camera may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before a camera that failed is attached to again.
const RETRY: Duration = Duration::from_millis(500);

/// Who looks at a preview wants the newest picture, and no past.
const HISTORY: u32 = 1;

#[derive(Debug, Clone, PartialEq)]
pub struct PreviewOptions {
    /// The height follows the camera's shape. A camera whose frames are smaller is not enlarged.
    pub width: u32,
    /// At most; a slower camera's preview has the camera's rate.
    pub rate: Rate,
    /// 1 to 100.
    pub quality: u8,
    pub readers: Allowed,
}

impl Default for PreviewOptions {
    fn default() -> Self {
        PreviewOptions { width: 320, rate: Rate::new(5, 1), quality: 75, readers: Allowed::Owner }
    }
}

/// A preview that is offered. Dropping it ends that.
pub struct Preview {
    shared: Arc<Shared>,
}

struct Shared {
    camera: String,
    options: PreviewOptions,
    stop: Event,
    state: Mutex<State>,
}

struct State {
    /// None when the preview has ended: its thread may still be at the camera then.
    publisher: Option<Publisher>,
    size: (u32, u32),
    pictures: u64,
    trouble: Option<String>,
}

impl Preview {
    /// Offers a preview of `shared:NAME`. That is attached to by a thread of the preview: this may be called where the
    /// camera's own requests are answered.
    pub fn start(name: &str, options: PreviewOptions) -> Result<Preview> {
        let failed = |error| Error::system(format!("shared:{name}{PREVIEW_SUFFIX}"), error);
        // Until somebody looks, the camera may not stream: most have this shape.
        let size = (options.width, height_of(options.width, 4, 3));
        let share = ShareOptions {
            name: format!("{name}{PREVIEW_SUFFIX}"),
            readers: options.readers,
            history: HISTORY,
            ..ShareOptions::default()
        };
        let publisher = Some(Publisher::new(share, &format_of(size, options.rate))?);
        let state = Mutex::new(State { publisher, size, pictures: 0, trouble: None });
        let stop = Event::new().map_err(failed)?;
        let shared = Arc::new(Shared { camera: name.to_owned(), options, stop, state });
        let preview = Preview { shared: shared.clone() };
        spawn("camlease-preview", move || offer(&shared)).map_err(failed)?;
        Ok(preview)
    }

    pub fn status(&self) -> Map<String, Value> {
        let state = self.shared.state();
        let readers = state.publisher.as_ref().map_or(0, |publisher| publisher.info().readers);
        let status = json!({
            "on": true, "readers": readers, "width": state.size.0, "height": state.size.1,
            "frames": state.pictures, "error": state.trouble,
        });
        match status {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        self.shared.stop.signal();
        // The thread is not waited for, as it may wait for the one that drops this.
        let publisher = self.shared.state().publisher.take();
        drop(publisher);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_read(&self) -> bool {
        self.state().publisher.as_ref().is_some_and(|publisher| publisher.info().readers > 0)
    }

    /// Whether the preview is to end; waits for that so long.
    fn is_stopped(&self, timeout: Duration) -> bool {
        // SAFETY: the event's descriptor is open as long as the event, which `self` keeps.
        wait([unsafe { BorrowedFd::borrow_raw(self.stop.fd()) }], Some(timeout))[0]
    }

    /// Shows a picture to the readers, in a format of its own where its size is another than before.
    fn publish(&self, jpeg: &[u8], size: (u32, u32), frame: &Frame) -> Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(publisher) = &state.publisher else { return Ok(()) };
        if state.size != size {
            publisher.set_format(&format_of(size, self.options.rate))?;
            state.size = size;
        }
        let is_shown = publisher.publish(&[jpeg], frame.sequence(), frame.timestamp_ns(), false);
        state.pictures += u64::from(is_shown);
        state.trouble = None;
        Ok(())
    }
}

fn offer(shared: &Shared) {
    let mut resizer = Resizer::new();
    while !shared.is_stopped(LOOK) {
        if !shared.is_read() {
            continue;
        }
        if let Err(error) = show(shared, &mut resizer) {
            shared.state().trouble = Some(error.to_string());
            if shared.is_stopped(RETRY) {
                return;
            }
        }
    }
}

/// Shows pictures until nobody looks any more.
fn show(shared: &Shared, resizer: &mut Resizer) -> Result<()> {
    let PreviewOptions { width, rate, quality, .. } = shared.options;
    let uri = format!("shared:{}", shared.camera);
    let open = OpenOptions {
        timeout: Some(OPEN_TIMEOUT),
        access: Access::Monitor,
        name: "camlease preview".into(),
        ..OpenOptions::default()
    };
    let camera = Camera::open(&uri, open)?;
    camera.start(&StreamRequest { drop_policy: DropPolicy::Oldest, ..StreamRequest::default() })?;
    let interval = if rate.is_set() { Duration::from_nanos(rate.ns_of(1) as u64) } else { Duration::ZERO };
    let mut due = Instant::now();
    while shared.is_read() {
        let left = due.saturating_duration_since(Instant::now());
        if shared.is_stopped(left.min(LOOK)) {
            return Ok(());
        }
        if left > LOOK {
            continue;
        }
        let frame = match camera.next_frame(Some(LOOK)) {
            Ok(frame) => frame,
            Err(error) if error.kind() == Kind::Timeout => continue,
            Err(error) => return Err(error),
        };
        due = (due + interval).max(Instant::now());
        if frame.is_corrupt() {
            continue;
        }
        match thumbnail(&frame, width, quality, resizer) {
            Some((jpeg, width, height)) => shared.publish(&jpeg, (width, height), &frame)?,
            None => {
                let words = format!("{uri}: no picture could be made of a frame of {}", frame.fourcc());
                shared.state().trouble = Some(words);
            }
        }
    }
    Ok(())
}

fn format_of((width, height): (u32, u32), rate: Rate) -> StreamFormat {
    // Not even noise in the best quality makes a JPEG larger.
    let most = 3 * width as usize * height as usize + 4096;
    StreamFormat {
        width,
        height,
        fourcc: FourCc::new(b"MJPG"),
        rate,
        planes: vec![(0, most)],
        ..StreamFormat::default()
    }
}

/// A JPEG of this width, as high as the frame's shape wants it, and its size. A frame that is smaller keeps its own.
/// None where the frame is damaged or its pixel format is not known.
fn thumbnail(frame: &Frame, width: u32, quality: u8, resizer: &mut Resizer) -> Option<(Vec<u8>, u32, u32)> {
    let (wide, high) = (frame.width(), frame.height());
    // A grey picture stays one: a third of the work.
    let (pixels, kind, wide, high) = match Pixels::of(frame)? {
        Pixels::Jpeg(bytes) => {
            let (rgb, wide, high) = jpeg::decode(bytes, ColorSpace::RGB)?;
            (rgb, PixelType::U8x3, wide as u32, high as u32)
        }
        Pixels::Grey { bytes, stride } => (tight(bytes, stride, wide as usize), PixelType::U8, wide, high),
        other => (other.rgb(wide, high)?, PixelType::U8x3, wide, high),
    };
    let is_grey = kind == PixelType::U8;
    if wide <= width {
        return Some((jpeg::encode(&pixels, wide, high, is_grey, quality)?, wide, high));
    }
    let height = height_of(width, wide, high);
    let from = ImageRef::new(wide, high, &pixels, kind).ok()?;
    let mut to = Image::new(width, height, kind);
    // The mean of what a pixel covers: fine lines neither flicker nor vanish, as they do where pixels are picked.
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Box)).use_alpha(false);
    resizer.resize(&from, &mut to, &options).ok()?;
    Some((jpeg::encode(to.buffer(), width, height, is_grey, quality)?, width, height))
}

/// Rounded, and a line at least.
fn height_of(width: u32, wide: u32, high: u32) -> u32 {
    let wide = wide.max(1);
    let height = (u64::from(high) * u64::from(width) + u64::from(wide) / 2) / u64::from(wide);
    u32::try_from(height).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::picture;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn camera(uri: &str) -> Camera {
        Camera::open(uri, OpenOptions::default()).unwrap()
    }

    /// A name that no other test and no other machine's process uses.
    fn name(test: &str) -> String {
        format!("preview-{test}-{}", std::process::id())
    }

    #[track_caller]
    fn next(camera: &Camera) -> Frame {
        camera.next_frame(Some(PATIENCE)).unwrap()
    }

    #[track_caller]
    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn shared(name: &str, query: &str) -> Camera {
        let camera = camera(&format!("virtual:{name}?{query}"));
        camera.share(ShareOptions { name: name.to_owned(), ..ShareOptions::default() }).unwrap();
        camera
    }

    #[test]
    fn the_small_picture_looks_like_the_large_one() {
        let mut resizer = Resizer::new();
        for fourcc in ["YUYV", "NV12", "RGB3", "BGR3", "GREY"] {
            let camera = camera(&format!("virtual:{}?fourcc={fourcc}&width=640&height=400", name(fourcc)));
            camera.start(&StreamRequest::default()).unwrap();
            let frame = next(&camera);
            let (small, width, height) = thumbnail(&frame, 160, 90, &mut resizer).unwrap();
            assert_eq!((width, height), (160, 100));
            let large = picture::jpeg_of(&frame, 90).unwrap();
            let (large, ..) = jpeg::decode(&large, ColorSpace::RGB).unwrap();
            let (small, wide, high) = jpeg::decode(&small, ColorSpace::RGB).unwrap();
            assert_eq!((wide, high), (160, 100));
            let mut far = 0;
            for (at, pixel) in small.chunks_exact(3).enumerate() {
                let (x, y) = (at % 160 * 4, at / 160 * 4);
                let mean = |part: usize| {
                    let of = |i: usize| u32::from(large[((y + i / 4) * 640 + x + i % 4) * 3 + part]);
                    (0..16).map(of).sum::<u32>() / 16
                };
                far += (0..3).filter(|part| mean(*part).abs_diff(pixel[*part].into()) > 40).count();
            }
            assert!(far < small.len() / 20, "{fourcc}: {far} of {} are far", small.len());
            let (_, wide, high) = thumbnail(&frame, 1000, 90, &mut resizer).unwrap();
            assert_eq!((wide, high), (640, 400), "nothing is enlarged");
        }
    }

    #[test]
    fn a_preview_has_its_size_and_rate_and_costs_nothing_when_nobody_looks() {
        let name = name("offered");
        let owner = shared(&name, "width=640&height=360&fps=30&fourcc=YUYV");
        let options = PreviewOptions { width: 160, rate: Rate::new(10, 1), quality: 60, ..PreviewOptions::default() };
        let preview = Preview::start(&name, options).unwrap();
        let readers = || owner.share_info().unwrap().readers;
        std::thread::sleep(LOOK * 5);
        assert_eq!((readers(), &preview.status()["frames"]), (0, &0.into()), "the camera is left alone");
        assert!(!owner.share_info().unwrap().streaming);

        let looks = camera(&format!("shared:{name}.preview"));
        looks.start(&StreamRequest::default()).unwrap();
        let first = next(&looks);
        assert_eq!((first.width(), first.height(), first.fourcc()), (160, 90, FourCc::new(b"MJPG")));
        let (_, wide, high) = jpeg::decode(first.data(0), ColorSpace::RGB).unwrap();
        assert_eq!((wide, high), (160, 90));
        assert_eq!(readers(), 1);
        let begun = Instant::now();
        (0..20).for_each(|_| drop(next(&looks)));
        let rate = 20.0 / begun.elapsed().as_secs_f64();
        // The lower bound is for a busy machine.
        assert!((0.3..=11.5).contains(&rate), "{rate} per second");

        drop(first);
        drop(looks);
        wait_until("the preview to leave the camera", || readers() == 0);
        let frames = preview.status()["frames"].clone();
        std::thread::sleep(LOOK * 5);
        assert_eq!(preview.status()["frames"], frames);
        drop(preview);
        let gone = Camera::open(
            &format!("shared:{name}.preview"),
            OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() },
        );
        assert_eq!(gone.err().map(|error| error.kind()), Some(Kind::NotFound));
        // At once again under the same name.
        Preview::start(&name, PreviewOptions::default()).unwrap();
    }

    #[test]
    fn a_slow_rate_is_kept() {
        let name = name("slow");
        let _owner = shared(&name, "width=64&height=48&fps=100");
        let options = PreviewOptions { rate: Rate::new(5, 2), ..PreviewOptions::default() };
        let _preview = Preview::start(&name, options).unwrap();
        let looks = camera(&format!("shared:{name}.preview"));
        looks.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }).unwrap();
        drop(next(&looks));
        let begun = Instant::now();
        (0..9).for_each(|_| drop(next(&looks)));
        // Two pauses less: on a busy machine the first picture may be made late, and seen late.
        assert!(begun.elapsed() >= Duration::from_millis(7 * 400), "{:?}", begun.elapsed());
    }
}
