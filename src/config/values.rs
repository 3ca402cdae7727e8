//! Kinds of values that only the configuration reads.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::tenancy::rule::is_tenant_name;
use crate::types::ids::TenantId;
use crate::types::setting::Entry;
use crate::types::setting::Form;
use crate::types::setting::Raw;
use crate::types::setting::Refusal;
use crate::types::setting::Setting;
use crate::types::setting::Written;

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps secret text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret text, for the part that needs it only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl Setting for Secret {
    const FORM: Form = Form { text: "text", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        String::read(raw).map(Self)
    }
}

impl Setting for SocketAddr {
    const FORM: Form = Form {
        text: "an address and a port, such as `\"127.0.0.1:8080\"`",
        written: Written::Text,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let Raw::Text(text) = raw else { return Err(Refusal::of_kind(&raw, &Self::FORM)) };
        text.parse().map_err(|_| Refusal(format!("is {text:?}; write {}", Self::FORM.text)))
    }
}

impl Setting for PathBuf {
    const FORM: Form =
        Form { text: "a path, such as `\"/etc/brucke/key.pem\"`", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        String::read(raw).map(Self::from)
    }
}

impl Setting for TenantId {
    const FORM: Form = Form { text: "a tenant's name", written: Written::Text };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let name = String::read(raw)?;
        if !is_tenant_name(&name) {
            return Err(Refusal(format!("has {} bytes, too many for a tenant's name", name.len())));
        }
        Ok(Self::new(name))
    }
}

/// Properties by name, for librdkafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties(pub Vec<(String, Secret)>);

impl Setting for Properties {
    const FORM: Form = Form {
        text: "a table of properties, such as `{ \"socket.timeout.ms\" = \"10000\" }`",
        written: Written::Bare,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let Raw::Table(entries) = raw else { return Err(Refusal::of_kind(&raw, &Self::FORM)) };
        let mut properties = Vec::new();
        collect_properties("", entries, &mut properties)?;
        Ok(Self(properties))
    }
}

/// Joins names that TOML split at their dots: `a.b = "c"` is a table in a table.
fn collect_properties(
    prefix: &str,
    entries: Vec<Entry>,
    properties: &mut Vec<(String, Secret)>,
) -> Result<(), Refusal> {
    for Entry { name, value, .. } in entries {
        let name = format!("{prefix}{name}");
        let text = match value {
            Raw::Text(text) => text,
            Raw::Integer(number) => number.to_string(),
            Raw::Boolean(value) => value.to_string(),
            Raw::Table(entries) => {
                collect_properties(&format!("{name}."), entries, properties)?;
                continue;
            }
            other => {
                let kind = other.kind();
                return Err(Refusal(format!("has `{name}`, which is {kind}; write text")));
            }
        };
        properties.push((name, Secret(text)));
    }
    Ok(())
}

/// How the tenant of a record is told, as `[[channels]]` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantSetting {
    Shared,
    Header(String),
    KeyPrefix(String),
    Value(String),
}

impl Setting for TenantSetting {
    const FORM: Form = Form {
        text: "`\"shared\"`, `{ header = \"…\" }`, `{ key_prefix = \"…\" }` or `{ value = \"/…\" }`",
        written: Written::Bare,
    };

    fn read(raw: Raw) -> Result<Self, Refusal> {
        let mut entries = match raw {
            Raw::Text(text) if text == "shared" => return Ok(Self::Shared),
            Raw::Text(text) => {
                return Err(Refusal(format!("is {text:?}; write {}", Self::FORM.text)));
            }
            Raw::Table(entries) => entries,
            other => return Err(Refusal::of_kind(&other, &Self::FORM)),
        };
        let (Some(entry), true) = (entries.pop(), entries.is_empty()) else {
            return Err(Refusal(format!("must say one thing; write {}", Self::FORM.text)));
        };
        let text = String::read(entry.value)
            .map_err(|Refusal(why)| Refusal(format!("has `{}`, which {why}", entry.name)))?;
        match entry.name.as_str() {
            "header" => Ok(Self::Header(text)),
            "key_prefix" => Ok(Self::KeyPrefix(text)),
            "value" => Ok(Self::Value(text)),
            other => Err(Refusal(format!("has the unknown `{other}`; write {}", Self::FORM.text))),
        }
    }
}
