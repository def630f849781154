//! The server's settings: flag, environment, `[server]` of the file, default, in this order; and
//! `[limits]`, of the file alone.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use clap::{Args as ClapArgs, parser::ValueSource};
use serde_json::{Value, json};
use syncline_core::config::{Config, LimitsConfig, ServerConfig};

use crate::{
    args::DataArgs,
    commands::config::read_config,
    exit::{Exit, Failure},
};

pub(crate) const FILE: &str = "syncline.toml";

/// Where the configuration is, and what overrules its `[server]`.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Settings (each also in [server] of the configuration)")]
pub(crate) struct Settings {
    /// The configuration; `syncline.toml` if there is one.
    #[arg(long, short, value_name = "FILE", env = "SYNCLINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder of the server's data.
    #[arg(long, value_name = "DIR", env = "SYNCLINE_DATA")]
    pub data: Option<String>,
    /// Address and port.
    #[arg(long, value_name = "ADDR", env = "SYNCLINE_LISTEN")]
    pub listen: Option<String>,
    /// Address and port of /metrics, if it is to have its own.
    #[arg(long, value_name = "ADDR", env = "SYNCLINE_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,
    /// The database, if it is not to be in the data folder.
    #[arg(long, value_name = "FILE", env = "SYNCLINE_DATABASE")]
    pub database: Option<String>,
    /// Pages that may connect, by scheme and host.
    #[arg(
        long,
        value_name = "ORIGINS",
        env = "SYNCLINE_ORIGINS",
        value_delimiter = ','
    )]
    pub origins: Vec<String>,
    /// Proxies whose word on a caller's address is taken.
    #[arg(
        long,
        value_name = "NETWORKS",
        env = "SYNCLINE_TRUSTED_PROXIES",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<String>,
    /// How long deletes and changes are remembered for devices that are away.
    #[arg(long, value_name = "DAYS", env = "SYNCLINE_RETENTION_DAYS")]
    pub retention_days: Option<String>,
    /// How long the history of rows is kept; 0 keeps none.
    #[arg(long, value_name = "DAYS", env = "SYNCLINE_HISTORY_DAYS")]
    pub history_days: Option<String>,
    /// Whether people make accounts for themselves: true or false.
    #[arg(long, value_name = "YES", env = "SYNCLINE_SIGN_UP")]
    pub sign_up: Option<String>,
    /// Whether an address has to be confirmed before its account is used: true or false.
    #[arg(long, value_name = "YES", env = "SYNCLINE_VERIFY_EMAIL")]
    pub verify_email: Option<String>,
    /// The page of your app that links in mails lead to.
    #[arg(long, value_name = "URL", env = "SYNCLINE_APP_URL")]
    pub app_url: Option<String>,
    /// The mail server, as smtps://USER@HOST.
    #[arg(long, value_name = "URL", env = "SYNCLINE_SMTP")]
    pub smtp: Option<String>,
    /// A file with the password for the mail server.
    #[arg(long, value_name = "FILE", env = "SYNCLINE_SMTP_PASSWORD_FILE")]
    pub smtp_password_file: Option<String>,
    /// Who mails are from, as App <no-reply@example.com>.
    #[arg(long, value_name = "NAME", env = "SYNCLINE_MAIL_FROM")]
    pub mail_from: Option<String>,
    /// What stands in tokens of an identity provider as `iss`.
    #[arg(long, value_name = "ISSUER", env = "SYNCLINE_PROVIDER_ISSUER")]
    pub provider_issuer: Option<String>,
    /// What stands in them as `aud`.
    #[arg(long, value_name = "AUDIENCE", env = "SYNCLINE_PROVIDER_AUDIENCE")]
    pub provider_audience: Option<String>,
    /// Where the provider publishes its keys (JWKS).
    #[arg(long, value_name = "URL", env = "SYNCLINE_PROVIDER_JWKS")]
    pub provider_jwks: Option<String>,
    /// A file with the secret that it signs with (HS256).
    #[arg(long, value_name = "FILE", env = "SYNCLINE_PROVIDER_SECRET_FILE")]
    pub provider_secret_file: Option<String>,
    /// A file with the certificate (PEM), for https.
    #[arg(long, value_name = "FILE", env = "SYNCLINE_TLS_CERT")]
    pub tls_cert: Option<String>,
    /// A file with its private key (PEM).
    #[arg(long, value_name = "FILE", env = "SYNCLINE_TLS_KEY")]
    pub tls_key: Option<String>,
    /// A name that the server gets a certificate for by itself, from Let's Encrypt; may be repeated.
    #[arg(
        long,
        value_name = "NAME",
        env = "SYNCLINE_ACME_DOMAINS",
        value_delimiter = ','
    )]
    pub acme_domains: Vec<String>,
    /// A mail address that the authority may write to.
    #[arg(long, value_name = "ADDRESS", env = "SYNCLINE_ACME_CONTACT")]
    pub acme_contact: Option<String>,
    /// Another authority than Let's Encrypt: the address of its ACME directory.
    #[arg(long, value_name = "URL", env = "SYNCLINE_ACME_DIRECTORY")]
    pub acme_directory: Option<String>,
    /// A file with the certificate that vouches for the directory (PEM).
    #[arg(long, value_name = "FILE", env = "SYNCLINE_ACME_CA_FILE")]
    pub acme_ca_file: Option<String>,
    /// How long the audit log is kept.
    #[arg(long, value_name = "DAYS", env = "SYNCLINE_AUDIT_DAYS")]
    pub audit_days: Option<String>,
    /// For how long browsers are to ask this host over TLS alone; 0: as they like.
    #[arg(long, value_name = "DAYS", env = "SYNCLINE_HSTS_DAYS")]
    pub hsts_days: Option<String>,
    /// `managed`: tables are made from the configuration; `external`: they are only read.
    #[arg(long, value_name = "HOW", env = "SYNCLINE_SCHEMA")]
    pub schema: Option<String>,
}

impl DataArgs {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            config: self.config.clone(),
            data: self.data.clone(),
            database: self.database.clone(),
            ..Settings::default()
        }
    }
}

/// One key of `[server]`.
struct Key {
    name: &'static str,
    /// As TOML, if a flag or the environment gives it.
    given: fn(&Settings) -> Option<String>,
    take: fn(&mut ServerConfig, ServerConfig),
    show: fn(&ServerConfig) -> Value,
}

macro_rules! key {
    ($name:ident, $given:expr) => {
        Key {
            name: stringify!($name),
            given: $given,
            take: |to, from| to.$name = from.$name,
            show: |server| json!(server.$name),
        }
    };
}

const KEYS: [Key; 27] = [
    key!(listen, |s| text(s.listen.as_deref())),
    key!(admin_listen, |s| text(s.admin_listen.as_deref())),
    key!(data, |s| text(s.data.as_deref())),
    key!(database, |s| text(s.database.as_deref())),
    key!(origins, |s| list(&s.origins)),
    key!(trusted_proxies, |s| list(&s.trusted_proxies)),
    key!(retention_days, |s| number(s.retention_days.as_deref())),
    key!(history_days, |s| number(s.history_days.as_deref())),
    key!(sign_up, |s| boolean(s.sign_up.as_deref())),
    key!(verify_email, |s| boolean(s.verify_email.as_deref())),
    key!(app_url, |s| text(s.app_url.as_deref())),
    key!(smtp, |s| text(s.smtp.as_deref())),
    key!(smtp_password_file, |s| text(
        s.smtp_password_file.as_deref()
    )),
    key!(mail_from, |s| text(s.mail_from.as_deref())),
    key!(provider_issuer, |s| text(s.provider_issuer.as_deref())),
    key!(provider_audience, |s| text(s.provider_audience.as_deref())),
    key!(provider_jwks, |s| text(s.provider_jwks.as_deref())),
    key!(provider_secret_file, |s| text(
        s.provider_secret_file.as_deref()
    )),
    key!(tls_cert, |s| text(s.tls_cert.as_deref())),
    key!(tls_key, |s| text(s.tls_key.as_deref())),
    key!(acme_domains, |s| list(&s.acme_domains)),
    key!(acme_contact, |s| text(s.acme_contact.as_deref())),
    key!(acme_directory, |s| text(s.acme_directory.as_deref())),
    key!(acme_ca_file, |s| text(s.acme_ca_file.as_deref())),
    key!(audit_days, |s| number(s.audit_days.as_deref())),
    key!(hsts_days, |s| number(s.hsts_days.as_deref())),
    Key {
        name: "schema",
        given: |s| text(s.schema.as_deref()),
        take: |to, from| to.managed = from.managed,
        show: |server| {
            json!(if server.managed {
                "managed"
            } else {
                "external"
            })
        },
    },
];

fn text(value: Option<&str>) -> Option<String> {
    value.map(|value| toml::Value::from(value).to_string())
}

fn list(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| toml::Value::from(values.to_vec()).to_string())
}

/// A number as it is; anything else as a text, which the reader then refuses by name.
fn number(value: Option<&str>) -> Option<String> {
    let value = value?.trim();
    if value.parse::<i64>().is_ok() {
        Some(value.to_owned())
    } else {
        text(Some(value))
    }
}

/// `true` or `false` as it is; anything else as a text, which the reader then refuses by name.
fn boolean(value: Option<&str>) -> Option<String> {
    match value?.trim() {
        "true" | "false" => value.map(|value| value.trim().to_owned()),
        _ => text(value),
    }
}

/// A setting with where it came from.
#[derive(Debug)]
pub(crate) struct Setting {
    pub name: String,
    pub value: Value,
    pub from: String,
}

impl Settings {
    /// The file that is read: the one named, else `syncline.toml` if it is here.
    pub(crate) fn file(&self) -> Option<&Path> {
        let default = Path::new(FILE);
        match &self.config {
            Some(path) => Some(path),
            None => default.exists().then_some(default),
        }
    }

    /// The configuration: the file's, or an empty one if there is none, with what flags and the
    /// environment say instead.
    pub(crate) fn read(&self) -> anyhow::Result<Config> {
        let mut config = match self.file() {
            Some(path) => read_config(path)?,
            None => Config::default(),
        };
        self.overrule(&mut config.server)?;
        Ok(config)
    }

    /// Whether [`Settings::read_for_data`] reads no configuration.
    pub(crate) fn is_data_alone(&self) -> bool {
        self.config.is_none() && self.data.is_some()
    }

    /// The same for commands that only want to know where a server's data is: a folder that is
    /// given says it all.
    pub(crate) fn read_for_data(&self) -> anyhow::Result<Config> {
        if !self.is_data_alone() {
            return self.read();
        }
        let mut config = Config::default();
        self.overrule(&mut config.server)?;
        Ok(config)
    }

    fn overrule(&self, server: &mut ServerConfig) -> anyhow::Result<()> {
        for key in &KEYS {
            let Some(value) = (key.given)(self) else {
                continue;
            };
            let text = format!("[server]\n{} = {value}\n", key.name);
            let parsed = Config::parse(key.name, &text).map_err(|mistakes| {
                let flag = key.name.replace('_', "-");
                let variable = key.name.to_uppercase();
                let wanted = mistakes.first().map_or_else(String::new, |mistake| {
                    format!(": expected {}; {}", mistake.expected, mistake.suggestion)
                });
                let sentence = format!("--{flag} or SYNCLINE_{variable} is {value}{wanted}");
                Failure::new(Exit::Config, sentence)
            })?;
            (key.take)(server, parsed.server);
        }
        Ok(())
    }

    /// Every setting of `config` with where it came from; `source` tells flags from the
    /// environment.
    pub(crate) fn explain(
        &self,
        config: &Config,
        source: impl Fn(&str) -> Option<ValueSource>,
    ) -> anyhow::Result<Vec<Setting>> {
        let file = self.file();
        let written: toml::Table = match file {
            Some(path) => std::fs::read_to_string(path)?.parse()?,
            None => toml::Table::new(),
        };
        let in_file = |section: &str, name: &str| {
            let section = written.get(section);
            section.and_then(|section| section.get(name)).is_some()
        };
        let file = || file.map_or_else(String::new, |path| path.display().to_string());
        let settings = KEYS.iter().map(|key| {
            let flag = key.name.replace('_', "-");
            let from = match source(key.name) {
                Some(ValueSource::CommandLine) => format!("--{flag}"),
                Some(ValueSource::EnvVariable) => {
                    format!("SYNCLINE_{}", key.name.to_uppercase())
                }
                _ if in_file("server", key.name) => file(),
                _ => "default".to_owned(),
            };
            Setting {
                name: key.name.to_owned(),
                value: (key.show)(&config.server),
                from,
            }
        });
        let limits = LimitsConfig::KEYS.into_iter().map(|limit| Setting {
            name: format!("limits.{}", limit.name),
            value: json!((limit.get)(&config.limits)),
            from: match in_file("limits", limit.name) {
                true => file(),
                false => "default".to_owned(),
            },
        });
        Ok(settings.chain(limits).collect())
    }
}

/// The address to listen at, which may be told by a name.
pub(crate) fn listen_address(text: &str) -> anyhow::Result<SocketAddr> {
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| {
        let sentence = format!("server.listen: `{text}` is no address; write 127.0.0.1:7117");
        Failure::new(Exit::Config, sentence).into()
    })
}
