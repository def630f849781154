//! The simulator, driven by the fuzzer's bytes: devices, a server, and what goes wrong.

use syncline_sim::simulate_bytes;

/// What is said by more than about fifty steps is said by fewer, too, and sooner.
const BYTES_MAX: usize = 900;

/// Any bytes are a run, and no run breaks a promise.
pub(crate) fn sim(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(BYTES_MAX)];
    if let Err(failure) = simulate_bytes(bytes) {
        panic!("{}\n{:#}", failure.story.join("\n"), failure.error);
    }
}
