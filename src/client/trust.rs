//! Whom a client believes that a server is who it says.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use tokio_tungstenite::Connector;

/// Which certificates vouch for a server that is reached by `wss://`.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those of the system.
    System,
    /// These alone.
    Only(Arc<ClientConfig>),
}

/// A file that vouches for nobody.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Untrusted(String);

impl Trust {
    /// Believes the certificates in a file (PEM), and no others.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, Untrusted> {
        let unusable = |why: String| Untrusted(format!("{}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let added = certificate.map_err(|_| unusable("it is damaged; write PEM".to_owned()));
            roots.add(added?).map_err(|error| unusable(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(unusable("it holds no certificate; write PEM".to_owned()));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::Only(Arc::new(config)))
    }

    pub(in crate::client) fn connector(&self) -> Option<Connector> {
        match self {
            Self::System => None,
            Self::Only(config) => Some(Connector::Rustls(Arc::clone(config))),
        }
    }
}
