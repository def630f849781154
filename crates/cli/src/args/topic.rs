//! What a device asks for of the tables that sync on demand.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct TopicArgs {
    /// The database.
    #[arg(value_name = "APP.db")]
    pub file: PathBuf,
    /// The table of what the rows hang below.
    pub table: String,
    /// Its row's primary key, one value for each of its columns; without one, what is the same in
    /// the table for all who see it.
    #[arg(value_name = "ID", allow_negative_numbers = true)]
    pub ids: Vec<String>,
    /// In place of a row: the table's rows with this value of a column.
    #[arg(long = "where", value_name = "COLUMN=VALUE", conflicts_with = "ids")]
    pub column: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Unsubscribe {
    #[command(flatten)]
    pub topic: TopicArgs,
    /// How long the rows stay: 90s, 30m, 12h, 30d; 0s removes them with the next sync.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = crate::token::parse_time)]
    pub keep_for: u64,
}
