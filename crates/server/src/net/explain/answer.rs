//! Explanations as JSON, the same over HTTP and from the command line.

use serde_json::{Value as Json, json};
use syncline_core::{
    RowKey, Table,
    rules::{Permitted, Reason, RuleColumn, Through, Verdict, Wanted},
};

use super::{Asking, OnDemand, RowAccess, RowPeople, TableAccess, key_to_json};

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
        if let Some(on_demand) = &self.on_demand {
            let devices = on_demand.devices.as_ref().map(|devices| {
                let one = |asking: &Asking| json!({ "device": asking.device, "asks": asking.asks });
                devices.iter().map(one).collect::<Vec<_>>()
            });
            answer["on_demand"] = json!({
                "ask": on_demand.ask, "devices": devices, "says": on_demand.says(),
            });
        }
        answer
    }
}

impl OnDemand {
    /// In words: on which devices the row is, or that nobody asked for it.
    #[must_use]
    pub fn says(&self) -> String {
        let ask = match &self.ask[..] {
            [] => "nothing that this user can subscribe to".to_owned(),
            ask => ask.join(", or "),
        };
        let Some(devices) = &self.devices else {
            return format!("sent only to devices that subscribe to {ask}");
        };
        let named = |asks: Option<bool>| {
            let found = devices.iter().filter(|asking| asking.asks == asks);
            let names: Vec<&str> = found.map(|asking| asking.device.as_str()).collect();
            names.join(", ")
        };
        let mut says = match &*named(Some(true)) {
            "" => format!("may see it, but nobody asked for it: subscribe to {ask}"),
            names => format!("sent to {names}, which asked for it"),
        };
        for (names, what) in [
            (named(Some(false)), "did not ask"),
            (
                named(None),
                "not connected, so what they ask for is not known",
            ),
        ] {
            if !names.is_empty() {
                says.push_str(&format!("; {what}: {names}"));
            }
        }
        says
    }
}

/// What is asked for, in words.
pub(super) fn wanted(table: &Table, wanted: &Wanted) -> String {
    match wanted {
        Wanted::Table => format!("the table {}", table.name),
        Wanted::Row(key) => named(table, key),
        Wanted::Value(column, value) => {
            let column = match column {
                RuleColumn::Owner => "_owner",
                RuleColumn::Column(position) => &table.columns[*position].name,
            };
            let value = RowKey::encode([value]).map_or_else(|_| String::new(), |v| v.to_string());
            format!("{} with {column} = {value}", table.name)
        }
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
