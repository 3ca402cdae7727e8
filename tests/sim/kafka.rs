//! The fake Kafka: topics by name and by id, and a producer that fills them.

use std::collections::BTreeMap;
use std::time::Instant;

use brucke::types::ids::PartitionId;
use brucke::types::ids::TenantId;
use brucke::types::ids::Timestamp;
use brucke::types::ids::TopicId;
use brucke::types::ids::TopicName;

use crate::channels::Kind;
use crate::channels::tenants;
use crate::partition::Content;
use crate::partition::Partition;
use crate::partition::State;

/// The cluster.
#[derive(Debug)]
pub(crate) struct Kafka {
    pub(crate) topics: BTreeMap<TopicName, Topic>,
    /// Every topic that there ever was.
    pub(crate) logs: BTreeMap<TopicId, Log>,
    topics_made: i64,
    transactions: u64,
    /// Stands in each value, so that no two are equal.
    sequence: u64,
}

/// A name and what it stands for now.
#[derive(Debug)]
pub(crate) struct Topic {
    /// By whose rule its records are written.
    pub(crate) kind: Kind,
    /// `None` while it is deleted.
    pub(crate) current: Option<TopicId>,
    /// No leader answers before this moment.
    pub(crate) down_until: Option<Instant>,
}

/// A topic from its making to its deletion.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) name: TopicName,
    pub(crate) partitions: Vec<Partition>,
}

/// Why a broker gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Down,
    Unknown,
}

impl Kafka {
    /// Returns a cluster with a topic for each channel.
    pub(crate) fn new(rng: &mut fastrand::Rng) -> Self {
        let mut kafka = Self {
            topics: BTreeMap::new(),
            logs: BTreeMap::new(),
            topics_made: 0,
            transactions: 0,
            sequence: 0,
        };
        for tenant in tenants() {
            for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Audit) {
                let name = kind.topic(&tenant);
                let topic = Topic { kind, current: None, down_until: None };
                kafka.topics.entry(name).or_insert(topic);
            }
        }
        for name in kafka.topics.keys().cloned().collect::<Vec<_>>() {
            kafka.make(&name, rng.usize(1..=3));
        }
        kafka
    }

    /// Makes a topic, anew or for the first time.
    pub(crate) fn make(&mut self, name: &TopicName, partitions: usize) {
        self.topics_made += 1;
        let id = TopicId::from_kafka(1, self.topics_made);
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        self.logs.insert(id, Log { name: name.clone(), partitions });
        self.topics.get_mut(name).expect("a topic of the configuration").current = Some(id);
    }

    /// Returns what a name stands for, if a leader answers.
    pub(crate) fn find(&self, name: &TopicName, now: Instant) -> Result<(TopicId, &Log), Refusal> {
        let topic = self.topics.get(name).ok_or(Refusal::Unknown)?;
        if topic.down_until.is_some_and(|until| now < until) {
            return Err(Refusal::Down);
        }
        let id = topic.current.ok_or(Refusal::Unknown)?;
        Ok((id, &self.logs[&id]))
    }

    /// Says whether a topic still goes by its name.
    pub(crate) fn is_current(&self, id: TopicId) -> bool {
        self.logs.get(&id).is_some_and(|log| self.topics[&log.name].current == Some(id))
    }

    pub(crate) fn partition(&self, id: TopicId, partition: PartitionId) -> Option<&Partition> {
        self.logs.get(&id)?.partitions.get(partition.index())
    }

    /// Returns the log that a name stands for now.
    pub(crate) fn current_mut(&mut self, name: &TopicName) -> Option<&mut Log> {
        let id = self.topics[name].current?;
        self.logs.get_mut(&id)
    }

    /// Writes something to a topic: records, a transaction's begin, middle or
    /// end.
    pub(crate) fn produce(
        &mut self,
        name: &TopicName,
        wall: Timestamp,
        transactions: bool,
        rng: &mut fastrand::Rng,
    ) {
        let kind = self.topics[name].kind;
        let Some(id) = self.topics[name].current else { return };
        let count = self.logs[&id].partitions.len();
        let index = rng.usize(0..count);
        for _ in 0..rng.usize(1..=4) {
            let content = self.content(name, kind, index, wall, rng);
            let fresh = self.transactions + 1;
            let partition = &mut self.logs.get_mut(&id).expect("just found").partitions[index];
            if partition.is_frozen() || !partition.has_leader() {
                return;
            }
            let open = partition.open_transactions();
            match rng.u8(0..8) {
                0 if transactions && open.len() < 2 => {
                    self.transactions = fresh;
                    partition.append_to(fresh, content);
                }
                1 | 2 if !open.is_empty() => {
                    partition.append_to(open[rng.usize(..open.len())], content);
                }
                3 | 4 if !open.is_empty() => {
                    let outcome = match rng.bool() {
                        true => State::Committed,
                        false => State::Aborted,
                    };
                    partition.end_transaction(open[rng.usize(..open.len())], outcome);
                }
                _ => drop(partition.append(content, State::Committed)),
            }
        }
    }

    /// Ends all transactions, so that everything becomes visible or never will.
    pub(crate) fn end_transactions(&mut self, rng: &mut fastrand::Rng) {
        for partition in self.logs.values_mut().flat_map(|log| &mut log.partitions) {
            for id in partition.open_transactions() {
                let outcome = if rng.bool() { State::Committed } else { State::Aborted };
                partition.end_transaction(id, outcome);
            }
        }
    }

    fn content(
        &mut self,
        name: &TopicName,
        kind: Kind,
        partition: usize,
        wall: Timestamp,
        rng: &mut fastrand::Rng,
    ) -> Content {
        self.sequence += 1;
        let tenants = tenants();
        let tenant = match kind {
            Kind::PerTenant => tenants.iter().find(|tenant| kind.topic(tenant) == *name).cloned(),
            // One in eight names nobody.
            _ => rng.choice(&tenants).filter(|_| rng.u8(0..8) > 0).cloned(),
        };
        let own_key = own_key(rng);
        let mut key = own_key.clone();
        let mut headers = vec![("n".to_owned(), Some(self.sequence.to_string().into_bytes()))];
        let mut owner = tenant.clone();
        match (kind, &tenant) {
            (Kind::Header, Some(tenant)) => {
                headers.push(("tenant-id".to_owned(), Some(tenant.as_str().into())));
            }
            (Kind::KeyPrefix, Some(tenant)) => {
                // Without a key there is no tenant.
                key = own_key
                    .as_ref()
                    .map(|own| [tenant.as_str().as_bytes(), b":", own.as_slice()].concat());
                owner = owner.filter(|_| key.is_some());
            }
            _ => {}
        }
        let value = self.value(name, kind, tenant.as_ref(), partition, rng);
        if kind == Kind::Value && value.as_ref().is_none_or(|value| value[0] != b'{') {
            owner = None;
        }
        Content { owner, timestamp: wall, key, own_key, value, headers }
    }

    /// Returns a value that says where it belongs, with a sum over that: JSON
    /// mostly, sometimes other bytes, sometimes a tombstone.
    fn value(
        &self,
        name: &TopicName,
        kind: Kind,
        tenant: Option<&TenantId>,
        partition: usize,
        rng: &mut fastrand::Rng,
    ) -> Option<Vec<u8>> {
        let tenant = tenant.map_or("", TenantId::as_str);
        let sequence = self.sequence;
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        let padding =
            "x".repeat(if rng.u8(0..16) == 0 { rng.usize(0..2_000) } else { rng.usize(0..60) });
        for byte in format!("{tenant}/{name}/{partition}/{sequence}/{padding}").bytes() {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        match rng.u8(0..10) {
            0 => None,
            1 => Some(format!("\u{e9}{tenant} {partition} {sequence} {sum:x}").into_bytes()),
            2 => Some([&[0xff, 0x00][..], &sum.to_be_bytes(), &sequence.to_be_bytes()].concat()),
            _ => {
                let tenant = match kind {
                    Kind::Value if tenant.is_empty() => "\"other\":1".to_owned(),
                    _ => format!("\"tenant\":\"{tenant}\""),
                };
                Some(
                    format!(
                        "{{{tenant}, \"topic\":\"{name}\",\"partition\":{partition},\
                     \"sequence\":{sequence},\"sum\":\"{sum:x}\",\"padding\":\"{padding}\"}}"
                    )
                    .into_bytes(),
                )
            }
        }
    }
}

/// Returns one of few keys, so that filters meet them; sometimes none.
fn own_key(rng: &mut fastrand::Rng) -> Option<Vec<u8>> {
    match rng.u8(0..12) {
        0 => None,
        1 => Some(Vec::new()),
        2 => Some(vec![0xff, b'k']),
        3..=5 => Some(format!("eu-{}", rng.u8(0..3)).into_bytes()),
        // The quiet key: rarely written, so that its followers live on progress.
        6 if rng.u8(0..10) == 0 => Some(b"quiet".to_vec()),
        _ => Some(format!("k{}", rng.u8(0..4)).into_bytes()),
    }
}
