//! Whose a record is.

use std::borrow::Cow;

use crate::types::ids::TenantId;
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
    pub fn classify<'a>(&'a self, record: &RawRecord<'a>) -> Option<Classified<'a>> {
        let _ = record;
        unimplemented!()
    }
}
