//! What is written is read.

use proptest::{collection::vec, prelude::*};

use super::strategies as any_;
use crate::wire::*;

proptest! {
    #[test]
    fn wi1_client_messages_round_trip(message in any_::client_message()) {
        prop_assert_eq!(decode_client(&encode_client(&message)), Ok(message));
    }

    #[test]
    fn wi1_server_messages_round_trip(message in any_::server_message()) {
        prop_assert_eq!(decode_server(&encode_server(&message)), Ok(message));
    }

    #[test]
    fn wi8_changesets_round_trip(changeset in any_::changeset()) {
        prop_assert_eq!(decode_changeset(&encode_changeset(&changeset)), Ok(changeset));
    }

    #[test]
    fn wi11_bodies_round_trip_one_after_the_other(bodies in vec(any_::row_body(), 0..4)) {
        let mut page = Vec::new();
        for body in &bodies {
            body.encode_into(&mut page);
        }
        let mut at = 0;
        for body in &bodies {
            let (read, used) = RowBody::decode(&page[at..]).expect("a body");
            prop_assert_eq!(&read, body);
            at += used;
        }
        prop_assert_eq!(at, page.len());
        let all: Result<Vec<_>, _> = RowBody::decode_all(&page).collect();
        prop_assert_eq!(all, Ok(bodies));
    }

    #[test]
    fn wi12_schemas_round_trip(info in any_::schema_info()) {
        let again = SchemaInfo::from_schema(&info.to_schema());
        prop_assert_eq!(&again, &info);
        prop_assert_eq!(again.hash(), info.hash());
    }
}

#[test]
fn wi4_repetitive_payloads_are_compressed_and_random_ones_are_not() {
    let id = crate::ids::ChangesetId([1; 16]);
    let push = |body: Vec<u8>| encode_client(&ClientMessage::Push(Push { id, body, parts: 0 }));
    let repetitive = push(vec![7; 100_000]);
    assert_eq!(repetitive[0], 1);
    assert!(repetitive.len() < 1000, "{} bytes", repetitive.len());
    let mut hash = blake3::Hasher::new().finalize_xof();
    let mut noise = vec![0; 100_000];
    hash.fill(&mut noise);
    let plain = push(noise);
    assert_eq!(plain[0], 0);
    assert!(plain.len() < 100_100, "{} bytes", plain.len());
    assert_eq!(push(vec![7; 900])[0], 0, "short payloads stay plain");
}

/// What could not be made smaller leaves nothing behind that a later payload stumbles over.
#[test]
fn wi4_random_payloads_of_all_sizes_are_sent_after_one_another() {
    let mut state = 1_u64;
    let mut random = |len: usize| -> Vec<u8> {
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(len).collect()
    };
    for len in [1_100, 20_000, 300_000, 1_048_576, 1_048_576, 70_000] {
        // Half of it compresses, so that a stream ends in the middle of another's buffer, too.
        let mut half = random(len / 2);
        half.resize(len, 7);
        for bytes in [random(len), half] {
            let message = ServerMessage::Changes(Changes {
                buckets: Vec::new(),
                records: vec![Record {
                    body: bytes,
                    buckets: Vec::new(),
                }],
            });
            assert_eq!(decode_server(&encode_server(&message)), Ok(message));
        }
    }
}
