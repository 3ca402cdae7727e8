//! Keys that sign tokens: for development and tests. In production the issuer
//! signs, and this process never holds a private key.

use std::fmt;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair;
use aws_lc_rs::signature::RsaKeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::Header;
use serde_json::Value;
use thiserror::Error;

use crate::protocol::frame::Token;
use crate::server::key::Algorithm;

/// A key that signs tokens of one algorithm.
pub struct SigningKey {
    algorithm: Algorithm,
    /// PKCS #8 in PEM, or the secret itself.
    private: String,
    /// In PEM; `None` for a secret.
    public: Option<String>,
    encoding: EncodingKey,
}

/// Why a key can't sign. Never holds any of the key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SigningError {
    #[error("the key is no private key in PEM (PKCS #8) for RS256, ES256 or EdDSA")]
    Unreadable,
    #[error("the system gave no random numbers, or the key could not sign")]
    Failed,
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, SigningError> {
        let private = match algorithm {
            Algorithm::Hs256 => {
                let mut secret = [0; 32];
                aws_lc_rs::rand::fill(&mut secret).map_err(|_| SigningError::Failed)?;
                URL_SAFE_NO_PAD.encode(secret)
            }
            Algorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048)
                .and_then(|pair| private_der(&pair))
                .map_err(|_| SigningError::Failed)?,
            Algorithm::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                .and_then(|pair| pair.to_pkcs8v1().map(private_pem))
                .map_err(|_| SigningError::Failed)?,
            Algorithm::EdDsa => Ed25519KeyPair::generate()
                .and_then(|pair| pair.to_pkcs8v1().map(private_pem))
                .map_err(|_| SigningError::Failed)?,
        };
        Self::read(&private)
    }

    /// Reads what [`SigningKey::private_text`] wrote: a private key in PEM, or
    /// else a secret, for HS256.
    ///
    /// # Errors
    ///
    /// [`SigningError::Unreadable`] for PEM of another kind.
    pub fn read(text: &str) -> Result<Self, SigningError> {
        let text = text.trim_end_matches(['\r', '\n']);
        if !text.contains("-----BEGIN") {
            let encoding = EncodingKey::from_secret(text.as_bytes());
            let private = text.to_owned();
            return Ok(Self { algorithm: Algorithm::Hs256, private, public: None, encoding });
        }
        let der = der_of(text).ok_or(SigningError::Unreadable)?;
        let pem = text.as_bytes();
        let (algorithm, encoding, public) = if let Ok(pair) = Ed25519KeyPair::from_pkcs8(&der) {
            (Algorithm::EdDsa, EncodingKey::from_ed_pem(pem), public_pem(pair.public_key()))
        } else if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der) {
            (Algorithm::Es256, EncodingKey::from_ec_pem(pem), public_pem(pair.public_key()))
        } else {
            let pair = RsaKeyPair::from_pkcs8(&der).map_err(|_| SigningError::Unreadable)?;
            (Algorithm::Rs256, EncodingKey::from_rsa_pem(pem), public_pem(pair.public_key()))
        };
        let encoding = encoding.map_err(|_| SigningError::Unreadable)?;
        let private = format!("{text}\n");
        Ok(Self { algorithm, private, public: Some(public?), encoding })
    }

    /// Returns the algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the secret text of the key, to be kept in a file.
    pub fn private_text(&self) -> &str {
        &self.private
    }

    /// Returns the public key in PEM; `None` for a secret, which has none.
    pub fn public_text(&self) -> Option<&str> {
        self.public.as_deref()
    }

    /// Signs a token that says `claims`, a JSON object.
    ///
    /// # Errors
    ///
    /// When the key can't sign.
    pub fn sign(&self, claims: &Value, kid: Option<&str>) -> Result<Token, SigningError> {
        let mut header = Header::new(self.algorithm.in_jsonwebtoken());
        header.kid = kid.map(str::to_owned);
        let token = jsonwebtoken::encode(&header, claims, &self.encoding);
        token.map(Token::new).map_err(|_| SigningError::Failed)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn private_der(pair: &RsaKeyPair) -> Result<String, Unspecified> {
    let der: Pkcs8V1Der<'_> = pair.as_der()?;
    Ok(private_pem(der.as_ref()))
}

fn private_pem(der: impl AsRef<[u8]>) -> String {
    pem("PRIVATE KEY", der.as_ref())
}

fn public_pem<'k, K: AsDer<PublicKeyX509Der<'k>>>(key: &K) -> Result<String, SigningError> {
    let der = key.as_der().map_err(|_| SigningError::Failed)?;
    Ok(pem("PUBLIC KEY", der.as_ref()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text += str::from_utf8(line).expect("base64 is ASCII");
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn der_of(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}
