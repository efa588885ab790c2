//! A stream's buffers for other processes to read: as DMABUFs (VIDIOC_EXPBUF), where that is no slower than ordinary
//! memory.

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::node::OpenNode;
use crate::kernel::Fd;
use crate::memory::Buffer;
use crate::policy;
use crate::share::memory::{Mapping, written_there};

/// The planes of all buffers as files. An error where the driver exports none, or others would read them slowly.
pub fn exported(node: &OpenNode, buffers: &[Arc<Buffer>]) -> std::io::Result<Vec<Vec<Fd>>> {
    let planes_of = |buffer: &Arc<Buffer>| buffer.planes() as u32;
    let files: Vec<Vec<Fd>> = (0u32..)
        .zip(buffers)
        .map(|(index, buffer)| (0..planes_of(buffer)).map(|plane| node.export_buffer(index, plane)).collect())
        .collect::<std::io::Result<_>>()?;
    // All buffers of a queue are of one kind.
    if let ([file, ..], Some(buffer)) = (files.first().map_or(&[][..], |planes| &planes[..]), buffers.first()) {
        is_cheap(file, buffer.plane(0).1)?;
    }
    Ok(files)
}

/// A driver for hardware that does not see the processor's caches maps its memory uncached: then each reader pays many
/// times what one copy costs.
fn is_cheap(file: &Fd, length: usize) -> std::io::Result<()> {
    let length = length.min(policy::EXPORT_SAMPLE);
    let theirs = reading(&Mapping::of(file, length, false)?, length);
    let (_, ordinary) = written_there(length)?;
    ordinary.populate(0, length);
    let ours = reading(&ordinary, length);
    let dear = || format!("reading {length} bytes takes {theirs:?}, and {ours:?} from ordinary memory");
    match theirs <= ours * policy::EXPORT_DEARER + policy::EXPORT_SLACK {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Unsupported, dear())),
    }
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
