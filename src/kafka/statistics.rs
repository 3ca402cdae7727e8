//! What librdkafka says of itself every few seconds: the state of its connections
//! and how far Kafka's logs go.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::AddAssign;

use serde::Deserialize;

use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::TopicName;

/// What one client said last.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Statistics {
    /// By the broker's number.
    pub(in crate::kafka) brokers: BTreeMap<i32, Broker>,
    /// Up to where each partition is committed.
    pub(in crate::kafka) ends: BTreeMap<(TopicName, PartitionId), Offset>,
}

/// One client's connection to one broker.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::kafka) struct Broker {
    pub(in crate::kafka) state: BrokerState,
    pub(in crate::kafka) traffic: Traffic,
    /// Microseconds that all but one of a hundred answers took at most.
    pub(in crate::kafka) round_trip_micros: u64,
}

/// What was between a client and brokers since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections that were tried.
    pub connects: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Requests that failed or had no answer in time.
    pub errors: u64,
    /// As they came: compressed, with what the protocol adds.
    pub received_bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.connects += other.connects;
        self.disconnects += other.disconnects;
        self.errors += other.errors;
        self.received_bytes += other.received_bytes;
    }
}

/// The state of a connection, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum BrokerState {
    /// Nothing is wanted of the broker.
    #[default]
    Idle,
    Down,
    Connecting,
    Up,
}

impl Statistics {
    /// Reads what a client said; `None` for what can't be read.
    pub(in crate::kafka) fn parse(json: &[u8]) -> Option<Self> {
        let said: Said = serde_json::from_slice(json).ok()?;
        // Names of brokers to begin with have no number of their own.
        let numbered = said.brokers.into_values().filter(|broker| broker.nodeid >= 0);
        let brokers = numbered.map(|said| {
            let traffic = Traffic {
                connects: said.connects,
                disconnects: said.disconnects,
                errors: said.txerrs + said.rxerrs + said.req_timeouts,
                received_bytes: said.rxbytes,
            };
            let (state, round_trip_micros) = (state(&said.state), said.rtt.p99);
            (said.nodeid, Broker { state, traffic, round_trip_micros })
        });
        let mut ends = BTreeMap::new();
        for (topic, said) in said.topics {
            let topic = TopicName::new(topic);
            for partition in said.partitions.into_values() {
                if let (Some(id), Some(end)) = (
                    PartitionId::from_kafka(partition.partition),
                    Offset::from_kafka(partition.ls_offset),
                ) {
                    ends.insert((topic.clone(), id), end);
                }
            }
        }
        Some(Self { brokers: brokers.collect(), ends })
    }
}

fn state(name: &str) -> BrokerState {
    match name {
        "INIT" => BrokerState::Idle,
        "DOWN" => BrokerState::Down,
        "UP" | "UPDATE" => BrokerState::Up,
        _ => BrokerState::Connecting,
    }
}

/// The part of librdkafka's JSON that is wanted.
#[derive(Deserialize)]
struct Said {
    brokers: HashMap<String, SaidOfBroker>,
    topics: HashMap<String, SaidOfTopic>,
}

#[derive(Deserialize)]
struct SaidOfBroker {
    nodeid: i32,
    state: String,
    #[serde(default)]
    connects: u64,
    #[serde(default)]
    disconnects: u64,
    #[serde(default)]
    txerrs: u64,
    #[serde(default)]
    rxerrs: u64,
    #[serde(default)]
    req_timeouts: u64,
    #[serde(default)]
    rxbytes: u64,
    #[serde(default)]
    rtt: RoundTrip,
}

#[derive(Deserialize, Default)]
struct RoundTrip {
    p99: u64,
}

#[derive(Deserialize)]
struct SaidOfTopic {
    partitions: HashMap<String, SaidOfPartition>,
}

#[derive(Deserialize)]
struct SaidOfPartition {
    partition: i32,
    ls_offset: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_read() {
        let said = br#"{"name":"b#consumer-1","type":"consumer","brokers":{
            "a:1/bootstrap":{"nodeid":-1,"state":"UP"},
            "a:1/1":{"nodeid":1,"state":"UP","connects":2,"disconnects":1,"txerrs":1,
                "rxerrs":2,"req_timeouts":3,"rxbytes":9,"rtt":{"p99":700}},
            "a:2/2":{"nodeid":2,"state":"TRY_CONNECT"}},
            "topics":{"t":{"partitions":{"0":{"partition":0,"ls_offset":7},
                "1":{"partition":1,"ls_offset":-1001},"-1":{"partition":-1,"ls_offset":0}}}}}"#;
        let read = Statistics::parse(said).expect("it can be read");
        let up = &read.brokers[&1];
        assert_eq!((up.state, up.round_trip_micros), (BrokerState::Up, 700));
        let traffic = Traffic { connects: 2, disconnects: 1, errors: 6, received_bytes: 9 };
        assert_eq!(up.traffic, traffic);
        assert_eq!(read.brokers[&2].state, BrokerState::Connecting);
        assert_eq!(read.brokers.len(), 2);
        let ends: Vec<_> = read.ends.into_iter().map(|((_, p), end)| (p.as_u32(), end)).collect();
        assert_eq!(ends, [(0, Offset::from_kafka(7).expect("not negative"))]);
    }
}
