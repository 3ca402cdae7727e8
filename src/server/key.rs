//! Keys that verify tokens, each bound to the one algorithm it is for.

use std::fmt;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::DecodingKeyKind;
use jsonwebtoken::jwk::AlgorithmParameters;
use jsonwebtoken::jwk::EllipticCurve;
use jsonwebtoken::jwk::Jwk;
use thiserror::Error;

use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// A secret that both sides know, HMAC with SHA-256.
    Hs256,
    /// RSA of 2048 bits or more, PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// The curve P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// Returns the name in the head of a token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Returns the name as the library for tokens has it.
    pub const fn in_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl Setting for Algorithm {
    const FORM: Form = Form {
        text: "`\"HS256\"`, `\"RS256\"`, `\"ES256\"` or `\"EdDSA\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        raw.choose(&Self::FORM, &Self::ALL.map(|algorithm| (algorithm.name(), algorithm)))
    }
}

/// A key that verifies tokens of one algorithm.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why a key can't be used. Never holds any of the key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("holds a private key; give the public key only")]
    Private,
    #[error("is no public key in PEM for {}", .0.name())]
    Pem(Algorithm),
    #[error("is no JWK")]
    Jwk,
    #[error("is a JWK of another kind than {} needs", .0.name())]
    OtherKind(Algorithm),
    #[error("has fewer than {RSA_BITS_MIN} bits")]
    ShortRsa,
    #[error("has fewer than {SECRET_BYTES_MIN} bytes, which can be guessed")]
    ShortSecret,
    #[error("must be a secret: HS256 has no public key")]
    NeedsSecret,
    #[error("is a secret, and {} needs a public key", .0.name())]
    NeedsPublicKey(Algorithm),
}

impl VerifyingKey {
    /// Reads a public key in PEM.
    ///
    /// # Errors
    ///
    /// [`KeyError`] also for a private key: who verifies has no need of it.
    pub fn from_pem(algorithm: Algorithm, pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let key = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::NeedsSecret),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        let key = key.map_err(|_| KeyError::Pem(algorithm))?;
        Self::checked(algorithm, key, KeyError::Pem(algorithm))
    }

    /// Reads a JWK (RFC 7517), and the `kid` in it if there is one.
    ///
    /// # Errors
    ///
    /// [`KeyError`] also for a key of another kind than `algorithm` needs, or
    /// whose own `alg` is another.
    pub fn from_jwk(algorithm: Algorithm, json: &str) -> Result<(Self, Option<String>), KeyError> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|_| KeyError::Jwk)?;
        if value.get("d").is_some() {
            return Err(KeyError::Private);
        }
        let named = value.get("alg").is_none_or(|alg| alg == algorithm.name());
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| KeyError::Jwk)?;
        let fits = match (&jwk.algorithm, algorithm) {
            (AlgorithmParameters::OctetKey(_), Algorithm::Hs256)
            | (AlgorithmParameters::RSA(_), Algorithm::Rs256) => true,
            (AlgorithmParameters::EllipticCurve(key), Algorithm::Es256) => {
                key.curve == EllipticCurve::P256
            }
            (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDsa) => {
                key.curve == EllipticCurve::Ed25519
            }
            _ => false,
        };
        if !fits || !named {
            return Err(KeyError::OtherKind(algorithm));
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Jwk)?;
        Ok((Self::checked(algorithm, key, KeyError::Jwk)?, jwk.common.key_id))
    }

    /// Takes a secret, for HS256.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for a secret shorter than the hash (RFC 7518, 3.2), and for
    /// any other algorithm: a public key taken for a secret is a known attack.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, KeyError> {
        match algorithm {
            Algorithm::Hs256 => {
                Self::checked(algorithm, DecodingKey::from_secret(secret), KeyError::ShortSecret)
            }
            _ => Err(KeyError::NeedsPublicKey(algorithm)),
        }
    }

    /// Returns the only algorithm that this key verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Says whether `signature`, in base64 as it stands in the token, is this
    /// key's under `message`.
    pub fn has_signed(&self, message: &str, signature: &str) -> bool {
        let algorithm = self.algorithm.in_jsonwebtoken();
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm)
            .unwrap_or(false)
    }

    /// Checks the length, which the library sees only when a token comes.
    fn checked(algorithm: Algorithm, key: DecodingKey, odd: KeyError) -> Result<Self, KeyError> {
        match (algorithm, key.kind()) {
            (Algorithm::Hs256, DecodingKeyKind::SecretOrDer(secret)) => {
                fits(secret.len() >= SECRET_BYTES_MIN, KeyError::ShortSecret)?;
            }
            (Algorithm::Rs256, DecodingKeyKind::SecretOrDer(der)) => {
                fits(der.len() * 8 > RSA_BITS_MIN, KeyError::ShortRsa)?;
            }
            (Algorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, .. }) => {
                fits(n.len() * 8 >= RSA_BITS_MIN, KeyError::ShortRsa)?;
            }
            (Algorithm::Es256, DecodingKeyKind::SecretOrDer(point)) => {
                fits(point.len() == P256_POINT_BYTES, odd)?;
            }
            (Algorithm::EdDsa, DecodingKeyKind::SecretOrDer(point)) => {
                fits(point.len() == ED25519_POINT_BYTES, odd)?;
            }
            _ => return Err(odd),
        }
        Ok(Self { algorithm, key })
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

fn fits(is_so: bool, otherwise: KeyError) -> Result<(), KeyError> {
    if is_so { Ok(()) } else { Err(otherwise) }
}

/// Bytes of a secret for HS256: as many as its hash has.
const SECRET_BYTES_MIN: usize = 32;
/// Bits of an RSA modulus.
const RSA_BITS_MIN: usize = 2048;
/// Bytes of a point of P-256, uncompressed.
const P256_POINT_BYTES: usize = 65;
/// Bytes of a point of Ed25519.
const ED25519_POINT_BYTES: usize = 32;
