//! A server with a certificate of its own, and devices that trust who signed it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::{Outcome, Scratch, Server, exit, rows};

/// Writes `ca.pem`, and `cert.pem` with `key.pem` for this machine.
fn certificates(scratch: &Scratch) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("a certificate");
    scratch.write("ca.pem", &root.pem());
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let cert = params.signed_by(&key, &issuer).expect("a certificate");
    scratch.write("cert.pem", &cert.pem());
    scratch.write("key.pem", &key.serialize_pem());
}

#[test]
fn se26_devices_sync_over_tls_with_an_authority_of_ones_own() {
    let scratch = Scratch::new();
    certificates(&scratch);
    let args = ["--dev", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let server = Server::start(&scratch, "data", &args);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let token = server.token("ana");
    let run = |args: &[&str], ca: Option<&str>, url: &str| {
        let mut command = scratch.command(args);
        command.args(["--json", "--server", url, "--token", &token]);
        if let Some(ca) = ca {
            command.env("SYNCLINE_CA_FILE", scratch.path(ca));
        }
        Outcome::of(&mut command)
    };
    scratch.database(
        "ana.db",
        "CREATE TABLE notes (id TEXT PRIMARY KEY NOT NULL, body TEXT); INSERT INTO notes VALUES ('n', 'hello');",
    );
    run(&["seed", "ana.db"], None, &server.url).expect(exit::UNREACHABLE);
    run(&["seed", "ana.db"], Some("ca.pem"), &server.url).expect(exit::DONE);
    run(&["hydrate", "phone.db"], Some("ca.pem"), &server.url).expect(exit::DONE);
    assert_eq!(
        rows(&scratch.path("phone.db"), "SELECT body FROM notes"),
        "hello"
    );
    run(&["sync", "phone.db"], Some("key.pem"), &server.url)
        .expect(exit::UNAUTHORIZED)
        .says(&["SYNCLINE_CA_FILE"]);
    let clear = server.url.replace("https://", "http://");
    run(&["hydrate", "other.db"], None, &clear)
        .expect(exit::REFUSED)
        .says(&["https://"]);
}

#[test]
fn se26_a_key_that_does_not_fit_is_told_at_the_start() {
    let scratch = Scratch::new();
    certificates(&scratch);
    let args = [
        "serve",
        "--dev",
        "--data",
        "data",
        "--tls-cert",
        "cert.pem",
        "--tls-key",
        "ca.pem",
    ];
    scratch
        .run(&args)
        .expect(exit::CONFIG)
        .says(&["server.tls_key: ca.pem has no private key"]);
}
