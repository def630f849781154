//! Operators at an address of their own.

use std::collections::BTreeMap;

use syncline_core::Timestamp;

use super::{Net, Wish, now};

#[tokio::test]
async fn operators_have_an_address_of_their_own() {
    let net = Net::start_with(Wish {
        admin: Some("127.0.0.1:0"),
        ..Wish::default()
    })
    .await;
    assert_eq!(
        net.get("/metrics")
            .send()
            .await
            .expect("an answer")
            .status(),
        404
    );
    let admin = net.server.admin_address().expect("it was asked for");
    for (path, status) in [("/metrics", 200), ("/readyz", 200), ("/v1/schema", 404)] {
        let answer = net.http.get(format!("http://{admin}{path}")).send().await;
        assert_eq!(answer.expect("an answer").status(), status, "{path}");
    }
    net.server.stop().await.expect("it stops");
}

#[tokio::test]
async fn metrics_that_others_can_ask_for_are_an_administrators() {
    let net = Net::start_with(Wish {
        listen: "0.0.0.0:0",
        ..Wish::default()
    })
    .await;
    let url = format!("http://127.0.0.1:{}/metrics", net.server.address().port());
    let status = async |token: Option<String>| {
        let request = net.http.get(&url);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.expect("an answer").status().as_u16()
    };
    let with = |claim: &str, value: serde_json::Value| {
        let claims = BTreeMap::from([(claim.to_owned(), value)]);
        let end = Timestamp(now().0 + 60_000_000);
        Some(net.auth.issue("ada", claims, now(), end).expect("a token"))
    };
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some("nonsense".to_owned())).await, 401);
    assert_eq!(status(Some(net.token("ada"))).await, 403);
    assert_eq!(status(with("role", "admin".into())).await, 403);
    assert_eq!(status(with("syncline_admin", "true".into())).await, 403);
    assert_eq!(status(with("syncline_admin", false.into())).await, 403);
    assert_eq!(status(with("syncline_admin", true.into())).await, 200);

    // Nobody but this machine can ask.
    let local = Net::start().await;
    let answer = local.get("/metrics").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn metrics_behind_a_proxy_on_this_machine_are_an_administrators() {
    let net = Net::start().await;
    let claims = BTreeMap::from([("syncline_admin".to_owned(), true.into())]);
    let end = Timestamp(now().0 + 60_000_000);
    let token = net.auth.issue("ops", claims, now(), end).expect("a token");
    for name in ["Forwarded", "X-Forwarded-For", "X-Real-IP"] {
        let request = || net.get("/metrics").header(name, "for=192.0.2.1");
        let answer = request().send().await.expect("an answer");
        assert_eq!(answer.status(), 401, "{name}");
        let answer = request().bearer_auth(&token).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{name}");
    }

    let behind = Net::start_with(Wish {
        trusted_proxies: &["127.0.0.1"],
        ..Wish::default()
    })
    .await;
    let answer = behind.get("/metrics").send().await.expect("an answer");
    assert_eq!(answer.status(), 401, "whatever the proxy tells");

    let dev = Net::start_with(Wish {
        dev: true,
        ..Wish::default()
    })
    .await;
    let request = dev.get("/metrics").header("x-forwarded-for", "192.0.2.1");
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "with --dev everything is open");
}
