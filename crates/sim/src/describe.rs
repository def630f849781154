//! Frames in words, for traces.

use std::collections::BTreeMap;

use syncline_core::{
    BucketId, TableNumber,
    wire::{
        ClientMessage, RowBody, RowState, ServerMessage, decode_changeset, decode_client,
        decode_server,
    },
};

use crate::rows::literal_key;

/// Names of tables.
pub(crate) type Numbers = BTreeMap<TableNumber, &'static str>;

/// A frame to a device.
pub(crate) fn server_frame(frame: &[u8], numbers: &Numbers) -> String {
    let table = |number: &TableNumber| numbers.get(number).copied().unwrap_or("conflicts");
    match decode_server(frame) {
        Ok(ServerMessage::Changes(changes)) => {
            let records = changes.records.iter().map(|record| {
                let buckets = record.buckets.iter();
                let buckets = buckets.filter_map(|&b| changes.buckets.get(b as usize));
                let buckets: Vec<_> = buckets.map(short).collect();
                format!("{} in {buckets:?}", bodies(&record.body, numbers).join(""))
            });
            format!("changes {:#?}", records.collect::<Vec<_>>())
        }
        Ok(ServerMessage::Page(page)) => {
            let parts = page.parts.iter().map(|part| {
                let rows = bodies(&part.rows, numbers);
                let end = if part.to.is_none() {
                    ""
                } else {
                    " and more to come"
                };
                format!(
                    "{} {}: {rows:?}{end}",
                    short(&part.bucket),
                    table(&part.table)
                )
            });
            let parts: Vec<_> = parts.collect();
            format!("page at {} {parts:#?}", page.version.0)
        }
        Ok(ServerMessage::Checkpoint(checkpoint)) => {
            let digests = checkpoint.digests.iter();
            let digests: Vec<_> = digests
                .map(|d| format!("{} {} {}", short(&d.bucket), table(&d.table), d.count))
                .collect();
            let live = checkpoint.live.iter();
            let live: Vec<_> = live
                .map(|l| format!("{} {}", short(&l.bucket), table(&l.table)))
                .collect();
            format!(
                "checkpoint {} digests {digests:?} live {live:?} loading {}",
                checkpoint.cursor.version.0, checkpoint.loading
            )
        }
        Ok(ServerMessage::Grants(grants)) => {
            let names = |list: &[BucketId]| list.iter().map(short).collect::<Vec<_>>();
            format!(
                "grants full {} add {:?} drop {:?} reload {:?}",
                grants.full,
                names(&grants.add),
                names(&grants.drop),
                names(&grants.reload)
            )
        }
        Ok(ServerMessage::Welcome(welcome)) => {
            format!("welcome {:?} next {}", welcome.resume, welcome.next_number)
        }
        other => format!("{other:?}"),
    }
}

/// A frame to the server.
pub(crate) fn client_frame(frame: &[u8], numbers: &Numbers) -> String {
    match decode_client(frame) {
        Ok(ClientMessage::Push(push)) => match decode_changeset(&push.body) {
            Ok(changeset) => {
                let changes = changeset.changes.iter().map(|change| {
                    let table = numbers.get(&change.table).copied().unwrap_or("conflicts");
                    let key = literal_key(&change.key);
                    format!("{table} {key} on {}: {:?}", change.base.0, change.op)
                });
                let doubt = match changeset.may_be_applied_already {
                    true => " in doubt",
                    false => "",
                };
                format!(
                    "push {} number {} depends {:?} after {:?}{doubt} {:#?}",
                    changeset.id,
                    changeset.number,
                    changeset.depends,
                    changeset.after.map(|after| after.0),
                    changes.collect::<Vec<_>>()
                )
            }
            Err(error) => format!("push {}: {error}", push.id),
        },
        Ok(ClientMessage::Hello(hello)) => {
            let cursor = hello.cursors.first().map(|cursor| cursor.version);
            let loading: Vec<_> = hello
                .loading
                .iter()
                .map(|p| (p.bucket.as_ref().map(short), p.table))
                .collect();
            format!(
                "hello cursor {cursor:?} buckets {} loading {loading:?}",
                hello.buckets_count
            )
        }
        Ok(ClientMessage::Load(load)) => {
            let parts: Vec<_> = load
                .positions
                .iter()
                .map(|p| (p.bucket.as_ref().map(short), numbers.get(&p.table)))
                .collect();
            format!("load {parts:?}")
        }
        other => format!("{other:?}"),
    }
}

fn bodies(bytes: &[u8], numbers: &Numbers) -> Vec<String> {
    let body = |body: RowBody| {
        let table = numbers.get(&body.table).copied().unwrap_or("conflicts");
        let state = match &body.state {
            RowState::Whole { .. } => "whole",
            RowState::Columns(_) => "columns",
            RowState::Deleted => "deleted",
            RowState::Removed => "removed",
            RowState::Released => "released",
        };
        format!(
            "{table} {} {state} {}",
            literal_key(&body.key),
            body.version.0
        )
    };
    let found = RowBody::decode_all(bytes).filter_map(Result::ok);
    found.map(body).collect()
}

/// A bucket's name, as far as it tells it from the others of a run.
fn short(bucket: &BucketId) -> String {
    let text = bucket.to_string();
    text[text.len() - 4..].to_owned()
}
