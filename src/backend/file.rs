use super::*;
pub struct Recording;
impl Recording { pub fn new(_: &crate::uri::Options) -> Result<Recording> { Ok(Recording) } }
impl Source for Recording {
    fn acquire(&mut self) -> Result<Box<dyn Device>> { Err(crate::error::Error::new(crate::error::Kind::Unsupported, "stub")) }
    fn notice(&mut self) -> Result<Notice> { Ok(Notice::default()) }
    fn holders(&self) -> Holders { Holders::default() }
}
