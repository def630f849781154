//! Operators at an address of their own.

use super::{Net, Wish};

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
