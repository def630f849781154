//! Edits on the wire: a plain value is `Set`, every other operation an array (spec WI9).

use minicbor::{Decoder, data::Type};

use super::{
    IN_MEMORY, MemoryEncoder,
    changeset::{ChangesetError, definite, malformed},
    value::{decode_value, encode_value},
};
use crate::{
    change::{ColumnEdit, Edit, MemberEdit, PathEdit},
    ids::ColumnNumber,
    value::Value,
};

/// Most edits, items and members of one changeset together: each takes a few bytes on the wire
/// and much more in memory.
pub const EDITS_MAX: usize = 4_000_000;

/// Counts what a changeset holds while it is read.
#[derive(Debug, Default)]
pub(super) struct Budget(u64);

impl Budget {
    /// Takes `count` elements, before anything is allocated for them.
    fn take(&mut self, count: u64) -> Result<u64, ChangesetError> {
        self.0 = self.0.saturating_add(count);
        if self.0 > EDITS_MAX as u64 {
            return Err(ChangesetError::TooLarge {
                what: "edits",
                limit: EDITS_MAX,
            });
        }
        Ok(count)
    }
}

const ADD: u32 = 1;
const ITEMS: u32 = 2;
const APPEND: u32 = 3;
const DECIDE: u32 = 4;
const MEMBERS: u32 = 5;
/// Of a path only: a column's `Set` is the bare value.
const SET_JSON: u32 = 6;
const REMOVE: u32 = 7;

type Encoded = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Writes a map from column number to edit, ascending.
pub(super) fn encode_edits(e: &mut MemoryEncoder<'_>, edits: &[ColumnEdit]) {
    let mut sorted: Vec<_> = edits.iter().collect();
    sorted.sort_by_key(|edit| edit.column);
    e.map(sorted.len() as u64).expect(IN_MEMORY);
    for edit in sorted {
        e.u32(edit.column.0).expect(IN_MEMORY);
        encode_edit(e, &edit.edit).expect(IN_MEMORY);
    }
}

fn encode_edit(e: &mut MemoryEncoder<'_>, edit: &Edit) -> Encoded {
    match edit {
        Edit::Set(value) => encode_value(e, value),
        Edit::Add(value) => encode_add(e, value)?,
        Edit::Items { add, remove } => encode_items(e, add, remove)?,
        Edit::Append(items) => encode_append(e, items)?,
        Edit::Decide { base, new } => {
            e.array(3)?.u32(DECIDE)?;
            encode_value(e, base);
            encode_value(e, new);
        }
        Edit::Members(members) => {
            e.array(1 + 2 * members.len() as u64)?.u32(MEMBERS)?;
            for member in members {
                e.str(&member.path)?;
                encode_path_edit(e, &member.edit)?;
            }
        }
    }
    Ok(())
}

fn encode_path_edit(e: &mut MemoryEncoder<'_>, edit: &PathEdit) -> Encoded {
    match edit {
        PathEdit::Set(json) => e.array(2)?.u32(SET_JSON)?.str(json)?.ok(),
        PathEdit::Remove => e.array(1)?.u32(REMOVE)?.ok(),
        PathEdit::Add(value) => encode_add(e, value),
        PathEdit::Items { add, remove } => encode_items(e, add, remove),
        PathEdit::Append(items) => encode_append(e, items),
        PathEdit::Decide { base, new } => e.array(3)?.u32(DECIDE)?.encode(base)?.encode(new)?.ok(),
    }
}

fn encode_add(e: &mut MemoryEncoder<'_>, value: &Value) -> Encoded {
    e.array(2)?.u32(ADD)?;
    encode_value(e, value);
    Ok(())
}

fn encode_items(e: &mut MemoryEncoder<'_>, add: &[String], remove: &[String]) -> Encoded {
    e.array(3)?.u32(ITEMS)?.encode(add)?.encode(remove)?.ok()
}

fn encode_append(e: &mut MemoryEncoder<'_>, items: &[String]) -> Encoded {
    e.array(2)?.u32(APPEND)?.encode(items)?.ok()
}

/// Room is made at once for this many edits of a change; more of them are found as they come.
const EDITS_EXPECTED: u64 = 32;

/// Reads what [`encode_edits`] wrote; columns must ascend, so none occurs twice.
pub(super) fn decode_edits(
    d: &mut Decoder<'_>,
    budget: &mut Budget,
) -> Result<Vec<ColumnEdit>, ChangesetError> {
    let count = budget.take(definite(d.map()?)?)?;
    // Exactly what is needed, as long as that is believable: most changes touch a column or two.
    let mut edits: Vec<ColumnEdit> =
        Vec::with_capacity(usize::try_from(count.min(EDITS_EXPECTED)).unwrap_or_default());
    for _ in 0..count {
        let column = ColumnNumber(d.u32()?);
        if edits.last().is_some_and(|last| last.column >= column) {
            return Err(malformed("the columns of a change ascend"));
        }
        edits.push(ColumnEdit {
            column,
            edit: decode_edit(d, budget)?,
        });
    }
    Ok(edits)
}

fn decode_edit(d: &mut Decoder<'_>, budget: &mut Budget) -> Result<Edit, ChangesetError> {
    if d.datatype()? != Type::Array {
        return Ok(Edit::Set(decode_value(d)?));
    }
    let length = definite(d.array()?)?;
    Ok(match (d.u32()?, length) {
        (ADD, 2) => Edit::Add(decode_add(d)?),
        (ITEMS, 3) => Edit::Items {
            add: decode_texts(d, budget)?,
            remove: decode_texts(d, budget)?,
        },
        (APPEND, 2) => Edit::Append(decode_texts(d, budget)?),
        (DECIDE, 3) => Edit::Decide {
            base: decode_value(d)?,
            new: decode_value(d)?,
        },
        (MEMBERS, odd) if odd % 2 == 1 => Edit::Members(decode_members(d, odd / 2, budget)?),
        _ => return Err(malformed("an edit of a kind this version does not know")),
    })
}

fn decode_members(
    d: &mut Decoder<'_>,
    count: u64,
    budget: &mut Budget,
) -> Result<Vec<MemberEdit>, ChangesetError> {
    budget.take(count)?;
    let mut members = Vec::new();
    for _ in 0..count {
        let path = d.str()?.to_owned();
        members.push(MemberEdit {
            path,
            edit: decode_path_edit(d, budget)?,
        });
    }
    let mut paths: Vec<&str> = members.iter().map(|member| member.path.as_str()).collect();
    paths.sort_unstable();
    if paths.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(malformed("two edits of one path"));
    }
    Ok(members)
}

fn decode_path_edit(d: &mut Decoder<'_>, budget: &mut Budget) -> Result<PathEdit, ChangesetError> {
    let length = definite(d.array()?)?;
    Ok(match (d.u32()?, length) {
        (SET_JSON, 2) => PathEdit::Set(d.str()?.to_owned()),
        (REMOVE, 1) => PathEdit::Remove,
        (ADD, 2) => PathEdit::Add(decode_add(d)?),
        (ITEMS, 3) => PathEdit::Items {
            add: decode_texts(d, budget)?,
            remove: decode_texts(d, budget)?,
        },
        (APPEND, 2) => PathEdit::Append(decode_texts(d, budget)?),
        (DECIDE, 3) => PathEdit::Decide {
            base: d.decode()?,
            new: d.decode()?,
        },
        _ => {
            return Err(malformed(
                "an edit of a path of a kind this version does not know",
            ));
        }
    })
}

/// A counter's difference is a number.
fn decode_add(d: &mut Decoder<'_>) -> Result<Value, ChangesetError> {
    match decode_value(d)? {
        number @ (Value::Integer(_) | Value::Real(_)) => Ok(number),
        Value::Null | Value::Text(_) | Value::Blob(_) => {
            Err(malformed("a counter's difference is a number"))
        }
    }
}

fn decode_texts(d: &mut Decoder<'_>, budget: &mut Budget) -> Result<Vec<String>, ChangesetError> {
    let count = budget.take(definite(d.array()?)?)?;
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(d.str()?.to_owned());
    }
    Ok(texts)
}
