//! The movies of `vega-datasets` as a SQLite file, for tests and the demo: an ordinary database
//! of an ordinary app, with nothing of Syncline in it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::Value as Json;

const SCHEMA: &str = "
CREATE TABLE movies (
    id                     TEXT PRIMARY KEY NOT NULL,
    title                  TEXT NOT NULL,
    release_date           TEXT,
    mpaa_rating            TEXT,
    running_time_min       INTEGER,
    distributor            TEXT,
    source                 TEXT,
    major_genre            TEXT,
    creative_type          TEXT,
    director               TEXT,
    production_budget      INTEGER,
    us_gross               INTEGER,
    worldwide_gross        INTEGER,
    us_dvd_sales           INTEGER,
    rotten_tomatoes_rating INTEGER,
    imdb_rating            REAL,
    imdb_votes             INTEGER
);
CREATE INDEX movies_by_title ON movies (title);
";

const INSERT: &str =
    "INSERT INTO movies VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)";

/// The names in the data of the columns after `id`, in the table's order.
const FIELDS: [(&str, Kind); 16] = [
    ("Title", Kind::Title),
    ("Release Date", Kind::Date),
    ("MPAA Rating", Kind::Text),
    ("Running Time min", Kind::Integer),
    ("Distributor", Kind::Text),
    ("Source", Kind::Text),
    ("Major Genre", Kind::Text),
    ("Creative Type", Kind::Text),
    ("Director", Kind::Text),
    ("Production Budget", Kind::Integer),
    ("US Gross", Kind::Integer),
    ("Worldwide Gross", Kind::Integer),
    ("US DVD Sales", Kind::Integer),
    ("Rotten Tomatoes Rating", Kind::Integer),
    ("IMDB Rating", Kind::Real),
    ("IMDB Votes", Kind::Integer),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Text; numbers (the movie "1776") are written as text, a missing one as `Untitled`.
    Title,
    Text,
    /// `Jun 12 1998`, written as `1998-06-12`.
    Date,
    Integer,
    Real,
}

/// Writes the movies of the JSON file `from` into the new SQLite file `out` and returns how many.
///
/// The same input gives the same rows: a movie's id is made from its place and its content.
pub(crate) fn convert(from: &Path, out: &Path) -> Result<usize> {
    ensure!(
        !out.exists(),
        "{} exists already: name a new file",
        out.display()
    );
    let text = fs::read_to_string(from)
        .with_context(|| format!("read {} (scripts/fetch-testdata gets it)", from.display()))?;
    let movies: Vec<Json> =
        serde_json::from_str(&text).with_context(|| format!("read {} as JSON", from.display()))?;

    let mut db = Connection::open(out).with_context(|| format!("create {}", out.display()))?;
    db.execute_batch(SCHEMA)?;
    let transaction = db.transaction()?;
    {
        let mut insert = transaction.prepare(INSERT)?;
        for (index, movie) in movies.iter().enumerate() {
            let mut row = vec![Sql::Text(id(index, movie))];
            for (field, kind) in FIELDS {
                row.push(
                    value(&movie[field], kind).with_context(|| format!("{field} of {movie}"))?,
                );
            }
            insert.execute(rusqlite::params_from_iter(row))?;
        }
    }
    transaction.commit()?;
    Ok(movies.len())
}

/// A UUID of version 8 (made by a rule of one's own) from the movie's place and content.
fn id(index: usize, movie: &Json) -> String {
    let hash = blake3::hash(format!("{index} {movie}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn value(json: &Json, kind: Kind) -> Result<Sql> {
    Ok(match (kind, json) {
        (Kind::Title, Json::Null) => Sql::Text("Untitled".into()),
        (_, Json::Null) => Sql::Null,
        (Kind::Title, Json::Number(number)) => Sql::Text(number.to_string()),
        (Kind::Title | Kind::Text, Json::String(text)) => Sql::Text(text.clone()),
        (Kind::Date, Json::String(text)) => Sql::Text(date(text)?),
        (Kind::Integer, json) => Sql::Integer(json.as_i64().context("expected an integer")?),
        (Kind::Real, json) => Sql::Real(json.as_f64().context("expected a number")?),
        (Kind::Title | Kind::Text | Kind::Date, json) => bail!("expected text, found {json}"),
    })
}

fn date(text: &str) -> Result<String> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = text.split(' ');
    let (Some(month), Some(day), Some(year), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        bail!("expected a date like 'Jun 12 1998', found '{text}'");
    };
    let month = MONTHS
        .iter()
        .position(|name| *name == month)
        .context("expected a month")?
        + 1;
    let (year, day): (u16, u8) = (year.parse()?, day.parse()?);
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"[
        {"Title": 1776, "Release Date": "Nov 09 1972", "US Gross": 0, "IMDB Rating": 7},
        {"Title": null, "Release Date": "Jan 01 2025", "Director": "King Vidor"}
    ]"#;

    #[test]
    fn movies_become_typed_rows_with_stable_ids() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("movies.json");
        fs::write(&from, TWO).unwrap();

        let read = |name: &str| {
            let out = dir.path().join(name);
            assert_eq!(convert(&from, &out).unwrap(), 2);
            let db = Connection::open(&out).unwrap();
            let mut rows = db
                .prepare(
                    "SELECT id, title || '|' || release_date || '|' || typeof(us_gross) || '|' ||
                            typeof(imdb_rating) || '|' || ifnull(director, '-')
                     FROM movies ORDER BY release_date",
                )
                .unwrap();
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .collect::<rusqlite::Result<Vec<(String, String)>>>()
                .unwrap()
        };
        let first = read("a.db");
        assert_eq!(first[0].1, "1776|1972-11-09|integer|real|-");
        assert_eq!(first[1].1, "Untitled|2025-01-01|null|null|King Vidor");
        assert_eq!(
            &first[0].0[14..15],
            "8",
            "a UUID of version 8: {}",
            first[0].0
        );
        assert_ne!(first[0].0, first[1].0);
        assert_eq!(first, read("b.db"));
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("mine.db");
        fs::write(&out, "mine").unwrap();
        let error = convert(&dir.path().join("movies.json"), &out).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "mine");
    }
}
