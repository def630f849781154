//! Tokens of an identity provider: its keys, and what it says of people.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Net, Wish, now};

const ISSUER: &str = "https://id.example.com/";

/// Publishes keys, and counts how often they are asked for.
struct Publisher {
    port: u16,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let port = listener.local_addr().expect("an address").port();
        let (answer, asked) = (Arc::new(Mutex::default()), Arc::new(AtomicUsize::new(0)));
        let publisher = Self {
            port,
            answer,
            asked,
        };
        let (answer, asked) = (Arc::clone(&publisher.answer), Arc::clone(&publisher.asked));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                asked.fetch_add(1, Ordering::SeqCst);
                let text: String = answer.lock().expect("whole").clone();
                let mut head = [0; 4096];
                let _read = socket.read(&mut head).await;
                let _sent = socket.write_all(text.as_bytes()).await;
            }
        });
        publisher
    }

    fn publish(&self, keys: &[Value]) {
        self.say(&json!({ "keys": keys }).to_string());
    }

    fn say(&self, body: &str) {
        let length = body.len();
        self.raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ));
    }

    fn raw(&self, answer: String) {
        *self.answer.lock().expect("whole") = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn server(publisher: &Publisher) -> Net {
    let port = publisher.port;
    Net::start_with(Wish {
        server: Box::new(move |server| {
            server.provider_issuer = Some(ISSUER.into());
            server.provider_audience = Some("app".into());
            server.provider_jwks = Some(format!("http://127.0.0.1:{port}/keys"));
        }),
        ..Wish::default()
    })
    .await
}

/// One key of the provider.
struct Signer {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    fn ec(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        let key = EncodingKey::from_ec_der(key.expect("a key").as_ref());
        Self {
            kid,
            algorithm: Algorithm::ES256,
            key,
        }
    }

    fn ed(kid: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).expect("a key");
        let key = EncodingKey::from_ed_der(key.as_ref());
        Self {
            kid,
            algorithm: Algorithm::EdDSA,
            key,
        }
    }

    fn rsa(kid: &'static str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("it encodes");
        let pem = Pkcs1::of(der.as_ref());
        let key = EncodingKey::from_rsa_der(pem.0);
        Self {
            kid,
            algorithm: Algorithm::RS256,
            key,
        }
    }

    fn public(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a key");
        key.common.key_id = Some(self.kid.into());
        serde_json::to_value(key).expect("JSON")
    }

    fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.into());
        jsonwebtoken::encode(&header, claims, &self.key).expect("it signs")
    }
}

/// The inner key of a PKCS #8 file of RSA: what stands in its last OCTET STRING.
struct Pkcs1<'d>(&'d [u8]);

impl<'d> Pkcs1<'d> {
    fn of(pkcs8: &'d [u8]) -> Self {
        // SEQUENCE, version, algorithm (15 bytes), OCTET STRING with a length of two bytes.
        let at = 4 + 3 + 15;
        assert_eq!(&pkcs8[at..at + 2], [0x04, 0x82]);
        Self(&pkcs8[at + 4..])
    }
}

fn claims() -> Value {
    let seconds = now().as_millis() / 1_000;
    json!({
        "iss": ISSUER, "aud": "app", "sub": "ana", "exp": seconds + 600, "iat": seconds,
        "role": "editor", "jti": "7", "syncline_admin": true,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => claims.as_object_mut().expect("an object").remove(name),
        value => claims
            .as_object_mut()
            .expect("an object")
            .insert(name.into(), value),
    };
    claims
}

async fn asked(net: &Net, token: &str) -> (u16, Value) {
    let answer = net.get("/v1/auth/user").bearer_auth(token).send().await;
    let answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn ac13_tokens_of_the_provider_are_taken_with_their_claims() {
    let publisher = Publisher::open().await;
    let net = server(&publisher).await;
    let signers = [Signer::ec("one"), Signer::ed("two"), Signer::rsa("three")];
    let mut keys: Vec<Value> = signers.iter().map(Signer::public).collect();
    keys.push(json!({ "kty": "unheard of", "kid": "four" }));
    publisher.publish(&keys);
    for signer in &signers {
        let (status, user) = asked(&net, &signer.token(&claims())).await;
        assert_eq!(status, 200, "{}: {user}", signer.kid);
        assert_eq!(user["id"], "ana");
        // What is only this token's is not who somebody is; administrators are ours alone.
        let expected = json!({ "iss": ISSUER, "aud": "app", "role": "editor" });
        assert_eq!(user["claims"], expected);
    }
    assert_eq!(publisher.asked(), 1);
    let mut socket = net
        .try_socket(&signers[0].token(&claims()))
        .await
        .expect("a session");
    socket.sync(1).await;
    // The next token of the same person goes on without another connection.
    let token = signers[1].token(&with("jti", json!("8")));
    socket
        .say(&syncline_core::wire::ClientMessage::Token(
            syncline_core::wire::TokenRenewal { token },
        ))
        .await;
    let ping = syncline_core::wire::Ping {
        sent: now(),
        now: now(),
    };
    socket
        .say(&syncline_core::wire::ClientMessage::Ping(ping))
        .await;
    socket
        .hear_until(|message| {
            matches!(message, syncline_core::wire::ServerMessage::Pong(_)).then_some(())
        })
        .await;
    // The operator's own tokens are taken beside them.
    assert_eq!(asked(&net, &net.token("ben")).await.0, 200);
}

#[tokio::test]
async fn ac13_forged_tokens_of_a_provider_are_never_taken() {
    let publisher = Publisher::open().await;
    let net = server(&publisher).await;
    let signer = Signer::ec("one");
    let secret = json!({ "kty": "oct", "kid": "open", "alg": "HS256", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U" });
    let mut sealing = Signer::ed("sealing").public();
    sealing["use"] = "enc".into();
    publisher.publish(&[signer.public(), secret, sealing]);
    assert_eq!(asked(&net, &signer.token(&claims())).await.0, 200);
    let seconds = now().as_millis() / 1_000;
    let mut forged = Vec::new();
    for (name, value) in [
        ("exp", json!(seconds - 30)),
        ("exp", Value::Null),
        ("exp", json!("9999999999")),
        ("nbf", json!(seconds + 900)),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("aud", Value::Null),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!("a".repeat(300))),
        // These are judged by our own secret, which they are not signed with.
        ("iss", json!("https://evil.test/")),
        ("iss", Value::Null),
    ] {
        forged.push((format!("{name} {value}"), signer.token(&with(name, value))));
    }
    let mut header = Header::new(Algorithm::HS256);
    for (kid, key) in [
        (
            "open",
            EncodingKey::from_base64_secret("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U="),
        ),
        (
            "one",
            Ok(EncodingKey::from_secret(
                signer.public()["x"].as_str().expect("x").as_bytes(),
            )),
        ),
    ] {
        header.kid = Some(kid.into());
        let key = key.expect("a secret");
        let token = jsonwebtoken::encode(&header, &claims(), &key).expect("it signs");
        forged.push((format!("HS256 with {kid}"), token));
    }
    forged.push((
        "a stranger's key of that name".into(),
        Signer::ec("one").token(&claims()),
    ));
    forged.push(("another family".into(), Signer::ed("one").token(&claims())));
    let mut unnamed = Header::new(Algorithm::ES256);
    forged.push((
        "no name".into(),
        jsonwebtoken::encode(&unnamed, &claims(), &signer.key).expect("it signs"),
    ));
    unnamed.kid = Some("k".repeat(1_000));
    forged.push((
        "a long name".into(),
        jsonwebtoken::encode(&unnamed, &claims(), &signer.key).expect("it signs"),
    ));
    for (what, token) in &forged {
        let (status, answer) = asked(&net, token).await;
        assert_eq!(status, 401, "{what}: {answer}");
    }
}

#[tokio::test]
async fn ac14_names_of_keys_that_nobody_knows_cost_one_request() {
    let publisher = Publisher::open().await;
    let net = server(&publisher).await;
    let signer = Signer::ec("one");
    publisher.publish(&[signer.public()]);
    assert_eq!(asked(&net, &signer.token(&claims())).await.0, 200);
    for n in 0..500 {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(format!("../{n}' OR 1=1"));
        let token = jsonwebtoken::encode(&header, &claims(), &signer.key).expect("it signs");
        assert_eq!(asked(&net, &token).await.0, 401);
    }
    assert_eq!(publisher.asked(), 1);
    assert_eq!(asked(&net, &signer.token(&claims())).await.0, 200);
}

#[tokio::test]
async fn ac14_without_keys_nobody_is_judged_and_all_are_told_to_come_back() {
    let key = Signer::ec("one");
    for answer in [
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n{{{".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"keys\":[]}".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{{\"keys\":[],\"x\":\"{}\"}}",
            "x".repeat(300_000)
        ),
    ] {
        let publisher = Publisher::open().await;
        publisher.raw(answer.clone());
        let net = server(&publisher).await;
        let (status, body) = asked(&net, &key.token(&claims())).await;
        assert_eq!((status, &body["code"]), (503, &"unavailable".into()), "{answer:.40}");
        assert_eq!(publisher.asked(), 1);
    }
}

#[tokio::test]
async fn ac13_a_provider_that_is_half_configured_is_a_mistake() {
    let mistakes: [fn(&mut syncline_core::config::ServerConfig); 5] = [
        |server| server.provider_audience = Some("app".into()),
        |server| server.provider_issuer = Some(ISSUER.into()),
        |server| {
            server.provider_issuer = Some(ISSUER.into());
            server.provider_jwks = Some("http://id.example.com/keys".into());
        },
        |server| {
            server.provider_issuer = Some(ISSUER.into());
            server.provider_secret_file = Some("/nowhere/at/all".into());
        },
        |server| {
            server.provider_issuer = Some(ISSUER.into());
            server.provider_jwks = Some("https://id.example.com/keys".into());
            server.provider_secret_file = Some("/nowhere/at/all".into());
        },
    ];
    for server in mistakes {
        let wish = Wish {
            server: Box::new(server),
            ..Wish::default()
        };
        let error = Net::try_start(wish).await.err().expect("a mistake");
        assert!(error.to_string().contains("server.provider_"), "{error}");
    }
}

#[tokio::test]
async fn ac13_tokens_signed_with_the_providers_secret_are_taken_and_forged_ones_are_not() {
    const KEY: &[u8] = b"a secret of thirty-two bytes or more";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, KEY).expect("the secret");
    let file = file.display().to_string();
    let net = Net::start_with(Wish {
        server: Box::new(move |server| {
            server.provider_issuer = Some(ISSUER.into());
            server.provider_audience = Some("app".into());
            server.provider_secret_file = Some(file);
        }),
        ..Wish::default()
    })
    .await;
    let signed = |algorithm: Algorithm, key: &[u8], claims: &Value| {
        let header = Header::new(algorithm);
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(key)).expect("a token")
    };
    let good = signed(Algorithm::HS256, KEY, &claims());
    let (status, user) = asked(&net, &good).await;
    assert_eq!((status, &user["id"]), (200, &json!("ana")), "{user}");
    assert_eq!(user["claims"]["role"], "editor");

    let mut forged = vec![
        (
            "another secret",
            signed(
                Algorithm::HS256,
                b"another secret of thirty-two bytes!",
                &claims(),
            ),
        ),
        ("another hash", signed(Algorithm::HS512, KEY, &claims())),
        ("no secret", signed(Algorithm::HS256, b"", &claims())),
        ("another user", good.replace('.', "..")),
    ];
    for (name, value) in [
        ("aud", json!("other")),
        ("iss", json!("https://evil.test/")),
        ("exp", json!(1)),
        ("sub", Value::Null),
    ] {
        forged.push((name, signed(Algorithm::HS256, KEY, &with(name, value))));
    }
    let (_, rest) = good.split_once('.').expect("three parts");
    let (payload, _) = rest.split_once('.').expect("three parts");
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    forged.push(("none", format!("{none}.{payload}.")));
    for (what, token) in forged {
        let (status, answer) = asked(&net, &token).await;
        assert_eq!(status, 401, "{what}: {answer}");
    }
}
