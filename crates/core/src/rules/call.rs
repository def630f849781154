//! Terms: columns, literals, and what is known of the user in its various spellings.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are open: whatever is not named here is refused"
)]

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr as Sql, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, Query, SelectItem, SetExpr, UnaryOperator, Value as SqlValue,
};

use super::{
    compare::{Literal, Side},
    lower::Lowerer,
    refusal::Refusal,
    term::{Shape, UserSource},
};
use crate::{schema::ColumnType, value::Value};

/// Most members in a path into a claim.
const CLAIM_PATH_MAX: usize = 8;

impl Lowerer<'_> {
    /// One side of a comparison.
    pub(super) fn side(&mut self, sql: &Sql) -> Result<Side, Refusal> {
        self.nested(sql, |lowerer| lowerer.side_inside(sql))
    }

    fn side_inside(&mut self, sql: &Sql) -> Result<Side, Refusal> {
        match sql {
            Sql::Nested(inner) => self.side(inner),
            Sql::Identifier(name) => self.column(sql, std::slice::from_ref(name)),
            Sql::CompoundIdentifier(parts) => self.column(sql, parts),
            Sql::Value(value) => self.literal(sql, &value.value).map(Side::Literal),
            Sql::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => self.negative(sql, expr),
            Sql::Function(function) => self.user(sql, function),
            Sql::BinaryOp {
                op: BinaryOperator::Arrow | BinaryOperator::LongArrow,
                ..
            } => self.claim(sql),
            Sql::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
            } => self.cast(sql, expr, data_type),
            Sql::Subquery(query) => match scalar(query) {
                Some(inner) => self.side(inner),
                None => Err(self.unknown(sql)),
            },
            _ => Err(self.unknown(sql)),
        }
    }

    fn column(&self, sql: &Sql, parts: &[Ident]) -> Result<Side, Refusal> {
        let found = self.scopes.find(parts, &self.clause(sql))?;
        let ty = self.type_of(found.place, found.field);
        Ok(Side::Field {
            place: found.place,
            field: found.field,
            ty,
        })
    }

    fn literal(&self, sql: &Sql, value: &SqlValue) -> Result<Literal, Refusal> {
        Ok(match value {
            SqlValue::Null => Literal::Null,
            SqlValue::Boolean(yes) => Literal::Boolean(*yes),
            SqlValue::SingleQuotedString(text) => Literal::Value(Value::Text(text.clone())),
            SqlValue::Number(digits, _) => match number(digits) {
                Some(value) => Literal::Value(value),
                None => return Err(self.unknown(sql)),
            },
            SqlValue::HexStringLiteral(digits) => match bytes(digits) {
                Some(bytes) => Literal::Value(Value::Blob(bytes)),
                None => return Err(self.unknown(sql)),
            },
            _ => return Err(self.unknown(sql)),
        })
    }

    fn negative(&mut self, sql: &Sql, expr: &Sql) -> Result<Side, Refusal> {
        // -9223372036854775808 is an integer although its digits alone are not.
        if let Sql::Value(value) = expr
            && let SqlValue::Number(digits, _) = &value.value
            && let Some(value) = number(&format!("-{digits}"))
        {
            return Ok(Side::Literal(Literal::Value(value)));
        }
        Err(self.unknown(sql))
    }

    /// `auth.uid()`, `auth.role()`, `auth.email()`, `auth.claim('x')`.
    fn user(&self, sql: &Sql, function: &Function) -> Result<Side, Refusal> {
        let Some(name) = auth_function(function) else {
            return Err(self.unknown(sql));
        };
        let args = text_arguments(&function.args);
        let source = match (name.as_str(), args.as_deref()) {
            ("uid", Some([])) => UserSource::Uid,
            ("role", Some([])) => UserSource::Role,
            ("email", Some([])) => UserSource::Claim(vec!["email".into()]),
            ("claim", Some(path)) if !path.is_empty() => return self.claim_at(sql, path.to_vec()),
            ("jwt", Some([])) => {
                let suggestion = "take a claim of it: `auth.jwt() ->> 'name'`";
                return Err(self.refuse(sql, "the whole token is no value", suggestion));
            }
            _ => return Err(self.unknown(sql)),
        };
        Ok(Side::User { source, cast: None })
    }

    /// `auth.jwt() -> 'a' ->> 'b'`.
    fn claim(&self, sql: &Sql) -> Result<Side, Refusal> {
        let usage =
            "only claims can be taken apart, as in `auth.jwt() -> 'app_metadata' ->> 'role'`";
        let Sql::BinaryOp {
            op: BinaryOperator::LongArrow,
            ..
        } = sql
        else {
            let suggestion = "end it with `->>`, which gives text";
            return Err(self.refuse(sql, "`->` gives JSON, which cannot be compared", suggestion));
        };
        let mut path = Vec::new();
        let mut rest = sql;
        while let Sql::BinaryOp {
            left,
            op: BinaryOperator::Arrow | BinaryOperator::LongArrow,
            right,
        } = rest
        {
            let last = path.is_empty();
            let arrow = matches!(
                rest,
                Sql::BinaryOp {
                    op: BinaryOperator::Arrow,
                    ..
                }
            );
            let Some(name) = text_of(right) else {
                return Err(self.refuse(sql, "the member is not named by a text", usage));
            };
            if arrow == last {
                return Err(self.refuse(sql, "`->>` gives text, which has no members", usage));
            }
            path.push(name);
            rest = left;
        }
        let rest = strip(rest);
        let jwt = matches!(rest, Sql::Function(f) if auth_function(f).as_deref() == Some("jwt"));
        if !jwt {
            // `current_setting('request.jwt.claims')::json ->> 'sub'` and the like.
            if let Sql::Function(_) = without_casts(rest) {
                return Err(self.unknown(without_casts(rest)));
            }
            let message = "members of JSON columns cannot be used in rules";
            return Err(self.refuse(sql, message, "keep the value in a column of its own"));
        }
        path.reverse();
        self.claim_at(sql, path)
    }

    fn claim_at(&self, sql: &Sql, path: Vec<String>) -> Result<Side, Refusal> {
        if path.len() > CLAIM_PATH_MAX {
            let message = format!("the path into the token has more than {CLAIM_PATH_MAX} members");
            return Err(self.refuse(sql, message, "put the claim higher in the token"));
        }
        let uid = path.len() == 1 && path[0] == "sub";
        let source = if uid {
            UserSource::Uid
        } else {
            UserSource::Claim(path)
        };
        Ok(Side::User { source, cast: None })
    }

    fn cast(&mut self, sql: &Sql, expr: &Sql, data_type: &DataType) -> Result<Side, Refusal> {
        let side = self.side(expr)?;
        let Some(shape) = shape(data_type) else {
            return Err(self.unknown(sql));
        };
        match side {
            Side::User { source, cast: None } => Ok(Side::User {
                source,
                cast: Some(shape),
            }),
            Side::User {
                source,
                cast: Some(Shape::Text),
            } => Ok(Side::User {
                source,
                cast: Some(shape),
            }),
            Side::Field { ty, .. } if keeps_value(ty, shape) => Ok(side),
            Side::Literal(Literal::Value(Value::Text(_)))
                if matches!(shape, Shape::Text | Shape::Uuid) =>
            {
                Ok(side)
            }
            Side::Literal(Literal::Value(Value::Integer(_))) if shape == Shape::Number => Ok(side),
            Side::Literal(Literal::Boolean(_)) if shape == Shape::Boolean => Ok(side),
            Side::User { .. } | Side::Field { .. } | Side::Literal(_) => Err(self.refuse(
                sql,
                "the cast would change the value, and databases do not agree how",
                "leave out the cast and compare with a value of the same type",
            )),
        }
    }
}

/// The expression of `(SELECT expression)`, which is how policies ask for `auth.uid()` once.
pub(super) fn scalar(query: &Query) -> Option<&Sql> {
    let SetExpr::Select(select) = &*query.body else {
        return None;
    };
    let item = select.projection.first()?;
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
        return None;
    };
    // Nothing but the expression, or the text would be longer.
    (query.to_string() == format!("SELECT {item}")).then_some(expr)
}

/// The expression without parentheses, SELECT and casts around it.
fn without_casts(mut sql: &Sql) -> &Sql {
    while let Sql::Cast { expr, .. } = sql {
        sql = strip(expr);
    }
    sql
}

/// The expression without parentheses and SELECT around it.
fn strip(mut sql: &Sql) -> &Sql {
    loop {
        sql = match sql {
            Sql::Nested(inner) => inner,
            Sql::Subquery(query) => match scalar(query) {
                Some(inner) => inner,
                None => return sql,
            },
            _ => return sql,
        };
    }
}

/// The name after `auth.`, in lower case.
fn auth_function(function: &Function) -> Option<String> {
    let plain = function.over.is_none() && function.filter.is_none();
    match &function.name.0[..] {
        [schema, name] if plain && schema.as_ident()?.value.eq_ignore_ascii_case("auth") => {
            Some(name.as_ident()?.value.to_ascii_lowercase())
        }
        _ => None,
    }
}

/// The arguments, if all of them are texts.
fn text_arguments(args: &FunctionArguments) -> Option<Vec<String>> {
    let FunctionArguments::List(list) = args else {
        return None;
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    list.args
        .iter()
        .map(|arg| text_of(argument(arg)?))
        .collect()
}

/// The one argument, if it is the name of a table.
pub(super) fn table_argument(args: &FunctionArguments) -> Option<&Ident> {
    let FunctionArguments::List(list) = args else {
        return None;
    };
    match &list.args[..] {
        [arg] => match argument(arg)? {
            Sql::Identifier(name) => Some(name),
            Sql::CompoundIdentifier(parts) => match &parts[..] {
                [schema, name] if super::scope::is_default_schema(schema) => Some(name),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn argument(arg: &FunctionArg) -> Option<&Sql> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(sql)) => Some(sql),
        _ => None,
    }
}

fn text_of(sql: &Sql) -> Option<String> {
    match sql {
        Sql::Value(value) => match &value.value {
            SqlValue::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn number(digits: &str) -> Option<Value> {
    if let Ok(n) = digits.parse() {
        return Some(Value::Integer(n));
    }
    let x: f64 = digits.parse().ok()?;
    // An integer too large for SQLite would silently become another number.
    (x.is_finite() && digits.contains(['.', 'e', 'E'])).then_some(Value::Real(x))
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).ok())
        .collect()
}

fn shape(data_type: &DataType) -> Option<Shape> {
    Some(match data_type {
        DataType::Text
        | DataType::Varchar(None)
        | DataType::CharacterVarying(None)
        | DataType::String(None) => Shape::Text,
        DataType::Uuid => Shape::Uuid,
        DataType::SmallInt(None)
        | DataType::Int(None)
        | DataType::Integer(None)
        | DataType::BigInt(None)
        | DataType::Int2(None)
        | DataType::Int4(None)
        | DataType::Int8(None)
        | DataType::Numeric(_)
        | DataType::Real
        | DataType::Float8
        | DataType::DoublePrecision => Shape::Number,
        DataType::Boolean | DataType::Bool => Shape::Boolean,
        _ => return None,
    })
}

/// Whether every value of the column stays itself under the cast, in every database.
fn keeps_value(ty: ColumnType, shape: Shape) -> bool {
    match shape {
        Shape::Text => matches!(ty, ColumnType::Text | ColumnType::Uuid),
        Shape::Uuid => ty == ColumnType::Uuid,
        Shape::Number => ty == ColumnType::Integer,
        Shape::Boolean => ty == ColumnType::Boolean,
        Shape::Natural => false,
    }
}
