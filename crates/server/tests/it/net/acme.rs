//! Certificates by ACME, from a real authority on this machine: pebble, which the people of Let's
//! Encrypt test with.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Net, SOON, Wish};

/// An authority that issues for whoever shows the proof at one port.
struct Pebble {
    process: Child,
    directory: String,
    /// Vouches for the directory itself.
    ca: PathBuf,
    roots: String,
    http: reqwest::Client,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Pebble {
    async fn start(folder: &Path, proof_port: u16) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let cert = params.self_signed(&key).expect("a certificate");
        let (ca, key_file) = (folder.join("pebble.pem"), folder.join("pebble-key.pem"));
        std::fs::write(&ca, cert.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        let (port, management) = (free_port(), free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": ca, "privateKey": key_file,
            "httpPort": free_port(), "tlsPort": proof_port,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        let config_file = folder.join("pebble.json");
        std::fs::write(&config_file, config.to_string()).expect("a file");
        let process = Command::new("pebble")
            .arg("-config")
            .arg(&config_file)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble runs: install it (Debian: apt-get install pebble)");
        let root = reqwest::Certificate::from_pem(cert.pem().as_bytes()).expect("a certificate");
        let http = reqwest::Client::builder().tls_certs_only([root]).build();
        let pebble = Self {
            process,
            directory: format!("https://localhost:{port}/dir"),
            ca,
            roots: format!("https://localhost:{management}/roots/0"),
            http: http.expect("a client"),
        };
        let listening = async {
            while pebble.http.get(&pebble.roots).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, listening)
            .await
            .expect("pebble listens");
        pebble
    }

    /// Trusts what it issues, and nothing else.
    async fn client(&self) -> Arc<ClientConfig> {
        let root = self.http.get(&self.roots).send().await.expect("an answer");
        let root = root.bytes().await.expect("a root");
        let root = CertificateDer::from_pem_slice(&root).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A server at `port` whose names are proven to whoever listens at `directory`.
async fn serve(port: u16, folder: tempfile::TempDir, directory: &str, ca: &Path) -> Net {
    let data = folder.path().display().to_string();
    let (directory, ca) = (directory.to_owned(), ca.display().to_string());
    Net::start_with(Wish {
        listen: Box::leak(format!("127.0.0.1:{port}").into_boxed_str()),
        folder: Some(folder),
        server: Box::new(move |server| {
            server.data = data;
            server.acme_domains = vec!["localhost".into(), "localhost".into()];
            server.acme_contact = Some("ops@example.com".into());
            server.acme_directory = directory;
            server.acme_ca_file = Some(ca);
        }),
        ..Wish::default()
    })
    .await
}

/// The certificate that whoever connects is shown, if there is one and it is trusted.
async fn shown(port: u16, client: &Arc<ClientConfig>) -> Option<CertificateDer<'static>> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = ServerName::try_from("localhost").expect("a name");
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, socket);
    let stream = connecting.await.ok()?;
    let (_, session) = stream.get_ref();
    Some(session.peer_certificates()?[0].clone().into_owned())
}

async fn soon_shown(port: u16, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let looking = async {
        loop {
            if let Some(found) = shown(port, client).await {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(3 * SOON, looking)
        .await
        .expect("a certificate in time")
}

/// A certificate for `localhost` that nobody but itself vouches for, with `days` of its 90 left.
fn aged(days: i64) -> (String, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(86_400);
    params.not_before = (now - day * u32::try_from(90 - days).expect("small")).into();
    params.not_after = (now + day * u32::try_from(days).expect("small")).into();
    let cert = params.self_signed(&key).expect("a certificate");
    let text = format!("{}\n{}", cert.pem(), key.serialize_pem());
    (text, cert.der().clone())
}

fn trusting(root: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// Where the certificate is kept that `directory` issued.
fn kept(folder: &Path, directory: &str) -> PathBuf {
    let hash = blake3::hash(directory.as_bytes()).to_hex();
    folder.join(format!("acme/certificate-{}.pem", &hash[..16]))
}

fn put(folder: &Path, directory: &str, text: &str) {
    std::fs::create_dir_all(folder.join("acme")).expect("a folder");
    std::fs::write(kept(folder, directory), text).expect("a file");
}

#[tokio::test]
async fn se27_a_server_gets_its_certificate_by_itself_and_keeps_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let port = free_port();
    let pebble = Pebble::start(&path, port).await;
    let client = pebble.client().await;
    let net = serve(port, folder, &pebble.directory, &pebble.ca).await;
    assert!(
        net.server.url().starts_with("https://"),
        "{}",
        net.server.url()
    );
    let first = soon_shown(port, &client).await;

    // For its owner alone, all of it.
    let mut kept = 0;
    for entry in std::fs::read_dir(path.join("acme")).expect("the folder") {
        use std::os::unix::fs::PermissionsExt as _;
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
        kept += 1;
    }
    assert_eq!(kept, 2, "an account, and the certificate with its key");

    // Whoever asks for a proof when there is none to be shown learns nothing.
    let mut curious = client.as_ref().clone();
    curious.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    assert!(shown(port, &Arc::new(curious)).await.is_none());

    net.server.stop().await.expect("it stops");
    let again = serve(port, net.folder, &pebble.directory, &pebble.ca).await;
    assert_eq!(
        soon_shown(port, &client).await,
        first,
        "it is good for years"
    );
    again.server.stop().await.expect("it stops");
}

#[tokio::test]
async fn se27_an_old_certificate_is_in_use_until_a_new_one_is_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let (text, old) = aged(20);
    let port = free_port();

    // Nobody answers at the directory: the old one stays.
    let nowhere = format!("https://localhost:{}/dir", free_port());
    put(&path, &nowhere, &text);
    let ca = path.join("ca.pem");
    std::fs::write(&ca, &text).expect("a file");
    let net = serve(port, folder, &nowhere, &ca).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shown(port, &trusting(&old)).await, Some(old.clone()));
    net.server.stop().await.expect("it stops");
    let on_disk = std::fs::read_to_string(kept(&path, &nowhere));
    assert_eq!(on_disk.expect("the file"), text);

    // With somebody there it is renewed while the server runs, twenty days before its end.
    let pebble = Pebble::start(&path, port).await;
    let client = pebble.client().await;
    put(&path, &pebble.directory, &text);
    let net = serve(port, net.folder, &pebble.directory, &pebble.ca).await;
    assert_ne!(soon_shown(port, &client).await, old);
    net.server.stop().await.expect("it stops");
}

#[tokio::test]
async fn se27_a_good_certificate_is_left_as_it_is_and_one_for_other_names_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let (text, good) = aged(80);
    let port = free_port();
    let pebble = Pebble::start(&path, port).await;
    put(&path, &pebble.directory, &text);
    let net = serve(port, folder, &pebble.directory, &pebble.ca).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shown(port, &trusting(&good)).await, Some(good));
    net.server.stop().await.expect("it stops");

    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["other.example.com".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    let others = format!("{}\n{}", cert.pem(), key.serialize_pem());
    put(&path, &pebble.directory, &others);
    let client = pebble.client().await;
    let net = serve(port, net.folder, &pebble.directory, &pebble.ca).await;
    soon_shown(port, &client).await;
    net.server.stop().await.expect("it stops");

    // Its key is missing, or another one's.
    let (cert, _) = text.split_once("-----BEGIN PRIVATE").expect("a key");
    let mut folder = net.folder;
    for broken in [cert.to_owned(), format!("{cert}{}", key.serialize_pem())] {
        put(&path, &pebble.directory, &broken);
        let net = serve(port, folder, &pebble.directory, &pebble.ca).await;
        soon_shown(port, &client).await;
        net.server.stop().await.expect("it stops");
        folder = net.folder;
    }

    // What another authority issued, as one for trials, is not what this one vouches for.
    let elsewhere = "https://trials.example.com/dir";
    std::fs::rename(kept(&path, &pebble.directory), kept(&path, elsewhere)).expect("it moves");
    let net = serve(port, folder, &pebble.directory, &pebble.ca).await;
    soon_shown(port, &client).await;
    assert!(kept(&path, elsewhere).exists());
    net.server.stop().await.expect("it stops");
}

#[tokio::test]
async fn se27_files_and_acme_are_one_or_the_other() {
    let started = Net::try_start(Wish {
        server: Box::new(|server| {
            server.acme_domains = vec!["localhost".into()];
            server.tls_cert = Some("cert.pem".into());
        }),
        ..Wish::default()
    })
    .await;
    let told = started.err().expect("it does not start").to_string();
    assert!(
        told.contains("acme_domains") && told.contains("tls_cert"),
        "{told}"
    );
}
