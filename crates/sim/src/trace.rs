//! What happened, line by line, and a hash over all of it.

use std::{collections::VecDeque, fmt::Display, rc::Rc};

use syncline_core::Timestamp;

use crate::describe::{Numbers, client_frame, server_frame};

/// Where a hash begins.
const SEED: u64 = 0xCBF2_9CE4_8422_2325;
/// Lines that are kept for a failure's report.
const KEPT: usize = 120;

/// Two runs of a seed are the same exactly when the hashes of their traces are.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    print: bool,
    last: VecDeque<Line>,
    /// What tables are called, in frames.
    numbers: Rc<Numbers>,
}

/// Frames are put into words only where somebody reads them.
#[derive(Debug)]
enum Line {
    Text(Timestamp, String),
    Frame(Timestamp, String, Way, Vec<u8>),
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToDevice,
}

impl Trace {
    pub(crate) fn new(print: bool, numbers: Rc<Numbers>) -> Self {
        Self {
            hash: SEED,
            print,
            last: VecDeque::new(),
            numbers,
        }
    }

    pub(crate) fn line(&mut self, now: Timestamp, text: impl Display) {
        let text = text.to_string();
        self.hash = fold(self.hash, &now.0.to_le_bytes());
        self.hash = fold(self.hash, text.as_bytes());
        self.keep(Line::Text(now, text));
    }

    /// A frame of the connection of this name.
    pub(crate) fn frame(&mut self, now: Timestamp, name: &str, way: Way, frame: &[u8]) {
        self.hash = fold(self.hash, &now.0.to_le_bytes());
        self.hash = fold(self.hash, name.as_bytes());
        self.hash = fold(self.hash, &[u8::from(way == Way::ToServer)]);
        self.hash = fold(self.hash, frame);
        self.keep(Line::Frame(now, name.to_owned(), way, frame.to_vec()));
    }

    fn keep(&mut self, line: Line) {
        if self.print {
            #[expect(
                clippy::print_stdout,
                reason = "a trace is asked for on the command line"
            )]
            {
                println!("{}", self.words(&line));
            }
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn words(&self, line: &Line) -> String {
        let (now, text) = match line {
            Line::Text(now, text) => (now, text.clone()),
            Line::Frame(now, name, way, frame) => {
                let (sign, text) = match way {
                    Way::ToServer => ("->", client_frame(frame, &self.numbers)),
                    Way::ToDevice => ("<-", server_frame(frame, &self.numbers)),
                };
                (
                    now,
                    format!("{name} {sign} {:016x} {text}", fold(SEED, frame)),
                )
            }
        };
        format!("{:>10}.{:03} {text}", now.0 / 1_000, now.0 % 1_000)
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn tail(&self) -> Vec<String> {
        self.last.iter().map(|line| self.words(line)).collect()
    }
}

/// FNV-1a: the same on every platform and in every version.
fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
