//! Bytes of changesets that are in memory, of all sessions and requests together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What anybody may keep although all together keep too much.
const HELD_BYTES_SHARE: usize = 1024 * 1024;

/// What those are told who keep more than their share then.
pub(crate) const TOO_MUCH: &str = "more changes are on their way than this server can keep";

/// What all keep, and may keep.
#[derive(Debug)]
pub(crate) struct AllHeld {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl AllHeld {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes = AtomicUsize::new(0);
        Self { bytes, bytes_max }
    }
}

/// A part of what all keep: what arrives at a session or with a request, or a changeset that waits
/// to be committed, whether or not its session is still there.
#[derive(Debug)]
pub(crate) struct Held {
    all: Arc<AllHeld>,
    own: usize,
}

impl Held {
    pub(crate) fn new(all: &Arc<AllHeld>) -> Self {
        let all = Arc::clone(all);
        Self { all, own: 0 }
    }

    /// Counts `own` bytes as kept, by somebody who keeps `others` beside them; whether that has to
    /// end. What is kept anyway decides, so that whatever is legal is taken once there is room.
    pub(crate) fn is_too_much(&mut self, own: usize, others: usize) -> bool {
        if own == self.own {
            return false;
        }
        self.all.bytes.fetch_add(own, Ordering::Relaxed);
        let all = self.all.bytes.fetch_sub(self.own, Ordering::Relaxed) - self.own;
        self.own = own;
        all - own > self.all.bytes_max && own + others > HELD_BYTES_SHARE
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.own, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_keep_much_are_told_to_go_when_all_keep_too_much() {
        let all = Arc::new(AllHeld::new(HELD_BYTES_SHARE));
        let mut other = Held::new(&all);
        assert!(!other.is_too_much(HELD_BYTES_SHARE, 0));
        let mut first = Held::new(&all);
        let mut small = Held::new(&all);
        let mut large = Held::new(&all);
        assert!(
            !first.is_too_much(2 * HELD_BYTES_SHARE, 0),
            "there was room"
        );
        let share = "a small share is never the problem";
        assert!(!small.is_too_much(1_000, 0), "{share}");
        assert!(small.is_too_much(1_001, HELD_BYTES_SHARE), "not so small");
        assert!(large.is_too_much(HELD_BYTES_SHARE + 1, 0));
        assert!(!large.is_too_much(0, 0), "it was committed or dropped");
        drop((other, first, small, large));
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }
}
