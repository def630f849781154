//! What happened, line by line, and a hash over all of it.

use std::{collections::VecDeque, fmt::Display};

use syncline_core::Timestamp;

/// Where a hash begins.
pub(crate) const SEED: u64 = 0xCBF2_9CE4_8422_2325;
/// Lines that are kept for a failure's report.
const KEPT: usize = 120;

/// Two runs of a seed are the same exactly when the hashes of their traces are.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    print: bool,
    last: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self {
            hash: SEED,
            print,
            last: VecDeque::new(),
        }
    }

    pub(crate) fn line(&mut self, now: Timestamp, text: impl Display) {
        let line = format!("{:>10}.{:03} {text}", now.0 / 1_000, now.0 % 1_000);
        self.hash = fold(self.hash, line.as_bytes());
        if self.print {
            #[expect(
                clippy::print_stdout,
                reason = "a trace is asked for on the command line"
            )]
            {
                println!("{line}");
            }
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn tail(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

/// FNV-1a: the same on every platform and in every version.
pub(crate) fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
