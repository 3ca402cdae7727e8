//! What nobody could have told a client.
//!
//! A log that is cut off and grows again past the position of a client that is
//! away can be told from one that was never cut off by its leader epochs only, and
//! these tell of records alone. The simulated Kafka does not let a cut log grow
//! before every replica has noticed, so that whoever stays connected is told. What a
//! client had read of a log that was cut off while it was away is excused here where it
//! knows no epoch of what was cut off, or where there is no leader to ask.

/// Ranges of offsets that a client may hold wrongly, by partition.
#[derive(Debug, Default)]
pub(crate) struct Excuses(Vec<(u32, u64, u64)>);

impl Excuses {
    pub(crate) fn add(&mut self, partition: u32, from: u64, to: u64) {
        if from < to {
            self.0.push((partition, from, to));
        }
    }

    pub(crate) fn cover(&self, partition: u32, offset: u64) -> bool {
        self.0.iter().any(|(p, from, to)| *p == partition && (*from..*to).contains(&offset))
    }

    /// Forgets what was said of offsets from `to` on: the client has been told.
    pub(crate) fn cut(&mut self, partition: u32, to: u64) {
        for (_, _, end) in self.0.iter_mut().filter(|(p, ..)| *p == partition) {
            *end = (*end).min(to);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
