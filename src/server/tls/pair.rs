//! A certificate and its private key, read from two files.

use std::fmt;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS12;
use rustls::version::TLS13;
use thiserror::Error;

use crate::server::tls::validity::not_after;
use crate::types::ids::Timestamp;

/// Where a certificate and its key are. Neither path says anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The server's certificate and those that lead to its root (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM), without a passphrase.
    pub key: PathBuf,
}

/// What the two files held when they were read.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::server) struct PairText {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A pair that handshakes can use.
#[derive(Clone)]
pub struct Pair {
    pub(in crate::server) config: Arc<ServerConfig>,
    /// From when on clients refuse the certificate.
    pub not_after: Timestamp,
}

/// Which of the two files is to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Certificate,
    Key,
}

/// Why a pair can't be used: the file and the remedy, in a sentence that begins
/// with a verb, and never a byte of what the files hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct PairError {
    pub half: Half,
    pub text: String,
}

impl PairFiles {
    /// Reads both files and makes a pair of them.
    ///
    /// # Errors
    ///
    /// Which file is to be mended, and how.
    pub fn load(&self) -> Result<Pair, PairError> {
        self.pair(&self.read()?)
    }

    /// Reads both files.
    pub(in crate::server) fn read(&self) -> Result<PairText, PairError> {
        let read = |half, path: &Path| {
            read_file(path).map_err(|error| PairError {
                half,
                text: format!("names {}, which can't be read: {error}", path.display()),
            })
        };
        Ok(PairText {
            certificate: read(Half::Certificate, &self.certificate)?,
            key: read(Half::Key, &self.key)?,
        })
    }

    /// Makes a pair of what the files held.
    pub(in crate::server) fn pair(&self, text: &PairText) -> Result<Pair, PairError> {
        let chain = self.chain(&text.certificate)?;
        let key = self.key(&text.key)?;
        let not_after = not_after(&chain[0]).ok_or_else(|| {
            self.certificate_error("which begins with something that is no certificate (X.509)")
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            self.key_error(&match error {
                rustls::Error::InconsistentKeys(_) => format!(
                    "which is not the key of the certificate in {}: put the two that were issued \
                     together, the server's own certificate first",
                    self.certificate.display()
                ),
                error => {
                    format!("which can't be used ({error}): write an RSA, ECDSA or Ed25519 key")
                }
            })
        })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| self.certificate_error(&format!("which can't be used: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets that the client keeps: nothing is remembered for who is gone,
        // and a key of their own for each pair ends with it. Without randomness
        // there are none, and every handshake is a whole one.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(Pair { config: Arc::new(config), not_after })
    }

    fn chain(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PairError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        match chain {
            Ok(chain) if chain.is_empty() => Err(self.certificate_error(
                "which holds no certificate: write PEM that begins with `-----BEGIN CERTIFICATE-----`",
            )),
            Ok(chain) => Ok(chain),
            Err(_) => Err(self.certificate_error("which is damaged: write PEM")),
        }
    }

    fn key(&self, text: &[u8]) -> Result<PrivateKeyDer<'static>, PairError> {
        let says = |mark: &str| text.windows(mark.len()).any(|part| part == mark.as_bytes());
        if ENCRYPTED_MARKS.iter().any(|mark| says(mark)) {
            let text = "whose key has a passphrase: take it off with `openssl pkey -in FILE -out \
                        FILE`, and guard the file by its permissions";
            return Err(self.key_error(text));
        }
        PrivateKeyDer::from_pem_slice(text).map_err(|_| {
            self.key_error(
                "which holds no private key: write PEM that begins with `-----BEGIN PRIVATE KEY-----`",
            )
        })
    }

    fn certificate_error(&self, text: &str) -> PairError {
        let text = format!("names {}, {text}", self.certificate.display());
        PairError { half: Half::Certificate, text }
    }

    fn key_error(&self, text: &str) -> PairError {
        PairError { half: Half::Key, text: format!("names {}, {text}", self.key.display()) }
    }
}

impl fmt::Debug for PairText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairText(redacted)")
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Bytes that either file may have; a chain of ten certificates has a tenth.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// What stands in a key that has a passphrase: PKCS#8, and the older form.
const ENCRYPTED_MARKS: [&str; 2] =
    ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::KeyPair;
    use rcgen::generate_simple_self_signed;

    use super::*;

    /// Writes what it is given and expects the error to have these words.
    fn check(certificate: &str, key: &str, expected: Result<(), (Half, &str)>) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            if !text.is_empty() {
                fs::write(&path, text).expect("written");
            }
            path
        };
        let files =
            PairFiles { certificate: file("tls.crt", certificate), key: file("tls.key", key) };
        match (files.load(), expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err((half, part))) => {
                assert_eq!(error.half, half, "{error}");
                assert!(error.text.contains(part), "{error}");
                let name = if half == Half::Key { "tls.key" } else { "tls.crt" };
                assert!(error.text.contains(name), "{error} does not name the file");
            }
            (loaded, expected) => panic!("{loaded:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_pair_that_can_not_be_used_is_refused_with_file_and_remedy() {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = KeyPair::generate().expect("a key").serialize_pem();
        check(&certificate, &key, Ok(()));
        check("", &key, Err((Half::Certificate, "can't be read")));
        check(&certificate, "", Err((Half::Key, "can't be read")));
        check(&key, &key, Err((Half::Certificate, "holds no certificate")));
        check(&certificate, &certificate, Err((Half::Key, "holds no private key")));
        check(&certificate, &other, Err((Half::Key, "not the key of the certificate in")));
        let locked = key.replace("BEGIN PRIVATE KEY", "BEGIN ENCRYPTED PRIVATE KEY");
        check(&certificate, &locked, Err((Half::Key, "has a passphrase: take it off")));
        let large = "x".repeat(300 << 10);
        check(&large, &key, Err((Half::Certificate, "larger than")));
        let nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(nothing, &key, Err((Half::Certificate, "no certificate (X.509)")));
    }
}
