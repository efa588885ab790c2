//! A stream's buffers for other processes to read: as DMABUFs (VIDIOC_EXPBUF), where that is no slower than ordinary
//! memory.

use std::io::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::node::OpenNode;
use crate::kernel::Fd;
use crate::memory::Buffer;
use crate::policy;
use crate::share::memory::{Mapping, written_there};

/// The planes of all buffers as files.
pub fn exported(node: &OpenNode, buffers: &[Arc<Buffer>]) -> Result<Vec<Vec<Fd>>> {
    let files = |index| move |plane| node.export_buffer(index, plane);
    let planes = |buffer: &Arc<Buffer>| 0..buffer.planes() as u32;
    (0..).zip(buffers).map(|(index, buffer)| planes(buffer).map(files(index)).collect()).collect()
}

/// Whether others could read a stream's buffers as cheaply as ordinary memory, and the camera be free while they have
/// them. The buffer by which the camera is claimed tells: all that a driver allocates is of one kind.
pub fn may_export(node: &OpenNode) -> bool {
    // Elsewhere the driver keeps all buffers while somebody has one: nobody could set another format.
    node.lets_buffers_be_orphaned()
        && probe(node).unwrap_or_else(|error| {
            log::debug!("{}: its buffers cannot be read by others: {error}", node.path.display());
            false
        })
}

fn probe(node: &OpenNode) -> Result<bool> {
    let length = node.query_buffer(0)?.first().map_or(0, |plane| plane.1);
    is_cheap(&node.export_buffer(0, 0)?, length)
}

/// A driver for hardware that does not see the processor's caches maps its memory uncached: then each reader pays many
/// times what one copy costs.
fn is_cheap(file: &Fd, length: usize) -> Result<bool> {
    let length = length.min(policy::EXPORT_SAMPLE);
    let theirs = reading(&Mapping::of(file, length, false)?, length);
    let (_, ordinary) = written_there(length)?;
    ordinary.populate(0, length);
    let ours = reading(&ordinary, length);
    let is_cheap = theirs <= ours * policy::EXPORT_DEARER + policy::EXPORT_SLACK;
    if !is_cheap {
        log::debug!("reading {length} bytes of a driver's takes {theirs:?}, and {ours:?} of ordinary memory");
    }
    Ok(is_cheap)
}

/// The shortest time of several: whatever else the machine does makes one longer.
fn reading(memory: &Mapping, length: usize) -> Duration {
    let mut room = vec![0; length];
    let mut once = || {
        let begun = Instant::now();
        memory.read(0, &mut room);
        begun.elapsed()
    };
    once(); // pages are found by then
    (0..policy::EXPORT_ROUNDS).map(|_| once()).min().unwrap_or_default()
}
