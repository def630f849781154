//! From the parser's syntax tree to the typed condition. What does not fit is refused here.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are open: whatever is not named here is refused"
)]

use sqlparser::ast::{
    BinaryOperator, Expr as Sql, FunctionArguments, Query, UnaryOperator, Value as SqlValue,
};

use super::{
    call::{scalar, table_argument},
    compare::{Literal, Mismatch, Side, compare, for_field, shape_for},
    cond::{Comparison, Cond},
    normal::{Expr, Inherit, Mode},
    parse::is_inheritance,
    refusal::{Clause, Refusal},
    scope::{Scopes, field_type},
    term::{Field, Place, Shape, Term, UserTerm},
};
use crate::{schema::ColumnType, value::Value};

/// How deep operators may nest once chains of AND and OR are flat.
const DEPTH_MAX: usize = 40;

/// Most values of one `IN (…)` list.
const LIST_MAX: usize = 256;

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

    fn compared(
        &self,
        sql: &Sql,
        op: Comparison,
        left: Side,
        right: Side,
    ) -> Result<Expr, Refusal> {
        let cond = compare(op, left, right).map_err(|mismatch| self.mismatch(sql, mismatch))?;
        Ok(self.cond(sql, cond))
    }

    fn between(&mut self, sql: &Sql, parts: [&Sql; 3], negated: bool) -> Result<Expr, Refusal> {
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

    fn is_null(&mut self, sql: &Sql, inner: &Sql, negated: bool) -> Result<Expr, Refusal> {
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
    fn is_boolean(
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
    fn boolean(&mut self, sql: &Sql, inner: &Sql) -> Result<Term, Refusal> {
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

    fn is(&self, sql: &Sql, left: Term, value: bool) -> Expr {
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

    fn in_list(
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
    fn inherit(
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
            return Err(self.refuse(sql, message, "name a table that syncs"));
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
    fn lookup(
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
