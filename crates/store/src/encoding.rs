//! How metadata and log entries lie in a database: CBOR arrays, to which later versions may
//! append elements. Readers skip what they do not know.

use std::{collections::BTreeMap, sync::Arc};

use minicbor::{Decoder, Encoder, data::Type, decode, encode};
use syncline_core::{
    BucketId, ChangesetId, ColumnNumber, DeviceId, Hlc, RowKey, TableNumber, Value, Version,
    digest::Digest,
    merge::{Clock, ColumnState},
    rules::GranteeId,
};

use crate::{
    log::{GrantChange, LogEntry, LogRecord},
    meta::RowMeta,
};

/// Bytes that are no encoding: damaged, or of a later version that changed what it must not.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct EncodingError {
    what: &'static str,
    #[source]
    source: decode::Error,
}

type Encoded = Result<(), encode::Error<std::convert::Infallible>>;
type Out<'a> = Encoder<&'a mut Vec<u8>>;

const IN_MEMORY: &str = "writing into memory cannot fail";

impl RowMeta {
    /// What no index looks at: `clock`, `columns` and `remains`.
    #[must_use]
    pub fn encode_state(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.try_encode_state(&mut Encoder::new(&mut out))
            .expect(IN_MEMORY);
        out
    }

    fn try_encode_state(&self, e: &mut Out<'_>) -> Encoded {
        e.array(3)?;
        encode_clock(e, &self.clock)?;
        e.map(self.columns.len() as u64)?;
        for (number, state) in &self.columns {
            e.u32(number.0)?.array(2)?;
            encode_clock(e, &state.clock)?;
            e.map(state.members.len() as u64)?;
            for (path, clock) in &state.members {
                e.str(path)?;
                encode_clock(e, clock)?;
            }
        }
        e.map(self.remains.len() as u64)?;
        for (number, value) in &self.remains {
            e.u32(number.0)?;
            encode_value(e, value)?;
        }
        Ok(())
    }

    /// Takes over what [`RowMeta::encode_state`] gave; everything else stays.
    ///
    /// # Errors
    /// [`EncodingError`]; then `self` is unchanged.
    pub fn decode_state(&mut self, bytes: &[u8]) -> Result<(), EncodingError> {
        let (clock, columns, remains) =
            decode_state(&mut Decoder::new(bytes)).map_err(|source| EncodingError {
                what: "a row's clocks",
                source,
            })?;
        self.clock = clock;
        self.columns = columns;
        self.remains = remains;
        Ok(())
    }

    /// [`RowMeta::buckets`], one after the other.
    #[must_use]
    pub fn encode_buckets(&self) -> Vec<u8> {
        join(&self.buckets)
    }

    /// Takes over what [`RowMeta::encode_buckets`] gave.
    ///
    /// # Errors
    /// [`EncodingError`]; then `self` is unchanged.
    pub fn decode_buckets(&mut self, bytes: &[u8]) -> Result<(), EncodingError> {
        self.buckets = split(bytes).map_err(|source| EncodingError {
            what: "a row's buckets",
            source,
        })?;
        Ok(())
    }
}

impl LogEntry {
    /// What no index looks at: `grants`, `records` and `digests`.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        self.try_encode_body(&mut Encoder::new(&mut out))
            .expect(IN_MEMORY);
        out
    }

    fn try_encode_body(&self, e: &mut Out<'_>) -> Encoded {
        e.array(3)?.array(self.grants.len() as u64)?;
        for grant in &self.grants {
            e.array(3)?
                .bytes(&grant.grantee.0)?
                .bytes(&grant.bucket.0)?
                .bool(grant.granted)?;
        }
        e.array(self.records.len() as u64)?;
        for record in &self.records {
            e.array(8)?
                .u32(record.table.0)?
                .bytes(record.key.as_bytes())?;
            e.u64(record.version.0)?
                .bytes(&join(&record.before))?
                .bytes(&join(&record.after))?;
            encode_option(e, record.whole.as_deref())?;
            encode_option(e, record.columns.as_deref())?;
            e.bool(record.deleted)?;
        }
        e.array(self.digests.len() as u64)?;
        for (bucket, table, digest) in &self.digests {
            e.array(4)?
                .bytes(&bucket.0)?
                .u32(table.0)?
                .u64(digest.count)?
                .u64(digest.sum)?;
        }
        Ok(())
    }

    /// Takes over what [`LogEntry::encode_body`] gave; everything else stays.
    ///
    /// # Errors
    /// [`EncodingError`]; then `self` is unchanged.
    pub fn decode_body(&mut self, bytes: &[u8]) -> Result<(), EncodingError> {
        let (grants, records, digests) =
            decode_body(&mut Decoder::new(bytes)).map_err(|source| EncodingError {
                what: "a log entry",
                source,
            })?;
        self.grants = grants;
        self.records = records;
        self.digests = digests;
        Ok(())
    }
}

type State = (
    Clock,
    BTreeMap<ColumnNumber, ColumnState>,
    Vec<(ColumnNumber, Value)>,
);

fn decode_state(d: &mut Decoder<'_>) -> Result<State, decode::Error> {
    array_of(d, 3, |d| {
        let clock = decode_clock(d)?;
        let mut columns = BTreeMap::new();
        for _ in 0..map(d)? {
            let number = ColumnNumber(d.u32()?);
            columns.insert(number, array_of(d, 2, decode_column)?);
        }
        let mut remains = Vec::new();
        for _ in 0..map(d)? {
            remains.push((ColumnNumber(d.u32()?), decode_value(d)?));
        }
        Ok((clock, columns, remains))
    })
}

fn decode_column(d: &mut Decoder<'_>) -> Result<ColumnState, decode::Error> {
    let clock = decode_clock(d)?;
    let mut members = BTreeMap::new();
    for _ in 0..map(d)? {
        members.insert(d.str()?.to_owned(), decode_clock(d)?);
    }
    Ok(ColumnState { clock, members })
}

type Body = (
    Vec<GrantChange>,
    Vec<LogRecord>,
    Vec<(BucketId, TableNumber, Digest)>,
);

fn decode_body(d: &mut Decoder<'_>) -> Result<Body, decode::Error> {
    array_of(d, 3, |d| {
        Ok((
            list(d, 3, decode_grant)?,
            list(d, 8, decode_record)?,
            list(d, 4, decode_digest)?,
        ))
    })
}

fn decode_grant(d: &mut Decoder<'_>) -> Result<GrantChange, decode::Error> {
    Ok(GrantChange {
        grantee: GranteeId(fixed(d)?),
        bucket: BucketId(fixed(d)?),
        granted: d.bool()?,
    })
}

fn decode_record(d: &mut Decoder<'_>) -> Result<LogRecord, decode::Error> {
    let table = TableNumber(d.u32()?);
    let at = d.position();
    let key = RowKey::from_bytes(d.bytes()?).map_err(|e| decode::Error::custom(e).at(at))?;
    Ok(LogRecord {
        table,
        key,
        version: Version(d.u64()?),
        before: split(d.bytes()?)?,
        after: split(d.bytes()?)?,
        whole: decode_option(d)?,
        columns: decode_option(d)?,
        deleted: d.bool()?,
    })
}

fn decode_digest(d: &mut Decoder<'_>) -> Result<(BucketId, TableNumber, Digest), decode::Error> {
    let bucket = BucketId(fixed(d)?);
    let table = TableNumber(d.u32()?);
    Ok((
        bucket,
        table,
        Digest {
            count: d.u64()?,
            sum: d.u64()?,
        },
    ))
}

fn encode_clock(e: &mut Out<'_>, clock: &Clock) -> Encoded {
    e.array(4)?.u64(clock.version.0)?.u64(clock.hlc.0)?;
    e.bytes(&clock.changeset.0)?.bytes(&clock.device.0)?.ok()
}

fn decode_clock(d: &mut Decoder<'_>) -> Result<Clock, decode::Error> {
    array_of(d, 4, |d| {
        Ok(Clock {
            version: Version(d.u64()?),
            hlc: Hlc(d.u64()?),
            changeset: ChangesetId(fixed(d)?),
            device: DeviceId(fixed(d)?),
        })
    })
}

fn encode_value(e: &mut Out<'_>, value: &Value) -> Encoded {
    match value {
        Value::Null => e.null()?,
        Value::Integer(n) => e.i64(*n)?,
        Value::Real(x) => e.f64(*x)?,
        Value::Text(text) => e.str(text)?,
        Value::Blob(bytes) => e.bytes(bytes)?,
    };
    Ok(())
}

fn decode_value(d: &mut Decoder<'_>) -> Result<Value, decode::Error> {
    let ty = d.datatype()?;
    Ok(if ty == Type::Null {
        d.null()?;
        Value::Null
    } else if ty == Type::F64 {
        Value::Real(d.f64()?)
    } else if ty == Type::String {
        Value::Text(d.str()?.to_owned())
    } else if ty == Type::Bytes {
        Value::Blob(d.bytes()?.to_vec())
    } else {
        Value::Integer(d.i64()?)
    })
}

fn encode_option(e: &mut Out<'_>, bytes: Option<&[u8]>) -> Encoded {
    match bytes {
        Some(bytes) => e.bytes(bytes)?.ok(),
        None => e.null()?.ok(),
    }
}

fn decode_option(d: &mut Decoder<'_>) -> Result<Option<Arc<[u8]>>, decode::Error> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    Ok(Some(d.bytes()?.into()))
}

fn join(buckets: &[BucketId]) -> Vec<u8> {
    buckets.iter().flat_map(|bucket| bucket.0).collect()
}

fn split(bytes: &[u8]) -> Result<Vec<BucketId>, decode::Error> {
    let (ids, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() {
        Ok(ids.iter().map(|id| BucketId(*id)).collect())
    } else {
        Err(decode::Error::message("buckets have 16 bytes each"))
    }
}

fn fixed<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], decode::Error> {
    let at = d.position();
    let bytes = d.bytes()?.try_into();
    bytes.map_err(|_| decode::Error::message("an id of another length").at(at))
}

/// Reads an array of at least `known` elements, of which `read` takes the first `known`.
fn array_of<'b, T>(
    d: &mut Decoder<'b>,
    known: u64,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<T, decode::Error> {
    let at = d.position();
    let len = array(d)?;
    if len < known {
        return Err(decode::Error::message("an array is too short").at(at));
    }
    let value = read(d)?;
    for _ in known..len {
        d.skip()?;
    }
    Ok(value)
}

fn list<'b, T>(
    d: &mut Decoder<'b>,
    known: u64,
    mut read: impl FnMut(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<Vec<T>, decode::Error> {
    (0..array(d)?)
        .map(|_| array_of(d, known, &mut read))
        .collect()
}

fn array(d: &mut Decoder<'_>) -> Result<u64, decode::Error> {
    d.array()?
        .ok_or_else(|| decode::Error::message("an array without length"))
}

fn map(d: &mut Decoder<'_>) -> Result<u64, decode::Error> {
    d.map()?
        .ok_or_else(|| decode::Error::message("a map without length"))
}

#[cfg(test)]
mod tests {
    use syncline_core::{Tag, UserId};

    use super::*;

    fn clock(n: u64) -> Clock {
        let byte = u8::try_from(n).unwrap();
        Clock {
            version: Version(n),
            hlc: Hlc(n << 20),
            changeset: ChangesetId([byte; 16]),
            device: DeviceId([byte + 1; 16]),
        }
    }

    fn meta() -> RowMeta {
        let members = BTreeMap::from([("a.b".to_owned(), clock(3)), (String::new(), clock(4))]);
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(-1.5),
            Value::from("text\0"),
            Value::Blob(vec![0, 255]),
        ];
        RowMeta {
            clock: clock(1),
            columns: BTreeMap::from([
                (
                    ColumnNumber(7),
                    ColumnState {
                        clock: clock(2),
                        members,
                    },
                ),
                (
                    ColumnNumber(9),
                    ColumnState {
                        clock: clock(5),
                        members: BTreeMap::new(),
                    },
                ),
            ]),
            buckets: vec![BucketId([1; 16]), BucketId([2; 16])],
            remains: values
                .into_iter()
                .zip(1..)
                .map(|(v, n)| (ColumnNumber(n), v))
                .collect(),
            ..RowMeta::default()
        }
    }

    fn entry() -> LogEntry {
        let key = RowKey::encode([&Value::from("k")]).unwrap();
        let record = LogRecord {
            table: TableNumber(16),
            key,
            version: Version(8),
            before: vec![],
            after: vec![BucketId([3; 16])],
            whole: Some(Arc::from(&b"whole"[..])),
            columns: None,
            deleted: false,
        };
        LogEntry {
            version: Version(9),
            tag: Tag([1; 8]),
            changeset: ChangesetId([2; 16]),
            user: Some(UserId("ana".into())),
            device: DeviceId([3; 16]),
            number: 4,
            hlc: Hlc(5),
            grants: vec![GrantChange {
                grantee: GranteeId([4; 16]),
                bucket: BucketId([5; 16]),
                granted: true,
            }],
            records: vec![
                record.clone(),
                LogRecord {
                    whole: None,
                    deleted: true,
                    ..record
                },
            ],
            digests: vec![(
                BucketId([6; 16]),
                TableNumber(16),
                Digest {
                    count: 1,
                    sum: u64::MAX,
                },
            )],
        }
    }

    #[test]
    fn metadata_round_trips() {
        let meta = meta();
        let mut read = RowMeta::default();
        read.decode_state(&meta.encode_state()).unwrap();
        read.decode_buckets(&meta.encode_buckets()).unwrap();
        assert_eq!(read, meta);
    }

    #[test]
    fn log_entries_round_trip() {
        let entry = entry();
        let mut read = LogEntry {
            grants: vec![],
            records: vec![],
            digests: vec![],
            ..entry.clone()
        };
        read.decode_body(&entry.encode_body()).unwrap();
        assert_eq!(read, entry);
    }

    #[test]
    fn elements_of_a_later_version_are_skipped() {
        let mut bytes = Vec::new();
        let mut e = Encoder::new(&mut bytes);
        e.array(4)
            .unwrap()
            .array(5)
            .unwrap()
            .u64(1)
            .unwrap()
            .u64(2)
            .unwrap();
        e.bytes(&[1; 16])
            .unwrap()
            .bytes(&[2; 16])
            .unwrap()
            .str("later")
            .unwrap();
        e.map(0).unwrap().map(0).unwrap().str("later").unwrap();
        let mut read = RowMeta::default();
        read.decode_state(&bytes).unwrap();
        assert_eq!(read.clock.hlc, Hlc(2));
    }

    /// Every cut and every flipped bit is an error or another value, never a panic.
    #[test]
    fn damaged_bytes_are_errors() {
        let state = meta().encode_state();
        let body = entry().encode_body();
        for end in 0..state.len() {
            RowMeta::default().decode_state(&state[..end]).unwrap_err();
        }
        for end in 0..body.len() {
            entry().decode_body(&body[..end]).unwrap_err();
        }
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            drop(entry().decode_body(&damaged));
        }
        RowMeta::default().decode_buckets(&[0; 17]).unwrap_err();
    }
}
