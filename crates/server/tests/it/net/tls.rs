//! TLS by certificate files.

use std::{path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    Connector, connect_async_tls_with_config, tungstenite::client::IntoClientRequest as _,
};

use super::{Net, SOON, Wish};

/// An authority, and a folder for what it signed.
struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a certificate");
        Self {
            root: root.der().clone(),
            issuer: Issuer::new(params, key),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A certificate for this machine and its key, in PEM.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("a file");
    }

    fn wish(&self) -> Wish {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        Wish {
            server: Box::new(move |server| {
                server.tls_cert = Some(cert);
                server.tls_key = Some(key);
            }),
            ..Wish::default()
        }
    }

    async fn start(&self) -> Net {
        let (cert, key) = self.sign();
        self.put("cert.pem", &cert);
        self.put("key.pem", &key);
        Net::start_with(self.wish()).await
    }

    fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config = config.with_root_certificates(roots);
        Arc::new(config.with_no_client_auth())
    }

    async fn connect(&self, net: &Net) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(net.server.address())
            .await
            .expect("a socket");
        let name = ServerName::try_from("localhost").expect("a name");
        let connected = TlsConnector::from(self.client())
            .connect(name, socket)
            .await;
        connected.expect("a handshake")
    }

    async fn shown(&self, net: &Net) -> CertificateDer<'static> {
        let stream = self.connect(net).await;
        let (_, session) = stream.get_ref();
        let certs = session.peer_certificates().expect("certificates");
        certs[0].clone().into_owned()
    }
}

/// The first bytes of an answer to a request over an open connection.
async fn asked(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.expect("it is sent");
    let mut answer = vec![0; 4096];
    let reading = tokio::time::timeout(SOON, stream.read(&mut answer));
    let read = reading.await.expect("in time").expect("an answer");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test]
async fn se26_requests_and_sessions_are_encrypted_and_nothing_else_is_taken() {
    let authority = Authority::new();
    let net = authority.start().await;
    assert!(
        net.server.url().starts_with("https://"),
        "{}",
        net.server.url()
    );
    let answer = asked(&mut authority.connect(&net).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Something else at another port of this host may speak in clear.
    assert!(!answer.contains("strict-transport-security"), "{answer}");

    let url = format!("wss://localhost:{}/v1/sync", net.server.address().port());
    let mut request = url.into_client_request().expect("a request");
    let headers = request.headers_mut();
    let token = format!("Bearer {}", net.token("ada"));
    headers.insert("authorization", token.parse().expect("a header"));
    headers.insert(
        "sec-websocket-protocol",
        "syncline.v1".parse().expect("a header"),
    );
    let connector = Some(Connector::Rustls(authority.client()));
    let opened = connect_async_tls_with_config(request, None, true, connector).await;
    assert_eq!(opened.expect("a session").1.status(), 101);

    // Nobody's authority: the handshake fails, and the server goes on.
    let stranger = Authority::new();
    let socket = TcpStream::connect(net.server.address())
        .await
        .expect("a socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let refused = TlsConnector::from(stranger.client())
        .connect(name, socket)
        .await;
    assert!(refused.is_err());

    let mut clear = TcpStream::connect(net.server.address())
        .await
        .expect("a socket");
    let answer = asked(&mut clear).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("https_only") && answer.contains("https://"),
        "{answer}"
    );
    net.server.stop().await.expect("it stops");
}

#[tokio::test]
async fn se26_other_files_are_taken_without_ending_connections_and_bad_ones_are_not() {
    let authority = Authority::new();
    let net = authority.start().await;
    let mut open = authority.connect(&net).await;
    let first = authority.shown(&net).await;

    // A key that does not fit: for two looks at the files nothing changes.
    let (_, strange) = authority.sign();
    let good = std::fs::read_to_string(authority.path("key.pem")).expect("the key");
    authority.put("key.pem", &strange);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(authority.shown(&net).await, first);
    authority.put("cert.pem", "no certificate");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(authority.shown(&net).await, first);
    assert_ne!(good, strange);

    let (cert, key) = authority.sign();
    authority.put("cert.pem", &cert);
    authority.put("key.pem", &key);
    let changed = async {
        while authority.shown(&net).await == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(SOON, changed)
        .await
        .expect("it is read anew");
    let answer = asked(&mut open).await;
    assert!(
        answer.starts_with("HTTP/1.1 200"),
        "the old connection: {answer}"
    );
}

#[tokio::test]
async fn se26_a_server_does_not_start_with_files_it_cannot_use() {
    let authority = Authority::new();
    let (cert, key) = authority.sign();
    let (_, strange) = authority.sign();
    let cases: [(Option<&str>, Option<&str>, &str); 5] = [
        (None, Some(&key), "cannot be read"),
        (Some("nothing"), Some(&key), "has no certificate"),
        (Some(&cert), Some("nothing"), "has no private key"),
        (Some(&cert), Some(&cert), "has no private key"),
        (
            Some(&cert),
            Some(&strange),
            "is not the key of the certificate",
        ),
    ];
    for (cert, key, wanted) in cases {
        for (name, text) in [("cert.pem", cert), ("key.pem", key)] {
            drop(std::fs::remove_file(authority.path(name)));
            if let Some(text) = text {
                authority.put(name, text);
            }
        }
        let error = Net::try_start(authority.wish())
            .await
            .err()
            .expect("no start");
        let error = error.to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
        assert!(error.starts_with("server.tls_"), "{error}");
        assert!(
            error.contains(Path::new(authority.folder.path()).to_str().expect("a path")),
            "{error}"
        );
    }
    let half = Wish {
        server: Box::new(|server| server.tls_cert = Some("cert.pem".into())),
        ..Wish::default()
    };
    let error = Net::try_start(half)
        .await
        .err()
        .expect("no start")
        .to_string();
    assert!(error.contains("needs server.tls_key"), "{error}");
}

#[tokio::test]
async fn se26_whoever_connects_and_says_nothing_is_cut() {
    let authority = Authority::new();
    let (cert, key) = authority.sign();
    authority.put("cert.pem", &cert);
    authority.put("key.pem", &key);
    let mut wish = authority.wish();
    wish.limits.head_max = Duration::from_millis(200);
    let net = Net::start_with(wish).await;
    for begin in [&b""[..], &[0x16, 3, 1], b"GET / HT"] {
        let mut socket = TcpStream::connect(net.server.address())
            .await
            .expect("a socket");
        socket.write_all(begin).await.expect("it is sent");
        let mut rest = Vec::new();
        let read = tokio::time::timeout(SOON, socket.read_to_end(&mut rest)).await;
        drop(read.expect("the connection ends"));
    }
}

#[tokio::test]
async fn se26_browsers_are_told_to_ask_over_tls_alone_where_that_is_configured() {
    let authority = Authority::new();
    drop(authority.start().await);
    let mut wish = authority.wish();
    let with_tls = wish.server;
    wish.server = Box::new(move |server| {
        with_tls(server);
        server.hsts_days = 30;
    });
    let net = Net::start_with(wish).await;
    let answer = asked(&mut authority.connect(&net).await).await;
    let told = "strict-transport-security: max-age=2592000\r\n";
    assert!(answer.contains(told), "{answer}");
}
