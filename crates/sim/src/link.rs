//! A connection between a device and the server: ordered, delayed, and cut at any moment.

use std::collections::VecDeque;

use syncline_core::Timestamp;
use syncline_server::SessionId;

use crate::rng::Rng;

/// Frames under way in both directions. Like TCP: in order or not at all.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: SessionId,
    pub(crate) up: Lane,
    pub(crate) down: Lane,
    /// Neither side hears of the other any more, and nobody tells them.
    pub(crate) is_dark: bool,
}

impl Link {
    /// `slow_ms`: how long most frames take at most.
    pub(crate) fn new(session: SessionId, slow_ms: u64) -> Self {
        Self {
            session,
            up: Lane::new(slow_ms),
            down: Lane::new(slow_ms),
            is_dark: false,
        }
    }

    pub(crate) fn heal(&mut self, now: Timestamp) {
        self.up.heal(now);
        self.down.heal(now);
    }

    pub(crate) fn falls_ill(&mut self) {
        self.up.falls_ill();
        self.down.falls_ill();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.up.frames.is_empty() && self.down.frames.is_empty()
    }
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Lane {
    frames: VecDeque<(Timestamp, Vec<u8>)>,
    last: Timestamp,
    slow_ms: u64,
    /// No frame takes longer than most of them do.
    is_even: bool,
    /// What would arrive in between arrives at its end.
    stall: Option<(Timestamp, Timestamp)>,
}

impl Lane {
    fn new(slow_ms: u64) -> Self {
        Self {
            frames: VecDeque::new(),
            last: Timestamp(0),
            slow_ms,
            is_even: false,
            stall: None,
        }
    }

    /// Nothing arrives between these moments; what was sent stays under way.
    pub(crate) fn stall(&mut self, from: Timestamp, until: Timestamp) {
        self.stall = Some((from, until));
    }

    /// What is stalled arrives, and nothing takes much longer than the rest until
    /// [`Lane::falls_ill`].
    pub(crate) fn heal(&mut self, now: Timestamp) {
        self.stall = None;
        self.is_even = true;
        self.last = self.last.min(now.plus_millis(self.slow_ms));
        for (at, _) in &mut self.frames {
            *at = (*at).min(self.last);
        }
    }

    /// Frames may take long again.
    pub(crate) fn falls_ill(&mut self) {
        self.is_even = false;
    }

    pub(crate) fn send(&mut self, frame: Vec<u8>, now: Timestamp, rng: &mut Rng) {
        let delay = if rng.percent(5) && !self.is_even {
            rng.below(50 * self.slow_ms)
        } else {
            rng.below(self.slow_ms)
        };
        // Later frames never overtake earlier ones.
        self.last = self.last.max(now.plus_millis(delay));
        self.frames.push_back((self.last, frame));
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// When the next frame arrives.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let at = self.frames.front().map(|(at, _)| *at)?;
        match self.stall {
            Some((from, until)) if from <= at && at < until => Some(until),
            Some(_) | None => Some(at),
        }
    }

    /// The next frame, if it has arrived by `now`.
    pub(crate) fn receive(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        if self.due()? > now {
            return None;
        }
        self.frames.pop_front().map(|(_, frame)| frame)
    }
}
