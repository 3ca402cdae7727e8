//! Certificates for tests, and clients that speak TLS.

use std::fs;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::CertifiedKey;
use rcgen::KeyPair;
use rcgen::generate_simple_self_signed;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::support::raw_client::RawClient;
use crate::support::raw_client::Refused;
use crate::support::raw_client::dial;

/// A stream with TLS on it.
pub type Secure = StreamOwned<ClientConnection, TcpStream>;

/// The files of a server's certificate, as they are now.
pub struct Files {
    folder: TempDir,
}

impl Files {
    /// Makes a folder with a pair in it.
    pub fn new(pair: &CertifiedKey<KeyPair>) -> Self {
        let files = Self { folder: tempfile::tempdir().expect("a folder") };
        files.put(&pair.cert.pem(), &pair.signing_key.serialize_pem());
        files
    }

    /// Exchanges both files, the certificate first.
    pub fn put(&self, certificate: &str, key: &str) {
        fs::write(self.certificate(), certificate).expect("written");
        fs::write(self.key(), key).expect("written");
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("tls.crt")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("tls.key")
    }
}

/// Returns a certificate that stands for itself.
pub fn pair() -> CertifiedKey<KeyPair> {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    generate_simple_self_signed(names).expect("a certificate")
}

/// Connects with TLS and believes one certificate.
pub fn secure(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Secure, std::io::Error> {
    secure_on(dial(address), trusted, versions)
}

/// Returns the settings of a client that believes one certificate.
pub fn client_config(
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions that fit the provider")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Does the same on a socket that is open.
pub fn secure_on(
    mut socket: TcpStream,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Secure, std::io::Error> {
    let mut config = client_config(trusted, versions);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = "127.0.0.1".try_into().expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// Connects by WebSocket and TLS.
pub fn client(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    lines: &[&str],
) -> Result<RawClient<Secure>, Refused> {
    let stream = secure(address, trusted, rustls::ALL_VERSIONS).expect("a handshake");
    RawClient::connect_on(stream, lines)
}
