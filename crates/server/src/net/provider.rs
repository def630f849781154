//! Tokens of an identity provider that people have accounts with already (spec AC13).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use syncline_core::{
    Timestamp, UserId,
    config::ServerConfig,
    rules::Identity,
    wire::{Refusal, code},
};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::{
    SECRET_BYTES_MIN,
    auth::{LEEWAY_SECONDS, USER_BYTES_MAX, said_of, unauthorized},
    shared::ADMIN_CLAIM,
};
use crate::session::Proof;

/// Keys are asked for this often at most, whatever tokens arrive.
const FETCH_EVERY: Duration = Duration::from_secs(30);
/// Keys that are older are asked for again when they are used.
const FRESH_FOR: Duration = Duration::from_secs(600);
const CONNECT_MAX: Duration = Duration::from_secs(5);
const FETCH_MAX: Duration = Duration::from_secs(10);
const SET_BYTES_MAX: usize = 256 * 1024;
const KEYS_MAX: usize = 100;
const KID_BYTES_MAX: usize = 128;
/// Claims that differ in each token of one login, and are nobody's identity.
const PASSING: [&str; 6] = ["jti", "auth_time", "at_hash", "nonce", "fva", "updated_at"];

/// A provider whose tokens are taken.
pub(crate) struct Provider {
    issuer: String,
    audience: Option<String>,
    trust: Trust,
}

enum Trust {
    /// HS256.
    Secret(DecodingKey),
    Published(Box<Published>),
}

/// Keys at an address of the provider's.
struct Published {
    url: String,
    http: reqwest::Client,
    keys: RwLock<Arc<Keys>>,
    /// When they were asked for last.
    asked: AsyncMutex<Option<Instant>>,
}

/// The last good set.
#[derive(Default)]
struct Keys {
    /// By name: each with the one algorithm that it is for.
    named: BTreeMap<String, (Algorithm, DecodingKey)>,
    since: Option<Instant>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default, rename = "nbf")]
    _nbf: Option<u64>,
    #[serde(default, rename = "iat")]
    _iat: Option<f64>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Provider {
    /// As configured; `None` if there is none.
    pub(crate) fn new(config: &ServerConfig) -> Result<Option<Self>, String> {
        let ServerConfig {
            provider_issuer,
            provider_audience,
            provider_jwks,
            provider_secret_file,
            ..
        } = config;
        let Some(issuer) = provider_issuer.clone() else {
            let lonely = [provider_audience, provider_jwks, provider_secret_file];
            if lonely.iter().any(|key| key.is_some()) {
                return Err(
                    "server.provider_issuer is missing: write what stands in the \
                            provider's tokens as `iss`"
                        .into(),
                );
            }
            return Ok(None);
        };
        let trust = match (provider_jwks, provider_secret_file) {
            (Some(url), None) => Trust::Published(Box::new(Published::new(url)?)),
            (None, Some(file)) => Trust::Secret(secret(file)?),
            (None, None) => {
                return Err(
                    "server.provider_jwks or server.provider_secret_file is missing: \
                            one of them says how the provider's tokens are verified"
                        .into(),
                );
            }
            (Some(_), Some(_)) => {
                return Err(
                    "server.provider_jwks and server.provider_secret_file exclude each \
                            other: tokens are verified in one way"
                        .into(),
                );
            }
        };
        Ok(Some(Self {
            issuer,
            audience: provider_audience.clone(),
            trust,
        }))
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The identity that `token`, which names this provider as its issuer, proves. `kid` is what
    /// it says of its key.
    pub(crate) async fn verify(&self, token: &str, kid: &str) -> Result<Proof, Refusal> {
        let published = match &self.trust {
            Trust::Secret(key) => return self.proof(token, Algorithm::HS256, key),
            Trust::Published(published) => published,
        };
        if kid.is_empty() || kid.len() > KID_BYTES_MAX {
            return Err(unauthorized("the token does not name its key (`kid`)"));
        }
        let keys = published.keys_with(kid).await?;
        match keys.named.get(kid) {
            Some((algorithm, key)) => self.proof(token, *algorithm, key),
            None => Err(unauthorized(
                "the token was signed with a key that its issuer does not publish: get a fresh one",
            )),
        }
    }

    fn proof(
        &self,
        token: &str,
        algorithm: Algorithm,
        key: &DecodingKey,
    ) -> Result<Proof, Refusal> {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp", "sub", "iss"];
        validation.set_issuer(&[&self.issuer]);
        match &self.audience {
            Some(audience) => {
                required.push("aud");
                validation.set_audience(&[audience]);
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        let data = jsonwebtoken::decode::<Claims>(token, key, &validation)
            .map_err(|error| said_of(&error))?;
        let Claims {
            sub,
            exp,
            mut others,
            ..
        } = data.claims;
        if sub.is_empty() || sub.len() > USER_BYTES_MAX {
            return Err(unauthorized("the token names no user (`sub`)"));
        }
        // Administrators are the operator's, whatever else the provider may know of people.
        others.retain(|name, _| name != ADMIN_CLAIM && !PASSING.contains(&name.as_str()));
        let seconds = exp.saturating_add(LEEWAY_SECONDS);
        Ok(Proof {
            identity: Arc::new(Identity {
                user: Some(UserId(sub)),
                claims: others,
            }),
            expires: Some(Timestamp(seconds.saturating_mul(1_000_000))),
        })
    }
}

fn secret(file: &str) -> Result<DecodingKey, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("server.provider_secret_file {file}: {error}"))?;
    let secret = text.trim();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "server.provider_secret_file {file}: it has {} bytes, at least {SECRET_BYTES_MIN} are \
             needed",
            secret.len()
        ));
    }
    Ok(DecodingKey::from_secret(secret.as_bytes()))
}

impl Published {
    fn new(url: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!(
                "server.provider_jwks is `{url}`: {why}; write for example \
                 https://example.com/.well-known/jwks.json"
            )
        };
        let parsed = reqwest::Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        let is_here = matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        if parsed.scheme() != "https" && !(parsed.scheme() == "http" && is_here) {
            return Err(bad(
                "keys come over https:// only, except from this machine",
            ));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(FETCH_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| bad(&error.to_string()))?;
        Ok(Self {
            url: url.to_owned(),
            http,
            keys: RwLock::default(),
            asked: AsyncMutex::default(),
        })
    }

    /// The keys, asked for anew if `kid` is not among them or they are old, and that was not done
    /// just now.
    async fn keys_with(&self, kid: &str) -> Result<Arc<Keys>, Refusal> {
        let is_good = |keys: &Keys| {
            let is_fresh = |since: Instant| since.elapsed() < FRESH_FOR;
            keys.named.contains_key(kid) && keys.since.is_some_and(is_fresh)
        };
        let known = Arc::clone(&self.keys.read());
        if is_good(&known) {
            return Ok(known);
        }
        // One asks; whoever waited for it looks again.
        let mut asked = self.asked.lock().await;
        let known = Arc::clone(&self.keys.read());
        if is_good(&known) || asked.is_some_and(|at| at.elapsed() < FETCH_EVERY) {
            return self.or_unknown(known);
        }
        *asked = Some(Instant::now());
        match self.fetch().await {
            Ok(named) => {
                let since = Some(Instant::now());
                *self.keys.write() = Arc::new(Keys { named, since });
            }
            // Whoever could be verified before still can.
            Err(why) => tracing::warn!(url = self.url, why, "the provider's keys did not come"),
        }
        let known = Arc::clone(&self.keys.read());
        self.or_unknown(known)
    }

    /// Without any keys nobody can be judged.
    fn or_unknown(&self, keys: Arc<Keys>) -> Result<Arc<Keys>, Refusal> {
        if keys.since.is_some() {
            return Ok(keys);
        }
        Err(Refusal {
            code: code::UNAVAILABLE.into(),
            message: "the identity provider's keys cannot be had at this moment: try again".into(),
            retry: true,
            retry_after_ms: Some(5_000),
            change: None,
            fatal: true,
        })
    }

    async fn fetch(&self) -> Result<BTreeMap<String, (Algorithm, DecodingKey)>, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let error = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self.http.get(&self.url).send().await.map_err(error)?;
        if !answer.status().is_success() {
            return Err(format!("it says {}", answer.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(error)? {
            if bytes.len() + chunk.len() > SET_BYTES_MAX {
                return Err(format!("more than {SET_BYTES_MAX} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let set: Set = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        // Kinds of keys that are not known here are somebody else's.
        let keys = set.keys.into_iter().take(KEYS_MAX);
        let keys = keys.filter_map(|key| usable(serde_json::from_value(key).ok()?));
        let named: BTreeMap<_, _> = keys.collect();
        if named.is_empty() {
            return Err("there is no key in it that could be used".into());
        }
        Ok(named)
    }
}

/// A public key that signs, with its name and its one algorithm.
fn usable(key: Jwk) -> Option<(String, (Algorithm, DecodingKey))> {
    let name = key.common.key_id.clone()?;
    if name.is_empty() || name.len() > KID_BYTES_MAX {
        return None;
    }
    if !matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let usual = if let AlgorithmParameters::RSA(_) = &key.algorithm {
        Algorithm::RS256
    } else if let AlgorithmParameters::EllipticCurve(key) = &key.algorithm {
        if key.curve == EllipticCurve::P256 {
            Algorithm::ES256
        } else if key.curve == EllipticCurve::P384 {
            Algorithm::ES384
        } else {
            return None;
        }
    } else if let AlgorithmParameters::OctetKeyPair(_) = &key.algorithm {
        Algorithm::EdDSA
    } else {
        // Above all: a secret that everybody can read.
        return None;
    };
    let algorithm = match key.common.key_algorithm {
        None => usual,
        Some(KeyAlgorithm::RS256) if usual == Algorithm::RS256 => Algorithm::RS256,
        Some(KeyAlgorithm::RS384) if usual == Algorithm::RS256 => Algorithm::RS384,
        Some(KeyAlgorithm::RS512) if usual == Algorithm::RS256 => Algorithm::RS512,
        Some(KeyAlgorithm::PS256) if usual == Algorithm::RS256 => Algorithm::PS256,
        Some(KeyAlgorithm::PS384) if usual == Algorithm::RS256 => Algorithm::PS384,
        Some(KeyAlgorithm::PS512) if usual == Algorithm::RS256 => Algorithm::PS512,
        Some(KeyAlgorithm::ES256) if usual == Algorithm::ES256 => Algorithm::ES256,
        Some(KeyAlgorithm::ES384) if usual == Algorithm::ES384 => Algorithm::ES384,
        Some(KeyAlgorithm::EdDSA) if usual == Algorithm::EdDSA => Algorithm::EdDSA,
        Some(_) => return None,
    };
    let decoding = DecodingKey::from_jwk(&key).ok()?;
    Some((name, (algorithm, decoding)))
}
