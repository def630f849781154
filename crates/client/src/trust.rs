//! Which authorities vouch for servers: those that everybody trusts, or one's own.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_tungstenite::Connector;

use crate::error::ClientError;

/// The variable that names a file with certificates of authorities (PEM): they alone are trusted
/// then.
const CA_FILE: &str = "SYNCLINE_CA_FILE";

/// One's own authorities.
pub(crate) struct Trust(Vec<CertificateDer<'static>>);

impl Trust {
    /// The authorities of the file that the environment names; `None`: the usual ones.
    ///
    /// # Errors
    /// [`ClientError::Credentials`]: the file cannot be used.
    pub(crate) fn from_env() -> Result<Option<Self>, ClientError> {
        match std::env::var_os(CA_FILE) {
            Some(path) if !path.is_empty() => Self::read(path.into()).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    fn read(path: PathBuf) -> Result<Self, ClientError> {
        let told = |reason: String| ClientError::Credentials {
            path: path.clone(),
            reason: format!("{CA_FILE}: {reason}"),
        };
        let pem = std::fs::read(&path).map_err(|error| told(error.to_string()))?;
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certs = certs.map_err(|error| told(error.to_string()))?;
        if certs.is_empty() {
            return Err(told("it has no certificate (BEGIN CERTIFICATE)".to_owned()));
        }
        Ok(Self(certs))
    }

    /// For requests over HTTP.
    pub(crate) fn certificates(&self) -> Result<Vec<reqwest::Certificate>, reqwest::Error> {
        let certs = self.0.iter();
        certs
            .map(|cert| reqwest::Certificate::from_der(cert))
            .collect()
    }

    /// For WebSockets.
    pub(crate) fn connector(self) -> Result<Connector, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for cert in self.0 {
            roots.add(cert)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Connector::Rustls(Arc::new(config)))
    }
}
