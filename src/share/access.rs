//! How a camera is opened that may be shared: itself, or by way of the process that shares it.

use crate::backend::shared::Shared;
use crate::backend::{self, Source};
use crate::camera::{Access, OpenOptions};
use crate::error::{Error, Kind, Result};
use crate::lease;
use crate::uri::Uri;

/// Where a camera is to be had.
pub fn source(uri: &str, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let monitor = options.access == Access::Monitor;
    let attach = |shared: Shared| Box::new(shared.for_reader(&options.name, monitor)) as Box<dyn Source>;
    let parsed = Uri::parse(uri)?;
    if let Uri::Shared(name) = &parsed {
        return Ok(attach(Shared::new(name)?));
    }
    let source = backend::source(&parsed)?;
    if options.access == Access::Exclusive {
        return Ok(source);
    }
    let sharing = lease::find(&source.filings()).into_iter().find_map(|found| found.record.share);
    match (sharing, options.access) {
        (Some(name), _) => Ok(attach(Shared::named(&name))),
        (None, Access::Monitor) => Err(Error::new(Kind::NotFound, format!("{uri}: nobody shares it"))
            .hint("share it (camlease serve, camlease_share_start), or open it with access shared")),
        (None, _) => Err(Error::new(Kind::Unsupported, "not yet")),
    }
}
