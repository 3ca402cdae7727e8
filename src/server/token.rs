//! Verifies tokens: who a client is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
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
use crate::tenancy::revocation::Revocations;
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
    #[error("the token has been revoked")]
    Revoked,
}

impl TokenError {
    /// Every error.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::UnknownIssuer,
        Self::UnknownKey,
        Self::WrongAlgorithm,
        Self::BadSignature,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongAudience,
        Self::BadClaim,
        Self::BadTenant,
        Self::Revoked,
    ];

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
            Self::Revoked => "revoked",
        }
    }
}

/// Tells from a token who a client is.
#[derive(Debug)]
pub struct Verifier {
    /// Those in force: a reload puts others in their place, and tokens that are
    /// being verified keep the ones that they began with.
    keys: RwLock<Arc<Keys>>,
    /// As whom a client without a token is let in.
    anonymous: Option<TenantId>,
    revocations: Arc<Revocations>,
}

/// The keys that are believed, and what is kept of a token.
#[derive(Debug)]
struct Keys {
    /// Keys by the `iss` of their tokens, so that no issuer's `kid` can name the
    /// key of another.
    issuers: BTreeMap<String, Vec<IssuerKey>>,
    /// Claims that key rules speak of; the others are not kept.
    claims: Vec<String>,
}

impl Verifier {
    /// Takes the keys, and the claims that a principal shall carry.
    pub fn new<'c>(auth: AuthConfig, claims: impl Iterator<Item = &'c str>) -> Self {
        let (keys, anonymous) = match auth {
            AuthConfig::Tokens(keys) => (keys, None),
            AuthConfig::Nobody { tenant } => (Vec::new(), Some(tenant)),
        };
        let keys = RwLock::new(Arc::new(Keys::new(keys, claims)));
        Self { keys, anonymous, revocations: Arc::default() }
    }

    /// Believes these keys from now on, and no others. Whoever is connected stays
    /// until its token runs out: a key that is taken out of use says nothing
    /// against the tokens that it signed. What is revoked stays revoked.
    pub fn renew<'c>(&self, keys: Vec<IssuerKey>, claims: impl Iterator<Item = &'c str>) {
        let keys = Arc::new(Keys::new(keys, claims));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Returns the tokens that are no longer believed.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Returns who a client is that shows no token; `None` where it must.
    pub fn anonymous(&self) -> Option<Principal> {
        self.anonymous.clone().map(|tenant| Principal {
            tenant,
            subject: None,
            channels: ChannelAccess::All,
            claims: BTreeMap::new(),
            expires_at: None,
            token_id: None,
            issued_at: None,
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
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let key = keys.verifying_key(&head, &claims, &parts)?;
        let expires_at = key.check_times(&claims, now)?;
        key.check_audience(&claims)?;
        let principal = Principal {
            tenant: key.tenant(&claims)?,
            subject: text_claim(&claims, "sub")?.map(Into::into),
            channels: key.channels(&claims)?,
            claims: keys.kept_claims(&claims),
            expires_at: Some(expires_at),
            token_id: text_claim(&claims, "jti").ok().flatten().map(Into::into),
            issued_at: time_claim(&claims, "iat").ok().flatten().map(Timestamp::from_millis),
        };
        match self.revocations.cover(&principal, now) {
            true => Err(TokenError::Revoked),
            false => Ok(principal),
        }
    }
}

impl Keys {
    fn new<'c>(keys: Vec<IssuerKey>, claims: impl Iterator<Item = &'c str>) -> Self {
        let mut issuers: BTreeMap<String, Vec<IssuerKey>> = BTreeMap::new();
        for key in keys {
            issuers.entry(key.issuer.clone()).or_default().push(key);
        }
        let mut claims: Vec<String> = claims.map(str::to_owned).collect();
        claims.sort_unstable();
        claims.dedup();
        Self { issuers, claims }
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

    fn is_revoked(&self, principal: &Principal, now: Timestamp) -> bool {
        self.revocations.cover(principal, now)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::server::key::Algorithm;
    use crate::server::signing_key::SigningKey;
    use crate::tenancy::revocation::Revocation;
    use crate::tenancy::revocation::Revoked;

    /// Seconds since the epoch at which all tests happen.
    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_millis(NOW * 1_000)
    }

    fn issuer_key(issuer: &str, key: &SigningKey, kid: Option<&str>) -> IssuerKey {
        let verifying = match key.public_text() {
            Some(public) => VerifyingKey::from_pem(key.algorithm(), public),
            None => VerifyingKey::from_secret(key.algorithm(), key.private_text().as_bytes()),
        };
        IssuerKey {
            issuer: issuer.to_owned(),
            audience: vec!["brucke".to_owned()],
            key: verifying.expect("a key"),
            kid: kid.map(str::to_owned),
            tenant_claim: ClaimPath::new("tenant"),
            channels_claim: ClaimPath::new("channels"),
            leeway: Duration::ZERO,
            tenants: None,
        }
    }

    fn verifier(keys: Vec<IssuerKey>) -> Verifier {
        Verifier::new(AuthConfig::Tokens(keys), ["region", "level"].into_iter())
    }

    fn key(algorithm: Algorithm) -> SigningKey {
        SigningKey::generate(algorithm).expect("a key")
    }

    /// What a good token says, with some claims replaced; `null` takes one out.
    fn claims(changes: Value) -> Value {
        let mut claims = json!({
            "iss": "i", "aud": "brucke", "exp": NOW + 60, "tenant": "acme", "sub": "u1",
        });
        let whole = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            whole.insert(name.clone(), value.clone());
        }
        whole.retain(|_, value| !value.is_null());
        claims
    }

    /// Joins a token from parts of its own making.
    fn token(head: &Value, claims: &Value, signature: &str) -> Token {
        let [head, claims] = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        Token::new(format!("{head}.{claims}.{signature}"))
    }

    fn check(changes: Value, expected: Result<(), TokenError>) {
        let key = key(Algorithm::EdDsa);
        let verifier = verifier(vec![issuer_key("i", &key, None)]);
        let token = key.sign(&claims(changes.clone()), None).expect("signed");
        assert_eq!(verifier.verify(&token, now()).map(|_| ()), expected, "{changes}");
    }

    #[test]
    fn every_algorithm_signs_and_verifies() {
        for algorithm in Algorithm::ALL {
            let key = key(algorithm);
            let same = SigningKey::read(key.private_text()).expect("its own text");
            assert_eq!((same.algorithm(), same.public_text()), (algorithm, key.public_text()));
            let verifier = verifier(vec![issuer_key("i", &key, None)]);
            let token = same.sign(&claims(json!({})), None).expect("signed");
            let principal = verifier.verify(&token, now()).expect("good");
            assert_eq!(principal.tenant, TenantId::new("acme"), "{algorithm:?}");
            assert_eq!(principal.subject.as_deref(), Some("u1"));
            assert_eq!(principal.channels, ChannelAccess::All);
            assert_eq!(principal.expires_at, Some(Timestamp::from_millis((NOW + 60) * 1_000)));
        }
    }

    #[test]
    fn other_keys_can_be_believed_and_what_is_revoked_stays_revoked() {
        let (old, new) = (key(Algorithm::EdDsa), key(Algorithm::EdDsa));
        let verifier = verifier(vec![issuer_key("i", &old, None)]);
        let of = Revoked::Token("t1".into());
        let until = Timestamp::from_millis((NOW + 60) * 1_000);
        verifier.revocations().add(Revocation { of, until }, now()).expect("there is room");
        let verify = |key: &SigningKey, id: &str| {
            let claims = claims(json!({ "jti": id, "region": "eu", "floor": "3" }));
            verifier.verify(&key.sign(&claims, None).expect("signed"), now())
        };
        assert!(verify(&old, "t2").is_ok());
        let both = vec![issuer_key("i", &old, None), issuer_key("i", &new, None)];
        verifier.renew(both, ["floor"].into_iter());
        assert!(verify(&old, "t2").is_ok());
        let principal = verify(&new, "t2").expect("good");
        assert_eq!(principal.claims.keys().map(|name| &**name).collect::<Vec<_>>(), ["floor"]);
        verifier.renew(vec![issuer_key("i", &new, None)], ["floor"].into_iter());
        assert_eq!(verify(&old, "t2"), Err(TokenError::BadSignature));
        assert_eq!(verify(&new, "t1"), Err(TokenError::Revoked));
    }

    #[test]
    fn times_are_checked_to_the_second() {
        check(json!({"exp": NOW + 1}), Ok(()));
        check(json!({"exp": NOW}), Err(TokenError::Expired));
        check(json!({"exp": NOW as f64 + 0.5}), Ok(()));
        check(json!({"exp": -1}), Err(TokenError::Expired));
        check(json!({"exp": 1e300}), Ok(()));
        check(json!({"exp": u64::MAX}), Ok(()));
        check(json!({"nbf": NOW}), Ok(()));
        check(json!({"nbf": NOW + 1}), Err(TokenError::NotYetValid));
        check(json!({"nbf": i64::MIN}), Ok(()));
    }

    #[test]
    fn claims_that_are_absent_or_of_a_wrong_kind_are_refused() {
        let bad = Err(TokenError::BadClaim);
        check(json!({"exp": null}), bad);
        for odd in [json!("9999999999"), json!(true), json!([NOW + 60]), json!({"x": 1})] {
            check(json!({"exp": odd}), bad);
            check(json!({"nbf": odd}), bad);
        }
        check(json!({"aud": null}), Err(TokenError::WrongAudience));
        check(json!({"aud": "other"}), Err(TokenError::WrongAudience));
        check(json!({"aud": "brucke2"}), Err(TokenError::WrongAudience));
        check(json!({"aud": ["other"]}), Err(TokenError::WrongAudience));
        check(json!({"aud": ["other", "brucke"]}), Ok(()));
        check(json!({"aud": {"brucke": 1}}), bad);
        check(json!({"iss": null}), Err(TokenError::UnknownIssuer));
        check(json!({"iss": "I"}), Err(TokenError::UnknownIssuer));
        check(json!({"iss": ["i"]}), bad);
        check(json!({"sub": 17}), bad);
        check(json!({"sub": null}), Ok(()));
        check(json!({"channels": []}), Ok(()));
        check(json!({"channels": "orders"}), bad);
        check(json!({"channels": [1]}), bad);
        for odd in [json!(null), json!(""), json!(17), json!(["acme"]), json!("a".repeat(300))] {
            check(json!({"tenant": odd}), Err(TokenError::BadTenant));
        }
    }

    #[test]
    fn a_claim_that_is_null_is_not_absent() {
        let key = key(Algorithm::EdDsa);
        let verifier = verifier(vec![issuer_key("i", &key, None)]);
        for name in ["exp", "nbf", "aud", "iss", "sub", "channels"] {
            let mut claims = claims(json!({}));
            claims[name] = Value::Null;
            let token = key.sign(&claims, None).expect("signed");
            assert_eq!(verifier.verify(&token, now()), Err(TokenError::BadClaim), "{name}");
        }
    }

    #[test]
    fn a_token_without_a_signature_is_refused() {
        let key = key(Algorithm::EdDsa);
        let verifier = verifier(vec![issuer_key("i", &key, None)]);
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let token = token(&json!({"alg": alg}), &claims(json!({})), "");
            assert_eq!(verifier.verify(&token, now()), Err(TokenError::WrongAlgorithm), "{alg}");
        }
        let token = token(&json!({"alg": "EdDSA"}), &claims(json!({})), "");
        assert_eq!(verifier.verify(&token, now()), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_public_key_is_never_taken_for_a_secret() {
        for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
            let key = key(algorithm);
            let verifier = verifier(vec![issuer_key("i", &key, None)]);
            let public = key.public_text().expect("has one");
            let forged = jsonwebtoken::encode(
                &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256),
                &claims(json!({})),
                &jsonwebtoken::EncodingKey::from_secret(public.as_bytes()),
            );
            let forged = Token::new(forged.expect("signed"));
            assert_eq!(verifier.verify(&forged, now()), Err(TokenError::WrongAlgorithm));
        }
    }

    #[test]
    fn an_issuer_can_not_speak_for_another() {
        let (a, b) = (key(Algorithm::EdDsa), key(Algorithm::EdDsa));
        let keys = vec![issuer_key("a", &a, Some("k")), issuer_key("b", &b, Some("k"))];
        let verifier = verifier(keys);
        let check = |key: &SigningKey, iss: &str, expected: Result<(), TokenError>| {
            let token = key.sign(&claims(json!({"iss": iss})), Some("k")).expect("signed");
            assert_eq!(verifier.verify(&token, now()).map(|_| ()), expected);
        };
        check(&a, "a", Ok(()));
        check(&b, "b", Ok(()));
        check(&a, "b", Err(TokenError::BadSignature));
        check(&b, "a", Err(TokenError::BadSignature));
        check(&a, "c", Err(TokenError::UnknownIssuer));
    }

    #[test]
    fn a_kid_chooses_among_the_keys_of_its_issuer() {
        let (old, new) = (key(Algorithm::EdDsa), key(Algorithm::Es256));
        let keys = vec![issuer_key("i", &old, Some("old")), issuer_key("i", &new, Some("new"))];
        let verifier = verifier(keys);
        let check = |key: &SigningKey, kid: Option<&str>, expected: Result<(), TokenError>| {
            let token = key.sign(&claims(json!({})), kid).expect("signed");
            assert_eq!(verifier.verify(&token, now()).map(|_| ()), expected, "{kid:?}");
        };
        check(&old, Some("old"), Ok(()));
        check(&new, Some("new"), Ok(()));
        check(&old, None, Ok(()));
        check(&new, None, Ok(()));
        check(&old, Some("new"), Err(TokenError::WrongAlgorithm));
        check(&old, Some("Old"), Err(TokenError::UnknownKey));
        check(&old, Some("../../old"), Err(TokenError::UnknownKey));
    }

    #[test]
    fn keys_that_a_token_brings_along_are_not_used() {
        let (own, foreign) = (key(Algorithm::EdDsa), key(Algorithm::EdDsa));
        let verifier = verifier(vec![issuer_key("i", &own, None)]);
        let signed = foreign.sign(&claims(json!({})), None).expect("signed");
        let signature = signed.secret().rsplit('.').next().expect("three parts");
        let head = json!({
            "alg": "EdDSA", "jku": "https://evil.test/keys", "x5u": "https://evil.test/x",
            "jwk": {"kty": "OKP", "crv": "Ed25519", "x": ""},
        });
        let brought = token(&head, &claims(json!({})), signature);
        assert_eq!(verifier.verify(&brought, now()), Err(TokenError::BadSignature));
        let critical = token(&json!({"alg": "EdDSA", "crit": ["b64"]}), &claims(json!({})), "");
        assert_eq!(verifier.verify(&critical, now()), Err(TokenError::Malformed));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let verifier = verifier(vec![issuer_key("i", &key(Algorithm::EdDsa), None)]);
        let good = key(Algorithm::EdDsa).sign(&claims(json!({})), None).expect("signed");
        let good = good.secret();
        let four = format!("{good}.x");
        let padded = good.replacen('.', "=.", 1);
        let large = format!("{}{good}", "a".repeat(TOKEN_BYTES_MAX));
        let deep = URL_SAFE_NO_PAD.encode("[".repeat(5_000));
        let deep = format!("{deep}.{deep}.x");
        for text in ["", ".", "..", "a.b", "a.b.c", &four, &padded, &large, &deep, "\u{0}.\u{0}.x"]
        {
            let refused = verifier.verify(&Token::new(text.to_owned()), now());
            assert_eq!(refused, Err(TokenError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn leeway_is_as_the_configuration_says() {
        let key = key(Algorithm::EdDsa);
        let mut issuer = issuer_key("i", &key, None);
        issuer.leeway = Duration::from_secs(10);
        let verifier = verifier(vec![issuer]);
        let check = |changes: Value, expected: Result<i64, TokenError>| {
            let token = key.sign(&claims(changes), None).expect("signed");
            let expires = verifier.verify(&token, now()).map(|principal| principal.expires_at);
            let expected = expected.map(|at| Some(Timestamp::from_millis(at * 1_000)));
            assert_eq!(expires, expected);
        };
        check(json!({"exp": NOW - 9}), Ok(NOW + 1));
        check(json!({"exp": NOW - 10}), Err(TokenError::Expired));
        check(json!({"nbf": NOW + 10}), Ok(NOW + 70));
        check(json!({"nbf": NOW + 11}), Err(TokenError::NotYetValid));
    }

    #[test]
    fn an_issuer_speaks_only_for_its_tenants() {
        let key = key(Algorithm::EdDsa);
        let mut issuer = issuer_key("i", &key, None);
        issuer.tenants = Some([TenantId::new("acme")].into());
        issuer.tenant_claim = ClaimPath::new("/app/te~1nant");
        let verifier = verifier(vec![issuer]);
        let check = |tenant: &str, expected: Result<(), TokenError>| {
            let claims = claims(json!({"tenant": null, "app": {"te/nant": tenant}}));
            let token = key.sign(&claims, None).expect("signed");
            assert_eq!(verifier.verify(&token, now()).map(|_| ()), expected, "{tenant:?}");
        };
        check("acme", Ok(()));
        for other in ["blub", "ACME", "acme ", "acme\0", "acm\u{435}"] {
            check(other, Err(TokenError::BadTenant));
        }
    }

    #[test]
    fn a_principal_carries_what_key_rules_speak_of_and_no_more() {
        let key = key(Algorithm::EdDsa);
        let verifier = verifier(vec![issuer_key("i", &key, None)]);
        let claims = claims(json!({
            "region": "eu", "level": 3, "mail": "x", "channels": ["orders", "prices"],
        }));
        let token = key.sign(&claims, None).expect("signed");
        let principal = verifier.verify(&token, now()).expect("good");
        let expected = [("level", "3"), ("region", "eu")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(principal.claims, BTreeMap::from(expected));
        let channels = ["orders".into(), "prices".into()];
        assert_eq!(principal.channels, ChannelAccess::Only(channels.into()));
    }

    #[test]
    fn a_jwk_is_bound_to_its_algorithm() {
        let key = key(Algorithm::EdDsa);
        let point = {
            let pem = key.public_text().expect("has one");
            let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            let der = base64::engine::general_purpose::STANDARD.decode(body).expect("base64");
            URL_SAFE_NO_PAD.encode(&der[der.len() - 32..])
        };
        let jwk = |changes: Value| {
            let mut jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "k"});
            let whole = jwk.as_object_mut().expect("an object");
            whole.extend(changes.as_object().expect("an object").clone());
            jwk.to_string()
        };
        let read = |algorithm, text: &str| VerifyingKey::from_jwk(algorithm, text);
        let (verifying, kid) = read(Algorithm::EdDsa, &jwk(json!({}))).expect("a key");
        assert_eq!(kid.as_deref(), Some("k"));
        let mut issuer = issuer_key("i", &key, kid.as_deref());
        issuer.key = verifying;
        let token = key.sign(&claims(json!({})), Some("k")).expect("signed");
        verifier(vec![issuer]).verify(&token, now()).expect("good");
        for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256] {
            assert!(read(algorithm, &jwk(json!({}))).is_err(), "{algorithm:?}");
        }
        assert!(read(Algorithm::EdDsa, &jwk(json!({"alg": "HS256"}))).is_err());
        assert!(read(Algorithm::EdDsa, &jwk(json!({"alg": "EdDSA"}))).is_ok());
        assert!(read(Algorithm::EdDsa, &jwk(json!({"d": "x"}))).is_err());
        assert!(read(Algorithm::EdDsa, &jwk(json!({"x": "AAAA"}))).is_err());
        let short = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("short")}).to_string();
        assert!(read(Algorithm::Hs256, &short).is_err());
        let rsa = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([1; 128]), "e": "AQAB"});
        assert!(read(Algorithm::Rs256, &rsa.to_string()).is_err());
    }

    proptest! {
        #[test]
        fn a_token_changed_anywhere_is_refused(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let key = SigningKey::read(SECRET).expect("a secret");
            let verifier = verifier(vec![issuer_key("i", &key, None)]);
            let good = key.sign(&claims(json!({})), None).expect("signed");
            let mut bytes = good.secret().as_bytes().to_vec();
            let at = at.index(bytes.len());
            let to = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
                [usize::from(to) % 65];
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let changed = Token::new(String::from_utf8(bytes).expect("ASCII"));
            prop_assert!(verifier.verify(&changed, now()).is_err());
        }

        #[test]
        fn no_error_shows_any_of_the_token(text in "[a-zA-Z0-9_.-]{30,60}") {
            let key = SigningKey::read(SECRET).expect("a secret");
            let verifier = verifier(vec![issuer_key("i", &key, None)]);
            let error = verifier.verify(&Token::new(text.clone()), now()).expect_err("no token");
            let shown = format!("{error} {error:?} {}", error.reason());
            prop_assert!(!shown.contains(&text[..20]));
        }
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
}
