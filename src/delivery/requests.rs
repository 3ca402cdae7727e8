//! What clients ask, and how it is answered.

use std::sync::Arc;

use crate::delivery::connection::Open;
use crate::delivery::connection::Peer;
use crate::delivery::connection::Phase;
use crate::delivery::connection::Warned;
use crate::delivery::feed::Entered;
use crate::delivery::feed::FeedKey;
use crate::delivery::feed::lane;
use crate::delivery::shard::Shard;
use crate::delivery::source::Source;
use crate::delivery::span::CommandKind;
use crate::delivery::span::Outcome;
use crate::delivery::subscription::Announced;
use crate::delivery::subscription::State;
use crate::delivery::subscription::Subscription;
use crate::delivery::subscription::Window;
use crate::delivery::traces::OpenCommand;
use crate::delivery::tracing::kind_of_start;
use crate::protocol::close_code::CloseCode;
use crate::protocol::decode_error::DecodeError;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::ClientFrame;
use crate::protocol::frame::Encoding;
use crate::protocol::frame::ErrorFrame;
use crate::protocol::frame::ServerFrame;
use crate::protocol::frame::Subscribe;
use crate::protocol::frame::Token;
use crate::protocol::json;
use crate::protocol::protobuf;
use crate::protocol::websocket::read::FrameReader;
use crate::protocol::websocket::read::Input;
use crate::protocol::websocket::read::Message;
use crate::protocol::websocket::write::close_reply;
use crate::protocol::websocket::write::pong_frame;
use crate::registry::message::Command;
use crate::tenancy::channel::Denied;
use crate::tenancy::principal::Principal;
use crate::types::ids::RequestId;
use crate::types::ids::SubId;
use crate::types::latency::Exemplar;
use crate::types::latency::Latencies;
use crate::types::limits::CLIENT_FRAME_BYTES_MAX;
use crate::types::moment::Moment;
use crate::types::positions::Positions;

/// What one WebSocket message asks for.
enum Asked {
    Frame(Result<ClientFrame, DecodeError>),
    Pong(Vec<u8>),
    Heard,
    Close(Option<u16>),
    Unsupported,
}

impl Shard {
    /// Reads all messages that lie in `bytes`.
    pub(in crate::delivery) fn read_frames(&mut self, slot: usize, bytes: &mut [u8], now: Moment) {
        let key = self.connections[slot].key(slot);
        let connection = &mut self.connections[slot];
        connection.pulse.alive_at = now.instant;
        connection.pulse.pinged_at = None;
        let encoding = connection.encoding;
        let mut reader = std::mem::replace(&mut connection.reader, FrameReader::new(0));
        let mut input = Input::new(bytes);
        loop {
            let asked = match reader.poll_message(&mut input) {
                Ok(Some(message)) => understand(&message, encoding),
                Ok(None) => break,
                Err(error) => {
                    self.close(slot, error.close_code(), None, now.instant);
                    // What the peer still says can't be read, its Close frame
                    // neither: there is nothing to wait for.
                    if let Phase::Closing { peer, .. } = &mut self.connections[slot].phase {
                        *peer = Peer::Closed;
                    }
                    break;
                }
            };
            self.answer(slot, asked, now);
            // An answer may have ended the connection.
            if self.slot(key).is_none() {
                return;
            }
            if self.connections[slot].principal().is_some() {
                reader.set_message_bytes_max(CLIENT_FRAME_BYTES_MAX);
            }
        }
        self.connections[slot].reader = reader;
    }

    /// Lets a client in.
    pub(in crate::delivery) fn welcome(
        &mut self,
        slot: usize,
        principal: Arc<Principal>,
        now: Moment,
    ) {
        if self.verifier.is_revoked(&principal, now.wall) {
            // It was revoked while the handshake was on its way.
            return self.close(slot, CloseCode::AuthenticationFailed, None, now.instant);
        }
        let connection = &mut self.connections[slot];
        connection.reader.set_message_bytes_max(CLIENT_FRAME_BYTES_MAX);
        let frame = ServerFrame::Welcome {
            connection: connection.id,
            tenant: principal.tenant.clone(),
            heartbeat: self.settings.heartbeat_interval,
            expires_at: principal.expires_at,
        };
        let tenant = self.tenants.slot(principal.tenant.as_str(), self.directory.tenant_labels());
        connection.tenant = Some(tenant);
        self.tenants.at(tenant).connections += 1;
        connection.phase = Phase::Open(Box::new(Open { principal, warned: Warned::No }));
        self.send(slot, &frame);
    }

    /// Ends a subscription that the client did not end, and says why.
    pub(in crate::delivery) fn end_with_error(
        &mut self,
        slot: usize,
        sub: usize,
        code: ErrorCode,
        message: String,
    ) {
        let subscription = self.subscription(slot, sub);
        let number = self.feeds.at(subscription.feed).number;
        let (id, started) = match subscription.state {
            State::Starting(_) => (Some(subscription.request), None),
            State::Behind(_) | State::Live { .. } => (None, Some(number)),
        };
        self.end_subscribing(self.reference(slot, sub), Outcome::Refused(code));
        self.end_subscription(slot, sub);
        self.refuse_with(slot, id, started, code, message);
    }

    /// Ends all subscriptions of a connection.
    pub(in crate::delivery) fn end_subscriptions(&mut self, slot: usize) {
        for sub in 0..self.connections[slot].subscriptions.len() {
            self.end_subscription(slot, sub);
        }
    }

    /// Ends a subscription, if there is one at this place.
    pub(in crate::delivery) fn end_subscription(&mut self, slot: usize, sub: usize) {
        if self.connections[slot].subscriptions[sub].is_none() {
            return;
        }
        self.end_subscribing(self.reference(slot, sub), Outcome::GivenUp);
        let connection = &mut self.connections[slot];
        let lane = lane(connection.encoding);
        let Some(subscription) = connection.subscriptions[sub].take() else { return };
        self.subscriptions -= 1;
        self.tally(slot, subscription.feed, |tally| tally.subscriptions -= 1);
        match subscription.state {
            State::Live { follower } => self.unfollow_feed(subscription.feed, lane, follower),
            State::Behind(_) => self.end_behind(slot, subscription.feed),
            State::Starting(_) => {}
        }
        let slot_of_feed = subscription.feed;
        let Some(feed) = self.feeds.leave(slot_of_feed) else { return };
        let source = &mut self.sources[feed.source];
        source.index.remove(feed.key.tenant.as_ref(), &feed.key.filter, slot_of_feed);
        source.feeds -= 1;
        if source.feeds == 0 {
            let source = self.sources.remove(feed.source);
            self.source_slots.remove(&source.id);
            let shard = self.id;
            self.command(Command::Unfollow { shard, source: source.id });
        }
    }

    fn answer(&mut self, slot: usize, asked: Asked, now: Moment) {
        if matches!(self.connections[slot].phase, Phase::Closing { .. }) {
            if let (Asked::Close(_), Phase::Closing { peer, .. }) =
                (asked, &mut self.connections[slot].phase)
            {
                *peer = Peer::Closed;
                self.finish_if_done(slot);
            }
            return;
        }
        match asked {
            Asked::Heard => {}
            Asked::Close(code) => self.answer_close(slot, code, now),
            Asked::Unsupported => {
                self.close(slot, CloseCode::UnsupportedData, None, now.instant);
            }
            Asked::Pong(payload) => {
                if self.take_token(slot, now) {
                    self.push(slot, &pong_frame(&payload));
                }
            }
            Asked::Frame(frame) => {
                if self.take_token(slot, now) {
                    self.answer_frame(slot, frame, now);
                }
            }
        }
    }

    fn answer_close(&mut self, slot: usize, code: Option<u16>, now: Moment) {
        self.counts.close(CloseCode::Normal);
        self.end_subscriptions(slot);
        // What was not sent yet is of no use to a peer that has said goodbye,
        // but a frame that was begun must be ended.
        self.push(slot, &close_reply(code));
        let deadline = now.instant + self.settings.close_timeout;
        self.connections[slot].phase = Phase::Closing { deadline, peer: Peer::Closed };
    }

    /// Takes a token for a frame; closes the connection where there is none.
    fn take_token(&mut self, slot: usize, now: Moment) -> bool {
        let there_was = self.connections[slot].bucket.take(&self.settings, now.instant);
        if !there_was {
            let wait = Some(self.crowded_wait());
            self.close(slot, CloseCode::RateLimited, wait, now.instant);
        }
        there_was
    }

    fn answer_frame(&mut self, slot: usize, frame: Result<ClientFrame, DecodeError>, now: Moment) {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if self.connections[slot].principal().is_none() => {
                self.refuse_with(slot, error.id, None, error.code, error.message);
                return self.close(slot, CloseCode::BadFrame, None, now.instant);
            }
            Err(error) => {
                return self.refuse_with(slot, error.id, None, error.code, error.message);
            }
        };
        let known = self.connections[slot].principal().cloned();
        match (frame, known) {
            (ClientFrame::Authenticate { token }, None) => self.authenticate(slot, &token, now),
            (ClientFrame::Authenticate { token }, Some(known)) => {
                self.renew(slot, &token, &known, now);
            }
            (ClientFrame::Ping, Some(_)) => self.send(slot, &ServerFrame::Pong),
            (_, None) => {
                let message = "the first frame must be authenticate".to_owned();
                self.refuse_with(slot, None, None, ErrorCode::NotAuthenticated, message);
                self.close(slot, CloseCode::AuthenticationFailed, None, now.instant);
            }
            (ClientFrame::Subscribe(subscribe), Some(principal)) => {
                self.subscribe(slot, subscribe, &principal, now);
            }
            (ClientFrame::Unsubscribe { id, sub }, Some(_)) => self.unsubscribe(slot, id, sub),
            (ClientFrame::Ack { sub, positions }, Some(_)) => {
                self.acknowledge(slot, sub, &positions, now);
            }
        }
    }

    fn authenticate(&mut self, slot: usize, token: &Token, now: Moment) {
        let command = self.begin_command(slot, CommandKind::Authenticate, None);
        match self.verifier.verify(token, now.wall) {
            Ok(principal) => {
                let admitted = self.admit(slot, Arc::new(principal), now);
                self.end_command(
                    command,
                    admitted.map_or_else(Outcome::Refused, |()| Outcome::Done),
                );
            }
            Err(refusal) => {
                let code = ErrorCode::AuthenticationFailed;
                self.end_command(command, Outcome::Refused(code));
                self.counts.authentication_refusal(refusal.reason);
                self.refuse_with(slot, None, None, code, refusal.message);
                self.close(slot, CloseCode::AuthenticationFailed, None, now.instant);
            }
        }
    }

    /// Takes a new token of the same client's. What it no longer allows ends.
    fn renew(&mut self, slot: usize, token: &Token, known: &Arc<Principal>, now: Moment) {
        let command = self.begin_command(slot, CommandKind::Authenticate, None);
        let principal = match self.verifier.verify(token, now.wall) {
            Ok(principal) => principal,
            Err(refusal) => {
                let code = ErrorCode::AuthenticationFailed;
                self.end_command(command, Outcome::Refused(code));
                self.counts.authentication_refusal(refusal.reason);
                return self.refuse_with(slot, None, None, code, refusal.message);
            }
        };
        if principal.tenant != known.tenant || principal.subject != known.subject {
            let message = "a renewed token must be of the same tenant and subject".to_owned();
            self.end_command(command, Outcome::Refused(ErrorCode::IdentityChanged));
            return self.refuse_with(slot, None, None, ErrorCode::IdentityChanged, message);
        }
        let expires_at = principal.expires_at;
        let principal = Arc::new(principal);
        let open = Open { principal: Arc::clone(&principal), warned: Warned::No };
        self.connections[slot].phase = Phase::Open(Box::new(open));
        self.send(slot, &ServerFrame::Renewed { expires_at });
        self.end_command(command, Outcome::Done);
        for sub in 0..self.connections[slot].subscriptions.len() {
            let Some(subscription) = &self.connections[slot].subscriptions[sub] else { continue };
            let key = &self.feeds.at(subscription.feed).key;
            if self.channels.grant(&principal, &key.channel, &key.filter).is_err() {
                let message = "the renewed token no longer allows this subscription".to_owned();
                self.end_with_error(slot, sub, ErrorCode::Revoked, message);
            }
        }
    }

    fn subscribe(&mut self, slot: usize, asked: Subscribe, principal: &Principal, now: Moment) {
        let id = asked.id;
        let kind = kind_of_start(&asked.from);
        let command = self.begin_command(slot, kind, Some(&asked.channel));
        if let Err((code, message)) =
            self.try_subscribe(slot, asked, principal, command.clone(), now)
        {
            self.end_command(command, Outcome::Refused(code));
            self.refuse_with(slot, Some(id), None, code, message);
        }
    }

    fn try_subscribe(
        &mut self,
        slot: usize,
        asked: Subscribe,
        principal: &Principal,
        command: Option<OpenCommand>,
        now: Moment,
    ) -> Result<(), (ErrorCode, String)> {
        let taken = self.connections[slot].subscriptions.iter().flatten().count();
        let limit = self.settings.subscriptions_per_connection_max;
        if taken >= limit as usize {
            let message = format!("a connection may hold {limit} subscriptions: end one first");
            return Err((ErrorCode::LimitExceeded, message));
        }
        let grant = self.channels.grant(principal, &asked.channel, &asked.filter);
        let grant = grant.map_err(refusal_of)?;
        let source = self.directory.source(&grant.source).map_err(|_| {
            (ErrorCode::LimitExceeded, "the server follows too many topics".to_owned())
        })?;
        let key = FeedKey {
            channel: asked.channel,
            source: grant.source,
            tenant: grant.tenant,
            filter: asked.filter,
        };
        let known = self.feeds.find(&key);
        let mut held = self.connections[slot].subscriptions.iter().flatten();
        if held.any(|subscription| Some(subscription.feed) == known) {
            let message = "this connection follows this channel with these keys already";
            return Err((ErrorCode::AlreadySubscribed, message.to_owned()));
        }
        let place = self.subscription_place(slot)?;
        let source = self.follow(source);
        let labels = self.directory.channel_labels();
        let tally = self.channel_tallies.slot(key.channel.as_str(), labels);
        let (feed, entered) = self.feeds.enter(key, source, tally);
        if entered == Entered::New {
            let key = &self.feeds.at(feed).key;
            let source = &mut self.sources[source];
            source.index.insert(key.tenant.as_ref(), &key.filter, feed);
            source.feeds += 1;
        }
        let serial = self.serial();
        let sub = self.place(
            slot,
            Subscription {
                serial,
                request: asked.id,
                feed,
                on_gap: asked.on_gap,
                announced: Announced::NotYet,
                window: asked.window.map(|records_max| Box::new(Window::new(records_max))),
                state: State::Starting(Box::new(asked.from)),
                started: None,
                _place: place,
            },
        );
        self.subscriptions += 1;
        self.tally(slot, feed, |tally| tally.subscriptions += 1);
        let reference = self.reference(slot, sub);
        self.traces.keep_command(reference, command);
        self.watch_start(reference, now);
        self.find_start(slot, sub, now);
        Ok(())
    }

    /// Returns the place of a source in this shard; follows it where it is new.
    fn follow(&mut self, id: crate::types::ids::SourceId) -> usize {
        if let Some(slot) = self.source_slots.get(&id) {
            return *slot;
        }
        let ticket = self.ticket();
        let slot = self.sources.insert(Source::new(id, ticket));
        self.source_slots.insert(id, slot);
        let shard = self.id;
        self.command(Command::Follow { shard, ticket, source: id });
        slot
    }

    fn place(&mut self, slot: usize, subscription: Subscription) -> usize {
        let subscriptions = &mut self.connections[slot].subscriptions;
        let subscription = Some(Box::new(subscription));
        if let Some(free) = subscriptions.iter().position(Option::is_none) {
            subscriptions[free] = subscription;
            return free;
        }
        if subscriptions.is_empty() {
            // Most connections hold one.
            subscriptions.reserve_exact(1);
        }
        subscriptions.push(subscription);
        subscriptions.len() - 1
    }

    fn unsubscribe(&mut self, slot: usize, id: RequestId, number: SubId) {
        let Some(sub) = self.sub_of(slot, number) else {
            let message = format!("this connection has no subscription {number}");
            let code = ErrorCode::UnknownSubscription;
            return self.refuse_with(slot, Some(id), None, code, message);
        };
        self.end_subscription(slot, sub);
        self.send(slot, &ServerFrame::Unsubscribed { id, sub: number });
    }

    fn acknowledge(&mut self, slot: usize, number: SubId, positions: &Positions, now: Moment) {
        let Some(sub) = self.sub_of(slot, number) else {
            // It may have ended while the acknowledgement was on its way.
            return;
        };
        let key = self.connections[slot].key(slot);
        let mut traced = self.traces.acknowledged(key, number, positions);
        if let Some(window) = &mut self.subscription_mut(slot, sub).window {
            let mut took = Latencies::default();
            window.acknowledge(positions, |sent| {
                let waited = now.instant.saturating_duration_since(sent.at);
                took.add(waited, 1);
                // Frames come in their order: the first that ends after a record has it.
                if let Some(last) = traced.extract_if(.., |t| sent.ends_after(t.record)).last() {
                    took.show(Exemplar::new(last.trace, Some(last.span), waited, now.wall));
                }
            });
            self.counts.acknowledged.merge(&took);
            self.queue(slot, sub);
        }
    }

    fn sub_of(&self, slot: usize, number: SubId) -> Option<usize> {
        self.connections[slot].subscriptions.iter().position(|subscription| {
            subscription.as_ref().is_some_and(|s| self.feeds.at(s.feed).number == number)
        })
    }

    fn refuse_with(
        &mut self,
        slot: usize,
        id: Option<RequestId>,
        sub: Option<SubId>,
        code: ErrorCode,
        message: String,
    ) {
        let retry_after = self.retry_after(code);
        self.send_error(slot, ErrorFrame { id, sub, code, message, retry_after });
    }

    /// Sends a refusal, and counts it.
    pub(in crate::delivery) fn send_error(&mut self, slot: usize, error: ErrorFrame) {
        self.counts.refusal(error.code);
        self.send(slot, &ServerFrame::Error(error));
    }
}

/// Returns what a client is told that may not read something.
fn refusal_of(denied: Denied) -> (ErrorCode, String) {
    let (code, message) = match denied {
        Denied::Channel => (ErrorCode::ChannelForbidden, "no such channel, or not for this token"),
        Denied::Key => {
            (ErrorCode::KeyForbidden, "this token may not read these keys of the channel")
        }
    };
    (code, message.to_owned())
}

fn understand(message: &Message<'_>, encoding: Encoding) -> Asked {
    match (message, encoding) {
        (Message::Text(text), Encoding::Json) => Asked::Frame(json::decode(text)),
        (Message::Binary(bytes), Encoding::Protobuf) => Asked::Frame(protobuf::decode(bytes)),
        (Message::Text(_) | Message::Binary(_), _) => Asked::Unsupported,
        (Message::Ping(payload), _) => Asked::Pong(payload.to_vec()),
        (Message::Pong(_), _) => Asked::Heard,
        (Message::Close(close), _) => Asked::Close(close.as_ref().map(|close| close.code)),
    }
}
