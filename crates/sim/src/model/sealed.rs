//! Encrypted columns: what the server has of them is compared with what an app shows.

use syncline_core::{Row, RowKey, Table, Value};
use syncline_replica::{EncryptionKey, Keyring};

use crate::{
    app::demand::SECRET,
    schema::{RowName, literal},
};

/// The table with such a column, and its place among the columns after the key.
const TABLE: &str = "letters";
const PLACE: usize = 1;

/// The two keys that every device has. `turned`: the other one seals.
pub(crate) fn keyring(turned: bool) -> Keyring {
    let [one, other] = [1, 2].map(|byte| EncryptionKey::new([byte; 32]));
    match turned {
        false => Keyring::new(&one, &[other]),
        true => Keyring::new(&other, &[one]),
    }
}

/// Whether a frame says something that only devices may know.
pub(crate) fn tells_secret(frame: &[u8]) -> bool {
    let secret = SECRET.as_bytes();
    frame.windows(secret.len()).any(|found| found == secret)
}

/// The row of an app as the server has it, if one of the keys sealed it so; else as it is.
pub(crate) fn sealed_as(
    table: Option<&Table>,
    name: &RowName,
    found: &[String],
    expected: &[String],
) -> Vec<String> {
    let mut found = found.to_vec();
    let Some(table) = table.filter(|_| name.0 == TABLE) else {
        return found;
    };
    let [id, body] = [&name.1, &found[PLACE]].map(|text| Value::from(text.trim_matches('\'')));
    let Ok(key) = RowKey::encode([&id]) else {
        return found;
    };
    for turned in [false, true] {
        let row = Row(vec![id.clone(), Value::Null, body.clone()]);
        let sealed = keyring(turned).seal_row(table, &key, row);
        let sealed = sealed.map(|row| literal(&row.0[1 + PLACE]));
        if sealed.as_ref() == Some(&expected[PLACE]) {
            found[PLACE].clone_from(&expected[PLACE]);
        }
    }
    found
}
