//! Access tokens: short, signed with Ed25519 keys that this server makes and changes by itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use syncline_core::{DeviceId, Timestamp, UserId, rules::Identity, wire::Refusal};
use syncline_store::{
    StorageError,
    accounts::{AccountRecords, LoginId, SigningKey},
};

use crate::{
    net::auth::{LEEWAY_SECONDS, said_of, unauthorized},
    session::Proof,
};

/// How long an access token is good.
pub(crate) const ACCESS_TTL: Duration = Duration::from_secs(15 * 60);
/// A key signs for so long, and another one then.
const KEY_TTL: Duration = Duration::from_secs(30 * 86_400);
/// What a token of ours is for.
const AUDIENCE: &str = "syncline";

/// The keys as they were last read.
pub(crate) struct Keys {
    issuer: String,
    signing: Arc<(String, EncodingKey)>,
    verifying: BTreeMap<String, DecodingKey>,
    public: Value,
    validation: Validation,
    newest: Timestamp,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({} keys)", self.verifying.len())
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Whom a token is for.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) account: String,
    pub(crate) login: LoginId,
    pub(crate) claims: BTreeMap<String, Value>,
}

/// The issuer of a server's own tokens.
pub(crate) fn issuer(server: DeviceId) -> String {
    format!("syncline:{server}")
}

impl Keys {
    /// Reads the keys, after making one if there is none or the newest is old.
    pub(crate) fn load(
        records: &mut dyn AccountRecords,
        server: DeviceId,
        now: Timestamp,
    ) -> Result<Self, StorageError> {
        let mut keys = records.signing_keys()?;
        let age = |key: &SigningKey| Duration::from_micros(now.0.saturating_sub(key.created.0));
        if keys.first().is_none_or(|newest| age(newest) >= KEY_TTL) {
            let key = make(now)?;
            records.put_signing_key(&key)?;
            keys.insert(0, key);
        }
        // Tokens of a key that was followed by another end a little later than it.
        let newest = age(&keys[0]);
        for old in keys.split_off(1) {
            if newest > 2 * ACCESS_TTL && age(&old) > KEY_TTL {
                records.remove_signing_key(&old.id)?;
            } else {
                keys.push(old);
            }
        }
        Self::of(&keys, server)
    }

    fn of(keys: &[SigningKey], server: DeviceId) -> Result<Self, StorageError> {
        let mut verifying = BTreeMap::new();
        let mut public = Vec::new();
        for key in keys {
            let pair = Ed25519KeyPair::from_pkcs8(&key.secret).map_err(|error| {
                StorageError::Corrupt(format!("signing key {}: {error}", key.id))
            })?;
            let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key());
            let decoding = DecodingKey::from_ed_components(&x).map_err(|error| {
                StorageError::Corrupt(format!("signing key {}: {error}", key.id))
            })?;
            verifying.insert(key.id.clone(), decoding);
            public.push(json!({
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": x,
            }));
        }
        let first = keys
            .first()
            .ok_or_else(|| StorageError::Corrupt("there is no signing key".into()))?;
        let issuer = issuer(server);
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
        validation.set_issuer(&[&issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        Ok(Self {
            issuer,
            signing: Arc::new((first.id.clone(), EncodingKey::from_ed_der(&first.secret))),
            verifying,
            public: json!({ "keys": public }),
            validation,
            newest: first.created,
        })
    }

    /// Whether another key has to be made.
    pub(crate) fn is_old(&self, now: Timestamp) -> bool {
        Duration::from_micros(now.0.saturating_sub(self.newest.0)) >= KEY_TTL
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public halves, as a JSON Web Key Set.
    pub(crate) fn public(&self) -> &Value {
        &self.public
    }

    pub(crate) fn issue(&self, subject: &Subject, now: Timestamp) -> Result<String, String> {
        let (kid, key) = &*self.signing;
        let mut others = subject.claims.clone();
        others.insert("sid".into(), subject.login.to_hex().into());
        let seconds = now.as_millis() / 1000;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.into(),
            sub: subject.account.clone(),
            iat: seconds,
            exp: seconds + ACCESS_TTL.as_secs(),
            others,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid.clone());
        jsonwebtoken::encode(&header, &claims, key).map_err(|error| error.to_string())
    }

    /// The identity that `token`, which names us as its issuer, proves. `kid` is what it says of
    /// its key: nothing but a name to be looked up here.
    pub(crate) fn verify(&self, token: &str, kid: &str) -> Result<Proof, Refusal> {
        let key = self.verifying.get(kid).ok_or_else(|| {
            unauthorized("the token was signed with a key that is gone: sign in again")
        })?;
        let data = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| said_of(&error))?;
        let seconds = data.claims.exp.saturating_add(LEEWAY_SECONDS);
        Ok(Proof {
            identity: Arc::new(Identity {
                user: Some(UserId(data.claims.sub)),
                claims: data.claims.others,
            }),
            expires: Some(Timestamp(seconds.saturating_mul(1_000_000))),
        })
    }
}

fn make(now: Timestamp) -> Result<SigningKey, StorageError> {
    let failed = |what: &str| StorageError::Failed(what.to_owned().into());
    let secret = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| failed("no signing key could be made"))?;
    let mut id = [0; 8];
    getrandom::fill(&mut id).map_err(|error| failed(&error.to_string()))?;
    Ok(SigningKey {
        id: BASE64_URL_SAFE_NO_PAD.encode(id),
        created: now,
        secret: secret.as_ref().to_vec(),
    })
}

/// The login that a token of ours was made for.
pub(crate) fn login_of(identity: &Identity) -> Option<LoginId> {
    LoginId::from_hex(identity.claims.get("sid")?.as_str()?)
}
