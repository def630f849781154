//! Forged, damaged, stale and strange tokens: a table of what is never taken.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

fn auth() -> Auth {
    Auth::new(SECRET).expect("the secret is long enough")
}

/// A token with this header and these claims, signed well.
fn signed(header: &Value, claims: &Value) -> String {
    signed_text(&header.to_string(), &claims.to_string())
}

fn signed_text(header: &str, claims: &str) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("it signs"))
}

fn good_header() -> Value {
    json!({ "alg": "HS256", "typ": "JWT" })
}

fn good_claims() -> Value {
    json!({ "sub": "ana", "exp": now() + 600 })
}

#[track_caller]
fn refused(token: &str, what: &str) {
    match auth().verify(token) {
        Ok(proof) => panic!("{what}: taken as {:?}", proof.identity),
        Err(refusal) => {
            assert_eq!(refusal.code, code::UNAUTHORIZED, "{what}");
            assert!(refusal.fatal && !refusal.retry, "{what}");
            assert!(
                token.is_empty() || !refusal.message.contains(token),
                "{what}"
            );
        }
    }
}

#[test]
fn a_good_token_is_taken_and_names_its_end() {
    let exp = now() + 600;
    let claims = json!({ "sub": "ana", "exp": exp, "role": "editor" });
    let proof = auth()
        .verify(&signed(&good_header(), &claims))
        .expect("it is good");
    assert_eq!(proof.identity.user, Some(UserId("ana".into())));
    assert_eq!(proof.identity.claims["role"], "editor");
    let end = proof.expires.expect("it ends");
    assert_eq!(end, Timestamp((exp + LEEWAY_SECONDS) * 1_000_000));
}

#[test]
fn other_algorithms_and_headers_are_refused() {
    let claims = good_claims();
    for alg in [
        "none", "None", "nOnE", "NONE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256",
    ] {
        refused(&signed(&json!({ "alg": alg, "typ": "JWT" }), &claims), alg);
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let unsigned = format!("{}.{}.", part(&json!({ "alg": alg })), part(&claims));
        refused(&unsigned, &format!("{alg} without a signature"));
    }
    refused(&signed(&json!({ "typ": "JWT" }), &claims), "no algorithm");
    refused(&signed(&json!([]), &claims), "a header that is a list");
    let twice = r#"{"alg":"none","alg":"HS256"}"#;
    refused(&signed_text(twice, &claims.to_string()), "two algorithms");
}

#[test]
fn a_key_that_the_token_brings_is_not_used() {
    let other = EncodingKey::from_secret(b"another secret of thirty-two byte");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("../../dev/null".into());
    header.jku = Some("https://evil.test/keys".into());
    header.x5u = Some("https://evil.test/cert".into());
    let token = jsonwebtoken::encode(&header, &good_claims(), &other).expect("it signs");
    refused(&token, "signed by a stranger");
}

#[test]
fn damaged_tokens_are_refused() {
    let good = signed(&good_header(), &good_claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let other = signed(&good_header(), &json!({ "sub": "eve", "exp": now() + 600 }));
    let others: Vec<&str> = other.split('.').collect();
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        header.into(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!(".{good}"),
        format!("{header}.{}.{signature}", others[1]),
        format!("{header}.{claims}.{}", others[2]),
        format!("{header}.{claims}.{}", &signature[1..]),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}=.{signature}"),
        format!("{good}\n"),
        format!("{good} "),
        "a".repeat(TOKEN_BYTES_MAX + 1),
    ] {
        refused(&token, &token);
    }
}

#[test]
fn claims_that_say_nothing_or_too_much_are_refused() {
    let exp = now() + 600;
    for claims in [
        json!({ "exp": exp }),
        json!({ "sub": "", "exp": exp }),
        json!({ "sub": null, "exp": exp }),
        json!({ "sub": 7, "exp": exp }),
        json!({ "sub": ["ana"], "exp": exp }),
        json!({ "sub": { "id": "ana" }, "exp": exp }),
        json!({ "sub": "a".repeat(USER_BYTES_MAX + 1), "exp": exp }),
        json!({ "sub": "ana" }),
        json!({ "sub": "ana", "exp": null }),
        json!({ "sub": "ana", "exp": "9999999999" }),
        json!({ "sub": "ana", "exp": 1e20 }),
        json!({ "sub": "ana", "exp": -1 }),
        json!({ "sub": "ana", "exp": 0 }),
        json!({ "sub": "ana", "exp": [exp] }),
        json!({ "sub": "ana", "exp": true }),
        json!({ "sub": "ana", "exp": now() - 30 }),
        json!({ "sub": "ana", "exp": exp, "nbf": now() + 900 }),
        json!({ "sub": "ana", "exp": exp, "nbf": "soon" }),
        json!([]),
        json!("ana"),
    ] {
        refused(&signed(&good_header(), &claims), &claims.to_string());
    }
    let twice = format!(r#"{{"sub":"eve","sub":"ana","exp":{exp}}}"#);
    refused(
        &signed_text(&good_header().to_string(), &twice),
        "two users",
    );
    let deep = format!(
        r#"{{"sub":"ana","exp":{exp},"x":{}1{}}}"#,
        "[".repeat(400),
        "]".repeat(400)
    );
    refused(
        &signed_text(&good_header().to_string(), &deep),
        "deep claims",
    );
}

#[test]
fn nobody_is_issued_what_the_server_sets_itself() {
    let auth = auth();
    let (from, to) = (Timestamp(0), Timestamp(1));
    for claim in ["sub", "exp", "nbf", "iat", "iss", "aud"] {
        let claims = BTreeMap::from([(claim.to_owned(), json!("x"))]);
        assert!(auth.issue("ana", claims, from, to).is_err(), "{claim}");
    }
    for user in [String::new(), "a".repeat(USER_BYTES_MAX + 1)] {
        assert!(auth.issue(&user, BTreeMap::new(), from, to).is_err());
    }
}

#[test]
fn a_short_secret_is_refused_and_a_secret_is_never_printed() {
    assert!(Auth::new(&SECRET[1..]).is_err());
    assert!(!format!("{:?}", auth()).contains("0123456789"));
}
