//! Ids: hashes of definitions, and keyed hashes that tell nothing outside the server (spec RU7).

use std::fmt;

use super::{GranteeId, term::Seen};
use crate::{
    ids::{BucketId, FamilyId},
    key::RowKey,
};

/// The key of bucket and grantee ids.
#[derive(Clone)]
pub(super) struct Key(pub(super) [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The id of what `definition` says.
pub(super) fn family(definition: &str) -> FamilyId {
    let hash = blake3::hash(definition.as_bytes());
    let (head, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .expect("a hash has 32 bytes");
    FamilyId(u64::from_le_bytes(*head))
}

/// The family with the same grants for rows of tables that sync on demand: they lie in buckets of
/// their own, so that a device can do without them (spec RU29).
pub(super) fn on_demand(family: FamilyId) -> FamilyId {
    self::family(&format!("on demand {:016x}", family.0))
}

/// What the buckets of a family have in common.
pub(super) type BucketHead = [u8; 4];

impl Key {
    /// The bucket of the family for a value; NULL has none.
    pub(super) fn value_bucket(&self, family: FamilyId, value: &Seen<'_>) -> Option<BucketId> {
        let mut bytes = Vec::with_capacity(48);
        value
            .encode(&mut bytes)
            .then(|| self.bucket(b"value bucket", family, &bytes))
    }

    /// The only bucket of the family.
    pub(super) fn only_bucket(&self, family: FamilyId) -> BucketId {
        self.bucket(b"only bucket", family, &[])
    }

    /// The own bucket of a row.
    pub(super) fn row_bucket(&self, family: FamilyId, key: &RowKey) -> BucketId {
        self.bucket(b"row bucket", family, key.as_bytes())
    }

    /// The grantee with this value of the user; `None` for a value is everybody, NULL is nobody.
    pub(super) fn grantee(&self, kind: FamilyId, value: Option<&Seen<'_>>) -> Option<GranteeId> {
        let mut bytes = Vec::with_capacity(48);
        let somebody = value.is_none_or(|value| value.encode(&mut bytes));
        somebody.then(|| GranteeId(self.id(b"grantee", kind, &bytes)))
    }

    /// Changes with the key and with the definitions.
    pub(super) fn fingerprint(&self, definitions: &str) -> [u8; 32] {
        let mut hash = blake3::Hasher::new_keyed(&self.0);
        hash.update(b"fingerprint\0").update(definitions.as_bytes());
        *hash.finalize().as_bytes()
    }

    /// The first bytes of every bucket of the family: by them its tables are found.
    pub(super) fn head(&self, family: FamilyId) -> BucketHead {
        let id = self.id(b"family", family, &[]);
        let (head, _) = id.split_first_chunk().expect("an id has 16 bytes");
        *head
    }

    fn bucket(&self, kind: &[u8], family: FamilyId, bytes: &[u8]) -> BucketId {
        let mut id = self.id(kind, family, bytes);
        id[..4].copy_from_slice(&self.head(family));
        BucketId(id)
    }

    fn id(&self, kind: &[u8], family: FamilyId, bytes: &[u8]) -> [u8; 16] {
        let told = [kind, b"\0", &family.0.to_le_bytes(), bytes].concat();
        let hash = blake3::keyed_hash(&self.0, &told);
        let (head, _) = hash
            .as_bytes()
            .split_first_chunk::<16>()
            .expect("a hash has 32 bytes");
        *head
    }
}
