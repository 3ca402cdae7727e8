//! Why one client did or did not get one record: by the rules that delivery
//! itself asks, from what Kafka has and where the client's subscription stands.

use crate::delivery::index::Mismatch;
use crate::delivery::index::mismatch;
use crate::delivery::recent::What;
use crate::delivery::view::PartitionView;
use crate::delivery::view::SubscriptionTrail;
use crate::protocol::frame::GapReason;
use crate::tenancy::channel::DeniedBy;
use crate::tenancy::channel::Grant;
use crate::types::filter::KeyFilter;
use crate::types::ids::Offset;
use crate::types::ids::Timestamp;
use crate::types::record::Record;

/// What Kafka has at an offset.
#[derive(Debug)]
pub enum Sought<'a> {
    /// A record that its tenant may see.
    Record(Record<'a>),
    /// A record whose tenant can't be told.
    Unclassified,
    /// No record: a marker of a transaction, one that was aborted, or one that
    /// compaction took.
    Hole,
    /// The log begins later.
    Gone { oldest: Offset },
    /// The log ends before, for readers of committed records.
    NotWritten { end: Offset },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The client may not read the channel, or not these keys.
    Denied(DeniedBy),
    /// The client does not follow the channel with these keys.
    NotSubscribed,
    /// It went out to the client, or waits to be written: in this frame, if that is
    /// remembered.
    Delivered { frame: Option<Frame>, unsent_bytes: usize },
    /// A client with this token and filter would get it.
    Matches,
    /// The feed does not want it.
    NotMatched(Mismatch),
    /// Nobody gets it: its tenant can't be told.
    Unclassified,
    /// The subscription began later.
    BeforeStart { start: Offset },
    /// It matches, and the subscription has not come to it.
    NotYetRead { place: Option<PartitionView>, because: Because },
    /// The client was told that it is gone.
    InGap { from: Offset, to: Offset, reason: GapReason },
    /// Kafka no longer has it; whether it was delivered is told by the frame that
    /// covered it, if that is remembered.
    Gone { oldest: Offset, frame: Option<Frame> },
    /// There is no record at this offset.
    NoRecord,
    /// Kafka has not got so far.
    NotWritten { end: Offset },
}

/// A frame that covered the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub at: Timestamp,
    pub from: Offset,
    pub to: Offset,
}

/// What keeps a subscription from reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// Its start is being found.
    Starting,
    /// Kafka is being asked for what memory does not have.
    WaitsForHistory,
    /// The client does not read what waits for it.
    UnsentBytes,
    /// As many records as it asked for are unacknowledged.
    WindowFull,
    /// Nothing: it will come to it.
    Reading,
}

/// Who asks.
#[derive(Debug)]
pub enum Client<'a> {
    /// Anybody with this leave and filter.
    Any { filter: &'a KeyFilter },
    /// This subscription; `None` where there is none.
    Subscription(Option<&'a SubscriptionTrail>),
}

/// Says what became of a record for a client.
pub fn explain(
    grant: Result<&Grant, DeniedBy>,
    client: &Client<'_>,
    sought: &Sought<'_>,
    offset: Offset,
) -> Verdict {
    let grant = match grant {
        Ok(grant) => grant,
        Err(denied) => return Verdict::Denied(denied),
    };
    let (filter, trail) = match client {
        Client::Any { filter } => (*filter, None),
        Client::Subscription(Some(trail)) => (&trail.filter, Some(*trail)),
        Client::Subscription(None) => return Verdict::NotSubscribed,
    };
    let note = trail.and_then(|trail| trail.note);
    if let Some(note) = note
        && let What::Gap(reason) = note.what
    {
        return Verdict::InGap { from: note.from, to: note.to, reason };
    }
    let frame = note.map(|note| Frame { at: note.at, from: note.from, to: note.to });
    let record = match sought {
        Sought::Record(record) => record,
        Sought::Unclassified => return Verdict::Unclassified,
        Sought::Hole => return Verdict::NoRecord,
        Sought::Gone { oldest } => return Verdict::Gone { oldest: *oldest, frame },
        Sought::NotWritten { end } => return Verdict::NotWritten { end: *end },
    };
    if let Some(why) = mismatch(grant.tenant.as_ref(), filter, record) {
        return Verdict::NotMatched(why);
    }
    match trail {
        None => Verdict::Matches,
        Some(trail) => follow(trail, frame, offset),
    }
}

/// Says where a subscription stands to a record that it wants.
fn follow(trail: &SubscriptionTrail, frame: Option<Frame>, offset: Offset) -> Verdict {
    if let Some(start) = trail.start.filter(|start| *start > offset) {
        return Verdict::BeforeStart { start };
    }
    match trail.place {
        Some(place) if place.told > offset => {
            Verdict::Delivered { frame, unsent_bytes: trail.unsent_bytes }
        }
        place => Verdict::NotYetRead { place, because: because(trail) },
    }
}

fn because(trail: &SubscriptionTrail) -> Because {
    match trail.place {
        None => Because::Starting,
        Some(place) if place.waits_for_history => Because::WaitsForHistory,
        Some(_) if trail.window_is_full => Because::WindowFull,
        Some(_) if trail.unsent_bytes > 0 => Because::UnsentBytes,
        Some(_) => Because::Reading,
    }
}

/// What a filter matches in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Matches {
    /// Records in the range that anybody may see.
    pub records: u64,
    pub matched: u64,
    /// Records of other tenants.
    pub other_tenants: u64,
    /// Records of the tenant with other keys.
    pub other_keys: u64,
}

impl Matches {
    /// Counts one record.
    pub fn count(&mut self, grant: &Grant, filter: &KeyFilter, record: &Record<'_>) {
        self.records += 1;
        match mismatch(grant.tenant.as_ref(), filter, record) {
            None => self.matched += 1,
            Some(Mismatch::Tenant) => self.other_tenants += 1,
            Some(Mismatch::Key) => self.other_keys += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::delivery::recent::Note;
    use crate::delivery::recent::Whose;
    use crate::tenancy::channel::SourceKey;
    use crate::tenancy::rule::TenancyRule;
    use crate::types::ids::PartitionId;
    use crate::types::ids::SubId;
    use crate::types::ids::TenantId;
    use crate::types::ids::TopicName;
    use crate::types::record::Headers;
    use crate::types::record::Owner;
    use crate::types::record::Value;

    fn offset(raw: i64) -> Offset {
        Offset::from_kafka(raw).expect("not negative")
    }

    fn record<'a>(tenant: &'a str, key: &'a str) -> Sought<'a> {
        Sought::Record(Record {
            offset: offset(10),
            timestamp: Timestamp::from_millis(0),
            owner: Owner::Tenant(tenant),
            key: Some(key.as_bytes()),
            value: Value::Null,
            headers: Headers::default(),
        })
    }

    fn trail(told: i64) -> SubscriptionTrail {
        SubscriptionTrail {
            filter: KeyFilter::keys([Bytes::from("k")]),
            state: "live",
            place: Some(PartitionView {
                partition: PartitionId::from_index(0),
                told: offset(told),
                cursor: offset(told),
                served: offset(20),
                waits_for_history: false,
            }),
            start: Some(offset(5)),
            note: None,
            unsent_bytes: 0,
            window_is_full: false,
        }
    }

    fn note(from: i64, to: i64, what: What) -> Option<Note> {
        let (from, to, at) = (offset(from), offset(to), Timestamp::from_millis(7));
        let (whose, partition) = (Whose::Feed(SubId::new(1)), PartitionId::from_index(0));
        Some(Note { whose, partition, from, to, at, what })
    }

    fn check(trail: &SubscriptionTrail, sought: &Sought<'_>, verdict: &Verdict) {
        let rule = TenancyRule::Header("h".into());
        let grant = Grant {
            source: SourceKey { topic: TopicName::new("t"), rule },
            tenant: Some(TenantId::new("acme")),
        };
        let client = Client::Subscription(Some(trail));
        assert_eq!(explain(Ok(&grant), &client, sought, offset(10)), *verdict);
    }

    #[test]
    fn what_was_delivered_is_told_with_its_frame() {
        let frame = Frame { at: Timestamp::from_millis(7), from: offset(8), to: offset(12) };
        let delivered = |frame| Verdict::Delivered { frame, unsent_bytes: 0 };
        let known = SubscriptionTrail { note: note(8, 12, What::Records), ..trail(12) };
        check(&known, &record("acme", "k"), &delivered(Some(frame)));
        check(&trail(12), &record("acme", "k"), &delivered(None));
        let gone = Sought::Gone { oldest: offset(15) };
        check(&known, &gone, &Verdict::Gone { oldest: offset(15), frame: Some(frame) });
    }

    #[test]
    fn the_predicate_that_said_no_is_named() {
        let other_tenant = Verdict::NotMatched(Mismatch::Tenant);
        check(&trail(12), &record("blub", "k"), &other_tenant);
        check(&trail(12), &record("acme", "x"), &Verdict::NotMatched(Mismatch::Key));
        check(&trail(12), &Sought::Unclassified, &Verdict::Unclassified);
        check(&trail(12), &Sought::Hole, &Verdict::NoRecord);
    }

    #[test]
    fn what_is_not_read_yet_is_told_with_what_keeps_it() {
        let not_yet = |trail: &SubscriptionTrail, because| Verdict::NotYetRead {
            place: trail.place,
            because,
        };
        let reading = trail(10);
        check(&reading, &record("acme", "k"), &not_yet(&reading, Because::Reading));
        let full = SubscriptionTrail { window_is_full: true, ..trail(10) };
        check(&full, &record("acme", "k"), &not_yet(&full, Because::WindowFull));
        let slow = SubscriptionTrail { unsent_bytes: 1, ..trail(10) };
        check(&slow, &record("acme", "k"), &not_yet(&slow, Because::UnsentBytes));
        let late = SubscriptionTrail { start: Some(offset(11)), ..trail(12) };
        check(&late, &record("acme", "k"), &Verdict::BeforeStart { start: offset(11) });
    }

    #[test]
    fn a_gap_is_told_whatever_kafka_has_now() {
        let what = What::Gap(GapReason::Retention);
        let gone = SubscriptionTrail { note: note(8, 12, what), ..trail(12) };
        let (from, to, reason) = (offset(8), offset(12), GapReason::Retention);
        let in_gap = Verdict::InGap { from, to, reason };
        check(&gone, &Sought::Gone { oldest: offset(12) }, &in_gap);
        check(&gone, &record("acme", "k"), &in_gap);
    }
}
