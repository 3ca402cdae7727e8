//! The thread that follows partitions live.
//!
//! One client reads all topics; each partition has a queue of its own, so that
//! a topic with a backlog never stands before a quiet one. A queue that gets
//! something rings a bell in the inbox, where the thread sleeps; those that rang
//! take turns of bounded work.
//!
//! A client can read a partition only once. Where several sources read the same
//! topic under different rules, each reads it through a client of its own, a
//! *lane*.

use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::Sender;
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use tracing::warn;

use crate::kafka::answer::Answer;
use crate::kafka::classify::Rules;
use crate::kafka::client;
use crate::kafka::client::Client;
use crate::kafka::client::KnownTopics;
use crate::kafka::error::KafkaError;
use crate::kafka::follower::Follower;
use crate::kafka::follower::Turn;
use crate::kafka::inbox::AssignmentId;
use crate::kafka::inbox::Inbox;
use crate::kafka::inbox::Woken;
use crate::kafka::native::offsets;
use crate::kafka::native::queue::PartitionQueue;
use crate::kafka::status::KafkaStatus;
use crate::kafka::status::Role;
use crate::log::partition::Cursor;
use crate::log::partition::SharedPartition;
use crate::registry::directory::Directory;
use crate::registry::message::ReadError;
use crate::registry::message::Through;
use crate::types::ids::PartitionId;
use crate::types::ids::SourceId;
use crate::types::ids::TopicId;
use crate::types::ids::TopicName;
use crate::types::latency::Latencies;
use crate::types::trace::Sampler;

/// What the live reader is told to do.
#[derive(Debug)]
pub(in crate::kafka) enum Order {
    Assign(Assignment),
    Unassign { source: SourceId, topic: TopicName, partition: PartitionId },
}

/// A partition to be followed.
#[derive(Debug)]
pub(in crate::kafka) struct Assignment {
    pub(in crate::kafka) id: AssignmentId,
    pub(in crate::kafka) source: SourceId,
    pub(in crate::kafka) topic: TopicName,
    pub(in crate::kafka) partition: Arc<SharedPartition>,
    /// Where it begins; looked up anew when it does.
    pub(in crate::kafka) at: Cursor,
    pub(in crate::kafka) through: Through,
}

/// The live reader, which belongs to its thread.
pub(in crate::kafka) struct Reader {
    config: ClientConfig,
    inbox: Arc<Inbox>,
    directory: Arc<Directory>,
    status: Arc<KafkaStatus>,
    answers: Sender<Answer>,
    sampler: Sampler,
    lanes: Vec<Lane>,
    followers: HashMap<AssignmentId, Follower>,
    by_place: HashMap<Place, AssignmentId>,
    /// Assignments that nothing has come of yet, oldest first.
    unheard: VecDeque<(Instant, AssignmentId)>,
    /// From the timestamps of records to their arrival, since last told.
    received: Latencies,
}

type Place = (SourceId, PartitionId);

/// A client, and which source reads each topic through it.
struct Lane {
    client: Client,
    topics: HashMap<TopicName, (SourceId, usize)>,
    known: KnownTopics,
    /// Topics that it is better not to read through it: it has been deaf to a
    /// partition of theirs.
    deaf_to: HashSet<TopicName>,
}

impl Reader {
    /// Returns a reader that follows nothing yet.
    ///
    /// # Errors
    ///
    /// When librdkafka refuses the properties.
    pub(in crate::kafka) fn new(
        config: ClientConfig,
        inbox: Arc<Inbox>,
        directory: Arc<Directory>,
        status: Arc<KafkaStatus>,
        answers: Sender<Answer>,
        sampler: Sampler,
    ) -> Result<Self, KafkaError> {
        let lanes = vec![Lane::new(&config, &status)?];
        Ok(Self {
            config,
            inbox,
            directory,
            status,
            answers,
            sampler,
            lanes,
            followers: HashMap::new(),
            by_place: HashMap::new(),
            unheard: VecDeque::new(),
            received: Latencies::default(),
        })
    }

    /// Follows what it is told to until the inbox says stop.
    pub(in crate::kafka) fn run(mut self) {
        let mut turns: VecDeque<AssignmentId> = VecDeque::new();
        let mut serve_at = Instant::now();
        loop {
            let deadline = if turns.is_empty() { serve_at } else { Instant::now() };
            match self.inbox.wait(deadline) {
                Woken::Stop => return,
                Woken::Work { orders, ready } => {
                    self.obey(orders);
                    turns.extend(ready);
                }
            }
            for _ in 0..turns.len() {
                let Some(id) = turns.pop_front() else { break };
                if self.take_turn(id) == Turn::MoreToCome {
                    turns.push_back(id);
                }
            }
            let now = Instant::now();
            if now >= serve_at {
                self.lanes.iter().for_each(|lane| client::serve(&lane.client));
                self.give_up_on_silent(now);
                self.status.add_received(&std::mem::take(&mut self.received));
                serve_at = now + SERVE_INTERVAL;
            }
        }
    }

    /// Gives one partition its turn; one that is no longer followed has none.
    fn take_turn(&mut self, id: AssignmentId) -> Turn {
        let Some(follower) = self.followers.get_mut(&id) else { return Turn::Drained };
        let turn = follower.take_turn(&self.directory, &mut self.received);
        match &turn {
            Turn::Drained | Turn::MoreToCome => {}
            // Whoever began the partition anew assigns it anew.
            Turn::Stale => self.stop([id]),
            Turn::Stopped(error) => self.give_up(id, error.clone()),
        }
        turn
    }

    fn obey(&mut self, orders: Vec<Order>) {
        // Only the last word on a partition counts, and what it was before ends.
        let mut wanted: HashMap<Place, Option<Assignment>> = HashMap::new();
        for order in orders {
            match order {
                Order::Assign(new) => {
                    wanted.insert((new.source, new.partition.id()), Some(new));
                }
                Order::Unassign { source, topic, partition } => {
                    self.status.forget_stopped(&topic);
                    wanted.insert((source, partition), None);
                }
            }
        }
        for new in wanted.values().flatten().filter(|new| new.through == Through::Another) {
            self.turn_away(new);
        }
        let ended: Vec<_> =
            wanted.keys().filter_map(|place| self.by_place.get(place)).copied().collect();
        self.stop(ended);
        self.start(wanted.into_values().flatten().collect());
    }

    /// Remembers not to read a topic through the client by which a partition of it is
    /// read now.
    fn turn_away(&mut self, new: &Assignment) {
        let place = (new.source, new.partition.id());
        let known = self.by_place.get(&place).and_then(|id| self.followers.get(id));
        let Some(follower) = known else { return };
        self.status.count_stall();
        let (topic, partition) = (&new.topic, new.partition.id());
        warn!(%topic, %partition, "kafka has records that do not come: read by another client");
        self.lanes[follower.lane()].deaf_to.insert(topic.clone());
    }

    /// Stops following: nothing of these assignments is appended any more.
    fn stop(&mut self, ids: impl IntoIterator<Item = AssignmentId>) {
        let mut lists: HashMap<usize, TopicPartitionList> = HashMap::new();
        let mut stopped = Vec::new();
        for id in ids {
            let Some(follower) = self.followers.remove(&id) else { continue };
            let Assignment { source, topic, partition, .. } = follower.assignment();
            self.by_place.remove(&(*source, partition.id()));
            let list = lists.entry(follower.lane()).or_default();
            list.add_partition(topic.as_str(), partition.id().as_kafka());
            self.lanes[follower.lane()].release(topic);
            stopped.push(follower);
        }
        for (lane, list) in lists {
            if let Err(error) = self.lanes[lane].client.incremental_unassign(&list) {
                warn!(%error, "kafka partitions can't be unassigned");
            }
        }
        stopped.into_iter().for_each(Follower::discard_rest);
    }

    fn start(&mut self, assignments: Vec<Assignment>) {
        let mut lists: HashMap<usize, (TopicPartitionList, Vec<AssignmentId>)> = HashMap::new();
        let now = Instant::now();
        for mut assignment in assignments {
            // An earlier assignment may have appended since this one was asked
            // for. It has been stopped, and nobody else does.
            assignment.at = assignment.partition.end();
            let (id, offset) = (assignment.id, assignment.at.offset);
            let lane = match self.lane(&assignment) {
                Ok(lane) => lane,
                Err(error) => {
                    self.report(&assignment, ReadError::Failed(error.to_string()));
                    continue;
                }
            };
            let client = &self.lanes[lane].client;
            let partition = assignment.partition.id();
            let Some(queue) = PartitionQueue::split(client, &assignment.topic, partition) else {
                self.lanes[lane].release(&assignment.topic);
                self.report(&assignment, ReadError::Failed("not a topic's name".to_owned()));
                continue;
            };
            let (list, ids) = lists.entry(lane).or_default();
            list.add_partition_offset(
                assignment.topic.as_str(),
                partition.as_kafka(),
                rdkafka::Offset::Offset(offset.as_kafka()),
            )
            .expect("an offset is not negative");
            // A client that hears of the leader for the first time finds out by this
            // whether what was read so far has been cut off meanwhile.
            let reached = assignment.partition.reached(assignment.at);
            if let Some(reached) = reached.filter(|reached| reached.to == offset) {
                offsets::set_last_epoch(list, reached.epoch);
            }
            ids.push(id);
            let rules = Rules {
                tenancy: self.directory.key(assignment.source).rule,
                sampler: self.sampler.clone(),
                topic: assignment.topic.clone(),
                partition,
            };
            self.by_place.insert((assignment.source, partition), id);
            self.unheard.push_back((now, id));
            let follower =
                Follower::new(assignment, lane, client, queue, rules, &self.inbox, &self.status);
            self.followers.insert(id, follower);
        }
        for (lane, (list, ids)) in lists {
            if let Err(error) = self.lanes[lane].client.incremental_assign(&list) {
                for id in ids {
                    self.give_up(id, ReadError::Failed(error.to_string()));
                }
            }
        }
    }

    /// Returns the lane by which a source reads a topic, with one partition more
    /// counted on it.
    fn lane(&mut self, assignment: &Assignment) -> Result<usize, KafkaError> {
        let Assignment { source, topic, partition, .. } = assignment;
        let (source, id) = (*source, partition.topic_id());
        let is_free = |lane: &Lane| lane.is_free(source, topic, id);
        let is_deaf = |lane: &Lane| lane.deaf_to.contains(topic);
        let free = self.lanes.iter().position(|lane| is_free(lane) && !is_deaf(lane));
        let deaf = self.lanes.iter().position(|lane| is_free(lane) && is_deaf(lane));
        let idle = self.lanes.iter().position(|lane| lane.topics.is_empty());
        let index = match (free, idle, deaf) {
            (Some(index), ..) => index,
            // Nobody reads through it, but it knows an earlier topic of this name.
            (None, Some(index), _) => {
                self.lanes[index] = Lane::new(&self.config, &self.status)?;
                index
            }
            (None, None, _) if self.lanes.len() < LANES_MAX => {
                self.lanes.push(Lane::new(&self.config, &self.status)?);
                self.lanes.len() - 1
            }
            // A deaf one may hear again: its partitions have other leaders by and by.
            (None, None, Some(index)) => index,
            (None, None, None) => {
                return Err(KafkaError::TooManyRules { topic: topic.clone(), max: LANES_MAX });
            }
        };
        let lane = &mut self.lanes[index];
        lane.known.note(topic, id);
        lane.topics.entry(topic.clone()).or_insert((source, 0)).1 += 1;
        Ok(index)
    }

    fn give_up(&mut self, id: AssignmentId, error: ReadError) {
        let Some(follower) = self.followers.get(&id) else { return };
        self.report(follower.assignment(), error);
        self.stop([id]);
    }

    /// An assignment of which nothing is heard, not even that it is at its end,
    /// is made anew: librdkafka is silent about a partition it can't find.
    fn give_up_on_silent(&mut self, now: Instant) {
        while let Some(&(since, id)) = self.unheard.front() {
            let heard = self.followers.get(&id).is_none_or(Follower::is_heard);
            if !heard && now < since + SILENCE_MAX {
                return;
            }
            self.unheard.pop_front();
            if !heard {
                let text = format!("nothing heard of the partition for {SILENCE_MAX:?}");
                self.give_up(id, ReadError::Failed(text));
            }
        }
    }

    fn report(&self, assignment: &Assignment, error: ReadError) {
        self.status.count_read_stop(&error);
        if let ReadError::Failed(reason) = &error {
            self.status.reading_stopped(&assignment.topic, reason);
        }
        // The control thread ends last; without it nobody waits for an answer.
        let _ = self.answers.send(Answer::ReadStopped {
            assignment: assignment.id,
            source: assignment.source,
            partition: assignment.partition.id(),
            error,
        });
    }
}

impl Lane {
    fn new(config: &ClientConfig, status: &Arc<KafkaStatus>) -> Result<Self, KafkaError> {
        let client = client::connect(config, status, Role::Live)?;
        let (topics, known, deaf_to) = Default::default();
        Ok(Self { client, topics, known, deaf_to })
    }

    fn is_free(&self, source: SourceId, topic: &TopicName, id: TopicId) -> bool {
        let reads = self.topics.get(topic).is_none_or(|(reader, _)| *reader == source);
        reads && self.known.admit(topic, id)
    }

    fn release(&mut self, topic: &TopicName) {
        let Some((_, partitions)) = self.topics.get_mut(topic) else { return };
        *partitions -= 1;
        if *partitions == 0 {
            self.topics.remove(topic);
        }
    }
}

/// Between two times that the clients' own events are served.
const SERVE_INTERVAL: Duration = Duration::from_millis(100);
/// After an assignment, without a word of the partition.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Different rules under which one topic can be read at once: each costs a
/// client with its threads and connections.
const LANES_MAX: usize = 16;
