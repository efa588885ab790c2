//! When a worker that failed is started again: after pauses that grow, and after a long one where it fails at once again
//! and again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::config::Supervision;

/// A worker that ran for so long had started well: what was before counts no more.
const RAN_WELL: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Pacing {
    /// Those within the window.
    failures: VecDeque<Instant>,
    /// The pause that was made last.
    delay: Option<Duration>,
    /// It has failed so often that it gets single tries.
    broken: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Again(Duration),
    /// So many failures within the window: left alone for so long.
    LeftAlone(Duration),
}

impl Pacing {
    /// A worker has failed at `now` that had run for so long.
    pub fn failed(&mut self, rules: &Supervision, now: Instant, ran: Duration) -> Verdict {
        if ran >= RAN_WELL {
            *self = Pacing::default();
        }
        self.failures.push_back(now);
        self.failures.retain(|failure| now.duration_since(*failure) <= rules.window);
        if self.broken || self.failures.len() >= rules.failures as usize {
            self.broken = true;
            return Verdict::LeftAlone(rules.pause);
        }
        let delay = self.delay.map_or(rules.first_delay, |delay| (delay * 2).min(rules.longest_delay));
        self.delay = Some(delay);
        Verdict::Again(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew_after_a_good_run() {
        let rules = Supervision { failures: 1000, ..Supervision::default() };
        let (mut pacing, now) = (Pacing::default(), Instant::now());
        let mut pauses = (0..9).map(|_| pacing.failed(&rules, now, Duration::ZERO)).collect::<Vec<_>>();
        assert_eq!(pauses.pop(), Some(Verdict::Again(30 * SECOND)));
        let doubled = (0..7).map(|power| Verdict::Again(Duration::from_millis(250 << power)));
        assert_eq!(pauses, doubled.chain([Verdict::Again(30 * SECOND)]).collect::<Vec<_>>());
        assert_eq!(pacing.failed(&rules, now, RAN_WELL), Verdict::Again(rules.first_delay));
    }

    #[test]
    fn five_failures_in_a_minute_are_a_pause_and_then_there_is_one_try_at_a_time() {
        let rules = Supervision::default();
        let (mut pacing, begun) = (Pacing::default(), Instant::now());
        for second in 0..4 {
            assert!(matches!(pacing.failed(&rules, begun + second * SECOND, Duration::ZERO), Verdict::Again(_)));
        }
        assert_eq!(pacing.failed(&rules, begun + 59 * SECOND, Duration::ZERO), Verdict::LeftAlone(60 * SECOND));
        assert_eq!(pacing.failed(&rules, begun + 300 * SECOND, SECOND), Verdict::LeftAlone(60 * SECOND));
        assert_eq!(pacing.failed(&rules, begun + 900 * SECOND, RAN_WELL), Verdict::Again(rules.first_delay));
    }

    #[test]
    fn failures_that_are_far_between_are_no_reason_to_give_up() {
        let rules = Supervision::default();
        let (mut pacing, begun) = (Pacing::default(), Instant::now());
        for count in 0..20 {
            assert!(matches!(pacing.failed(&rules, begun + count * 20 * SECOND, SECOND), Verdict::Again(_)), "{count}");
        }
    }
}
