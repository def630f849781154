//! `syncline.toml`: what syncs, to whom and how it merges (docs/spec/configuration.md).

mod adopt;
mod check;
mod column;
mod column_write;
mod encrypted;
mod error;
mod further;
mod keys;
mod limits;
mod merge;
mod nearest;
mod parse;
mod place;
mod rule;
mod server;
mod table;
mod tokens;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use error::ConfigError;
pub use limits::{Limit, LimitsConfig};

use crate::{rules::RuleError, schema::Schema};
use error::Mistakes;
use merge::Chosen;
use place::Source;

/// The file, read and checked; table and column numbers are in order of appearance and are
/// replaced by the server's.
///
/// Equal when the files say the same, wherever and however they say it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    pub server: ServerConfig,
    pub limits: LimitsConfig,
    /// The tables; one that the file gives no columns has none, and no primary key, until
    /// [`Config::adopt`] fills it.
    pub schema: Schema,
    /// What the file says was renamed, in order of place.
    pub renamed: Vec<Renamed>,
    pub origin: Origin,
}

/// What only reading a file tells: the default for a configuration that a program made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Origin {
    /// Merge strategies of tables without columns, to be applied when they have some.
    waiting: BTreeMap<String, Vec<Chosen>>,
    source: Source,
}

/// A declared rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The table's present name.
    pub table: String,
    /// `None` when the table itself was renamed; else the column's present name.
    pub column: Option<String>,
    pub from: String,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    pub listen: String,
    pub admin_listen: Option<String>,
    pub data: String,
    pub database: Option<String>,
    pub origins: Vec<String>,
    pub trusted_proxies: Vec<String>,
    pub retention_days: u32,
    /// For how long the history of rows is kept; 0 keeps none.
    pub history_days: u32,
    /// Whether people make accounts for themselves.
    pub sign_up: bool,
    /// Whether an address has to be confirmed before its account is used.
    pub verify_email: bool,
    /// The page that links in mails lead to.
    pub app_url: Option<String>,
    /// The mail server; without one no mails are sent.
    pub smtp: Option<String>,
    pub smtp_password_file: Option<String>,
    /// Who mails are from.
    pub mail_from: Option<String>,
    /// What stands in tokens of an identity provider as `iss`; with it, they are taken.
    pub provider_issuer: Option<String>,
    /// What stands in them as `aud`.
    pub provider_audience: Option<String>,
    /// Where the provider publishes its keys.
    pub provider_jwks: Option<String>,
    /// A file with the secret that it signs with.
    pub provider_secret_file: Option<String>,
    /// Files with a certificate and its private key, in PEM: then everything is TLS.
    pub tls_cert: Option<String>,
    pub tls_key: Option<String>,
    /// Names that the server gets a certificate for by itself, by ACME: then everything is TLS.
    pub acme_domains: Vec<String>,
    /// A mail address that the authority may write to.
    pub acme_contact: Option<String>,
    /// Where the authority tells how to ask it.
    pub acme_directory: String,
    /// A file with the certificate that vouches for the directory itself, in place of those that
    /// the system trusts.
    pub acme_ca_file: Option<String>,
    /// For how long the audit log is kept.
    pub audit_days: u32,
    /// For how long browsers are to ask this host over TLS alone, at any port; zero: as they like.
    pub hsts_days: u32,
    /// Whether tables are created and changed from this file (`managed`) or only read.
    pub managed: bool,
}

/// Whose certificates every device trusts.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7117".into(),
            admin_listen: None,
            data: "./syncline-data".into(),
            database: None,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            retention_days: 30,
            history_days: 30,
            sign_up: false,
            verify_email: true,
            app_url: None,
            smtp: None,
            smtp_password_file: None,
            mail_from: None,
            provider_issuer: None,
            provider_audience: None,
            provider_jwks: None,
            provider_secret_file: None,
            tls_cert: None,
            tls_key: None,
            acme_domains: Vec::new(),
            acme_contact: None,
            acme_directory: LETS_ENCRYPT.into(),
            acme_ca_file: None,
            audit_days: 365,
            hsts_days: 0,
            managed: true,
        }
    }
}

impl Config {
    /// The configuration of this server and these tables, as if a file had said so.
    #[must_use]
    pub fn new(server: ServerConfig, schema: Schema) -> Self {
        Self {
            server,
            schema,
            ..Self::default()
        }
    }

    /// Reads `text`; `file` is the name that errors show. A file without another mistake may
    /// still have rules that do not compile: see [`Config::rule_mistakes`].
    ///
    /// # Errors
    /// Every mistake found, those of rules included, in order of place. Where the text is no TOML,
    /// only what makes it so: the rest cannot be told from what is missing.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        parse::parse(file, text)
    }

    /// Names of the tables that the file gives no columns: they are taken from the database as
    /// they are, with [`Config::adopt`].
    pub fn tables_to_adopt(&self) -> impl Iterator<Item = &str> {
        self.schema
            .tables
            .iter()
            .filter(|t| t.columns.is_empty())
            .map(|t| t.name.as_str())
    }

    /// Every rule that does not compile, in order of place. None as long as there are tables
    /// without columns ([`Config::adopt`]): what rules may say of them is not known yet.
    #[must_use]
    pub fn rule_mistakes(&self) -> Vec<ConfigError> {
        let mut mistakes = Mistakes::default();
        rule::check(&self.schema, &self.origin.source, &mut mistakes);
        match mistakes.or(&self.origin.source, ()) {
            Ok(()) => Vec::new(),
            Err(mistakes) => mistakes,
        }
    }

    /// The place in the file of a rule that did not compile.
    #[must_use]
    pub fn locate(&self, error: &RuleError) -> ConfigError {
        self.origin.source.locate(error)
    }
}
