//! `syncline init`, `check` and `token`: around the configuration.

use std::{fs, path::Path};
use syncline::engine;

use anyhow::Context;
use clap::ArgMatches;
use serde_json::json;
use syncline_core::{
    Timestamp,
    config::{Config, LimitsConfig, ServerConfig},
    rules::Rules,
    schema::{RuleTexts, Schema},
};
use syncline_replica::introspect::introspect;
use syncline_store::{SchemaError, SchemaOptions};
use syncline_store_sqlite::{Preview, PreviewError, preview};

use super::serve::DATABASE;
use crate::{
    args::{Check, Init, ShowConfig, Token},
    exit::{Exit, Failure},
    output::{Output, counted},
    settings::Setting,
    token,
};

/// Until somebody says otherwise, every row is its maker's alone.
const OWN_ROWS: &str = "_owner = auth.uid()";

/// Reads and checks a configuration; every mistake is in the error.
pub(crate) fn read_config(path: &Path) -> anyhow::Result<Config> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| {
        let hint = "`syncline init --from APP.db` writes one";
        Failure::new(
            Exit::Config,
            format!("{name} cannot be read: {error}; {hint}"),
        )
    })?;
    let config = Config::parse(&name, &text).map_err(|mistakes| mistakes_of(&mistakes))?;
    let mistakes = config.rule_mistakes();
    if !mistakes.is_empty() {
        return Err(mistakes_of(&mistakes));
    }
    Ok(config)
}

pub(crate) fn mistakes_of(mistakes: &[syncline_core::config::ConfigError]) -> anyhow::Error {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    Failure::new(Exit::Config, lines.join("\n")).into()
}

pub(crate) fn init(args: &Init, output: &Output) -> anyhow::Result<Exit> {
    if args.output.exists() && !args.force {
        let sentence = format!(
            "{} is there already; --force replaces it",
            args.output.display()
        );
        return Err(Failure::new(Exit::AlreadyThere, sentence).into());
    }
    let mut left_out = Vec::new();
    let config = match &args.from {
        None => example()?,
        Some(path) => {
            let conn = open_to_read(path)?;
            let found = introspect(&conn).with_context(|| format!("read {}", path.display()))?;
            left_out = found.problems.iter().map(ToString::to_string).collect();
            let mut tables: Vec<_> = found.tables.into_iter().map(|local| local.table).collect();
            for table in &mut tables {
                table.rules = RuleTexts {
                    read: Some(OWN_ROWS.into()),
                    write: Some(OWN_ROWS.into()),
                    ..RuleTexts::default()
                };
            }
            if tables.is_empty() {
                let why = if left_out.is_empty() {
                    "it has no tables".to_owned()
                } else {
                    left_out.join("; ")
                };
                let sentence = format!("{} has no table that can sync: {why}", path.display());
                return Err(Failure::new(Exit::TableUnfit, sentence).into());
            }
            Config::new(ServerConfig::default(), Schema { tables })
        }
    };
    fs::write(&args.output, config.to_toml())
        .with_context(|| format!("write {}", args.output.display()))?;
    for problem in &left_out {
        output.note(&format!("left out: {problem}"));
    }
    let tables = config.schema.tables.len();
    output.result(
        &format!(
            "wrote {} with {}; {}\nnext: syncline check, then syncline serve",
            args.output.display(),
            counted(tables as u64, "table"),
            if args.from.is_some() {
                "every row is private to who made it until you say otherwise"
            } else {
                "they are an example: put yours in their place"
            }
        ),
        &json!({ "type": "init", "file": args.output, "tables": tables, "left_out": left_out }),
    );
    Ok(Exit::Done)
}

pub(super) fn open_to_read(path: &Path) -> anyhow::Result<rusqlite::Connection> {
    if !path.exists() {
        return Err(engine::ClientError::NotFound(path.to_owned()).into());
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = rusqlite::Connection::open_with_flags(path, flags)
        .with_context(|| format!("open {}", path.display()))?;
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(|_| engine::ClientError::NotADatabase(path.to_owned()))?;
    Ok(conn)
}

/// What `init` writes without a database: two tables that show the language.
fn example() -> anyhow::Result<Config> {
    const EXAMPLE: &str = include_str!("../example.toml");
    Config::parse("example.toml", EXAMPLE).map_err(|mistakes| mistakes_of(&mistakes))
}

pub(crate) fn check(args: &Check, output: &Output) -> anyhow::Result<Exit> {
    let config = read_config(&args.config)?;
    let rules = Rules::compile(&config.schema, &[0; 32]);
    for table in &config.schema.tables {
        let words = match &rules {
            Ok(rules) if !table.columns.is_empty() => rules.describe(&table.name),
            Ok(_) | Err(_) => {
                "taken from the database as it is; its rules are checked when the server reads it"
                    .to_owned()
            }
        };
        let sealed = table
            .columns
            .iter()
            .filter(|column| column.encrypted.is_some());
        let encrypted: Vec<_> = sealed.map(|column| &*column.name).collect();
        let mut text = words.clone();
        if !encrypted.is_empty() {
            let names = encrypted.join(", ");
            text.push_str(&format!(
                "\nencrypted, so that only devices with the key read it: {names}"
            ));
        }
        output.result(&format!("{}\n  {}", table.name, text.replace('\n', "\n  ")), &json!({
            "type": "table", "table": table.name, "columns": table.columns.len(), "rules": words,
            "encrypted": encrypted,
        }));
    }
    let usual = LimitsConfig::default();
    for limit in LimitsConfig::KEYS {
        let (value, usual) = ((limit.get)(&config.limits), (limit.get)(&usual));
        if value != usual {
            output.result(
                &format!("limit: {} is {value} (by default {usual})", limit.name),
                &json!({ "type": "limit", "name": limit.name, "value": value, "default": usual }),
            );
        }
    }
    for sentence in rules.iter().flat_map(Rules::advice) {
        output.result(
            &format!("note: {sentence}"),
            &json!({ "type": "advice", "message": sentence }),
        );
    }
    output.note(&format!(
        "{} is good: {}",
        args.config.display(),
        counted(config.schema.tables.len() as u64, "table")
    ));
    match &args.data {
        Some(data) => compare(&config, data, &args.allow, output),
        None => Ok(Exit::Done),
    }
}

/// Says what a server would do to its tables at start.
fn compare(
    config: &Config,
    data: &Path,
    allow: &[String],
    output: &Output,
) -> anyhow::Result<Exit> {
    let database = match &config.server.database {
        Some(database) => Path::new(database).to_owned(),
        None => data.join(DATABASE),
    };
    let options = SchemaOptions {
        managed: config.server.managed,
        allow: allow.to_vec(),
    };
    let preview = preview(&database, config, &options).map_err(|error| {
        let exit = match &error {
            PreviewError::Open(_) | PreviewError::Schema(SchemaError::Storage(_)) => {
                Exit::ServerData
            }
            PreviewError::Schema(_) => Exit::Config,
        };
        Failure::new(exit, error.to_string())
    })?;
    if preview == Preview::default() {
        output.note(&format!("{} has these tables already", database.display()));
    }
    for note in &preview.notes {
        output.result(
            &format!("at start: {note}"),
            &json!({ "type": "planned", "message": note }),
        );
    }
    for (what, allow) in &preview.refused {
        output.result(
            &format!("refused: {what} would lose data; --allow {allow}"),
            &json!({ "type": "refused", "message": what, "allow": allow }),
        );
    }
    match preview.refused.first() {
        None => Ok(Exit::Done),
        Some(_) => {
            let names: Vec<_> = preview
                .refused
                .iter()
                .map(|(_, name)| name.as_str())
                .collect();
            let sentence = format!(
                "the server would not start: it would lose data; allow it with --allow {}",
                names.join(" --allow ")
            );
            Err(Failure::new(Exit::Config, sentence).into())
        }
    }
}

/// Each setting with where it came from; `matches` tells flags from the environment.
pub(crate) fn show(
    args: &ShowConfig,
    matches: Option<&ArgMatches>,
    output: &Output,
) -> anyhow::Result<Exit> {
    let config = args.settings.read()?;
    let source = |name: &str| matches.and_then(|matches| matches.value_source(name));
    let settings = args.settings.explain(&config, source)?;
    let file = args.settings.file().map_or_else(
        || "no file: there is no syncline.toml here".to_owned(),
        |path| path.display().to_string(),
    );
    output.note(&format!("configuration: {file}"));
    for Setting { name, value, from } in settings {
        output.result(
            &format!("{name:<20} {:<32} {from}", value.to_string()),
            &json!({ "type": "setting", "name": name, "value": value, "from": from }),
        );
    }
    Ok(Exit::Done)
}

pub(crate) fn token(args: &Token, output: &Output) -> anyhow::Result<Exit> {
    let config = args.data.settings().read_for_data()?;
    let data = Path::new(&config.server.data);
    let is_new = !token::has_secret(data);
    let claims = super::users::named(&args.claims)?;
    let now = engine::now();
    let expires = Timestamp::from_millis(now.as_millis() + args.ttl * 1_000);
    let token = token::auth(data)?
        .issue(&args.user, claims, now, expires)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    if is_new {
        output.note(&format!(
            "made a new secret in {}: only a server with this data folder takes the token \
             (--data names another)",
            data.display()
        ));
    }
    output.result(&token, &json!({
        "type": "token", "token": token, "user": args.user, "expires": expires.as_millis() / 1_000,
    }));
    Ok(Exit::Done)
}
