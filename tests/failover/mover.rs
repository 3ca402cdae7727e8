//! A client of the rolling update: follows through one proxy, and remembers how
//! each of its connections ended.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout_at;

use brucke::client::connection::Connection;
use brucke::client::connection::Ended;
use brucke::client::ranges::RangeChecker;
use brucke::client::ranges::Violation;
use brucke::protocol::close_code::CloseCode;
use brucke::protocol::frame::ClientFrame;
use brucke::protocol::frame::OnGap;
use brucke::protocol::frame::ServerFrame;
use brucke::protocol::frame::StartAt;
use brucke::protocol::frame::Subscribe;
use brucke::protocol::frame::Token;
use brucke::protocol::message::ServerMessage;
use brucke::types::ids::ChannelName;
use brucke::types::ids::RequestId;

use crate::checker::Seen;
use crate::checker::Wanted;
use crate::client::Flow;
use crate::client::filter;
use crate::client::has_reached;
use crate::client::seen;
use crate::scenario::CHANNELS;
use crate::scenario::TENANTS;
use crate::support::brucke::mint;

/// What a client went through.
#[derive(Debug, Default)]
pub struct Journey {
    /// What reached the application, in order.
    pub seen: Vec<Seen>,
    /// When each subscription after the first began.
    pub moves: Vec<Instant>,
    /// When each connection after the first subscription was let in.
    pub let_in: Vec<Instant>,
    /// When each `closing` frame came.
    pub told: Vec<Instant>,
    /// When it was to come back, by each of them.
    pub due: Vec<Instant>,
    /// Close frames that say that the server drains.
    pub drained: usize,
    /// Connections that ended in any other way, and how.
    pub cuts: Vec<String>,
    /// Attempts for which a replica named another time.
    pub refused: usize,
    /// Other attempts that ended before a subscription, and how.
    pub failed_attempts: Vec<String>,
    /// Why it gave up.
    pub fault: Option<String>,
}

/// Follows what is wanted through `url` until the end of the log is reached.
/// Says through `joined` when it is subscribed for the first time, or why it
/// never will be.
pub async fn travel(
    wanted: Wanted,
    url: String,
    flow: watch::Receiver<Flow>,
    joined: mpsc::Sender<Result<(), String>>,
    patience: Duration,
) -> Journey {
    let token = Token::new(mint(TENANTS[wanted.tenant]));
    let checker = RangeChecker::new();
    let journey = Journey::default();
    let (has_begun, subscribed) = (false, false);
    let mut traveller =
        Traveller { wanted, url, token, flow, joined, checker, journey, has_begun, subscribed };
    while let Err(stop) = traveller.follow(patience).await {
        let wait = match stop {
            Stop::GiveUp(why) => {
                let _ = traveller.joined.try_send(Err(why.clone()));
                traveller.journey.fault = Some(why);
                break;
            }
            Stop::ComeBack { after } => after,
        };
        sleep(wait.unwrap_or_else(|| RETRY_MAX.mul_f64(fastrand::f64()))).await;
    }
    traveller.journey
}

struct Traveller {
    wanted: Wanted,
    url: String,
    token: Token,
    flow: watch::Receiver<Flow>,
    joined: mpsc::Sender<Result<(), String>>,
    checker: RangeChecker,
    journey: Journey,
    /// Whether any connection has carried the subscription.
    has_begun: bool,
    /// Whether the connection that there is has.
    subscribed: bool,
}

/// Why a connection is over.
enum Stop {
    /// No other connection helps.
    GiveUp(String),
    /// The server named a wait, or did not.
    ComeBack { after: Option<Duration> },
}

impl Traveller {
    /// Follows over one connection; returns once all was read.
    async fn follow(&mut self, patience: Duration) -> Result<(), Stop> {
        self.subscribed = false;
        let mut told = None;
        let mut connection = match Connection::open(&self.url).await {
            Ok(connection) => connection,
            Err(ended) => return Err(self.over(&ended, ended.retry_after())),
        };
        if self.has_begun {
            self.journey.let_in.push(Instant::now());
        }
        let authenticate = ClientFrame::Authenticate { token: self.token.clone() };
        if let Err(ended) = connection.send(&authenticate).await {
            return Err(self.over(&ended, None));
        }
        let mut deadline = Instant::now() + patience;
        loop {
            if self.has_read_all() {
                connection.close().await;
                return Ok(());
            }
            let message = tokio::select! {
                message = timeout_at(deadline, connection.next()) => message,
                Ok(()) = self.flow.changed() => continue,
            };
            let Ok(message) = message else {
                let place = self.checker.place();
                return Err(Stop::GiveUp(format!("stuck for {patience:?} at {place:?}")));
            };
            deadline = Instant::now() + patience;
            let frame = match message {
                Ok(message) => self.handle(message, &mut told)?,
                Err(ended) => return Err(self.over(&ended, told)),
            };
            if let Some(frame) = frame
                && let Err(ended) = connection.send(&frame).await
            {
                return Err(self.over(&ended, told));
            }
        }
    }

    fn has_read_all(&mut self) -> bool {
        let ends = self.flow.borrow_and_update().ends.clone();
        let place = self.checker.place();
        ends.zip(place).is_some_and(|(ends, place)| has_reached(place, &ends[self.wanted.topic]))
    }

    /// Takes a message, and returns what to answer.
    fn handle(
        &mut self,
        message: ServerMessage,
        told: &mut Option<Duration>,
    ) -> Result<Option<ClientFrame>, Stop> {
        let frame = match message {
            ServerMessage::Records(mut frame) => {
                let offsets = frame.records.iter().map(|record| record.offset);
                let repeats = self
                    .checker
                    .handle_records(frame.partition, frame.from, frame.to, frame.epoch, offsets)
                    .map_err(broken)?;
                frame.records.drain(..repeats);
                let records = frame.records.iter().map(|record| seen(frame.partition, record));
                self.journey.seen.extend(records);
                return Ok(None);
            }
            ServerMessage::Frame(frame) => frame,
        };
        match frame {
            ServerFrame::Welcome { .. } => return Ok(Some(ClientFrame::Subscribe(self.request()))),
            ServerFrame::Subscribed { topic_id, positions, epochs, .. } => {
                let started = self.checker.handle_subscribed(topic_id, &positions, &epochs);
                started.map_err(broken)?;
                self.begin();
            }
            ServerFrame::Progress { to, epochs, .. } => {
                self.checker.handle_progress(&to, &epochs).map_err(broken)?;
            }
            ServerFrame::Closing { code: CloseCode::Draining, retry_after: Some(after) } => {
                let now = Instant::now();
                self.journey.told.push(now);
                self.journey.due.push(now + after);
                *told = Some(after);
            }
            ServerFrame::Live { .. } | ServerFrame::Pong => {}
            ServerFrame::Error(error) if error.code.retry() => {
                self.journey.failed_attempts.push(error.message);
                return Err(Stop::ComeBack { after: error.retry_after });
            }
            other => return Err(Stop::GiveUp(format!("the server says {other:?}"))),
        }
        Ok(None)
    }

    fn begin(&mut self) {
        self.subscribed = true;
        if self.has_begun {
            self.journey.moves.push(Instant::now());
        } else {
            self.has_begun = true;
            // The run has stopped waiting only when it failed.
            let _ = self.joined.try_send(Ok(()));
        }
    }

    fn request(&self) -> Subscribe {
        let from = match self.checker.place() {
            Some(place) => StartAt::Place(place.clone()),
            None => StartAt::Earliest,
        };
        Subscribe {
            id: RequestId::new(1),
            channel: ChannelName::new(CHANNELS[self.wanted.topic].0),
            filter: filter(&self.wanted),
            from,
            on_gap: OnGap::Continue,
            window: None,
        }
    }

    /// Says which attempt failed and how.
    fn attempt(&self, ended: &Ended) -> String {
        let which = if self.has_begun { "return" } else { "arrival" };
        format!("{which}: {ended}")
    }

    /// Notes the end of a connection.
    fn over(&mut self, ended: &Ended, told: Option<Duration>) -> Stop {
        let draining = CloseCode::Draining.number();
        match ended {
            Ended::Closed { number, .. } if *number == draining => self.journey.drained += 1,
            Ended::Refused { retry_after: Some(_), .. } => self.journey.refused += 1,
            _ if !self.subscribed => self.journey.failed_attempts.push(self.attempt(ended)),
            _ => self.journey.cuts.push(ended.to_string()),
        }
        if self.journey.failed_attempts.len() + self.journey.refused > FAILED_ATTEMPTS_MAX {
            return Stop::GiveUp(format!("{FAILED_ATTEMPTS_MAX} attempts failed: {ended}"));
        }
        Stop::ComeBack { after: told }
    }
}

fn broken(violation: Violation) -> Stop {
    Stop::GiveUp(violation.to_string())
}

/// Longest wait before the next attempt, where the server named none.
const RETRY_MAX: Duration = Duration::from_secs(1);
const FAILED_ATTEMPTS_MAX: usize = 100;
