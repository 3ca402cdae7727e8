//! Tokens that are no longer believed although they have not run out.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;

use crate::tenancy::principal::Principal;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;

/// Which tokens are no longer believed, and until when this is remembered: when
/// the last of them has run out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub of: Revoked,
    pub until: Timestamp,
}

/// Whose tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The one with this `jti`.
    Token(Box<str>),
    /// All of this `sub` that were issued before: one that its bearer gets later is
    /// good again. Of one tenant, or of every tenant.
    Subject { subject: Box<str>, tenant: Option<TenantId>, issued_before: Timestamp },
}

impl Revoked {
    /// Says whether these are the tokens of `principal`.
    pub fn covers(&self, principal: &Principal) -> bool {
        match self {
            Self::Token(id) => principal.token_id.as_deref() == Some(id),
            Self::Subject { subject, tenant, issued_before } => {
                principal.subject.as_deref() == Some(subject)
                    && tenant.as_ref().is_none_or(|tenant| *tenant == principal.tenant)
                    && principal.issued_at.is_none_or(|issued_at| issued_at < *issued_before)
            }
        }
    }

    /// Says whether these are the tokens of `other`, whenever they were issued.
    fn is_same(&self, other: &Revoked) -> bool {
        match (self, other) {
            (Self::Token(id), Self::Token(others)) => id == others,
            (
                Self::Subject { subject, tenant, .. },
                Self::Subject { subject: others, tenant: of_other, .. },
            ) => subject == others && tenant == of_other,
            (Self::Token(_), Self::Subject { .. }) | (Self::Subject { .. }, Self::Token(_)) => {
                false
            }
        }
    }

    /// Covers what the same covered that was issued later.
    fn widen(&mut self, known: &Revoked) {
        if let (Self::Subject { issued_before, .. }, Self::Subject { issued_before: before, .. }) =
            (self, known)
        {
            *issued_before = (*issued_before).max(*before);
        }
    }
}

/// All revocations of a process; it forgets them when it ends.
#[derive(Debug, Default)]
pub struct Revocations {
    all: RwLock<VecDeque<Revocation>>,
}

/// No place for another revocation: the ones there are have not passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Revocations {
    /// Adds one. Of one token or subject the last word counts, about until when.
    ///
    /// # Errors
    ///
    /// [`TooMany`] beyond [`REVOCATIONS_MAX`] that have not passed.
    pub fn add(&self, mut revocation: Revocation, now: Timestamp) -> Result<(), TooMany> {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| {
            let is_same = known.of.is_same(&revocation.of);
            if is_same {
                revocation.of.widen(&known.of);
            }
            known.until > now && !is_same
        });
        if all.len() >= REVOCATIONS_MAX {
            return Err(TooMany);
        }
        all.push_back(revocation);
        Ok(())
    }

    /// Takes back what was said of these tokens.
    pub fn forget(&self, of: &Revoked) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| !known.of.is_same(of));
    }

    /// Says whether the token of `principal` is no longer believed.
    pub fn cover(&self, principal: &Principal, now: Timestamp) -> bool {
        let all = self.read();
        all.iter().any(|known| known.until > now && known.of.covers(principal))
    }

    /// Returns how many have not passed.
    pub fn count(&self, now: Timestamp) -> usize {
        self.read().iter().filter(|known| known.until > now).count()
    }

    fn read(&self) -> RwLockReadGuard<'_, VecDeque<Revocation>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revocations that are remembered at once: each token that is shown is held
/// against all of them.
pub const REVOCATIONS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tenancy::principal::ChannelAccess;

    const NOW: Timestamp = Timestamp::from_millis(1_000);
    const LATER: Timestamp = Timestamp::from_millis(2_000);

    fn client(tenant: &str, subject: &str, token: &str, issued_at: Option<i64>) -> Principal {
        Principal {
            tenant: TenantId::new(tenant),
            subject: Some(subject.into()),
            channels: ChannelAccess::All,
            claims: BTreeMap::new(),
            expires_at: None,
            token_id: Some(token.into()),
            issued_at: issued_at.map(Timestamp::from_millis),
        }
    }

    fn check(of: Revoked, principal: &Principal, covered: bool) {
        let revocations = Revocations::default();
        revocations.add(Revocation { of, until: LATER }, NOW).expect("there is room");
        assert_eq!(revocations.cover(principal, NOW), covered);
        assert!(!revocations.cover(principal, LATER), "it has passed");
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_no_other() {
        check(Revoked::Token("t".into()), &client("acme", "u", "t", None), true);
        check(Revoked::Token("t".into()), &client("acme", "u", "t2", None), false);
    }

    #[test]
    fn a_subject_is_revoked_until_it_gets_a_new_token() {
        let of = |tenant: Option<&str>| Revoked::Subject {
            subject: "u".into(),
            tenant: tenant.map(TenantId::new),
            issued_before: NOW,
        };
        check(of(None), &client("acme", "u", "t", Some(999)), true);
        check(of(None), &client("acme", "u", "t", None), true);
        check(of(None), &client("acme", "u", "t", Some(1_000)), false);
        check(of(None), &client("acme", "v", "t", None), false);
        check(of(Some("acme")), &client("acme", "u", "t", None), true);
        check(of(Some("blub")), &client("acme", "u", "t", None), false);
    }

    #[test]
    fn of_one_subject_the_last_word_counts_and_covers_what_an_earlier_one_did() {
        let revocations = Revocations::default();
        let say = |issued_before, until| {
            let issued_before = Timestamp::from_millis(issued_before);
            let of = Revoked::Subject { subject: "u".into(), tenant: None, issued_before };
            let until = Timestamp::from_millis(until);
            revocations.add(Revocation { of: of.clone(), until }, NOW).expect("there is room");
            of
        };
        say(900, 5_000);
        let of = say(800, 3_000);
        assert_eq!(revocations.count(NOW), 1);
        let at = Timestamp::from_millis;
        assert!(revocations.cover(&client("acme", "u", "t", Some(850)), NOW));
        assert!(!revocations.cover(&client("acme", "u", "t", Some(950)), NOW));
        assert!(revocations.cover(&client("acme", "u", "t", None), at(2_999)));
        assert!(!revocations.cover(&client("acme", "u", "t", None), at(3_000)));
        revocations.forget(&of);
        assert_eq!(revocations.count(NOW), 0);
    }
}
