//! What a log entry holds besides its head.

use std::sync::Arc;

use minicbor::{Decoder, Encoder, decode};
use syncline_core::{BucketId, RowKey, TableNumber, Version, digest::Digest, rules::GranteeId};

use super::{
    Encoded, EncodingError, IN_MEMORY, Out,
    parts::{array_of, decode_option, encode_option, fixed, join, list, split},
};
use crate::log::{GrantChange, LogEntry, LogRecord};

impl LogEntry {
    /// What no index looks at: `grants`, `records` and `digests`.
    #[must_use]
    pub fn encode_body(&self) -> Vec<u8> {
        let bytes = |body: &Option<Arc<[u8]>>| body.as_ref().map_or(0, |body| body.len());
        let of_records = self.records.iter().map(|record| {
            let buckets = (record.before.len() + record.after.len()) * 16;
            let bodies = bytes(&record.whole) + bytes(&record.columns);
            48 + record.key.as_bytes().len() + buckets + bodies
        });
        let mut out = Vec::with_capacity(128 + of_records.sum::<usize>());
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
