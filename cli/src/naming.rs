//! What the person writes: cameras, times, sizes, rates.

use std::path::Path;
use std::time::Duration;

use camlease::{Error, Kind, Rate};

/// A camera's name for the library: `0` and `video0` stand for `/dev/video0`.
pub fn camera(text: &str) -> Result<String, String> {
    let number = text.strip_prefix("video").unwrap_or(text);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Ok(if is_number { format!("/dev/video{number}") } else { text.to_owned() })
}

/// Looking for holders finds nobody at a camera that is not there, too: which of the two it is.
pub fn check_that_it_exists(uri: &str) -> camlease::Result<()> {
    let path = uri.strip_prefix("v4l2:").unwrap_or(uri);
    let file = uri.strip_prefix("file:").map(|rest| rest.split('?').next().unwrap_or(rest));
    if uri.starts_with("usb:") {
        return match camlease::formats(uri) {
            Err(error) if error.kind() == Kind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    match file.or(path.contains('/').then_some(path)) {
        Some(path) if !Path::new(path).exists() => {
            Err(Error::new(Kind::NotFound, format!("{uri}: there is no such camera"))
                .hint("plug it in, or see which there are: camlease list"))
        }
        _ => Ok(()),
    }
}

/// A time: seconds, or a number with `ms`, `s`, `m` (minutes) or `h`.
pub fn time(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("\"{unit}\" is no unit of time: ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "write a time as 5, 2.5s, 300ms or 2m".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "this time is too long".to_owned())
}

/// A size: `640x480`.
pub fn size(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    parts.filter(|&(width, height)| width > 0 && height > 0).ok_or_else(|| "write a size as 640x480".to_owned())
}

/// Frames per second: `30`, `7.5` or `30000/1001`.
pub fn rate(text: &str) -> Result<Rate, String> {
    let complaint = || "write a rate as 30, 7.5 or 30000/1001".to_owned();
    let parsed = match (text.split_once('/'), text.split_once('.')) {
        (Some((numerator, denominator)), _) => {
            numerator.parse().ok().zip(denominator.parse().ok()).map(|(above, below)| Rate::new(above, below))
        }
        (None, Some(_)) => {
            let number: f64 = text.parse().map_err(|_| complaint())?;
            (number.is_finite() && number < 1e6).then(|| Rate::new((number * 1000.0).round() as u32, 1000))
        }
        (None, None) => text.parse().ok().map(|number| Rate::new(number, 1)),
    };
    parsed.filter(|rate| rate.is_set()).ok_or_else(complaint)
}

/// A time for a person: `850 ms`, `12.3 s`, `4 min 5 s`, `3 h 20 min`.
pub fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_video_nodes() {
        for (written, meant) in [("0", "/dev/video0"), ("video12", "/dev/video12"), ("virtual:0", "virtual:0")] {
            assert_eq!(camera(written).unwrap(), meant);
        }
        for name in ["video", "videoX", "/dev/video1", "usb:046d:0825", ""] {
            assert_eq!(camera(name).unwrap(), name);
        }
    }

    #[test]
    fn times_have_units() {
        for (written, ms) in [("3", 3000), ("2.5s", 2500), ("300ms", 300), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(time(written).unwrap(), Duration::from_millis(ms));
        }
        for wrong in ["", "s", "3 days", "-1", "1..5", "1e9", "99999999999999999999h"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_rates_are_read() {
        assert_eq!(size("640x480"), Ok((640, 480)));
        assert!(size("640").is_err() && size("0x3").is_err() && size("640x480x2").is_err());
        assert_eq!(rate("30"), Ok(Rate::new(30, 1)));
        assert_eq!(rate("7.5"), Ok(Rate::new(7500, 1000)));
        assert_eq!(rate("30000/1001"), Ok(Rate::new(30_000, 1001)));
        assert!(rate("0").is_err() && rate("fast").is_err() && rate("1/0").is_err() && rate("nan.").is_err());
    }

    #[test]
    fn times_are_shown_as_said() {
        let shown_ms = |ms| shown(Duration::from_millis(ms));
        assert_eq!(shown_ms(850), "850 ms");
        assert_eq!(shown_ms(12_340), "12.3 s");
        assert_eq!(shown_ms(245_000), "4 min 5 s");
        assert_eq!(shown_ms(12_000_000), "3 h 20 min");
    }
}
