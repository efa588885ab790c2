//! The virtual host controller's ports: plugging in and out by writing to its files in sysfs.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

const CONTROLLER: &str = "/sys/devices/platform/vhci_hcd.0";
const HIGH_SPEED: u32 = 3; // enum usb_device_speed
const PORT_IS_FREE: &str = "004"; // VDEV_ST_NULL in `status`

/// The kernel frees a port some time after the device left it.
const PORT_WAIT: Duration = Duration::from_secs(5);
const PORT_POLL: Duration = Duration::from_millis(5);

/// Room for one isochronous transfer and its answer at once: neither side then waits for the other to read.
static SOCKET_BYTES: libc::c_int = 1 << 20;

/// Plugs a device into `port`, or the first free one: the port, and the end of the wire on which to answer.
pub fn attach(port: Option<u32>) -> io::Result<(u32, UnixStream)> {
    let deadline = Instant::now() + PORT_WAIT;
    loop {
        let candidates = match port {
            Some(port) => vec![port],
            None => free_ports()?,
        };
        for port in candidates {
            match attach_to(port) {
                Ok(socket) => return Ok((port, socket)),
                // Taken since, by another webcam, or not free yet.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "no port became free"));
        }
        thread::sleep(PORT_POLL);
    }
}

pub fn detach(port: u32) -> io::Result<()> {
    write("detach", &port.to_string())
}

fn attach_to(port: u32) -> io::Result<UnixStream> {
    let (ours, kernels) = UnixStream::pair()?;
    for socket in [&ours, &kernels] {
        // SAFETY: a live socket, and an option of the int that is pointed to.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&raw const SOCKET_BYTES).cast(),
                size_of_val(&SOCKET_BYTES) as libc::socklen_t,
            );
        }
    }
    // The device id is the exporting machine's; here there is none, and any number that differs from port to port does.
    write("attach", &format!("{port} {} {} {HIGH_SPEED}", kernels.as_raw_fd(), port + 2))?;
    Ok(ours)
}

/// Lines of `status`: hub, port, state, speed, device, socket, bus id.
fn free_ports() -> io::Result<Vec<u32>> {
    let path = format!("{CONTROLLER}/status");
    let status = fs::read_to_string(&path).map_err(|error| at(&path, &error))?;
    Ok(status
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 2 && fields[0] == "hs" && fields[2] == PORT_IS_FREE)
        .filter_map(|fields| fields[1].parse().ok())
        .collect())
}

fn write(file: &str, line: &str) -> io::Result<()> {
    let path = format!("{CONTROLLER}/{file}");
    // The errno decides whether to try again; `at` keeps only its kind.
    fs::write(&path, line).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => error,
        _ => at(&path, &error),
    })
}

fn at(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error} (modprobe vhci_hcd?)"))
}
