//! Why one client did or did not get one record, and what a filter matches in a
//! past range: what the command and the admin interface share.
//!
//! `told` puts a verdict into words, `command` is `brucke explain`.

pub mod command;
pub mod told;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use bytes::Bytes;
use serde_json::Value;
use serde_json::json;

use crate::admin::operator::ExplainBody;
use crate::delivery::explain::Client;
use crate::delivery::explain::Matches;
use crate::delivery::explain::Sought;
use crate::delivery::explain::Verdict;
use crate::delivery::explain::explain;
use crate::delivery::view::Trail;
use crate::kafka::config::KafkaConfig;
use crate::kafka::peek::Finding;
use crate::kafka::peek::Peek;
use crate::tenancy::channel::Channels;
use crate::tenancy::channel::Grant;
use crate::tenancy::principal::Principal;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::Offset;
use crate::types::ids::PartitionId;
use crate::types::ids::Timestamp;

/// What is asked, checked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub channel: ChannelName,
    /// `None`: of a connection, whatever it follows; of a token, every key.
    pub filter: Option<KeyFilter>,
    pub partition: PartitionId,
    pub what: What,
}

/// One record, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Record(Offset),
    /// `to` absent: as far as the log goes.
    Range {
        from: Offset,
        to: Option<Offset>,
    },
}

/// Whose view is asked for.
#[derive(Debug, Clone)]
pub enum Whose {
    /// Of anybody with these claims.
    Bearer(Arc<Principal>),
    /// Of a connection that is there.
    Connection(Arc<Trail>),
}

/// Where the answer comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    pub channels: Arc<Channels>,
    pub kafka: KafkaConfig,
}

impl Asked {
    /// Reads a question.
    ///
    /// # Errors
    ///
    /// A sentence, where it makes no sense.
    pub fn read(body: &ExplainBody) -> Result<Self, String> {
        let filter = match (&body.keys, &body.prefix) {
            (Some(_), Some(_)) => return Err("name keys or a prefix, not both".to_owned()),
            (Some(keys), None) if keys.is_empty() => return Err("keys are empty".to_owned()),
            (Some(keys), None) => Some(KeyFilter::keys(keys.iter().cloned().map(Bytes::from))),
            (None, Some(prefix)) if prefix.is_empty() => return Err("prefix is empty".to_owned()),
            (None, Some(prefix)) => Some(KeyFilter::Prefix(Bytes::from(prefix.clone()))),
            (None, None) => None,
        };
        let offset = |raw| Offset::from_client(raw).ok_or("an offset is beyond Kafka's largest");
        let what = match (body.offset, body.from, body.to) {
            (Some(raw), None, None) => What::Record(offset(raw)?),
            (None, Some(from), to) => {
                What::Range { from: offset(from)?, to: to.map(offset).transpose()? }
            }
            _ => return Err("name an offset, or the begin of a range".to_owned()),
        };
        let partition = PartitionId::from_client(body.partition);
        let partition = partition.ok_or("partition is beyond Kafka's largest")?;
        Ok(Self { channel: ChannelName::new(body.channel.as_str()), filter, partition, what })
    }
}

/// Answers a question. It blocks while Kafka is asked.
///
/// # Errors
///
/// What keeps it from being answered.
pub fn answer(sources: &Sources, whose: &Whose, asked: &Asked) -> anyhow::Result<Value> {
    let (principal, trail) = match whose {
        Whose::Bearer(principal) => (principal, None),
        Whose::Connection(trail) => {
            let principal = trail.principal.as_ref();
            let principal = principal.context("the connection has not said who it is")?;
            (principal, Some(trail.subscription.as_ref()))
        }
    };
    let followed = trail.flatten().map(|subscription| subscription.filter.clone());
    let filter = asked.filter.clone().or(followed).unwrap_or(KeyFilter::All);
    let judged = sources.channels.judge(principal, &asked.channel, &filter);
    let client = match trail {
        None => Client::Any { filter: &filter },
        Some(subscription) => Client::Subscription(subscription),
    };
    let grant = match judged {
        Ok(grant) => grant,
        Err(denied) => {
            let verdict = explain(Err(denied), &client, &Sought::Hole, Offset::ZERO);
            return Ok(told::verdict(&verdict, principal));
        }
    };
    if matches!(client, Client::Subscription(None)) {
        return Ok(told::verdict(&Verdict::NotSubscribed, principal));
    }
    let peek = Peek::new(&sources.kafka, grant.source.clone(), asked.partition)?;
    match asked.what {
        What::Record(offset) => {
            let finding = peek.find(offset)?;
            let verdict = explain(Ok(&grant), &client, &sought(&finding), offset);
            let mut told = told::verdict(&verdict, principal);
            told["topic"] = json!(grant.source.topic.as_str());
            Ok(told)
        }
        What::Range { from, to } => count(&peek, &grant, &filter, from, to),
    }
}

fn sought(finding: &Finding) -> Sought<'_> {
    match finding {
        Finding::Record(batch) => Sought::Record(batch.record(0)),
        Finding::Unclassified => Sought::Unclassified,
        Finding::Hole => Sought::Hole,
        Finding::Gone { oldest } => Sought::Gone { oldest: *oldest },
        Finding::NotWritten { end } => Sought::NotWritten { end: *end },
    }
}

/// Counts what a filter matches in a range.
fn count(
    peek: &Peek,
    grant: &Grant,
    filter: &KeyFilter,
    from: Offset,
    to: Option<Offset>,
) -> anyhow::Result<Value> {
    let (oldest, end) = peek.bounds()?;
    let start = from.max(oldest);
    let to = to.unwrap_or(end).min(end);
    anyhow::ensure!(
        start.distance_to(to) <= RANGE_MAX,
        "the range has more than {RANGE_MAX} offsets: take a part of it"
    );
    let (mut matches, mut without_tenant) = (Matches::default(), 0);
    let reached = match start < to {
        false => start,
        true => peek.read(start, to, |batch, unclassified| {
            without_tenant += unclassified;
            for index in 0..batch.len() {
                matches.count(grant, filter, &batch.record(index));
            }
        })?,
    };
    Ok(json!({
        "topic": grant.source.topic.as_str(),
        "from": start.as_u64(),
        "to": reached.as_u64(),
        "gone": (start > from).then(|| json!({ "from": from.as_u64(), "to": start.as_u64() })),
        "records": matches.records + without_tenant,
        "matched": matches.matched,
        "other_tenants": matches.other_tenants,
        "other_keys": matches.other_keys,
        "without_tenant": without_tenant,
        "sentence": format!(
            "{} of {} records in [{start}, {reached}) match; {} are other tenants', {} have \
             other keys, of {without_tenant} the tenant can't be told",
            matches.matched, matches.records + without_tenant, matches.other_tenants,
            matches.other_keys,
        ),
    }))
}

/// Returns the wall time.
pub(in crate::app) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Offsets of one range: counting them takes seconds.
const RANGE_MAX: u64 = 10_000_000;
