//! The server's rows at one moment, and who may see which, told without the engine's rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use rusqlite::Connection;
use syncline_core::{RowKey, TableNumber, Value};
use syncline_store::Context;

use crate::{
    given::Live,
    rows::{Reader, RowName, Rows, Values, literal, literal_key},
    schema::{RuleSet, Setup, Who},
    subject::App,
};

/// The server's rows at one moment, with their owners.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    pub(crate) rows: Rows,
    owners: BTreeMap<RowName, Rc<str>>,
    setup: Setup,
    /// For the rules of an app of which nothing else is known.
    live: Option<Rc<(Live, Arc<Context>)>>,
    numbers: Rc<BTreeMap<TableNumber, &'static str>>,
}

impl Truth {
    pub(crate) fn read(
        reader: &mut Reader,
        conn: &Connection,
        app: &App,
        numbers: &Rc<BTreeMap<TableNumber, &'static str>>,
        setup: Setup,
        context: &Arc<Context>,
    ) -> anyhow::Result<Self> {
        let rows = reader.read(conn, app.tables())?;
        let live = match app.is_own() {
            true => None,
            false => Some(Rc::new((Live::read(conn, context)?, Arc::clone(context)))),
        };
        let mut owners = Vec::new();
        let sql = "SELECT table_no, key, owner FROM syncline_rows WHERE deleted = 0";
        let mut statement = conn.prepare_cached(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let owner = row.get_ref(2)?.as_str_or_null()?;
            if let (Some(table), Some(owner)) = (numbers.get(&TableNumber(row.get(0)?)), owner) {
                let key = reader.key(row.get_ref(1)?.as_blob()?)?;
                owners.push(((*table, key), reader.text(owner)));
            }
        }
        Ok(Self {
            rows,
            owners: owners.into_iter().collect(),
            setup,
            live,
            numbers: Rc::clone(numbers),
        })
    }

    /// Whether one row is among [`Truth::visible`].
    pub(crate) fn sees(&self, who: Who<'_>, name: &RowName) -> bool {
        let row = self.rows.get(name);
        row.is_some_and(|values| Sight::new(self, who).sees(name, values))
    }

    /// Whether the user owns a project or is a member of it, which is who may write below it.
    pub(crate) fn sees_project(&self, user: &str, id: &str) -> bool {
        let me = literal(&Value::Text(user.to_owned()));
        let owner = self.owner(&("projects", id.into()));
        owner.is_some_and(|owner| owner == user)
            || self
                .of("members")
                .any(|(_, values)| values[0] == id && values[1] == me)
    }

    /// The rows of one table.
    fn of(&self, table: &'static str) -> impl Iterator<Item = (&RowName, &Values)> {
        let rows = self.rows.range((table, Rc::from(""))..);
        rows.take_while(move |((at, _), _)| *at == table)
    }

    /// Who inserted the row.
    pub(crate) fn owner(&self, name: &RowName) -> Option<&str> {
        self.owners.get(name).map(|owner| &**owner)
    }

    pub(crate) fn live(&self) -> Option<(&Live, &Context)> {
        let (live, context) = &**self.live.as_ref()?;
        Some((live, context))
    }

    pub(crate) fn name(&self, table: TableNumber, key: &RowKey) -> Option<RowName> {
        Some((self.numbers.get(&table)?, literal_key(key).into()))
    }

    /// The rows that `who` may see, from the words of the configuration and the rows alone.
    pub(crate) fn visible(&self, who: Who<'_>) -> Rows {
        let sight = Sight::new(self, who);
        let rows = self.rows.iter();
        let seen = rows.filter(|(name, values)| sight.sees(name, values));
        seen.map(|(name, values)| (name.clone(), Rc::clone(values)))
            .collect()
    }
}

/// What somebody may see at a moment: what the rules of other tables ask for, found once.
struct Sight<'a> {
    truth: &'a Truth,
    user: &'a str,
    /// As an SQL literal.
    me: String,
    projects: BTreeSet<&'a str>,
    notes: BTreeSet<&'a str>,
}

impl<'a> Sight<'a> {
    fn new(truth: &'a Truth, who: Who<'a>) -> Self {
        let user = who.user;
        let me = literal(&Value::Text(user.to_owned()));
        let team = literal(&Value::Text(who.team.to_owned()));
        let owns = |name: &RowName| truth.owner(name) == Some(user);
        let shared: BTreeSet<&str> = truth
            .of("members")
            .filter(|(_, values)| values[1] == me)
            .map(|(_, values)| &*values[0])
            .collect();
        let projects = truth
            .of("projects")
            .map(|(name, _)| name)
            .filter(|name| owns(name) || shared.contains(&*name.1))
            .map(|name| &*name.1)
            .collect();
        let notes = truth
            .of("notes")
            .filter(|(name, values)| owns(name) || values[1] == "1" || values[2] == team)
            .map(|(name, _)| &*name.1)
            .collect();
        Self {
            truth,
            user,
            me,
            projects,
            notes,
        }
    }

    fn sees(&self, name: &RowName, values: &[String]) -> bool {
        let owns = || self.truth.owner(name) == Some(self.user);
        match name.0 {
            "projects" => self.projects.contains(&*name.1),
            "members" => values[1] == self.me || self.projects.contains(&*values[0]),
            "tasks" | "files" => self.projects.contains(&*values[0]),
            "notes" => self.notes.contains(&*name.1),
            "note_lines" => name
                .1
                .split_once(',')
                .is_some_and(|(note, _)| self.notes.contains(note)),
            "letters" => owns() || values[0] == self.me,
            "docs" => self.truth.setup.rules == RuleSet::Open || owns() || values[3] == "1",
            _ => true,
        }
    }
}
