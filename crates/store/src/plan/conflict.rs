//! The conflict inbox: what waits for a person becomes a row of `syncline_conflicts` (spec PL16).

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use syncline_core::{
    Change, ColumnEdit, DeviceId, Edit, Row, RowKey, TableNumber, UserId, Value, Version,
    builtin::{CONFLICTS, conflicts as column},
    merge::ColumnState,
    rules::Proposed,
};

use super::{
    context::{Context, TableContext},
    effect::{Effect, Effects, born, stored},
    entry::Author,
    state::State,
    submission::Submission,
};
use crate::{EXTERNAL, meta::RowMeta, want::Missing};

/// Something of a changeset that its author has to decide or to know.
#[derive(Debug)]
pub(crate) struct Conflict {
    table: TableNumber,
    key: RowKey,
    kind: ConflictKind,
}

#[derive(Debug)]
pub(crate) enum ConflictKind {
    /// A `manual` column that somebody else changed; `wrote` is the device that did.
    Manual {
        position: usize,
        base: Value,
        mine: Value,
        theirs: Value,
        wrote: DeviceId,
    },
    /// An update that lost against a deletion.
    Deleted {
        edits: Vec<ColumnEdit>,
        by: Option<UserId>,
    },
}

impl Conflict {
    pub(crate) fn new(change: &Change, kind: ConflictKind) -> Self {
        Self {
            table: change.table,
            key: change.key.clone(),
            kind,
        }
    }

    /// The conflict row's key: one for each (row, column, author).
    fn id(&self, table: &TableContext, author: &UserId) -> Value {
        let column = match &self.kind {
            ConflictKind::Manual { position, .. } => table.table.columns[*position].number.0,
            ConflictKind::Deleted { .. } => 0,
        };
        let mut hash = blake3::Hasher::new();
        hash.update(&self.table.0.to_le_bytes());
        hash.update(&(self.key.as_bytes().len() as u64).to_le_bytes());
        hash.update(self.key.as_bytes());
        hash.update(&column.to_le_bytes());
        hash.update(author.0.as_bytes());
        Value::Text(uuid(hash.finalize().as_bytes()))
    }

    /// The open conflict's row.
    fn row(
        &self,
        table: &TableContext,
        id: Value,
        author: &UserId,
        other: Option<UserId>,
        effects: &Effects,
    ) -> Row {
        let mut row = Row(vec![Value::Null; column::RESOLVED_AT + 1]);
        let mut set = |position: usize, value: Value| row.0[position] = value;
        set(column::ID, id);
        set(column::TABLE_NAME, table.table.name.as_str().into());
        let key = self.key.decode().unwrap_or_default();
        set(
            column::ROW_KEY,
            Json::Array(key.iter().map(to_json).collect())
                .to_string()
                .into(),
        );
        match &self.kind {
            ConflictKind::Manual {
                position,
                base,
                mine,
                theirs,
                ..
            } => {
                set(
                    column::COLUMN_NAME,
                    table.table.columns[*position].name.as_str().into(),
                );
                set(column::KIND, "manual".into());
                set(column::BASE, to_json(base).to_string().into());
                set(column::MINE, to_json(mine).to_string().into());
                set(column::THEIRS, to_json(theirs).to_string().into());
            }
            ConflictKind::Deleted { edits, .. } => {
                let columns = edits.iter().filter_map(|edit| {
                    let position = table.position(edit.column)?;
                    Some((
                        table.table.columns[position].name.clone(),
                        edit_to_json(&edit.edit),
                    ))
                });
                set(column::KIND, "deleted".into());
                set(
                    column::MINE,
                    Json::Object(columns.collect()).to_string().into(),
                );
            }
        }
        set(column::AUTHOR, author.0.as_str().into());
        set(
            column::OTHER,
            other.map_or(Value::Null, |other| other.0.into()),
        );
        let opened = i64::try_from(effects.now().as_millis()).unwrap_or(i64::MAX);
        set(column::OPENED_AT, opened.into());
        set(column::STATE, "open".into());
        row
    }

    /// Who changed what this conflicts with; `None`: another program, or nobody known.
    fn other(&self, state: &State) -> Result<Option<UserId>, Missing> {
        match &self.kind {
            ConflictKind::Deleted { by, .. } => Ok(by.clone()),
            ConflictKind::Manual { wrote, .. } if *wrote == EXTERNAL => Ok(None),
            ConflictKind::Manual { wrote, .. } => {
                Ok(state.device(*wrote)?.map(|device| device.user.clone()))
            }
        }
    }
}

/// Turns the conflicts in `effects` into rows, opened again where the same one is there already.
pub(crate) fn open_conflicts(
    context: &Context,
    state: &State,
    submission: &Submission,
    author: &Author,
    effects: &mut Effects,
) -> Result<(), Missing> {
    let (Some(inbox), Some(user)) = (context.table(CONFLICTS), &submission.identity.user) else {
        return Ok(());
    };
    let conflicts = std::mem::take(&mut effects.conflicts);
    if conflicts.is_empty() {
        return Ok(());
    }
    let mut places = places(effects);
    let mut wants = Vec::new();
    for conflict in conflicts {
        let Some(table) = context.table(conflict.table) else {
            continue;
        };
        let id = conflict.id(table, user);
        let Ok(key) = RowKey::encode([&id]) else {
            continue;
        };
        match (conflict.other(state), state.row(CONFLICTS, &key)) {
            (Ok(other), Ok(_)) => {
                let row = conflict.row(table, id, user, other, effects);
                put(state, inbox, author, key, row, effects, &mut places);
            }
            (other, row) => {
                let missing = [other.err(), row.err()].into_iter().flatten();
                wants.extend(missing.flat_map(|missing| missing.0));
            }
        }
    }
    if wants.is_empty() {
        Ok(())
    } else {
        Err(Missing(wants))
    }
}

/// Where in the effects which row of the inbox is, so that a hundred thousand conflicts do not each
/// look at a hundred thousand effects.
fn places(effects: &Effects) -> BTreeMap<RowKey, usize> {
    let after = effects.proposed.iter().map(|one| one.after.as_ref());
    let of_inbox = after.enumerate().filter_map(|(i, after)| {
        let row = after.filter(|row| row.table == CONFLICTS)?;
        Some((row.key.clone(), i))
    });
    of_inbox.collect()
}

/// Adds the row to the effects, over what the changeset itself did to it.
fn put(
    state: &State,
    inbox: &TableContext,
    author: &Author,
    key: RowKey,
    row: Row,
    effects: &mut Effects,
    places: &mut BTreeMap<RowKey, usize>,
) {
    if let Some(&i) = places.get(&key) {
        let Some(after) = &mut effects.proposed[i].after else {
            return;
        };
        let effect = &mut effects.effects[i];
        let changed = write_columns(inbox, author, &after.row, &row, &mut effect.meta);
        effect.columns.extend(changed);
        effect.columns.sort_unstable();
        effect.columns.dedup();
        after.row = row;
        return;
    }
    places.insert(key.clone(), effects.proposed.len());
    let present = state.row(CONFLICTS, &key).ok().flatten();
    let version = effects.upcoming();
    let user = author.user.as_ref();
    match present.and_then(|present| Some((present.row?, present.meta))) {
        None => {
            let meta = born(author, user, present.map(|p| p.meta), version);
            let after = Some(stored(CONFLICTS, &key, row, &meta));
            let effect = Effect::inserted(None, meta, Vec::new());
            effects.push(
                Proposed {
                    before: None,
                    after,
                },
                effect,
            );
        }
        Some((before, before_meta)) => {
            let mut meta = RowMeta {
                version,
                author: user.cloned(),
                ..before_meta.clone()
            };
            let columns = write_columns(inbox, author, before, &row, &mut meta);
            let proposed = Proposed {
                before: Some(stored(CONFLICTS, &key, before.clone(), before_meta)),
                after: Some(stored(CONFLICTS, &key, row, &meta)),
            };
            effects.push(proposed, Effect::changed(None, before_meta, meta, columns));
        }
    }
}

/// Notes the author as writer of every column that differs; returns their positions.
pub(crate) fn write_columns(
    table: &TableContext,
    author: &Author,
    before: &Row,
    after: &Row,
    meta: &mut RowMeta,
) -> Vec<usize> {
    let version: Version = meta.version;
    let mut changed = Vec::new();
    for (position, column) in table.table.columns.iter().enumerate() {
        if column.generated || before.0.get(position) == after.0.get(position) {
            continue;
        }
        let clock = author.clock(&meta.column(column.number).clock, version);
        meta.set_column(
            column.number,
            ColumnState {
                clock,
                ..ColumnState::default()
            },
        );
        changed.push(position);
    }
    meta.fold_columns(table);
    changed
}

/// A value as JSON: text as a string (also JSON text, which so stays as it is), blobs as base 16.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(n) => json!(n),
        Value::Real(x) if x.is_finite() => json!(x),
        Value::Real(x) => json!({ "real": x.to_string() }),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => {
            json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
        }
    }
}

/// What an edit wanted, where there is no value any more to apply it to.
fn edit_to_json(edit: &Edit) -> Json {
    match edit {
        Edit::Set(value) | Edit::Decide { new: value, .. } => to_json(value),
        Edit::Add(delta) => json!({ "plus": to_json(delta) }),
        Edit::Items { add, remove } => json!({ "add": add, "remove": remove }),
        Edit::Append(items) => json!({ "append": items }),
        Edit::Members(members) => {
            let paths = members.iter().map(|member| json!(member.path));
            json!({ "paths": paths.collect::<Vec<_>>() })
        }
    }
}

/// The first 16 bytes in the canonical form of a UUID.
fn uuid(bytes: &[u8; 32]) -> String {
    let hex: String = bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
