//! `IN` and `EXISTS`: lists, inheritance, lookups.

use sqlparser::ast::{Expr as Sql, FunctionArguments, Query};

use super::{
    call::table_argument,
    compare::{Literal, Mismatch, Side, compare, for_field},
    cond::{Comparison, Cond},
    lower::Lowerer,
    normal::{Expr, Inherit, Mode},
    parse::is_inheritance,
    refusal::Refusal,
    term::Term,
};
use crate::value::Value;

/// Most values of one `IN (…)` list.
const LIST_MAX: usize = 256;

impl Lowerer<'_> {
    pub(super) fn in_list(
        &mut self,
        sql: &Sql,
        value: &Sql,
        list: &[Sql],
        negated: bool,
    ) -> Result<Expr, Refusal> {
        if let [Sql::Function(function)] = list
            && let Some(name) = function.name.0.last().and_then(|part| part.as_ident())
            && is_inheritance(&name.value)
        {
            return self.inherit(sql, value, &name.value, &function.args, negated);
        }
        if list.len() > LIST_MAX {
            let suggestion = "keep the values in a table and write `column IN (SELECT … FROM t)`";
            let message = format!("the list has more than {LIST_MAX} values");
            return Err(self.refuse(sql, message, suggestion));
        }
        let value = self.side(value)?;
        let items: Result<Vec<Side>, Refusal> = list.iter().map(|item| self.side(item)).collect();
        let items = items?;
        if let Side::Field { place, field, ty } = &value {
            let literals = items.iter().map(|item| match item {
                Side::Literal(literal) if *literal != Literal::Null => {
                    Some(for_field(*field, *ty, literal.clone()))
                }
                Side::Literal(_) | Side::Field { .. } | Side::User { .. } => None,
            });
            if let Some(literals) = literals.collect::<Option<Vec<_>>>() {
                let literals: Result<Vec<Value>, Mismatch> = literals.into_iter().collect();
                let list = literals.map_err(|mismatch| self.mismatch(sql, mismatch))?;
                let term = Term::Field(*place, *field);
                return Ok(self.cond(
                    sql,
                    Cond::In {
                        term,
                        list,
                        negated,
                    },
                ));
            }
        }
        let op = if negated {
            Comparison::NotEqual
        } else {
            Comparison::Equal
        };
        let items: Result<Vec<Expr>, Refusal> = items
            .into_iter()
            .map(|item| self.compared(sql, op, value.clone(), item))
            .collect();
        Ok(if negated {
            Expr::And(items?)
        } else {
            Expr::Or(items?)
        })
    }

    /// `column IN readable(parent)`.
    pub(super) fn inherit(
        &mut self,
        sql: &Sql,
        value: &Sql,
        function: &str,
        args: &FunctionArguments,
        negated: bool,
    ) -> Result<Expr, Refusal> {
        let mode = if function.eq_ignore_ascii_case("readable") {
            Mode::Read
        } else {
            Mode::Write
        };
        let usage = format!("write `column IN {}(parent_table)`", mode.function());
        if negated {
            return Err(self.refuse(sql, "a rule cannot be inherited negated", usage));
        }
        let Side::Field { place, field, ty } = self.side(value)? else {
            return Err(self.refuse(sql, "only a column can lead to a parent", usage));
        };
        let Some(parent) = table_argument(args) else {
            return Err(self.refuse(sql, "the parent is not the name of a table", usage));
        };
        let tables = &self.scopes.schema.tables;
        let Some(at) = tables
            .iter()
            .position(|t| t.name.eq_ignore_ascii_case(&parent.value))
        else {
            let message = format!("there is no table `{}`", parent.value);
            let usage = format!(
                "add [tables.{}] to the file, or name one that is there",
                parent.value
            );
            return Err(self.refuse(sql, message, &usage));
        };
        let [key] = tables[at].primary_key[..] else {
            return Err(self.refuse(
                sql,
                format!("the key of `{}` has several columns", tables[at].name),
                "write the rule of the parent out, with `column IN (SELECT …)`",
            ));
        };
        let key = Side::Field {
            place,
            field,
            ty: tables[at].columns[key].ty,
        };
        let child = Side::Field { place, field, ty };
        compare(Comparison::Equal, child, key).map_err(|mismatch| self.mismatch(sql, mismatch))?;
        Ok(Expr::Inherit(
            Inherit {
                place,
                field,
                parent: at,
                mode,
            },
            self.clause(sql),
        ))
    }

    /// `value IN (SELECT …)`, or without a value `EXISTS (SELECT …)`.
    pub(super) fn lookup(
        &mut self,
        sql: &Sql,
        value: Option<&Sql>,
        query: &Query,
        negated: bool,
    ) -> Result<Expr, Refusal> {
        if negated {
            return Err(self.refuse(
                sql,
                "a lookup in another table cannot be negated",
                "say who may, not who may not: keep a row for everybody who may, or a column in \
                 the row itself",
            ));
        }
        // The value belongs to the outer query: its names are resolved before the inner ones.
        let value = value.map(|value| self.side(value)).transpose()?;
        self.scopes.enter();
        let expr = self.subquery(sql, value, query);
        self.scopes.leave();
        expr
    }
}
