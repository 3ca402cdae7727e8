//! Whose turn it is to read on, fair between tenants.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::delivery::subscription::SubRef;
use crate::types::ids::TenantId;

/// Subscriptions that can read on. Tenants take turns, and within each tenant its
/// subscriptions do: ten thousand clients of one tenant that come back at once do
/// not keep the only client of another waiting for ten thousand turns.
#[derive(Debug, Default)]
pub struct Turns {
    /// Tenants with a subscription that waits, each once.
    tenants: VecDeque<TenantId>,
    waiting: HashMap<TenantId, VecDeque<SubRef>>,
    len: usize,
}

impl Turns {
    /// Adds a subscription at the end of its tenant's.
    pub(in crate::delivery) fn push(&mut self, tenant: &TenantId, subscription: SubRef) {
        self.len += 1;
        if let Some(waiting) = self.waiting.get_mut(tenant) {
            waiting.push_back(subscription);
            return;
        }
        self.waiting.insert(tenant.clone(), VecDeque::from([subscription]));
        self.tenants.push_back(tenant.clone());
    }

    /// Takes off the one whose turn it is.
    pub(in crate::delivery) fn pop(&mut self) -> Option<SubRef> {
        let tenant = self.tenants.pop_front()?;
        let waiting = self.waiting.get_mut(&tenant).expect("a tenant in turn waits");
        let next = waiting.pop_front().expect("a tenant in turn has a subscription");
        self.len -= 1;
        if waiting.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.tenants.push_back(tenant);
        }
        Some(next)
    }

    /// Returns how many wait.
    pub(in crate::delivery) fn len(&self) -> usize {
        self.len
    }

    /// Says whether nobody waits.
    pub(in crate::delivery) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::subscription::ConnectionKey;

    #[test]
    fn tenants_take_turns_and_so_do_the_subscriptions_of_each() {
        let mut turns = Turns::default();
        let all = ["a", "a", "a", "b", "b", "c"];
        let subscription =
            |serial| SubRef { connection: ConnectionKey { slot: 0, serial: 0 }, slot: 0, serial };
        for (serial, tenant) in (0..).zip(all) {
            turns.push(&TenantId::new(tenant), subscription(serial));
        }
        assert_eq!(turns.len(), all.len());
        let mut taken = Vec::new();
        while let Some(next) = turns.pop() {
            taken.push(next.serial);
            // One comes back, to the end of its tenant's.
            if next.serial == 0 {
                turns.push(&TenantId::new("a"), subscription(6));
            }
        }
        assert_eq!(taken, [0, 3, 5, 1, 4, 2, 6]);
        assert!(turns.is_empty() && turns.waiting.is_empty() && turns.pop().is_none());
    }
}
