//! The domain of the demo: three shops with orders and couriers, and a market
//! whose prices all of them see. Pure: the same seed makes the same records.

pub mod couriers;
pub mod market;
pub mod orders;

use std::time::Duration;

use fastrand::Rng;

use crate::app::demo::world::couriers::Fleet;
use crate::app::demo::world::market::Market;
use crate::app::demo::world::orders::OrderBook;
use crate::kafka::embedded::NewTopic;
use crate::types::ids::TopicName;

/// How much of the world's time one [`World::step`] is.
pub const STEP: Duration = Duration::from_millis(100);

/// A tenant of the demo.
#[derive(Debug)]
pub struct Shop {
    /// The tenant's name, in tokens and topics.
    pub name: &'static str,
    pub country: &'static str,
    pub city: &'static str,
    pub latitude: f64,
    pub longitude: f64,
}

/// The tenants.
pub const SHOPS: [Shop; 3] = [
    Shop { name: "acme", country: "at", city: "Wien", latitude: 48.2083, longitude: 16.3731 },
    Shop { name: "globex", country: "de", city: "Berlin", latitude: 52.5170, longitude: 13.3889 },
    Shop { name: "initech", country: "ch", city: "Zürich", latitude: 47.3744, longitude: 8.5410 },
];

/// A record that somebody in this world would write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub topic: TopicName,
    pub key: String,
    /// JSON; `None` is a tombstone.
    pub value: Option<String>,
    /// Goes into the header `tenant-id`, where the topic is of several tenants.
    pub tenant: Option<&'static str>,
}

/// Everything that goes on.
#[derive(Debug)]
pub struct World {
    random: Rng,
    shops: Vec<(OrderBook, Fleet)>,
    market: Market,
}

impl World {
    /// Returns the world that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let shops = SHOPS.iter().map(|shop| (OrderBook::new(shop), Fleet::new(shop)));
        Self { random: Rng::with_seed(seed), shops: shops.collect(), market: Market::new() }
    }

    /// Lets time go on by one [`STEP`] and returns what was written meanwhile.
    pub fn step(&mut self) -> Vec<Draft> {
        let Self { random, shops, market } = self;
        let mut drafts = Vec::new();
        for (orders, fleet) in shops {
            drafts.extend(orders.step(random));
            drafts.extend(fleet.step(random));
        }
        drafts.extend(market.step(random));
        drafts
    }
}

/// Returns the topics that the world writes to.
pub fn topics() -> Vec<NewTopic> {
    let orders = SHOPS.iter().map(orders::topic).map(|name| (name, 4));
    let others = [(couriers::topic(), 6), (market::topic(), 3)];
    let topics = orders.chain(others);
    topics.map(|(name, partitions)| NewTopic { name, partitions }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn run(seed: u64, steps: usize) -> Vec<Draft> {
        let mut world = World::new(seed);
        (0..steps).flat_map(|_| world.step()).collect()
    }

    #[test]
    fn a_seed_makes_one_world() {
        assert_eq!(run(7, 100), run(7, 100));
        assert_ne!(run(7, 100), run(8, 100));
    }

    #[test]
    fn every_record_is_json_in_a_topic_of_the_world() {
        let topics: BTreeSet<_> = topics().into_iter().map(|topic| topic.name).collect();
        let drafts = run(1, 2_000);
        for draft in &drafts {
            assert!(topics.contains(&draft.topic), "{draft:?}");
            let Some(value) = &draft.value else { continue };
            let read: Result<serde_json::Value, _> = serde_json::from_str(value);
            assert!(read.is_ok_and(|value| value.is_object()), "{draft:?}");
        }
        let written: BTreeSet<_> = drafts.into_iter().map(|draft| draft.topic).collect();
        assert_eq!(written, topics, "every topic has records");
    }

    #[test]
    fn the_world_is_lively_and_fits_the_mock_cluster() {
        // It keeps 5 MiB of each partition: half an hour of the busiest topic.
        let steps = 600;
        let drafts = run(2, steps);
        let a_second = drafts.len() * 10 / steps;
        assert!((20..80).contains(&a_second), "{a_second} records a second");
    }
}
