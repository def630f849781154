//! What is in the log and was never handed to the sessions.

use syncline_core::{RowKey, Value};
use syncline_store::GroupOutcome;

use crate::{bed::Bed, client::Client};

fn commit(bed: &mut Bed, id: i64) -> GroupOutcome {
    let pushed = bed.world.push("ada/other", |draw| {
        draw.insert("notes", Value::Integer(id), &[("body", "body".into())])
    });
    pushed.outcome
}

/// The keys of the records that came since the last time.
fn heard(client: &mut Client, bed: &mut Bed) -> Vec<RowKey> {
    client.heard.clear();
    client.listen(bed);
    assert!(!client.session.is_closed(), "nobody has to go away");
    let records = client.records().into_iter();
    records.map(|(row, _)| row.key).collect()
}

fn keys(ids: &[i64]) -> Vec<RowKey> {
    let key = |id: &i64| RowKey::encode([&Value::Integer(*id)]).expect("a key");
    ids.iter().map(key).collect()
}

/// The committer may fail after it has committed, and what it does when everything is computed anew
/// is told to nobody.
#[test]
fn se8_what_never_was_in_memory_is_read_from_the_log() {
    let mut bed = Bed::new();
    let mut client = Client::synced(&mut bed, "ada");
    commit(&mut bed, 1);
    let next = commit(&mut bed, 2);
    bed.context.recent.push(&next.entries);
    assert!(client.session.needs_storage());
    assert_eq!(heard(&mut client, &mut bed), keys(&[1, 2]));

    // It is followed as before from there on.
    let next = commit(&mut bed, 3);
    bed.context.recent.push(&next.entries);
    assert!(!client.session.needs_storage());
    assert_eq!(heard(&mut client, &mut bed), keys(&[3]));

    // What is missing at the end is known by the end alone.
    let head = commit(&mut bed, 4).head.expect("it was committed");
    assert!(bed.context.recent.reach(head.version, head.tag));
    assert!(client.session.needs_storage());
    assert_eq!(heard(&mut client, &mut bed), keys(&[4]));
}
