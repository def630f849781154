//! Files as people write them, right and wrong.

mod documents;
mod mistakes;
mod reading;
mod round_trip;
mod targets;

use super::*;

fn parse(text: &str) -> Config {
    Config::parse("syncline.toml", text).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

/// Every mistake, one a line.
fn mistakes(text: &str) -> String {
    let errors = Config::parse("syncline.toml", text).expect_err("a mistake");
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every mistake of a table with these columns and this much more.
fn of_columns(columns: &str) -> String {
    mistakes(&format!(
        "[tables.t]\ncolumns = {{ id = \"uuid primary key\", {columns} }}"
    ))
}
