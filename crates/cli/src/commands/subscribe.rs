//! `syncline subscribe`, `unsubscribe` and `subscriptions`: rows that come only when asked for.

use serde_json::json;
use syncline::{
    SubscriptionState, Topic, Value, Wanted,
    engine::{self, ClientError},
};
use syncline_replica::Replica;

use super::history;
use crate::{
    args::{TopicArgs, Unsubscribe},
    exit::{Exit, Failure},
    moment,
    output::{Output, counted},
};

pub(crate) fn subscribe(args: &TopicArgs, output: &Output) -> anyhow::Result<Exit> {
    let mut replica = engine::open_replica(&args.file)?;
    let topic = topic(&replica, args)?;
    let is_new = replica
        .subscribe(&topic, engine::now())
        .map_err(|error| ClientError::replica(&args.file, error))?;
    let what = topic_text(&topic);
    let sentence = match is_new {
        true => format!("{what}: subscribed; what you may see of it comes with the next sync"),
        false => format!("{what}: was subscribed to already"),
    };
    let line = json!({ "type": "subscribed_to", "changed": is_new });
    output.result(&sentence, &with_topic(line, &topic));
    Ok(Exit::Done)
}

pub(crate) fn unsubscribe(args: &Unsubscribe, output: &Output) -> anyhow::Result<Exit> {
    let file = &args.topic.file;
    let mut replica = engine::open_replica(file)?;
    let topic = topic(&replica, &args.topic)?;
    let keep_for = args.keep_for.saturating_mul(1_000);
    let was_there = replica
        .unsubscribe(&topic, keep_for, engine::now())
        .map_err(|error| ClientError::replica(file, error))?;
    let what = topic_text(&topic);
    let sentence = match was_there {
        true => format!(
            "{what}: the rows go with the first sync after {}",
            counted(args.keep_for, "second")
        ),
        false => format!("{what}: was not subscribed to"),
    };
    let line = json!({ "type": "unsubscribed", "changed": was_there });
    output.result(&sentence, &with_topic(line, &topic));
    Ok(Exit::Done)
}

pub(crate) fn list(file: &std::path::Path, output: &Output) -> anyhow::Result<Exit> {
    let replica = engine::open_replica(file)?;
    let subscriptions = replica
        .subscriptions()
        .map_err(|error| ClientError::replica(file, error))?;
    for subscription in &subscriptions {
        let (state, ends) = match subscription.state {
            SubscriptionState::Waiting => ("waiting", None),
            SubscriptionState::Live => ("live", None),
            SubscriptionState::Ending(ends) => ("ending", Some(ends)),
        };
        let until = ends.map(|ends| format!(", {}", moment::shown(ends)));
        let what = topic_text(&subscription.topic);
        let ends_at = ends.map(|ends| ends.0 / 1_000);
        let line = json!({ "type": "subscription", "state": state, "ends_at_ms": ends_at });
        let line = with_topic(line, &subscription.topic);
        let sentence = format!("{what}: {state}{}", until.unwrap_or_default());
        output.result(&sentence, &line);
    }
    output.line(&counted(subscriptions.len() as u64, "subscription"));
    Ok(Exit::Done)
}

/// Says what attaching subscribed to (spec SU9).
pub(crate) fn held(topics: &[Topic], output: &Output) {
    for topic in topics {
        let line = json!({ "type": "subscribed_to", "changed": true });
        output.object(&with_topic(line, topic));
    }
    if !topics.is_empty() {
        let things = counted(topics.len() as u64, "thing");
        output.note(&format!(
            "subscribed to {things}, so that rows of tables on demand stay in this file"
        ));
    }
}

fn topic(replica: &Replica, args: &TopicArgs) -> anyhow::Result<Topic> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    let what = match &args.column {
        Some(pair) => {
            let (column, text) = pair
                .split_once('=')
                .ok_or_else(|| usage(format!("`{pair}`: write --where COLUMN=VALUE")))?;
            let found = replica.column_type(&args.table, column);
            let ty = found.map_err(|error| ClientError::replica(&args.file, error))?;
            let value = history::value(ty, text)
                .ok_or_else(|| usage(format!("{column} is {}, `{text}` is none", ty.as_str())))?;
            let column = column.to_owned();
            Wanted::Value { column, value }
        }
        None if args.ids.is_empty() => Wanted::Table,
        None => Wanted::Row(history::key(replica, &args.file, &args.table, &args.ids)?),
    };
    let table = args.table.clone();
    Ok(Topic { table, what })
}

/// The line, and what it is about.
pub(crate) fn with_topic(mut line: serde_json::Value, topic: &Topic) -> serde_json::Value {
    let (column, key) = match &topic.what {
        Wanted::Table => (None, None),
        Wanted::Row(values) => (None, Some(values.iter().map(text).collect::<Vec<_>>())),
        Wanted::Value { column, value } => (Some(column), Some(vec![text(value)])),
    };
    line["table"] = json!(topic.table);
    line["column"] = json!(column);
    line["key"] = json!(key);
    line
}

pub(crate) fn topic_text(topic: &Topic) -> String {
    let table = &topic.table;
    match &topic.what {
        Wanted::Table => table.clone(),
        Wanted::Row(values) => {
            let values: Vec<String> = values.iter().map(text).collect();
            format!("{table} {}", values.join(", "))
        }
        Wanted::Value { column, value } => format!("{table} with {column} = {}", text(value)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => x.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => history::hex(bytes),
    }
}
