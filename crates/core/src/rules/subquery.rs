//! Subqueries: their tables become joined places, their conditions part of one conjunction.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's enums are open: whatever is not named here is refused"
)]

use sqlparser::ast::{
    Expr as Sql, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr,
    TableFactor,
};

use super::{
    compare::{Side, compare},
    cond::Comparison,
    lower::Lowerer,
    normal::Expr,
    refusal::Refusal,
    scope::is_default_schema,
    term::Place,
};

impl Lowerer<'_> {
    /// The rows of `query` that equal `value`, or any row of it. The scope has been entered.
    pub(super) fn subquery(
        &mut self,
        sql: &Sql,
        value: Option<Side>,
        query: &Query,
    ) -> Result<Expr, Refusal> {
        let select = self.plain_select(sql, query, value.is_none())?;
        let mut places = Vec::new();
        let mut conditions = Vec::new();
        for from in &select.from {
            places.push(self.table(sql, &from.relation)?);
            for join in &from.joins {
                places.push(self.table(sql, &join.relation)?);
                match &join.join_operator {
                    JoinOperator::Join(JoinConstraint::On(on))
                    | JoinOperator::Inner(JoinConstraint::On(on)) => {
                        conditions.push(on);
                    }
                    JoinOperator::CrossJoin(JoinConstraint::None) => {}
                    _ => {
                        return Err(self.refuse(
                            sql,
                            "only inner joins with ON can be used in rules",
                            "write `JOIN t ON t.c = other.c`",
                        ));
                    }
                }
            }
        }
        conditions.extend(&select.selection);
        let mut list = Vec::new();
        for condition in conditions {
            list.push(self.condition(condition, false)?);
        }
        if let Some(value) = value {
            let item = self.selected(sql, select)?;
            let cond = compare(Comparison::Equal, value, item);
            let cond = cond.map_err(|mismatch| self.mismatch(sql, mismatch))?;
            list.push(self.cond(sql, cond));
        }
        let body = Expr::And(list);
        Ok(if places.is_empty() {
            body
        } else {
            Expr::Exists {
                places,
                body: Box::new(body),
            }
        })
    }

    /// A SELECT with nothing but columns, tables and conditions; and a LIMIT where it is only
    /// asked whether there is a row.
    fn plain_select<'q>(
        &self,
        sql: &Sql,
        query: &'q Query,
        is_exists: bool,
    ) -> Result<&'q Select, Refusal> {
        if let SetExpr::SetOperation { .. } = &*query.body {
            let suggestion = "write one lookup for each part, joined by OR";
            return Err(self.refuse(sql, "a subquery cannot be a UNION", suggestion));
        }
        let SetExpr::Select(select) = &*query.body else {
            return Err(self.unknown(sql));
        };
        // Printed again from the parts that are understood, the text must be the same: so
        // nothing that a subquery can also have (GROUP BY, LIMIT, …) is overlooked.
        let items: Vec<String> = select.projection.iter().map(ToString::to_string).collect();
        let tables: Vec<String> = select.from.iter().map(ToString::to_string).collect();
        let distinct = match &select.distinct {
            Some(distinct) if distinct.to_string() == "DISTINCT" => "DISTINCT ",
            _ => "",
        };
        let mut plain = format!("SELECT {distinct}{}", items.join(", "));
        if !tables.is_empty() {
            plain.push_str(&format!(" FROM {}", tables.join(", ")));
        }
        if let Some(selection) = &select.selection {
            plain.push_str(&format!(" WHERE {selection}"));
        }
        let text = query.to_string();
        let rest = text.strip_prefix(&plain);
        let is_limit = |rest: &str| {
            let count = rest.strip_prefix(" LIMIT ").map(str::parse::<u64>);
            is_exists && count.is_some_and(|count| count.is_ok_and(|count| count > 0))
        };
        if !rest.is_some_and(|rest| rest.is_empty() || is_limit(rest)) {
            return Err(self.refuse(
                sql,
                "a subquery in a rule has only SELECT, FROM, JOIN … ON and WHERE",
                "leave the rest out, or keep its result in a column",
            ));
        }
        Ok(select)
    }

    fn table(&mut self, sql: &Sql, factor: &TableFactor) -> Result<Place, Refusal> {
        let name_only = |name: &sqlparser::ast::ObjectName| -> Option<Ident> {
            let parts: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
            match parts?[..] {
                [name] => Some(name.clone()),
                [schema, name] if is_default_schema(schema) => Some(name.clone()),
                _ => None,
            }
        };
        if let TableFactor::Table { name, alias, .. } = factor {
            let plain = match alias {
                Some(alias) => format!("{name} {alias}"),
                None => name.to_string(),
            };
            if factor.to_string() == plain
                && let Some(name) = name_only(name)
            {
                let alias = alias.as_ref().map(|alias| &alias.name);
                return self.scopes.join(&name, alias, &self.clause(sql));
            }
        }
        Err(self.refuse(
            sql,
            "FROM names something other than a table",
            "name a table that syncs",
        ))
    }

    fn selected(&mut self, sql: &Sql, select: &Select) -> Result<Side, Refusal> {
        match &select.projection[..] {
            [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] => {
                self.side(item)
            }
            _ => {
                let message = "the subquery must select one column";
                Err(self.refuse(sql, message, "write `IN (SELECT column FROM …)`"))
            }
        }
    }

    /// Refuses `WHERE project_id = id` where both names turn out to be columns of the inner
    /// table although the outer one has them too: SQL takes it so, and the rule never matches.
    pub(super) fn check_correlation(
        &self,
        sql: &Sql,
        names: [&Sql; 2],
        sides: [&Side; 2],
    ) -> Result<(), Refusal> {
        let [Side::Field { place: a, .. }, Side::Field { place: b, .. }] = sides else {
            return Ok(());
        };
        if a != b || !a.is_joined() {
            return Ok(());
        }
        for name in names {
            let Sql::Identifier(name) = name else {
                continue;
            };
            let found = self
                .scopes
                .find(std::slice::from_ref(name), &self.clause(sql))?;
            if found.also_outer {
                let tables = &self.scopes.schema.tables;
                let inner = &tables[self.scopes.table_at(*a)].name;
                let outer = &tables[self.scopes.table_at(Place::ROW)].name;
                return Err(self.refuse(
                    sql,
                    format!("`{name}` means the column of `{inner}` here, which SQL finds first"),
                    format!("write `{outer}.{name}`, or `{inner}.{name}` if that is meant"),
                ));
            }
        }
        Ok(())
    }
}
