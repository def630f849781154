//! What people write in tables on demand, and what they ask for of them.

use syncline_core::Value;
use syncline_replica::{Topic, Wanted};

use super::{Author, USERS};
use crate::rng::Rng;

/// What every letter begins with: nobody but devices may read it.
pub(crate) const SECRET: &str = "secret-";

impl Author<'_> {
    pub(super) fn edit_on_demand(&mut self) -> rusqlite::Result<String> {
        let text = self.text();
        // Other programs on the server have no keys.
        let letter = match self.name {
            "server" => "NULL".to_owned(),
            _ => format!("'{SECRET}{text}'"),
        };
        Ok(match self.rng.below(3) {
            0 => {
                let project = self.pick("projects", "id")?.unwrap_or("'p0'".into());
                let id = format!("'f{}'", self.rng.below(12));
                match (self.rng.below(6), self.pick("files", "id")?) {
                    (0, Some(some)) => format!("DELETE FROM files WHERE id = {some}"),
                    (1, Some(some)) => {
                        format!("UPDATE files SET project_id = {project} WHERE id = {some}")
                    }
                    (2, Some(some)) => {
                        format!("UPDATE files SET name = '{text}' WHERE id = {some}")
                    }
                    _ => format!(
                        "INSERT INTO files VALUES ({id}, {project}, '{text}') \
                         ON CONFLICT(id) DO UPDATE SET name = excluded.name"
                    ),
                }
            }
            1 => {
                let user = *self.rng.pick(USERS);
                let id = format!("'l{}'", self.rng.below(12));
                match (self.rng.below(6), self.pick("letters", "id")?) {
                    (0, Some(some)) => format!("DELETE FROM letters WHERE id = {some}"),
                    (1, Some(some)) => {
                        format!("UPDATE letters SET receiver = '{user}' WHERE id = {some}")
                    }
                    (2, Some(some)) => {
                        format!("UPDATE letters SET body = {letter} WHERE id = {some}")
                    }
                    _ => format!("INSERT INTO letters VALUES ({id}, '{user}', {letter})"),
                }
            }
            _ => {
                let id = format!("'n{}'", self.rng.below(12));
                match self.rng.below(4) {
                    0 => format!("DELETE FROM news WHERE id = {id}"),
                    1 => format!("UPDATE news SET body = '{text}' WHERE id = {id}"),
                    _ => format!("INSERT OR REPLACE INTO news VALUES ({id}, '{text}')"),
                }
            }
        })
    }
}

/// Something to ask for, of which there may be much or nothing, seen or unseen.
pub(crate) fn topic(rng: &mut Rng) -> Topic {
    let user = Value::from(*rng.pick(USERS));
    let project = Value::from(format!("p{}", rng.below(10)));
    let of = |table: &str, what| Topic {
        table: table.to_owned(),
        what,
    };
    let value = |column: &str, value| Wanted::Value {
        column: column.to_owned(),
        value,
    };
    match rng.below(8) {
        0..=2 => of("projects", Wanted::Row(vec![project])),
        3 => of("files", value("project_id", project)),
        4 => of("letters", value("receiver", user)),
        5 => of("letters", value("_owner", user)),
        // Nothing hangs below a file.
        6 => of("files", Wanted::Row(vec![Value::from("f1")])),
        _ => of("news", Wanted::Table),
    }
}
