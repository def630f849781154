//! What people write on their devices, allowed or not, and other programs at the server.

use rusqlite::Connection;

/// A small generator: the same number gives the same edits of the same rows.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 17) % end.max(1)
    }
}

/// The id of some row; one that does not exist where the table is empty.
fn any(conn: &Connection, table: &str, dice: &mut Dice) -> String {
    let count: i64 = conn
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })
        .expect("a count");
    let sql = format!(
        "SELECT id FROM {table} ORDER BY id LIMIT 1 OFFSET {}",
        dice.below(count.unsigned_abs())
    );
    conn.query_row(&sql, [], |row| row.get(0))
        .unwrap_or_else(|_| "none".to_owned())
}

/// One change of one person, as an app makes it: what a constraint forbids does not happen, what a
/// rule forbids the server refuses.
pub(super) fn edit(conn: &Connection, user: &str, dice: &mut Dice, people: usize, n: usize) {
    let other = super::user(usize::try_from(dice.below(people as u64)).expect("small"));
    let org = any(conn, "orgs", dice);
    let project = any(conn, "projects", dice);
    let region = ["'north'", "'south'", "NULL"][usize::try_from(dice.below(3)).expect("small")];
    let role = ["admin", "reader"][usize::try_from(dice.below(2)).expect("small")];
    let statement = match dice.below(20) {
        // An organisation with its maker's first project, in one transaction.
        0 => format!(
            "BEGIN IMMEDIATE;
             INSERT INTO orgs VALUES ('o{n}', 'of {user}');
             INSERT INTO projects VALUES ('p{n}', 'o{n}', 'first', 0);
             INSERT INTO org_members VALUES ('m{n}', 'o{n}', '{other}', '{role}');
             COMMIT"
        ),
        1 | 2 => format!("INSERT INTO org_members VALUES ('m{n}', '{org}', '{other}', '{role}')"),
        3 => format!(
            "DELETE FROM org_members WHERE id = '{}'",
            any(conn, "org_members", dice)
        ),
        4 => format!(
            "UPDATE org_members SET role = '{role}', user_id = '{other}' WHERE id = '{}'",
            any(conn, "org_members", dice)
        ),
        5 => format!(
            "INSERT INTO projects VALUES ('p{n}', '{org}', 'by {user}', {})",
            n % 5 / 4
        ),
        6 => format!("UPDATE projects SET org_id = '{org}' WHERE id = '{project}'"),
        7 => format!("UPDATE projects SET secret = NOT secret WHERE id = '{project}'"),
        8..=10 => format!("INSERT INTO tasks VALUES ('t{n}', '{project}', NULL, 'by {user}', {n})"),
        11 => format!(
            "UPDATE tasks SET assignee = '{other}' WHERE id = '{}'",
            any(conn, "tasks", dice)
        ),
        12 => format!(
            "UPDATE tasks SET points = points + {n}, title = 'seen by {user}' WHERE id = '{}'",
            any(conn, "tasks", dice)
        ),
        13 => format!(
            "UPDATE tasks SET project_id = '{project}' WHERE id = '{}'",
            any(conn, "tasks", dice)
        ),
        14 => format!(
            "DELETE FROM tasks WHERE id = '{}'",
            any(conn, "tasks", dice)
        ),
        15 => format!(
            "INSERT INTO notes VALUES ('n{n}', 'by {user}', {})",
            n % 3 / 2
        ),
        16 => format!(
            "UPDATE notes SET open = NOT open WHERE id = '{}'",
            any(conn, "notes", dice)
        ),
        17 => format!("INSERT INTO notices VALUES ('r{n}', {region}, 'by {user}')"),
        18 => format!(
            "UPDATE notices SET region = {region} WHERE id = '{}'",
            any(conn, "notices", dice)
        ),
        _ if dice.below(4) == 0 => {
            format!("PRAGMA foreign_keys = ON; DELETE FROM orgs WHERE id = '{org}'")
        }
        _ => format!("DELETE FROM projects WHERE id = '{project}'"),
    };
    write(conn, &statement);
}

/// The same by a program that writes the server's database.
pub(super) fn edit_on_server(conn: &Connection, dice: &mut Dice, people: usize, n: usize) {
    let other = super::user(usize::try_from(dice.below(people as u64)).expect("small"));
    let org = any(conn, "orgs", dice);
    let project = any(conn, "projects", dice);
    let statement = match dice.below(8) {
        0 => format!("INSERT INTO orgs VALUES ('o{n}', 'of nobody')"),
        1 => format!("INSERT INTO org_members VALUES ('m{n}', '{org}', '{other}', 'admin')"),
        2 => format!(
            "DELETE FROM org_members WHERE id = '{}'",
            any(conn, "org_members", dice)
        ),
        3 => format!("INSERT INTO projects VALUES ('p{n}', '{org}', 'of nobody', 0)"),
        4 => format!("INSERT INTO tasks VALUES ('t{n}', '{project}', '{other}', 'assigned', 0)"),
        5 => format!("UPDATE tasks SET assignee = '{other}' WHERE project_id = '{project}'"),
        6 => format!("UPDATE projects SET org_id = '{org}' WHERE id = '{project}'"),
        _ => "UPDATE notices SET region = 'north' WHERE region = 'south'".to_owned(),
    };
    conn.pragma_update(None, "foreign_keys", true)
        .expect("a setting");
    write(conn, &statement);
}

fn write(conn: &Connection, statement: &str) {
    match conn.execute_batch(statement) {
        Ok(()) => {}
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            if !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK").expect("undone");
            }
        }
        Err(error) => panic!("{statement}: {error}"),
    }
}
