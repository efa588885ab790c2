//! A V4L2 camera that is held: what it offers, its controls, and how a stream begins.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use v4l::v4l_sys::*;

use super::export::may_export;
use super::node::{OpenNode, PixelFormat, Request, text};
use super::stream::Mapped;
use super::usb;
use crate::backend::paced::buffers_within;
use crate::backend::{Device, Identity, Port, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::{Control, ControlKind, Format, FourCc, Rate, StreamFormat, StreamRequest, layout};
use crate::kernel::{self, Closing, Fd};
use crate::lease::Filing;
use crate::memory::Buffer;

/// No driver offers this many of anything; one that never ends its list must not hang its caller.
const LIST_MOST: u32 = 1024;

pub struct Held {
    node: Arc<OpenNode>,
    identity: Identity,
}

impl Held {
    pub fn new(node: OpenNode, identity: Identity) -> Held {
        Held { node: Arc::new(node), identity }
    }

    /// Sets format and rate, and puts all buffers in place. Called while the priority is raised.
    fn set_up(&self, request: &StreamRequest) -> Result<Mapped> {
        let node = &self.node;
        // The claim's buffers have the old format, and a driver changes none while there are buffers. It still
        // streams where the last stop was refused.
        if node.request_buffers(0).is_err() {
            let _ = node.stream_off();
            node.request_buffers(0).map_err(|e| node.failed(Request::Allocate, e))?;
        }
        let mut pixels = node.format()?;
        if request.fourcc.0 != 0 || request.width != 0 || request.height != 0 {
            pixels.ask(request.fourcc, request.width, request.height);
            node.set_format(&mut pixels)?;
        }
        if request.fourcc.0 != 0 && pixels.fourcc() != request.fourcc {
            return Err(self.not_offered(request.fourcc, &pixels));
        }
        if request.rate.is_set() {
            node.set_rate(request.rate)?;
        }
        let planes = pixels.planes();
        let frame_bytes = planes.iter().map(|plane| plane.1 as u64).sum();
        let wanted = buffers_within(request, frame_bytes)?;
        let count = node.request_buffers(wanted).map_err(|e| node.failed(Request::Allocate, e))?;
        if request.max_bytes != 0 && u64::from(count) * frame_bytes > request.max_bytes {
            let message = format!("the driver insists on {count} buffers of {frame_bytes} bytes");
            return Err(Error::new(Kind::Budget, format!("{}: {message}", self.identity.uri))
                .hint(format!("max_bytes = {} allows {wanted}", request.max_bytes)));
        }
        let (width, height) = pixels.size();
        let format = StreamFormat {
            width,
            height,
            fourcc: pixels.fourcc(),
            rate: node.rate(),
            stride: planes[0].0,
            planes,
            buffers: count,
        };
        // From here on the stream gives the buffers up when something fails.
        let mut stream = Mapped::new(node.clone(), format, request.drop_policy);
        (0..count).try_for_each(|index| self.map(index).map(|buffer| stream.add(buffer)))?;
        (0..count).try_for_each(|index| stream.requeue(index))?;
        Ok(stream)
    }

    fn map(&self, index: u32) -> Result<Arc<Buffer>> {
        let failed = |e| self.node.failed(Request::MapBuffer, e);
        let planes = self.node.query_buffer(index).map_err(failed)?;
        let node = self.node.fd.number();
        let planes: Vec<_> = planes.into_iter().map(|(offset, length)| (node, offset, length)).collect();
        Buffer::map(&planes).map_err(failed)
    }

    fn not_offered(&self, wanted: FourCc, given: &PixelFormat) -> Error {
        let mut offered: Vec<String> = (0..LIST_MOST)
            .map_while(|index| self.node.enumerate_format(index))
            .map(|f| FourCc(f.pixelformat).to_string())
            .collect();
        offered.dedup();
        let uri = &self.identity.uri;
        Error::new(
            Kind::Unsupported,
            format!("{uri}: the camera does not offer {wanted} and gave {} instead", given.fourcc()),
        )
        .hint(format!("it offers {}", offered.join(", ")))
    }

    /// A full USB bus: which of the camera's own modes need less.
    fn no_bandwidth(&self, error: Error, format: &StreamFormat) -> Error {
        let needed = bytes_per_second(format.fourcc, format.width, format.height, format.rate);
        let mut smaller: Vec<(f64, String)> = self
            .formats()
            .unwrap_or_default()
            .iter()
            .map(|offer| {
                let (width, height) = (offer.width.1, offer.height.1);
                let need = bytes_per_second(offer.fourcc, width, height, offer.fastest);
                (need, format!("{} {width}x{height} at {} ({:.1} MB/s)", offer.fourcc, offer.fastest, need / 1e6))
            })
            .filter(|(need, _)| *need > 0.0 && *need < needed)
            .collect();
        smaller.sort_by(|a, b| b.0.total_cmp(&a.0));
        smaller.dedup_by(|a, b| a.1 == b.1);
        let tried = format!(
            "{} {}x{} at {} needs {:.1} MB/s",
            format.fourcc,
            format.width,
            format.height,
            format.rate,
            needed / 1e6
        );
        let proposals: Vec<String> = smaller.into_iter().take(4).map(|(_, text)| text).collect();
        match proposals.is_empty() {
            true => error.hint(format!("{tried}; give the camera a USB controller of its own")),
            false => error.hint(format!(
                "{tried}; the camera's modes that need less: {}; or give it a USB controller of its own",
                proposals.join(", ")
            )),
        }
    }
}

/// What a mode takes of the bus. Compressed frames are estimated at a tenth of two bytes a pixel.
fn bytes_per_second(fourcc: FourCc, width: u32, height: u32, rate: Rate) -> f64 {
    let rough = width as f64 * height as f64 * 2.0;
    let frame = match layout(fourcc, width, height) {
        Some((_, bytes)) => bytes as f64,
        None if [b"MJPG", b"JPEG", b"H264", b"HEVC"].iter().any(|code| FourCc::new(code) == fourcc) => rough / 10.0,
        None => rough,
    };
    frame * rate.per_second()
}

impl Device for Held {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn formats(&self) -> Result<Vec<Format>> {
        formats(&self.node)
    }

    fn controls(&self) -> Result<Vec<Control>> {
        let mut controls = Vec::new();
        let mut id = V4L2_CTRL_FLAG_NEXT_CTRL;
        while let Ok(raw) = self.node.query_control(id) {
            id = raw.id | V4L2_CTRL_FLAG_NEXT_CTRL;
            if let Some(control) = self.describe(&raw) {
                controls.push(control);
            }
        }
        Ok(controls)
    }

    fn control(&self, id: u32) -> Result<i64> {
        self.node.control(id)
    }

    fn set_control(&self, id: u32, value: i64) -> Result<()> {
        self.node.set_control(id, value)
    }

    fn may_export(&self) -> bool {
        may_export(&self.node)
    }

    fn start(&self, request: &StreamRequest) -> Result<Box<dyn Stream>> {
        let node = &self.node;
        // Between giving up the claim's buffers and having the stream's, another program could take the
        // camera. The kernel refuses it while our priority is the higher one.
        node.raise_priority();
        let started = self.set_up(request).and_then(|stream| match node.stream_on() {
            Ok(()) => Ok(stream),
            Err(cause) => {
                let error = node.failed(Request::StreamOn, cause);
                Err(match error.kind() {
                    Kind::NoBandwidth => self.no_bandwidth(error, stream.format()),
                    _ => error,
                })
            }
        });
        if started.is_err() {
            reclaim(node);
        }
        node.restore_priority();
        Ok(Box::new(started?))
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        let Identity { uri, bus, .. } = &self.identity;
        // The open file's own number: there may be no node for it any more.
        let number = self.node.fd.as_file().metadata().map(|file| file.rdev()).unwrap_or(0);
        Ok(Box::new(usb::Port::of(uri, number, bus)?.open(uri)?))
    }

    fn is_gone(&self) -> bool {
        kernel::is_hung_up(&self.node.fd)
    }

    fn filing(&self) -> Option<Filing> {
        Some(super::filing(&self.node.path, &self.node.fd.as_file().metadata().ok()?))
    }

    fn hand_over(self: Box<Self>) -> Option<Fd> {
        Arc::into_inner(self.node).map(|node| node.fd)
    }

    fn let_go(self: Box<Self>) -> Option<Closing> {
        // Where a stream is left that has the node as well, the last of the two closes it.
        Arc::into_inner(self.node).map(|node| Closing::begin(node.fd))
    }
}

/// What a node offers; it need not be held.
pub fn formats(node: &OpenNode) -> Result<Vec<Format>> {
    let mut formats = Vec::new();
    for described in (0..LIST_MOST).map_while(|index| node.enumerate_format(index)) {
        let fourcc = described.pixelformat;
        let mut sizes: Vec<_> = (0..LIST_MOST).map_while(|index| node.enumerate_size(fourcc, index)).collect();
        if sizes.is_empty() {
            // A driver with one size for everything lists none.
            let (width, height) = node.format()?.size();
            sizes.push([(width, width, 0), (height, height, 0)]);
        }
        for [width, height] in sizes {
            let mut rates: Vec<_> =
                (0..LIST_MOST).map_while(|index| node.enumerate_rate(fourcc, width.1, height.1, index)).collect();
            if rates.is_empty() {
                rates.push((Rate::default(), Rate::default()));
            }
            formats.extend(rates.into_iter().map(|(slowest, fastest)| Format {
                fourcc: FourCc(fourcc),
                description: text(&described.description),
                compressed: described.flags & V4L2_FMT_FLAG_COMPRESSED != 0,
                width,
                height,
                slowest,
                fastest,
            }));
        }
    }
    Ok(formats)
}

/// Gives up a stream's buffers and takes the claim's again. Called while the priority is raised.
pub fn reclaim(node: &OpenNode) {
    if node.request_buffers(0).is_ok() {
        // Where this fails the lease alone holds the camera, and the next start says what is wrong.
        let _ = node.request_buffers(1);
    }
}

impl Held {
    #[allow(non_upper_case_globals)] // bindgen's names for the kernel's enums
    /// A control as the host sees it; none for a heading or a disabled one.
    fn describe(&self, raw: &v4l2_query_ext_ctrl) -> Option<Control> {
        let kind = match raw.type_ {
            v4l2_ctrl_type_V4L2_CTRL_TYPE_CTRL_CLASS => return None,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER => ControlKind::Integer,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => ControlKind::Boolean,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU => ControlKind::Menu,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => ControlKind::IntegerMenu,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => ControlKind::Bitmask,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => ControlKind::Button,
            v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64 => ControlKind::Integer64,
            _ => ControlKind::Other,
        };
        if raw.flags & V4L2_CTRL_FLAG_DISABLED != 0 {
            return None;
        }
        let menu = match kind {
            ControlKind::Menu | ControlKind::IntegerMenu => (raw.minimum.max(0)..=raw.maximum.min(LIST_MOST.into()))
                .filter_map(|index| {
                    let name = self.node.query_menu(raw.id, index as u32, kind == ControlKind::IntegerMenu)?;
                    Some((index, name))
                })
                .collect(),
            _ => Vec::new(),
        };
        let plain = kind != ControlKind::Other && raw.flags & V4L2_CTRL_FLAG_HAS_PAYLOAD == 0;
        Some(Control {
            id: raw.id,
            name: text(&raw.name),
            kind: if plain { kind } else { ControlKind::Other },
            minimum: raw.minimum,
            maximum: raw.maximum,
            step: raw.step as i64,
            default: raw.default_value,
            readable: plain && kind != ControlKind::Button && raw.flags & V4L2_CTRL_FLAG_WRITE_ONLY == 0,
            writable: plain && raw.flags & V4L2_CTRL_FLAG_READ_ONLY == 0,
            active: raw.flags & V4L2_CTRL_FLAG_INACTIVE == 0,
            menu,
        })
    }
}
