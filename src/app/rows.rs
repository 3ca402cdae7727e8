//! What stands in the answers of the admin interface, in JSON. No value of a
//! record, and a key only where one connection was asked for by name.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde_json::Value;
use serde_json::json;

use crate::app::scrape::ReaderLag;
use crate::delivery::traces::Watch;
use crate::delivery::view::ConnectionDetail;
use crate::delivery::view::ConnectionView;
use crate::delivery::view::Share;
use crate::delivery::view::SubscriptionView;
use crate::log::budget::Kind;
use crate::log::partition::SharedPartition;
use crate::protocol::frame::Encoding;
use crate::registry::history::Sweep;
use crate::registry::history::SweepState;
use crate::registry::message::SourceFailure;
use crate::server::network::written;
use crate::tenancy::channel::Channel;
use crate::tenancy::channel::ChannelSource;
use crate::tenancy::quota::Quota;
use crate::tenancy::rule::TenancyRule;
use crate::types::filter::KeyFilter;
use crate::types::ids::Offset;
use crate::types::ids::TenantId;
use crate::types::ids::TopicName;

/// Returns one connection.
pub(in crate::app) fn connection(worker: usize, view: &ConnectionView) -> Value {
    let principal = view.principal.as_deref();
    json!({
        "connection": view.id.to_string(),
        "worker": worker,
        "state": view.state,
        "tenant": principal.map(|principal| principal.tenant.as_str()),
        "subject": principal.and_then(|principal| principal.subject.as_deref()),
        "age_seconds": view.age.as_secs(),
        "user_agent": view.user_agent,
        "address": view.address.map(|address| written(address).to_string()),
        "encoding": match view.encoding {
            Encoding::Json => "json",
            Encoding::Protobuf => "protobuf",
        },
        "subscriptions": view.subscriptions,
        "behind": view.behind,
        "behind_offsets": view.behind_offsets,
        "unsent_bytes": view.unsent_bytes,
        "silent_seconds": view.silent.as_secs(),
        "expires_at_ms": principal.and_then(|p| p.expires_at).map(|at| at.as_millis()),
    })
}

/// Returns one connection with its subscriptions and their keys.
pub(in crate::app) fn detail(worker: usize, detail: &ConnectionDetail) -> Value {
    let mut told = connection(worker, &detail.connection);
    let principal = detail.connection.principal.as_deref();
    told["token_id"] = json!(principal.and_then(|principal| principal.token_id.as_deref()));
    let subscriptions: Vec<Value> = detail.subscriptions.iter().map(subscription).collect();
    told["traced"] = json!(detail.watch == Watch::On);
    told["subscriptions_in_all"] = told["subscriptions"].take();
    told["subscriptions"] = json!(subscriptions);
    told
}

fn subscription(view: &SubscriptionView) -> Value {
    let partitions = view.partitions.iter().map(|place| {
        json!({
            "partition": place.partition.as_u32(),
            "position": place.told.as_u64(),
            "cursor": place.cursor.as_u64(),
            "served": place.served.as_u64(),
            "waits_for_history": place.waits_for_history,
        })
    });
    json!({
        "sub": view.sub.raw(),
        "channel": view.channel.as_str(),
        "keys": filter(&view.filter),
        "state": view.state,
        "behind_seconds": view.behind_for.map(|behind| behind.as_secs()),
        "window": view.window.map(|(records, room)| json!({ "records": records, "room": room })),
        "partitions": partitions.collect::<Vec<_>>(),
        "partitions_in_all": view.partitions_in_all,
    })
}

fn filter(filter: &KeyFilter) -> Value {
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    match filter {
        KeyFilter::All => Value::Null,
        KeyFilter::Keys(keys) => json!(keys.iter().map(text).collect::<Vec<_>>()),
        KeyFilter::Prefix(prefix) => json!({ "prefix": text(prefix) }),
    }
}

/// Returns one tenant; `part` is its share of all connections.
pub(in crate::app) fn tenant(tenant: &TenantId, share: &Share, part: f64, quota: Quota) -> Value {
    json!({
        "tenant": tenant.as_str(),
        "connections": share.connections,
        "connections_max": quota.connections_max.map(NonZeroU32::get),
        "share_of_connections": (part * 10_000.0).round() / 10_000.0,
        "subscriptions": share.subscriptions,
        "subscriptions_max": quota.subscriptions_max.map(NonZeroU32::get),
        "behind": share.behind,
        "unsent_bytes": share.unsent_bytes,
    })
}

/// Returns one channel.
pub(in crate::app) fn channel(
    channel: &Channel,
    share: Share,
    failures: &BTreeMap<TopicName, SourceFailure>,
    stopped: &BTreeMap<TopicName, String>,
) -> Value {
    let (topic, rule) = match &channel.source {
        ChannelSource::TopicPerTenant(_) => (None, "topic"),
        ChannelSource::Topic(source) => (Some(&source.topic), rule_name(&source.rule)),
    };
    let failure = topic.and_then(|topic| {
        let failed = failures.get(topic).map(ToString::to_string);
        failed.or_else(|| stopped.get(topic).cloned())
    });
    json!({
        "channel": channel.name.as_str(),
        "topic": topic.map(TopicName::as_str),
        "tenant_by": rule,
        "subscriptions": share.subscriptions,
        "behind": share.behind,
        "failure": failure,
    })
}

fn rule_name(rule: &TenancyRule) -> &'static str {
    match rule {
        TenancyRule::Topic(_) => "topic",
        TenancyRule::Header(_) => "header",
        TenancyRule::KeyPrefix(_) => "key_prefix",
        TenancyRule::Value(_) => "value",
        TenancyRule::Shared => "shared",
    }
}

/// Returns one partition.
pub(in crate::app) fn partition(
    topic: &TopicName,
    partition: &SharedPartition,
    end: Option<Offset>,
    lag: ReaderLag,
) -> Value {
    let (tail_from, tail_to) = partition.tail();
    json!({
        "topic": topic.as_str(),
        "partition": partition.id().as_u32(),
        "topic_id": partition.topic_id().to_string(),
        "located": partition.is_located(partition.end().generation),
        "oldest": partition.start().as_u64(),
        "tail": { "from": tail_from.as_u64(), "to": tail_to.as_u64() },
        "tail_bytes": partition.bytes(Kind::Tail),
        "history_bytes": partition.bytes(Kind::History),
        "reader_position": tail_to.as_u64(),
        "end": end.map(Offset::as_u64),
        "lag_offsets": lag.offsets,
        "lag_seconds": lag.age.as_secs_f64(),
    })
}

/// Returns what is wanted of one partition's history.
pub(in crate::app) fn sweep(topic: &TopicName, sweep: &Sweep) -> Value {
    json!({
        "topic": topic.as_str(),
        "partition": sweep.partition.as_u32(),
        "tenants_waiting": sweep.tenants,
        "offsets_waiting": sweep.cursors,
        "lowest": sweep.lowest.map(Offset::as_u64),
        "stands_at": sweep.stands_at.map(Offset::as_u64),
        "state": match sweep.state {
            SweepState::Waiting => "waiting",
            SweepState::Reading => "reading",
            SweepState::Resting => "resting",
        },
    })
}
