//! Values, keys, merges and what proves who somebody is.

use std::{collections::BTreeMap, sync::OnceLock};

use arbitrary::{Arbitrary as _, Unstructured};
use syncline_core::{
    BucketId, ChangesetId, Column, ColumnType, Cursor, DeviceId, DeviceName, Hlc, MergeStrategy,
    Row, RowKey, Tag, Timestamp, UserId, Value, Version,
    digest::content_hash,
    envelope::{Envelope, is_sealed},
    merge::{self, ColumnState, Incoming},
};
use syncline_replica::{EncryptionKey, Keyring};
use syncline_server::net::Auth;
use syncline_store::{check_cursor, testkit};

/// Every type that a column may have.
const TYPES: [ColumnType; 9] = [
    ColumnType::Text,
    ColumnType::Integer,
    ColumnType::Real,
    ColumnType::Boolean,
    ColumnType::Json,
    ColumnType::Blob,
    ColumnType::Timestamp,
    ColumnType::Uuid,
    ColumnType::Any,
];

const STRATEGIES: [MergeStrategy; 8] = [
    MergeStrategy::LastWriteWins,
    MergeStrategy::ServerWins,
    MergeStrategy::ClientWins,
    MergeStrategy::Counter,
    MergeStrategy::Set,
    MergeStrategy::Append,
    MergeStrategy::MergeFields,
    MergeStrategy::Manual,
];

/// A value of any class.
pub(crate) fn value(u: &mut Unstructured<'_>) -> arbitrary::Result<Value> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Value::Null,
        1 => Value::Integer(i64::arbitrary(u)?),
        2 => Value::Real(f64::arbitrary(u)?),
        3 => Value::Blob(Vec::arbitrary(u)?),
        // Short integers and texts are keys and references that meet.
        4 => Value::Integer(i64::from(u8::arbitrary(u)?)),
        _ => Value::Text(<&str>::arbitrary(u)?.to_owned()),
    })
}

/// Fewer than `max` bytes.
pub(crate) fn few_bytes(u: &mut Unstructured<'_>, max: u8) -> arbitrary::Result<Vec<u8>> {
    let length = usize::from(u8::arbitrary(u)? % max).min(u.len());
    Ok(u.bytes(length)?.to_vec())
}

/// Bytes as a key, and values as the parts of one: canonical forms stay, keys are in SQLite's order.
pub(crate) fn key(bytes: &[u8]) {
    if let Ok(key) = RowKey::from_bytes(bytes) {
        let values = key.decode().expect("a key is decoded");
        let again = RowKey::encode(&values).expect("its values are a key");
        assert_eq!(key, again);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(name) = DeviceName::new(text) {
            assert_eq!(DeviceName::told(name.as_str()).as_str(), name.as_str());
        }
        let told = DeviceName::told(text);
        assert!(DeviceName::new(told.as_str()).is_ok() || told.as_str().is_empty());
        if let Some(id) = BucketId::from_hex(text) {
            assert_eq!(id.to_string(), text);
        }
    }
    let _ended = parts(&mut Unstructured::new(bytes));
}

fn parts(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let (a, b) = (value(u)?, value(u)?);
    let table = testkit::table("t", TYPES.map(|ty| testkit::column("c", ty)).to_vec());
    let row = Row(vec![a.clone(); TYPES.len()]).canonical(&table);
    assert_eq!(
        row.clone().canonical(&table),
        row,
        "canonical once is canonical"
    );
    assert_eq!(
        content_hash(&table, &row),
        content_hash(&table, &row.clone())
    );
    if let (Ok(first), Ok(second)) = (RowKey::encode([&a]), RowKey::encode([&b])) {
        let order = first.cmp(&second);
        let both = RowKey::encode([&a, &b]).map(|key| key.decode());
        if let Ok(values) = both {
            assert_eq!(values.expect("a key is decoded").len(), 2);
        }
        if let (Value::Integer(a), Value::Integer(b)) = (&a, &b) {
            assert_eq!(a.cmp(b), order);
        }
        if let (Value::Text(a), Value::Text(b)) = (&a, &b) {
            assert_eq!(a.as_bytes().cmp(b.as_bytes()), order);
        }
    }
    Ok(())
}

/// Edits of a column by two people: total, and what applies alone gives what was written.
pub(crate) fn merge(bytes: &[u8]) {
    let _ended = try_merge(&mut Unstructured::new(bytes));
}

fn try_merge(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let column = Column {
        merge: *u.choose(&STRATEGIES)?,
        merge_paths: match u8::arbitrary(u)? {
            0..128 => BTreeMap::new(),
            _ => BTreeMap::from([("a".into(), *u.choose(&STRATEGIES[..6])?)]),
        },
        ..testkit::column("c", *u.choose(&TYPES)?)
    };
    let mut values = Vec::new();
    for _ in 0..4 {
        values.push(value(u)?.canonical(column.ty));
    }
    let [base, mine, theirs, last] = &values[..] else {
        return Ok(());
    };
    let mut state = ColumnState::default();
    let mut current = base.clone();
    let mut first = None;
    for (i, (from, to)) in [(base, mine), (base, theirs), (mine, last)]
        .into_iter()
        .enumerate()
    {
        let Some(edit) = merge::diff(&column, from, to) else {
            continue;
        };
        let applied = merge::apply(&column, from, &edit);
        if let (Ok(applied), MergeStrategy::LastWriteWins) = (&applied, column.merge)
            && column.merge_paths.is_empty()
        {
            assert_eq!(applied, to, "{edit:?}");
        }
        if let Some(first) = &first {
            let _joined = merge::coalesce(&column, first, &edit);
        }
        first.get_or_insert_with(|| edit.clone());
        let incoming = Incoming {
            base: Version(u64::from(u8::arbitrary(u)?)),
            hlc: Hlc::at(Timestamp(u64::from(u16::arbitrary(u)?) * 1_000)),
            changeset: ChangesetId([u8::arbitrary(u)?; 16]),
            device: DeviceId([u8::arbitrary(u)? % 3; 16]),
            is_insert: bool::arbitrary(u)?,
        };
        if let Ok(merged) = merge::merge(&column, &current, &state, &edit, &incoming) {
            current = merged.value;
            if let Some(next) = merged.state {
                state = next.at(Version(100 + i as u64));
            }
        }
    }
    Ok(())
}

/// Tokens and cursors that nobody signed prove nothing.
pub(crate) fn token(bytes: &[u8]) {
    static AUTH: OnceLock<Auth> = OnceLock::new();
    let auth = AUTH.get_or_init(|| Auth::new(&[0x42; 32]).expect("a secret"));
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(proof) = auth.verify(text)
    {
        let user = proof.identity.user.as_ref().map(|user| user.0.as_str());
        assert_eq!(user, Some("ada"), "only a seed's token was signed");
    }
    let mut u = Unstructured::new(bytes);
    let forged = (|| {
        Ok::<_, arbitrary::Error>(Cursor {
            version: Version(u64::arbitrary(&mut u)?),
            tag: Tag(<[u8; 8]>::arbitrary(&mut u)?),
            mac: Tag(<[u8; 8]>::arbitrary(&mut u)?),
        })
    })();
    if let Ok(cursor) = forged {
        let user = UserId("ada".into());
        assert!(!check_cursor(&[7; 32], &user, DeviceId([1; 16]), &cursor));
    }
}

/// A value in an encrypted column, and bytes that somebody put there: what is sealed opens as what it
/// was, and in its own cell alone; of one value in one cell there is one envelope.
pub(crate) fn envelope(bytes: &[u8]) {
    if let Some(envelope) = Envelope::parse(bytes) {
        assert_eq!(envelope.to_bytes(), bytes);
    }
    let mut u = Unstructured::new(bytes);
    let (Ok(value), Ok(place), Ok(bit)) =
        (value(&mut u), u8::arbitrary(&mut u), u8::arbitrary(&mut u))
    else {
        return;
    };
    let column = Column {
        encrypted: Some(ColumnType::Any),
        ..testkit::column("c", ColumnType::Blob)
    };
    let id = testkit::column("id", ColumnType::Integer);
    let table = testkit::table("t", vec![id, column]);
    let keys = [1, 2].map(|byte| EncryptionKey::new([byte; 32]));
    let key = |n: u8| RowKey::encode([&Value::from(i64::from(n))]).expect("a key");
    for ring in [
        Keyring::new(&keys[0], &keys[1..]),
        Keyring::new(&keys[1], &keys[..1]),
    ] {
        let open = |n: u8, value: Value| ring.opened(("t", "c"), ColumnType::Any, &key(n), value);
        // Nobody without the key made this.
        let stranger = Value::Blob(bytes.to_vec());
        assert_eq!(open(place, stranger.clone()), stranger);
        let plain = value.clone().canonical(ColumnType::Any);
        let row = Row(vec![Value::from(i64::from(place)), plain.clone()]);
        let sealed = ring
            .seal_row(&table, &key(place), row.clone())
            .expect("there is a key");
        let sealed = sealed.0[1].clone();
        assert!(is_sealed(&sealed));
        assert_eq!(open(place, sealed.clone()), plain);
        let same = |row: &Row| row.0[1] == sealed;
        assert!(ring.is_any_sealed(&table, &key(place), row, same));
        let Value::Blob(mut envelope) = sealed.clone() else {
            continue;
        };
        assert_eq!(open(place ^ 1, sealed.clone()), sealed, "in another row");
        let at = usize::from(bit) % envelope.len();
        envelope[at] ^= 1 << (bit & 7);
        let changed = Value::Blob(envelope);
        assert_eq!(open(place, changed.clone()), changed, "a bit was changed");
    }
}
