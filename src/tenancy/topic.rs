//! Topics whose names hold a tenant.
//!
//! A tenant that may stand in a topic's name is made of `[a-zA-Z0-9_-]`: without
//! the dot, so that the parts between dots never shift, and two templates can be
//! compared part by part. Templates and topics of one configuration that could
//! name the same topic for two tenants are refused together.

use thiserror::Error;

use crate::types::ids::TenantId;
use crate::types::ids::TopicName;

/// Bytes of a topic's name, by Kafka's rule.
pub const TOPIC_BYTES_MAX: usize = 249;

/// What stands for the tenant in a template.
pub const PLACE: &str = "{tenant}";

/// The name of a topic for each tenant, such as `{tenant}.orders`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicTemplate {
    prefix: Box<str>,
    suffix: Box<str>,
}

/// Why a text is no topic, or no template of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TopicError {
    #[error("a topic's name has 1 to {TOPIC_BYTES_MAX} bytes and is neither `.` nor `..`")]
    Length,
    #[error("a topic's name is made of letters, digits, `.`, `_` and `-`")]
    Character,
    #[error("`{PLACE}` may stand only once")]
    Repeated,
    #[error("`{PLACE}` alone would let a tenant name any topic; add a part that tells these apart")]
    Bare,
}

/// Reads the name of a topic.
///
/// # Errors
///
/// [`TopicError`] when Kafka would not have it.
pub fn parse_topic(text: &str) -> Result<TopicName, TopicError> {
    if !(1..=TOPIC_BYTES_MAX).contains(&text.len()) || text == "." || text == ".." {
        return Err(TopicError::Length);
    }
    if !text.bytes().all(is_topic_byte) {
        return Err(TopicError::Character);
    }
    Ok(TopicName::new(text))
}

impl TopicTemplate {
    /// Reads a template; `None` when `text` holds no `{tenant}`.
    ///
    /// # Errors
    ///
    /// [`TopicError`] when no tenant would give a name that Kafka has.
    pub fn parse(text: &str) -> Option<Result<Self, TopicError>> {
        let (prefix, suffix) = text.split_once(PLACE)?;
        Some(Self::join(prefix, suffix))
    }

    fn join(prefix: &str, suffix: &str) -> Result<Self, TopicError> {
        if suffix.contains(PLACE) {
            return Err(TopicError::Repeated);
        }
        if prefix.is_empty() && suffix.is_empty() {
            return Err(TopicError::Bare);
        }
        if !prefix.bytes().chain(suffix.bytes()).all(is_topic_byte) {
            return Err(TopicError::Character);
        }
        if prefix.len() + suffix.len() >= TOPIC_BYTES_MAX {
            return Err(TopicError::Length);
        }
        Ok(Self { prefix: prefix.into(), suffix: suffix.into() })
    }

    /// Returns the topic of `tenant`; `None` when its name has a character other
    /// than `[a-zA-Z0-9_-]`, or the whole is longer than Kafka allows.
    pub fn topic_of(&self, tenant: &TenantId) -> Option<TopicName> {
        let tenant = tenant.as_str();
        let fits = self.prefix.len() + tenant.len() + self.suffix.len() <= TOPIC_BYTES_MAX;
        if tenant.is_empty() || !tenant.bytes().all(is_tenant_byte) || !fits {
            return None;
        }
        Some(TopicName::new(format!("{}{tenant}{}", self.prefix, self.suffix)))
    }

    /// Says whether some tenant's topic is `topic`.
    pub fn may_name(&self, topic: &TopicName) -> bool {
        let (prefix, suffix) = (self.prefix.as_ref(), self.suffix.as_ref());
        let topic = topic.as_str();
        topic.len() > prefix.len() + suffix.len()
            && topic.starts_with(prefix)
            && topic.ends_with(suffix)
            && topic[prefix.len()..topic.len() - suffix.len()].bytes().all(is_tenant_byte)
    }

    /// Says whether this template and another one have a topic in common, which
    /// would then be two tenants'.
    pub fn meets(&self, other: &TopicTemplate) -> bool {
        let (own, others) = (self.parts(), other.parts());
        self != other
            && own.len() == others.len()
            && own.iter().zip(&others).all(|(a, b)| a.meets(b))
    }

    /// Cuts the template at its dots.
    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts: Vec<Part<'_>> = self.prefix.split('.').map(Part::Literal).collect();
        let start = self.prefix.rsplit('.').next().expect("a split has a last part");
        let mut rest = self.suffix.split('.');
        let end = rest.next().expect("a split has a first part");
        parts.pop();
        parts.push(Part::Tenant { start, end });
        parts.extend(rest.map(Part::Literal));
        parts
    }
}

/// One part of a template between dots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a str),
    Tenant { start: &'a str, end: &'a str },
}

impl Part<'_> {
    fn meets(&self, other: &Part<'_>) -> bool {
        match (self, other) {
            (Part::Literal(a), Part::Literal(b)) => a == b,
            (Part::Literal(text), Part::Tenant { start, end })
            | (Part::Tenant { start, end }, Part::Literal(text)) => {
                text.len() > start.len() + end.len()
                    && text.starts_with(start)
                    && text.ends_with(end)
            }
            (Part::Tenant { start: a, end: x }, Part::Tenant { start: b, end: y }) => {
                (a.starts_with(b) || b.starts_with(a)) && (x.ends_with(y) || y.ends_with(x))
            }
        }
    }
}

fn is_topic_byte(byte: u8) -> bool {
    is_tenant_byte(byte) || byte == b'.'
}

fn is_tenant_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> TopicTemplate {
        TopicTemplate::parse(text).expect("has a tenant").expect("is a template")
    }

    fn check_topic(tenant: &str, expected: Option<&str>) {
        let topic = template("{tenant}.orders").topic_of(&TenantId::new(tenant));
        assert_eq!(topic.as_ref().map(TopicName::as_str), expected, "{tenant:?}");
    }

    #[test]
    fn only_plain_tenants_have_topics() {
        check_topic("acme", Some("acme.orders"));
        check_topic("ACME", Some("ACME.orders"));
        check_topic("a_c-me9", Some("a_c-me9.orders"));
        for odd in ["", ".", "..", "acme.eu", "acme/", "a\0", "a b", "caf\u{e9}", "{tenant}", "*"] {
            check_topic(odd, None);
        }
        let longest = "a".repeat(TOPIC_BYTES_MAX - ".orders".len());
        check_topic(&longest, Some(&format!("{longest}.orders")));
        check_topic(&format!("{longest}a"), None);
    }

    #[test]
    fn templates_and_topics_are_what_kafka_has() {
        let refused = |text: &str| TopicTemplate::parse(text).expect("has a tenant").err();
        assert!(TopicTemplate::parse("orders").is_none());
        assert_eq!(refused("{tenant}"), Some(TopicError::Bare));
        assert_eq!(refused("{tenant}.{tenant}"), Some(TopicError::Repeated));
        assert_eq!(refused("{tenant}/orders"), Some(TopicError::Character));
        assert_eq!(refused("{tenant}{x}"), Some(TopicError::Character));
        assert_eq!(refused(&format!("{{tenant}}{}", "a".repeat(249))), Some(TopicError::Length));
        assert_eq!(parse_topic("orders").map(|t| t.to_string()), Ok("orders".to_owned()));
        assert_eq!(parse_topic(".."), Err(TopicError::Length));
        assert_eq!(parse_topic(""), Err(TopicError::Length));
        assert_eq!(parse_topic("a b"), Err(TopicError::Character));
        assert_eq!(parse_topic("{tenants}"), Err(TopicError::Character));
    }

    fn check_meets(a: &str, b: &str, expected: bool) {
        assert_eq!(template(a).meets(&template(b)), expected, "{a} {b}");
        assert_eq!(template(b).meets(&template(a)), expected, "{b} {a}");
    }

    #[test]
    fn templates_meet_only_where_two_tenants_could() {
        check_meets("{tenant}.orders", "{tenant}.orders", false);
        check_meets("{tenant}.orders", "{tenant}.prices", false);
        check_meets("{tenant}.orders", "{tenant}.big.orders", false);
        check_meets("{tenant}.orders", "shop.{tenant}.orders", false);
        check_meets("{tenant}.orders", "x-{tenant}.orders", true);
        check_meets("{tenant}.orders", "{tenant}-x.orders", true);
        check_meets("{tenant}.orders", "acme.{tenant}", true);
        check_meets("{tenant}.orders", "acme.x-{tenant}", false);
        check_meets("{tenant}_orders", "{tenant}_big_orders", true);
        check_meets("x-{tenant}.a", "y-{tenant}.a", false);
        check_meets("..{tenant}.", "..{tenant}.", false);
    }

    #[test]
    fn a_template_names_its_tenants_topics_and_no_others() {
        let names = |topic: &str| template("{tenant}.orders").may_name(&TopicName::new(topic));
        assert!(names("acme.orders"));
        assert!(!names(".orders"));
        assert!(!names("orders"));
        assert!(!names("acme.eu.orders"));
        assert!(!names("acme.orders.eu"));
    }

    proptest! {
        #[test]
        fn templates_that_do_not_meet_never_share_a_topic(
            a in "[ab.-]{0,3}\\{tenant\\}[ab.-]{1,3}",
            b in "[ab.-]{0,3}\\{tenant\\}[ab.-]{1,3}",
            s in "[ab-]{1,3}",
            t in "[ab-]{1,3}",
        ) {
            let (a, b) = (template(&a), template(&b));
            let topic_s = a.topic_of(&TenantId::new(s.as_str())).expect("plain");
            let topic_t = b.topic_of(&TenantId::new(t.as_str())).expect("plain");
            prop_assert!(a.may_name(&topic_s));
            if topic_s == topic_t {
                prop_assert!(b.may_name(&topic_s));
                prop_assert!(a.meets(&b) || a == b && s == t);
            }
        }
    }
}
