//! What other programs do.

use syncline_core::Value;

/// One statement of another program, which knows names only.
#[derive(Debug, Clone, PartialEq)]
pub enum External<'a> {
    Insert {
        table: &'a str,
        values: Vec<(&'a str, Value)>,
    },
    /// Of the row with these key values, by column.
    Update {
        table: &'a str,
        key: Vec<(&'a str, Value)>,
        set: Vec<(&'a str, Value)>,
    },
    Delete {
        table: &'a str,
        key: Vec<(&'a str, Value)>,
    },
}

impl External<'_> {
    /// The statement in SQL with `?1`, `?2`, … and the values for them.
    #[must_use]
    pub fn sql(&self) -> (String, Vec<Value>) {
        let mut parameters = Vec::new();
        let mut list = |pairs: &[(&str, Value)], separator: &str| {
            let mut text = String::new();
            for (name, value) in pairs {
                if !text.is_empty() {
                    text.push_str(separator);
                }
                parameters.push(value.clone());
                text.push_str(&format!("\"{name}\" = ?{}", parameters.len()));
            }
            text
        };
        let sql = match self {
            Self::Insert { table, values } => {
                let names: Vec<_> = values
                    .iter()
                    .map(|(name, _)| format!("\"{name}\""))
                    .collect();
                let places: Vec<_> = (1..=values.len()).map(|n| format!("?{n}")).collect();
                parameters.extend(values.iter().map(|(_, value)| value.clone()));
                let (names, places) = (names.join(", "), places.join(", "));
                format!("INSERT INTO \"{table}\" ({names}) VALUES ({places})")
            }
            Self::Update { table, key, set } => {
                let set = list(set, ", ");
                format!("UPDATE \"{table}\" SET {set} WHERE {}", list(key, " AND "))
            }
            Self::Delete { table, key } => {
                format!("DELETE FROM \"{table}\" WHERE {}", list(key, " AND "))
            }
        };
        (sql, parameters)
    }
}
