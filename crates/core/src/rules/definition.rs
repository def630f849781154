//! The one way to write a branch down, by names: what families are hashed from.

use std::fmt::Write;

use super::{
    branch::{Chain, Hop, Link, ReadBranch},
    cond::Cond,
    scope::{field_name, field_type},
    term::{Field, Shape, Term, UserSource, UserTerm},
};
use crate::{
    schema::{Schema, Table},
    value::Value,
};

/// A read branch of `table`.
pub(super) fn of_branch(schema: &Schema, table: &Table, branch: &ReadBranch) -> String {
    let link = match &branch.link {
        Link::Everybody => "everybody".to_owned(),
        Link::User(field, term) => format!("{} = {}", of_field(table, *field), of_user(term)),
        Link::Parent(column, parent) => {
            let column = of_field(table, Field::from(*column));
            format!(
                "{column} in readable({})",
                quoted(&schema.tables[*parent].name)
            )
        }
        Link::Chain(chain) => of_chain(schema, table, chain),
    };
    let (row, user) = (of_all(table, &branch.row), of_all(table, &branch.user));
    format!("{} where {row} for {user} by {link}", quoted(&table.name))
}

/// What an identity needs to be a grantee: conditions on the user, and what the value is.
pub(super) fn of_grantee(table: &Table, user: &[Cond], end: Option<&UserTerm>) -> String {
    let end = end.map_or_else(|| "everybody".to_owned(), of_user);
    format!("{} for {end}", of_all(table, user))
}

fn of_chain(schema: &Schema, table: &Table, chain: &Chain) -> String {
    let start = chain
        .start
        .map(|(_, column)| of_field(table, Field::from(column)));
    let mut out = start.unwrap_or_else(|| "any".to_owned());
    for Hop {
        table,
        left,
        right,
        conds,
    } in &chain.hops
    {
        let table = &schema.tables[*table];
        let left = left.map_or_else(|| "any".to_owned(), |c| of_field(table, Field::from(c)));
        let right = right.map_or_else(|| "any".to_owned(), |field| of_field(table, field));
        let conds = of_all(table, conds);
        out.push_str(&format!(
            " -> {}[{left}, {right}, {conds}]",
            quoted(&table.name)
        ));
    }
    out + " -> "
        + &chain
            .end
            .as_ref()
            .map_or_else(|| "everybody".to_owned(), of_user)
}

fn of_all(table: &Table, conds: &[Cond]) -> String {
    let conds: Vec<String> = conds.iter().map(|cond| of_cond(table, cond)).collect();
    format!("({})", conds.join(" and "))
}

fn of_cond(table: &Table, cond: &Cond) -> String {
    written(cond, &|term| match term {
        Term::Field(_, field) => of_field(table, *field),
        Term::User(term) => of_user(term),
        Term::Literal(value) => of_value(value),
    })
}

/// A condition, with terms written by `term`.
pub(super) fn written(cond: &Cond, term: &dyn Fn(&Term) -> String) -> String {
    let not = |negated: bool| if negated { "NOT " } else { "" };
    let list = |list: &[Cond], between: &str| {
        let list: Vec<String> = list.iter().map(|cond| written(cond, term)).collect();
        format!("({})", list.join(between))
    };
    match cond {
        Cond::Const(value) => value.to_string().to_uppercase(),
        Cond::Compare { op, left, right } => format!("{} {} {}", term(left), op.sql(), term(right)),
        Cond::IsNull { term: t, negated } => format!("{} IS {}NULL", term(t), not(*negated)),
        Cond::In {
            term: t,
            list,
            negated,
        } => {
            let list: Vec<String> = list.iter().map(of_value).collect();
            format!("{} {}IN ({})", term(t), not(*negated), list.join(", "))
        }
        Cond::And(conds) => list(conds, " AND "),
        Cond::Or(conds) => list(conds, " OR "),
    }
}

fn of_field(table: &Table, field: Field) -> String {
    // The type belongs to it: values of the user are read in it.
    format!(
        "{}:{:?}",
        quoted(field_name(table, field)),
        field_type(table, field)
    )
}

fn of_user(term: &UserTerm) -> String {
    let shape = match term.shape {
        Shape::Text => "text",
        Shape::Uuid => "uuid",
        Shape::Number => "number",
        Shape::Boolean => "boolean",
        Shape::Natural => "natural",
    };
    match &term.source {
        UserSource::Uid => format!("auth.uid():{shape}"),
        UserSource::Role => format!("auth.role():{shape}"),
        UserSource::Claim(path) => {
            let path: Vec<String> = path.iter().map(|name| text(name)).collect();
            format!("auth.claim({}):{shape}", path.join(", "))
        }
    }
}

/// A literal of SQL.
pub(super) fn of_value(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(value) => text(value),
        Value::Blob(bytes) => {
            let mut out = "X'".to_owned();
            for byte in bytes {
                write!(out, "{byte:02x}").expect("a String takes everything");
            }
            out + "'"
        }
    }
}

fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name, so that no name can be mistaken for anything else. ASCII case says nothing in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.to_ascii_lowercase().replace('"', "\"\""))
}
