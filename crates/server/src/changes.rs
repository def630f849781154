//! Changes frames: each session gathers what it has to say; what many have to say is encoded once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use syncline_core::{
    BucketId,
    wire::{Changes, Record, ServerMessage, encode_server},
};

/// Bytes of frames that are kept for the next session, beside the last one.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Frames that say no more than this are kept by each thread: that none waits for another saves more
/// than encoding them twice costs.
const SMALL_BYTES: usize = 4 * 1024;
/// Frames that are kept: as many kinds of readers as a change usually has, and some.
const KEPT_MAX: usize = 8;

/// Gathers records into one Changes message, naming each bucket once.
#[derive(Debug, Default)]
pub(crate) struct ChangesBuilder {
    places: BTreeMap<BucketId, u32>,
    said: Said,
}

/// What a Changes message says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// About how long the frame would be.
    bytes: usize,
    buckets: Vec<BucketId>,
    /// Bodies, and where the buckets of each are in `buckets`.
    records: Vec<(Arc<[u8]>, Vec<u32>)>,
}

impl ChangesBuilder {
    pub(crate) fn push(&mut self, body: Arc<[u8]>, buckets: &[BucketId]) {
        let said = &mut self.said;
        let mut positions = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            let next = u32::try_from(said.buckets.len()).expect("bounded by the frame's size");
            let position = *self.places.entry(*bucket).or_insert(next);
            if position == next {
                said.buckets.push(*bucket);
                said.bytes += 16;
            }
            positions.push(position);
        }
        said.bytes += body.len() + 4 + positions.len();
        said.records.push((body, positions));
    }

    /// About how long the frame would be.
    pub(crate) fn bytes(&self) -> usize {
        self.said.bytes
    }

    pub(crate) fn take(&mut self) -> Option<Said> {
        if self.said.records.is_empty() {
            return None;
        }
        Some(std::mem::take(self).said)
    }
}

impl Said {
    fn encode(&self) -> Bytes {
        let records = self.records.iter().map(|(body, buckets)| Record {
            body: body.to_vec(),
            buckets: buckets.clone(),
        });
        let message = ServerMessage::Changes(Changes {
            buckets: self.buckets.clone(),
            records: records.collect(),
        });
        encode_server(&message).into()
    }
}

/// The newest frames, each with what it says.
#[derive(Debug, Default)]
struct Kept(VecDeque<(Said, Bytes)>);

impl Kept {
    fn find(&self, said: &Said) -> Option<Bytes> {
        let found = self.0.iter().find(|(known, _)| known == said);
        found.map(|(_, frame)| frame.clone())
    }

    fn keep(&mut self, said: Said, frame: Bytes) {
        self.0.push_front((said, frame));
        let mut bytes = 0;
        let fits = self.0.iter().skip(1).take_while(|(_, frame)| {
            bytes += frame.len();
            bytes <= KEPT_BYTES_MAX
        });
        let fitting = 1 + fits.count();
        self.0.truncate(fitting.min(KEPT_MAX));
    }
}

thread_local! {
    /// Small ones of this thread.
    static SMALL: RefCell<Kept> = RefCell::default();
}

/// The newest Changes frames, shared by all sessions: those that were woken by the same commit and
/// may see the same of it send the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Encoded(Mutex<Kept>);

impl Encoded {
    /// The frame that says this.
    pub(crate) fn frame(&self, said: Said) -> Bytes {
        if said.bytes <= SMALL_BYTES {
            return SMALL.with_borrow_mut(|kept| {
                kept.find(&said).unwrap_or_else(|| {
                    let frame = said.encode();
                    kept.keep(said, frame.clone());
                    frame
                })
            });
        }
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = kept.find(&said) {
            return frame;
        }
        // Compressing takes long: others need not wait for it.
        drop(kept);
        let frame = said.encode();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep(said, frame.clone());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &Arc<[u8]>, buckets: &[u8]) -> Said {
        let mut changes = ChangesBuilder::default();
        let buckets: Vec<_> = buckets.iter().map(|b| BucketId([*b; 16])).collect();
        changes.push(Arc::clone(body), &buckets);
        changes.take().expect("a record")
    }

    #[test]
    fn the_same_is_encoded_once_and_nothing_else_is_taken_for_it() {
        for bytes in [40, 2 * SMALL_BYTES] {
            one_is_encoded_once(bytes);
        }
    }

    fn one_is_encoded_once(bytes: usize) {
        let encoded = Encoded::default();
        let (one, other): (Arc<[u8]>, Arc<[u8]>) = (vec![1; bytes].into(), vec![2; bytes].into());
        let first = encoded.frame(said(&one, &[1]));
        let again = encoded.frame(said(&one, &[1]));
        assert_eq!(first.as_ptr(), again.as_ptr(), "the same bytes");
        for different in [said(&other, &[1]), said(&one, &[2]), said(&one, &[1, 2])] {
            let alone = different.encode();
            assert_ne!(alone, first);
            assert_eq!(encoded.frame(different), alone);
        }
    }

    #[test]
    fn few_frames_are_kept_and_of_large_ones_the_last() {
        let encoded = Encoded::default();
        let kept = || encoded.0.lock().expect("nobody panicked").0.len();
        for n in 0..100 {
            encoded.frame(said(&[n; 40].into(), &[1]));
            encoded.frame(said(&[n; 2 * SMALL_BYTES].into(), &[1]));
        }
        assert_eq!(kept(), KEPT_MAX);
        assert_eq!(SMALL.with_borrow(|small| small.0.len()), KEPT_MAX);
        // Bytes that do not compress.
        let mut state = 1_u32;
        let mut large = || -> Arc<[u8]> {
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3]
            };
            std::iter::repeat_with(next).take(KEPT_BYTES_MAX).collect()
        };
        encoded.frame(said(&large(), &[1]));
        encoded.frame(said(&large(), &[1]));
        assert_eq!(kept(), 1);
    }
}
