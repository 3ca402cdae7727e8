//! One simulated client: it speaks through encoded bytes only, keeps the books of
//! its subscriptions, and comes back with its place wherever it is cut off.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;
use std::time::Instant;

use brucke::protocol::error_code::ErrorCode;
use brucke::protocol::frame::ClientFrame;
use brucke::protocol::frame::Encoding;
use brucke::protocol::frame::ErrorFrame;
use brucke::protocol::frame::Gap;
use brucke::protocol::frame::GapReason;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::frame::StartAt;
use brucke::protocol::frame::Subscribe;
use brucke::protocol::json;
use brucke::protocol::message::Records;
use brucke::protocol::message::ServerMessage;
use brucke::protocol::protobuf;
use brucke::types::filter::KeyFilter;
use brucke::types::ids::Offset;
use brucke::types::ids::PartitionId;
use brucke::types::ids::RequestId;
use brucke::types::ids::SubId;
use brucke::types::ids::TenantId;
use brucke::types::ids::Timestamp;
use brucke::types::moment::Moment;
use brucke::types::positions::Positions;

use crate::channels::Kind;
use crate::kafka::Kafka;
use crate::ledger::Ledger;
use crate::ledger::Violation;
use crate::replica::token;
use crate::socket;
use crate::socket::Incoming;
use crate::trace::hear;
use crate::trace::say;
use crate::trace::short;

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: usize,
    pub(crate) tenant: TenantId,
    pub(crate) encoding: Encoding,
    pub(crate) subs: Vec<Sub>,
    pub(crate) state: State,
    /// Bytes that wait for the network.
    pub(crate) out: Vec<u8>,
    reader: socket::Reader,
    next_request: u64,
    token_life: Duration,
    renewal: Renewal,
}

/// What the client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It connects at this moment.
    Away(Instant),
    Arriving,
    Open,
    /// It waits for the server to end the connection, no longer than this.
    Leaving(Instant),
}

/// What it does when its token runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    Renews,
    LetsItExpire,
}

/// One subscription of a client's, over all its connections.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) kind: Kind,
    pub(crate) filter: KeyFilter,
    from: StartAt,
    on_gap: OnGap,
    window: Option<NonZeroU32>,
    pub(crate) ledger: Ledger,
    pub(crate) phase: Phase,
    pub(crate) liveness: Liveness,
    pub(crate) removal: Removal,
    /// Frames of records that have not been acknowledged.
    unacknowledged: Vec<(PartitionId, Offset, usize)>,
    /// What was last acknowledged: of a subscription that was asked for again it
    /// may be more than the server has sent.
    acknowledged: Positions,
    /// Whether the log began anew: an acknowledgement of what was before may be
    /// on its way, and is then taken for one of what came after.
    anew: Anew,
}

/// Whether offsets began to mean something else while a subscription lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anew {
    No,
    Yes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is asked for at this moment.
    Idle(Instant),
    Asked(RequestId),
    Active(SubId),
    /// It was ended, and perhaps asked for again before that was heard.
    Ending {
        number: SubId,
        request: RequestId,
        again: Option<RequestId>,
    },
}

/// Whether the channel was taken out of the server's configuration while the
/// connection lasts, or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nobody may say so.
    Never,
    /// A request may be refused for it.
    MayBeTold,
    /// It was followed then, and has not been told.
    Owed,
}

/// Whether the server said that it has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    NotYet,
    Live,
}

impl Client {
    /// Returns a client that is away.
    pub(crate) fn new(
        id: usize,
        tenant: TenantId,
        kafka: &Kafka,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut subs: Vec<Sub> = Vec::new();
        for _ in 0..rng.usize(1..=3) {
            let sub = Sub::new(&tenant, kafka, now, rng);
            if !subs.iter().any(|known| known.kind == sub.kind && known.filter == sub.filter) {
                subs.push(sub);
            }
        }
        Self {
            id,
            tenant,
            encoding: if rng.bool() { Encoding::Json } else { Encoding::Protobuf },
            subs,
            state: State::Away(now.instant),
            out: Vec::new(),
            reader: socket::Reader::default(),
            next_request: 0,
            token_life: Duration::from_millis(rng.u64(3_000..60_000)),
            renewal: if rng.u8(0..4) > 0 { Renewal::Renews } else { Renewal::LetsItExpire },
        }
    }

    /// Takes a connection.
    pub(crate) fn connected(
        &mut self,
        withdrawn: &BTreeSet<Kind>,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) {
        for sub in &mut self.subs {
            sub.removal = match withdrawn.contains(&sub.kind) {
                true => Removal::MayBeTold,
                false => Removal::Never,
            };
        }
        self.state = State::Arriving;
        self.reader = socket::Reader::default();
        self.out.clear();
        self.authenticate(now, rng);
    }

    /// Notes that the server it is connected to has a channel no longer. Whoever
    /// follows it must be told.
    pub(crate) fn withdraw(&mut self, kind: Kind) {
        for sub in self.subs.iter_mut().filter(|sub| sub.kind == kind) {
            sub.removal = match sub.phase {
                Phase::Active(_) => Removal::Owed,
                Phase::Idle(_) | Phase::Asked(_) | Phase::Ending { .. } => Removal::MayBeTold,
            };
        }
    }

    /// Takes the loss of its connection; it comes back a little later.
    pub(crate) fn disconnected(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        say(|| format!("client {} is away", self.id));
        self.state = State::Away(now + Duration::from_millis(rng.u64(0..800)));
        self.out.clear();
        for sub in &mut self.subs {
            sub.end(now);
        }
    }

    /// Takes bytes from the network.
    pub(crate) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        kafka: &Kafka,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Violation> {
        hear(bytes);
        self.reader.push(bytes);
        while let Some(incoming) = self.reader.next()? {
            let message = match (incoming, self.encoding) {
                (Incoming::Text(text), Encoding::Json) => json::decode_server(&text),
                (Incoming::Binary(bytes), Encoding::Protobuf) => protobuf::decode_server(bytes),
                (Incoming::Ping(payload), _) => {
                    socket::write(&mut self.out, socket::PONG, &payload, rng);
                    continue;
                }
                (Incoming::Pong, _) => continue,
                (Incoming::Close(code), _) => {
                    say(|| format!("client {} is closed: {code:?}", self.id));
                    let code = code.unwrap_or(1000).to_be_bytes();
                    socket::write(&mut self.out, socket::CLOSE, &code, rng);
                    self.leave(now.instant);
                    return Ok(());
                }
                (other, _) => return Err(format!("a message of the wrong kind: {other:?}")),
            };
            let message = message.map_err(|error| error.to_string())?;
            self.hear(&message, kafka, now, rng)
                .map_err(|what| format!("client {}: {what}, at {}", self.id, short(&message)))?;
        }
        Ok(())
    }

    /// Does what it likes: subscribes, acknowledges, ends subscriptions, pings.
    pub(crate) fn act(&mut self, kafka: &Kafka, now: Moment, ends: Ends, rng: &mut fastrand::Rng) {
        if self.state != State::Open {
            return;
        }
        for index in 0..self.subs.len() {
            self.act_on(index, kafka, now, ends, rng);
        }
        if rng.u8(0..100) == 0 {
            self.send(&ClientFrame::Ping, rng);
        }
    }

    /// Begins to close politely.
    pub(crate) fn close(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        socket::write(&mut self.out, socket::CLOSE, &1000_u16.to_be_bytes(), rng);
        self.leave(now);
    }

    fn leave(&mut self, now: Instant) {
        self.state = State::Leaving(now + Duration::from_secs(1));
    }

    fn act_on(
        &mut self,
        index: usize,
        kafka: &Kafka,
        now: Moment,
        ends: Ends,
        rng: &mut fastrand::Rng,
    ) {
        let sub = &self.subs[index];
        match sub.phase {
            Phase::Idle(at) if at <= now.instant => {
                let id = self.subscribe(index, kafka, now, rng);
                self.subs[index].phase = Phase::Asked(id);
            }
            Phase::Active(number) if !sub.unacknowledged.is_empty() && rng.u8(0..4) == 0 => {
                let positions = sub.ledger.place().expect("it is active").positions.clone();
                let sub = &mut self.subs[index];
                sub.unacknowledged.retain(|(p, to, _)| positions.get(p).is_none_or(|at| at < to));
                sub.acknowledged.clone_from(&positions);
                self.send(&ClientFrame::Ack { sub: number, positions }, rng);
            }
            Phase::Active(number) if ends != Ends::None && rng.u8(0..200) == 0 => {
                let request = self.request();
                self.send(&ClientFrame::Unsubscribe { id: request, sub: number }, rng);
                let hasty = ends == Ends::Hasty && rng.bool();
                let again = hasty.then(|| self.subscribe(index, kafka, now, rng));
                self.subs[index].phase = Phase::Ending { number, request, again };
            }
            _ => {}
        }
    }

    fn subscribe(
        &mut self,
        index: usize,
        kafka: &Kafka,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> RequestId {
        let id = self.request();
        let sub = &mut self.subs[index];
        sub.ledger.ask(kafka, now.instant);
        let from = match sub.ledger.place() {
            Some(place) => StartAt::Place(place.clone()),
            None => sub.from.clone(),
        };
        let subscribe = Subscribe {
            id,
            channel: sub.kind.channel(),
            filter: sub.filter.clone(),
            from,
            on_gap: sub.on_gap,
            window: sub.window,
        };
        self.send(&ClientFrame::Subscribe(subscribe), rng);
        id
    }

    fn hear(
        &mut self,
        message: &ServerMessage,
        kafka: &Kafka,
        now: Moment,
        rng: &mut fastrand::Rng,
    ) -> Result<(), Violation> {
        say(|| format!("client {} hears {}", self.id, short(message)));
        let frame = match message {
            ServerMessage::Records(records) => {
                return self.sub_of(records.sub)?.handle_records(kafka, records);
            }
            ServerMessage::Frame(frame) => frame,
        };
        match frame {
            ServerFrame::Welcome { tenant, .. } => {
                if *tenant != self.tenant {
                    return Err(format!("welcome as {tenant} instead of {}", self.tenant));
                }
                self.state = State::Open;
            }
            ServerFrame::Subscribed { id, sub: number, topic_id, positions, epochs, .. } => {
                let asked = |sub: &&mut Sub| sub.phase == Phase::Asked(*id);
                let sub = self.subs.iter_mut().find(asked).ok_or("subscribed, and nobody asked")?;
                sub.phase = Phase::Active(*number);
                let (from, start) = (&sub.from, (*topic_id, positions, epochs));
                sub.ledger.subscribed(kafka, from, start, now)?;
            }
            ServerFrame::Progress { sub, to, epochs } => {
                self.sub_of(*sub)?.ledger.progress(kafka, to, epochs)?;
            }
            ServerFrame::Gap(gap) => self.sub_of(gap.sub)?.handle_gap(kafka, gap)?,
            ServerFrame::Live { sub } => {
                let sub = self.sub_of(*sub)?;
                if std::mem::replace(&mut sub.liveness, Liveness::Live) == Liveness::Live {
                    return Err("live was said twice".to_owned());
                }
            }
            ServerFrame::Unsubscribed { id, sub: number } => {
                let sub = self.sub_of(*number)?;
                let Phase::Ending { request, again, .. } = sub.phase else {
                    return Err("unsubscribed, and nobody asked".to_owned());
                };
                if request != *id {
                    return Err(format!("unsubscribed answers {id:?} instead of {request:?}"));
                }
                sub.end(now.instant + Duration::from_millis(rng.u64(0..500)));
                if let Some(again) = again {
                    sub.phase = Phase::Asked(again);
                }
            }
            ServerFrame::Error(error) => self.handle_error(error, now.instant)?,
            ServerFrame::Expiring { .. } if self.renewal == Renewal::Renews => {
                self.authenticate(now, rng);
            }
            ServerFrame::Expiring { .. }
            | ServerFrame::Renewed { .. }
            | ServerFrame::Closing { .. }
            | ServerFrame::Pong => {}
        }
        Ok(())
    }

    fn handle_error(&mut self, error: &ErrorFrame, now: Instant) -> Result<(), Violation> {
        let later = now + error.retry_after.unwrap_or(Duration::from_millis(100));
        let concerns = |sub: &&mut Sub| match (sub.phase, error.id, error.sub) {
            (Phase::Asked(asked), Some(id), _) => asked == id,
            (Phase::Active(own), _, Some(number)) => own == number,
            (Phase::Ending { number: own, request, again }, id, number) => {
                number == Some(own) || id == Some(request) || id.is_some() && id == again
            }
            _ => false,
        };
        let Some(sub) = self.subs.iter_mut().find(concerns) else {
            return Err("an error that concerns nothing".to_owned());
        };
        match (error.code, sub.phase) {
            // It ended by itself while it was being ended.
            (ErrorCode::Gap, Phase::Ending { .. }) => Ok(()),
            (ErrorCode::UnknownSubscription, Phase::Ending { again, .. }) => {
                sub.end(later);
                if let Some(again) = again {
                    sub.phase = Phase::Asked(again);
                }
                Ok(())
            }
            (ErrorCode::Gap | ErrorCode::SourceUnavailable | ErrorCode::Unavailable, _) => {
                sub.end(later);
                Ok(())
            }
            (ErrorCode::ChannelRemoved, Phase::Ending { .. }) if sub.removal != Removal::Never => {
                Ok(())
            }
            (ErrorCode::ChannelRemoved | ErrorCode::ChannelForbidden, _)
                if sub.removal != Removal::Never =>
            {
                sub.end(later);
                Ok(())
            }
            _ => Err("an error that nobody earned".to_owned()),
        }
    }

    fn sub_of(&mut self, number: SubId) -> Result<&mut Sub, Violation> {
        let of_number = |sub: &&mut Sub| match sub.phase {
            Phase::Active(own) | Phase::Ending { number: own, .. } => own == number,
            Phase::Idle(_) | Phase::Asked(_) => false,
        };
        self.subs.iter_mut().find(of_number).ok_or(format!("a frame of {number}, which is unknown"))
    }

    fn authenticate(&mut self, now: Moment, rng: &mut fastrand::Rng) {
        let life = i64::try_from(self.token_life.as_millis()).expect("tokens are short-lived");
        let expires_at = Timestamp::from_millis(now.wall.as_millis() + life);
        let token = token(&self.tenant, expires_at);
        self.send(&ClientFrame::Authenticate { token }, rng);
    }

    fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId::new(self.next_request)
    }

    fn send(&mut self, frame: &ClientFrame, rng: &mut fastrand::Rng) {
        say(|| format!("client {} says {}", self.id, short(frame)));
        match self.encoding {
            Encoding::Json => {
                let text = json::encode_client(frame);
                socket::write(&mut self.out, socket::TEXT, text.as_bytes(), rng);
            }
            Encoding::Protobuf => {
                let bytes = protobuf::encode_client(frame);
                socket::write(&mut self.out, socket::BINARY, &bytes, rng);
            }
        }
    }
}

/// Whether clients end subscriptions now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    None,
    /// They ask again once they have heard of the end.
    Some,
    /// They also ask again at once, from where they stand then: a gap that is on
    /// its way may still take them further back.
    Hasty,
}

impl Sub {
    fn new(tenant: &TenantId, kafka: &Kafka, now: Moment, rng: &mut fastrand::Rng) -> Self {
        let kind = Kind::ALL[rng.usize(..Kind::ALL.len())];
        let filter = filter(rng);
        let from = start(kind, tenant, kafka, now, rng);
        let ledger = Ledger::new(kind, tenant.clone(), filter.clone(), &from);
        Self {
            kind,
            filter,
            on_gap: if rng.u8(0..4) == 0 { OnGap::Stop } else { OnGap::Continue },
            window: if rng.u8(0..3) == 0 { NonZeroU32::new(rng.u32(1..20)) } else { None },
            from,
            ledger,
            phase: Phase::Idle(now.instant),
            liveness: Liveness::NotYet,
            removal: Removal::Never,
            unacknowledged: Vec::new(),
            acknowledged: Positions::new(),
            anew: Anew::No,
        }
    }

    /// Says whether it was asked for before `moment` and not answered: then it
    /// may yet be told of a log that was cut off at that moment.
    pub(crate) fn waits_since_before(&self, moment: Instant) -> bool {
        let waits = match self.phase {
            Phase::Asked(_) => true,
            Phase::Ending { again, .. } => again.is_some(),
            Phase::Idle(_) | Phase::Active(_) => false,
        };
        waits && self.ledger.asked_at().is_some_and(|asked| asked <= moment)
    }

    fn end(&mut self, again_at: Instant) {
        self.phase = Phase::Idle(again_at);
        self.ledger.leave(again_at);
        if self.removal == Removal::Owed {
            self.removal = Removal::MayBeTold;
        }
        self.liveness = Liveness::NotYet;
        self.unacknowledged.clear();
        self.acknowledged.clear();
        self.anew = Anew::No;
    }

    fn handle_records(&mut self, kafka: &Kafka, records: &Records) -> Result<(), Violation> {
        self.ledger.records(kafka, records)?;
        if let Some(window) = self.window {
            let count = records.records.len();
            self.unacknowledged.push((records.partition, records.to, count));
            let is_new = |p: &PartitionId, to: &Offset| {
                self.acknowledged.get(p).is_none_or(|acknowledged| acknowledged < to)
            };
            let new = self.unacknowledged.iter().filter(|(p, to, _)| is_new(p, to));
            let sum: usize = new.map(|(.., count)| count).sum();
            if sum > window.get() as usize && self.anew == Anew::No {
                return Err(format!("{sum} records unacknowledged, and the window is {window}"));
            }
        }
        Ok(())
    }

    fn handle_gap(&mut self, kafka: &Kafka, gap: &Gap) -> Result<(), Violation> {
        self.ledger.gap(kafka, gap)?;
        self.unacknowledged.retain(|(partition, ..)| *partition != gap.partition);
        self.acknowledged.remove(&gap.partition);
        if gap.reason != GapReason::Retention {
            self.anew = Anew::Yes;
        }
        Ok(())
    }
}

fn filter(rng: &mut fastrand::Rng) -> KeyFilter {
    let key = |rng: &mut fastrand::Rng| match rng.u8(0..6) {
        0 => "quiet".to_owned(),
        1 => format!("eu-{}", rng.u8(0..3)),
        _ => format!("k{}", rng.u8(0..4)),
    };
    match rng.u8(0..6) {
        0 | 1 => KeyFilter::All,
        2 => KeyFilter::keys([key(rng).into()]),
        3 => KeyFilter::keys((0..rng.usize(1..5)).map(|_| key(rng).into())),
        4 => KeyFilter::Prefix(["eu-", "k", "q", "acme:"][rng.usize(..4)].into()),
        _ => KeyFilter::keys(["quiet".into()]),
    }
}

fn start(
    kind: Kind,
    tenant: &TenantId,
    kafka: &Kafka,
    now: Moment,
    rng: &mut fastrand::Rng,
) -> StartAt {
    use brucke::types::positions::Place;
    use brucke::types::positions::Positions;
    let span = Duration::from_millis(rng.u64(0..6_000));
    match rng.u8(0..6) {
        0 | 1 => StartAt::Latest,
        2 => StartAt::Timestamp(now.wall_before(span)),
        3 => StartAt::Ago(span),
        4 => match kafka.find(&kind.topic(tenant), now.instant) {
            Ok((topic_id, log)) => {
                let mut positions = Positions::new();
                for (index, partition) in log.partitions.iter().enumerate() {
                    if rng.bool() {
                        let at = rng.u64(0..=partition.stable_end());
                        positions.insert(PartitionId::from_index(index), crate::ledger::offset(at));
                    }
                }
                StartAt::Place(Place::new(topic_id, positions))
            }
            Err(_) => StartAt::Earliest,
        },
        _ => StartAt::Earliest,
    }
}
