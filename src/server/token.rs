//! Verifies tokens: who a client is.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Map;
use serde_json::Value;
use thiserror::Error;

use crate::protocol::frame::Token;
use crate::server::key::VerifyingKey;
use crate::tenancy::principal::ChannelAccess;
use crate::tenancy::principal::Principal;
use crate::tenancy::rule::is_tenant_name;
use crate::tenancy::verify::Refusal;
use crate::tenancy::verify::Verify;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;
use crate::types::limits::TOKEN_BYTES_MAX;

/// Who may connect.
#[derive(Debug, Clone)]
pub enum AuthConfig {
    /// Clients with a token that one of these keys signed.
    Tokens(Vec<IssuerKey>),
    /// Everybody, as this tenant.
    Nobody { tenant: TenantId },
}

/// A key of an issuer, and what its tokens must say.
#[derive(Debug, Clone)]
pub struct IssuerKey {
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claim names one of these.
    pub audience: Vec<String>,
    pub key: VerifyingKey,
    /// The name by which a token's head calls the key; `None` for any.
    pub kid: Option<String>,
    /// The claim that holds the tenant.
    pub tenant_claim: ClaimPath,
    /// The claim that lists the channels.
    pub channels_claim: ClaimPath,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
    /// The tenants that it may speak for; `None` for every tenant.
    pub tenants: Option<Box<[TenantId]>>,
}

/// Where a claim stands: its name, or a JSON pointer, which begins with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(Box<str>);

impl ClaimPath {
    /// Wraps the name of a claim, or a JSON pointer to it.
    pub fn new(path: impl Into<Box<str>>) -> Self {
        Self(path.into())
    }

    fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        match self.0.strip_prefix('/') {
            None => claims.get(&*self.0),
            Some(path) => {
                let (first, rest) = match path.split_once('/') {
                    Some((first, _)) => (first, &path[first.len()..]),
                    None => (path, ""),
                };
                let first = first.replace("~1", "/").replace("~0", "~");
                claims.get(&first)?.pointer(rest)
            }
        }
    }
}

/// Why a token is refused. Never holds any of the token's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    #[error("the token is no JWT that can be read")]
    Malformed,
    #[error("the token's `iss` is not an issuer of this server")]
    UnknownIssuer,
    #[error("the token's `kid` is not a key of its issuer")]
    UnknownKey,
    #[error("the token's `alg` is not that of the issuer's key")]
    WrongAlgorithm,
    #[error("the token's signature is wrong")]
    BadSignature,
    #[error("the token has run out; get a new one")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token's `aud` does not name this server")]
    WrongAudience,
    #[error("the token has no `exp`, or a claim of the wrong kind")]
    BadClaim,
    #[error("the token names no tenant that its issuer may speak for")]
    BadTenant,
    #[error("the token is for another tenant or subject than this connection")]
    IdentityChanged,
}

impl TokenError {
    /// Returns the name in metrics and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::BadClaim => "bad_claim",
            Self::BadTenant => "bad_tenant",
            Self::IdentityChanged => "identity_changed",
        }
    }
}

/// Tells from a token who a client is.
#[derive(Debug)]
pub struct Verifier {
    /// Keys by the `iss` of their tokens, so that no issuer's `kid` can name the
    /// key of another.
    issuers: BTreeMap<String, Vec<IssuerKey>>,
    /// As whom a client without a token is let in.
    anonymous: Option<TenantId>,
    /// Claims that key rules speak of; the others are not kept.
    claims: Vec<String>,
}

impl Verifier {
    /// Takes the keys, and the claims that a principal shall carry.
    pub fn new<'c>(auth: AuthConfig, claims: impl Iterator<Item = &'c str>) -> Self {
        let mut issuers: BTreeMap<String, Vec<IssuerKey>> = BTreeMap::new();
        let (keys, anonymous) = match auth {
            AuthConfig::Tokens(keys) => (keys, None),
            AuthConfig::Nobody { tenant } => (Vec::new(), Some(tenant)),
        };
        for key in keys {
            issuers.entry(key.issuer.clone()).or_default().push(key);
        }
        let mut claims: Vec<String> = claims.map(str::to_owned).collect();
        claims.sort_unstable();
        claims.dedup();
        Self { issuers, anonymous, claims }
    }

    /// Returns who a client is that shows no token; `None` where it must.
    pub fn anonymous(&self) -> Option<Principal> {
        self.anonymous.clone().map(|tenant| Principal {
            tenant,
            subject: None,
            channels: ChannelAccess::All,
            claims: BTreeMap::new(),
            expires_at: None,
        })
    }

    /// Says who the bearer of `token` is.
    ///
    /// # Errors
    ///
    /// [`TokenError`] for the first thing that is wrong. Nothing of a token is
    /// believed before its signature is verified, but which key to try.
    pub fn verify(&self, token: &Token, now: Timestamp) -> Result<Principal, TokenError> {
        let parts = Parts::split(token.secret())?;
        let head: Head = parse(parts.head)?;
        let claims: Map<String, Value> = parse(parts.claims)?;
        if head.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let key = self.verifying_key(&head, &claims, &parts)?;
        let expires_at = key.check_times(&claims, now)?;
        key.check_audience(&claims)?;
        Ok(Principal {
            tenant: key.tenant(&claims)?,
            subject: text_claim(&claims, "sub")?.map(Into::into),
            channels: key.channels(&claims)?,
            claims: self.kept_claims(&claims),
            expires_at: Some(expires_at),
        })
    }

    /// As [`Verifier::verify`], for a token that renews another: it must speak of
    /// the same tenant and subject.
    ///
    /// # Errors
    ///
    /// [`TokenError::IdentityChanged`] when it does not.
    pub fn renew(
        &self,
        current: &Principal,
        token: &Token,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let renewed = self.verify(token, now)?;
        if renewed.tenant != current.tenant || renewed.subject != current.subject {
            return Err(TokenError::IdentityChanged);
        }
        Ok(renewed)
    }

    /// Returns the key that signed the token: of the issuer that it names, with
    /// the `kid` that it names, and only for the algorithm that is the key's.
    fn verifying_key(
        &self,
        head: &Head,
        claims: &Map<String, Value>,
        parts: &Parts<'_>,
    ) -> Result<&IssuerKey, TokenError> {
        let issuer = text_claim(claims, "iss")?.ok_or(TokenError::UnknownIssuer)?;
        let keys = self.issuers.get(issuer).ok_or(TokenError::UnknownIssuer)?;
        let named = |key: &&IssuerKey| match (&head.kid, &key.kid) {
            (Some(asked), Some(own)) => asked == own,
            (None, _) | (_, None) => true,
        };
        let fitting = |key: &&IssuerKey| key.key.algorithm().name() == head.alg;
        let signed = |key: &&IssuerKey| key.key.has_signed(parts.signed, parts.signature);
        if !keys.iter().any(|key| named(&key)) {
            return Err(TokenError::UnknownKey);
        }
        let mut candidates = keys.iter().filter(named).filter(fitting).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::WrongAlgorithm);
        }
        candidates.find(signed).ok_or(TokenError::BadSignature)
    }

    fn kept_claims(&self, claims: &Map<String, Value>) -> BTreeMap<Box<str>, Box<str>> {
        let kept = self.claims.iter().filter_map(|name| {
            let text = match claims.get(name)? {
                Value::String(text) => text.clone(),
                Value::Number(number) if !number.is_f64() => number.to_string(),
                _ => return None,
            };
            Some((name.as_str().into(), text.into()))
        });
        kept.collect()
    }
}

impl Verify for Verifier {
    fn verify(&self, token: &Token, now: Timestamp) -> Result<Principal, Refusal> {
        self.verify(token, now)
            .map_err(|error| Refusal { reason: error.reason(), message: error.to_string() })
    }
}

impl IssuerKey {
    /// Checks `exp` and `nbf`; returns when the token runs out, leeway included.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Timestamp, TokenError> {
        let leeway = i64::try_from(self.leeway.as_millis()).unwrap_or(i64::MAX);
        let expires = time_claim(claims, "exp")?.ok_or(TokenError::BadClaim)?;
        let expires = expires.saturating_add(leeway);
        if now.as_millis() >= expires {
            return Err(TokenError::Expired);
        }
        let starts = time_claim(claims, "nbf")?.unwrap_or(i64::MIN);
        if now.as_millis() < starts.saturating_sub(leeway) {
            return Err(TokenError::NotYetValid);
        }
        Ok(Timestamp::from_millis(expires))
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let is_ours = |name: &str| self.audience.iter().any(|own| own == name);
        let named = match claims.get("aud") {
            Some(Value::String(name)) => is_ours(name),
            Some(Value::Array(names)) => {
                names.iter().any(|name| name.as_str().is_some_and(is_ours))
            }
            Some(_) => return Err(TokenError::BadClaim),
            None => false,
        };
        if named { Ok(()) } else { Err(TokenError::WrongAudience) }
    }

    fn tenant(&self, claims: &Map<String, Value>) -> Result<TenantId, TokenError> {
        let tenant = self.tenant_claim.find(claims).and_then(Value::as_str);
        let tenant = tenant.filter(|name| is_tenant_name(name)).ok_or(TokenError::BadTenant)?;
        let tenant = TenantId::new(tenant);
        match &self.tenants {
            Some(tenants) if !tenants.contains(&tenant) => Err(TokenError::BadTenant),
            _ => Ok(tenant),
        }
    }

    fn channels(&self, claims: &Map<String, Value>) -> Result<ChannelAccess, TokenError> {
        let Some(value) = self.channels_claim.find(claims) else { return Ok(ChannelAccess::All) };
        let names = value.as_array().ok_or(TokenError::BadClaim)?.iter();
        let names = names.map(|name| name.as_str().map(Into::into).ok_or(TokenError::BadClaim));
        Ok(ChannelAccess::Only(names.collect::<Result<_, _>>()?))
    }
}

/// The head of a token (RFC 7515, 4.1). Keys, and addresses of keys, that a token
/// brings along are not even read.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; there are none here.
    crit: Option<IgnoredAny>,
}

/// The parts of a token, all still in base64.
struct Parts<'t> {
    head: &'t str,
    claims: &'t str,
    /// What the signature covers.
    signed: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn split(token: &'t str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if claims.contains('.') {
            return Err(TokenError::Malformed);
        }
        Ok(Self { head, claims, signed, signature })
    }
}

fn parse<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

fn text_claim<'c>(
    claims: &'c Map<String, Value>,
    name: &str,
) -> Result<Option<&'c str>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenError::BadClaim),
    }
}

/// Reads seconds since the Unix epoch (RFC 7519, NumericDate) as milliseconds. A
/// claim that is no number is refused, not overlooked.
fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(seconds) => Ok(Some(seconds.saturating_mul(1_000))),
            // Fractions are allowed; the conversion stops at the ends of `i64`.
            None => Ok(number.as_f64().map(|seconds| (seconds * 1_000.0) as i64)),
        },
        Some(_) => Err(TokenError::BadClaim),
    }
}
