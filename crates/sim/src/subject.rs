//! What is simulated: an app of the simulator's own, of which everything is known, or one of
//! which only the configuration is.

use std::{collections::BTreeMap, rc::Rc};

use serde_json::Value;

use crate::{
    app::{Author, Script, USERS},
    given::Given,
    plan::{Fault, Plan},
    rows::Rows,
    schema::{
        LOCAL, LOCAL_ON_DEMAND, ROWS_BEFORE, Setup, TABLES, TABLES_ON_DEMAND, TableShape, Who,
    },
    truth::Truth,
};

/// Tables, rules, people and what they do.
#[derive(Debug)]
pub struct App(Kind);

#[derive(Debug)]
enum Kind {
    Own {
        /// With tables on demand.
        on_demand: bool,
    },
    Given(Given),
}

impl App {
    /// The simulator's own: every kind of key, rule and merging, and a model beside the engine.
    #[must_use]
    pub fn own() -> Rc<Self> {
        Rc::new(Self(Kind::Own { on_demand: false }))
    }

    /// With the tables that a run of this plan needs.
    pub(crate) fn for_plan(self: &Rc<Self>, plan: &Plan) -> Rc<Self> {
        match self.is_own() && plan.has(Fault::Demand) {
            true => Rc::new(Self(Kind::Own { on_demand: true })),
            false => Rc::clone(self),
        }
    }

    /// Whether some of its tables sync on demand.
    pub(crate) fn has_on_demand(&self) -> bool {
        matches!(self.0, Kind::Own { on_demand: true })
    }

    /// The app of a configuration; `users` are the people who write in it.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what of it cannot be simulated.
    pub fn of_config(file: &str, text: &str, users: &[String]) -> anyhow::Result<Rc<Self>> {
        anyhow::ensure!(!users.is_empty(), "nobody writes: name at least one user");
        let given = Given::parse(file, text, users)?;
        Ok(Rc::new(Self(Kind::Given(given))))
    }

    /// Whether more is known of it than its configuration says.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.0, Kind::Own { .. })
    }

    /// The configuration's name and text.
    pub(crate) fn config(&self, setup: Setup) -> (String, String) {
        match &self.0 {
            Kind::Own { on_demand } => ("syncline.toml".into(), setup.config(*on_demand)),
            Kind::Given(given) => (given.file.clone(), given.config.clone()),
        }
    }

    pub(crate) fn tables(&self) -> &[TableShape] {
        match &self.0 {
            Kind::Own { on_demand: true } => TABLES_ON_DEMAND,
            Kind::Own { on_demand: false } => TABLES,
            Kind::Given(given) => &given.shapes,
        }
    }

    pub(crate) fn users(&self) -> &[&'static str] {
        match &self.0 {
            Kind::Own { .. } => USERS,
            Kind::Given(given) => &given.users,
        }
    }

    /// What somebody's token says beside the user.
    pub(crate) fn claims(&self, who: Who<'_>) -> BTreeMap<String, Value> {
        match self.is_own() {
            true => BTreeMap::from([("team".into(), who.team.into())]),
            false => BTreeMap::new(),
        }
    }

    /// The tables and rows of a file from before it met a server, where there are such files.
    pub(crate) fn before(&self) -> Option<(&'static str, &'static str)> {
        let tables = match self.has_on_demand() {
            true => &LOCAL_ON_DEMAND,
            false => LOCAL,
        };
        self.is_own().then_some((tables, ROWS_BEFORE))
    }

    /// What somebody does next.
    pub(crate) fn script(&self, author: &mut Author<'_>) -> rusqlite::Result<Script> {
        match &self.0 {
            Kind::Own { on_demand } => author.script(*on_demand),
            Kind::Given(given) => given.script(author),
        }
    }

    /// The rows that `who` may see.
    pub(crate) fn visible(&self, truth: &Truth, who: Who<'_>) -> Rows {
        match (&self.0, truth.live()) {
            (Kind::Given(_), Some((live, context))) => live
                .readable(context, who.user, |stored| {
                    truth.name(stored.table, &stored.key)
                })
                .filter_map(|name| truth.rows.get_key_value(&name))
                .map(|(name, values)| (name.clone(), Rc::clone(values)))
                .collect(),
            (Kind::Own { .. } | Kind::Given(_), _) => truth.visible(who),
        }
    }
}
