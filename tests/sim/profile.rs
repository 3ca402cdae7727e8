//! Which troubles a run has: each seed has some of them, so that every pair meets
//! and each is also met alone.

use crate::client::Ends;

/// What may go wrong in one run.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) steps: usize,
    pub(crate) clients: usize,
    pub(crate) transactions: bool,
    pub(crate) compaction: bool,
    pub(crate) retention: bool,
    pub(crate) truncation: bool,
    pub(crate) growth: bool,
    pub(crate) recreation: bool,
    pub(crate) outages: bool,
    /// Single partitions lose their leaders for a while.
    pub(crate) lost_leaders: bool,
    /// Clients of Kafka hear nothing of a partition any more, and no error. Not where
    /// logs are cut off: whoever resumes above what a deaf reader has read, right
    /// before the log is cut off there, is not told (`docs/guarantees.md`).
    pub(crate) deafness: bool,
    pub(crate) kills: bool,
    pub(crate) cuts: bool,
    pub(crate) slowness: bool,
    /// One client reads nothing until all others have caught up.
    pub(crate) stuck: bool,
    pub(crate) endings: bool,
    /// Channels are taken out of the configuration and come back; limits change.
    pub(crate) reloads: bool,
}

impl Profile {
    /// Returns the profile of a seed.
    pub(crate) fn new(rng: &mut fastrand::Rng) -> Self {
        // One in eight is a calm world: what breaks there is plain to see.
        let odds = match rng.u8(0..8) {
            0 => 0,
            1..=4 => 1,
            _ => 2,
        };
        // Aside, so that a world without these is the one that it was before there
        // were any.
        let mut aside = fastrand::Rng::with_seed(rng.clone().u64(..));
        let reloads = aside.u8(0..4) < odds;
        let lost_leaders = aside.u8(0..4) < odds;
        let deafness = aside.u8(0..4) < odds;
        let mut some = || rng.u8(0..4) < odds;
        let mut profile = Self {
            transactions: some(),
            compaction: some(),
            retention: some(),
            truncation: some(),
            growth: some(),
            recreation: some(),
            outages: some(),
            lost_leaders,
            deafness: false,
            kills: some(),
            cuts: some(),
            slowness: some(),
            stuck: some(),
            endings: some(),
            reloads,
            steps: rng.usize(100..500),
            clients: rng.usize(2..=7),
        };
        profile.deafness = deafness && !profile.truncation;
        profile
    }

    /// Says how clients end their subscriptions.
    pub(crate) fn ends(&self) -> Ends {
        match self.endings {
            false => Ends::None,
            true if self.truncation || self.recreation => Ends::Some,
            true => Ends::Hasty,
        }
    }
}
