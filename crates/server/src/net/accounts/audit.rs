//! The audit log: who did what, in a chain that shows when a line was changed or lost.

use syncline_store::{
    StorageError,
    accounts::{AccountRecords, AuditEvent, AuditRecord, AuditWant},
};

/// Longest text of one field, in bytes; what is longer is cut.
pub(crate) const FIELD_BYTES_MAX: usize = 300;
/// Records that are read at once.
const PAGE: usize = 1_000;

/// Adds `event` to the log, in the transaction of what it tells.
///
/// # Errors
/// The storage's.
pub fn note(records: &mut dyn AccountRecords, event: AuditEvent) -> Result<(), StorageError> {
    let event = AuditEvent {
        at: event.at,
        kind: cut(event.kind, FIELD_BYTES_MAX),
        actor: cut(event.actor, FIELD_BYTES_MAX),
        subject: cut(event.subject, FIELD_BYTES_MAX),
        address: cut(event.address, FIELD_BYTES_MAX),
        detail: cut(event.detail, FIELD_BYTES_MAX),
    };
    let head = records.audit_head()?;
    let (number, before) = head.map_or((1, [0; 32]), |head| (head.number + 1, head.chain));
    let chain = link(&before, number, &event);
    records.put_audit(&AuditRecord {
        number,
        event,
        chain,
    })
}

/// At most so many bytes of it, and a sign that there was more. Nothing keeps the room of the rest.
pub(crate) fn cut(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes_max)])
}

/// The hash that stands with a record: of the one before it and of all it says.
fn link(before: &[u8; 32], number: u64, event: &AuditEvent) -> [u8; 32] {
    let AuditEvent {
        at,
        kind,
        actor,
        subject,
        address,
        detail,
    } = event;
    let mut hash = blake3::Hasher::new_derive_key("syncline audit log");
    hash.update(before);
    hash.update(&number.to_le_bytes());
    hash.update(&at.0.to_le_bytes());
    for field in [kind, actor, subject, address, detail] {
        hash.update(&(field.len() as u64).to_le_bytes());
        hash.update(field.as_bytes());
    }
    *hash.finalize().as_bytes()
}

/// Whether the log is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// So many records, each the one that was written.
    Whole(u64),
    /// The record with this number was changed, or one before it is missing.
    Broken(u64),
}

/// Checks the chain of everything that is still kept.
///
/// # Errors
/// The storage's.
pub fn verify(records: &mut dyn AccountRecords) -> Result<Verified, StorageError> {
    let mut count = 0;
    // From the newest back: each is checked once the one before it is there.
    let mut later: Option<AuditRecord> = None;
    loop {
        let want = AuditWant {
            before: later.as_ref().map(|record| record.number),
            max: PAGE,
            ..AuditWant::default()
        };
        let page = records.audit(&want)?;
        if page.is_empty() {
            return Ok(Verified::Whole(count));
        }
        for record in page {
            if let Some(later) = &later {
                let is_next = later.number == record.number + 1;
                if !is_next || later.chain != link(&record.chain, later.number, &later.event) {
                    return Ok(Verified::Broken(later.number));
                }
            }
            // The oldest that was ever written has nothing before it; of what was forgotten, the
            // hash that it left behind stands in the oldest that is kept.
            if record.number == 1 && record.chain != link(&[0; 32], 1, &record.event) {
                return Ok(Verified::Broken(1));
            }
            count += 1;
            later = Some(record);
        }
    }
}
