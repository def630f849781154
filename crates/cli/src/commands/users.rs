//! `syncline users` and `syncline audit`: accounts and the audit log, in a server's data, which
//! may be in use meanwhile.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use syncline::engine;
use syncline_core::config::LimitsConfig;
use syncline_server::net::accounts::{
    admin::{self, AdminError, Change},
    audit::{self, Verified},
};
use syncline_store::{
    Owned,
    accounts::{Account, AuditWant, transact},
};
use syncline_store_sqlite::SqliteAccounts;

use super::serve;
use crate::{
    args::{Audit, DataArgs, Users, UsersAction},
    exit::{Exit, Failure},
    moment,
    output::{Output, counted, grouped},
};

pub(crate) fn run(args: Users, output: &Output) -> anyhow::Result<Exit> {
    let store = open(&args.data)?;
    let now = engine::now();
    match args.action {
        UsersAction::List => {
            let accounts = admin::list(&store)?;
            let settings = args.data.settings();
            // A folder says what was counted, and not of how much.
            let limits = match settings.is_data_alone() {
                true => None,
                false => Some(settings.read_for_data()?.limits),
            };
            let is_counted = limits.as_ref().is_none_or(LimitsConfig::has_quota);
            let mut any_owned = false;
            for account in &accounts {
                let owned = match is_counted {
                    true => transact(&store, |records| records.owned(&account.id))?,
                    false => None,
                };
                let (mut sentence, mut object) = (sentence(account), object(account));
                object["owned"] = owned.map_or(Value::Null, |owned| {
                    let mut shares = json!({ "rows": owned.rows, "bytes": owned.bytes });
                    if let Some(limits) = &limits {
                        shares["rows_max"] = most(limits.user_rows).into();
                        shares["bytes_max"] = most(limits.user_bytes).into();
                    }
                    shares
                });
                if let Some(owned) = owned {
                    any_owned = true;
                    sentence.push_str("\n    ");
                    sentence.push_str(&owned_in_words(owned, limits.as_ref()));
                }
                output.result(&sentence, &object);
            }
            output.line(&counted(accounts.len() as u64, "account"));
            if any_owned && limits.is_none() {
                output.line("how much each may own is in the configuration: name it with --config");
            }
        }
        UsersAction::Add {
            email,
            password_file,
            claims,
        } => {
            let (password, is_made) = password(password_file)?;
            let account = admin::add(&store, &email, &password, &named(&claims)?, now);
            let account = account.map_err(failure)?;
            told("added", &account, is_made.then_some(&password), output);
        }
        UsersAction::ResetPassword { who, password_file } => {
            let (password, is_made) = password(password_file)?;
            let change = Change::Password(password.clone());
            let account = admin::change(&store, &who, &change, now).map_err(failure)?;
            told(
                "password set, signed out everywhere",
                &account,
                is_made.then_some(&password),
                output,
            );
        }
        UsersAction::Claims { who, claims } => {
            changed(
                &store,
                &who,
                &Change::Claims(named(&claims)?),
                "claims set",
                output,
            )?;
        }
        UsersAction::Disable { who } => {
            changed(
                &store,
                &who,
                &Change::Disable,
                "disabled, signed out everywhere",
                output,
            )?;
        }
        UsersAction::Enable { who } => {
            changed(&store, &who, &Change::Enable, "enabled", output)?;
        }
        UsersAction::Remove { who } => {
            let done = "removed, signed out everywhere; its rows stay";
            changed(&store, &who, &Change::Remove, done, output)?;
        }
    }
    Ok(Exit::Done)
}

/// Looks at the audit log.
pub(crate) fn audit(args: &Audit, output: &Output) -> anyhow::Result<Exit> {
    let store = open(&args.data)?;
    if args.verify {
        return match transact(&store, audit::verify)? {
            Verified::Whole(count) => {
                let sentence = format!("whole: {}", counted(count, "record"));
                let object = json!({ "type": "audit_verified", "records": count, "broken": null });
                output.result(&sentence, &object);
                Ok(Exit::Done)
            }
            Verified::Broken(number) => {
                let sentence = format!(
                    "record {number} does not fit to the one before it: one of the two was \
                     changed, or one between them is missing"
                );
                let object = json!({ "type": "audit_verified", "records": null, "broken": number });
                output.result(&sentence, &object);
                Ok(Exit::Differs)
            }
        };
    }
    // A person may be named by address.
    let user = match &args.user {
        Some(user) => {
            let named = user.trim().to_lowercase();
            let account = transact(&store, |records| records.account_of(&named))?;
            Some(account.map_or_else(|| user.clone(), |account| account.id))
        }
        None => None,
    };
    let want = AuditWant {
        before: args.before,
        kind: args.kind.clone(),
        user,
        max: args.limit,
    };
    for record in transact(&store, |records| records.audit(&want))? {
        let event = &record.event;
        let or = |text: &str, none: &str| match text {
            "" => none.to_owned(),
            text => text.to_owned(),
        };
        let sentence = format!(
            "{}  {}  {}  {} → {}  {}  {}",
            record.number,
            moment::shown(event.at),
            event.kind,
            or(&event.actor, "somebody"),
            or(&event.subject, "-"),
            or(&event.address, "-"),
            event.detail,
        );
        let object = json!({
            "type": "audit_record", "number": record.number, "at_ms": event.at.as_millis(),
            "kind": event.kind, "actor": event.actor, "subject": event.subject,
            "address": event.address, "detail": event.detail,
        });
        output.result(sentence.trim_end(), &object);
    }
    Ok(Exit::Done)
}

fn open(data: &DataArgs) -> anyhow::Result<SqliteAccounts> {
    let config = data.settings().read_for_data()?;
    let database = serve::database(&config, Path::new(&config.server.data));
    let opened = SqliteAccounts::open(&database);
    opened.map_err(|error| {
        let exit = if database.exists() {
            Exit::ServerData
        } else {
            Exit::NotFound
        };
        Failure::new(exit, format!("{error} (--data names another folder)")).into()
    })
}

/// 0 is no limit.
fn most(limit: u64) -> Option<u64> {
    (limit > 0).then_some(limit)
}

fn owned_in_words(owned: Owned, limits: Option<&LimitsConfig>) -> String {
    let share = |owned: u64, max: Option<u64>, what: &str| match max.and_then(most) {
        Some(max) => format!("{} of {} {what}", grouped(owned), grouped(max)),
        None => format!("{} {what}", grouped(owned)),
    };
    format!(
        "owns {} and {}",
        share(owned.rows, limits.map(|l| l.user_rows), "rows"),
        share(owned.bytes, limits.map(|l| l.user_bytes), "bytes")
    )
}

fn changed(
    store: &SqliteAccounts,
    who: &str,
    change: &Change,
    done: &str,
    output: &Output,
) -> anyhow::Result<()> {
    let account = admin::change(store, who, change, engine::now()).map_err(failure)?;
    told(done, &account, None, output);
    Ok(())
}

fn told(done: &str, account: &Account, made: Option<&String>, output: &Output) {
    let mut sentence = format!("{}: {done}", account.email);
    let mut object = json!({
        "type": "user_changed", "id": account.id, "email": account.email, "did": done,
        "password": null,
    });
    if let Some(password) = made {
        sentence.push_str("\npassword (shown once): ");
        sentence.push_str(password);
        object["password"] = password.as_str().into();
    }
    output.result(&sentence, &object);
}

/// From a file, or standard input for `-`; else one is made, and `true`.
fn password(file: Option<PathBuf>) -> anyhow::Result<(String, bool)> {
    let Some(file) = file else {
        return Ok((admin::random_password()?, true));
    };
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("read the password from standard input")?;
    } else {
        text = std::fs::read_to_string(&file)
            .with_context(|| format!("read the password from {}", file.display()))?;
    }
    Ok((text.trim_end_matches(['\r', '\n']).to_owned(), false))
}

/// `NAME=VALUE`s; JSON values are taken as such.
pub(crate) fn named(claims: &[String]) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for claim in claims {
        let Some((name, value)) = claim.split_once('=') else {
            let sentence = format!("claim {claim}: write NAME=VALUE");
            return Err(Failure::new(Exit::Usage, sentence).into());
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

fn failure(error: AdminError) -> anyhow::Error {
    let exit = match &error {
        AdminError::Malformed(_) => Exit::Usage,
        AdminError::NotFound(_) => Exit::NotFound,
        AdminError::Taken(_) => Exit::AlreadyThere,
        AdminError::Storage(_) => Exit::ServerData,
    };
    Failure::new(exit, error.to_string()).into()
}

fn sentence(account: &Account) -> String {
    let mut text = format!(
        "{}  {}\n    since {}",
        account.id,
        account.email,
        moment::shown(account.created)
    );
    if account.verified.is_none() {
        text.push_str(", address not confirmed");
    }
    if account.disabled.is_some() {
        text.push_str(", disabled");
    }
    if account.claims != "{}" {
        text.push_str(", claims ");
        text.push_str(&account.claims);
    }
    text
}

fn object(account: &Account) -> Value {
    json!({
        "type": "user", "id": account.id, "email": account.email,
        "created_ms": account.created.as_millis(), "verified": account.verified.is_some(),
        "disabled": account.disabled.is_some(),
        "claims": serde_json::from_str::<Value>(&account.claims).unwrap_or(Value::Null),
    })
}
