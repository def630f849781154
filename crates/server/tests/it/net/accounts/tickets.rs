//! One-use tickets for WebSockets.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_core::wire::code;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{
    super::{Net, now},
    ANA, WORDS, open_house,
};

impl Net {
    async fn ticket(&self, token: &str) -> String {
        let request = self.http.post(self.url("/v1/tickets")).bearer_auth(token);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let body: Value = answer.json().await.expect("it is JSON");
        assert_eq!(body["expires_in"], 30);
        body["ticket"].as_str().expect("a ticket").to_owned()
    }

    fn with_ticket(&self, ticket: &str) -> String {
        format!("ws://{}/v1/sync?ticket={ticket}", self.server.address())
    }

    /// The status and the code that whoever comes with this ticket is refused with.
    async fn refused_ticket(&self, ticket: &str) -> (u16, String) {
        let request = self.get(&format!("/v1/sync?ticket={ticket}"));
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.expect("it is JSON");
        (status, body["code"].as_str().expect("a code").to_owned())
    }
}

#[tokio::test]
async fn ac18_a_ticket_opens_one_session_and_no_other() {
    let net = Net::start().await;
    let ticket = net.ticket(&net.token("ada")).await;
    let request = net.with_ticket(&ticket).into_client_request();
    let mut ada = net
        .try_request(request.expect("a request"))
        .await
        .expect("a session");
    ada.sync(1).await;

    let unauthorized = (401, code::UNAUTHORIZED.to_owned());
    assert_eq!(net.refused_ticket(&ticket).await, unauthorized, "once");
    let made_up = "A".repeat(ticket.len());
    assert_eq!(net.refused_ticket(&made_up).await, unauthorized);
    assert_eq!(net.refused_ticket("").await, unauthorized);
    let other = Net::start().await;
    let foreign = other.ticket(&other.token("ada")).await;
    assert_eq!(net.refused_ticket(&foreign).await, unauthorized);
    // Nor is a ticket a token, or a token a ticket.
    let request = net
        .get("/v1/pull")
        .bearer_auth(net.ticket(&net.token("ada")).await);
    assert_eq!(request.send().await.expect("an answer").status(), 401);
    assert_eq!(net.refused_ticket(&net.token("ada")).await, unauthorized);
    let path = format!("/v1/pull?ticket={}", net.ticket(&net.token("ada")).await);
    assert_eq!(
        net.get(&path).send().await.expect("an answer").status(),
        401
    );
}

#[tokio::test]
async fn ac18_a_ticket_is_good_as_long_as_the_token_it_was_given_for() {
    let net = open_house().await;
    let signed = net
        .auth("sign-up", &json!({ "email": ANA, "password": WORDS }))
        .await;
    let tokens = signed.1;
    let access = tokens["access_token"].as_str().expect("a token");
    let ticket = net.ticket(access).await;
    let refresh = json!({ "refresh_token": tokens["refresh_token"] });
    assert_eq!(net.auth("sign-out", &refresh).await.0, 204);
    // Within a second, as the token itself (AC3).
    let taken = async || {
        let asked = net.get("/v1/auth/user").bearer_auth(access).send().await;
        asked.expect("an answer").status() == 200
    };
    while taken().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let unauthorized = (401, code::UNAUTHORIZED.to_owned());
    assert_eq!(net.refused_ticket(&ticket).await, unauthorized);

    // The server allows for ten seconds of difference between clocks.
    let short = |micros: u64| {
        let end = syncline_core::Timestamp(now().0 - micros);
        let issued = net.auth.issue("ada", Default::default(), now(), end);
        issued.expect("a token")
    };
    let ticket = net.ticket(&short(7_000_000)).await;
    let request = net.with_ticket(&ticket).into_client_request();
    let mut ada = net
        .try_request(request.expect("a request"))
        .await
        .expect("a session");
    ada.sync(1).await;
    assert_eq!(ada.refused().await.0, code::UNAUTHORIZED, "it ends with it");
}
