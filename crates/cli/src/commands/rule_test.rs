//! `syncline test`: lines of who may do what with which row, judged by the rules.

mod file;

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use syncline_core::{
    Row, RowKey, UserId, Value, Version,
    ids::TableNumber,
    rules::{Action, Facts, Given, Identity, Proposed, Rules, Stored, Verdict},
    schema::{Schema, Table},
};
use syncline_server::net::explain::{key_of_texts, named, values_of_json, verdict_json};
use syncline_store::inspect;

use self::file::{Change, File, Line};
use super::{
    explain::{Data, sentence, table_of},
    runtime,
};
use crate::{
    args::Test,
    exit::{Exit, Failure},
    output::{Output, counted},
};

/// Where the rows are that lines are about.
enum Source {
    Given(Given),
    Data(Box<Data>),
}

pub(crate) fn run(args: &Test, output: &Output) -> anyhow::Result<Exit> {
    let name = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::new(Exit::NotFound, format!("{name} cannot be read: {error}")))?;
    let file: File = toml::from_str(&text)
        .map_err(|error| Failure::new(Exit::Usage, format!("{name}: {error}")))?;
    let (schema, rules, mut source) = match &file.rows {
        Some(rows) => {
            let schema = declared(args)?;
            let rules = Rules::compile(&schema, &[0; 32]).map_err(|errors| {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Failure::new(Exit::Config, errors.join("\n"))
            })?;
            let mut given = Given::default();
            for (table, rows) in rows {
                let table = table_of(&schema, table)?;
                for row in rows {
                    let row = stored(table, row, None).map_err(|sentence| {
                        mistake(&name, &format!("rows.{}: {sentence}", table.name))
                    })?;
                    given.put(row);
                }
            }
            (schema, rules, Source::Given(given))
        }
        None => {
            let data = Data::open(&args.data, output)?;
            let (schema, rules) = (data.beside.schema.clone(), data.rules.clone());
            (schema, rules, Source::Data(Box::new(data)))
        }
    };
    let runtime = runtime()?;
    let (mut lines, mut failed) = (0_u64, 0_u64);
    for spanned in &file.tests {
        let at = 1 + text[..spanned.span().start].matches('\n').count();
        let line = spanned.get_ref();
        let case = Case::new(&schema, &rules, &file, line)
            .map_err(|sentence| mistake(&name, &format!("line {at}: {sentence}")))?;
        for (action, expected) in line.expectations() {
            lines += 1;
            let outcome = match &mut source {
                Source::Given(given) => case
                    .outcome(action, given)
                    .unwrap_or_else(|never| match never {}),
                Source::Data(data) => runtime.block_on(async {
                    let reader = &mut data.beside.reader;
                    inspect(reader, |facts| case.outcome(action, facts)).await
                })?,
            };
            let outcome =
                outcome.map_err(|sentence| mistake(&name, &format!("line {at}: {sentence}")))?;
            if outcome.verdict.allowed != expected {
                failed += 1;
                tell(&name, at, &case, action, expected, &outcome, output);
            }
        }
    }
    let sentence = match failed {
        0 => format!("{}: as it should be", counted(lines, "line")),
        _ => format!("{}, {failed} not as they should be", counted(lines, "line")),
    };
    output.result(
        &sentence,
        &json!({ "type": "rules_tested", "lines": lines, "failed": failed }),
    );
    Ok(if failed == 0 {
        Exit::Done
    } else {
        Exit::Differs
    })
}

/// The tables of the configuration, numbered: without a server's data they have no numbers yet.
fn declared(args: &Test) -> anyhow::Result<Schema> {
    let mut schema = args.data.settings().read()?.schema;
    for (number, table) in (100..).zip(&mut schema.tables) {
        table.number = TableNumber(number);
        if table.columns.is_empty() {
            let sentence = format!(
                "tables.{} is taken from the database as it is: leave [rows] out of the file, and \
                 its rows are looked at there",
                table.name
            );
            return Err(Failure::new(Exit::Config, sentence).into());
        }
    }
    Ok(schema)
}

/// One line, read.
struct Case<'a> {
    schema: &'a Schema,
    rules: &'a Rules,
    identity: Identity,
    who: String,
    table: &'a Table,
    key: RowKey,
    line: &'a Line,
    /// A row to be created, and what else is created in the same changeset.
    creates: Vec<Stored>,
    set: Vec<(usize, Value)>,
}

struct Outcome {
    verdict: Verdict,
    row: String,
}

impl<'a> Case<'a> {
    fn new(
        schema: &'a Schema,
        rules: &'a Rules,
        file: &File,
        line: &'a Line,
    ) -> Result<Self, String> {
        let table = find(schema, &line.table)?;
        let user = line.user.clone().map(UserId);
        let mut claims: BTreeMap<String, Json> = BTreeMap::new();
        if let Some(known) = line.user.as_ref().and_then(|user| file.users.get(user)) {
            claims.extend(known.clone());
        }
        claims.extend(line.claims.clone());
        let identity = Identity { user, claims };
        let mut creates = Vec::new();
        if let Some(row) = &line.row {
            creates.push(made(rules, &identity, table, row)?);
        }
        for Change { table, row } in &line.with {
            creates.push(made(rules, &identity, find(schema, table)?, row)?);
        }
        let key = match (&line.id, &line.row) {
            (Some(id), _) => key_of_texts(table, &id.texts())?,
            (None, Some(_)) => creates[0].key.clone(),
            (None, None) => {
                return Err("`id` names the row, or `row` is what is created".to_owned());
            }
        };
        Ok(Self {
            schema,
            rules,
            who: line
                .user
                .clone()
                .unwrap_or_else(|| "somebody who has not signed in".to_owned()),
            set: values_of_json(table, &line.set)?,
            identity,
            table,
            key,
            line,
            creates,
        })
    }

    /// The inner error is a sentence for whoever wrote the line.
    fn outcome<F: Facts>(
        &self,
        action: Action,
        facts: &F,
    ) -> Result<Result<Outcome, String>, F::Missing> {
        let before = facts.stored(self.table.number, &self.key)?;
        let mut changes = match (action, before) {
            (Action::Create, _) if self.line.row.is_none() => {
                return Ok(Err("`row` says what is created".to_owned()));
            }
            (Action::Create, None) => Vec::new(),
            (Action::Create, Some(_)) => {
                return Ok(Err(format!(
                    "{} is there already",
                    named(self.table, &self.key)
                )));
            }
            (_, None) => return Ok(Err(format!("there is no {}", named(self.table, &self.key)))),
            (Action::Update, Some(before)) => {
                let after = Some(self.changed(&before));
                vec![Proposed {
                    before: Some(before),
                    after,
                }]
            }
            (Action::Read | Action::Delete, before) => vec![Proposed {
                before,
                after: None,
            }],
        };
        let own = usize::from(self.line.row.is_some() && action != Action::Create);
        let creates = self
            .creates
            .iter()
            .skip(own)
            .filter(|_| action != Action::Read);
        changes.extend(creates.map(|row| Proposed {
            before: None,
            after: Some(row.clone()),
        }));
        let (mut at, mut action) = (0, action);
        let mut is_admitted = false;
        if changes.len() > 1 {
            match self.rules.admit(&self.identity, &changes, facts)? {
                Ok(()) => is_admitted = true,
                Err(refused) => at = refused,
            }
        }
        let change = &changes[at];
        if at > 0 {
            action = Action::Create;
        }
        let mut verdict = self
            .rules
            .explain(self.schema, &self.identity, action, change, facts)?;
        // What is admitted together may need what it brings along.
        verdict.allowed |= is_admitted;
        let row = change.after.as_ref().or(change.before.as_ref());
        let row = row.and_then(|row| Some(named(self.schema.by_number(row.table)?, &row.key)));
        Ok(Ok(Outcome {
            verdict,
            row: row.unwrap_or_default(),
        }))
    }

    fn changed(&self, before: &Stored) -> Stored {
        let mut after = before.clone();
        let forced = self.rules.forced(&self.identity, self.table.number);
        // As the server does it: an update that sets nothing has nothing forced.
        let forced = forced.into_iter().filter(|_| !self.set.is_empty());
        for (position, value) in self.set.iter().cloned().chain(forced) {
            after.row.0[position] = value;
        }
        after
    }
}

fn find<'s>(schema: &'s Schema, name: &str) -> Result<&'s Table, String> {
    let found = schema.table(name);
    found.ok_or_else(|| format!("there is no table {name}"))
}

/// A row that `identity` inserts.
fn made(
    rules: &Rules,
    identity: &Identity,
    table: &Table,
    row: &serde_json::Map<String, Json>,
) -> Result<Stored, String> {
    let mut row = stored(table, row, Some(identity))?;
    for (position, value) in rules.forced(identity, table.number) {
        row.row.0[position] = value;
    }
    row.key = row.row.key(table).map_err(|error| error.to_string())?;
    Ok(row)
}

/// A row by the names of its columns, and `_owner`; columns that are left out are NULL.
fn stored(
    table: &Table,
    named: &serde_json::Map<String, Json>,
    maker: Option<&Identity>,
) -> Result<Stored, String> {
    let mut named = named.clone();
    let owner = match (named.remove("_owner"), maker) {
        (None, maker) => maker.and_then(|identity| identity.user.clone()),
        (Some(Json::String(owner)), None) => Some(UserId(owner)),
        (Some(_), None) => return Err("_owner is the name of a user".to_owned()),
        (Some(_), Some(_)) => return Err("_owner is set by the server".to_owned()),
    };
    let mut row = Row(vec![Value::Null; table.columns.len()]);
    for (position, value) in values_of_json(table, &named)? {
        row.0[position] = value;
    }
    Ok(Stored {
        table: table.number,
        key: row.key(table).map_err(|error| error.to_string())?,
        row,
        author: owner.clone(),
        owner,
        created: Version(1),
        version: Version(1),
    })
}

fn tell(
    file: &str,
    at: usize,
    case: &Case<'_>,
    action: Action,
    expected: bool,
    outcome: &Outcome,
    output: &Output,
) {
    let wanted = if expected {
        "should be allowed"
    } else {
        "should be refused"
    };
    let told = sentence(&case.who, action, &outcome.row, &outcome.verdict);
    let object = json!({
        "type": "rule_failed", "line": at, "user": case.identity.user.as_ref().map(|user| &user.0),
        "action": action.as_str(), "row": outcome.row, "expected": expected,
        "verdict": verdict_json(&outcome.verdict),
    });
    output.result(&format!("{file}:{at}: this {wanted}: {told}"), &object);
}

fn mistake(file: &str, sentence: &str) -> anyhow::Error {
    Failure::new(Exit::Usage, format!("{file}: {sentence}")).into()
}
