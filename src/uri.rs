//! Camera names: what a host writes, and which backend it means.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Kind, Result};
use crate::format::FourCc;

/// A parsed camera name.
#[derive(Debug, Clone, PartialEq)]
pub enum Uri {
    V4l2(PathBuf),
    Usb(UsbDevice),
    Virtual(Options),
    File(Options),
    Shared(Options),
}

/// `usb:VID:PID[:SERIAL]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsbDevice {
    pub vendor: u16,
    pub product: u16,
    pub serial: Option<String>,
}

impl fmt::Display for UsbDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usb:{:04x}:{:04x}", self.vendor, self.product)?;
        self.serial.iter().try_for_each(|serial| write!(f, ":{serial}"))
    }
}

/// `scheme:target?key=value&key=value`
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The whole name, for messages.
    pub uri: String,
    pub target: String,
    values: BTreeMap<String, String>,
}

const NAMES: &str = "/dev/videoN or another path to a video node, v4l2:PATH, usb:VID:PID[:SERIAL], \
                     virtual:NAME?width=640&height=480&fps=30&fourcc=YUYV, file:PATH?loop=1&fps=30, \
                     shared:NAME?every=N&rate=R";

impl Uri {
    pub fn parse(text: &str) -> Result<Uri> {
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            return Ok(Uri::V4l2(text.into()));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(invalid(text, "it is neither a path nor scheme:target").hint(format!("use one of {NAMES}")));
        };
        match scheme {
            "v4l2" if rest.is_empty() => Err(invalid(text, "the path is missing").hint("write v4l2:/dev/video0")),
            "v4l2" => Ok(Uri::V4l2(rest.into())),
            "usb" => parse_usb(text, rest).map(Uri::Usb),
            "virtual" => Options::parse(text, rest).map(Uri::Virtual),
            "file" => Options::parse(text, rest).map(Uri::File),
            "shared" => Options::parse(text, rest).map(Uri::Shared),
            "realsense" | "libcamera" => Err(Error::new(
                Kind::Unsupported,
                format!("camera name \"{text}\": {scheme} cameras are not part of this version"),
            )
            .hint(format!("use one of {NAMES}"))),
            _ => Err(invalid(text, &format!("there is no kind of camera called \"{scheme}\""))
                .hint(format!("use one of {NAMES}"))),
        }
    }
}

fn invalid(uri: &str, why: &str) -> Error {
    Error::new(Kind::InvalidArgument, format!("camera name \"{uri}\": {why}"))
}

fn parse_usb(uri: &str, rest: &str) -> Result<UsbDevice> {
    let mut parts = rest.splitn(3, ':');
    let mut id = |what: &str| {
        let text = parts.next().unwrap_or("");
        u16::from_str_radix(text, 16).ok().filter(|_| text.len() <= 4).ok_or_else(|| {
            invalid(uri, &format!("the {what} id \"{text}\" is not a number of up to four hexadecimal digits"))
                .hint("write it as lsusb shows it: usb:046d:0825 or usb:046d:0825:SERIAL")
        })
    };
    let (vendor, product) = (id("vendor")?, id("product")?);
    Ok(UsbDevice { vendor, product, serial: parts.next().filter(|s| !s.is_empty()).map(str::to_owned) })
}

impl Options {
    fn parse(uri: &str, rest: &str) -> Result<Options> {
        let (target, query) = rest.split_once('?').unwrap_or((rest, ""));
        if target.is_empty() {
            return Err(invalid(uri, "nothing stands after the colon"));
        }
        let mut values = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| invalid(uri, &format!("\"{pair}\" is not of the form key=value")))?;
            if values.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(invalid(uri, &format!("\"{key}\" is given twice")));
            }
        }
        Ok(Options { uri: uri.to_owned(), target: target.to_owned(), values })
    }

    /// Refuses keys that nothing reads: a mistyped one must not pass for a default.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.values.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(self.invalid(format!("\"{key}\" is not known; known are {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// A whole number within a range, or `default`.
    pub fn number(&self, key: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64> {
        let Some(text) = self.values.get(key) else { return Ok(default) };
        text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.invalid(format!("{key}={text} is not a whole number from {least} to {most}"))
        })
    }

    /// A four-character code, or `default`.
    pub fn fourcc(&self, key: &str, default: FourCc) -> Result<FourCc> {
        let Some(text) = self.values.get(key) else { return Ok(default) };
        FourCc::parse(text).ok_or_else(|| self.invalid(format!("{key}={text} is not a four-character code")))
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub fn invalid(&self, why: impl fmt::Display) -> Error {
        invalid(&self.uri, &why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_their_backends() {
        assert_eq!(Uri::parse("/dev/video0").unwrap(), Uri::V4l2("/dev/video0".into()));
        assert_eq!(Uri::parse("v4l2:/dev/v4l/by-id/x").unwrap(), Uri::V4l2("/dev/v4l/by-id/x".into()));
        let usb = UsbDevice { vendor: 0x46d, product: 0x825, serial: Some("A:B".into()) };
        assert_eq!(Uri::parse("usb:046d:0825:A:B").unwrap(), Uri::Usb(usb.clone()));
        assert_eq!(usb.to_string(), "usb:046d:0825:A:B");
        let Uri::Virtual(options) = Uri::parse("virtual:left?width=320&fps=5").unwrap() else { panic!() };
        assert_eq!(options.target, "left");
        assert_eq!(options.number("width", 640, 1..=4096).unwrap(), 320);
        assert_eq!(options.number("height", 480, 1..=4096).unwrap(), 480);
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        for (name, part) in [
            ("", "neither a path"),
            ("video0", "neither a path"),
            ("v4l2:", "path is missing"),
            ("usb:xyz:1", "vendor id \"xyz\""),
            ("usb:046d", "product id"),
            ("usb:12345:1", "vendor id \"12345\""),
            ("ftp:x", "no kind of camera called \"ftp\""),
            ("virtual:", "nothing stands after"),
            ("virtual:a?width", "key=value"),
            ("virtual:a?fps=1&fps=2", "given twice"),
        ] {
            let error = Uri::parse(name).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{name}");
            assert!(error.message().contains(part), "{name}: {error}");
        }
        assert_eq!(Uri::parse("realsense:").unwrap_err().kind(), Kind::Unsupported);
        let Uri::Virtual(options) = Uri::parse("virtual:a?witdh=3").unwrap() else { panic!() };
        assert!(options.only(&["width"]).unwrap_err().message().contains("\"witdh\" is not known"));
        let Uri::Virtual(options) = Uri::parse("virtual:a?width=-3").unwrap() else { panic!() };
        assert!(options.number("width", 1, 1..=9).unwrap_err().message().contains("width=-3"));
    }
}
