//! Own changes that come back from the server, in whatever order with their answers.

use syncline_core::wire::ReloadReason;
use syncline_replica::{RowCounts, TableTally};

use crate::{
    authority::Authority,
    device::{Device, SCHEMA, schema},
};

fn tally(device: &Device) -> TableTally {
    device
        .replica
        .tally()
        .get("lists")
        .copied()
        .unwrap_or_default()
}

fn counts(created: u64, updated: u64, deleted: u64) -> RowCounts {
    RowCounts {
        created,
        updated,
        deleted,
    }
}

/// A device whose rows the server has; it lost the connection before any checkpoint said so, with
/// the answer or without it. Then somebody changed one of them, deleted one and made one.
fn cut_off(is_answered: bool) -> (Authority, Device) {
    let mut server = Authority::new(schema(SCHEMA));
    let mut device = Device::new(SCHEMA, 1);
    device.sync(&mut server);
    device.write("INSERT INTO lists VALUES('l1', 'one'), ('l2', 'two'), ('l3', 'three')");
    device.push(&mut server);
    if is_answered {
        while device.download() {}
    }
    device.disconnect();
    assert_eq!(device.outbox(), if is_answered { "a" } else { "s" });
    server.write(&[("lists", vec!["l1".into(), "changed".into()])]);
    server.delete("lists", &["l2".into()]);
    server.write(&[("lists", vec!["l4".into(), "new".into()])]);
    (server, device)
}

const MINE: &str = "l1|one\nl2|two\nl3|three";
const ALL: &str = "SELECT * FROM lists ORDER BY id";

#[test]
fn lb4_own_rows_that_come_back_before_their_answer_are_not_received() {
    for is_answered in [true, false] {
        let (mut server, mut device) = cut_off(is_answered);
        device.connect();
        device.upload(&mut server);
        // The push waits here until everything has been received.
        for _ in 0..5 {
            while device.download() {}
            server.advance(device.link.as_mut().unwrap());
        }
        device.sync(&mut server);
        let expected = TableTally {
            sent: counts(3, 0, 0),
            received: counts(1, 1, 1),
        };
        assert_eq!(tally(&device), expected, "answered: {is_answered}");
        device.assert_equal(&server);
    }
}

#[test]
fn ob3_lb4_what_the_server_had_before_a_reload_stays_until_its_pages_are_here() {
    for is_answered in [true, false] {
        let (mut server, mut device) = cut_off(is_answered);
        server.reload = Some(ReloadReason::Rules);
        device.connect();
        device.link.as_mut().unwrap().page_rows = 1;
        device.upload(&mut server);
        // The push is answered before the first page.
        while device.download() {
            device.upload(&mut server);
            assert_eq!(device.query(ALL), MINE, "answered: {is_answered}");
        }
        // Also over another cut.
        device.disconnect();
        device.sync(&mut server);
        let expected = TableTally {
            sent: counts(3, 0, 0),
            received: counts(1, 1, 1),
        };
        assert_eq!(tally(&device), expected, "answered: {is_answered}");
        assert_eq!(device.query(ALL), "l1|changed\nl3|three\nl4|new");
        assert_eq!(device.outbox(), "");
        device.assert_equal(&server);
    }
}
