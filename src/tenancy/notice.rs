//! Revocations as replicas tell each other: the records of a topic, of which only
//! the last of each key counts.
//!
//! The key says what is revoked, the value until when:
//!
//! ```json
//! {"jti":"6f0c…"}                    {"until_ms":1763888400000}
//! {"sub":"u1","tenant":"acme"}       {"until_ms":1763888400000,"issued_before_ms":1763884800000}
//! ```
//!
//! A record without a value takes back what was said under its key.

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::tenancy::revocation::Revocation;
use crate::tenancy::revocation::Revoked;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Revoke(Revocation),
    /// Takes back what was said of these tokens.
    Forget(Revoked),
}

/// Why a record says nothing. No text tells what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Strange {
    #[error("its key is absent, or longer than {KEY_BYTES_MAX} bytes")]
    NoKey,
    #[error("its key names neither a token nor a subject")]
    Key,
    #[error("its value does not say until when, and of a subject from when on")]
    Value,
}

/// The key of a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<Box<str>>,
}

/// Its value. What a later version may add is left alone: better to revoke too much
/// than nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Until {
    until_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before_ms: Option<i64>,
}

/// Returns the key under which a revocation of these tokens stands; `None` where it
/// would be too long, which no token of ours is.
pub fn key(of: &Revoked) -> Option<Vec<u8>> {
    let key = match of {
        Revoked::Token(id) => Key { jti: Some(id.clone()), sub: None, tenant: None },
        Revoked::Subject { subject, tenant, .. } => {
            let tenant = tenant.as_ref().map(|tenant| tenant.as_str().into());
            Key { jti: None, sub: Some(subject.clone()), tenant }
        }
    };
    let key = serde_json::to_vec(&key).expect("text can be written");
    (key.len() <= KEY_BYTES_MAX).then_some(key)
}

/// Returns the value of its record.
pub fn value(revocation: &Revocation) -> Vec<u8> {
    let issued_before_ms = match &revocation.of {
        Revoked::Token(_) => None,
        Revoked::Subject { issued_before, .. } => Some(issued_before.as_millis()),
    };
    let until_ms = revocation.until.as_millis();
    serde_json::to_vec(&Until { until_ms, issued_before_ms }).expect("numbers can be written")
}

/// Reads a record.
///
/// # Errors
///
/// [`Strange`] for one that no replica has written.
pub fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Notice, Strange> {
    let key = key.filter(|key| key.len() <= KEY_BYTES_MAX).ok_or(Strange::NoKey)?;
    let key: Key = serde_json::from_slice(key).map_err(|_| Strange::Key)?;
    let until: Option<Until> = match value {
        None => None,
        Some(value) => Some(serde_json::from_slice(value).map_err(|_| Strange::Value)?),
    };
    let issued_before = until.as_ref().and_then(|until| until.issued_before_ms);
    let of = match key {
        Key { jti: Some(id), sub: None, tenant: None } => Revoked::Token(id),
        Key { jti: None, sub: Some(subject), tenant } => {
            if until.is_some() && issued_before.is_none() {
                return Err(Strange::Value);
            }
            // What is taken back is so whenever it was issued.
            let issued_before = Timestamp::from_millis(issued_before.unwrap_or_default());
            Revoked::Subject { subject, tenant: tenant.map(TenantId::new), issued_before }
        }
        _ => return Err(Strange::Key),
    };
    Ok(match until {
        None => Notice::Forget(of),
        Some(until) => {
            Notice::Revoke(Revocation { of, until: Timestamp::from_millis(until.until_ms) })
        }
    })
}

/// Bytes of a key: more than an id or a subject of a token can have.
const KEY_BYTES_MAX: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp::from_millis(2_000);

    fn subject(tenant: Option<&str>) -> Revoked {
        let issued_before = Timestamp::from_millis(1_000);
        Revoked::Subject {
            subject: "u\"1".into(),
            tenant: tenant.map(TenantId::new),
            issued_before,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for of in [Revoked::Token("t".into()), subject(None), subject(Some("acme"))] {
            let revocation = Revocation { of: of.clone(), until: LATER };
            let key = key(&of).expect("short");
            let read = read(Some(&key), Some(&value(&revocation)));
            assert_eq!(read, Ok(Notice::Revoke(revocation)));
        }
        assert_eq!(key(&Revoked::Token("x".repeat(KEY_BYTES_MAX).into())), None);
    }

    #[test]
    fn the_key_is_the_same_whenever_a_subject_is_revoked() {
        let Revoked::Subject { subject, tenant, .. } = subject(Some("acme")) else { panic!() };
        let later = Revoked::Subject { subject, tenant, issued_before: LATER };
        assert_eq!(key(&later), key(&self::subject(Some("acme"))));
        assert_ne!(key(&later), key(&self::subject(None)));
    }

    #[test]
    fn the_form_is_that_of_the_documentation() {
        let check = |key: &str, value: &str, wanted: Notice| {
            assert_eq!(read(Some(key.as_bytes()), Some(value.as_bytes())), Ok(wanted), "{key}");
        };
        let of = Revoked::Token("a".into());
        let until = Notice::Revoke(Revocation { of, until: LATER });
        check(r#"{"jti":"a"}"#, r#"{"until_ms":2000,"by":"somebody"}"#, until);
        let told = r#"{"until_ms":2000,"issued_before_ms":1000}"#;
        let of = subject(Some("acme"));
        let until = Notice::Revoke(Revocation { of, until: LATER });
        check(r#"{"sub":"u\"1","tenant":"acme"}"#, told, until);
        let forget = read(Some(br#"{"jti":"a"}"#), None);
        assert_eq!(forget, Ok(Notice::Forget(Revoked::Token("a".into()))));
    }

    #[test]
    fn a_record_that_nobody_here_wrote_says_nothing() {
        let until = br#"{"until_ms":2000}"#;
        let check = |key: Option<&[u8]>, value: &[u8], wanted: Strange| {
            assert_eq!(read(key, Some(value)), Err(wanted), "{key:?} {value:?}");
        };
        check(None, until, Strange::NoKey);
        check(Some(&[b' '; KEY_BYTES_MAX + 1]), until, Strange::NoKey);
        for key in ["", "jti", "{}", r#"{"tenant":"acme"}"#, r#"{"jti":1}"#] {
            check(Some(key.as_bytes()), until, Strange::Key);
        }
        check(Some(br#"{"jti":"a","sub":"b"}"#), until, Strange::Key);
        check(Some(br#"{"jti":"a","tenant":"b"}"#), until, Strange::Key);
        check(Some(br#"{"jti":"a","more":"b"}"#), until, Strange::Key);
        for value in ["", "{}", "null", "7", r#"{"until_ms":"soon"}"#] {
            check(Some(br#"{"jti":"a"}"#), value.as_bytes(), Strange::Value);
        }
        check(Some(br#"{"sub":"a"}"#), until, Strange::Value);
    }
}
