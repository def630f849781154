//! The configuration, as JavaScript gives it: always whole.

use std::time::Duration;

use serde::Deserialize;
use syncline::{Config, Tables};

use crate::failure::Failure;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    url: Option<String>,
    token: Option<String>,
    auto_sync_enabled: bool,
    auto_sync_interval_ms: u64,
    debounce_ms: u64,
    live: bool,
    batch_size: usize,
    max_retries: u32,
    tables: Option<Vec<String>>,
    device_name: Option<String>,
}

impl Settings {
    pub(crate) fn read(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map_err(|error| Failure::call(&error))
    }

    pub(crate) fn config(self) -> Result<Config, Failure> {
        let mut config = Config::new()
            .auto_sync(self.auto_sync_enabled)
            .auto_sync_interval(Duration::from_millis(self.auto_sync_interval_ms))
            .debounce(Duration::from_millis(self.debounce_ms))
            .live(self.live)
            .batch_size(self.batch_size)
            .max_retries(self.max_retries)
            .tables(tables(self.tables));
        if let (Some(url), Some(token)) = (self.url, self.token) {
            config = config.server(&url, &token)?;
        }
        Ok(match self.device_name {
            Some(name) => config.device_name(name),
            None => config,
        })
    }
}

pub(crate) fn tables(names: Option<Vec<String>>) -> Tables {
    names.map_or(Tables::All, Tables::Only)
}
