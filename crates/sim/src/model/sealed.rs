//! Encrypted columns: what the server has of them is compared with what an app shows.

use syncline_core::{Row, RowKey, Table, Value};
use syncline_replica::{EncryptionKey, Keyring};

use crate::{
    app::demand::SECRET,
    rows::{RowName, agree, literal},
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

/// Whether one of the keys makes of an app's row what the server has.
pub(crate) fn agree_sealed(
    table: Option<&Table>,
    name: &RowName,
    found: &[String],
    expected: &[String],
) -> bool {
    let Some(table) = table.filter(|_| name.0 == TABLE) else {
        return false;
    };
    let [id, body] =
        [&name.1, found[PLACE].as_str()].map(|text| Value::from(text.trim_matches('\'')));
    let Ok(key) = RowKey::encode([&id]) else {
        return false;
    };
    let row = Row(vec![id, Value::Null, body]);
    [false, true].into_iter().any(|turned| {
        let sealed = keyring(turned).seal_row(table, &key, row.clone());
        sealed.is_some_and(|sealed| {
            let mut found = found.to_vec();
            found[PLACE] = literal(&sealed.0[1 + PLACE]);
            agree(&found, expected)
        })
    })
}
