//! Which frame of a recording is shown as which frame of a stream.

use crate::error::Result;

/// Where the frames of a recording lie, found as far as they were asked for: a file of hours is not
/// read through before its first frame is shown, and how long the loop is shows when the end is met.
pub struct Index<F> {
    frames: Vec<F>,
    complete: bool,
    repeat: bool,
}

impl<F: Copy> Index<F> {
    pub fn new(repeat: bool) -> Index<F> {
        Index { frames: Vec::new(), complete: false, repeat }
    }

    /// The frame that is shown as number `sequence`; none when the recording is over by then.
    /// `after` finds the frame behind the given one, or the first.
    pub fn frame(&mut self, sequence: u64, after: impl FnMut(Option<F>) -> Result<Option<F>>) -> Result<Option<F>> {
        self.extend(sequence, after)?;
        Ok(place(sequence, self.frames.len(), self.repeat).map(|place| self.frames[place]))
    }

    /// All frames there are.
    pub fn all(&mut self, after: impl FnMut(Option<F>) -> Result<Option<F>>) -> Result<&[F]> {
        self.extend(u64::MAX, after)?;
        Ok(&self.frames)
    }

    fn extend(&mut self, sequence: u64, mut after: impl FnMut(Option<F>) -> Result<Option<F>>) -> Result<()> {
        while !self.complete && self.frames.len() as u64 <= sequence {
            match after(self.frames.last().copied())? {
                Some(frame) => self.frames.push(frame),
                None => self.complete = true,
            }
        }
        Ok(())
    }
}

/// Which of `count` frames is shown as number `sequence`, if any.
pub fn place(sequence: u64, count: usize, repeat: bool) -> Option<usize> {
    let place = if repeat { sequence.checked_rem(count as u64)? } else { sequence };
    (place < count as u64).then_some(place as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_looked_for_only_as_far_as_needed() {
        let mut looked_at = Vec::new();
        let mut index = Index::new(true);
        let mut shown = |sequence| {
            let found = index.frame(sequence, |last: Option<u8>| {
                let next = last.map_or(0, |last| last + 1);
                looked_at.push(next);
                Ok((next < 5).then_some(next))
            });
            (found.unwrap(), looked_at.len())
        };
        assert_eq!(shown(0), (Some(0), 1));
        assert_eq!(shown(3), (Some(3), 4));
        assert_eq!(shown(1), (Some(1), 4), "going back needs no new look");
        assert_eq!(shown(12), (Some(2), 6), "the sixth look met the end");
        assert_eq!(shown(1_000_000_003), (Some(3), 6));
    }

    #[test]
    fn a_recording_ends_or_repeats() {
        assert_eq!(place(4, 5, false), Some(4));
        assert_eq!(place(5, 5, false), None);
        assert_eq!(place(5, 5, true), Some(0));
        assert_eq!(place(0, 0, true), None);
        assert_eq!(place(0, 0, false), None);
    }
}
