//! Which keys of a channel a client may read, by the claims of its token.
//!
//! A rule is text with claims in braces: `{sub}`, `{region}:{sub}:`. Filled in
//! with two clients' claims it must never give one the keys of the other, so a
//! claim always ends where the text after it first occurs: a claim that holds
//! that text itself is refused.

use thiserror::Error;

use crate::tenancy::principal::Principal;
use crate::types::filter::KeyFilter;

/// Which keys of a channel a client may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRule {
    /// This one.
    Key(ClaimTemplate),
    /// Those that start with this; the template ends in text.
    Prefix(ClaimTemplate),
}

/// Text with claims in it, such as `{sub}:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimTemplate {
    /// Text before the first claim.
    start: Box<str>,
    /// At least one claim.
    parts: Box<[Part]>,
}

/// A claim and the text up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    claim: Box<str>,
    /// Empty only at the end of a template.
    text: Box<str>,
}

/// Why a key rule can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyRuleError {
    #[error("no claim in braces, so that every client would read the same keys; write `{{sub}}`")]
    NoClaim,
    #[error("a brace without its pair, or nothing between the two")]
    Brace,
    #[error("`{{{0}}}` is followed at once by another claim; put text between them")]
    Adjacent(Box<str>),
    #[error("a prefix must end in text after `{{{0}}}`, or `u1` would read the keys of `u10`")]
    OpenEnd(Box<str>),
}

impl KeyRule {
    /// Reads a rule for one key.
    ///
    /// # Errors
    ///
    /// [`KeyRuleError`] when two clients could come to the same key.
    pub fn key(text: &str) -> Result<Self, KeyRuleError> {
        ClaimTemplate::parse(text).map(Self::Key)
    }

    /// Reads a rule for all keys with a prefix.
    ///
    /// # Errors
    ///
    /// [`KeyRuleError`] when one client's prefix could be another one's too.
    pub fn prefix(text: &str) -> Result<Self, KeyRuleError> {
        let template = ClaimTemplate::parse(text)?;
        match template.parts.last() {
            Some(Part { claim, text }) if text.is_empty() => {
                Err(KeyRuleError::OpenEnd(claim.clone()))
            }
            _ => Ok(Self::Prefix(template)),
        }
    }

    /// Says whether every key that `filter` wants is one that `principal` may
    /// read. Nobody may read all keys of a channel that has a rule, and nobody
    /// may read any without the claims that the rule speaks of.
    pub fn covers(&self, principal: &Principal, filter: &KeyFilter) -> bool {
        match self {
            Self::Key(template) => template.fill(principal).is_some_and(|own| match filter {
                KeyFilter::Keys(keys) => keys.iter().all(|key| key == own.as_bytes()),
                KeyFilter::All | KeyFilter::Prefix(_) => false,
            }),
            Self::Prefix(template) => template.fill(principal).is_some_and(|own| match filter {
                KeyFilter::Keys(keys) => keys.iter().all(|key| key.starts_with(own.as_bytes())),
                KeyFilter::Prefix(prefix) => prefix.starts_with(own.as_bytes()),
                KeyFilter::All => false,
            }),
        }
    }

    /// Returns the names of the claims that the rule speaks of.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let (Self::Key(template) | Self::Prefix(template)) = self;
        template.parts.iter().map(|part| &*part.claim)
    }
}

impl ClaimTemplate {
    fn parse(text: &str) -> Result<Self, KeyRuleError> {
        let (start, mut rest) = text.split_once('{').ok_or(KeyRuleError::NoClaim)?;
        let mut parts = Vec::new();
        loop {
            let (claim, after) = rest.split_once('}').ok_or(KeyRuleError::Brace)?;
            let (text, next) = match after.split_once('{') {
                Some((text, next)) => (text, Some(next)),
                None => (after, None),
            };
            if claim.is_empty() || claim.contains('{') || text.contains('}') {
                return Err(KeyRuleError::Brace);
            }
            parts.push(Part { claim: claim.into(), text: text.into() });
            match next {
                Some(_) if text.is_empty() => return Err(KeyRuleError::Adjacent(claim.into())),
                Some(next) => rest = next,
                None => break,
            }
        }
        if start.contains('}') {
            return Err(KeyRuleError::Brace);
        }
        Ok(Self { start: start.into(), parts: parts.into_boxed_slice() })
    }

    /// Returns the text for one client; `None` when a claim is absent, empty, or
    /// holds what follows it.
    fn fill(&self, principal: &Principal) -> Option<String> {
        let mut filled = String::from(&*self.start);
        for Part { claim, text } in &self.parts {
            let value = value_of(principal, claim)?;
            let value_start = filled.len();
            filled.push_str(value);
            let value_end = filled.len();
            filled.push_str(text);
            let ends_at = filled[value_start..].find(&**text).map(|at| value_start + at);
            if value.is_empty() || !text.is_empty() && ends_at != Some(value_end) {
                return None;
            }
        }
        Some(filled)
    }
}

fn value_of<'p>(principal: &'p Principal, claim: &str) -> Option<&'p str> {
    match claim {
        "tenant" => Some(principal.tenant.as_str()),
        "sub" => principal.subject.as_deref(),
        _ => principal.claims.get(claim).map(|value| &**value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::tenancy::principal::ChannelAccess;
    use crate::types::ids::TenantId;

    fn principal(subject: Option<&str>, region: Option<&str>) -> Principal {
        let region = region.map(|region| ("region".into(), region.into()));
        Principal {
            tenant: TenantId::new("acme"),
            subject: subject.map(Into::into),
            channels: ChannelAccess::All,
            claims: BTreeMap::from_iter(region),
            expires_at: None,
            token_id: None,
            issued_at: None,
        }
    }

    fn keys<const N: usize>(keys: [&'static str; N]) -> KeyFilter {
        KeyFilter::keys(keys.map(Bytes::from))
    }

    fn prefix(text: &'static str) -> KeyFilter {
        KeyFilter::Prefix(Bytes::from(text))
    }

    fn check(rule: &KeyRule, subject: &str, filter: &KeyFilter, covered: bool) {
        let principal = principal(Some(subject), Some("eu"));
        assert_eq!(rule.covers(&principal, filter), covered, "{rule:?} {subject:?} {filter:?}");
    }

    #[test]
    fn a_key_rule_covers_its_key_alone() {
        let rule = KeyRule::key("{sub}").expect("a rule");
        check(&rule, "u1", &keys(["u1"]), true);
        check(&rule, "u1", &keys(["u1", "u2"]), false);
        check(&rule, "u1", &keys(["U1"]), false);
        check(&rule, "u1", &keys(["u10"]), false);
        check(&rule, "u1", &prefix("u1"), false);
        check(&rule, "u1", &KeyFilter::All, false);
        check(&rule, "", &keys([""]), false);
    }

    #[test]
    fn a_prefix_rule_covers_what_lies_under_it() {
        let rule = KeyRule::prefix("{sub}:").expect("a rule");
        check(&rule, "u1", &keys(["u1:a", "u1:b"]), true);
        check(&rule, "u1", &keys(["u1:a", "u10:b"]), false);
        check(&rule, "u1", &prefix("u1:"), true);
        check(&rule, "u1", &prefix("u1:a"), true);
        check(&rule, "u1", &prefix("u1"), false);
        check(&rule, "u1", &KeyFilter::All, false);
        // Within the keys of `u1`, were it let in.
        check(&rule, "u1:a", &prefix("u1:a:"), false);
    }

    #[test]
    fn several_claims_stay_apart() {
        let rule = KeyRule::prefix("{tenant}/{region}/{sub}/").expect("a rule");
        assert_eq!(rule.claims().collect::<Vec<_>>(), ["tenant", "region", "sub"]);
        check(&rule, "u1", &prefix("acme/eu/u1/"), true);
        check(&rule, "eu/u1", &prefix("acme/eu/eu/u1/"), false);
        check(&rule, "..", &prefix("acme/eu/u1/"), false);
    }

    #[test]
    fn without_the_claim_nothing_is_covered() {
        let rule = KeyRule::key("{region}-{sub}").expect("a rule");
        let filter = keys(["eu-u1"]);
        assert!(rule.covers(&principal(Some("u1"), Some("eu")), &filter));
        assert!(!rule.covers(&principal(None, Some("eu")), &filter));
        assert!(!rule.covers(&principal(Some("u1"), None), &filter));
        assert!(!rule.covers(&principal(Some("u1"), Some("")), &keys(["-u1"])));
    }

    #[test]
    fn rules_that_would_mix_clients_are_refused() {
        assert_eq!(KeyRule::key("all"), Err(KeyRuleError::NoClaim));
        assert_eq!(KeyRule::key("{sub"), Err(KeyRuleError::Brace));
        assert_eq!(KeyRule::key("{}"), Err(KeyRuleError::Brace));
        assert_eq!(KeyRule::key("}{sub}"), Err(KeyRuleError::Brace));
        assert_eq!(KeyRule::key("{a{b}"), Err(KeyRuleError::Brace));
        assert_eq!(KeyRule::key("{a}}"), Err(KeyRuleError::Brace));
        assert_eq!(KeyRule::key("{a}{b}"), Err(KeyRuleError::Adjacent("a".into())));
        assert_eq!(KeyRule::prefix("{sub}"), Err(KeyRuleError::OpenEnd("sub".into())));
    }

    proptest! {
        #[test]
        fn no_client_reads_under_anothers_prefix(
            separator in "[:-]{1,3}",
            own in "[a:-]{0,4}",
            other in "[a:-]{0,4}",
            rest in "[a:-]{0,4}",
        ) {
            let rule = KeyRule::prefix(&format!("{{sub}}{separator}")).expect("a rule");
            let key = KeyFilter::keys([Bytes::from(format!("{other}{separator}{rest}"))]);
            let others = rule.covers(&principal(Some(&other), None), &key);
            let owns = rule.covers(&principal(Some(&own), None), &key);
            prop_assert!(!(others && owns) || own == other);
        }
    }
}
