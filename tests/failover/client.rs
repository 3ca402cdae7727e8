//! One client of the run: follows, checks its ranges, keeps what it saw.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use brucke::client::credentials::Credentials;
use brucke::client::follow::Event;
use brucke::client::follow::Follower;
use brucke::client::follow::Wish;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::StartAt;
use brucke::protocol::frame::Token;
use brucke::protocol::message::OwnedRecord;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::ChannelName;
use brucke::types::ids::PartitionId;
use brucke::types::positions::Place;
use bytes::Bytes;

use crate::checker::Filter;
use crate::checker::Seen;
use crate::checker::Wanted;
use crate::checker::checksum;
use crate::scenario::CHANNELS;
use crate::scenario::TENANTS;
use crate::support::brucke::mint;

/// What everybody in the run can see.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// Records that the log has.
    pub produced: u64,
    /// The next offset of each partition of each topic, once nothing is added.
    pub ends: Option<Vec<Vec<u64>>>,
}

/// What a client went through.
#[derive(Debug, Default)]
pub struct History {
    /// What reached the application, in order.
    pub seen: Vec<Seen>,
    /// Records that came again on the wire and were dropped by the client.
    pub repeats: u64,
    /// Connections that it lost.
    pub cuts: u64,
    /// From the loss of each connection to the next subscription.
    pub resumes: Vec<Duration>,
    pub gaps: u64,
    /// Why it ended before it had all: a range that did not join, a refusal, or
    /// positions that never reached the end of the log.
    pub fault: Option<String>,
}

/// Follows what is wanted until all that was produced is accounted for. Gives up
/// `patience` after the end of production, or when so long nothing happens.
pub async fn follow(
    number: usize,
    wanted: &Wanted,
    urls: Vec<String>,
    mut flow: watch::Receiver<Flow>,
    patience: Duration,
) -> History {
    let mut follower = Follower::new(wish(wanted, urls), number as u64);
    let mut history = History::default();
    let mut cut_at = None;
    let mut deadline = None;
    loop {
        let ends = flow.borrow_and_update().ends.clone();
        if let (Some(ends), Some(place)) = (&ends, follower.place())
            && has_reached(place, &ends[wanted.topic])
        {
            break;
        }
        if ends.is_some() && deadline.is_none() {
            deadline = Some(Instant::now() + patience);
        }
        let until = deadline.unwrap_or_else(|| Instant::now() + patience);
        let event = tokio::select! {
            event = tokio::time::timeout_at(until, follower.next()) => event,
            Ok(()) = flow.changed() => continue,
        };
        match event {
            Ok(Ok(event)) => history.note(event, &mut cut_at),
            Ok(Err(error)) => {
                history.fault = Some(error.to_string());
                break;
            }
            Err(_) => {
                history.fault = Some(format!("stuck for {patience:?} at {:?}", follower.place()));
                break;
            }
        }
    }
    follower.close().await;
    history
}

impl History {
    fn note(&mut self, event: Event, cut_at: &mut Option<Instant>) {
        match event {
            Event::Records { partition, records, repeats } => {
                self.repeats += repeats as u64;
                self.seen.extend(records.iter().map(|record| seen(partition, record)));
            }
            Event::Gap(_) => self.gaps += 1,
            Event::Waiting { .. } if cut_at.is_none() => {
                self.cuts += 1;
                *cut_at = Some(Instant::now());
            }
            Event::Subscribed { .. } => {
                self.resumes.extend(cut_at.take().map(|cut_at| cut_at.elapsed()));
            }
            _ => {}
        }
    }
}

fn wish(wanted: &Wanted, urls: Vec<String>) -> Wish {
    Wish {
        urls,
        credentials: Credentials::Fixed(Token::new(mint(TENANTS[wanted.tenant]))),
        channel: ChannelName::new(CHANNELS[wanted.topic].0),
        filter: filter(wanted),
        from: StartAt::Earliest,
        on_gap: OnGap::Continue,
    }
}

/// Returns the filter as the protocol has it.
pub fn filter(wanted: &Wanted) -> KeyFilter {
    match &wanted.filter {
        Filter::All => KeyFilter::All,
        Filter::Keys(keys) => KeyFilter::keys(keys.iter().cloned().map(Bytes::from)),
        Filter::Prefix(prefix) => KeyFilter::Prefix(Bytes::from(prefix.clone())),
    }
}

/// Returns what an application saw of a record.
pub fn seen(partition: PartitionId, record: &OwnedRecord) -> Seen {
    Seen {
        partition: partition.as_u32(),
        offset: record.offset.as_u64(),
        key: String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned(),
        checksum: checksum(record.value.as_deref().unwrap_or_default()),
    }
}

/// Says whether a place is at these ends, or beyond.
pub fn has_reached(place: &Place, ends: &[u64]) -> bool {
    ends.iter().enumerate().all(|(partition, end)| {
        let position = place.positions.get(&PartitionId::from_index(partition));
        position.map_or(0, |position| position.as_u64()) >= *end
    })
}
