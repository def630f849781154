//! Changesets on the wire: integer-keyed maps; operations are strict (spec WI8–WI10).

use minicbor::{Decoder, Encoder, decode::Error};

use super::{
    IN_MEMORY, MemoryEncoder,
    edit::{self, Budget},
    limits,
    message::{CHANGES_MAX, CHANGESET_BYTES_MAX, code},
    piece,
};
use crate::{
    change::{Change, Changeset, Op},
    hlc::Hlc,
    ids::{ChangesetId, TableNumber, Version},
    key::RowKey,
};

/// Why bytes are no changeset. The sender's fault, always.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangesetError {
    /// More changes, edits or bytes than one changeset may have.
    #[error("the changeset has more than {limit} {what}")]
    TooLarge { what: &'static str, limit: usize },
    #[error("the bytes are no changeset: {0}")]
    Malformed(String),
}

impl ChangesetError {
    /// The code of the [`super::Refusal`] that answers such a changeset.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => code::TOO_LARGE,
            Self::Malformed(_) => code::MALFORMED,
        }
    }
}

impl From<Error> for ChangesetError {
    fn from(error: Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

const ID: u32 = 0;
const NUMBER: u32 = 1;
const DEPENDS: u32 = 2;
const HLC: u32 = 3;
const CHANGES: u32 = 4;
const REQUIRE_UNCHANGED: u32 = 5;
const MAY_BE_APPLIED: u32 = 6;
const AFTER: u32 = 7;
const PIECE: u32 = 8;

const TABLE: u32 = 0;
const KEY: u32 = 1;
const BASE: u32 = 2;
const OP: u32 = 3;
const EDITS: u32 = 4;

const INSERT: u32 = 0;
const UPDATE: u32 = 1;
const DELETE: u32 = 2;

/// Encodes a changeset: `depends` and the edits of each change in ascending order, what is
/// empty or false left out.
#[must_use]
pub fn encode_changeset(changeset: &Changeset) -> Vec<u8> {
    let mut encoder = ChangesetEncoder::with_capacity(64 * changeset.changes.len());
    for change in &changeset.changes {
        encoder.push(change);
    }
    encoder.finish(changeset)
}

/// Encodes a changeset whose changes are not in memory together.
#[derive(Debug)]
pub struct ChangesetEncoder {
    changes: Vec<u8>,
    count: usize,
}

impl ChangesetEncoder {
    /// With room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            changes: Vec::with_capacity(64 + bytes),
            count: 0,
        }
    }

    pub fn push(&mut self, change: &Change) {
        encode_change(&mut Encoder::new(&mut self.changes), change).expect(IN_MEMORY);
        self.count += 1;
    }

    /// How many changes it was given.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The changeset `head` with the changes that it was given instead of its own.
    #[must_use]
    pub fn finish(self, head: &Changeset) -> Vec<u8> {
        let Self { mut changes, count } = self;
        let before = encode_before(head, count).expect(IN_MEMORY);
        drop(changes.splice(..0, before));
        encode_after(&mut Encoder::new(&mut changes), head).expect(IN_MEMORY);
        changes
    }
}

type Encoded<T = ()> = Result<T, minicbor::encode::Error<std::convert::Infallible>>;

/// What is before so many changes.
fn encode_before(head: &Changeset, count: usize) -> Encoded<Vec<u8>> {
    // By name, so that a field that is added is not forgotten.
    let Changeset {
        id,
        number,
        depends,
        hlc,
        changes: _,
        require_unchanged,
        may_be_applied_already,
        after,
        piece,
    } = head;
    let optional = [
        !depends.is_empty(),
        *require_unchanged,
        *may_be_applied_already,
        after.is_some(),
        piece.is_some(),
    ]
    .map(u64::from);
    let mut out = Vec::new();
    let mut e = Encoder::new(&mut out);
    e.map(4 + optional.iter().sum::<u64>())?;
    e.u32(ID)?.bytes(&id.0)?;
    e.u32(NUMBER)?.u64(*number)?;
    if !depends.is_empty() {
        let mut depends = depends.clone();
        depends.sort_unstable();
        depends.dedup();
        e.u32(DEPENDS)?.encode(depends)?;
    }
    e.u32(HLC)?.u64(hlc.0)?;
    e.u32(CHANGES)?.array(count as u64)?;
    Ok(out)
}

/// What is after them.
fn encode_after(e: &mut MemoryEncoder<'_>, head: &Changeset) -> Encoded {
    for (key, set) in [
        (REQUIRE_UNCHANGED, head.require_unchanged),
        (MAY_BE_APPLIED, head.may_be_applied_already),
    ] {
        if set {
            e.u32(key)?.bool(true)?;
        }
    }
    if let Some(after) = head.after {
        e.u32(AFTER)?.u64(after.0)?;
    }
    if let Some(piece) = &head.piece {
        e.u32(PIECE)?;
        piece::encode(e, piece);
    }
    Ok(())
}

fn encode_change(e: &mut MemoryEncoder<'_>, change: &Change) -> Encoded {
    let (op, edits) = match &change.op {
        Op::Insert(edits) => (INSERT, Some(edits)),
        Op::Update(edits) => (UPDATE, Some(edits)),
        Op::Delete => (DELETE, None),
    };
    e.map(4 + u64::from(edits.is_some()))?;
    e.u32(TABLE)?.u32(change.table.0)?;
    e.u32(KEY)?.bytes(change.key.as_bytes())?;
    e.u32(BASE)?.u64(change.base.0)?;
    e.u32(OP)?.u32(op)?;
    if let Some(edits) = edits {
        e.u32(EDITS)?;
        edit::encode_edits(e, edits);
    }
    Ok(())
}

/// Encodes one operation alone, for a device's own books.
#[must_use]
pub fn encode_op(op: &Op) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut e = Encoder::new(&mut out);
    let (op, edits) = match op {
        Op::Insert(edits) => (INSERT, edits.as_slice()),
        Op::Update(edits) => (UPDATE, edits.as_slice()),
        Op::Delete => (DELETE, &[][..]),
    };
    e.u32(op).expect(IN_MEMORY);
    edit::encode_edits(&mut e, edits);
    out
}

/// Reads what [`encode_op`] wrote.
///
/// # Errors
/// [`ChangesetError`].
pub fn decode_op(bytes: &[u8]) -> Result<Op, ChangesetError> {
    let mut d = Decoder::new(bytes);
    let op = d.u32()?;
    let edits = edit::decode_edits(&mut d, &mut Budget::default())?;
    match op {
        INSERT => Ok(Op::Insert(edits)),
        UPDATE => Ok(Op::Update(edits)),
        DELETE if edits.is_empty() => Ok(Op::Delete),
        _ => Err(malformed(
            "an insert or update has edits, a delete has none",
        )),
    }
}

/// Decodes a changeset and checks what can be checked without a schema: sizes, at most one
/// change for each row and one edit for each column, edits that are operations at all.
///
/// # Errors
/// [`ChangesetError`]; nothing of a changeset with an error may be applied.
pub fn decode_changeset(bytes: &[u8]) -> Result<Changeset, ChangesetError> {
    if bytes.len() > CHANGESET_BYTES_MAX {
        return Err(ChangesetError::TooLarge {
            what: "bytes",
            limit: CHANGESET_BYTES_MAX,
        });
    }
    let mut d = Decoder::new(bytes);
    let mut budget = Budget::default();
    let (mut id, mut number, mut hlc, mut changes) = (None, None, None, None);
    let mut depends = Vec::new();
    let (mut require_unchanged, mut may_be_applied_already) = (false, false);
    let (mut after, mut piece) = (None, None);
    for _ in 0..definite(d.map()?)? {
        match d.u32()? {
            ID => id = Some(d.decode::<ChangesetId>()?),
            NUMBER => number = Some(d.u64()?),
            DEPENDS => depends = decode_depends(&mut d)?,
            HLC => hlc = Some(Hlc(d.u64()?)),
            CHANGES => changes = Some(decode_changes(&mut d, &mut budget)?),
            REQUIRE_UNCHANGED => require_unchanged = d.bool()?,
            MAY_BE_APPLIED => may_be_applied_already = d.bool()?,
            AFTER => after = Some(d.decode::<Version>()?),
            PIECE => piece = Some(piece::decode(&mut d)?),
            _ => limits::skip(&mut d)?,
        }
    }
    if d.position() != bytes.len() {
        return Err(malformed("bytes follow the changeset"));
    }
    let missing = || malformed("a changeset has an id, a number, a clock reading and changes");
    let changeset = Changeset {
        id: id.ok_or_else(missing)?,
        number: number.ok_or_else(missing)?,
        depends,
        hlc: hlc.ok_or_else(missing)?,
        changes: changes.ok_or_else(missing)?,
        require_unchanged,
        may_be_applied_already,
        after,
        piece,
    };
    check(&changeset)?;
    Ok(changeset)
}

fn decode_depends(d: &mut Decoder<'_>) -> Result<Vec<u64>, ChangesetError> {
    let count = definite(d.array()?)?;
    if count > CHANGES_MAX as u64 {
        return Err(ChangesetError::TooLarge {
            what: "dependencies",
            limit: CHANGES_MAX,
        });
    }
    let mut depends = Vec::new();
    for _ in 0..count {
        depends.push(d.u64()?);
    }
    Ok(depends)
}

fn decode_changes(d: &mut Decoder<'_>, budget: &mut Budget) -> Result<Vec<Change>, ChangesetError> {
    let count = definite(d.array()?)?;
    if count > CHANGES_MAX as u64 {
        return Err(ChangesetError::TooLarge {
            what: "changes",
            limit: CHANGES_MAX,
        });
    }
    let mut changes = Vec::new();
    for _ in 0..count {
        changes.push(decode_change(d, budget)?);
    }
    Ok(changes)
}

fn decode_change(d: &mut Decoder<'_>, budget: &mut Budget) -> Result<Change, ChangesetError> {
    let (mut table, mut key, mut base, mut op, mut edits) = (None, None, None, None, None);
    for _ in 0..definite(d.map()?)? {
        match d.u32()? {
            TABLE => table = Some(TableNumber(d.u32()?)),
            KEY => {
                let bytes = d.bytes()?;
                key = Some(RowKey::from_bytes(bytes).map_err(|e| malformed(&e.to_string()))?);
            }
            BASE => base = Some(d.decode::<Version>()?),
            OP => op = Some(d.u32()?),
            EDITS => edits = Some(edit::decode_edits(d, budget)?),
            _ => limits::skip(d)?,
        }
    }
    let missing = || malformed("a change has a table, a key, a base and an operation");
    let op = match (op.ok_or_else(missing)?, edits) {
        (INSERT, Some(edits)) => Op::Insert(edits),
        (UPDATE, Some(edits)) => Op::Update(edits),
        (DELETE, None) => Op::Delete,
        _ => {
            return Err(malformed(
                "an insert or update has edits, a delete has none",
            ));
        }
    };
    Ok(Change {
        table: table.ok_or_else(missing)?,
        key: key.ok_or_else(missing)?,
        base: base.ok_or_else(missing)?,
        op,
    })
}

/// What no single field shows: rows named twice, dependencies on itself or the future.
fn check(changeset: &Changeset) -> Result<(), ChangesetError> {
    if !changeset.depends.iter().all(|&n| n < changeset.number) {
        return Err(malformed("a changeset depends on earlier numbers only"));
    }
    if !changeset.depends.is_sorted_by(|a, b| a < b) {
        return Err(malformed("dependencies ascend"));
    }
    let places = changeset.piece.as_ref().map(|piece| piece.places.len());
    if places.is_some_and(|places| places != changeset.changes.len()) {
        return Err(malformed("a piece has a place for each of its changes"));
    }
    let mut rows: Vec<_> = changeset
        .changes
        .iter()
        .map(|c| (c.table, &c.key))
        .collect();
    rows.sort_unstable();
    if rows.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(malformed("two changes of one row"));
    }
    Ok(())
}

/// The length of an array or map; those of unknown length are never sent.
pub(super) fn definite(length: Option<u64>) -> Result<u64, ChangesetError> {
    length.ok_or_else(|| malformed("an array or map of unknown length"))
}

pub(super) fn malformed(reason: &str) -> ChangesetError {
    ChangesetError::Malformed(reason.to_owned())
}
