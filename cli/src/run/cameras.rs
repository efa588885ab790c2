//! The cameras that a command needs, in one order for all who need several.

use std::path::Path;

/// Each camera once, however often and by whatever names it is given, in an order that depends on the cameras alone:
/// two who take them one after the other, each in an order of its own, would wait for each other for ever.
pub fn in_order(given: &[String]) -> Vec<&String> {
    let mut cameras: Vec<(String, &String)> = given.iter().map(|camera| (which(camera), camera)).collect();
    cameras.sort();
    cameras.dedup_by(|one, other| one.0 == other.0);
    cameras.into_iter().map(|(_, camera)| camera).collect()
}

/// The same for all names of a camera.
fn which(camera: &str) -> String {
    let plain = camera.split('?').next().unwrap_or(camera);
    if let Some(id) = plain.strip_prefix("usb:") {
        return usb_node(id).unwrap_or_else(|| plain.to_owned());
    }
    let (scheme, path) = match plain.split_once(':') {
        Some((scheme @ ("v4l2" | "file"), path)) => (scheme, path),
        _ if plain.starts_with("virtual:") => return plain.to_owned(),
        _ => ("v4l2", plain),
    };
    // A link in /dev/v4l/by-id, or a name relative to the folder; a node that is not there yet has its name alone.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    format!("{scheme}:{}", real.display())
}

/// The node of a USB camera that is plugged in: "046d:0825" or "046d:0825:SERIAL", as the kernel has its devices in
/// sysfs.
fn usb_node(id: &str) -> Option<String> {
    let mut fields = id.splitn(3, ':');
    let mut number = || u32::from_str_radix(fields.next()?, 16).ok();
    let (vendor, product) = (number()?, number()?);
    let serial = fields.next();
    camlease::list().ok()?.into_iter().map(|found| found.identity.uri).find_map(|uri| {
        let node = Path::new(&uri).file_name()?.to_str()?;
        // The interface that the node belongs to; its device is one above.
        let interface = std::fs::canonicalize(format!("/sys/class/video4linux/{node}/device")).ok()?;
        let device = interface.parent()?;
        let text = |name| std::fs::read_to_string(device.join(name)).ok().map(|text| text.trim().to_owned());
        let hex = |name| u32::from_str_radix(&text(name)?, 16).ok();
        let is_it = hex("idVendor")? == vendor && hex("idProduct")? == product;
        (is_it && serial.is_none_or(|serial| text("serial").as_deref() == Some(serial))).then(|| format!("v4l2:{uri}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_camera_comes_once_and_in_one_order() {
        let order = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|&camera| camera.to_owned()).collect();
            in_order(&given).into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(order(&["virtual:b", "virtual:a"]), ["virtual:a", "virtual:b"]);
        assert_eq!(order(&["virtual:a?fps=5", "virtual:a"]).len(), 1);
        assert_eq!(order(&["/dev/video97", "v4l2:/dev/video97", "/dev/video97?x=1"]).len(), 1);
        assert_eq!(order(&["/", "v4l2:/dev/..", "file:/"]).len(), 2, "a recording is no node");
        assert_eq!(order(&["usb:ffff:fffe", "usb:ffff:fffe:1"]).len(), 2, "which one it will be nobody knows");
    }
}
