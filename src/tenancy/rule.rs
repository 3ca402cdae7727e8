//! Whose a record is.

use std::borrow::Cow;

use memchr::memmem;

use crate::tenancy::pointer;
use crate::types::ids::TenantId;
use crate::types::limits::TENANT_BYTES_MAX;
use crate::types::record::RawRecord;

/// How the tenant of a record is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TenancyRule {
    /// All records of the topic are this tenant's.
    Topic(TenantId),
    /// The header of this name holds the tenant.
    Header(Box<str>),
    /// The key starts with the tenant and this separator; clients see the rest.
    KeyPrefix(Box<str>),
    /// The value is JSON, and this JSON pointer (RFC 6901) leads to the tenant.
    Value(Box<str>),
    /// Every tenant may see every record.
    Shared,
}

/// Whose a record is and the key that clients see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified<'a> {
    /// `None` when every tenant may see the record.
    pub tenant: Option<Cow<'a, str>>,
    pub key: Option<&'a [u8]>,
}

impl TenancyRule {
    /// Tells whose `record` is; `None` when that can't be told, and then nobody
    /// may see it.
    ///
    /// A tenant is told by a name of 1 to [`TENANT_BYTES_MAX`] bytes of UTF-8. A
    /// record that names two tenants (a header or a JSON member that stands twice
    /// with different values) names none.
    pub fn classify<'a>(&'a self, record: &RawRecord<'a>) -> Option<Classified<'a>> {
        match self {
            Self::Topic(tenant) => owned_by(Cow::Borrowed(tenant.as_str()), record.key),
            Self::Header(name) => {
                let tenant = from_header(name, record.headers)?;
                owned_by(Cow::Borrowed(tenant), record.key)
            }
            Self::KeyPrefix(separator) => {
                let (tenant, rest) = split_key(record.key?, separator)?;
                owned_by(Cow::Borrowed(tenant), Some(rest))
            }
            Self::Value(path) => {
                let value = str::from_utf8(record.value?).ok()?;
                owned_by(pointer::find_text(value, path)?, record.key)
            }
            Self::Shared => Some(Classified { tenant: None, key: record.key }),
        }
    }
}

/// Says whether `text` may name a tenant, in a token or on a record.
pub fn is_tenant_name(text: &str) -> bool {
    (1..=TENANT_BYTES_MAX).contains(&text.len())
}

fn owned_by<'a>(tenant: Cow<'a, str>, key: Option<&'a [u8]>) -> Option<Classified<'a>> {
    is_tenant_name(&tenant).then_some(Classified { tenant: Some(tenant), key })
}

/// Returns the text of the header `name`; `None` when there is none, or when it
/// stands more than once with different values, for then any choice is a guess.
fn from_header<'a>(name: &str, headers: &[(&str, Option<&'a [u8]>)]) -> Option<&'a str> {
    let mut values = headers.iter().filter(|(own, _)| *own == name).map(|(_, value)| *value);
    let first = values.next()??;
    if values.any(|other| other != Some(first)) {
        return None;
    }
    str::from_utf8(first).ok()
}

/// Splits `key` at the first `separator`.
fn split_key<'a>(key: &'a [u8], separator: &str) -> Option<(&'a str, &'a [u8])> {
    let at = memmem::find(key, separator.as_bytes())?;
    let tenant = str::from_utf8(&key[..at]).ok()?;
    Some((tenant, &key[at + separator.len()..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::ids::Offset;
    use crate::types::ids::Timestamp;

    fn record<'a>(
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [(&'a str, Option<&'a [u8]>)],
    ) -> RawRecord<'a> {
        RawRecord {
            offset: Offset::ZERO,
            timestamp: Timestamp::from_millis(0),
            key,
            value,
            headers,
        }
    }

    fn tenant(rule: &TenancyRule, record: &RawRecord<'_>) -> Option<String> {
        let tenant = rule.classify(record)?.tenant.expect("the rule is not `shared`");
        Some(tenant.into_owned())
    }

    fn check_header(headers: &[(&str, Option<&[u8]>)], expected: Option<&str>) {
        let rule = TenancyRule::Header("tenant-id".into());
        let told = tenant(&rule, &record(Some(b"k"), None, headers));
        assert_eq!(told.as_deref(), expected, "{headers:?}");
    }

    #[test]
    fn header_names_the_tenant_only_when_it_names_one() {
        check_header(&[("tenant-id", Some(b"acme"))], Some("acme"));
        check_header(&[("x", Some(b"no")), ("tenant-id", Some(b"acme"))], Some("acme"));
        check_header(&[("tenant-id", Some(b"acme")), ("tenant-id", Some(b"acme"))], Some("acme"));
        check_header(&[("tenant-id", Some(b"acme")), ("tenant-id", Some(b"blub"))], None);
        check_header(&[("tenant-id", Some(b"acme")), ("tenant-id", None)], None);
        check_header(&[("tenant-id", None), ("tenant-id", Some(b"acme"))], None);
        check_header(&[("Tenant-Id", Some(b"acme"))], None);
        check_header(&[("tenant-id ", Some(b"acme"))], None);
        check_header(&[("tenant-id", Some(b""))], None);
        check_header(&[("tenant-id", Some(b"\xff"))], None);
        check_header(&[], None);
        let longest = "a".repeat(TENANT_BYTES_MAX);
        check_header(&[("tenant-id", Some(longest.as_bytes()))], Some(&longest));
        let too_long = "a".repeat(TENANT_BYTES_MAX + 1);
        check_header(&[("tenant-id", Some(too_long.as_bytes()))], None);
    }

    fn check_key(separator: &str, key: Option<&[u8]>, expected: Option<(&str, &[u8])>) {
        let rule = TenancyRule::KeyPrefix(separator.into());
        let record = record(key, None, &[]);
        let expected = expected.map(|(tenant, key)| Classified {
            tenant: Some(Cow::Borrowed(tenant)),
            key: Some(key),
        });
        assert_eq!(rule.classify(&record), expected, "{separator:?} {key:?}");
    }

    #[test]
    fn key_is_split_at_the_first_separator() {
        check_key(":", Some(b"acme:order-17"), Some(("acme", b"order-17")));
        check_key(":", Some(b"acme:order:17"), Some(("acme", b"order:17")));
        check_key(":", Some(b"acme:"), Some(("acme", b"")));
        check_key(":", Some(b"acme:\xff"), Some(("acme", b"\xff")));
        check_key("::", Some(b"acme:x::y"), Some(("acme:x", b"y")));
        check_key("::", Some(b"acme:::y"), Some(("acme", b":y")));
        check_key(":", Some(b":order-17"), None);
        check_key(":", Some(b"acme"), None);
        check_key(":", Some(b"\xff:order-17"), None);
        check_key(":", Some(b""), None);
        check_key(":", None, None);
    }

    fn check_value(value: Option<&str>, expected: Option<&str>) {
        let rule = TenancyRule::Value("/meta/tenant".into());
        let told = tenant(&rule, &record(Some(b"k"), value.map(str::as_bytes), &[]));
        assert_eq!(told.as_deref(), expected, "{value:?}");
    }

    #[test]
    fn value_names_the_tenant_only_by_one_string() {
        check_value(Some(r#"{"meta":{"tenant":"acme"}}"#), Some("acme"));
        check_value(Some(r#" {"a":[{}],"meta":{"x":1,"tenant":"acme"},"z":null} "#), Some("acme"));
        check_value(Some(r#"{"meta":{"tenant":"\u0061cme"}}"#), Some("acme"));
        check_value(Some(r#"{"meta":{"tenant":"acme","tenant":"acme"}}"#), Some("acme"));
        check_value(Some(r#"{"meta":{"tenant":"acme","tenant":"blub"}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":"acme"},"meta":{"tenant":"blub"}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":"acme"},"meta":{}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":"acme"},"meta":17}"#), None);
        check_value(Some(r#"{"meta":{"tenant":"acme","\u0074enant":"blub"}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":17}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":null}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":["acme"]}}"#), None);
        check_value(Some(r#"{"meta":{"tenant":""}}"#), None);
        check_value(Some(r#"{"meta":{"Tenant":"acme"}}"#), None);
        check_value(Some(r#"{"meta.tenant":"acme","tenant":"acme"}"#), None);
        check_value(Some(r#"{"meta":{"tenant":"acme"}"#), None);
        check_value(Some(r#"{"meta":{"tenant":"acme"}} x"#), None);
        check_value(Some(r#"{"meta":{"tenant":"\ud800"}}"#), None);
        check_value(Some("acme"), None);
        check_value(Some(""), None);
        check_value(None, None);
    }

    #[test]
    fn value_that_is_not_utf8_names_nobody() {
        let rule = TenancyRule::Value("/tenant".into());
        let value = b"{\"tenant\":\"acme\",\"x\":\"\xff\"}";
        assert_eq!(rule.classify(&record(None, Some(value), &[])), None);
    }

    #[test]
    fn topic_and_shared_ask_nothing_of_the_record() {
        let record = record(None, None, &[]);
        let rule = TenancyRule::Topic(TenantId::new("acme"));
        assert_eq!(tenant(&rule, &record).as_deref(), Some("acme"));
        let classified = TenancyRule::Shared.classify(&record).expect("everybody's");
        assert_eq!(classified, Classified { tenant: None, key: None });
    }

    /// Names that a careless comparison would take for one another.
    const LOOKALIKES: [&str; 12] = [
        "acme",
        "ACME",
        "acme ",
        " acme",
        "acme\0",
        "acme/",
        "../acme",
        "..",
        "caf\u{e9}",
        "cafe\u{301}",
        "\u{430}cme",
        "acme\u{200b}",
    ];

    #[test]
    fn lookalike_tenants_are_told_apart_by_every_rule() {
        for name in LOOKALIKES {
            check_header(&[("tenant-id", Some(name.as_bytes()))], Some(name));
            let key = format!("{name}:k");
            check_key(":", Some(key.as_bytes()), Some((name, b"k")));
            let value = serde_json::json!({"meta": {"tenant": name}}).to_string();
            check_value(Some(&value), Some(name));
        }
    }

    proptest! {
        #[test]
        fn no_record_panics_or_gets_an_impossible_tenant(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80)),
            header in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        ) {
            let headers = [("t", header.as_deref())];
            let record = record(key.as_deref(), value.as_deref(), &headers);
            for rule in [
                TenancyRule::Header("t".into()),
                TenancyRule::KeyPrefix(":".into()),
                TenancyRule::Value("/t".into()),
            ] {
                if let Some(tenant) = tenant(&rule, &record) {
                    prop_assert!(is_tenant_name(&tenant));
                }
            }
        }

        #[test]
        fn the_pointer_walk_agrees_with_a_whole_document(
            path in "(/([ab01]|~0|~1){0,2}){0,3}",
            document in document(),
        ) {
            let text = document.to_string();
            let found = pointer::find_text(&text, &path);
            let expected = document.pointer(&path).and_then(|value| value.as_str());
            prop_assert_eq!(found.as_deref(), expected);
        }
    }

    fn document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(serde_json::Value::from),
            "[a-z\"\\\\\u{e9}]{0,4}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[ab01/~]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
