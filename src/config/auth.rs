//! The `[auth]` section of a configuration.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::files::read_secret;
use crate::config::files::read_text;
use crate::config::loader::SectionReader;
use crate::config::values::Secret;
use crate::server::key::Algorithm;
use crate::server::key::KeyError;
use crate::server::key::VerifyingKey;
use crate::server::token::AuthConfig;
use crate::server::token::ClaimPath;
use crate::server::token::IssuerKey;
use crate::tenancy::pointer::is_pointer;
use crate::types::ids::TenantId;
use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;
use crate::types::setting::default;
use crate::types::setting::required;
use crate::types::setting::settings;
use crate::types::setting::suggested;
use crate::types::setting::unset;

settings! {
    /// Who may connect.
    pub struct AuthSection {
        /// `"tokens"`: clients with a token of one of the `[[auth.issuers]]`.
        /// `"none"`: everybody who can reach the listener, without a token.
        pub mode: AuthMode = default("tokens"),
        /// As which tenant everybody reads with `mode = "none"`.
        pub tenant: Option<TenantId> = unset("acme"),
        /// Whether `mode = "none"` is meant also where others than this machine
        /// reach the listener: `true` lets everybody there read everything of
        /// `tenant`.
        pub none_beyond_loopback: bool = default("false"),
    }
}

settings! {
    /// A key whose tokens are believed, and what they must say. One
    /// `[[auth.issuers]]` for each key; an issuer that has several is named in
    /// several. A token needs `iss`, `aud`, `exp` and the tenant; `nbf` counts
    /// where it stands.
    pub struct IssuerSection {
        /// The `iss` of its tokens, compared exactly.
        pub issuer: String = required("https://login.example"),
        /// The `aud` of its tokens: one of these.
        pub audience: Vec<String> = required("[\"brucke\"]"),
        /// The one algorithm that the key is for: `"HS256"`, `"RS256"`, `"ES256"`
        /// or `"EdDSA"`.
        pub algorithm: Algorithm = required("HS256"),
        /// The public key, in PEM. Of `pem`, `pem_file`, `jwk`, `jwk_file`,
        /// `secret`, `secret_file` and `secret_env` exactly one is needed.
        pub pem: Option<String> = unset("-----BEGIN PUBLIC KEY-----…"),
        /// File of the public key, in PEM.
        pub pem_file: Option<PathBuf> = unset("issuer.pem"),
        /// The key as a JWK, in JSON.
        pub jwk: Option<Secret> = unset("{…}"),
        /// File of the key as a JWK, in JSON.
        pub jwk_file: Option<PathBuf> = unset("issuer.jwk.json"),
        /// The secret of HS256, as text of 32 bytes or more.
        pub secret: Option<Secret> = unset("not in a file that others read"),
        /// File that holds the secret; a line break at its end is not part of it.
        pub secret_file: Option<PathBuf> = unset("/run/secrets/brucke-token"),
        /// Name of the environment variable that holds the secret.
        pub secret_env: Option<String> = suggested("BRUCKE_TOKEN_SECRET"),
        /// Name of the key in the head of its tokens (`kid`). Absent: that of the
        /// JWK, or any.
        pub kid: Option<String> = unset("2026-01"),
        /// The claim that holds the tenant: its name, or a JSON pointer such as
        /// `"/app/tenant"`.
        pub tenant_claim: String = default("tenant"),
        /// The claim that lists the channels that its bearer may read: its name, or
        /// a JSON pointer. A token without it may read all channels of its tenant.
        pub channels_claim: String = default("channels"),
        /// How far the issuer's clock may be from this machine's. So long are tokens
        /// still good after their end.
        pub leeway: Duration = default("0s").within("0s", "60s"),
        /// The tenants that the issuer may speak for. Absent: every tenant.
        pub tenants: Option<Vec<TenantId>> = unset("[\"acme\", \"blub\"]"),
    }
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    Tokens,
    None,
}

impl Setting for AuthMode {
    const FORM: Form = Form { text: "`\"tokens\"` or `\"none\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        raw.choose(&Self::FORM, &[("tokens", Self::Tokens), ("none", Self::None)])
    }
}

/// Composes what the section and its issuers say.
pub(crate) fn compose(
    reader: &mut SectionReader<'_>,
    section: Option<AuthSection>,
) -> Option<AuthConfig> {
    let keys = reader.sections("issuers", |reader| {
        let section = reader.read::<IssuerSection>()?;
        issuer_key(reader, section)
    });
    let section = section?;
    match (section.mode, section.tenant) {
        (AuthMode::None, Some(tenant)) => Some(AuthConfig::Nobody { tenant }),
        (AuthMode::None, None) => {
            reader.refuse("tenant", "is missing: as which tenant shall everybody read?");
            None
        }
        (AuthMode::Tokens, tenant) => {
            if tenant.is_some() {
                let text = "is for `mode = \"none\"` only: tokens name their tenant; take it out";
                reader.refuse("tenant", text);
            }
            let keys = keys?;
            if keys.is_empty() {
                let text = "are missing, and `mode` is `tokens`: add `[[auth.issuers]]`; \
                            `brucke token new-key` makes a key for development";
                reader.refuse("issuers", text);
                return None;
            }
            refuse_equal_kids(reader, &keys)?;
            Some(AuthConfig::Tokens(keys))
        }
    }
}

/// Keys that one issuer may have: so many signatures a token may cost.
const KEYS_PER_ISSUER_MAX: usize = 8;

fn refuse_equal_kids(reader: &mut SectionReader<'_>, keys: &[IssuerKey]) -> Option<()> {
    for (index, key) in keys.iter().enumerate() {
        let same = || keys[..index].iter().filter(|other| other.issuer == key.issuer);
        if same().count() >= KEYS_PER_ISSUER_MAX {
            let text = format!(
                "give {:?} more than {KEYS_PER_ISSUER_MAX} keys; take old ones out",
                key.issuer
            );
            reader.refuse("issuers", text);
            return None;
        }
        if key.kid.is_some() && same().any(|other| other.kid == key.kid) {
            let text = format!("give {:?} two keys of the same `kid`; rename one", key.issuer);
            reader.refuse("issuers", text);
            return None;
        }
    }
    Some(())
}

fn issuer_key(reader: &mut SectionReader<'_>, section: IssuerSection) -> Option<IssuerKey> {
    let key = key(reader, &section);
    if section.audience.is_empty() {
        reader.refuse("audience", "is empty, so that no token could be good; name one");
        return None;
    }
    let tenant_claim = claim(reader, "tenant_claim", &section.tenant_claim);
    let channels_claim = claim(reader, "channels_claim", &section.channels_claim);
    let (key, kid_of_jwk) = key?;
    Some(IssuerKey {
        issuer: section.issuer,
        audience: section.audience,
        key,
        kid: section.kid.or(kid_of_jwk),
        tenant_claim: tenant_claim?,
        channels_claim: channels_claim?,
        leeway: section.leeway,
        tenants: section.tenants.map(Vec::into_boxed_slice),
    })
}

fn claim(reader: &mut SectionReader<'_>, key: &str, path: &str) -> Option<ClaimPath> {
    if path.starts_with('/') && !is_pointer(path) {
        reader.refuse(key, format!("is {path:?}, which begins like a JSON pointer but is none"));
        return None;
    }
    Some(ClaimPath::new(path))
}

/// Reads the key by the one way in which it is given, and its `kid` if it has one.
fn key(
    reader: &mut SectionReader<'_>,
    section: &IssuerSection,
) -> Option<(VerifyingKey, Option<String>)> {
    let ways = [
        ("pem", section.pem.is_some()),
        ("pem_file", section.pem_file.is_some()),
        ("jwk", section.jwk.is_some()),
        ("jwk_file", section.jwk_file.is_some()),
        ("secret", section.secret.is_some()),
        ("secret_file", section.secret_file.is_some()),
        ("secret_env", section.secret_env.is_some()),
    ];
    let mut given = ways.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
    let Some(way) = given.next() else {
        let text = "has no key: add one of `pem_file`, `pem`, `jwk_file`, `jwk`, `secret_env`, \
                    `secret_file` and `secret`";
        reader.refuse("key", text);
        return None;
    };
    if let Some(other) = given.next() {
        reader.refuse(other, format!("contradicts `{way}`; keep one of the two"));
        return None;
    }
    let text = key_text(reader, section, way)?;
    let algorithm = section.algorithm;
    let read: Result<_, KeyError> = match way {
        "pem" | "pem_file" => {
            VerifyingKey::from_pem(algorithm, text.expose()).map(|key| (key, None))
        }
        "jwk" | "jwk_file" => VerifyingKey::from_jwk(algorithm, text.expose()),
        _ => VerifyingKey::from_secret(algorithm, text.expose().as_bytes()).map(|key| (key, None)),
    };
    read.map_err(|error| reader.refuse(way, error.to_string())).ok()
}

fn key_text(reader: &mut SectionReader<'_>, section: &IssuerSection, way: &str) -> Option<Secret> {
    let file = |path: &Option<PathBuf>| path.clone().expect("the way was chosen by what is given");
    match way {
        "pem" => section.pem.clone().map(Secret::new),
        "jwk" => section.jwk.clone(),
        "secret" => section.secret.clone(),
        "pem_file" => read_text(reader, way, &file(&section.pem_file)).map(Secret::new),
        "jwk_file" => read_text(reader, way, &file(&section.jwk_file)).map(Secret::new),
        "secret_file" => read_secret(reader, way, &file(&section.secret_file)),
        _ => {
            let variable = section.secret_env.as_deref()?;
            let secret = reader.named_variable(variable);
            if secret.is_none() {
                reader.refuse(way, format!("names the variable {variable}, which is not set"));
            }
            secret.map(Secret::new)
        }
    }
}
