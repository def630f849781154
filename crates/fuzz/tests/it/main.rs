//! What fuzzers found, and where they began: replayed on any compiler.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on may say so anywhere; the input that it stops at is named"
)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use syncline_fuzz::{TARGETS, seeds};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Runs everything in `fuzz/corpus` of one target. Where one input panics its name is the last that
/// was printed.
fn replay(name: &str) {
    let folder = root().join("corpus").join(name);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has inputs", folder.display());
    for input in inputs {
        println!("{}", input.display());
        assert!(
            syncline_fuzz::run(name, &fs::read(&input).unwrap()),
            "{name} is a target"
        );
    }
}

macro_rules! corpora {
    ($($test:ident $target:literal)*) => {
        $(
            #[test]
            fn $test() {
                replay($target);
            }
        )*
        const REPLAYED: &[&str] = &[$($target),*];
    };
}

corpora! {
    corpus_of_client_frame "client_frame"
    corpus_of_server_frame "server_frame"
    corpus_of_inflate "inflate"
    corpus_of_changeset "changeset"
    corpus_of_stored "stored"
    corpus_of_key "key"
    corpus_of_merge "merge"
    corpus_of_token "token"
    corpus_of_envelope "envelope"
    corpus_of_config "config"
    corpus_of_rule "rule"
    corpus_of_server_session "server_session"
    corpus_of_replica_session "replica_session"
    corpus_of_http "http"
    corpus_of_file "file"
    corpus_of_sim "sim"
}

#[test]
fn every_target_has_a_binary_and_a_corpus_that_is_replayed() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED.iter().copied().collect());
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is in fuzz/Cargo.toml"
        );
        let body = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(body.contains(&format!("run(\"{name}\"")), "{body}");
    }
}

/// What corpora are begun with runs too; `SYNCLINE_FUZZ_SEEDS` writes it into `fuzz/corpus`.
#[test]
fn real_conversations_pass_every_target() {
    let write = std::env::var_os("SYNCLINE_FUZZ_SEEDS").is_some();
    let mut seen = BTreeSet::new();
    for seed in seeds() {
        seen.insert(seed.target);
        if write {
            let folder = root().join("corpus").join(seed.target);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("seed-{}", seed.name)), &seed.bytes).unwrap();
        }
        println!("{} {}", seed.target, seed.name);
        assert!(syncline_fuzz::run(seed.target, &seed.bytes));
    }
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(seen, targets, "every target begins with something");
}

/// Inputs changed a little, the same each time: what an explorer does, without what guides it.
/// `SYNCLINE_FUZZ_ROUNDS` tries more than the few of each run.
#[test]
fn inputs_that_are_changed_a_little_do_no_harm() {
    let rounds = std::env::var("SYNCLINE_FUZZ_ROUNDS").ok();
    let rounds = rounds.map_or(3, |text| text.parse().unwrap());
    let only = std::env::var("SYNCLINE_FUZZ_TARGET").ok();
    let seeds = seeds();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for _ in 0..rounds {
        for seed in &seeds {
            if only.as_ref().is_some_and(|only| only != seed.target) {
                continue;
            }
            let other = &seeds[dice.below(seeds.len())].bytes;
            let bytes = dice.changed(&seed.bytes, other);
            let kept = std::env::temp_dir().join(format!("syncline-fuzz-{}", seed.target));
            fs::write(&kept, &bytes).unwrap();
            println!("{} {}, in {}", seed.target, seed.name, kept.display());
            assert!(syncline_fuzz::run(seed.target, &bytes));
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % (end.max(1) as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn changed(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.byte(),
                2 => bytes.insert(at, self.byte()),
                3 => {
                    let end = (at + 1 + self.below(8)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let from = self.below(other.len());
                    let to = (from + 1 + self.below(64)).min(other.len());
                    let part = other.get(from..to).unwrap_or_default().to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}
