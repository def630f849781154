//! `/v1/topics`: how the asker's device asks for rows of tables that sync on demand, so that what a
//! file holds of them can stay in it (docs/spec/demand.md, SU9).

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use syncline_core::{
    RowKey, Table,
    rules::{RuleColumn, Way},
};

use super::{Backend, Shared, caller::Caller};

/// Tables by name; those whose rows come unasked are left out.
#[derive(Debug, Serialize)]
pub(crate) struct TopicsResponse {
    subscriptions_max: u32,
    tables: BTreeMap<String, Vec<Topic>>,
}

/// One [`Way`], by names; a value encoded as a key, in base64.
#[derive(Debug, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
enum Topic {
    Table,
    Row,
    Own {
        column: String,
        value: String,
    },
    Value {
        column: String,
        parent: Option<String>,
    },
}

pub(crate) async fn topics<B: Backend>(
    State(shared): State<Arc<Shared<B>>>,
    Caller(proof): Caller,
) -> Json<TopicsResponse> {
    let context = shared.context();
    let (schema, rules) = (context.plan.schema(), context.plan.rules());
    let mut tables = BTreeMap::new();
    for table in &schema.tables {
        let ways = rules.ways(table.number, &proof.identity);
        let topics = ways.into_iter().filter_map(|way| {
            Some(match way {
                Way::Table => Topic::Table,
                Way::Row => Topic::Row,
                Way::Own(column, value) => Topic::Own {
                    column: name_of(table, column),
                    value: BASE64_STANDARD.encode(RowKey::encode([&value]).ok()?.as_bytes()),
                },
                Way::Value { column, parent } => Topic::Value {
                    column: name_of(table, column),
                    parent: parent.and_then(|parent| {
                        let mut tables = schema.tables.iter();
                        let found = tables.find(|table| table.number == parent);
                        found.map(|table| table.name.clone())
                    }),
                },
            })
        });
        let topics: Vec<Topic> = topics.collect();
        if !topics.is_empty() {
            tables.insert(table.name.clone(), topics);
        }
    }
    Json(TopicsResponse {
        subscriptions_max: context.subscriptions_max,
        tables,
    })
}

fn name_of(table: &Table, column: RuleColumn) -> String {
    match column {
        RuleColumn::Owner => "_owner".to_owned(),
        RuleColumn::Column(position) => table.columns[position].name.clone(),
    }
}
