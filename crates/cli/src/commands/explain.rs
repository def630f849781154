//! `syncline explain`: who can see a row, what somebody can see, and why; in a server's data,
//! which may be in use meanwhile.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use syncline_core::{
    UserId,
    builtin::FIRST_OWN,
    rules::{Action, Identity, Permitted, Rules, Verdict},
    schema::{Schema, Table},
};
use syncline_server::net::{
    accounts,
    explain::{Asked, RowPeople, TableAccess, key_of_texts, named},
};
use syncline_store::{SchemaError, accounts::transact};
use syncline_store_sqlite::{Beside, PreviewError, SqliteAccounts, beside};

use super::{runtime, serve, users};
use crate::{
    args::{DataArgs, Explain},
    dev_tables::DevTables,
    exit::{Exit, Failure},
    output::{Output, counted},
    settings::Settings,
};

/// A server's data, its tables and rules.
pub(crate) struct Data {
    pub(crate) beside: Beside,
    pub(crate) rules: Rules,
}

pub(crate) fn run(args: &Explain, output: &Output) -> anyhow::Result<Exit> {
    let mut data = Data::open(&args.data, output)?;
    let identity = identity(args)?;
    let schema = data.beside.schema.clone();
    let table = args.table.as_ref().map(|name| table_of(&schema, name));
    let table = table.transpose()?;
    let asked = Asked {
        schema: &schema,
        rules: &data.rules,
    };
    let reader = &mut data.beside.reader;
    let key = match table {
        Some(table) if !args.id.is_empty() => {
            let key = key_of_texts(table, &args.id);
            Some(key.map_err(|sentence| Failure::new(Exit::Usage, sentence))?)
        }
        Some(_) | None => None,
    };
    let gone =
        |table: &Table| Failure::new(Exit::NotFound, format!("no such row in {}", table.name));
    runtime()?.block_on(async {
        match (table, key, identity) {
            (Some(table), Some(key), None) => {
                let people = asked.people(reader, table, &key).await?;
                say_people(&people.ok_or_else(|| gone(table))?, table, output);
            }
            (Some(table), Some(key), Some((who, identity))) => {
                let access = asked.access(reader, &identity, table, &key).await?;
                let access = access.ok_or_else(|| gone(table))?;
                let name = named(table, &key);
                for (action, verdict) in &access.verdicts {
                    output.line(&sentence(&who, *action, &name, verdict));
                }
                if let Some(on_demand) = &access.on_demand {
                    output.line(&format!("    on demand: {}", on_demand.says()));
                }
                let head = json!({ "type": "row_access", "user": user(&identity) });
                output.object(&joined(head, access.to_json(table)));
            }
            (table, _, Some((who, identity))) => {
                let own = schema
                    .tables
                    .iter()
                    .filter(|table| table.number >= FIRST_OWN);
                let tables: Vec<&Table> = match table {
                    Some(table) => vec![table],
                    None => own.collect(),
                };
                let lists_rows = table.is_some();
                for table in tables {
                    let seen = |key: &_, verdict: &Verdict| {
                        let because = because(verdict);
                        let name = named(table, key);
                        if lists_rows {
                            output.result(
                                &format!("{name}\n    {}", because.join("\n    ")),
                                &json!({
                                    "type": "readable_row", "table": table.name, "row": name,
                                    "because": because,
                                }),
                            );
                        }
                    };
                    let access = asked
                        .table(reader, &identity, table, args.limit, seen)
                        .await?;
                    say_table(&who, &identity, &access, output);
                }
            }
            (_, _, None) => {
                let sentence = "name a row (TABLE ID), a user (--user), or both";
                return Err(Failure::new(Exit::Usage, sentence).into());
            }
        }
        Ok(Exit::Done)
    })
}

impl Data {
    /// Opens what `args` names, with the rules of the configuration.
    pub(crate) fn open(args: &DataArgs, output: &Output) -> anyhow::Result<Self> {
        let settings: Settings = args.settings();
        // The rules are in the file even where a folder says where the data is.
        let mut config = settings.read()?;
        let folder = Path::new(&config.server.data).to_owned();
        DevTables::in_folder(&folder).add_to(&mut config)?;
        let database = serve::database(&config, &folder);
        if !database.exists() {
            let sentence = format!(
                "there is no server's data at {} (--data names another folder)",
                database.display()
            );
            return Err(Failure::new(Exit::NotFound, sentence).into());
        }
        let beside = beside(&database, &config).map_err(|error| {
            let exit = match &error {
                PreviewError::Open(_) | PreviewError::Schema(SchemaError::Storage(_)) => {
                    Exit::ServerData
                }
                PreviewError::Schema(_) => Exit::Config,
            };
            Failure::new(exit, error.to_string())
        })?;
        for note in &beside.notes {
            let sentence = format!("a server with this configuration has not started yet: {note}");
            output.note(&sentence);
        }
        // Buckets are asked for nothing here, so no key has to be the server's.
        let rules = Rules::compile(&beside.schema, &[0; 32]).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::new(Exit::Config, errors.join("\n"))
        })?;
        Ok(Self { beside, rules })
    }
}

/// Who is asked about, and what to call them; `None` for everybody.
fn identity(args: &Explain) -> anyhow::Result<Option<(String, Identity)>> {
    let mut claims = users::named(&args.claims)?;
    if args.anonymous || (args.user.is_none() && !claims.is_empty()) {
        return Ok(Some((
            "somebody who has not signed in".to_owned(),
            Identity { user: None, claims },
        )));
    }
    let Some(name) = &args.user else {
        return Ok(None);
    };
    let mut id = name.clone();
    if let Some((account, of_account)) = account(&args.data, name)? {
        id = account;
        let given = std::mem::replace(&mut claims, of_account);
        claims.extend(given);
    }
    let identity = Identity {
        user: Some(UserId(id)),
        claims,
    };
    Ok(Some((name.clone(), identity)))
}

type Claims = BTreeMap<String, Value>;

/// The account with this address or id, and what its tokens tell rules.
fn account(data: &DataArgs, who: &str) -> anyhow::Result<Option<(String, Claims)>> {
    let config = data.settings().read_for_data()?;
    let database = serve::database(&config, Path::new(&config.server.data));
    // Data from before there were accounts has none.
    let Ok(store) = SqliteAccounts::open(&database) else {
        return Ok(None);
    };
    let named = who.trim().to_lowercase();
    let account = transact(&store, |records| {
        Ok(match records.account_of(&named)? {
            Some(account) => Some(account),
            None => records.account(who)?,
        })
    })?;
    Ok(account.map(|account| (account.id.clone(), accounts::claims_of(&account))))
}

pub(crate) fn table_of<'s>(schema: &'s Schema, name: &str) -> anyhow::Result<&'s Table> {
    schema.table(name).ok_or_else(|| {
        let own = schema
            .tables
            .iter()
            .filter(|table| table.number >= FIRST_OWN);
        let names: Vec<&str> = own.map(|table| &*table.name).take(20).collect();
        let sentence = format!("there is no table {name}: there are {}", names.join(", "));
        Failure::new(Exit::TableUnfit, sentence).into()
    })
}

fn say_people(people: &RowPeople, table: &Table, output: &Output) {
    output.line(&named(table, &people.key));
    for (action, people) in &people.people {
        let by = match action {
            Action::Read => "read",
            Action::Create => "created",
            Action::Update => "updated",
            Action::Delete => "deleted",
        };
        if people.is_empty() {
            output.line(&format!("  {by} by nobody"));
            continue;
        }
        output.line(&format!("  {by} by"));
        for Permitted {
            who, rule, through, ..
        } in people
        {
            let through: Vec<String> = through.iter().map(ToString::to_string).collect();
            let through = match &through[..] {
                [] => String::new(),
                rows => format!(", through {}", rows.join(", ")),
            };
            let rule = if rule == who {
                String::new()
            } else {
                format!(" ({rule})")
            };
            output.line(&format!("    {who}{rule}{through}"));
        }
    }
    output.object(&joined(
        json!({ "type": "row_people" }),
        people.to_json(table),
    ));
}

/// A verdict with its reasons, for people.
pub(crate) fn sentence(who: &str, action: Action, row: &str, verdict: &Verdict) -> String {
    let may = if verdict.allowed { "may" } else { "may not" };
    let because = because(verdict);
    format!(
        "{who} {may} {} {row}\n    {}",
        action.as_str(),
        because.join("\n    ")
    )
}

/// What holds, or, where nothing does, what is missing for each alternative.
fn because(verdict: &Verdict) -> Vec<String> {
    if verdict.reasons.is_empty() {
        return vec!["no rule allows it to anybody".to_owned()];
    }
    let told = verdict
        .reasons
        .iter()
        .filter(|reason| reason.holds == verdict.allowed);
    let line = |reason: &syncline_core::rules::Reason| match &reason.because[..] {
        [] => reason.rule.clone(),
        because => format!("{}: {}", reason.rule, because.join("; ")),
    };
    told.map(line).collect()
}

fn say_table(who: &str, identity: &Identity, access: &TableAccess, output: &Output) {
    let looked = if access.more {
        format!("the first {}", counted(access.rows as u64, "row"))
    } else {
        counted(access.rows as u64, "row")
    };
    let mut lines = vec![format!(
        "{}: {who} may read {} of {looked}, and update {}",
        access.table, access.readable, access.updatable
    )];
    let by = access.by.iter();
    lines.extend(by.map(|(rule, rows)| format!("    {rows} by {rule}")));
    lines.extend(access.rules.lines().map(|rule| format!("    rule: {rule}")));
    output.line(&lines.join("\n"));
    let head = json!({ "type": "table_access", "user": user(identity) });
    output.object(&joined(head, access.to_json()));
}

fn user(identity: &Identity) -> Option<&str> {
    identity.user.as_ref().map(|user| user.0.as_str())
}

/// The members of both objects.
fn joined(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}
