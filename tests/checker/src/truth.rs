//! What Kafka had: the sum of what producers and the stage logged.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::findings::Findings;
use crate::findings::Kind;
use crate::line::Cleanup;
use crate::line::Maybe;
use crate::line::Put;
use crate::line::TOMBSTONE;
use crate::line::Tenant;
use crate::line::TransactionEnd;
use crate::line::TruthLine;

/// Everything that is known of the topics of a run.
#[derive(Debug, Default)]
pub struct Truth {
    topics: HashMap<String, Topic>,
    keys: Interned,
    tenants: Vec<Tenant>,
    transactions: HashMap<u64, TransactionEnd>,
    excuses: Vec<Excuse>,
    over: Option<u64>,
    found: Vec<(String, u32, u64, u32)>,
    /// What is wrong with the log itself, whoever reads it.
    pub findings: Findings,
}

/// A topic, told from others of its name by its id.
#[derive(Debug)]
pub struct Topic {
    pub name: String,
    cleanup: Cleanup,
    /// When its line was written, if that says when.
    made: Option<u64>,
    pub partitions: Vec<Partition>,
    /// Records of which nobody knows whether and where they stand, by sum.
    maybe: HashMap<u32, Maybe>,
}

/// One partition.
#[derive(Debug, Default)]
pub struct Partition {
    /// By offset; where the log was cut, one offset may have several.
    entries: Vec<Entry>,
    /// By time.
    pub bounds: Vec<Bounds>,
    pub cuts: Vec<Cut>,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub offset: u64,
    pub sum: u32,
    pub key: Option<u32>,
    tenant: u16,
    pub state: State,
    at: u64,
    tx: Option<u64>,
}

/// Whether a record must reach those who want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It must.
    Standing,
    /// It may: a later record of its key lets Kafka remove it, the log was cut
    /// before it, or nobody knows how its transaction ended.
    Optional,
    /// It must not: its transaction was aborted.
    Aborted,
}

/// The bounds of a partition, as Kafka answered between two moments.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub start: u64,
    pub end: u64,
    pub asked: u64,
    pub at: u64,
}

/// The log ended at `end` then.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub end: u64,
    pub at: u64,
}

#[derive(Debug)]
struct Excuse {
    from: u64,
    to: u64,
    /// Who alone could serve nobody; otherwise nobody could.
    replica: Option<usize>,
}

#[derive(Debug, Default)]
struct Interned {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Truth {
    /// Takes one line; lines may come in any order.
    pub fn handle_line(&mut self, line: TruthLine) {
        match line {
            TruthLine::Topic { topic, name, cleanup, at } => {
                let topic = self.topic_mut(topic);
                (topic.name, topic.cleanup, topic.made) = (name, cleanup, at);
            }
            TruthLine::Put(put) => self.handle_put(put),
            TruthLine::Maybe(maybe) => {
                self.topic_mut(maybe.topic.clone()).maybe.insert(maybe.sum, maybe);
            }
            TruthLine::Found { topic, p, o, sum } => self.found.push((topic, p, o, sum)),
            TruthLine::Ended { tx, how } => {
                self.transactions.insert(tx, how);
            }
            TruthLine::Bounds { topic, p, start, end, asked, at } => {
                let bounds = Bounds { start, end, asked, at };
                self.topic_mut(topic).partition_mut(p).bounds.push(bounds);
            }
            TruthLine::Cut { topic, p, end, at } => {
                self.topic_mut(topic).partition_mut(p).cuts.push(Cut { end, at });
            }
            TruthLine::Excuse { from, to, replica, .. } => {
                self.excuses.push(Excuse { from, to, replica });
            }
            TruthLine::Over { at } => self.over = Some(at),
        }
    }

    /// Settles what each record is, once all lines are in. Must be called before
    /// anything is asked.
    pub fn finish(&mut self) {
        for (topic, p, o, sum) in std::mem::take(&mut self.found) {
            let Some(known) = self.topics.get_mut(&topic) else { continue };
            if let Some(Maybe { topic, key, tenant, sum, at }) = known.maybe.remove(&sum) {
                self.handle_put(Put { topic, p, o, key, tenant, sum, at, tx: None });
                continue;
            }
            let partition = known.partition_mut(p);
            let copied = partition.entries.iter().find(|entry| entry.sum == sum).copied();
            partition.entries.extend(copied.map(|entry| Entry { offset: o, ..entry }));
        }
        for topic in self.topics.values_mut() {
            for (number, partition) in topic.partitions.iter_mut().enumerate() {
                partition.bounds.sort_by_key(|bounds| bounds.at);
                partition.entries.sort_by_key(|entry| (entry.offset, entry.at));
                partition.settle(&self.transactions);
                if topic.cleanup == Cleanup::Compact {
                    partition.excuse_superseded();
                }
                for pair in partition.entries.windows(2) {
                    let standing = pair.iter().all(|entry| entry.state == State::Standing);
                    if pair[0].offset == pair[1].offset && standing {
                        self.findings.accuse(Kind::Inconsistent, || {
                            let offset = pair[0].offset;
                            format!("{} {number} {offset} was given twice", topic.name)
                        });
                    }
                }
            }
        }
        self.excuses.sort_by_key(|excuse| excuse.from);
    }

    /// Returns a topic by its id.
    pub fn topic(&self, id: &str) -> Option<&Topic> {
        self.topics.get(id)
    }

    /// Returns whose a record is.
    pub fn tenant(&self, entry: &Entry) -> &Tenant {
        &self.tenants[usize::from(entry.tenant)]
    }

    /// Returns a record's key as clients see it.
    pub fn key(&self, entry: &Entry) -> Option<&str> {
        entry.key.map(|key| self.keys.texts[key as usize].as_str())
    }

    /// Returns the moment after which nothing was broken or produced.
    pub fn over(&self) -> Option<u64> {
        self.over
    }

    /// Says whether a replica could not serve its clients at some moment of a window.
    pub fn is_excused(&self, from: u64, to: u64, replica: Option<usize>) -> bool {
        self.excuses_of(replica).any(|excuse| excuse.from <= to && from <= excuse.to)
    }

    /// Returns from when on a replica can do what was due at `from`: at once, or after
    /// the excuses that began before `grace` was over.
    pub fn excused_until(&self, from: u64, grace: u64, replica: Option<usize>) -> u64 {
        self.excuses_of(replica).fold(from, |until, excuse| match excuse.from < until + grace {
            true => until.max(excuse.to),
            false => until,
        })
    }

    fn excuses_of(&self, replica: Option<usize>) -> impl Iterator<Item = &Excuse> {
        self.excuses
            .iter()
            .filter(move |excuse| excuse.replica.is_none_or(|it| Some(it) == replica))
    }

    /// Returns the id of a topic that goes by the same name since later.
    pub fn successor(&self, id: &str) -> Option<&str> {
        let own = self.topic(id)?;
        let since = own.known_at()?;
        let later = self.topics.iter().filter(|(_, topic)| {
            topic.name == own.name && topic.known_at().is_some_and(|at| at > since)
        });
        later.map(|(id, _)| id.as_str()).min()
    }

    fn topic_mut(&mut self, id: String) -> &mut Topic {
        self.topics.entry(id).or_insert_with(|| Topic {
            name: String::new(),
            cleanup: Cleanup::Delete,
            made: None,
            partitions: Vec::new(),
            maybe: HashMap::new(),
        })
    }

    fn handle_put(&mut self, put: Put) {
        let key = put.key.map(|key| self.keys.number(key));
        let tenant = match self.tenants.iter().position(|tenant| *tenant == put.tenant) {
            Some(tenant) => tenant,
            None => {
                self.tenants.push(put.tenant);
                self.tenants.len() - 1
            }
        };
        let tenant = u16::try_from(tenant).expect("few tenants");
        let entry = Entry {
            offset: put.o,
            sum: put.sum,
            key,
            tenant,
            state: State::Standing,
            at: put.at,
            tx: put.tx,
        };
        self.topic_mut(put.topic).partition_mut(put.p).entries.push(entry);
    }
}

impl Topic {
    /// Returns when it was known at the latest that the topic is there.
    pub fn known_at(&self) -> Option<u64> {
        let seen = || self.partitions.iter().filter_map(|partition| partition.bounds.first());
        self.made.or_else(|| seen().map(|bounds| bounds.at).min())
    }

    /// Says whether a record with this sum may stand anywhere in the topic.
    pub fn may_have(&self, sum: u32) -> bool {
        self.maybe.contains_key(&sum)
    }

    fn partition_mut(&mut self, p: u32) -> &mut Partition {
        let index = p as usize;
        if self.partitions.len() <= index {
            self.partitions.resize_with(index + 1, Partition::default);
        }
        &mut self.partitions[index]
    }
}

impl Partition {
    /// Returns all records with offsets in `[from, to)`.
    pub fn entries(&self, from: u64, to: u64) -> &[Entry] {
        let begin = self.entries.partition_point(|entry| entry.offset < from);
        let end = self.entries.partition_point(|entry| entry.offset < to);
        &self.entries[begin..end.max(begin)]
    }

    /// Returns the least that its start can have been at a moment.
    pub fn start_before(&self, at: u64) -> u64 {
        let known = self.bounds.iter().take_while(|bounds| bounds.at <= at);
        known.map(|bounds| bounds.start).max().unwrap_or(0)
    }

    /// Returns the most that its start can have been at a moment.
    pub fn start_after(&self, at: u64) -> Option<u64> {
        let next = self.bounds.partition_point(|bounds| bounds.at < at);
        let next = self.bounds[next..].iter().find(|bounds| bounds.asked >= at);
        next.or(self.bounds.last()).map(|bounds| bounds.start)
    }

    /// Returns the least that its end can have been at a moment.
    pub fn end_before(&self, at: u64) -> u64 {
        let known = self.bounds.iter().take_while(|bounds| bounds.at <= at);
        known.last().map_or(0, |bounds| bounds.end)
    }

    /// Returns when it was first known that its start lies above `offset`.
    pub fn passed(&self, offset: u64) -> Option<u64> {
        self.bounds.iter().find(|bounds| bounds.start > offset).map(|bounds| bounds.at)
    }

    /// Returns the bounds at the end of the run.
    pub fn last_bounds(&self) -> Option<Bounds> {
        self.bounds.last().copied()
    }

    fn settle(&mut self, transactions: &HashMap<u64, TransactionEnd>) {
        for entry in &mut self.entries {
            entry.state = match entry.tx.map(|tx| transactions.get(&tx)) {
                Some(Some(TransactionEnd::Aborted)) => State::Aborted,
                Some(None) => State::Optional,
                Some(Some(TransactionEnd::Committed)) | None => State::Standing,
            };
            let cut = self.cuts.iter().any(|cut| entry.at < cut.at && entry.offset >= cut.end);
            if cut {
                entry.state = State::Optional;
            }
        }
    }

    /// Kafka keeps the last record of a key, and a tombstone only for a while.
    fn excuse_superseded(&mut self) {
        let mut seen = HashSet::new();
        for entry in self.entries.iter_mut().rev().filter(|e| e.state == State::Standing) {
            let newest = seen.insert((entry.tenant, entry.key));
            if !newest || entry.sum == TOMBSTONE {
                entry.state = State::Optional;
            }
        }
    }
}

impl Interned {
    fn number(&mut self, text: String) -> u32 {
        if let Some(number) = self.numbers.get(&text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("fewer keys than that");
        self.texts.push(text.clone());
        self.numbers.insert(text, number);
        number
    }
}
