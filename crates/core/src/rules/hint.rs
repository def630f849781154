//! What to write instead of SQL that rules do not understand.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are open: whatever is not named here is refused"
)]

use sqlparser::ast::{BinaryOperator, Expr as Sql, SetExpr};

use super::{lower::Lowerer, refusal::Refusal};

impl Lowerer<'_> {
    /// Refuses `sql` with the reason that its kind has.
    pub(super) fn unknown(&self, sql: &Sql) -> Refusal {
        let (message, suggestion) = match sql {
            Sql::Like { .. } | Sql::ILike { .. } | Sql::SimilarTo { .. } | Sql::RLike { .. } => (
                "patterns match differently in SQLite and PostgreSQL",
                "compare whole values with `=` or `IN (…)`, or keep a column that says it",
            ),
            Sql::BinaryOp { op, .. } if is_pattern(op) => (
                "patterns match differently in SQLite and PostgreSQL",
                "compare whole values with `=` or `IN (…)`, or keep a column that says it",
            ),
            Sql::BinaryOp { .. } | Sql::UnaryOp { .. } => (
                "rules do not compute values",
                "compare columns with values as they are, or keep the result in a column",
            ),
            Sql::Function(function) => match function.name.to_string().to_lowercase().as_str() {
                "readable" | "writable" => (
                    "a parent's rule is inherited through a column",
                    "write `column IN readable(parent_table)`",
                ),
                "now" | "current_timestamp" | "current_date" | "random" | "localtimestamp" => (
                    "the result would change without any row changing",
                    "keep a column that says it, and let a program change it in time",
                ),
                "current_setting" | "current_user" | "session_user" => (
                    "only the token says who asks",
                    "write `auth.uid()` or `auth.claim('name')`",
                ),
                "auth.claim" => ("a claim is named by texts", "write `auth.claim('name')`"),
                _ => (
                    "this function cannot be used in rules",
                    "functions are auth.uid(), auth.role(), auth.email(), auth.claim('name') and \
                     auth.jwt() ->> 'name'",
                ),
            },
            Sql::Subquery(query) if matches!(&*query.body, SetExpr::Select(_)) => (
                "a subquery may have several rows where one value is expected",
                "write `value IN (SELECT …)` or `EXISTS (SELECT 1 …)`",
            ),
            Sql::Tuple(_) => (
                "several columns cannot be compared at once",
                "compare one column, or write EXISTS (SELECT 1 FROM t WHERE t.a = a AND …)",
            ),
            Sql::Case { .. } => (
                "CASE cannot be used in rules",
                "write the cases with AND and OR",
            ),
            Sql::IsDistinctFrom(..) | Sql::IsNotDistinctFrom(..) => (
                "IS DISTINCT FROM cannot be used in rules",
                "write `a <> b OR a IS NULL`, or `a = b`",
            ),
            Sql::Value(_) => (
                "this literal cannot be used in rules",
                "write 'text', 12, 1.5, X'0aff', TRUE or FALSE",
            ),
            Sql::Cast { .. } => (
                "rules cast only to text, uuid, integer, numeric and boolean",
                "leave out the cast and compare with a value of the same type",
            ),
            Sql::AnyOp { .. } | Sql::AllOp { .. } | Sql::Array(_) => (
                "arrays cannot be used in rules",
                "write `column IN (…)` or `IN (SELECT …)`",
            ),
            _ => (
                "rules do not understand this",
                "use comparisons, IS NULL, IN, EXISTS, AND, OR and NOT",
            ),
        };
        self.refuse(sql, message, suggestion)
    }
}

fn is_pattern(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
            | BinaryOperator::PGLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGNotILikeMatch
            | BinaryOperator::Regexp
            | BinaryOperator::Match
    )
}
