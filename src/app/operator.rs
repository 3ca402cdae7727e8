//! What operators ask of the running process, gathered from its parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::join;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::admin::operator::ConnectionsQuery;
use crate::admin::operator::ExplainBody;
use crate::admin::operator::Operator;
use crate::admin::operator::Order;
use crate::admin::operator::PartitionsQuery;
use crate::admin::operator::Refused;
use crate::admin::operator::Reply;
use crate::admin::operator::RevokeBody;
use crate::admin::operator::TraceBody;
use crate::app::explain;
use crate::app::explain::Asked;
use crate::app::explain::Sources;
use crate::app::explain::What;
use crate::app::explain::Whose;
use crate::app::health::ReplicaHealth;
use crate::app::revocations::Announcer;
use crate::app::rows;
use crate::delivery::traces::Watch;
use crate::delivery::traces::Watched;
use crate::delivery::view::Answer;
use crate::delivery::view::Question;
use crate::delivery::view::Share;
use crate::delivery::view::TrailQuery;
use crate::delivery::view::Walk;
use crate::delivery::view::Wanted;
use crate::kafka::config::KafkaConfig;
use crate::protocol::frame::Token;
use crate::server::inquiry::Unanswered;
use crate::server::inquiry::Workers;
use crate::server::token::Verifier;
use crate::telemetry::config::LogLevel;
use crate::telemetry::log;
use crate::tenancy::revocation::Revocation;
use crate::tenancy::revocation::Revoked;
use crate::types::ids::ChannelName;
use crate::types::ids::ConnectionId;
use crate::types::ids::Offset;
use crate::types::ids::TenantId;
use crate::types::ids::Timestamp;

/// Asks the parts of one process. Cloning shares it.
#[derive(Clone)]
pub struct Desk(Arc<Parts>);

/// What is asked.
pub struct Parts {
    pub workers: Workers,
    pub health: Arc<ReplicaHealth>,
    pub verifier: Arc<Verifier>,
    /// Where Kafka is, for those who explain.
    pub kafka: KafkaConfig,
    /// Bounds how many questions to Kafka are under way.
    pub peeks: Arc<Semaphore>,
    /// Tells other replicas what is revoked, where they are to know.
    announcer: Option<Announcer>,
}

impl Desk {
    /// Returns a desk for these parts.
    pub fn new(
        workers: Workers,
        health: Arc<ReplicaHealth>,
        verifier: Arc<Verifier>,
        kafka: KafkaConfig,
    ) -> Self {
        let peeks = Arc::new(Semaphore::new(PEEKS_MAX));
        let status = health.journal.as_ref().map(Arc::clone);
        let announcer = status.map(|status| Announcer::new(&kafka, status));
        Self(Arc::new(Parts { workers, health, verifier, kafka, peeks, announcer }))
    }
}

impl Operator for Desk {
    fn operate(&self, order: Order) -> Reply {
        let parts = Arc::clone(&self.0);
        Box::pin(async move {
            match order {
                Order::Connections(query) => parts.connections(query).await,
                Order::Connection { id } => parts.connection(id).await,
                Order::Disconnect { id } => parts.disconnect(id).await,
                Order::Trace { id, body } => parts.trace(id, body).await,
                Order::Channels => parts.channels().await,
                Order::Partitions(query) => Ok(parts.partitions(&query)),
                Order::Sweeps => Ok(parts.sweeps()),
                Order::Tenants => parts.tenants().await,
                Order::Revoke(body) => parts.revoke(body).await,
                Order::LogLevel(body) => set_log_level(&body.level),
                Order::Explain(body) => parts.explain(body).await,
            }
        })
    }
}

impl Parts {
    async fn connections(&self, query: ConnectionsQuery) -> Result<Value, Refused> {
        let state = match query.state.as_deref() {
            None => Wanted::Any,
            Some("behind") => Wanted::Behind,
            Some(_) => return Err(Refused::Invalid("state can be `behind`".to_owned())),
        };
        let place = query.after.as_deref().map_or(Some((0, 0)), read_place);
        let invalid = || Refused::Invalid("after is not what `next` said".to_owned());
        let (mut worker, mut from) = place.ok_or_else(invalid)?;
        if worker >= self.workers.count() {
            return Err(invalid());
        }
        let max = query.max.unwrap_or(ROWS).clamp(1, ROWS_MAX);
        let tenant = query.tenant.map(TenantId::new);
        let mut page: Vec<Value> = Vec::new();
        let next = loop {
            let walk = Walk { from, max: max - page.len(), tenant: tenant.clone(), state };
            let question = Question::Connections(walk);
            let answer = self.workers.ask(worker, question).await?;
            let Answer::Connections { rows, next } = answer else {
                unreachable!("connections were asked for")
            };
            page.extend(rows.iter().map(|row| rows::connection(worker, row)));
            match next {
                // The page is full, or this worker has looked at enough for now.
                Some(from) => break Some(format!("{worker}.{from}")),
                None if worker + 1 == self.workers.count() => break None,
                None => (worker, from) = (worker + 1, 0),
            }
            if page.len() == max {
                break Some(format!("{worker}.{from}"));
            }
        };
        Ok(json!({ "connections": page, "next": next }))
    }

    async fn connection(&self, id: u64) -> Result<Value, Refused> {
        let question = Question::Connection(ConnectionId::new(id));
        for worker in 0..self.workers.count() {
            let answer = self.workers.ask(worker, question.clone()).await?;
            if let Answer::Connection(Some(detail)) = answer {
                return Ok(rows::detail(worker, &detail));
            }
        }
        Err(no_connection(id))
    }

    async fn disconnect(&self, id: u64) -> Result<Value, Refused> {
        let closed = self.close(&Question::Disconnect(ConnectionId::new(id))).await?;
        match closed {
            0 => Err(no_connection(id)),
            closed => Ok(json!({ "closed": closed })),
        }
    }

    async fn trace(&self, id: u64, body: TraceBody) -> Result<Value, Refused> {
        let watch = if body.on { Watch::On } else { Watch::Off };
        let answers = self.workers.ask_all(&Question::Trace(ConnectionId::new(id), watch)).await?;
        let told = answers.into_iter().find_map(|answer| match answer {
            Answer::Trace(Watched::NoConnection) => None,
            Answer::Trace(told) => Some(told),
            _ => None,
        });
        match told {
            Some(Watched::Done) => Ok(json!({ "traced": body.on })),
            Some(Watched::TracingOff) => {
                let text = "this replica sends no traces: set `tracing.endpoint`";
                Err(Refused::Invalid(text.to_owned()))
            }
            Some(Watched::TooMany) => {
                let text = "this worker traces as many connections as it may: end one of them";
                Err(Refused::Unavailable(text.to_owned()))
            }
            Some(Watched::NoConnection) | None => Err(no_connection(id)),
        }
    }

    /// Asks all workers to close something; returns how many connections were.
    async fn close(&self, question: &Question) -> Result<usize, Refused> {
        let answers = self.workers.ask_all(question).await?;
        let closed = answers.into_iter().map(|answer| match answer {
            Answer::Closed(closed) => closed,
            _ => 0,
        });
        Ok(closed.sum())
    }

    async fn revoke(&self, body: RevokeBody) -> Result<Value, Refused> {
        let now = explain::now();
        let of = match (body.jti, body.sub) {
            (Some(id), None) if body.tenant.is_none() => Revoked::Token(id.into()),
            (None, Some(subject)) => Revoked::Subject {
                subject: subject.into(),
                tenant: body.tenant.map(TenantId::new),
                issued_before: now,
            },
            _ => {
                let text = "name `jti`, or `sub` with or without `tenant`";
                return Err(Refused::Invalid(text.to_owned()));
            }
        };
        let seconds = body.seconds.unwrap_or(REVOKED_SECONDS).min(REVOKED_SECONDS_MAX);
        let millis = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let until = Timestamp::from_millis(now.as_millis().saturating_add(millis));
        let revocation = Revocation { of, until };
        // Nobody new comes in before those who are there are sent away.
        let revocations = self.verifier.revocations();
        revocations
            .add(revocation.clone(), now)
            .map_err(|_| Refused::Unavailable("too many tokens are revoked already".to_owned()))?;
        let question = Question::Revoke(revocation.of.clone());
        // It holds here whatever becomes of it elsewhere, and does not wait for that.
        let (closed, told) = join!(self.close(&question), self.announce(&revocation));
        let closed = closed?;
        let scope = told.map_err(|reason| {
            Refused::Unavailable(format!(
                "it is revoked at this replica, which closed {closed} connections, and at no \
                 other: {reason}; ask again"
            ))
        })?;
        let (until_ms, count) = (until.as_millis(), revocations.count(now));
        Ok(json!({
            "closed": closed, "until_ms": until_ms, "revocations": count, "scope": scope,
        }))
    }

    /// Tells other replicas what is revoked, where they are to know; returns where it
    /// holds.
    async fn announce(&self, revocation: &Revocation) -> Result<&'static str, String> {
        match &self.announcer {
            None => Ok("this_replica"),
            Some(announcer) => announcer.announce(revocation).await.map(|()| "all_replicas"),
        }
    }

    /// Counts what all workers have, piece by piece.
    async fn census(
        &self,
    ) -> Result<(BTreeMap<TenantId, Share>, BTreeMap<ChannelName, Share>), Refused> {
        let (mut all_tenants, mut all_channels) = (BTreeMap::new(), BTreeMap::new());
        for worker in 0..self.workers.count() {
            let mut from = Some(0);
            while let Some(place) = from {
                let answer = self.workers.ask(worker, Question::Census { from: place }).await?;
                let Answer::Census { tenants, channels, next } = answer else { break };
                add_all(&mut all_tenants, tenants);
                add_all(&mut all_channels, channels);
                from = next;
            }
        }
        Ok((all_tenants, all_channels))
    }

    async fn tenants(&self) -> Result<Value, Refused> {
        let (tenants, _) = self.census().await?;
        let all: usize = tenants.values().map(|share| share.connections).sum();
        let mut shares: Vec<_> = tenants.into_iter().collect();
        shares.sort_by_key(|(_, share)| std::cmp::Reverse(share.connections));
        let count = shares.len();
        let quotas = self.health.directory.quotas().rules();
        let rows = shares.iter().take(ROWS_MAX).map(|(tenant, share)| {
            let part = share.connections as f64 / all.max(1) as f64;
            rows::tenant(tenant, share, part, quotas.of(tenant))
        });
        Ok(json!({ "tenants": rows.collect::<Vec<_>>(), "tenants_in_all": count }))
    }

    async fn channels(&self) -> Result<Value, Refused> {
        let (_, shares) = self.census().await?;
        let (failures, stopped) = (self.health.directory.failures(), self.health.kafka.stopped());
        let channels = self.health.channels();
        let rows = channels.iter().map(|channel| {
            let share = shares.get(&channel.name).copied().unwrap_or_default();
            rows::channel(channel, share, &failures, &stopped)
        });
        // Topics of single tenants stand under no channel.
        let failing = failures.iter().take(ROWS_MAX).map(
            |(topic, failure)| json!({ "topic": topic.as_str(), "failure": failure.to_string() }),
        );
        Ok(json!({
            "channels": rows.collect::<Vec<_>>(),
            "failing_topics": failing.collect::<Vec<_>>(),
        }))
    }

    fn partitions(&self, query: &PartitionsQuery) -> Value {
        let (ends, lags) = (self.health.kafka.ends(), self.health.lags());
        let max = query.max.unwrap_or(ROWS).clamp(1, ROWS_MAX);
        let from = query.after.unwrap_or(0);
        let mut all = Vec::new();
        for (source, partitions) in self.health.directory.partitions() {
            let topic = self.health.directory.key(source).topic;
            if query.topic.as_deref().is_none_or(|wanted| wanted == topic.as_str()) {
                all.extend(partitions.into_iter().map(|partition| (topic.clone(), partition)));
            }
        }
        all.sort_by_key(|(topic, partition)| (topic.clone(), partition.id()));
        let rows = all.iter().skip(from).take(max).map(|(topic, partition)| {
            let place = (topic.clone(), partition.id());
            let lag = lags.get(&place).copied().unwrap_or_default();
            rows::partition(topic, partition, ends.get(&place).copied(), lag)
        });
        let rows: Vec<Value> = rows.collect();
        let next = from + rows.len();
        let next = (next < all.len()).then_some(next);
        json!({ "partitions": rows, "partitions_in_all": all.len(), "next": next })
    }

    fn sweeps(&self) -> Value {
        let sweeps = self.health.kafka.sweeps();
        let rows = sweeps
            .wanted
            .iter()
            .map(|sweep| rows::sweep(&self.health.directory.key(sweep.source).topic, sweep));
        json!({
            "sweeps": rows.collect::<Vec<_>>(),
            "partitions": sweeps.partitions,
            "offsets_waiting": sweeps.cursors,
            "readings": sweeps.under_way,
        })
    }

    async fn explain(&self, body: ExplainBody) -> Result<Value, Refused> {
        let asked = Asked::read(&body).map_err(Refused::Invalid)?;
        let whose = match (&body.connection, body.token) {
            (None, Some(token)) => {
                let verified = self.verifier.verify(&Token::new(token), explain::now());
                match verified {
                    Ok(principal) => Whose::Bearer(Arc::new(principal)),
                    Err(error) => return Ok(explain::told::bad_token(&error)),
                }
            }
            (Some(id), None) => self.trail(id, &asked).await?,
            _ => return Err(Refused::Invalid("name a connection, or a token".to_owned())),
        };
        let permit = Arc::clone(&self.peeks).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Refused::Unavailable("other questions are being answered: ask again".to_owned())
        })?;
        let sources = Sources { channels: self.health.channels(), kafka: self.kafka.clone() };
        let answered = spawn_blocking(move || {
            let _permit = permit;
            explain::answer(&sources, &whose, &asked)
        });
        let answered = answered.await.map_err(|error| Refused::Unavailable(error.to_string()))?;
        answered.map_err(|error| Refused::Unavailable(format!("{error:#}")))
    }

    async fn trail(&self, id: &str, asked: &Asked) -> Result<Whose, Refused> {
        let id: u64 = id.parse().map_err(|_| Refused::Invalid("not a connection".to_owned()))?;
        let offset = match asked.what {
            What::Record(offset) => offset,
            What::Range { .. } => Offset::ZERO,
        };
        let query = TrailQuery {
            connection: ConnectionId::new(id),
            channel: asked.channel.clone(),
            filter: asked.filter.clone(),
            partition: asked.partition,
            offset,
        };
        for worker in 0..self.workers.count() {
            let question = Question::Trail(query.clone());
            if let Answer::Trail(Some(trail)) = self.workers.ask(worker, question).await? {
                return Ok(Whose::Connection(Arc::from(trail)));
            }
        }
        Err(no_connection(id))
    }
}

impl From<Unanswered> for Refused {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unavailable(unanswered.to_string())
    }
}

fn add_all<N: Ord>(all: &mut BTreeMap<N, Share>, part: BTreeMap<N, Share>) {
    for (name, share) in part {
        all.entry(name).or_default().add(share);
    }
}

fn set_log_level(level: &str) -> Result<Value, Refused> {
    let Some(known) = LogLevel::from_name(level) else {
        let text = "level can be `error`, `warn`, `info`, `debug` or `trace`";
        return Err(Refused::Invalid(text.to_owned()));
    };
    match log::set_level(known) {
        true => Ok(json!({ "level": level })),
        false => Err(Refused::Unavailable("this process has no log of its own".to_owned())),
    }
}

/// Reads where a page of connections goes on: worker and place.
fn read_place(text: &str) -> Option<(usize, u32)> {
    let (worker, place) = text.split_once('.')?;
    Some((worker.parse().ok()?, place.parse().ok()?))
}

fn no_connection(id: u64) -> Refused {
    Refused::NotFound(format!("there is no connection {id} at this replica"))
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Rows of a page, where nobody asks for another number.
const ROWS: usize = 100;
const ROWS_MAX: usize = 1_000;
/// Questions to Kafka at once; each has a client of its own for a moment.
const PEEKS_MAX: usize = 2;
/// How long a revocation is remembered, where nobody says.
const REVOKED_SECONDS: u64 = Duration::from_secs(24 * 3_600).as_secs();
const REVOKED_SECONDS_MAX: u64 = Duration::from_secs(400 * 24 * 3_600).as_secs();
