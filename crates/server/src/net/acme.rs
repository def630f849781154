//! Certificates from an authority that speaks ACME (RFC 8555), proven by TLS-ALPN-01 (RFC 8737)
//! at the very address that devices reach (spec SE27).

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};
use syncline_core::config;
use x509_parser::extensions::GeneralName;

use super::tls::{Tls, server_config};

/// What a handshake that asks for the proof of a name offers as its only protocol.
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";
/// Asking for a certificate, and waiting for it, takes no longer.
const ORDER_MAX: Duration = Duration::from_secs(300);
/// How long the authority takes to look, at most, and to issue.
const POLL_MAX: Duration = Duration::from_secs(90);
/// After a failure; it doubles. Authorities allow few failures in an hour.
const PAUSE: Duration = Duration::from_secs(900);
const PAUSE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// Clocks may be set and machines may sleep: the time is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// Certificates of some names, kept in a folder.
#[derive(Debug)]
pub(crate) struct Acme {
    domains: Vec<String>,
    contact: Option<String>,
    directory: String,
    /// An authority's certificate that vouches for the directory, in place of the system's.
    ca: Option<PathBuf>,
    folder: PathBuf,
}

impl Acme {
    /// As configured, if it is.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn new(config: &config::ServerConfig) -> Result<Option<Self>, String> {
        if config.acme_domains.is_empty() {
            return Ok(None);
        }
        if config.tls_cert.is_some() || config.tls_key.is_some() {
            let sentence = "server.acme_domains has the server get a certificate by itself: leave \
                            server.tls_cert and server.tls_key out, or acme_domains";
            return Err(sentence.to_owned());
        }
        let folder = Path::new(&config.data).join("acme");
        private_folder(&folder)
            .map_err(|error| format!("the folder {} cannot be made: {error}", folder.display()))?;
        let mut domains = config.acme_domains.clone();
        domains.sort_unstable();
        domains.dedup();
        Ok(Some(Self {
            domains,
            contact: config.acme_contact.clone(),
            directory: config.acme_directory.clone(),
            ca: config.acme_ca_file.as_ref().map(PathBuf::from),
            folder,
        }))
    }

    /// The certificate with those that vouch for it and its key, in one file: so that no moment
    /// has only one of both. What one directory issues is not trusted where another's is.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.of_directory("certificate", "pem")
    }

    fn of_directory(&self, name: &str, extension: &str) -> PathBuf {
        let hash = blake3::hash(self.directory.as_bytes()).to_hex();
        let name = format!("{name}-{}.{extension}", &hash[..16]);
        self.folder.join(name)
    }

    /// Gets a certificate whenever it is time for it, until the server has gone.
    pub(crate) async fn keep(self, tls: Weak<Tls>) {
        let mut pause = PAUSE;
        loop {
            let Some(wait) = self.wait(SystemTime::now()) else {
                let Some(tls) = tls.upgrade() else { return };
                let ordered = tokio::time::timeout(ORDER_MAX, self.obtain(&tls)).await;
                tls.forget_proofs();
                let ordered = ordered.unwrap_or_else(|_| Err("it took too long".to_owned()));
                // Else it would be ordered again at once, and for ever.
                let ordered = ordered.and_then(|()| match self.wait(SystemTime::now()) {
                    Some(_) => Ok(()),
                    None => Err("what was issued is over by the clock of this machine".to_owned()),
                });
                match ordered {
                    // The file is looked at like any other.
                    Ok(()) => pause = PAUSE,
                    Err(reason) => {
                        let (minutes, domains) = (pause.as_secs() / 60, self.domains.join(", "));
                        tracing::error!(
                            %domains,
                            directory = %self.directory,
                            "no new certificate: {reason}; what is there stays in use, and it is \
                             tried again in {minutes} minutes"
                        );
                        drop(tls);
                        tokio::time::sleep(pause).await;
                        pause = (2 * pause).min(PAUSE_MAX);
                    }
                }
                continue;
            };
            tokio::time::sleep(wait.min(LOOK_EVERY)).await;
            if tls.strong_count() == 0 {
                return;
            }
        }
    }

    /// How long the certificate that is there is good enough; `None`: another one is needed.
    fn wait(&self, now: SystemTime) -> Option<Duration> {
        let text = fs::read(self.certificate()).ok()?;
        server_config_of(&text).ok()?;
        let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let renew = renew_at(&text, &self.domains)?;
        renew
            .checked_sub(now)
            .filter(|wait| *wait > 0)
            .map(Duration::from_secs)
    }

    /// Orders a certificate, proves the names and keeps what comes.
    async fn obtain(&self, tls: &Tls) -> Result<(), String> {
        let account = self.account().await?;
        let names: Vec<_> = self.domains.iter().cloned().map(Identifier::Dns).collect();
        let told = |what: &str| {
            let what = what.to_owned();
            move |error: instant_acme::Error| format!("{what}: {}", chain(&error))
        };
        let mut order = account
            .new_order(&NewOrder::new(&names))
            .await
            .map_err(told("it was not ordered"))?;
        prove(&mut order, tls).await?;
        let retries = RetryPolicy::new().timeout(POLL_MAX);
        let status = order.poll_ready(&retries).await;
        let status = status.map_err(told("the names were not proven"))?;
        if !matches!(status, OrderStatus::Ready | OrderStatus::Valid) {
            return Err(why(&mut order).await);
        }
        let key = order.finalize().await.map_err(told("it was not issued"))?;
        let certificate = order.poll_certificate(&retries).await;
        let certificate = certificate.map_err(told("it was not issued"))?;
        let text = format!("{certificate}\n{key}");
        // What cannot be used shall not take the place of what can.
        server_config_of(text.as_bytes())?;
        if renew_at(text.as_bytes(), &self.domains).is_none() {
            return Err("what was issued is not for these names".to_owned());
        }
        let path = self.certificate();
        write_private(&path, text.as_bytes())
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        tracing::info!(domains = %self.domains.join(", "), "a new certificate is here");
        Ok(())
    }

    /// The account at the directory: the one that there is, or a new one.
    async fn account(&self) -> Result<Account, String> {
        let builder = match &self.ca {
            None => Account::builder(),
            Some(ca) => Account::builder_with_root(ca),
        };
        let builder = builder.map_err(|error| chain(&error))?;
        let path = self.of_directory("account", "json");
        let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match fs::read(&path) {
            Ok(known) => {
                let credentials: AccountCredentials =
                    serde_json::from_slice(&known).map_err(|error| cannot(&error))?;
                let account = builder.from_credentials(credentials).await;
                account.map_err(|error| chain(&error))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let contact = self
                    .contact
                    .as_ref()
                    .map(|address| format!("mailto:{address}"));
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let created = builder.create(&new, self.directory.clone(), None).await;
                let (account, credentials) =
                    created.map_err(|error| format!("no account: {}", chain(&error)))?;
                let text = serde_json::to_vec(&credentials).map_err(|error| cannot(&error))?;
                write_private(&path, &text).map_err(|error| cannot(&error))?;
                Ok(account)
            }
            Err(error) => Err(cannot(&error)),
        }
    }
}

/// Puts up the proof of each name that is not proven yet, and has the authority look.
async fn prove(order: &mut Order, tls: &Tls) -> Result<(), String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| chain(&error))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
            return Err(
                "the authority does not take TLS-ALPN-01, which is all that this server \
                        can prove a name with"
                    .to_owned(),
            );
        };
        let name = challenge.identifier().to_string();
        let key = challenge.key_authorization();
        let digest = key.digest();
        let proof = proof(&name, digest.as_ref())
            .map_err(|error| format!("the proof of {name} cannot be made: {error}"))?;
        tls.put_proof(&name, proof);
        challenge.set_ready().await.map_err(|error| chain(&error))?;
    }
    Ok(())
}

/// What the authority said of the names that are not proven.
async fn why(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else {
            continue;
        };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            if let Some(problem) = &challenge.error {
                let detail = problem.detail.as_deref().unwrap_or("no reason was given");
                reasons.push(format!("{name} is not proven: {detail}"));
            }
        }
    }
    match reasons.is_empty() {
        true => "the authority refused the names, and said no reason".to_owned(),
        false => reasons.join("; "),
    }
}

/// A certificate that says what the authority is to find, and nothing else.
fn proof(name: &str, digest: &[u8]) -> Result<Arc<ServerConfig>, String> {
    let told = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(told)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(told)?;
    let certificate = params.self_signed(&key).map_err(told)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let told = |error: rustls::Error| error.to_string();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(key).map_err(told)?;
    // What marks it as a proof is an extension that rustls would not take in a certificate.
    let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(told)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn server_config_of(text: &[u8]) -> Result<Arc<ServerConfig>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates =
        certificates.map_err(|error| format!("what was issued is no PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| error.to_string())?;
    let config = server_config(certificates, key);
    config.map_err(|error| format!("what was issued cannot be used: {error}"))
}

/// When to renew a certificate, in seconds since 1970: when two thirds of its time are over.
/// `None` where it is not one for exactly these names, which are in order.
fn renew_at(text: &[u8], domains: &[String]) -> Option<u64> {
    let first = CertificateDer::pem_slice_iter(text).next()?.ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&first).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let names = names.value.general_names.iter();
    let mut names: Vec<String> = names
        .filter_map(|name| {
            let GeneralName::DNSName(name) = name else {
                return None;
            };
            Some(name.to_ascii_lowercase())
        })
        .collect();
    names.sort_unstable();
    if names != domains {
        return None;
    }
    let validity = certificate.validity();
    let (from, to) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    u64::try_from(to - (to - from) / 3).ok()
}

/// An error with everything that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// Writes a file that its owner alone can read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    // The name is durable, too: an account that is forgotten would be made again at each start.
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
