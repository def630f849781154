//! The file that `syncline test` reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value as Json};
use syncline_core::rules::Action;

/// Users, rows and lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Claims of users that lines name.
    #[serde(default)]
    pub(super) users: BTreeMap<String, BTreeMap<String, Json>>,
    /// Rows by table; without them, those of the server's data are looked at.
    pub(super) rows: Option<BTreeMap<String, Vec<Map<String, Json>>>>,
    #[serde(default)]
    pub(super) tests: Vec<toml::Spanned<Line>>,
}

/// Who may do what with which row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    /// Nobody who has signed in, if it is left out.
    pub(super) user: Option<String>,
    /// Besides those in `users`.
    #[serde(default)]
    pub(super) claims: BTreeMap<String, Json>,
    #[serde(default)]
    may: Actions,
    #[serde(default)]
    may_not: Actions,
    pub(super) table: String,
    pub(super) id: Option<Id>,
    /// What is created.
    pub(super) row: Option<Map<String, Json>>,
    /// What an update sets.
    #[serde(default)]
    pub(super) set: Map<String, Json>,
    /// Rows that are created in the same changeset.
    #[serde(default)]
    pub(super) with: Vec<Change>,
}

/// A row that is created along.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    pub(super) table: String,
    pub(super) row: Map<String, Json>,
}

/// One action by its name, or a list of them.
#[derive(Debug, Default)]
struct Actions(Vec<Action>);

/// A key: a value, or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Id {
    Several(Vec<Json>),
    One(Json),
}

impl Line {
    /// What is expected of it: an action, and whether it is allowed.
    pub(super) fn expectations(&self) -> impl Iterator<Item = (Action, bool)> + '_ {
        let may = self.may.0.iter().map(|action| (*action, true));
        may.chain(self.may_not.0.iter().map(|action| (*action, false)))
    }
}

impl Id {
    pub(super) fn texts(&self) -> Vec<String> {
        let list = match self {
            Self::Several(list) => &list[..],
            Self::One(one) => std::slice::from_ref(one),
        };
        let text = |value: &Json| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        };
        list.iter().map(text).collect()
    }
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Names {
            One(String),
            Several(Vec<String>),
        }
        let names = match Names::deserialize(deserializer)? {
            Names::One(name) => vec![name],
            Names::Several(names) => names,
        };
        let actions = names.iter().map(|name| {
            Action::parse(name).ok_or_else(|| {
                D::Error::custom(format!("`{name}`: write read, create, update or delete"))
            })
        });
        Ok(Self(actions.collect::<Result<_, _>>()?))
    }
}
