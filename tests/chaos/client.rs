//! One client: follows by the rule of the protocol's document, over as many
//! connections as it takes, and logs all that it hears.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use brucke_checker::line::ClientLine;
use brucke_checker::line::GapReason;
use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::clock::Clock;
use crate::journal::Journal;
use crate::journal::client_file;
use crate::plan::PLANS;
use crate::plan::Wanted;
use crate::support::brucke::mint_for;
use crate::tally::Tally;
use crate::wire;
use crate::wire::Frame;

/// What a client is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Follow,
    /// Has no connection.
    BeAway,
    /// Keeps the connection and reads nothing.
    ReadNothing,
    /// Reads so few frames a second.
    ReadSlowly(u32),
    Stop,
}

/// Topic id and position of each partition.
pub type Place = (String, BTreeMap<u32, u64>);

/// A client as the stage sees it.
pub struct Client {
    pub wanted: Wanted,
    pub order: watch::Sender<Order>,
    place: Arc<Mutex<Option<Place>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Starts a client; `ports` are the replicas, tried in turn.
    pub fn start(
        number: usize,
        wanted: Wanted,
        ports: Vec<u16>,
        folder: &Path,
        clock: Clock,
        tally: &Arc<Tally>,
    ) -> Self {
        let (order, orders) = watch::channel(Order::Follow);
        let place = Arc::default();
        let mut journal = Journal::create(&client_file(folder, number));
        let name = format!("client {number} of {}", PLANS[wanted.topic].name);
        journal.write(&ClientLine::Client {
            name,
            tenant: wanted.tenant.to_owned(),
            filter: wanted.filter.clone(),
            start: wanted.start,
        });
        let mind = Mind {
            wanted: wanted.clone(),
            ports,
            replica: number,
            clock,
            tally: Arc::clone(tally),
            journal,
            place: Arc::clone(&place),
            epochs: BTreeMap::new(),
            sub: None,
            random: fastrand::Rng::with_seed(number as u64),
            attempt: 0,
            heartbeat: Duration::from_secs(25),
        };
        let task = tokio::spawn(mind.run(orders));
        Self { wanted, order, place, task }
    }

    /// Returns where the client stands.
    pub fn place(&self) -> Option<Place> {
        self.place.lock().expect("no panic").clone()
    }

    pub fn tell(&self, order: Order) {
        self.order.send_replace(order);
    }

    /// Waits until a client that was told to stop has written its log.
    pub async fn finish(self) {
        self.task.await.expect("a client does not panic");
    }
}

/// The state of a client's task.
struct Mind {
    wanted: Wanted,
    ports: Vec<u16>,
    /// The replica to connect to next, counted on without end.
    replica: usize,
    clock: Clock,
    tally: Arc<Tally>,
    journal: Journal,
    place: Arc<Mutex<Option<Place>>>,
    /// The newest epoch of each partition.
    epochs: BTreeMap<u32, [u64; 2]>,
    sub: Option<u64>,
    random: fastrand::Rng,
    attempt: u32,
    heartbeat: Duration,
}

type Socket = WebSocketStream<TcpStream>;

/// How a connection ended.
struct End {
    code: Option<u16>,
    retry_after: Option<Duration>,
    /// The server said that coming back is of no use.
    for_good: bool,
}

/// What to do after a frame.
enum Next {
    GoOn,
    /// The request was refused for now.
    AskAgain(Duration),
    GiveUp,
}

impl Mind {
    async fn run(mut self, mut orders: watch::Receiver<Order>) {
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Stop => break,
                Order::BeAway => {
                    if orders.changed().await.is_err() {
                        break;
                    }
                    continue;
                }
                _ => {}
            }
            let replica = self.replica % self.ports.len();
            let Some(mut socket) = open(self.ports[replica]).await else {
                self.replica += 1;
                let wait = self.backoff(None);
                self.wait(wait, &mut orders).await;
                continue;
            };
            let (at, replica) = (self.clock.now(), Some(replica));
            self.journal.write(&ClientLine::Connect { at, replica });
            let end = self.converse(&mut socket, &mut orders).await;
            // Dropped, not closed: half of the faults leave nobody to answer.
            drop(socket);
            self.sub = None;
            self.journal.write(&ClientLine::Disconnect { at: self.clock.now(), code: end.code });
            let told = *orders.borrow();
            if told == Order::Stop {
                break;
            }
            if told != Order::BeAway {
                self.tally.disconnected(end.code);
            }
            if end.for_good {
                let text = format!("{:?} was sent away for good: {:?}", self.wanted, end.code);
                self.tally.complain(text);
                break;
            }
            self.replica += 1;
            let wait = end.retry_after.unwrap_or_else(|| self.backoff(end.code));
            self.wait(wait, &mut orders).await;
        }
        self.journal.flush();
    }

    async fn wait(&self, wait: Duration, orders: &mut watch::Receiver<Order>) {
        tokio::select! {
            () = sleep(wait) => {}
            _ = orders.changed() => orders.mark_changed(),
        }
    }

    /// Returns a random wait under a ceiling that doubles.
    fn backoff(&mut self, code: Option<u16>) -> Duration {
        let first = match code {
            Some(1012 | 4002 | 4003 | 4004) => 250,
            _ => 1_000,
        };
        let ceiling = (first << self.attempt.min(4)).min(BACKOFF_MAX_MS);
        self.attempt += 1;
        Duration::from_millis(self.random.u64(..ceiling))
    }

    async fn converse(&mut self, socket: &mut Socket, orders: &mut watch::Receiver<Order>) -> End {
        let mut end = End { code: None, retry_after: None, for_good: false };
        let token = mint_for(self.wanted.tenant, TOKEN_VALIDITY);
        if !say(socket, wire::authenticate(&token)).await || !self.ask(socket).await {
            return end;
        }
        let mut asked_for_life = false;
        let mut pong_max = PONG_MAX;
        let mut ask_at: Option<tokio::time::Instant> = None;
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Stop | Order::BeAway => return end,
                Order::ReadNothing => {
                    self.journal.write(&ClientLine::Asleep { at: self.clock.now() });
                    pong_max = PONG_MAX_ASLEEP;
                    if orders.changed().await.is_err() {
                        return end;
                    }
                    self.journal.write(&ClientLine::Awake { at: self.clock.now() });
                    continue;
                }
                Order::ReadSlowly(rate) => {
                    sleep(Duration::from_secs(1) / rate).await;
                }
                Order::Follow => {}
            }
            let quiet = if asked_for_life { pong_max } else { self.heartbeat + SILENCE_SLACK };
            let again = async {
                match ask_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = timeout(quiet, socket.next()) => heard,
                () = again => {
                    ask_at = None;
                    if !self.ask(socket).await {
                        return end;
                    }
                    continue;
                }
                changed = orders.changed() => {
                    if changed.is_err() {
                        return end;
                    }
                    orders.mark_changed();
                    continue;
                }
            };
            let message = match heard {
                Err(_) if asked_for_life => return end,
                Err(_) => {
                    asked_for_life = true;
                    if !say(socket, r#"{"type":"ping"}"#.to_owned()).await {
                        return end;
                    }
                    continue;
                }
                Ok(None | Some(Err(_))) => return end,
                Ok(Some(Ok(message))) => message,
            };
            asked_for_life = false;
            match message {
                Message::Text(text) => match self.handle_frame(&text, &mut end) {
                    Next::GoOn => {}
                    Next::AskAgain(wait) => ask_at = Some(tokio::time::Instant::now() + wait),
                    Next::GiveUp => {
                        end.for_good = true;
                        return end;
                    }
                },
                Message::Close(frame) => {
                    end.code = frame.map(|frame| frame.code.into());
                    let never = [1002, 1003, 1007, 1009, 4006];
                    end.for_good = end.code.is_some_and(|code| never.contains(&code));
                    return end;
                }
                _ => {}
            }
        }
    }

    /// Asks for the subscription, from where the client stands.
    async fn ask(&mut self, socket: &mut Socket) -> bool {
        self.journal.write(&ClientLine::Ask { at: self.clock.now() });
        let frame = {
            let place = self.place.lock().expect("no panic");
            let place = place.as_ref().map(|(topic, positions)| (topic.as_str(), positions));
            let Wanted { topic, filter, start, .. } = &self.wanted;
            wire::subscribe(PLANS[*topic].name, filter, *start, place, &self.epochs)
        };
        say(socket, frame).await
    }

    fn handle_frame(&mut self, text: &str, end: &mut End) -> Next {
        let at = self.clock.now();
        let frame: Frame<'_> = match serde_json::from_str(text) {
            Ok(frame) => frame,
            Err(error) => {
                self.tally.complain(format!("unreadable: {error}: {text:.200}"));
                return Next::GoOn;
            }
        };
        let of_a_subscription = ["records", "progress", "gap", "live"].contains(&&*frame.kind);
        if of_a_subscription && (frame.sub.is_none() || frame.sub != self.sub) {
            self.tally.complain(format!("a frame of no subscription of ours: {text:.200}"));
            return Next::GoOn;
        }
        match &*frame.kind {
            "welcome" => {
                self.heartbeat = Duration::from_millis(frame.heartbeat_ms.unwrap_or(25_000));
            }
            "subscribed" => {
                self.attempt = 0;
                self.sub = frame.sub;
                let pos = frame.positions.as_ref().and_then(wire::numbered).unwrap_or_default();
                self.note_epochs(frame.epochs.as_ref());
                let topic = frame.topic_id.unwrap_or_default();
                self.place
                    .lock()
                    .expect("no panic")
                    .get_or_insert_with(|| (topic.clone(), pos.clone()));
                self.journal.write(&ClientLine::Subscribed { at, topic, pos });
            }
            "records" => return self.handle_records(at, &frame, text),
            "progress" => {
                let to = frame.to_positions().unwrap_or_default();
                to.iter().for_each(|(p, to)| self.advance(*p, *to));
                self.note_epochs(frame.epochs.as_ref());
                self.journal.write(&ClientLine::Progress { at, to });
            }
            "gap" => self.handle_gap(at, &frame, text),
            "live" => self.journal.write(&ClientLine::Live { at }),
            "error" => return self.handle_error(at, &frame),
            "closing" => {
                end.retry_after = frame.retry_after_ms.map(Duration::from_millis);
                let code = frame.code.unwrap_or_default();
                self.journal.write(&ClientLine::Closing { at, code });
            }
            _ => {}
        }
        Next::GoOn
    }

    fn handle_records(&mut self, at: u64, frame: &Frame<'_>, text: &str) -> Next {
        let (Some(p), Some(from), Some(to), Some(records)) =
            (frame.partition, frame.from, frame.to_number(), &frame.records)
        else {
            self.tally.complain(format!("a records frame lacks something: {text:.200}"));
            return Next::GoOn;
        };
        let position = self.position(p);
        let drop = records.iter().take_while(|record| record.offset < position).count();
        let r: Vec<_> = records.iter().map(|r| (r.offset, r.key(), r.sum())).collect();
        self.tally.delivered(r.len() - drop, at);
        self.journal.write(&ClientLine::Records { at, p, from, to, drop, r });
        self.advance(p, to);
        self.epochs.extend(frame.epoch.map(|epoch| (p, epoch)));
        Next::GoOn
    }

    fn note_epochs(&mut self, epochs: Option<&BTreeMap<String, [u64; 2]>>) {
        let named = epochs.into_iter().flatten();
        self.epochs.extend(named.filter_map(|(p, epoch)| Some((p.parse().ok()?, *epoch))));
    }

    fn handle_gap(&mut self, at: u64, frame: &Frame<'_>, text: &str) {
        let (Some(p), Some(from), Some(to), Some(why)) =
            (frame.partition, frame.from, frame.to_number(), frame.gap_reason())
        else {
            self.tally.complain(format!("a gap frame lacks something: {text:.200}"));
            return;
        };
        let topic = frame.topic_id.clone();
        self.tally.gap(why);
        match why {
            GapReason::Retention | GapReason::Skipped => self.advance(p, to),
            GapReason::Truncated | GapReason::TopicRecreated => {
                self.epochs.remove(&p);
                let mut place = self.place.lock().expect("no panic");
                if let Some((known, positions)) = &mut *place {
                    if let Some(topic) = &topic
                        && topic != known
                    {
                        known.clone_from(topic);
                        positions.clear();
                        self.epochs.clear();
                    }
                    positions.insert(p, to);
                }
            }
        }
        self.journal.write(&ClientLine::Gap { at, p, from, to, why, topic });
    }

    fn handle_error(&mut self, at: u64, frame: &Frame<'_>) -> Next {
        let code = frame.code.clone().unwrap_or_default();
        self.tally.error(&code);
        if frame.id != Some(1) && (frame.sub.is_none() || frame.sub != self.sub) {
            self.tally.complain(format!("{code}: {:?}", frame.message));
            return Next::GoOn;
        }
        self.journal.write(&ClientLine::Error { at, code: code.clone() });
        self.sub = None;
        if frame.retry != Some(true) {
            self.tally.complain(format!("{:?}: {code}: {:?}", self.wanted, frame.message));
            return Next::GiveUp;
        }
        let told = frame.retry_after_ms.map(Duration::from_millis);
        Next::AskAgain(told.unwrap_or_else(|| self.backoff(None)))
    }

    fn position(&self, p: u32) -> u64 {
        let place = self.place.lock().expect("no panic");
        place.as_ref().and_then(|(_, positions)| positions.get(&p).copied()).unwrap_or(0)
    }

    fn advance(&self, p: u32, to: u64) {
        let mut place = self.place.lock().expect("no panic");
        let Some((_, positions)) = &mut *place else { return };
        let position = positions.entry(p).or_default();
        *position = to.max(*position);
    }
}

async fn open(port: u16) -> Option<Socket> {
    let opening = async {
        // Before it connects: a buffer that shrinks afterwards drops what it had
        // promised to take, and the peer's system waits seconds to send it again.
        let socket = TcpSocket::new_v4().ok()?;
        socket.set_recv_buffer_size(SOCKET_BYTES).ok()?;
        let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.ok()?;
        let _ = stream.set_nodelay(true);
        let url = format!("ws://127.0.0.1:{port}/v1/ws");
        let mut request = url.into_client_request().expect("a good address");
        let json = HeaderValue::from_static("brucke.v1.json");
        request.headers_mut().insert("sec-websocket-protocol", json);
        Some(client_async(request, stream).await.ok()?.0)
    };
    timeout(CONNECT_MAX, opening).await.ok().flatten()
}

async fn say(socket: &mut Socket, frame: String) -> bool {
    let saying = socket.send(Message::text(frame));
    matches!(timeout(CONNECT_MAX, saying).await, Ok(Ok(())))
}

/// How long an attempt to connect, or to say something, may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Bytes that the system may keep for a client that does not read: what Linux
/// gives by itself. It counts a small frame as some KB, and with much less it
/// drops what it can't keep.
const SOCKET_BYTES: u32 = 128 << 10;
/// Silence beyond the heartbeat after which the client asks whether the server
/// lives.
const SILENCE_SLACK: Duration = Duration::from_secs(1);
/// How long it waits for the answer.
const PONG_MAX: Duration = Duration::from_secs(2);
/// The same for who read nothing for a while, as the protocol says. Its own system
/// has dropped what it had no room for, and the server's waits up to some seconds
/// before it sends that again.
const PONG_MAX_ASLEEP: Duration = Duration::from_secs(10);
/// Longest wait before another attempt.
const BACKOFF_MAX_MS: u64 = 3_000;
/// Long enough for a clock that jumps.
const TOKEN_VALIDITY: Duration = Duration::from_secs(24 * 3_600);
