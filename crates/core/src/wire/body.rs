//! Rows on their way out: encoded once, shared by every subscriber (spec WI11).

use minicbor::{Decoder, Encoder, data::Type};

use super::{
    IN_MEMORY, MemoryEncoder, limits,
    value::{decode_value, encode_value},
};
use crate::{
    hlc::Hlc,
    ids::{ChangesetId, ColumnNumber, TableNumber, Version},
    key::RowKey,
    value::Value,
};

/// One row as the server sends it, in pages (always whole) and in log records.
#[derive(Debug, Clone, PartialEq)]
pub struct RowBody {
    pub table: TableNumber,
    pub key: RowKey,
    /// The version of the row after the change.
    pub version: Version,
    pub state: RowState,
    /// Who changed it last. Empty in `Removed` that is a loss of sight.
    pub author: String,
    /// The changeset that did; zero in pages.
    pub changeset: ChangesetId,
    /// The clock the changed columns carry now; zero in pages.
    pub hlc: Hlc,
}

/// What the receiver does with the row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowState {
    /// The whole row, every column but generated ones; replaces what is there.
    Whole {
        columns: Vec<(ColumnNumber, Value)>,
        owner: String,
        created: Version,
    },
    /// The row is there already; these columns changed.
    Columns(Vec<(ColumnNumber, Value)>),
    /// The row was deleted.
    Deleted,
    /// The row is not the reader's any more; whether it still exists is not said.
    Removed,
    /// The row is the reader's still, and not what they subscribe to any more.
    Released,
}

const WHOLE: u32 = 0;
const COLUMNS: u32 = 1;
const DELETED: u32 = 2;
const REMOVED: u32 = 3;

/// Table, key, version, author, changeset, clock, state: what every body has.
const COMMON_FIELDS: u64 = 7;

type Encoded = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// A [`RowBody`] that is lent: encoded from a row without copying its values.
#[derive(Debug, Clone, Copy)]
pub struct LentBody<'a> {
    pub table: TableNumber,
    pub key: &'a RowKey,
    pub version: Version,
    pub state: LentState<'a>,
    pub author: &'a str,
    pub changeset: ChangesetId,
    pub hlc: Hlc,
}

/// A [`RowState`] that is lent.
#[derive(Debug, Clone, Copy)]
pub enum LentState<'a> {
    Whole {
        columns: &'a [(ColumnNumber, &'a Value)],
        owner: &'a str,
        created: Version,
    },
    Columns(&'a [(ColumnNumber, &'a Value)]),
    Deleted,
    Removed,
    Released,
}

impl LentBody<'_> {
    /// Appends what [`RowBody::encode`] returns for the same body to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        self.try_encode(&mut Encoder::new(out)).expect(IN_MEMORY);
    }

    fn try_encode(&self, e: &mut MemoryEncoder<'_>) -> Encoded {
        let (state, extra) = match &self.state {
            LentState::Whole { .. } => (WHOLE, 3),
            LentState::Columns(_) => (COLUMNS, 1),
            LentState::Deleted => (DELETED, 0),
            LentState::Removed => (REMOVED, 0),
            LentState::Released => (REMOVED, 1),
        };
        e.array(COMMON_FIELDS + extra)?;
        e.u32(self.table.0)?
            .bytes(self.key.as_bytes())?
            .u64(self.version.0)?
            .str(self.author)?;
        if self.changeset == ChangesetId::default() {
            e.null()?;
        } else {
            e.bytes(&self.changeset.0)?;
        }
        e.u64(self.hlc.0)?.u32(state)?;
        match self.state {
            LentState::Whole {
                columns,
                owner,
                created,
            } => {
                encode_columns(e, columns)?;
                e.str(owner)?.u64(created.0)?;
            }
            LentState::Columns(columns) => encode_columns(e, columns)?,
            LentState::Released => e.bool(true).map(drop)?,
            LentState::Deleted | LentState::Removed => {}
        }
        Ok(())
    }
}

impl RowBody {
    /// The body as an array, about 40 bytes and the values (spec WI11).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode_into(&mut out);
        out
    }

    /// Appends what [`RowBody::encode`] returns to `out`: bodies of a page follow one another.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let columns: Vec<(ColumnNumber, &Value)> = match &self.state {
            RowState::Whole { columns, .. } | RowState::Columns(columns) => columns
                .iter()
                .map(|(number, value)| (*number, value))
                .collect(),
            RowState::Deleted | RowState::Removed | RowState::Released => Vec::new(),
        };
        let state = match &self.state {
            RowState::Whole { owner, created, .. } => LentState::Whole {
                columns: &columns,
                owner,
                created: *created,
            },
            RowState::Columns(_) => LentState::Columns(&columns),
            RowState::Deleted => LentState::Deleted,
            RowState::Removed => LentState::Removed,
            RowState::Released => LentState::Released,
        };
        LentBody {
            table: self.table,
            key: &self.key,
            version: self.version,
            state,
            author: &self.author,
            changeset: self.changeset,
            hlc: self.hlc,
        }
        .encode_into(out);
    }

    /// Reads the body at the start of `bytes` and says how many of them it takes.
    ///
    /// Elements that a later version adds at the end of the array are skipped.
    ///
    /// # Errors
    /// [`BodyError`] if the bytes do not start with a body.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), BodyError> {
        let mut d = Decoder::new(bytes);
        let body = Self::decode_from(&mut d)?;
        Ok((body, d.position()))
    }

    /// Reads the bodies that [`RowBody::encode_into`] put one after the other, one at a time.
    ///
    /// Ends after the first error.
    pub fn decode_all(bytes: &[u8]) -> impl Iterator<Item = Result<Self, BodyError>> {
        let mut d = Decoder::new(bytes);
        std::iter::from_fn(move || {
            if d.position() >= d.input().len() {
                return None;
            }
            let body = Self::decode_from(&mut d);
            if body.is_err() {
                d.set_position(d.input().len());
            }
            Some(body)
        })
    }

    fn decode_from(d: &mut Decoder<'_>) -> Result<Self, BodyError> {
        let length = d
            .array()?
            .ok_or_else(|| BodyError("an array of unknown length".into()))?;
        let table = TableNumber(d.u32()?);
        let key = RowKey::from_bytes(d.bytes()?).map_err(|error| BodyError(error.to_string()))?;
        let version: Version = d.decode()?;
        let author = d.str()?.to_owned();
        let changeset = if d.datatype()? == Type::Null {
            d.null()?;
            ChangesetId::default()
        } else {
            d.decode()?
        };
        let hlc = Hlc(d.u64()?);
        let (state, extra) = match d.u32()? {
            WHOLE => {
                let columns = decode_columns(d)?;
                let owner = d.str()?.to_owned();
                (
                    RowState::Whole {
                        columns,
                        owner,
                        created: d.decode()?,
                    },
                    3,
                )
            }
            COLUMNS => (RowState::Columns(decode_columns(d)?), 1),
            DELETED => (RowState::Deleted, 0),
            // Who does not know the flag takes the row for removed, which it is.
            REMOVED if length > COMMON_FIELDS && d.datatype()? == Type::Bool => match d.bool()? {
                true => (RowState::Released, 1),
                false => (RowState::Removed, 1),
            },
            REMOVED => (RowState::Removed, 0),
            unknown => return Err(BodyError(format!("state {unknown} is unknown"))),
        };
        let Some(more) = length.checked_sub(COMMON_FIELDS + extra) else {
            return Err(BodyError("the array is too short".into()));
        };
        for _ in 0..more {
            limits::skip(d)?;
        }
        Ok(Self {
            table,
            key,
            version,
            state,
            author,
            changeset,
            hlc,
        })
    }
}

/// Why bytes are no row body. The sender's fault, always.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no row body: {0}")]
pub struct BodyError(String);

impl From<minicbor::decode::Error> for BodyError {
    fn from(error: minicbor::decode::Error) -> Self {
        Self(error.to_string())
    }
}

fn encode_columns(e: &mut MemoryEncoder<'_>, columns: &[(ColumnNumber, &Value)]) -> Encoded {
    e.map(columns.len() as u64)?;
    for (number, value) in columns {
        e.u32(number.0)?;
        encode_value(e, value);
    }
    Ok(())
}

fn decode_columns(d: &mut Decoder<'_>) -> Result<Vec<(ColumnNumber, Value)>, BodyError> {
    let count = d
        .map()?
        .ok_or_else(|| BodyError("a map of unknown length".into()))?;
    // Never more room than a wide table needs on the word of a sender.
    let mut columns = Vec::with_capacity(usize::try_from(count).unwrap_or(64).min(64));
    for _ in 0..count {
        columns.push((ColumnNumber(d.u32()?), decode_value(d)?));
    }
    Ok(columns)
}
