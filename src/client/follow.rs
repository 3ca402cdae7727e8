//! One subscription, followed over as many connections as it takes.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout_at;

use crate::client::connection::Connection;
use crate::client::connection::Ended;
use crate::client::credentials::Credentials;
use crate::client::ranges::RangeChecker;
use crate::client::ranges::Violation;
use crate::client::retry::Retry;
use crate::client::trust::Trust;
use crate::protocol::close_code::Reconnect;
use crate::protocol::frame::ClientFrame;
use crate::protocol::frame::ErrorFrame;
use crate::protocol::frame::Gap;
use crate::protocol::frame::OnGap;
use crate::protocol::frame::ServerFrame;
use crate::protocol::frame::StartAt;
use crate::protocol::frame::Subscribe;
use crate::protocol::frame::Token;
use crate::protocol::message::OwnedRecord;
use crate::protocol::message::Records;
use crate::protocol::message::ServerMessage;
use crate::types::filter::KeyFilter;
use crate::types::ids::ChannelName;
use crate::types::ids::PartitionId;
use crate::types::ids::RequestId;
use crate::types::ids::SubId;
use crate::types::ids::Timestamp;
use crate::types::positions::Place;

/// What to follow, and where.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Addresses of replicas, tried in turn; each names scheme, host and path.
    pub urls: Vec<String>,
    pub credentials: Credentials,
    pub channel: ChannelName,
    pub filter: KeyFilter,
    /// Where to start; later connections go on where the last one stopped.
    pub from: StartAt,
    pub on_gap: OnGap,
}

/// Follows one subscription: connects, resumes, and proves that the ranges
/// join. Call [`Follower::next`] until it fails.
#[derive(Debug)]
pub struct Follower {
    wish: Wish,
    trust: Trust,
    checker: RangeChecker,
    retry: Retry,
    /// The replica to connect to next, counted on without end.
    replica: usize,
    not_before: Instant,
    /// The token that the server refused: not shown again.
    refused: Option<Token>,
    line: Option<Line>,
    /// What was found along the way and is told first.
    told: VecDeque<Event>,
}

/// The connection that there is.
#[derive(Debug)]
struct Line {
    connection: Connection,
    token: Option<Token>,
    /// What the server said of the wait, before it closed.
    retry_after: Option<Duration>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// `welcome` and `subscribed` must have arrived by then.
    Opening {
        deadline: Instant,
    },
    /// The request was refused for now, and is made again then.
    Refused {
        until: Instant,
    },
    Following {
        sub: SubId,
    },
}

impl Follower {
    /// Returns a follower of `wish`; `seed` makes its waits.
    ///
    /// # Panics
    ///
    /// Without a URL there is nothing to follow.
    pub fn new(wish: Wish, seed: u64) -> Self {
        assert!(!wish.urls.is_empty(), "a wish names at least one replica");
        let checker = match &wish.from {
            StartAt::Place(place) => RangeChecker::resume(place.clone()),
            _ => RangeChecker::new(),
        };
        Self {
            wish,
            trust: Trust::System,
            checker,
            retry: Retry::new(seed),
            replica: 0,
            not_before: Instant::now(),
            refused: None,
            line: None,
            told: VecDeque::new(),
        }
    }

    /// Believes others than the system's certificates.
    #[must_use]
    pub fn with_trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Returns where to go on, once everything told so far has been dealt with;
    /// `None` before the subscription began.
    pub fn place(&self) -> Option<&Place> {
        self.checker.place()
    }

    /// Returns what happens next. When this is dropped before it is done, an
    /// attempt to connect may be begun anew, and nothing else is lost.
    ///
    /// # Errors
    ///
    /// What no new attempt can mend.
    pub async fn next(&mut self) -> Result<Event, FollowError> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            let Some(line) = &mut self.line else {
                self.connect().await?;
                continue;
            };
            let heard = match line.phase {
                Phase::Following { .. } => Some(line.connection.next().await),
                Phase::Opening { deadline: at } | Phase::Refused { until: at } => {
                    timeout_at(at, line.connection.next()).await.ok()
                }
            };
            match heard {
                Some(Ok(message)) => self.handle_message(message).await?,
                Some(Err(ended)) => self.handle_end(ended)?,
                None => self.handle_timeout().await?,
            }
        }
    }

    /// Ends the connection politely.
    pub async fn close(self) {
        if let Some(line) = self.line {
            line.connection.close().await;
        }
    }

    async fn connect(&mut self) -> Result<(), FollowError> {
        sleep_until(self.not_before).await;
        let token = self.wish.credentials.token().await.map_err(FollowError::Token)?;
        if token.is_some() && token == self.refused {
            return self.wait_for_token();
        }
        let url = &self.wish.urls[self.replica % self.wish.urls.len()];
        let deadline = Instant::now() + CONNECT_MAX;
        let opened = timeout_at(deadline, Connection::open_trusting(url, &self.trust)).await;
        let opened = match opened.unwrap_or(Err(Ended::Silent(CONNECT_MAX))) {
            Ok(connection) => connection,
            Err(ended) => return self.come_back(&ended, None, token),
        };
        let phase = Phase::Opening { deadline };
        self.line = Some(Line { connection: opened, token, retry_after: None, phase });
        match self.line.as_ref().and_then(|line| line.token.clone()) {
            Some(token) => self.send(&ClientFrame::Authenticate { token }).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, frame: &ClientFrame) -> Result<(), FollowError> {
        match self.line.as_mut().expect("frames go over a line").connection.send(frame).await {
            Ok(()) => Ok(()),
            Err(ended) => self.handle_end(ended),
        }
    }

    fn request(&self) -> Subscribe {
        let from = match self.checker.place() {
            Some(place) => StartAt::Place(place.clone()),
            None => self.wish.from.clone(),
        };
        Subscribe {
            id: REQUEST,
            channel: self.wish.channel.clone(),
            filter: self.wish.filter.clone(),
            from,
            on_gap: self.wish.on_gap,
            window: None,
        }
    }

    async fn handle_message(&mut self, message: ServerMessage) -> Result<(), FollowError> {
        let line = self.line.as_mut().expect("a message comes over a line");
        let frame = match message {
            ServerMessage::Records(records) => return self.handle_records(records),
            ServerMessage::Frame(frame) => frame,
        };
        match frame {
            ServerFrame::Welcome { heartbeat, .. } => {
                line.connection.expect_heartbeat(heartbeat);
                return self.send(&ClientFrame::Subscribe(self.request())).await;
            }
            ServerFrame::Subscribed { sub, topic_id, positions, epochs, .. } => {
                line.phase = Phase::Following { sub };
                self.retry.handle_success();
                self.checker.handle_subscribed(topic_id, &positions, &epochs)?;
                self.told.push_back(Event::Subscribed {
                    url: self.wish.urls[self.replica % self.wish.urls.len()].clone(),
                    place: Place { topic_id, positions, epochs },
                });
            }
            ServerFrame::Progress { sub, to, epochs } => {
                line.check_sub(sub)?;
                self.checker.handle_progress(&to, &epochs)?;
                self.told.push_back(Event::Progress);
            }
            ServerFrame::Gap(gap) => {
                line.check_sub(gap.sub)?;
                self.checker.handle_gap(&gap)?;
                self.told.push_back(Event::Gap(gap));
            }
            ServerFrame::Live { sub } => {
                line.check_sub(sub)?;
                self.told.push_back(Event::Live);
            }
            ServerFrame::Closing { retry_after, .. } => line.retry_after = retry_after,
            ServerFrame::Expiring { expires_at } => return self.renew(expires_at).await,
            ServerFrame::Error(error) if line.is_ended_by(&error) => {
                return self.handle_refusal(error);
            }
            ServerFrame::Error(error) => self.told.push_back(Event::Complaint(error)),
            ServerFrame::Renewed { .. } | ServerFrame::Unsubscribed { .. } | ServerFrame::Pong => {}
        }
        Ok(())
    }

    fn handle_records(&mut self, frame: Records) -> Result<(), FollowError> {
        let line = self.line.as_ref().expect("a message comes over a line");
        line.check_sub(frame.sub)?;
        let Records { partition, from, to, epoch, mut records, .. } = frame;
        let offsets = records.iter().map(|record| record.offset);
        let repeats = self.checker.handle_records(partition, from, to, epoch, offsets)?;
        records.drain(..repeats);
        self.told.push_back(Event::Records { partition, records, repeats });
        Ok(())
    }

    /// Shows the server a new token, where there is one.
    async fn renew(&mut self, expires_at: Timestamp) -> Result<(), FollowError> {
        let line = self.line.as_mut().expect("a warning comes over a line");
        let token = self.wish.credentials.token().await.map_err(FollowError::Token)?;
        let Some(fresh) = token.filter(|token| line.token.as_ref() != Some(token)) else {
            self.told.push_back(Event::Expiring { expires_at });
            return Ok(());
        };
        line.token = Some(fresh.clone());
        self.send(&ClientFrame::Authenticate { token: fresh }).await
    }

    /// Takes the passing of the moment that the phase names.
    async fn handle_timeout(&mut self) -> Result<(), FollowError> {
        let line = self.line.as_mut().expect("a phase is a line's");
        if let Phase::Opening { .. } = line.phase {
            return self.handle_end(Ended::Silent(CONNECT_MAX));
        }
        line.phase = Phase::Opening { deadline: Instant::now() + CONNECT_MAX };
        self.send(&ClientFrame::Subscribe(self.request())).await
    }

    /// Goes on after an error that ended the subscription, if that can help.
    fn handle_refusal(&mut self, error: ErrorFrame) -> Result<(), FollowError> {
        if !error.code.retry() {
            return Err(FollowError::Refused(error));
        }
        let wait = self.retry.handle_failure(Reconnect::Backoff, error.retry_after);
        let wait = wait.expect("backing off never ends");
        let line = self.line.as_mut().expect("an error comes over a line");
        line.phase = Phase::Refused { until: Instant::now() + wait };
        self.told.push_back(Event::Refused { why: error.message, wait });
        Ok(())
    }

    /// Goes on after the end of the connection, if that can help.
    fn handle_end(&mut self, ended: Ended) -> Result<(), FollowError> {
        let line = self.line.take().expect("what ends is the line");
        self.come_back(&ended, line.retry_after, line.token)
    }

    /// Prepares the next attempt, which may be at another replica.
    fn come_back(
        &mut self,
        ended: &Ended,
        retry_after: Option<Duration>,
        token: Option<Token>,
    ) -> Result<(), FollowError> {
        let advice = ended.advice();
        if token.is_none() && ended.wants_token() {
            return Err(FollowError::NoToken(ended.clone()));
        }
        if advice == Reconnect::NewToken {
            self.refused = token;
            if !self.may_get_token() {
                return Err(FollowError::TokenRefused);
            }
        }
        let retry_after = retry_after.or(ended.retry_after());
        let Some(wait) = self.retry.handle_failure(advice, retry_after) else {
            return Err(FollowError::Ended(ended.clone()));
        };
        self.replica = self.replica.wrapping_add(1);
        self.wait(wait, ended.to_string());
        Ok(())
    }

    /// Says whether a token that was refused may be followed by another: from a
    /// file, once a token of it has served.
    fn may_get_token(&self) -> bool {
        let served = self.checker.place().is_some();
        served && matches!(self.wish.credentials, Credentials::File(_))
    }

    fn wait_for_token(&mut self) -> Result<(), FollowError> {
        if !self.may_get_token() {
            return Err(FollowError::TokenRefused);
        }
        let wait = self.retry.handle_failure(Reconnect::Backoff, None);
        self.wait(wait.expect("backing off never ends"), "the token file has no other".to_owned());
        Ok(())
    }

    fn wait(&mut self, wait: Duration, why: String) {
        self.not_before = Instant::now() + wait;
        self.told.push_back(Event::Waiting { why, wait });
    }
}

impl Line {
    fn check_sub(&self, sub: SubId) -> Result<(), FollowError> {
        match self.phase {
            Phase::Following { sub: ours } if ours == sub => Ok(()),
            _ => Err(FollowError::Stranger(sub)),
        }
    }

    /// Says whether an error concerns the subscription, begun or asked for.
    fn is_ended_by(&self, error: &ErrorFrame) -> bool {
        match self.phase {
            Phase::Opening { .. } => error.id == Some(REQUEST),
            Phase::Following { sub } => error.sub == Some(sub),
            Phase::Refused { .. } => false,
        }
    }
}

/// What a follower tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A connection carries the subscription, from these positions on.
    Subscribed { url: String, place: Place },
    /// Records that the application has not had before, in order.
    Records {
        partition: PartitionId,
        records: Vec<OwnedRecord>,
        /// Records of the frame that were repeats and are left out.
        repeats: usize,
    },
    /// The position moved without records.
    Progress,
    /// Offsets are gone.
    Gap(Gap),
    /// The subscription has caught up.
    Live,
    /// The token runs out, and there is no other.
    Expiring { expires_at: Timestamp },
    /// The server objects to something, and the subscription goes on.
    Complaint(ErrorFrame),
    /// The server refuses the subscription for now; it is asked again after the
    /// wait, over the same connection.
    Refused { why: String, wait: Duration },
    /// There is no connection; the next attempt comes after the wait.
    Waiting { why: String, wait: Duration },
}

/// Why a follower can't go on.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The server broke its promise.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The server speaks of a subscription that is not ours.
    #[error("the server sent a frame of subscription {0}, which was never asked for")]
    Stranger(SubId),
    /// The server says no, and will say no again.
    #[error("{}: {}", .0.code.name(), .0.message)]
    Refused(ErrorFrame),
    /// The same token would be refused again.
    #[error("the server refused the token, and there is no other")]
    TokenRefused,
    /// The server wants a token.
    #[error("{0}; no token was given")]
    NoToken(Ended),
    #[error("can't read the token: {0}")]
    Token(#[source] io::Error),
    /// The connection ended in a way that coming back can't mend.
    #[error(transparent)]
    Ended(Ended),
}

/// The number of the only request of a connection.
const REQUEST: RequestId = RequestId::new(1);
/// How long an attempt may take from the address to the subscription.
const CONNECT_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
