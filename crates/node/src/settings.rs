//! The configuration, as JavaScript gives it: always whole.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value as Json;
use syncline::{
    AccessToken, Accounts, Config, EncryptionKey, Tables, TokenError, engine::read_key_file,
};

use crate::{
    failure::Failure,
    js::{self, Ask},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    url: Option<String>,
    token: Option<String>,
    /// As who signed in on this machine.
    login: bool,
    auto_sync_enabled: bool,
    auto_sync_interval_ms: u64,
    debounce_ms: u64,
    live: bool,
    batch_size: usize,
    max_retries: u32,
    tables: Option<Vec<String>>,
    device_name: Option<String>,
    subscribe_at_attach: bool,
    /// The one that seals first.
    encryption_keys: Vec<String>,
    /// After those.
    encryption_key_files: Vec<String>,
}

impl Settings {
    pub(crate) fn read(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map_err(|error| Failure::call(&error))
    }

    /// `tokens`: who is asked for tokens, instead of one that lasts.
    pub(crate) fn config(self, tokens: Option<Ask>) -> Result<Config, Failure> {
        let mut config = Config::new()
            .auto_sync(self.auto_sync_enabled)
            .auto_sync_interval(Duration::from_millis(self.auto_sync_interval_ms))
            .debounce(Duration::from_millis(self.debounce_ms))
            .live(self.live)
            .batch_size(self.batch_size)
            .max_retries(self.max_retries)
            .subscribe_at_attach(self.subscribe_at_attach)
            .tables(tables(self.tables));
        // The one that seals is given last.
        let texts = self.encryption_keys.iter().map(|text| {
            let key = text.parse::<EncryptionKey>();
            key.map_err(|error| {
                Failure::new("invalid", "invalid", format!("encryptionKeys: {error}"))
            })
        });
        let files = self.encryption_key_files.iter();
        let files = files.map(|path| read_key_file(Path::new(path)).map_err(Failure::from));
        let keys: Vec<EncryptionKey> = texts.chain(files).collect::<Result<_, _>>()?;
        for key in keys.into_iter().rev() {
            config = config.encryption_key(key);
        }
        match (self.url, self.token, tokens) {
            (Some(url), _, Some(tokens)) => {
                let tokens = Arc::new(tokens);
                let ask = move || {
                    let tokens = Arc::clone(&tokens);
                    async move { token(js::ask(&tokens, "null".to_owned()).await) }
                };
                config = config.token_provider(&url, ask)?;
            }
            (Some(url), _, None) if self.login => {
                let login = Accounts::new(&url)?.login().map_err(Failure::from)?;
                let login = login.ok_or_else(|| {
                    let message =
                        format!("nobody is signed in at {url}: new Accounts(url).signIn()");
                    Failure::new("signed_out", "authentication", message)
                })?;
                config = config.login(&login);
            }
            (Some(url), Some(token), None) => config = config.server(&url, &token)?,
            (Some(_) | None, _, _) => {}
        }
        Ok(match self.device_name {
            Some(name) => config.device_name(name),
            None => config,
        })
    }
}

/// What a token provider said: `{ token, expiresIn }`, `{ later }` or `{ signedOut }`.
fn token(answer: Option<String>) -> Result<AccessToken, TokenError> {
    let later = |why: &str| TokenError::Later(why.to_owned());
    let answer = answer.ok_or_else(|| later("the program ended"))?;
    let answer: Json = serde_json::from_str(&answer).map_err(|error| later(&error.to_string()))?;
    if let Some(why) = answer["signedOut"].as_str() {
        return Err(TokenError::SignedOut(why.to_owned()));
    }
    let Some(token) = answer["token"].as_str() else {
        return Err(later(
            answer["later"].as_str().unwrap_or("it gave no token"),
        ));
    };
    let token = AccessToken::new(token);
    Ok(match answer["expiresIn"].as_f64() {
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => {
            token.expires_in(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
        }
        Some(_) | None => token,
    })
}

pub(crate) fn tables(names: Option<Vec<String>>) -> Tables {
    names.map_or(Tables::All, Tables::Only)
}
