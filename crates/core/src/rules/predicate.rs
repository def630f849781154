//! Predicates on one value: ranges, NULL, booleans.

use sqlparser::ast::Expr as Sql;

use super::{
    compare::{Literal, Side},
    cond::{Comparison, Cond},
    lower::Lowerer,
    normal::Expr,
    refusal::Refusal,
    term::{Shape, Term, UserTerm},
};
use crate::{schema::ColumnType, value::Value};

impl Lowerer<'_> {
    pub(super) fn between(
        &mut self,
        sql: &Sql,
        parts: [&Sql; 3],
        negated: bool,
    ) -> Result<Expr, Refusal> {
        let [value, low, high] = parts;
        let (value, low, high) = (self.side(value)?, self.side(low)?, self.side(high)?);
        let (above, below) = (Comparison::GreaterOrEqual, Comparison::LessOrEqual);
        if negated {
            return Ok(Expr::Or(vec![
                self.compared(sql, above.negated(), value.clone(), low)?,
                self.compared(sql, below.negated(), value, high)?,
            ]));
        }
        Ok(Expr::And(vec![
            self.compared(sql, above, value.clone(), low)?,
            self.compared(sql, below, value, high)?,
        ]))
    }

    pub(super) fn is_null(
        &mut self,
        sql: &Sql,
        inner: &Sql,
        negated: bool,
    ) -> Result<Expr, Refusal> {
        let term = match self.side(inner)? {
            Side::Field { place, field, .. } => Term::Field(place, field),
            Side::User { source, cast } => Term::User(UserTerm {
                source,
                shape: cast.unwrap_or(Shape::Text),
            }),
            Side::Literal(literal) => {
                return Ok(self.cond(sql, Cond::Const((literal == Literal::Null) != negated)));
            }
        };
        Ok(self.cond(sql, Cond::IsNull { term, negated }))
    }

    /// `x IS TRUE` and its kin, which are never unknown.
    pub(super) fn is_boolean(
        &mut self,
        sql: &Sql,
        inner: &Sql,
        value: bool,
        negated: bool,
    ) -> Result<Expr, Refusal> {
        let term = self.boolean(sql, inner)?;
        let equal = |op| Cond::Compare {
            op,
            left: term.clone(),
            right: Term::Literal(Value::Integer(i64::from(value))),
        };
        let null = |negated| Cond::IsNull {
            term: term.clone(),
            negated,
        };
        Ok(self.cond(
            sql,
            if negated {
                Cond::Or(vec![null(false), equal(Comparison::NotEqual)])
            } else {
                Cond::And(vec![null(true), equal(Comparison::Equal)])
            },
        ))
    }

    /// A condition that is a boolean column, or a value of the user cast to boolean.
    pub(super) fn boolean(&mut self, sql: &Sql, inner: &Sql) -> Result<Term, Refusal> {
        match self.side(inner)? {
            Side::Field {
                place,
                field,
                ty: ColumnType::Boolean,
            } => Ok(Term::Field(place, field)),
            Side::User {
                source,
                cast: Some(shape @ Shape::Boolean),
            } => Ok(Term::User(UserTerm { source, shape })),
            Side::Field { .. } | Side::User { .. } | Side::Literal(_) => Err(self.refuse(
                sql,
                "not a condition: it is neither a comparison nor a boolean column",
                format!("compare it, for example `{inner} = …` or `{inner} IS NOT NULL`"),
            )),
        }
    }

    pub(super) fn is(&self, sql: &Sql, left: Term, value: bool) -> Expr {
        let right = Term::Literal(Value::Integer(i64::from(value)));
        self.cond(
            sql,
            Cond::Compare {
                op: Comparison::Equal,
                left,
                right,
            },
        )
    }
}
