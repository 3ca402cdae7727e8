//! Whose history is read next: tenants take turns, and within each tenant its
//! partitions do.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TenantId;

/// A partition of which history is wanted.
pub(in crate::registry) type Place = (SourceId, PartitionId);

/// When a tenant, or a place of one, had its last turn or began to wait, whichever
/// was later. Who has the lowest is the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::registry) struct Order(u64);

/// Who waits for history, in the order of turns. Whoever can't be served when its
/// turn comes, because its partition is being read for another, keeps its turn.
#[derive(Debug, Default)]
pub(in crate::registry) struct Turns {
    tenants: BTreeMap<TenantId, Standing>,
    /// Tenants with a place that can be read.
    ready: BTreeMap<Order, TenantId>,
    next: u64,
}

/// One tenant that waits for something.
#[derive(Debug)]
struct Standing {
    order: Order,
    /// Places of which it wants something.
    places: usize,
    /// Those of them that can be read.
    ready: BTreeSet<(Order, Place)>,
}

impl Turns {
    /// Notes that a tenant wants something of one more place; returns the place's
    /// order among the tenant's. A tenant that wanted nothing begins at the end.
    pub(in crate::registry) fn enter(&mut self, tenant: &TenantId) -> Order {
        let order = self.take_order();
        let new = || Standing { order, places: 0, ready: BTreeSet::new() };
        self.tenants.entry(tenant.clone()).or_insert_with(new).places += 1;
        order
    }

    /// Notes that a tenant wants nothing more of a place.
    pub(in crate::registry) fn leave(&mut self, tenant: &TenantId, order: Order, place: Place) {
        self.close(tenant, order, place);
        let standing = self.tenants.get_mut(tenant).expect("a tenant that wants something");
        standing.places -= 1;
        if standing.places == 0 {
            self.tenants.remove(tenant);
        }
    }

    /// Notes that a place can be read for a tenant.
    pub(in crate::registry) fn open(&mut self, tenant: &TenantId, order: Order, place: Place) {
        let standing = self.tenants.get_mut(tenant).expect("a tenant that wants something");
        if standing.ready.is_empty() {
            self.ready.insert(standing.order, tenant.clone());
        }
        standing.ready.insert((order, place));
    }

    /// Notes that a place can't be read now, whoever wants it.
    pub(in crate::registry) fn close(&mut self, tenant: &TenantId, order: Order, place: Place) {
        let standing = self.tenants.get_mut(tenant).expect("a tenant that wants something");
        if standing.ready.remove(&(order, place)) && standing.ready.is_empty() {
            self.ready.remove(&standing.order);
        }
    }

    /// Returns whose turn it is and with what, if anything can be read.
    pub(in crate::registry) fn next(&self) -> Option<(TenantId, Place)> {
        let tenant = self.ready.values().next()?;
        let (_, place) = self.tenants[tenant].ready.first().expect("it has a place that is ready");
        Some((tenant.clone(), *place))
    }

    /// Notes that a tenant has its turn, with a place that was closed for it; returns
    /// the new order of that place.
    pub(in crate::registry) fn serve(&mut self, tenant: &TenantId) -> Order {
        let order = self.take_order();
        let standing = self.tenants.get_mut(tenant).expect("a tenant that wants something");
        if self.ready.remove(&standing.order).is_some() {
            self.ready.insert(order, tenant.clone());
        }
        standing.order = order;
        order
    }

    /// Says whether nobody waits.
    #[cfg(test)]
    pub(in crate::registry) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.ready.is_empty()
    }

    fn take_order(&mut self) -> Order {
        self.next += 1;
        Order(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(partition: usize) -> Place {
        (SourceId::new(1), PartitionId::from_index(partition))
    }

    #[test]
    fn tenants_take_turns_and_so_do_the_places_of_each() {
        let mut turns = Turns::default();
        let mut orders = BTreeMap::new();
        for (tenant, partition) in [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("c", 4)] {
            let tenant = TenantId::new(tenant);
            let order = turns.enter(&tenant);
            turns.open(&tenant, order, place(partition));
            orders.insert((tenant, place(partition)), order);
        }
        let mut served = Vec::new();
        for _ in 0..9 {
            let (tenant, next) = turns.next().expect("all can be read");
            served.push(next.1.index());
            let order = orders.get_mut(&(tenant.clone(), next)).expect("it entered");
            turns.close(&tenant, *order, next);
            *order = turns.serve(&tenant);
            turns.open(&tenant, *order, next);
        }
        assert_eq!(served, [0, 3, 4, 1, 3, 4, 2, 3, 4]);
        for ((tenant, place), order) in orders {
            turns.leave(&tenant, order, place);
        }
        assert!(turns.is_empty());
    }

    #[test]
    fn who_could_not_be_served_keeps_its_turn() {
        let mut turns = Turns::default();
        let [a, b] = ["a", "b"].map(TenantId::new);
        let [of_a, of_b] = [&a, &b].map(|tenant| turns.enter(tenant));
        let more_of_a = turns.enter(&a);
        turns.open(&a, more_of_a, place(1));
        // Both want the same place, which is read for the first of them.
        turns.close(&a, of_a, place(0));
        let of_a = turns.serve(&a);
        assert_eq!(turns.next(), Some((a.clone(), place(1))), "nobody else can be served");
        turns.close(&a, more_of_a, place(1));
        turns.serve(&a);
        turns.open(&a, of_a, place(0));
        turns.open(&b, of_b, place(0));
        assert_eq!(turns.next(), Some((b, place(0))));
    }
}
