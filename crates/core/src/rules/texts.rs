//! From the texts of one table to its branches.

use super::{
    RuleError,
    branch::{ReadBranch, WriteBranch},
    compile::TableRules,
    lower::Lowerer,
    normal::{Atom, BRANCHES_MAX, Expr, USER},
    parse::parse,
    parts::IMAGES,
    refusal::{Clause, Refusal},
    scope::Scopes,
    term::{Field, Place, Term},
};
use crate::{
    schema::{Schema, SyncMode},
    value::Value,
};

/// The branches of the rules of the table at `at`.
pub(super) fn table_rules(schema: &Schema, at: usize, errors: &mut Vec<RuleError>) -> TableRules {
    let table = &schema.tables[at];
    let mut note = |rule: &'static str, refusal: Refusal| {
        errors.push(refusal.within(&table.name, rule));
    };
    let texts = &table.rules;
    let read = texts
        .read
        .as_deref()
        .map(|text| read_rule(schema, at, text));
    let read = read.transpose().unwrap_or_else(|refusal| {
        note("read", refusal);
        None
    });
    let mut write = |rule: &'static str, text: &Option<String>| {
        let branches = text
            .as_deref()
            .map(|text| write_rule(schema, at, rule, text));
        branches.transpose().unwrap_or_else(|refusal| {
            note(rule, refusal);
            None
        })
    };
    let all = write("write", &texts.write);
    let [create, update, delete] = [
        ("create", &texts.create),
        ("update", &texts.update),
        ("delete", &texts.delete),
    ]
    .map(|(rule, text)| {
        write(rule, text)
            .or_else(|| all.clone())
            .unwrap_or_default()
    });
    let mut forced = Vec::new();
    for (column, text) in &table.force {
        match force(schema, at, column, text) {
            Ok(value) => forced.push(value),
            Err(refusal) => errors.push(refusal.within(&table.name, "force")),
        }
    }
    TableRules {
        number: table.number,
        name: table.name.clone(),
        types: table.columns.iter().map(|column| column.ty).collect(),
        key: match table.primary_key[..] {
            [only] => Some(only),
            _ => None,
        },
        read: read.unwrap_or_default(),
        create,
        update,
        delete,
        forced,
        on_demand: table.sync == SyncMode::OnDemand,
        own: None,
        placements: Vec::new(),
        hops: Vec::new(),
        children: Vec::new(),
        bucket_fields: Vec::new(),
        grant_fields: Vec::new(),
        lookups: Vec::new(),
        steps: Vec::new(),
        words: String::new(),
    }
}

fn read_rule(schema: &Schema, at: usize, text: &str) -> Result<Vec<ReadBranch>, Refusal> {
    let (branches, tables) = branches(schema, at, text, &[], 0)?;
    branches
        .into_iter()
        .map(|atoms| ReadBranch::new(schema, &tables, atoms))
        .collect()
}

fn write_rule(
    schema: &Schema,
    at: usize,
    rule: &str,
    text: &str,
) -> Result<Vec<WriteBranch>, Refusal> {
    let images: &[_] = match rule {
        "create" => &[("new", Place::NEW)],
        "delete" => &[("old", Place::OLD)],
        _ => &[("old", Place::OLD), ("new", Place::NEW)],
    };
    let (branches, tables) = branches(schema, at, text, images, IMAGES | USER)?;
    branches
        .into_iter()
        .map(|atoms| WriteBranch::new(schema, &tables, atoms))
        .collect()
}

fn branches(
    schema: &Schema,
    at: usize,
    text: &str,
    images: &[(&str, Place)],
    together: u64,
) -> Result<(Vec<Vec<Atom>>, Vec<usize>), Refusal> {
    let sql = parse(text)?;
    let mut lowerer = Lowerer::new(text, Scopes::new(schema, at, images));
    let expr: Expr = lowerer.condition(&sql, false)?;
    let branches = expr.packed(together).branches().map_err(|_| {
        Refusal::new(
            Clause::new(text),
            format!("written as alternatives, the rule has more than {BRANCHES_MAX} branches"),
            "move alternatives into a table of who may what, or into the read rule of a parent",
        )
    })?;
    Ok((branches, lowerer.scopes.into_tables()))
}

/// A column that the server sets, and to what.
fn force(schema: &Schema, at: usize, column: &str, text: &str) -> Result<(usize, Term), Refusal> {
    let table = &schema.tables[at];
    let usage = "write `column = \"auth.uid()\"`, a claim or a literal";
    let Some(position) = table
        .position(column)
        .filter(|&i| !table.columns[i].generated)
    else {
        let message = "not a column that can be set";
        return Err(Refusal::new(
            Clause::new(column),
            message,
            "name a column of the table",
        ));
    };
    if table.columns[position].encrypted.is_some() {
        return Err(Refusal::new(
            Clause::new(column),
            "the column is encrypted: the server has no key to set it with",
            "force a column that is not encrypted",
        ));
    }
    let sql = parse(text)?;
    let mut lowerer = Lowerer::new(text, Scopes::new(schema, at, &[]));
    let value = lowerer.value_for(&sql, Field::Column(position), table.columns[position].ty)?;
    match value {
        Some(Term::Literal(value)) if value == Value::Null && table.columns[position].not_null => {
            Err(Refusal::new(
                Clause::new(text),
                "the column is NOT NULL",
                usage,
            ))
        }
        Some(term) => Ok((position, term)),
        None => Err(Refusal::new(
            Clause::new(text),
            "not a value known without the row",
            usage,
        )),
    }
}
