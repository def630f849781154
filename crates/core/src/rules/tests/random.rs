//! Random rules, rows and people for a fixed set of tables, few enough values that they meet.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use serde_json::json;

use super::testkit::{schema, table, user};
use crate::{
    rules::Identity,
    schema::{ColumnType, Schema, SyncMode, Table},
    value::Value,
};

/// A table's name, its columns, and the column and the table that it may inherit through.
type Shape = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
);

const TABLES: [Shape; 6] = [
    (
        "orgs",
        "id text, owner text, open boolean, level integer",
        None,
    ),
    (
        "projects",
        "id text, org_id text, owner text, open boolean, level integer",
        Some(("org_id", "orgs")),
    ),
    (
        "members",
        "id text, project_id text, user_id text, role text, level integer",
        Some(("project_id", "projects")),
    ),
    (
        "teams",
        "id text, org_id text, user_id any, role text",
        None,
    ),
    (
        "tasks",
        "id text, project_id text, assignee text, open boolean, level integer, points real",
        Some(("project_id", "projects")),
    ),
    (
        "notes",
        "id text, task_id text, author text, level integer, free any",
        Some(("task_id", "tasks")),
    ),
];

/// Words that are ids of rows and of people, so that links meet.
const WORDS: [&str; 4] = ["a", "b", "u", "v"];

fn blank() -> Vec<Table> {
    TABLES
        .iter()
        .map(|(name, columns, _)| table(name, columns))
        .collect()
}

fn word() -> impl Strategy<Value = &'static str> + Clone {
    select(&WORDS[..])
}

/// A value of a column: usually one that its type describes, now and then any other.
fn value(ty: ColumnType) -> BoxedStrategy<Value> {
    let text = word().prop_map(Value::from);
    let integer = (-1..4_i64).prop_map(Value::from);
    let real = select(vec![1.0, 2.0, 2.5]).prop_map(Value::from);
    let misfit = prop_oneof![
        text.clone(),
        integer.clone(),
        real.clone(),
        Just(Value::Text("1".into())),
        Just(Value::Blob(vec![0x61])),
    ];
    let fit = match ty {
        ColumnType::Integer => integer.boxed(),
        ColumnType::Real => prop_oneof![real, integer].boxed(),
        ColumnType::Boolean => {
            return prop_oneof![Just(Value::Null), (0..2_i64).prop_map(Value::from)].boxed();
        }
        ColumnType::Any => misfit.clone().boxed(),
        ColumnType::Text
        | ColumnType::Json
        | ColumnType::Blob
        | ColumnType::Timestamp
        | ColumnType::Uuid => text.boxed(),
    };
    prop_oneof![12 => fit, 1 => Just(Value::Null), 1 => misfit].boxed()
}

/// A row: the table's index, its key, who inserted it, the other values.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    pub(super) table: usize,
    pub(super) owner: &'static str,
    pub(super) values: Vec<Value>,
}

pub(super) fn draw() -> impl Strategy<Value = Draw> {
    (0..TABLES.len()).prop_flat_map(|at| {
        let columns = blank().swap_remove(at).columns;
        let values: Vec<_> = columns
            .iter()
            .skip(1)
            .map(|column| value(column.ty))
            .collect();
        let owner = prop_oneof![word(), Just("")];
        (word(), owner, values).prop_map(move |(key, owner, rest)| Draw {
            table: at,
            owner,
            values: std::iter::once(Value::from(key)).chain(rest).collect(),
        })
    })
}

/// What happens to rows, one after the other.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Put(Draw),
    /// One of the rows that are there.
    Delete(Index),
}

pub(super) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => draw().prop_map(Step::Put),
        1 => any::<Index>().prop_map(Step::Delete),
    ];
    vec(step, 0..most)
}

pub(super) fn identity() -> impl Strategy<Value = Identity> {
    let user = prop_oneof![4 => word().prop_map(user), 1 => Just(Identity::default())];
    let text = select(vec![
        json!(null),
        json!("a"),
        json!("u"),
        json!({}),
        json!(true),
    ]);
    let number = select(vec![
        json!(null),
        json!(1),
        json!(2.5),
        json!("2"),
        json!("02"),
        json!(2.0),
    ]);
    (user, text, number).prop_map(|(user, t, n)| user.claim("t", t).claim("n", n))
}

/// Columns of a table whose values can be texts, or can be numbers.
fn columns(at: usize, numbers: bool) -> Vec<String> {
    let table = blank().swap_remove(at);
    let fits = |ty| match ty {
        ColumnType::Integer | ColumnType::Real => numbers,
        ColumnType::Any => true,
        ColumnType::Text => !numbers,
        ColumnType::Boolean
        | ColumnType::Json
        | ColumnType::Blob
        | ColumnType::Timestamp
        | ColumnType::Uuid => false,
    };
    let names = table
        .columns
        .iter()
        .filter(|c| fits(c.ty))
        .map(|c| c.name.clone());
    names
        .chain((!numbers).then(|| "_owner".to_owned()))
        .collect()
}

/// A condition on one row of the table at `at`, called `name`.
fn own(at: usize, name: &'static str) -> BoxedStrategy<String> {
    let column =
        move |numbers| select(columns(at, numbers)).prop_map(move |c| format!("{name}.{c}"));
    let op = || select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let number = || select(vec!["0", "1", "2", "2.0", "2.5", "-1"]);
    let text = || word().prop_map(|word| format!("'{word}'"));
    let booleans = blank().swap_remove(at).position("open").is_some();
    let mut leaves = vec![
        (column(false), op(), text())
            .prop_map(|(c, op, v)| format!("{c} {op} {v}"))
            .boxed(),
        (column(false), op(), column(false))
            .prop_map(|(a, op, b)| format!("{a} {op} {b}"))
            .boxed(),
        (column(false), select(vec!["", "NOT "]))
            .prop_map(|(c, not)| format!("{c} IS {not}NULL"))
            .boxed(),
        (column(false), select(vec!["", "NOT "]), text(), text())
            .prop_map(|(c, not, a, b)| format!("{c} {not}IN ({a}, {b})"))
            .boxed(),
    ];
    if !columns(at, true).is_empty() {
        leaves.push(
            (column(true), op(), number())
                .prop_map(|(c, op, v)| format!("{c} {op} {v}"))
                .boxed(),
        );
        leaves.push(
            (column(true), number(), number())
                .prop_map(|(c, a, b)| format!("{c} BETWEEN {a} AND {b}"))
                .boxed(),
        );
    }
    if booleans {
        let forms = vec!["", " = TRUE", " IS NOT TRUE", " IS FALSE", " <> FALSE"];
        leaves.push(
            select(forms)
                .prop_map(move |form| format!("{name}.open{form}"))
                .boxed(),
        );
    }
    let leaf = proptest::strategy::Union::new(leaves);
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(vec!["AND", "OR"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
    .boxed()
}

/// A condition on the user alone.
fn of_user() -> impl Strategy<Value = String> {
    select(vec![
        "auth.uid() IS NOT NULL",
        "auth.uid() <> 'u'",
        "auth.claim('t') = 'a'",
        "NOT (auth.claim('t') = 'a' OR auth.uid() = 'v')",
        "auth.claim('n') >= 2",
        "auth.claim('t') = auth.uid()",
    ])
    .prop_map(str::to_owned)
}

/// `=` with the user, from a column that can hold what the user has.
fn equals_user(at: usize, name: &'static str) -> BoxedStrategy<String> {
    // Beside a column without a type a claim is what JSON says, which SQL cannot be given twice.
    let typed = |c: &String| c != "free" && c != "user_id";
    let uid = select(columns(at, false)).prop_map(move |c| format!("{name}.{c} = auth.uid()"));
    let claim = select(
        columns(at, false)
            .into_iter()
            .filter(typed)
            .collect::<Vec<_>>(),
    )
    .prop_map(move |c| format!("{name}.{c} = auth.claim('t')"));
    let text = prop_oneof![uid, claim];
    let numbers: Vec<String> = columns(at, true).into_iter().filter(typed).collect();
    if numbers.is_empty() {
        return text.boxed();
    }
    let number = select(numbers).prop_map(move |c| format!("auth.claim('n') = {name}.{c}"));
    prop_oneof![4 => text, 1 => number].boxed()
}

/// Names of hops; `h1` is next to the row.
const HOPS: [&str; 3] = ["h1", "h2", "h3"];

/// A lookup through up to three other tables.
fn chain(at: usize, name: &'static str) -> BoxedStrategy<String> {
    let tables = Just((0..TABLES.len()).collect::<Vec<_>>()).prop_shuffle();
    (tables, 1..=HOPS.len(), 0..8_u8, 0..3_u8)
        .prop_flat_map(move |(tables, hops, ends, spelling)| {
            let tables = tables[..hops].to_vec();
            let linked = ends != 0;
            let to_user = ends != 1;
            // Both columns of a link hold texts, or both hold numbers.
            let mut links = Vec::new();
            for (i, &hop) in tables.iter().enumerate() {
                let (before, previous) = if i == 0 {
                    (at, name)
                } else {
                    (tables[i - 1], HOPS[i - 1])
                };
                let pair = |numbers: bool| {
                    let (near, far) = (columns(before, numbers), columns(hop, numbers));
                    (select(near), select(far)).prop_map(move |(a, b)| {
                        (format!("{previous}.{a}"), format!("{}.{b}", HOPS[i]))
                    })
                };
                let numbers = !columns(before, true).is_empty() && !columns(hop, true).is_empty();
                links.push(if numbers {
                    prop_oneof![4 => pair(false), 1 => pair(true)].boxed()
                } else {
                    pair(false).boxed()
                });
            }
            let last = *tables.last().unwrap();
            let end = equals_user(last, HOPS[hops - 1]);
            let conds: Vec<_> = (tables.iter().zip(HOPS))
                .map(|(&t, name)| proptest::option::weighted(0.3, own(t, name)))
                .collect();
            (links, end, conds).prop_map(move |(links, end, conds)| {
                let link = |i: usize| (i > 0 || linked).then(|| links[i].clone());
                let end = (to_user || !linked).then(|| end.clone());
                spelled(&tables, &link, end, &conds, spelling)
            })
        })
        .boxed()
}

fn spelled(
    tables: &[usize],
    link: &dyn Fn(usize) -> Option<(String, String)>,
    end: Option<String>,
    conds: &[Option<String>],
    spelling: u8,
) -> String {
    let table = |i: usize| TABLES[tables[i]].0;
    let joined = |parts: Vec<String>| {
        if parts.is_empty() {
            "TRUE".into()
        } else {
            parts.join(" AND ")
        }
    };
    match spelling {
        // One EXISTS with joins.
        0 => {
            let mut from = format!("{} {}", table(0), HOPS[0]);
            for (i, hop) in HOPS.iter().enumerate().take(tables.len()).skip(1) {
                let (near, far) = link(i).unwrap();
                from += &format!(" JOIN {} {hop} ON {far} = {near}", table(i));
            }
            let start = link(0).map(|(near, far)| format!("{far} = {near}"));
            let all = start
                .into_iter()
                .chain(conds.iter().flatten().cloned())
                .chain(end);
            format!(
                "EXISTS (SELECT 1 FROM {from} WHERE {})",
                joined(all.collect())
            )
        }
        // EXISTS within EXISTS.
        1 => {
            let mut inner = end;
            for i in (0..tables.len()).rev() {
                let start = link(i).map(|(near, far)| format!("{near} = {far}"));
                let all = start.into_iter().chain(conds[i].clone()).chain(inner);
                let all = joined(all.collect());
                inner = Some(format!(
                    "EXISTS (SELECT * FROM {} AS {} WHERE {all})",
                    table(i),
                    HOPS[i]
                ));
            }
            inner.unwrap()
        }
        // IN within IN.
        _ => {
            let mut inner = end;
            for i in (0..tables.len()).rev() {
                let all = joined(conds[i].clone().into_iter().chain(inner).collect());
                let from = format!("FROM {} {} WHERE {all}", table(i), HOPS[i]);
                inner = Some(match link(i) {
                    Some((near, far)) => format!("{near} IN (SELECT {far} {from})"),
                    None => format!("EXISTS (SELECT 1 {from})"),
                });
            }
            inner.unwrap()
        }
    }
}

/// `readable` of the parent, where the table has one.
fn inherited(at: usize, function: &'static str) -> Option<BoxedStrategy<String>> {
    let (name, _, parent) = TABLES[at];
    let (column, parent) = parent?;
    Some(Just(format!("{name}.{column} IN {function}({parent})")).boxed())
}

/// A read rule of the table at `at`, or none.
fn read_rule(at: usize) -> BoxedStrategy<Option<String>> {
    let name = TABLES[at].0;
    let mut links = vec![(3, equals_user(at, name)), (4, chain(at, name))];
    links.push((1, Just("TRUE".to_owned()).boxed()));
    let link = proptest::strategy::Union::new_weighted(links);
    let user = proptest::option::weighted(0.2, of_user());
    let mut branches = vec![(
        2,
        (link, user)
            .prop_map(|(link, user)| and([Some(link), user]))
            .boxed(),
    )];
    if let Some(inherited) = inherited(at, "readable") {
        branches.push((2, inherited));
    }
    let branch = (
        proptest::strategy::Union::new_weighted(branches),
        proptest::option::weighted(0.3, own(at, name)),
    );
    let branch = branch.prop_map(|(branch, own)| and([own, Some(branch)]));
    let rule = (
        vec(branch, 1..4),
        proptest::option::weighted(0.2, own(at, name)),
    );
    let rule =
        rule.prop_map(|(branches, own)| and([Some(format!("({})", branches.join(" OR "))), own]));
    proptest::option::weighted(0.9, rule).boxed()
}

fn and(parts: [Option<String>; 2]) -> String {
    parts
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// A write rule: the same, with any number of links, the old and the new row.
fn write_rule(at: usize) -> BoxedStrategy<Option<String>> {
    let name = TABLES[at].0;
    let image = |image: &'static str| (own(at, image), proptest::bool::ANY);
    let of_images =
        (image("old"), image("new")).prop_map(|((old, both), (new, one))| match (both, one) {
            (true, _) => format!("({old} AND {new})"),
            (false, true) => old,
            (false, false) => new,
        });
    let mixed = select(columns(at, false)).prop_map(move |c| format!("old.{c} = {name}.{c}"));
    let mut parts = vec![
        (3, equals_user(at, name)),
        (3, chain(at, name)),
        (2, own(at, name)),
        (1, of_user().boxed()),
        (1, of_images.boxed()),
        (1, mixed.boxed()),
    ];
    for function in ["readable", "writable"] {
        parts.extend(inherited(at, function).map(|inherited| (2, inherited)));
    }
    let part = proptest::strategy::Union::new_weighted(parts);
    let branch = vec(part, 1..3).prop_map(|parts| parts.join(" AND "));
    // Often what real rules say: the owner may, and whoever may write the parent.
    let own = Just(format!("{name}._owner = auth.uid()")).boxed();
    let mut branches = vec![(3, branch.boxed()), (2, own)];
    branches.extend(inherited(at, "writable").map(|inherited| (4, inherited)));
    branches.push((2, chain(at, name)));
    let rule = vec(proptest::strategy::Union::new_weighted(branches), 1..4);
    let rule = rule.prop_map(|branches| branches.join(" OR "));
    proptest::option::weighted(0.9, rule).boxed()
}

/// A schema with read rules.
pub(super) fn readable_schema() -> impl Strategy<Value = Schema> {
    let rules: Vec<_> = (0..TABLES.len())
        .map(|at| (read_rule(at), any::<bool>()))
        .collect();
    rules.prop_map(|rules| {
        let tables = blank().into_iter().zip(rules);
        schema(tables.map(|(mut table, (rule, on_demand))| {
            table.rules.read = rule;
            if on_demand {
                table.sync = SyncMode::OnDemand;
            }
            table
        }))
    })
}

/// A schema with rules for reading and writing.
pub(super) fn writable_schema() -> impl Strategy<Value = Schema> {
    let rules: Vec<_> = (0..TABLES.len())
        .map(|at| (read_rule(at), write_rule(at)))
        .collect();
    rules.prop_map(|rules| {
        schema(
            blank()
                .into_iter()
                .zip(rules)
                .map(|(mut table, (read, write))| {
                    table.rules.read = read;
                    table.rules.write = write;
                    table
                }),
        )
    })
}
