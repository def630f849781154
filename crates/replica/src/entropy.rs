//! Where random bytes come from: an argument, so that a run can be replayed.

/// A source of random bytes for ids, leases and jitter.
///
/// Drivers give the operating system's; the simulator gives a seeded one.
pub trait Entropy: Send {
    /// Fills `bytes` with unpredictable ones.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8]) + Send> Entropy for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}
