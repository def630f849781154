//! Explanations as JSON, the same over HTTP and from the command line.

use serde_json::{Value as Json, json};
use syncline_core::{
    RowKey, Table,
    rules::{Permitted, Reason, Through, Verdict},
};

use super::{RowAccess, RowPeople, TableAccess, key_to_json};

impl RowPeople {
    /// As `GET /v1/admin/explain` answers it; `table` is the row's.
    #[must_use]
    pub fn to_json(&self, table: &Table) -> Json {
        let mut answer = json!({ "table": self.table, "id": key_to_json(table, &self.key) });
        for (action, people) in &self.people {
            answer[action.as_str()] = people.iter().map(permitted).collect();
        }
        answer
    }
}

impl RowAccess {
    /// As `GET /v1/admin/explain` answers it; `table` is the row's.
    #[must_use]
    pub fn to_json(&self, table: &Table) -> Json {
        let mut answer = json!({ "table": self.table, "id": key_to_json(table, &self.key) });
        for (action, verdict) in &self.verdicts {
            answer[action.as_str()] = verdict_json(verdict);
        }
        answer
    }
}

impl TableAccess {
    /// As `GET /v1/admin/explain` answers it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let by: Vec<Json> = self
            .by
            .iter()
            .map(|(rule, rows)| json!({ "rule": rule, "rows": rows }))
            .collect();
        json!({
            "table": self.table, "rules": self.rules, "rows": self.rows, "more": self.more,
            "readable": self.readable, "updatable": self.updatable, "by": by,
        })
    }
}

/// A row's name in sentences: `row 'p1' of projects`.
#[must_use]
pub fn named(table: &Table, key: &RowKey) -> String {
    let through = Through {
        table: table.name.clone(),
        key: key.clone(),
    };
    through.to_string()
}

/// A verdict with its reasons.
#[must_use]
pub fn verdict_json(verdict: &Verdict) -> Json {
    let reasons: Vec<Json> = verdict.reasons.iter().map(reason).collect();
    json!({ "allowed": verdict.allowed, "reasons": reasons })
}

fn reason(reason: &Reason) -> Json {
    let through: Vec<String> = reason.through.iter().map(ToString::to_string).collect();
    json!({
        "holds": reason.holds, "rule": reason.rule, "because": reason.because,
        "through": through,
    })
}

fn permitted(one: &Permitted) -> Json {
    let through: Vec<String> = one.through.iter().map(ToString::to_string).collect();
    let user = one.user.as_ref().map(|user| user.0.as_str());
    json!({ "who": one.who, "user": user, "rule": one.rule, "through": through })
}
