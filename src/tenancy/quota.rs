//! How much of a replica each tenant may hold, and who holds what.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::DashMap;

use crate::types::ids::TenantId;

/// What one tenant may hold at this replica; `None` for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    pub connections_max: Option<NonZeroU32>,
    pub subscriptions_max: Option<NonZeroU32>,
}

/// The quotas of all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuotaRules {
    /// Of each tenant that has none of its own.
    pub every: Quota,
    pub exceptions: BTreeMap<TenantId, Quota>,
}

impl QuotaRules {
    /// Returns the quota of a tenant.
    pub fn of(&self, tenant: &TenantId) -> Quota {
        self.exceptions.get(tenant).copied().unwrap_or(self.every)
    }
}

/// Gives tenants their places. Shared by all workers, and asked when something
/// begins or ends, never while records flow.
///
/// Places are counted also where there is no quota, so that one which a reload
/// brings finds the count right. Of a tenant without connections nothing is kept.
#[derive(Default)]
pub struct Quotas {
    rules: RwLock<QuotaRules>,
    held: DashMap<TenantId, Arc<Held>>,
}

/// What one tenant holds, as long as it has a connection.
struct Held {
    quotas: Arc<Quotas>,
    tenant: TenantId,
    /// Changes only under the lock of the tenant's entry, so that an entry is never
    /// taken out while another place is given.
    connections: AtomicU32,
    subscriptions: AtomicU32,
}

/// The place of one connection among its tenant's; dropped, it is free again.
pub struct ConnectionPlace(Arc<Held>);

/// The place of one subscription among its tenant's; dropped, it is free again.
/// To be dropped before that of its connection.
pub struct SubscriptionPlace(Arc<Held>);

/// The tenant holds as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    pub max: NonZeroU32,
}

impl Quotas {
    /// Returns places by these rules, all of them free.
    pub fn new(rules: QuotaRules) -> Arc<Self> {
        Arc::new(Self { rules: RwLock::new(rules), held: DashMap::new() })
    }

    /// Gives places by other rules from now on. Who holds more keeps it.
    pub fn set_rules(&self, rules: QuotaRules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Returns the rules in force.
    pub fn rules(&self) -> QuotaRules {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn quota(&self, tenant: &TenantId) -> Quota {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).of(tenant)
    }

    /// Takes a place for a connection of this tenant.
    ///
    /// # Errors
    ///
    /// [`Full`] when its connections are as many as they may be.
    pub fn connect(self: &Arc<Self>, tenant: &TenantId) -> Result<ConnectionPlace, Full> {
        let max = self.quota(tenant).connections_max;
        let held = self.held.entry(tenant.clone()).or_insert_with(|| {
            Arc::new(Held {
                quotas: Arc::clone(self),
                tenant: tenant.clone(),
                connections: AtomicU32::new(0),
                subscriptions: AtomicU32::new(0),
            })
        });
        take(&held.connections, max)?;
        Ok(ConnectionPlace(Arc::clone(&held)))
    }
}

impl ConnectionPlace {
    /// Takes a place for a subscription of this connection.
    ///
    /// # Errors
    ///
    /// [`Full`] when its tenant's are as many as they may be.
    pub fn subscribe(&self) -> Result<SubscriptionPlace, Full> {
        let Self(held) = self;
        take(&held.subscriptions, held.quotas.quota(&held.tenant).subscriptions_max)?;
        Ok(SubscriptionPlace(Arc::clone(held)))
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let Self(held) = self;
        let leaves_last = |_: &TenantId, _: &Arc<Held>| {
            let before = held.connections.fetch_sub(1, Relaxed);
            before == 1
        };
        held.quotas.held.remove_if(&held.tenant, leaves_last);
    }
}

impl Drop for SubscriptionPlace {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Relaxed);
    }
}

/// Counts one more, unless there are as many as there may be.
fn take(taken: &AtomicU32, max: Option<NonZeroU32>) -> Result<(), Full> {
    let one_more = |taken: u32| match max {
        Some(max) if taken >= max.get() => None,
        _ => Some(taken + 1),
    };
    let taken = taken.fetch_update(Relaxed, Relaxed, one_more);
    taken.map(drop).map_err(|_| Full { max: max.expect("without a bound there is room") })
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("tenants", &self.held.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConnectionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionPlace(of {:?})", self.0.tenant)
    }
}

impl fmt::Debug for SubscriptionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubscriptionPlace(of {:?})", self.0.tenant)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn quota(connections: u32, subscriptions: u32) -> Quota {
        Quota {
            connections_max: NonZeroU32::new(connections),
            subscriptions_max: NonZeroU32::new(subscriptions),
        }
    }

    /// Quotas of which `acme` is an exception.
    fn quotas(every: Quota, acme: Quota) -> Arc<Quotas> {
        let exceptions = BTreeMap::from([(TenantId::new("acme"), acme)]);
        Quotas::new(QuotaRules { every, exceptions })
    }

    fn check_connections(quotas: &Arc<Quotas>, tenant: &str, expected: usize) {
        let tenant = TenantId::new(tenant);
        let given: Vec<_> = (0..10).filter_map(|_| quotas.connect(&tenant).ok()).collect();
        assert_eq!(given.len(), expected, "{tenant}");
    }

    #[test]
    fn each_tenant_has_its_own_places() {
        let quotas = quotas(quota(2, 0), quota(5, 0));
        for _ in 0..2 {
            check_connections(&quotas, "acme", 5);
            check_connections(&quotas, "blub", 2);
        }
        // Names that are nearly the same are others.
        let _held: Vec<_> = (0..2).map(|_| quotas.connect(&TenantId::new("blub"))).collect();
        check_connections(&quotas, "blub", 0);
        check_connections(&quotas, "Blub", 2);
        check_connections(&Quotas::new(QuotaRules::default()), "acme", 10);
    }

    #[test]
    fn subscriptions_are_counted_over_all_connections_of_a_tenant() {
        let quotas = quotas(quota(0, 3), quota(0, 0));
        let blub = TenantId::new("blub");
        let [first, second] = [(); 2].map(|()| quotas.connect(&blub).expect("a place"));
        let mut held = vec![first.subscribe().expect("a place")];
        held.extend([(); 2].map(|()| second.subscribe().expect("a place")));
        let full = Full { max: NonZeroU32::new(3).expect("not zero") };
        assert_eq!(first.subscribe().map(drop), Err(full));
        held.pop();
        assert!(first.subscribe().is_ok(), "a place is free again");
    }

    #[test]
    fn who_holds_more_than_a_new_quota_keeps_it() {
        let quotas = quotas(quota(0, 0), quota(0, 0));
        let acme = TenantId::new("acme");
        let mut held = Vec::from([(); 3].map(|()| quotas.connect(&acme).expect("a place")));
        quotas.set_rules(QuotaRules { every: quota(2, 0), ..QuotaRules::default() });
        for _ in 0..2 {
            check_connections(&quotas, "acme", 0);
            held.pop();
        }
        check_connections(&quotas, "acme", 1);
    }

    #[test]
    fn nothing_is_kept_of_who_is_gone() {
        let quotas = quotas(quota(1, 1), quota(0, 0));
        let place = quotas.connect(&TenantId::new("blub")).expect("a place");
        assert!(quotas.connect(&TenantId::new("blub")).is_err());
        drop((place.subscribe().expect("a place"), place));
        assert!(quotas.held.is_empty());
    }

    #[test]
    fn no_place_is_given_twice_or_lost_among_threads() {
        let quotas = quotas(quota(3, 0), quota(0, 0));
        let tenant = TenantId::new("blub");
        let most = AtomicU32::new(0);
        let now = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let Ok(_place) = quotas.connect(&tenant) else { continue };
                        let held = now.fetch_add(1, Relaxed) + 1;
                        most.fetch_max(held, Relaxed);
                        now.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert!(quotas.held.is_empty());
    }
}
