//! A connection between a device and the server: ordered, delayed, and cut at any moment.

use std::collections::VecDeque;

use syncline_core::Timestamp;

use crate::rng::Rng;

/// Frames under way in both directions. Like TCP: in order or not at all.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) up: Lane,
    pub(crate) down: Lane,
}

impl Link {
    pub(crate) fn is_empty(&self) -> bool {
        self.up.frames.is_empty() && self.down.frames.is_empty()
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    frames: VecDeque<(Timestamp, Vec<u8>)>,
    last: Timestamp,
}

impl Lane {
    pub(crate) fn send(&mut self, frame: Vec<u8>, now: Timestamp, rng: &mut Rng) {
        let delay = if rng.percent(5) {
            rng.below(2_000)
        } else {
            rng.below(40)
        };
        // Later frames never overtake earlier ones.
        self.last = self.last.max(now.plus_millis(delay));
        self.frames.push_back((self.last, frame));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The next frame, if it has arrived by `now`.
    pub(crate) fn receive(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        let (at, _) = self.frames.front()?;
        if *at > now {
            return None;
        }
        self.frames.pop_front().map(|(_, frame)| frame)
    }
}
