//! TLS by certificate files, read anew when they change (spec SE26), or by one that the server got
//! by itself (spec SE27).

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::acme;

/// How often it is looked whether the files are others.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A certificate with all that vouch for it is a few kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What a TLS connection begins with; no request over HTTP does.
const HANDSHAKE: u8 = 0x16;
/// How much of a request in clear is read before it is answered.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Encrypts connections with the newest certificate that could be used.
pub(crate) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    /// `None` until the first one is here.
    current: RwLock<Option<Arc<ServerConfig>>>,
    seen: Mutex<[Seen; 2]>,
    /// What an authority is to see that asks whether a name is this server's.
    proofs: RwLock<BTreeMap<String, Arc<ServerConfig>>>,
}

/// What tells that a file is another one: that of whichever file a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen(Option<(SystemTime, u64)>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn open(cert: &Path, key: &Path) -> Result<Arc<Self>, String> {
        // Looked at before: what changes while they are read is read again.
        let seen = Mutex::new(look(cert, key));
        Ok(Arc::new(Self {
            current: RwLock::new(Some(load(cert, key)?)),
            cert: cert.to_owned(),
            key: key.to_owned(),
            seen,
            proofs: RwLock::default(),
        }))
    }

    /// As [`Tls::open`], with a file that has both, and that may not be there or usable yet.
    pub(crate) fn awaited(file: &Path) -> Arc<Self> {
        let seen = Mutex::new(look(file, file));
        let current = match file.exists().then(|| load(file, file)) {
            None => None,
            Some(Ok(config)) => Some(config),
            Some(Err(reason)) => {
                tracing::warn!(%reason, "the certificate that is here cannot be used");
                None
            }
        };
        Arc::new(Self {
            current: RwLock::new(current),
            cert: file.to_owned(),
            key: file.to_owned(),
            seen,
            proofs: RwLock::default(),
        })
    }

    /// Shows `proof` to who asks for this name by [`acme::PROTOCOL`].
    pub(crate) fn put_proof(&self, name: &str, proof: Arc<ServerConfig>) {
        self.proofs.write().insert(name.to_owned(), proof);
    }

    pub(crate) fn forget_proofs(&self) {
        self.proofs.write().clear();
    }

    /// Greets one connection; `None` where an authority has seen what it came for. Connections
    /// that are open keep the certificate that they began with.
    ///
    /// # Errors
    /// The handshake's.
    pub(crate) async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: IO,
    ) -> io::Result<Option<TlsStream<IO>>> {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket).await?;
        let (asks, name) = {
            let hello = start.client_hello();
            let asks = hello
                .alpn()
                .is_some_and(|mut offered| offered.all(|protocol| protocol == acme::PROTOCOL));
            (asks, hello.server_name().unwrap_or_default().to_owned())
        };
        if asks {
            let proof = self.proofs.read().get(&name).cloned();
            let proof = proof.ok_or_else(|| io::Error::other("nobody is to prove this name"))?;
            let mut shown = start.into_stream(proof).await?;
            shown.shutdown().await?;
            return Ok(None);
        }
        let current = self.current.read().clone();
        let current = current.ok_or_else(|| io::Error::other("there is no certificate yet"))?;
        start.into_stream(current).await.map(Some)
    }

    fn reload_if_changed(&self) {
        let found = look(&self.cert, &self.key);
        if std::mem::replace(&mut *self.seen.lock(), found) != found {
            self.reload();
        }
    }

    fn reload(&self) {
        let (cert, key) = (self.cert.display(), self.key.display());
        match load(&self.cert, &self.key) {
            Ok(config) => {
                *self.current.write() = Some(config);
                tracing::info!(%cert, %key, "the certificate was read anew");
            }
            // Two files are not written at once: the other one may follow.
            Err(reason) => {
                tracing::warn!(%reason, "the certificate changed and cannot be used; the one before stays");
            }
        }
    }
}

/// Reads the files again whenever they are others, until the server has gone.
pub(crate) async fn watch(tls: Weak<Tls>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(tls) = tls.upgrade() else { return };
        let looked = tokio::task::spawn_blocking(move || tls.reload_if_changed());
        if let Err(error) = looked.await {
            tracing::warn!(%error, "the certificate could not be looked at");
        }
    }
}

fn look(cert: &Path, key: &Path) -> [Seen; 2] {
    [cert, key].map(|path| {
        let metadata = fs::metadata(path).ok();
        Seen(metadata.and_then(|found| Some((found.modified().ok()?, found.len()))))
    })
}

fn load(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let told = |path: &Path, name: &str, reason: &dyn std::fmt::Display| {
        format!("server.{name}: {} {reason}", path.display())
    };
    let text = read(cert).map_err(|error| told(cert, "tls_cert", &error))?;
    let certs: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(&text).collect();
    let certs = certs.map_err(|error| told(cert, "tls_cert", &format!("is no PEM: {error}")))?;
    if certs.is_empty() {
        let reason = "has no certificate (BEGIN CERTIFICATE) in it";
        return Err(told(cert, "tls_cert", &reason));
    }
    let text = read(key).map_err(|error| told(key, "tls_key", &error))?;
    let secret = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| told(key, "tls_key", &format!("has no private key: {error}")))?;
    server_config(certs, secret).map_err(|error| {
        let reason = if matches!(error, rustls::Error::InconsistentKeys(_)) {
            format!("is not the key of the certificate in {}", cert.display())
        } else {
            format!("and {} cannot be used: {error}", cert.display())
        };
        told(key, "tls_key", &reason)
    })
}

/// With this certificate.
pub(crate) fn server_config(
    certs: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certs, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let file = fs::File::open(path).map_err(cannot)?;
    let mut content = Vec::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_end(&mut content).map_err(cannot)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {FILE_BYTES_MAX} bytes"));
    }
    Ok(content)
}

/// Whether the other side begins with TLS; waits for its first byte.
pub(crate) async fn is_tls(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let read = socket.peek(&mut first).await?;
    Ok(read == 1 && first[0] == HANDSHAKE)
}

/// Tells somebody who speaks HTTP in clear what to write.
pub(crate) async fn refuse(mut socket: TcpStream) -> io::Result<()> {
    // What is not read would be answered by a reset, which overtakes the sentence.
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let mut read = 0;
    while read < request.len() && !request[..read].windows(4).any(|part| part == b"\r\n\r\n") {
        match socket.read(&mut request[read..]).await? {
            0 => return Ok(()),
            more => read += more,
        }
    }
    let body = concat!(
        r#"{"code":"https_only","message":"this server is reached by https:// (and wss://) only","#,
        r#""retry":false}"#,
        "\n"
    );
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await
}
