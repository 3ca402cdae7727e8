//! What each tenant and each channel has, where the configuration tells them
//! apart in metrics.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::registry::labels::Labels;

/// Place of a name in its shard's tallies.
pub(in crate::delivery) type TallySlot = u16;

/// What one name has now, and what it got since it was last asked.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// `None` stands for all names without a label of their own.
    pub label: Option<Arc<str>>,
    /// Records put into outboxes.
    pub deliveries: u64,
    /// Bytes of record frames put into outboxes.
    pub bytes: u64,
    pub connections: usize,
    pub subscriptions: usize,
    pub behind: usize,
}

/// The tallies of a shard, by place: adding to one costs no lookup.
#[derive(Debug)]
pub(in crate::delivery) struct Tallies {
    slots: HashMap<Arc<str>, TallySlot>,
    all: Vec<Tally>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self { slots: HashMap::new(), all: vec![Tally::default()] }
    }
}

impl Tallies {
    /// Returns the place of a name; that of all others where it has no label.
    pub(in crate::delivery) fn slot(&mut self, name: &str, labels: &Labels) -> TallySlot {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let Some(label) = labels.of(name) else { return OTHERS };
        let Ok(slot) = TallySlot::try_from(self.all.len()) else { return OTHERS };
        self.slots.insert(Arc::clone(&label), slot);
        self.all.push(Tally { label: Some(label), ..Tally::default() });
        slot
    }

    pub(in crate::delivery) fn at(&mut self, slot: TallySlot) -> &mut Tally {
        &mut self.all[usize::from(slot)]
    }

    /// Returns all of them, and begins to count anew what was got.
    pub(in crate::delivery) fn take(&mut self) -> Vec<Tally> {
        let take = |tally: &mut Tally| {
            let taken = tally.clone();
            (tally.deliveries, tally.bytes) = (0, 0);
            taken
        };
        self.all.iter_mut().map(take).collect()
    }
}

/// The place of all names without a label.
const OTHERS: TallySlot = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limit_are_counted_together() {
        let (labels, mut tallies) = (Labels::new(1), Tallies::default());
        let slots = ["a", "b", "c", "a"].map(|name| tallies.slot(name, &labels));
        assert_eq!(slots, [1, OTHERS, OTHERS, 1]);
        for slot in slots {
            tallies.at(slot).deliveries += 1;
            tallies.at(slot).connections += 1;
        }
        let counts = |taken: Vec<Tally>| -> Vec<_> {
            taken.into_iter().map(|t| (t.label, t.deliveries, t.connections)).collect()
        };
        let a: Arc<str> = "a".into();
        assert_eq!(counts(tallies.take()), [(None, 2, 2), (Some(a.clone()), 2, 2)]);
        assert_eq!(counts(tallies.take()), [(None, 0, 2), (Some(a), 0, 2)]);
    }
}
