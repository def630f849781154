//! The tables that devices added to a server with `--dev`, kept in its data folder.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use syncline_core::config::Config;
use syncline_server::net::Remember;

pub(crate) const FILE: &str = "dev-tables.toml";

/// A file in the form of syncline.toml, so that it can become one.
#[derive(Debug, Clone)]
pub(crate) struct DevTables {
    path: PathBuf,
}

impl DevTables {
    pub(crate) fn in_folder(data: &Path) -> Self {
        Self {
            path: data.join(FILE),
        }
    }

    /// Adds the tables that were kept to those that are declared; a declaration comes first.
    pub(crate) fn add_to(&self, config: &mut Config) -> anyhow::Result<()> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", self.path.display()));
            }
        };
        let kept = Config::parse(&self.path.display().to_string(), &text)
            .map_err(|mistakes| super::commands::config::mistakes_of(&mistakes))?;
        for table in kept.schema.tables {
            let is_declared = config.schema.table(&table.name).is_some();
            let is_renamed = config.renamed.iter().any(|renamed| {
                renamed.column.is_none() && renamed.from.eq_ignore_ascii_case(&table.name)
            });
            if !is_declared && !is_renamed {
                config.schema.tables.push(table);
            }
        }
        Ok(())
    }

    /// What the server calls when a device adds a table.
    pub(crate) fn remember(self) -> Remember {
        Box::new(move |config| self.write(config))
    }

    /// Written beside and renamed: a cut leaves the old file or the new one.
    fn write(&self, config: &Config) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(config.to_toml().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)
    }
}
