//! What one subscription was given, held against what Kafka had.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use brucke::client::ranges::RangeChecker;
use brucke::protocol::frame::Gap;
use brucke::protocol::frame::GapReason;
use brucke::protocol::frame::StartAt;
use brucke::protocol::message::OwnedRecord;
use brucke::protocol::message::Records;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::ids::TenantId;
use brucke::types::ids::TopicId;
use brucke::types::moment::Moment;
use brucke::types::positions::Epochs;
use brucke::types::positions::Place;
use brucke::types::positions::Positions;

use crate::channels::Kind;
use crate::excuses::Excuses;
use crate::kafka::Kafka;
use crate::partition::Content;
use crate::partition::Partition;
use crate::partition::State;
use crate::partition::Version;

/// The books of one subscription, over as many connections as it takes.
#[derive(Debug)]
pub(crate) struct Ledger {
    kind: Kind,
    tenant: TenantId,
    filter: KeyFilter,
    checker: RangeChecker,
    /// What the application has.
    got: BTreeMap<(u32, u64), Rc<Content>>,
    /// Where each partition began; absent means with its first record.
    begun: BTreeMap<u32, u64>,
    /// What the server said is gone, by partition.
    gone: Vec<(u32, u64, u64)>,
    excuses: Excuses,
    /// When the subscription was last asked for.
    asked_at: Option<Instant>,
    /// Since when no server can tell it anything.
    away_since: Option<Instant>,
    /// What it must be told when it begins anew, but by who can't ask a leader.
    doubts: Vec<(u32, u64, u64)>,
}

/// A broken promise, in words.
pub(crate) type Violation = String;

impl Ledger {
    pub(crate) fn new(kind: Kind, tenant: TenantId, filter: KeyFilter, from: &StartAt) -> Self {
        let (checker, begun) = match from {
            StartAt::Place(place) => {
                let begun = place.positions.iter().map(|(p, at)| (p.as_u32(), at.as_u64()));
                (RangeChecker::resume(place.clone()), begun.collect())
            }
            _ => (RangeChecker::new(), BTreeMap::new()),
        };
        Self {
            kind,
            tenant,
            filter,
            checker,
            got: BTreeMap::new(),
            begun,
            gone: Vec::new(),
            excuses: Excuses::default(),
            asked_at: None,
            away_since: None,
            doubts: Vec::new(),
        }
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.checker.place()
    }

    pub(crate) fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    pub(crate) fn got(&self) -> usize {
        self.got.len()
    }

    /// Notes that the subscription is asked for, for the first time or anew:
    /// between the last time and now a log may have been cut off unseen.
    pub(crate) fn ask(&mut self, kafka: &Kafka, now: Instant) {
        let before = self.asked_at.replace(now);
        let Some(place) = self.checker.place() else { return };
        let Some(log) = kafka.logs.get(&place.topic_id) else { return };
        for (index, partition) in log.partitions.iter().enumerate() {
            let position = self.checker.position(PartitionId::from_index(index)).as_u64();
            let known = place.epochs.get(&PartitionId::from_index(index));
            let known = known.map_or(0, |reached| reached.to.as_u64().min(position));
            for cut in &partition.truncations {
                let is_new =
                    before.is_none_or(|before| cut.settled_at.is_none_or(|at| at >= before));
                // What it knows of the log proves that it was cut off meanwhile.
                let is_told = cut.to < known && self.away_since.is_some_and(|at| cut.at >= at);
                match (is_new, is_told) {
                    (false, _) => {}
                    (true, false) => self.excuses.add(index as u32, cut.to, position),
                    (true, true) => self.doubts.push((index as u32, cut.to, position)),
                }
            }
        }
    }

    /// Notes that the subscription has ended, or its connection.
    pub(crate) fn leave(&mut self, now: Instant) {
        self.away_since.get_or_insert(now);
    }

    pub(crate) fn subscribed(
        &mut self,
        kafka: &Kafka,
        from: &StartAt,
        (topic_id, positions, epochs): (TopicId, &Positions, &Epochs),
        now: Moment,
    ) -> Result<(), Violation> {
        let first = self.checker.place().is_none();
        self.away_since = None;
        let asked_at = self.asked_at.expect("it was asked for");
        for (index, from, to) in self.doubts.drain(..) {
            let id = PartitionId::from_index(index as usize);
            if kafka.partition(topic_id, id).is_some_and(|found| !found.is_led_since(asked_at)) {
                self.excuses.add(index, from, to);
            }
        }
        let begun = self.checker.handle_subscribed(topic_id, positions, epochs);
        begun.map_err(|error| error.to_string())?;
        if !first {
            return Ok(());
        }
        let log = kafka.logs.get(&topic_id).ok_or("subscribed to a topic that never was")?;
        for (partition, position) in positions {
            let (index, at) = (partition.as_u32(), position.as_u64());
            self.begun.insert(index, at);
            let Some(found) = log.partitions.get(partition.index()) else {
                // One that an earlier topic of this name had says nothing.
                if at == 0 {
                    continue;
                }
                return Err(format!("subscribed to partition {partition}, which never was"));
            };
            if found.truncations.is_empty() && kafka.is_current(topic_id) {
                check_start(from, found, at, now)
                    .map_err(|what| format!("partition {partition} starts at {at}: {what}"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn records(&mut self, kafka: &Kafka, frame: &Records) -> Result<(), Violation> {
        let topic_id = self.checker.place().ok_or("records before subscribed")?.topic_id;
        let (id, position) = (frame.partition, self.checker.position(frame.partition).as_u64());
        let offsets = frame.records.iter().map(|record| record.offset);
        let repeats = self
            .checker
            .handle_records(id, frame.from, frame.to, frame.epoch, offsets)
            .map_err(|error| error.to_string())?;
        let partition = kafka
            .partition(topic_id, id)
            .ok_or_else(|| format!("records of partition {id}, which never was"))?;
        let mut found = BTreeMap::new();
        for record in &frame.records {
            let version = self.version(partition, record)?;
            found.insert(record.offset.as_u64(), version);
        }
        let new = found.split_off(&position);
        assert_eq!(new.len(), frame.records.len() - repeats, "the ledger and its checker differ");
        self.check_complete(partition, id, position, frame.to.as_u64(), &new)?;
        for (offset, version) in new {
            let content = Rc::clone(&version.content);
            if self.got.insert((id.as_u32(), offset), content).is_some() {
                return Err(format!("partition {id}: offset {offset} reached its reader twice"));
            }
        }
        Ok(())
    }

    pub(crate) fn progress(
        &mut self,
        kafka: &Kafka,
        to: &Positions,
        epochs: &Epochs,
    ) -> Result<(), Violation> {
        let topic_id = self.checker.place().ok_or("progress before subscribed")?.topic_id;
        let before: Vec<_> = to.keys().map(|p| self.checker.position(*p).as_u64()).collect();
        self.checker.handle_progress(to, epochs).map_err(|error| error.to_string())?;
        for ((id, to), position) in to.iter().zip(before) {
            let partition = kafka
                .partition(topic_id, *id)
                .ok_or_else(|| format!("progress of partition {id}, which never was"))?;
            self.check_complete(partition, *id, position, to.as_u64(), &BTreeMap::new())?;
        }
        Ok(())
    }

    pub(crate) fn gap(&mut self, kafka: &Kafka, gap: &Gap) -> Result<(), Violation> {
        let before = self.checker.place().ok_or("a gap before subscribed")?.topic_id;
        let position = self.checker.position(gap.partition).as_u64();
        self.checker.handle_gap(gap).map_err(|error| error.to_string())?;
        let (index, to) = (gap.partition.as_u32(), gap.to.as_u64());
        let after = self.checker.place().expect("there was one before").topic_id;
        if gap.reason == GapReason::TopicRecreated {
            return self.recreated(kafka, before, after);
        }
        let partition = kafka
            .partition(before, gap.partition)
            .ok_or_else(|| format!("a gap of partition {index}, which never was"))?;
        // Of a topic that is no more nothing can be had, whatever the reason.
        let is_current = kafka.is_current(before);
        match gap.reason {
            GapReason::Retention => {
                if is_current && to > partition.start_max {
                    return Err(format!("false gap: {gap:?}, log starts at {}", partition.start));
                }
                self.gone.push((index, position, to));
            }
            GapReason::Truncated => {
                let cut = |to: u64| to..gap.from.as_u64();
                let is_true = partition.truncations.iter().any(|t| cut(t.to).contains(&to));
                if is_current && !is_true {
                    return Err(format!("false gap: {gap:?}, cuts {:?}", partition.truncations));
                }
                self.got.retain(|(p, offset), _| *p != index || *offset < to);
                self.excuses.cut(index, to);
                for (_, _, end) in self.gone.iter_mut().filter(|(p, ..)| *p == index) {
                    *end = (*end).min(to);
                }
                let begun = self.begun.entry(index).or_default();
                *begun = (*begun).min(to);
            }
            GapReason::TopicRecreated | GapReason::Skipped => {
                return Err(format!("a gap for no reason: {gap:?}"));
            }
        }
        Ok(())
    }

    fn recreated(
        &mut self,
        kafka: &Kafka,
        before: TopicId,
        after: TopicId,
    ) -> Result<(), Violation> {
        if before == after {
            return Ok(());
        }
        let (old, new) = (kafka.logs.get(&before), kafka.logs.get(&after));
        let (Some(old), Some(new)) = (old, new) else {
            return Err(format!("topic {before} became {after}, which never was"));
        };
        if old.name != new.name || before > after {
            return Err(format!("topic {before} became {after}: not made again from it"));
        }
        self.got.clear();
        self.begun.clear();
        self.gone.clear();
        self.excuses.clear();
        Ok(())
    }

    /// Says what is missing where nothing more is to come.
    pub(crate) fn check_end(&self, kafka: &Kafka) -> Result<(), Violation> {
        let place = self.checker.place().ok_or("it never began")?;
        if !kafka.is_current(place.topic_id) {
            return Err(format!("it follows topic {}, which is no more", place.topic_id));
        }
        for (index, partition) in kafka.logs[&place.topic_id].partitions.iter().enumerate() {
            let id = PartitionId::from_index(index);
            let position = self.checker.position(id).as_u64();
            if position != partition.stable_end() {
                let end = partition.stable_end();
                return Err(format!("partition {id}: at {position} and the end is {end}"));
            }
            self.check_books(partition, index as u32, position)?;
        }
        Ok(())
    }

    fn check_books(&self, partition: &Partition, id: u32, end: u64) -> Result<(), Violation> {
        let begun = self.begun.get(&id).copied().unwrap_or(0);
        let is_gone = |offset: u64| {
            self.gone.iter().any(|(p, from, to)| *p == id && (*from..*to).contains(&offset))
        };
        for (offset, version) in partition.visible(begun, end) {
            let wanted = self.wants(&version.content);
            let got = self.got.get(&(id, offset));
            let has = got.is_some_and(|got| Rc::ptr_eq(got, &version.content));
            if wanted && !has && !is_gone(offset) && !self.excuses.cover(id, offset) {
                return Err(format!("partition {id}: offset {offset} is lost, got {got:?}"));
            }
        }
        for ((_, offset), content) in self.got.range((id, 0)..(id + 1, 0)) {
            let mut versions = partition.versions[offset].iter();
            let found = versions.find(|v| Rc::ptr_eq(&v.content, content)).expect("it was checked");
            if found.died != u32::MAX && !self.excuses.cover(id, *offset) {
                return Err(format!("partition {id}: nobody said that {offset} was cut off"));
            }
        }
        Ok(())
    }

    /// Returns which record of the model a delivered one is.
    fn version<'k>(
        &self,
        partition: &'k Partition,
        record: &OwnedRecord,
    ) -> Result<&'k Version, Violation> {
        let versions = partition.versions.get(&record.offset.as_u64());
        let versions = versions.ok_or_else(|| format!("no such record: {record:?}"))?;
        let found = versions.iter().find(|version| self.is_same(record, &version.content));
        let found = found.ok_or_else(|| {
            format!("wrong bytes, or another's record: {record:?} instead of {versions:?}")
        })?;
        if found.state != State::Committed {
            return Err(format!("not committed: {record:?} {found:?}"));
        }
        if !self.wants(&found.content) {
            return Err(format!("not what was asked for: {record:?}"));
        }
        Ok(found)
    }

    /// Checks that all that is wanted in `[from, to)` was given: in the log as it
    /// is now, or as it was before it was cut off.
    fn check_complete(
        &self,
        partition: &Partition,
        id: PartitionId,
        from: u64,
        to: u64,
        given: &BTreeMap<u64, &Version>,
    ) -> Result<(), Violation> {
        let missing = |epoch: u32| {
            let versions = partition.versions.range(from..to.max(from));
            let mut versions =
                versions.flat_map(|(at, versions)| versions.iter().map(|v| (*at, v)));
            let lost = versions.find(|(offset, version)| {
                let given = given.get(offset).is_some_and(|given| std::ptr::eq(*given, *version));
                let certain = version.state == State::Committed && !version.compacted;
                certain && version.lived_in(epoch) && !given && self.wants(&version.content)
            });
            let strange = given.iter().find(|(_, version)| !version.lived_in(epoch));
            lost.map(|(at, _)| at).or(strange.map(|(at, _)| *at))
        };
        let mut epochs = (0..=partition.epoch).rev().map(missing);
        let now = epochs.next().expect("there is a present epoch");
        match now {
            Some(offset) if epochs.all(|missing| missing.is_some()) => Err(format!(
                "partition {id}: {from} to {to} was covered, and offset {offset} was not given"
            )),
            _ => Ok(()),
        }
    }

    /// Returns the key under which the subscription sees a record; `None` when
    /// the record is not for its tenant.
    fn key_of<'c>(&self, content: &'c Content) -> Option<Option<&'c Vec<u8>>> {
        let owns = content.owner.as_ref() == Some(&self.tenant);
        match self.kind {
            Kind::PerTenant | Kind::Header | Kind::KeyPrefix | Kind::Value => {
                owns.then_some(content.own_key.as_ref())
            }
            Kind::Shared | Kind::Audit => Some(content.key.as_ref()),
        }
    }

    fn wants(&self, content: &Content) -> bool {
        let Some(key) = self.key_of(content) else { return false };
        match (&self.filter, key) {
            (KeyFilter::All, _) => true,
            (_, None) => false,
            (KeyFilter::Keys(keys), Some(key)) => keys.iter().any(|wanted| wanted == key),
            (KeyFilter::Prefix(prefix), Some(key)) => key.starts_with(prefix),
        }
    }

    fn is_same(&self, record: &OwnedRecord, content: &Content) -> bool {
        let key = self.key_of(content).map(|key| key.map(Vec::as_slice));
        let mut theirs: Vec<_> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut ours: Vec<_> =
            content.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        record.timestamp == Some(content.timestamp)
            && record.value.as_deref() == content.value.as_deref()
            && key == Some(record.key.as_deref())
            && theirs == ours
    }
}

/// Checks a start against what was asked for. Nothing was cut off meanwhile, so
/// starts and ends have only grown since the question was answered.
fn check_start(
    from: &StartAt,
    partition: &Partition,
    at: u64,
    now: Moment,
) -> Result<(), Violation> {
    let stamped = match from {
        StartAt::Earliest if at > partition.start => {
            return Err(format!("above the oldest, {}", partition.start));
        }
        StartAt::Latest if at > partition.stable_end() => {
            return Err(format!("above the end, {}", partition.stable_end()));
        }
        StartAt::Timestamp(stamped) => *stamped,
        StartAt::Ago(span) => now.wall_before(*span),
        StartAt::Earliest | StartAt::Latest | StartAt::Place(_) => return Ok(()),
    };
    let mut below = partition.visible(0, at);
    match below.find(|(_, version)| version.content.timestamp >= stamped) {
        Some((offset, _)) => Err(format!("offset {offset} is not older than was asked for")),
        None => Ok(()),
    }
}

/// Returns a model's offset as the core has it.
pub(crate) fn offset(raw: u64) -> Offset {
    Offset::from_client(raw).expect("a simulated log is short")
}
