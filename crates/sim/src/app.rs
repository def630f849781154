//! What apps and other programs do to the rows, in SQL.

mod bound;
pub(crate) mod demand;

use rusqlite::Connection;

use crate::{rng::Rng, schema::has_effort};

pub(crate) const USERS: &[&str] = &["ann", "bob", "cyd"];
/// So few that people meet in the same rows.
pub(crate) const BOARDS: u64 = 4;

/// Rows of [`Author::bulk`] above which the next one removes them.
const BULK_ROWS_ENOUGH: i64 = 4_000;

/// One transaction, ready to be run.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) statements: Vec<String>,
    /// Its changes have to stay together: its end is marked for the engine.
    pub(crate) is_marked: bool,
    /// All of it or nothing: what adds up would not otherwise.
    pub(crate) is_whole: bool,
    /// The row of `steps` that it inserts.
    pub(crate) step: Option<String>,
}

/// Writes scripts for one program.
pub(crate) struct Author<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) rng: &'a mut Rng,
    /// What ids and texts of this program begin with.
    pub(crate) name: &'a str,
    pub(crate) next_id: &'a mut u64,
}

impl Author<'_> {
    /// What somebody does next. `on_demand`: there are tables on demand.
    pub(crate) fn script(&mut self, on_demand: bool) -> rusqlite::Result<Script> {
        let mut script = self.any_script()?;
        if !on_demand {
            return Ok(script);
        }
        // Who reads the news misses no step.
        if let Some(step) = &script.step {
            let news = format!("INSERT INTO news VALUES ('{step}', '{}')", self.name);
            script.statements.push(news);
        } else if !script.is_whole && self.rng.percent(40) {
            script.statements.push(self.edit_on_demand()?);
        }
        Ok(script)
    }

    fn any_script(&mut self) -> rusqlite::Result<Script> {
        match self.rng.below(10) {
            0 | 1 => self.tally(),
            2 => self.pair(),
            _ => {
                let mut script = Script {
                    is_marked: self.rng.percent(30),
                    ..Script::default()
                };
                for _ in 0..=self.rng.below(4) {
                    script.statements.extend(self.edit()?);
                }
                Ok(script)
            }
        }
    }

    /// Thousands of rows at once, or all of them gone again: also as soon as there are enough, or
    /// most of a run's time would be spent on comparing them.
    pub(crate) fn bulk(&mut self) -> rusqlite::Result<Script> {
        let id = self.fresh();
        let rows = 1_900 + self.rng.below(2_500);
        let insert = format!(
            "INSERT INTO docs(id, open) WITH RECURSIVE n(i) AS \
             (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             SELECT 'bulk-{id}-' || i, 1 FROM n"
        );
        let there = "SELECT count(*) FROM docs WHERE id LIKE 'bulk%'";
        let there: i64 = self.conn.query_row(there, [], |row| row.get(0))?;
        let statement = match self.rng.below(3) == 0 || there > BULK_ROWS_ENOUGH {
            true => "DELETE FROM docs WHERE id LIKE 'bulk%'".to_owned(),
            false => insert,
        };
        Ok(Script {
            statements: vec![statement],
            is_marked: self.rng.percent(50),
            ..Script::default()
        })
    }

    /// Counts a tally up, and says so twice.
    fn tally(&mut self) -> rusqlite::Result<Script> {
        let tally = format!("'tally{}'", self.rng.below(3));
        let step = format!("step-{}", self.fresh());
        let statements = vec![
            format!("INSERT OR IGNORE INTO tallies(id) VALUES ({tally})"),
            format!(
                "UPDATE tallies SET n = n + 1, \
                 marks = json_insert(coalesce(marks, '[]'), '$[#]', '{step}') WHERE id = {tally}"
            ),
            format!("INSERT INTO steps VALUES ('{step}', {tally})"),
        ];
        Ok(Script {
            statements,
            is_marked: true,
            is_whole: true,
            step: Some(step),
        })
    }

    /// Writes or removes two rows that add up to zero.
    fn pair(&mut self) -> rusqlite::Result<Script> {
        let pair = self.rng.below(4);
        let statements = if self.rng.percent(15) {
            vec![format!("DELETE FROM pairs WHERE pair = 'pair{pair}'")]
        } else {
            let value = self.rng.below(1_000);
            [("a", ""), ("b", "-")]
                .map(|(half, sign)| {
                    format!(
                        "INSERT INTO pairs VALUES ('pair{pair}{half}', 'pair{pair}', \
                         {sign}{value}) ON CONFLICT(id) DO UPDATE SET value = excluded.value"
                    )
                })
                .to_vec()
        };
        Ok(Script {
            statements,
            is_marked: true,
            is_whole: true,
            step: None,
        })
    }

    fn edit(&mut self) -> rusqlite::Result<Vec<String>> {
        match self.rng.below(26) {
            20..=25 => self.board(),
            0..=3 => self.project(),
            4 | 5 => self.member(),
            6..=10 => self.task(),
            11 | 12 => self.note(),
            13 | 14 => self.note_line(),
            15 | 16 => self.doc(),
            _ => self.place(),
        }
    }

    fn project(&mut self) -> rusqlite::Result<Vec<String>> {
        let id = format!("'p{}'", self.rng.below(8));
        let text = self.text();
        let number = self.rng.below(50);
        let Some(some) = self.pick("projects", "id")? else {
            return Ok(vec![format!(
                "INSERT INTO projects(id, name) VALUES ({id}, '{text}')"
            )]);
        };
        let conflict = self.rng.pick(&["", " OR REPLACE", " OR IGNORE"]);
        Ok(vec![match self.rng.below(12) {
            0..=2 => format!(
                "INSERT{conflict} INTO projects(id, name, points) VALUES ({id}, '{text}', {number})"
            ),
            3 => format!("DELETE FROM projects WHERE id = {some}"),
            4 => format!("UPDATE projects SET id = {id} WHERE id = {some}"),
            5 | 6 => format!("UPDATE projects SET budget = {number} WHERE id = {some}"),
            7 | 8 => format!("UPDATE projects SET points = points + {number} WHERE id = {some}"),
            9 => format!("UPDATE projects SET name = '{text}', notes = NULL WHERE id = {some}"),
            10 => format!("UPDATE projects SET notes = coalesce(notes, '') || '{text}'"),
            _ => format!("UPDATE projects SET notes = '{text}' WHERE id = {some}"),
        }])
    }

    fn member(&mut self) -> rusqlite::Result<Vec<String>> {
        let user = *self.rng.pick(USERS);
        let id = format!("'m{}'", self.rng.below(12));
        let project = self.pick("projects", "id")?.unwrap_or("'p0'".into());
        let some = self.pick("members", "id")?;
        Ok(vec![match (self.rng.below(8), some) {
            (0 | 1, Some(some)) => format!("DELETE FROM members WHERE id = {some}"),
            (2, Some(some)) => format!("UPDATE members SET user_id = '{user}' WHERE id = {some}"),
            (3, Some(some)) => {
                format!("UPDATE members SET project_id = {project} WHERE id = {some}")
            }
            (4, _) => format!("INSERT OR REPLACE INTO members VALUES ({id}, {project}, '{user}')"),
            _ => format!("INSERT INTO members VALUES ({id}, {project}, '{user}')"),
        }])
    }

    fn task(&mut self) -> rusqlite::Result<Vec<String>> {
        let text = self.text();
        let project = self.pick("projects", "id")?.unwrap_or("'p0'".into());
        let id = format!("'t{}'", self.rng.below(30));
        let Some(some) = self.pick("tasks", "id")? else {
            return Ok(vec![format!(
                "INSERT INTO tasks(id, project_id) VALUES ({id}, {project})"
            )]);
        };
        let tag = format!("'{}'", self.rng.pick(&["red", "blue", "big", "old", "new"]));
        let tags = "(SELECT json_group_array(value) FROM (SELECT value FROM json_each(tags)";
        Ok(vec![match self.rng.below(14) {
            0 | 1 => format!(
                "INSERT INTO tasks(id, project_id, title) VALUES ({id}, {project}, '{text}') \
                 ON CONFLICT(id) DO UPDATE SET title = excluded.title"
            ),
            2 => format!(
                "INSERT OR REPLACE INTO tasks(id, project_id, title) \
                 VALUES ({id}, {project}, '{text}')"
            ),
            3 => format!("UPDATE tasks SET title = '{text}' WHERE id = {some}"),
            4 => format!("UPDATE tasks SET done = NOT coalesce(done, 0) WHERE id = {some}"),
            5 => format!("UPDATE tasks SET project_id = {project} WHERE id = {some}"),
            6 => format!("UPDATE tasks SET tags = {tags} UNION SELECT {tag})) WHERE id = {some}"),
            7 => format!("UPDATE tasks SET tags = {tags} EXCEPT SELECT {tag})) WHERE id = {some}"),
            8 | 9 => format!(
                "UPDATE tasks SET log = json_insert(coalesce(log, '[]'), '$[#]', 'l-{}') \
                 WHERE id = {some}",
                self.fresh()
            ),
            10 => format!("DELETE FROM tasks WHERE id = {some}"),
            11 => format!("UPDATE tasks SET done = 1, title = title || '!' WHERE title < '{text}'"),
            12 => format!("DELETE FROM tasks WHERE project_id = {project}"),
            _ => format!("INSERT INTO tasks(id, project_id) VALUES ({id}, {project})"),
        }])
    }

    fn note(&mut self) -> rusqlite::Result<Vec<String>> {
        let text = self.text();
        let some = self.pick("notes", "id")?;
        Ok(vec![match (self.rng.below(8), some) {
            (0, Some(some)) => format!("DELETE FROM notes WHERE id = {some}"),
            (1, Some(some)) => format!("UPDATE notes SET body = '{text}' WHERE id = {some}"),
            (2, Some(some)) => {
                format!("UPDATE notes SET shared = NOT coalesce(shared, 0) WHERE id = {some}")
            }
            (3, Some(some)) => {
                let team = self.rng.pick(&["'red'", "'blue'", "NULL"]);
                format!("UPDATE notes SET team = {team}, shared = 0 WHERE id = {some}")
            }
            (4, _) => {
                let id = self.rng.below(12);
                return Ok(vec![
                    format!("INSERT INTO notes(id, body, shared) VALUES ({id}, '{text}', 1)"),
                    format!("INSERT INTO note_lines VALUES ({id}, 0, '{text}')"),
                ]);
            }
            (5, Some(some)) => {
                let id = self.rng.below(12);
                format!("UPDATE notes SET id = {id} WHERE id = {some}")
            }
            _ => format!("INSERT INTO notes(body, shared) VALUES ('{text}', 1)"),
        }])
    }

    fn note_line(&mut self) -> rusqlite::Result<Vec<String>> {
        let text = self.text();
        let line = self.rng.below(3);
        let Some(note) = self.pick("notes", "id")? else {
            return Ok(Vec::new());
        };
        Ok(vec![match self.rng.below(6) {
            0 => format!("DELETE FROM note_lines WHERE note_id = {note}"),
            1 => format!("UPDATE note_lines SET line = line + 1 WHERE note_id = {note}"),
            2 => format!("UPDATE OR IGNORE note_lines SET note_id = {note} WHERE line = {line}"),
            _ => format!(
                "INSERT INTO note_lines VALUES ({note}, {line}, '{text}') \
                 ON CONFLICT(note_id, line) DO UPDATE SET text = excluded.text"
            ),
        }])
    }

    fn board(&mut self) -> rusqlite::Result<Vec<String>> {
        let id = format!("'b{}'", self.rng.below(BOARDS));
        let mut statements = Vec::new();
        if self.rng.percent(3) {
            statements.push(format!("DELETE FROM boards WHERE id = {id}"));
        } else {
            statements.push(format!("INSERT OR IGNORE INTO boards(id) VALUES ({id})"));
            statements.push(self.of_board(&id)?);
        }
        Ok(statements)
    }

    fn of_board(&mut self, id: &str) -> rusqlite::Result<String> {
        if has_effort(self.conn)? && self.rng.percent(30) {
            let effort = self.rng.below(1_000);
            return Ok(format!(
                "UPDATE boards SET effort = {effort} WHERE id = {id}"
            ));
        }
        let text = self.text();
        let tag = format!("'{}'", self.rng.pick(&["red", "blue", "big"]));
        let tags = "(SELECT json_group_array(value) FROM (SELECT value FROM json_each(tags)";
        let set = match self.rng.below(14) {
            0..=4 => format!("title = '{text}'"),
            5 => format!("stage = '{text}'"),
            6 => format!("colour = '{text}'"),
            7 | 8 => format!("tags = {tags} UNION SELECT {tag}))"),
            9 | 10 => format!("tags = {tags} EXCEPT SELECT {tag}))"),
            _ => format!("votes = votes + {}", 1 + self.rng.below(9)),
        };
        Ok(format!("UPDATE boards SET {set} WHERE id = {id}"))
    }

    /// What somebody writes just when others write the same row.
    pub(crate) fn duel(&mut self, board: u64) -> rusqlite::Result<Script> {
        Ok(Script {
            statements: vec![self.of_board(&format!("'b{board}'"))?],
            ..Script::default()
        })
    }

    fn doc(&mut self) -> rusqlite::Result<Vec<String>> {
        let text = self.text();
        let id = format!("'d{}'", self.rng.below(8));
        let title = self
            .rng
            .pick(&["'One'", "'one'", "'Two'", "'Three'", "'three'", "NULL"]);
        let Some(some) = self.pick("docs", "id")? else {
            return Ok(vec![format!(
                "INSERT INTO docs(id, body) VALUES ({id}, '{{}}')"
            )]);
        };
        let member = self.rng.pick(&["a", "b", "c.d", "c.e"]);
        Ok(vec![match self.rng.below(12) {
            0 | 1 => format!("INSERT INTO docs(id, title) VALUES ({id}, {title})"),
            2 => format!("INSERT OR REPLACE INTO docs(id, title) VALUES ({id}, {title})"),
            3 => format!("DELETE FROM docs WHERE id = {some}"),
            4 => format!("UPDATE docs SET title = {title} WHERE id = {some}"),
            5 => format!("UPDATE docs SET size = size + 0.5 WHERE id = {some}"),
            6 => format!("UPDATE docs SET open = NOT coalesce(open, 0) WHERE id = {some}"),
            7 => {
                format!("UPDATE docs SET body = json_remove(body, '$.{member}') WHERE id = {some}")
            }
            8 => format!("UPDATE OR REPLACE docs SET title = {title} WHERE id = {some}"),
            _ => format!(
                "UPDATE docs SET body = json_set(coalesce(body, '{{\"c\":{{}}}}'), '$.{member}', \
                 '{text}') WHERE id = {some}"
            ),
        }])
    }

    fn place(&mut self) -> rusqlite::Result<Vec<String>> {
        let id = format!("'s{}'", self.rng.below(8));
        let place = self.rng.below(6);
        let Some(some) = self.pick("places", "id")? else {
            return Ok(vec![format!("INSERT INTO places VALUES ({id}, {place})")]);
        };
        let other = self.pick("places", "id")?.unwrap_or_default();
        Ok(match self.rng.below(9) {
            0 | 1 => vec![format!("INSERT INTO places VALUES ({id}, {place})")],
            2 => vec![format!(
                "INSERT OR REPLACE INTO places VALUES ({id}, {place})"
            )],
            3 => vec![format!("DELETE FROM places WHERE id = {some}")],
            4 => vec![format!(
                "UPDATE OR REPLACE places SET place = {place} WHERE id = {some}"
            )],
            5 => vec![format!("UPDATE places SET place = NULL WHERE id = {some}")],
            // Two rows trade places.
            6 | 7 => vec![
                format!("CREATE TEMP TABLE IF NOT EXISTS trade AS SELECT id, place FROM places"),
                format!("DELETE FROM trade"),
                format!("INSERT INTO trade SELECT id, place FROM places"),
                format!("UPDATE places SET place = NULL WHERE id IN ({some}, {other})"),
                format!(
                    "UPDATE places SET place = (SELECT place FROM trade WHERE id = {other}) \
                     WHERE id = {some} AND {some} <> {other}"
                ),
                format!(
                    "UPDATE places SET place = (SELECT place FROM trade WHERE id = {some}) \
                     WHERE id = {other} AND {some} <> {other}"
                ),
            ],
            _ => vec![format!(
                "UPDATE places SET place = {place} WHERE id = {some}"
            )],
        })
    }

    /// A row's column as a literal.
    fn pick(&mut self, table: &str, column: &str) -> rusqlite::Result<Option<String>> {
        let sql = format!("SELECT quote({column}) FROM {table} ORDER BY 1");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let found: Vec<String> = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok((!found.is_empty()).then(|| self.rng.pick(&found).clone()))
    }

    fn text(&mut self) -> String {
        format!("{}{}", self.name, self.rng.below(100))
    }

    /// A name that nothing else has.
    fn fresh(&mut self) -> String {
        *self.next_id += 1;
        format!("{}-{}", self.name, self.next_id)
    }
}

/// Runs a script as one transaction; a statement that fails leaves the rest as it is. Whether it
/// was committed.
pub(crate) fn run(conn: &Connection, script: &Script, rng: &mut Rng) -> rusqlite::Result<bool> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut all = true;
    for sql in &script.statements {
        let has_savepoint = rng.percent(10);
        if has_savepoint {
            conn.execute_batch("SAVEPOINT trial")?;
        }
        all &= bound::execute(conn, sql).is_ok();
        if has_savepoint {
            let undo = !script.is_whole && rng.percent(50);
            let end = if undo {
                "ROLLBACK TO trial; RELEASE trial"
            } else {
                "RELEASE trial"
            };
            conn.execute_batch(end)?;
        }
        if conn.is_autocommit() {
            return Ok(false);
        }
    }
    if (script.is_whole && !all) || rng.percent(4) {
        conn.execute_batch("ROLLBACK")?;
        return Ok(false);
    }
    let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'syncline_tx'";
    let is_known = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    if script.is_marked && conn.prepare_cached(known)?.query_row([], is_known)? > 0 {
        conn.execute_batch("UPDATE syncline_tx SET n = n + 1")?;
    }
    if conn.prepare_cached("COMMIT")?.execute([]).is_err() {
        conn.execute_batch("ROLLBACK")?;
        return Ok(false);
    }
    Ok(true)
}
