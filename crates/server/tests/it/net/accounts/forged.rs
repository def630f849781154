//! Access tokens that somebody made up, changed or kept for too long.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::{Value, json};
use syncline_store::accounts::transact;

use super::{ANA, Net, WORDS, now, open_house};

/// A key of the server, as a thief would have it, and what its tokens say.
struct Forger {
    key: EncodingKey,
    public: Vec<u8>,
    header: Value,
    claims: Value,
}

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn unpacked(part: &str) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

impl Forger {
    async fn at(net: &Net) -> Self {
        let tokens = net.signed_up(ANA).await;
        let token = tokens["access_token"].as_str().expect("a token");
        let parts: Vec<&str> = token.split('.').collect();
        let keys = transact(&net.store(), |records| records.signing_keys()).expect("it reads");
        let public = net
            .get("/.well-known/jwks.json")
            .send()
            .await
            .expect("an answer");
        let public: Value = public.json().await.expect("JSON");
        assert_eq!(public["keys"][0]["alg"], "EdDSA");
        assert_eq!(public["keys"][0]["kid"], keys[0].id.as_str());
        assert!(public["keys"][0].get("d").is_none());
        let x = public["keys"][0]["x"].as_str().expect("a key");
        Self {
            key: EncodingKey::from_ed_der(&keys[0].secret),
            public: BASE64_URL_SAFE_NO_PAD.decode(x).expect("base64"),
            header: unpacked(parts[0]),
            claims: unpacked(parts[1]),
        }
    }

    /// A token with this header and these claims, signed well.
    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let signature = sign(message.as_bytes(), &self.key, Algorithm::EdDSA);
        format!("{message}.{}", signature.expect("it signs"))
    }

    /// The claims with one changed; `null` takes it out.
    fn with(&self, name: &str, value: Value) -> String {
        self.token(&self.header, &changed(&self.claims, name, value))
    }
}

fn changed(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    let map = object.as_object_mut().expect("an object");
    if value.is_null() {
        map.remove(name);
    } else {
        map.insert(name.into(), value);
    }
    object
}

async fn status(net: &Net, token: &str) -> u16 {
    net.user(&token.into()).await.0
}

#[tokio::test]
async fn ac7_a_forged_access_token_is_never_taken() {
    let net = open_house().await;
    let forger = Forger::at(&net).await;
    let good = forger.token(&forger.header, &forger.claims);
    assert_eq!(status(&net, &good).await, 200, "the forger has the key");
    let seconds = now().as_millis() / 1_000;

    let mut forged = vec![
        ("expired", forger.with("exp", json!(seconds - 30))),
        ("no end", forger.with("exp", Value::Null)),
        (
            "an end that is text",
            forger.with("exp", json!("9999999999")),
        ),
        ("an end beyond time", forger.with("exp", json!(1e20))),
        ("not yet", forger.with("nbf", json!(seconds + 900))),
        ("for others", forger.with("aud", json!("somebody-else"))),
        ("for a list", forger.with("aud", json!(["somebody-else"]))),
        ("for nobody", forger.with("aud", Value::Null)),
        (
            "another issuer",
            forger.with("iss", json!("https://evil.test")),
        ),
        ("no issuer", forger.with("iss", Value::Null)),
        (
            "an issuer of many",
            forger.with("iss", json!([forger.claims["iss"]])),
        ),
        ("nobody", forger.with("sub", Value::Null)),
        ("a number", forger.with("sub", json!(7))),
        ("no login", forger.with("sid", Value::Null)),
        ("no such login name", forger.with("sid", json!("../../etc"))),
    ];
    for kid in ["", "../../dev/null", "' OR 1=1 --", &"k".repeat(10_000)] {
        let header = changed(&forger.header, "kid", json!(kid));
        forged.push(("another key", forger.token(&header, &forger.claims)));
    }
    let header = changed(&forger.header, "kid", Value::Null);
    forged.push(("no key", forger.token(&header, &forger.claims)));
    // The public key as the secret of another family, and no signature at all.
    let public = EncodingKey::from_secret(&forger.public);
    for alg in [
        "HS256", "HS512", "none", "None", "nOnE", "ES256", "RS256", "",
    ] {
        let header = changed(&forger.header, "alg", json!(alg));
        let message = format!("{}.{}", part(&header), part(&forger.claims));
        let signature = sign(message.as_bytes(), &public, Algorithm::HS256).expect("it signs");
        forged.push(("another algorithm", format!("{message}.{signature}")));
        forged.push(("no signature", format!("{message}.")));
        forged.push(("signed well", forger.token(&header, &forger.claims)));
    }
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let eve = changed(&forger.claims, "sub", json!("eve"));
    forged.push((
        "another's",
        format!("{}.{}.{signature}", part(&forger.header), part(&eve)),
    ));
    forged.push((
        "one part more",
        format!("{message}.{signature}.{signature}"),
    ));
    forged.push(("cut", good[..good.len() - 4].to_owned()));
    for (what, token) in &forged {
        assert_eq!(status(&net, token).await, 401, "{what}: {token}");
    }
    let stranger = EncodingKey::from_secret(b"another secret of thirty-two byte");
    let header = json!({ "alg": "HS256" });
    let message = format!(
        "{}.{}",
        part(&header),
        part(&json!({ "sub": "ana", "exp": seconds + 60 }))
    );
    let signature = sign(message.as_bytes(), &stranger, Algorithm::HS256).expect("it signs");
    assert_eq!(status(&net, &format!("{message}.{signature}")).await, 401);
}

#[tokio::test]
async fn ac7_what_a_person_claims_of_himself_counts_for_nothing() {
    let net = open_house().await;
    let body = json!({
        "email": ANA, "password": WORDS, "claims": { "syncline_admin": true },
    });
    assert_eq!(net.auth("sign-up", &body).await.0, 422);
    let tokens = net.signed_up(ANA).await;
    assert_eq!(tokens["user"]["claims"], json!({}));
    let claims = [("role".to_owned(), json!("editor"))].into();
    let change = syncline_server::net::accounts::admin::Change::Claims(claims);
    syncline_server::net::accounts::admin::change(&net.store(), ANA, &change, now()).expect("set");
    let (_, renewed) = net.refresh(&tokens).await;
    let token = renewed["access_token"].as_str().expect("a token");
    let claims = unpacked(token.split('.').nth(1).expect("claims"));
    assert_eq!(
        (&claims["role"], &claims["email"]),
        (&json!("editor"), &json!(ANA))
    );
}
