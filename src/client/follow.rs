//! One subscription, followed over as many connections as it takes.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::client::connection::Connection;
use crate::client::connection::Ended;
use crate::client::credentials::Credentials;
use crate::client::ranges::RangeChecker;
use crate::client::ranges::Violation;
use crate::client::retry::Retry;
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

/// A connection that carries the subscription.
#[derive(Debug)]
struct Line {
    connection: Connection,
    sub: SubId,
    token: Option<Token>,
    /// What the server said of the wait, before it closed.
    retry_after: Option<Duration>,
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
            checker,
            retry: Retry::new(seed),
            replica: 0,
            not_before: Instant::now(),
            refused: None,
            line: None,
            told: VecDeque::new(),
        }
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
            match line.connection.next().await {
                Ok(message) => self.handle_message(message).await?,
                Err(ended) => {
                    let retry_after = line.retry_after;
                    let token = line.token.take();
                    self.handle_end(ended, retry_after, token)?;
                }
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
        let mut closing = None;
        let opened = timeout(CONNECT_MAX, self.subscribe(url, token.as_ref(), &mut closing)).await;
        let opened = opened.unwrap_or(Err(Opening::Ended(Ended::Silent(CONNECT_MAX))));
        let (connection, sub, place) = match opened {
            Ok(opened) => opened,
            Err(Opening::Refused(error)) => return self.handle_refusal(error),
            Err(Opening::Ended(ended)) => return self.handle_end(ended, closing, token),
        };
        self.told.push_back(Event::Subscribed { url: url.clone(), place: place.clone() });
        self.line = Some(Line { connection, sub, token, retry_after: None });
        self.checker.handle_subscribed(place.topic_id, &place.positions)?;
        Ok(())
    }

    /// Opens a connection, says who we are and what we want.
    async fn subscribe(
        &self,
        url: &str,
        token: Option<&Token>,
        closing: &mut Option<Duration>,
    ) -> Result<(Connection, SubId, Place), Opening> {
        let mut connection = Connection::open(url).await?;
        if let Some(token) = token {
            connection.send(&ClientFrame::Authenticate { token: token.clone() }).await?;
        }
        loop {
            match connection.next().await? {
                ServerMessage::Frame(ServerFrame::Welcome { heartbeat, .. }) => {
                    connection.expect_heartbeat(heartbeat);
                    connection.send(&ClientFrame::Subscribe(self.request())).await?;
                }
                ServerMessage::Frame(ServerFrame::Subscribed {
                    sub, topic_id, positions, ..
                }) => return Ok((connection, sub, Place { topic_id, positions })),
                ServerMessage::Frame(ServerFrame::Error(error)) if error.id == Some(REQUEST) => {
                    return Err(Opening::Refused(error));
                }
                ServerMessage::Frame(ServerFrame::Closing { retry_after, .. }) => {
                    *closing = retry_after;
                }
                // Nothing else concerns a subscription that has not begun.
                ServerMessage::Frame(_) | ServerMessage::Records(_) => {}
            }
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
            ServerFrame::Progress { sub, to } => {
                check_sub(line, sub)?;
                self.checker.handle_progress(&to)?;
                self.retry.handle_success();
                self.told.push_back(Event::Progress);
            }
            ServerFrame::Gap(gap) => {
                check_sub(line, gap.sub)?;
                self.checker.handle_gap(&gap)?;
                self.told.push_back(Event::Gap(gap));
            }
            ServerFrame::Live { sub } => {
                check_sub(line, sub)?;
                self.retry.handle_success();
                self.told.push_back(Event::Live);
            }
            ServerFrame::Closing { retry_after, .. } => line.retry_after = retry_after,
            ServerFrame::Expiring { expires_at } => return self.renew(expires_at).await,
            ServerFrame::Error(error) if error.sub == Some(line.sub) => {
                return self.handle_refusal(error);
            }
            ServerFrame::Error(error) => self.told.push_back(Event::Complaint(error)),
            ServerFrame::Welcome { .. }
            | ServerFrame::Renewed { .. }
            | ServerFrame::Subscribed { .. }
            | ServerFrame::Unsubscribed { .. }
            | ServerFrame::Pong => {}
        }
        Ok(())
    }

    fn handle_records(&mut self, frame: Records) -> Result<(), FollowError> {
        let line = self.line.as_ref().expect("a message comes over a line");
        check_sub(line, frame.sub)?;
        let Records { partition, from, to, mut records, .. } = frame;
        let offsets = records.iter().map(|record| record.offset);
        let repeats = self.checker.handle_records(partition, from, to, offsets)?;
        records.drain(..repeats);
        self.retry.handle_success();
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
        if let Err(ended) = line.connection.send(&ClientFrame::Authenticate { token: fresh }).await
        {
            self.handle_end(ended, None, None)?;
        }
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

    /// Goes on after an error that ended the subscription, if that can help.
    fn handle_refusal(&mut self, error: ErrorFrame) -> Result<(), FollowError> {
        self.line = None;
        if !error.code.retry() {
            return Err(FollowError::Refused(error));
        }
        let wait = self.retry.handle_failure(Reconnect::Backoff, error.retry_after);
        self.wait(wait.expect("backing off never ends"), error.message);
        Ok(())
    }

    /// Goes on after the end of a connection, if that can help.
    fn handle_end(
        &mut self,
        ended: Ended,
        retry_after: Option<Duration>,
        token: Option<Token>,
    ) -> Result<(), FollowError> {
        self.line = None;
        let advice = ended.advice();
        if token.is_none() && ended.wants_token() {
            return Err(FollowError::Ended(ended));
        }
        if advice == Reconnect::NewToken {
            self.refused = token;
            if !self.may_get_token() {
                return Err(FollowError::TokenRefused);
            }
        }
        let retry_after = retry_after.or(ended.retry_after());
        let Some(wait) = self.retry.handle_failure(advice, retry_after) else {
            return Err(FollowError::Ended(ended));
        };
        self.replica = self.replica.wrapping_add(1);
        self.wait(wait, ended.to_string());
        Ok(())
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
    #[error("can't read the token: {0}")]
    Token(#[source] io::Error),
    /// The connection ended in a way that coming back can't mend.
    #[error(transparent)]
    Ended(Ended),
}

/// Why a connection never came to carry the subscription.
enum Opening {
    Refused(ErrorFrame),
    Ended(Ended),
}

impl From<Ended> for Opening {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// The number of the only request of a connection.
const REQUEST: RequestId = RequestId::new(1);
/// How long an attempt may take from the address to the subscription.
const CONNECT_MAX: Duration = Duration::from_secs(30);

fn check_sub(line: &Line, sub: SubId) -> Result<(), FollowError> {
    if line.sub == sub { Ok(()) } else { Err(FollowError::Stranger(sub)) }
}

#[cfg(test)]
mod tests;
