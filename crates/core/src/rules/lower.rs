//! From the parser's syntax tree to the typed condition. What does not fit is refused here.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are open: whatever is not named here is refused"
)]

use sqlparser::ast::{BinaryOperator, Expr as Sql, UnaryOperator, Value as SqlValue};

use super::{
    call::scalar,
    compare::{Mismatch, Side, compare, for_field, shape_for},
    cond::{Comparison, Cond},
    normal::Expr,
    refusal::{Clause, Refusal},
    scope::{Scopes, field_type},
    term::{Field, Place, Term, UserTerm},
};
use crate::schema::ColumnType;

/// How deep operators may nest once chains of AND and OR are flat.
const DEPTH_MAX: usize = 40;

/// Lowers the rule `text` of one table.
#[derive(Debug)]
pub(super) struct Lowerer<'a> {
    pub(super) text: &'a str,
    pub(super) scopes: Scopes<'a>,
    depth: usize,
}

impl<'a> Lowerer<'a> {
    pub(super) fn new(text: &'a str, scopes: Scopes<'a>) -> Self {
        Self {
            text,
            scopes,
            depth: 0,
        }
    }

    /// The condition `sql`, or its negation.
    pub(super) fn condition(&mut self, sql: &Sql, negated: bool) -> Result<Expr, Refusal> {
        self.nested(sql, |lowerer| lowerer.condition_inside(sql, negated))
    }

    /// Does `work` one level deeper, if that is not too deep.
    pub(super) fn nested<T>(
        &mut self,
        sql: &Sql,
        work: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if self.depth >= DEPTH_MAX {
            let message = format!("the condition nests deeper than {DEPTH_MAX} levels");
            return Err(self.refuse(sql, message, "write it flatter"));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn condition_inside(&mut self, sql: &Sql, negated: bool) -> Result<Expr, Refusal> {
        match sql {
            Sql::Nested(inner) => self.condition(inner, negated),
            Sql::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => self.condition(expr, !negated),
            Sql::BinaryOp {
                op: BinaryOperator::And | BinaryOperator::Or,
                ..
            } => self.connective(sql, negated),
            Sql::BinaryOp { left, op, right } if comparison(op).is_some() => {
                let op = comparison(op).expect("matched just above");
                let op = if negated { op.negated() } else { op };
                let sides = (self.side(left)?, self.side(right)?);
                self.check_correlation(sql, [left, right], [&sides.0, &sides.1])?;
                self.compared(sql, op, sides.0, sides.1)
            }
            Sql::Between {
                expr,
                negated: not,
                low,
                high,
            } => self.between(sql, [expr, low, high], *not != negated),
            Sql::IsNull(inner) => self.is_null(sql, inner, negated),
            Sql::IsNotNull(inner) => self.is_null(sql, inner, !negated),
            Sql::IsTrue(inner) => self.is_boolean(sql, inner, true, negated),
            Sql::IsFalse(inner) => self.is_boolean(sql, inner, false, negated),
            Sql::IsNotTrue(inner) => self.is_boolean(sql, inner, true, !negated),
            Sql::IsNotFalse(inner) => self.is_boolean(sql, inner, false, !negated),
            Sql::InList {
                expr,
                list,
                negated: not,
            } => self.in_list(sql, expr, list, *not != negated),
            Sql::InSubquery {
                expr,
                subquery,
                negated: not,
            } => self.lookup(sql, Some(expr), subquery, *not != negated),
            Sql::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => match &**right {
                Sql::Subquery(query) => self.lookup(sql, Some(left), query, negated),
                _ => Err(self.unknown(sql)),
            },
            Sql::Exists {
                subquery,
                negated: not,
            } => self.lookup(sql, None, subquery, *not != negated),
            Sql::Subquery(query) => match scalar(query) {
                Some(inner) => self.condition(inner, negated),
                None => Err(self.unknown(sql)),
            },
            Sql::Value(value) => match value.value {
                SqlValue::Boolean(yes) => Ok(self.cond(sql, Cond::Const(yes != negated))),
                _ => Err(self.unknown(sql)),
            },
            Sql::Identifier(_)
            | Sql::CompoundIdentifier(_)
            | Sql::Cast { .. }
            | Sql::Function(_) => {
                let term = self.boolean(sql, sql)?;
                Ok(self.is(sql, term, !negated))
            }
            _ => Err(self.unknown(sql)),
        }
    }

    /// A chain of AND or of OR: the parser nests it to the left as deep as it is long.
    fn connective(&mut self, sql: &Sql, negated: bool) -> Result<Expr, Refusal> {
        let Sql::BinaryOp { op: chain, .. } = sql else {
            return Err(self.unknown(sql));
        };
        let mut operands = Vec::new();
        let mut rest = sql;
        while let Sql::BinaryOp { left, op, right } = rest
            && op == chain
        {
            operands.push(&**right);
            rest = left;
        }
        operands.push(rest);
        let list: Result<Vec<_>, _> = operands
            .into_iter()
            .rev()
            .map(|operand| self.condition(operand, negated))
            .collect();
        let is_and = *chain == BinaryOperator::And;
        Ok(if is_and == negated {
            Expr::Or(list?)
        } else {
            Expr::And(list?)
        })
    }

    pub(super) fn compared(
        &self,
        sql: &Sql,
        op: Comparison,
        left: Side,
        right: Side,
    ) -> Result<Expr, Refusal> {
        let cond = compare(op, left, right).map_err(|mismatch| self.mismatch(sql, mismatch))?;
        Ok(self.cond(sql, cond))
    }

    /// What a column of type `ty` is given by `sql`, if that is known without any row.
    pub(super) fn value_for(
        &mut self,
        sql: &Sql,
        field: Field,
        ty: ColumnType,
    ) -> Result<Option<Term>, Refusal> {
        let side = self.side(sql)?;
        let mismatch = |mismatch| self.mismatch(sql, mismatch);
        Ok(Some(match side {
            Side::Literal(literal) => {
                Term::Literal(for_field(field, ty, literal).map_err(mismatch)?)
            }
            Side::User { source, cast } => {
                let shape = shape_for(ty, &source, cast).map_err(mismatch)?;
                Term::User(UserTerm { source, shape })
            }
            Side::Field { .. } => return Ok(None),
        }))
    }

    pub(super) fn cond(&self, sql: &Sql, cond: Cond) -> Expr {
        Expr::Cond(cond, self.clause(sql))
    }

    pub(super) fn clause(&self, sql: &Sql) -> Clause {
        Clause::of(self.text, sql)
    }

    pub(super) fn refuse(
        &self,
        sql: &Sql,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Refusal {
        Refusal::new(self.clause(sql), message, suggestion)
    }

    pub(super) fn mismatch(&self, sql: &Sql, Mismatch(message, suggestion): Mismatch) -> Refusal {
        self.refuse(sql, message, suggestion)
    }

    /// The type of the column at a place.
    pub(super) fn type_of(&self, place: Place, field: Field) -> ColumnType {
        field_type(
            &self.scopes.schema.tables[self.scopes.table_at(place)],
            field,
        )
    }
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}
