//! Which rows of tables on demand a device is to have, told without the engine's rules.

use syncline_replica::{Subscription, SubscriptionState, Wanted};

use crate::{
    rows::{RowName, literal},
    schema::Who,
    truth::Truth,
};

const TABLES: [&str; 3] = ["files", "letters", "news"];

/// What a device asks for, as the engine keeps it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    subscriptions: Vec<Subscription>,
}

/// Whether a row that somebody may see has to be on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Must,
    May,
    MustNot,
}

impl Demand {
    pub(crate) fn new(subscriptions: Vec<Subscription>) -> Self {
        Self { subscriptions }
    }

    /// Whether a row that `who` may see has to be here, once everything that was asked for came and
    /// everything that was not is gone.
    pub(crate) fn presence(
        &self,
        truth: &Truth,
        who: Who<'_>,
        name: &RowName,
        values: &[String],
    ) -> Presence {
        if !TABLES.contains(&name.0) {
            return Presence::Must;
        }
        let mut presence = Presence::MustNot;
        for subscription in &self.subscriptions {
            if !is_below(subscription, truth, who, name, values) {
                continue;
            }
            match subscription.state {
                SubscriptionState::Live => return Presence::Must,
                SubscriptionState::Waiting | SubscriptionState::Ending(_) => {
                    presence = Presence::May;
                }
            }
        }
        presence
    }
}

/// Whether the row is among what the subscription asks for, and what `who` may see of that.
fn is_below(
    subscription: &Subscription,
    truth: &Truth,
    who: Who<'_>,
    name: &RowName,
    values: &[String],
) -> bool {
    let topic = &subscription.topic;
    match (topic.table.as_str(), &topic.what, name.0) {
        ("projects", Wanted::Row(key), "files") => literal(&key[0]) == values[0],
        ("files", Wanted::Value { value, .. }, "files") => literal(value) == values[0],
        ("news", Wanted::Table, "news") => true,
        // A user is only granted what has their own name.
        ("letters", Wanted::Value { column, value }, "letters") => {
            let is_own = value.as_text() == Some(who.user);
            is_own
                && match column.as_str() {
                    "_owner" => truth.owner(name) == Some(who.user),
                    _ => literal(value) == values[0],
                }
        }
        _ => false,
    }
}
