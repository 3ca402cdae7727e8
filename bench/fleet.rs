//! The load client: many connections, read by one thread as cheaply as can be.
//!
//! Of each WebSocket frame only the header is parsed; in the payload the records
//! are counted by their first bytes. What does not belong there (an error, a
//! gap, a close, a record too many) ends the measurement.

use std::collections::BTreeMap;
use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use memchr::memmem::Finder;
use mio::Events;
use mio::Poll;
use mio::Token;

use crate::machine;
use crate::socket::Security;
use crate::socket::Socket;

/// Connections to one server.
#[derive(Debug)]
pub struct Fleet {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    security: Security,
    reader: Reader,
}

/// What all connections together have got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    /// Frames with records in them.
    pub frames: u64,
    /// Bytes of those, headers included.
    pub bytes: u64,
    /// Subscriptions that are live.
    pub live: u64,
    pub progress: u64,
}

#[derive(Debug)]
struct Client {
    stream: Socket,
    phase: Phase,
    /// The begin of a frame whose rest has not come yet.
    partial: Vec<u8>,
    records: u64,
    expected: u64,
    /// Where it stands, if its ranges are to be proven.
    place: Option<BTreeMap<u32, u64>>,
    opened: Instant,
    subscribed: Option<Instant>,
    live: Option<Instant>,
}

/// When a client connected, and when its last subscription began and was live.
#[derive(Debug, Clone, Copy)]
pub struct Return {
    pub opened: Instant,
    pub subscribed: Instant,
    pub live: Instant,
}

#[derive(Debug)]
enum Phase {
    /// The answer to the handshake is awaited; then these requests are sent.
    Upgrading(Vec<String>),
    Open,
}

/// What reading needs beside the client itself.
#[derive(Debug)]
struct Reader {
    buffer: Vec<u8>,
    counts: Counts,
    /// Clients that have not got all that they are to get.
    short: usize,
    record: Finder<'static>,
    /// Records that the first client got since it was last asked, as they came.
    sample: Vec<u8>,
    stamp: Finder<'static>,
    stamps: Stamps,
}

/// Whether the age of each record is noted.
#[derive(Debug)]
enum Stamps {
    Ignored,
    Noted(Vec<Duration>),
}

impl Fleet {
    /// Returns a fleet without connections.
    ///
    /// # Errors
    ///
    /// When the system gives no descriptor.
    pub fn new() -> Result<Self> {
        Self::with(Security::Plain)
    }

    /// Returns a fleet that speaks so.
    ///
    /// # Errors
    ///
    /// When the system gives no descriptor.
    pub fn with(security: Security) -> Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            clients: Vec::new(),
            security,
            reader: Reader {
                buffer: vec![0; BUFFER_BYTES],
                counts: Counts::default(),
                short: 0,
                record: Finder::new(b"{\"offset\":"),
                sample: Vec::new(),
                stamp: Finder::new(STAMP),
                stamps: Stamps::Ignored,
            },
        })
    }

    /// Opens connections on which frames come from the first byte on.
    ///
    /// # Errors
    ///
    /// When one can't be opened.
    pub fn connect_bare(&mut self, address: SocketAddr, clients: usize) -> Result<()> {
        (0..clients).try_for_each(|_| self.connect(address, Phase::Open))
    }

    /// Opens a connection for each list of requests, sends them and waits until
    /// every subscription is live.
    ///
    /// # Errors
    ///
    /// When a connection is refused or something else than that comes.
    pub fn subscribe(&mut self, address: SocketAddr, requests: Vec<Vec<String>>) -> Result<()> {
        let mut live = self.counts().live;
        let mut unopened = requests.into_iter().peekable();
        while unopened.peek().is_some() {
            for requests in unopened.by_ref().take(OPENED_AT_ONCE) {
                live += requests.len() as u64;
                self.connect(address, Phase::Upgrading(requests))?;
                let stream = &mut self.clients.last_mut().expect("just connected").stream;
                stream.write_all(HANDSHAKE.as_bytes())?;
            }
            self.run_until("subscriptions", |counts| counts.live >= live)?;
        }
        Ok(())
    }

    /// Opens one connection that sends these requests, and whose subscription begins
    /// at `place`: every range of it is to join.
    ///
    /// # Errors
    ///
    /// When it can't be opened.
    pub fn open(
        &mut self,
        address: SocketAddr,
        requests: Vec<String>,
        place: BTreeMap<u32, u64>,
    ) -> Result<()> {
        self.connect(address, Phase::Upgrading(requests))?;
        let client = self.clients.last_mut().expect("just connected");
        client.place = Some(place);
        client.stream.write_all(HANDSHAKE.as_bytes())?;
        Ok(())
    }

    /// Says whether each client has got at least so many records.
    pub fn has_each(&self, records: &[u64]) -> bool {
        self.clients.iter().zip(records).all(|(client, least)| client.records >= *least)
    }

    /// Returns when each client that is live connected and became live, in the order
    /// in which they were opened.
    pub fn returns(&self) -> impl Iterator<Item = Return> {
        let returned = |client: &Client| {
            let (subscribed, live) = client.subscribed.zip(client.live)?;
            Some(Return { opened: client.opened, subscribed, live })
        };
        self.clients.iter().filter_map(returned)
    }

    /// Returns what all connections have got so far.
    pub fn counts(&self) -> Counts {
        self.reader.counts
    }

    /// Notes the age of each record from now on.
    pub fn note_stamps(&mut self) {
        self.reader.stamps = Stamps::Noted(Vec::new());
    }

    /// Returns the ages of the records since they were asked for, in the order
    /// in which they came.
    pub fn take_stamps(&mut self) -> Vec<Duration> {
        match std::mem::replace(&mut self.reader.stamps, Stamps::Ignored) {
            Stamps::Ignored => Vec::new(),
            Stamps::Noted(ages) => ages,
        }
    }

    /// Returns the bytes of the records that the first client has got since it
    /// was last asked.
    pub fn take_sample(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.reader.sample)
    }

    /// Waits until each client has got `records` more.
    ///
    /// # Errors
    ///
    /// When they do not come, or a client has more than it was to get before.
    pub fn expect_each(&mut self, records: u64, begin: impl FnOnce() -> Result<()>) -> Result<()> {
        for client in &mut self.clients {
            ensure!(client.records == client.expected, "a client got a record too many");
            client.expected += records;
        }
        self.reader.short = self.clients.len();
        begin()?;
        self.run(Some(PATIENCE), |reader| reader.short == 0)
            .with_context(|| format!("{} clients miss records", self.reader.short))
    }

    /// Reads until `done`.
    ///
    /// # Errors
    ///
    /// When it does not come to that in time.
    pub fn run_until(&mut self, what: &str, done: impl Fn(&Counts) -> bool) -> Result<()> {
        self.run(Some(PATIENCE), |reader| done(&reader.counts))
            .with_context(|| format!("waiting for {what}: {:?}", self.counts()))
    }

    /// Reads what comes for so long.
    ///
    /// # Errors
    ///
    /// When something comes that must not.
    pub fn run_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        self.run(None, |_| Instant::now() >= end)
    }

    fn connect(&mut self, address: SocketAddr, phase: Phase) -> Result<()> {
        let opened = Instant::now();
        let mut stream = Socket::connect(address, &self.security)?;
        stream.register(self.poll.registry(), Token(self.clients.len()))?;
        let partial = Vec::new();
        self.clients.push(Client {
            stream,
            phase,
            partial,
            records: 0,
            expected: 0,
            place: None,
            opened,
            subscribed: None,
            live: None,
        });
        Ok(())
    }

    fn run(&mut self, patience: Option<Duration>, done: impl Fn(&Reader) -> bool) -> Result<()> {
        let Self { poll, events, clients, reader, .. } = self;
        let deadline = patience.map(|patience| Instant::now() + patience);
        while !done(reader) {
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            ensure!(!late, "nothing more within {PATIENCE:?}");
            match poll.poll(events, Some(POLL_INTERVAL)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in events.iter() {
                let Token(index) = event.token();
                reader.read(index, &mut clients[index])?;
            }
        }
        Ok(())
    }
}

impl Reader {
    /// Reads what a client has got.
    fn read(&mut self, index: usize, client: &mut Client) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let kept = client.partial.len();
            buffer[..kept].copy_from_slice(&client.partial);
            client.partial.clear();
            let read = match client.stream.read(&mut buffer[kept..]) {
                Ok(0) => bail!("the server has closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    client.partial.extend_from_slice(&buffer[..kept]);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let filled = kept + read;
            let used = self.take_bytes(index, client, &buffer[..filled])?;
            client.partial.extend_from_slice(&buffer[used..filled]);
            if filled < buffer.len() && client.stream.is_emptied_by_short_reads() {
                break;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Takes whole frames and returns how many bytes they had.
    fn take_bytes(&mut self, index: usize, client: &mut Client, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        if let Phase::Upgrading(requests) = &mut client.phase {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            let head = String::from_utf8_lossy(&bytes[..end]);
            ensure!(head.starts_with("HTTP/1.1 101 "), "the handshake is refused: {head}");
            for request in std::mem::take(requests) {
                client.stream.write_all(&client_frame(0x81, request.as_bytes()))?;
            }
            client.phase = Phase::Open;
            used = end + 4;
        }
        while let Some(payload) = payload_of(&bytes[used..]) {
            let frame = &bytes[used..used + payload.end];
            self.take_frame(index, client, frame, payload.start)?;
            used += payload.end;
        }
        Ok(used)
    }

    fn take_frame(
        &mut self,
        index: usize,
        client: &mut Client,
        frame: &[u8],
        start: usize,
    ) -> Result<()> {
        let payload = &frame[start..];
        match (frame[0], payload.strip_prefix(b"{\"type\":\"")) {
            (0x89, _) => client.stream.write_all(&client_frame(0x8a, payload))?,
            (0x81, Some(rest)) if rest.starts_with(b"records\"") => {
                let records = self.record.find_iter(payload).count() as u64;
                if let Some(place) = &mut client.place {
                    advance(place, payload)?;
                }
                self.counts.records += records;
                self.counts.frames += 1;
                self.counts.bytes += frame.len() as u64;
                let before = client.records;
                client.records += records;
                if before < client.expected && client.records >= client.expected {
                    self.short -= 1;
                }
                if index == 0 {
                    self.sample.extend_from_slice(frame);
                }
                self.note_ages(payload)?;
            }
            (0x81, Some(rest)) if rest.starts_with(b"subscribed\"") => {
                client.subscribed = Some(Instant::now());
            }
            (0x81, Some(rest)) if rest.starts_with(b"live\"") => {
                self.counts.live += 1;
                client.live = Some(Instant::now());
            }
            (0x81, Some(rest)) if rest.starts_with(b"progress\"") => {
                if let Some(place) = &mut client.place {
                    let progress: Progress = serde_json::from_slice(payload)?;
                    for (partition, to) in progress.to {
                        let at = place.entry(partition).or_default();
                        *at = to.max(*at);
                    }
                }
                self.counts.progress += 1;
            }
            (0x81, Some(rest)) if rest.starts_with(b"welcome\"") => {}
            (0x81, Some(rest)) if rest.starts_with(b"subscribed\"") => {}
            _ => bail!("not expected: {}", String::from_utf8_lossy(payload)),
        }
        Ok(())
    }

    fn note_ages(&mut self, payload: &[u8]) -> Result<()> {
        let Stamps::Noted(ages) = &mut self.stamps else { return Ok(()) };
        let now = machine::now();
        for at in self.stamp.find_iter(payload) {
            ages.push(now.saturating_sub(sent_at(&payload[at..])?));
        }
        Ok(())
    }
}

/// Moves a client over the range of a frame of records.
///
/// # Errors
///
/// When it begins above the client's position.
fn advance(place: &mut BTreeMap<u32, u64>, payload: &[u8]) -> Result<()> {
    let [partition, from, to] = ["\"partition\":", "\"from\":", "\"to\":"].map(|name| {
        // The end stands last, the others before any record.
        let found = match name {
            "\"to\":" => memchr::memmem::rfind(payload, name.as_bytes()),
            _ => memchr::memmem::find(payload, name.as_bytes()),
        };
        let at = found? + name.len();
        let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0')))
    });
    let partition = u32::try_from(partition.context("a partition")?)?;
    let at = place.entry(partition).or_default();
    let from = from.context("a begin")?;
    ensure!(from <= *at, "partition {partition}: a client at {at} is sent what begins at {from}");
    *at = to.context("an end")?.max(*at);
    Ok(())
}

/// Positions that moved without records.
#[derive(Debug, serde::Deserialize)]
struct Progress {
    to: BTreeMap<u32, u64>,
}

/// Returns how long ago a record with this value was sent.
///
/// # Errors
///
/// When it is not a stamped value.
pub fn age_of(value: &[u8]) -> Result<Duration> {
    Ok(machine::now().saturating_sub(sent_at(value)?))
}

fn sent_at(value: &[u8]) -> Result<Duration> {
    let digits = value.get(STAMP.len()..STAMP.len() + STAMP_DIGITS).context("no stamp")?;
    Ok(Duration::from_nanos(std::str::from_utf8(digits)?.parse()?))
}

/// Returns the JSON value of a record that is sent now, padded to `bytes`.
pub fn stamped_value(bytes: usize) -> String {
    let nanos = machine::now().as_nanos();
    let mut value = format!("{{\"sent\":\"{nanos:0STAMP_DIGITS$}\",\"pad\":\"");
    value.extend(std::iter::repeat_n('x', bytes.saturating_sub(value.len() + 2)));
    value.push_str("\"}");
    value
}

/// Returns a request that subscribes to a channel, or to one key of it.
pub fn subscribe_request(id: usize, channel: &str, key: Option<&str>) -> String {
    let keys = key.map(|key| format!(",\"keys\":[\"{key}\"]")).unwrap_or_default();
    format!("{{\"type\":\"subscribe\",\"id\":{id},\"channel\":\"{channel}\"{keys}}}")
}

/// Returns where the payload of the first frame is, if the frame is whole.
fn payload_of(bytes: &[u8]) -> Option<Range<usize>> {
    let short = usize::from(*bytes.get(1)?);
    let (start, length) = match short {
        0..126 => (2, short),
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..4)?.as_array()?))),
        _ => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..10)?.as_array()?)).ok()?),
    };
    let end = start + length;
    (bytes.len() >= end).then_some(start..end)
}

/// Returns a client's frame. Its mask is zero, which leaves the payload as it is.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(0x80 | short),
        _ => {
            let length = u16::try_from(payload.len()).expect("requests are short");
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The request of a client's handshake.
pub const HANDSHAKE: &str = "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: brucke.v1.json\r\n\r\n";
const STAMP: &[u8] = b"{\"sent\":\"";
const STAMP_DIGITS: usize = 20;
/// What is read at once; no frame is larger.
const BUFFER_BYTES: usize = 1 << 20;
/// Connections that are opened before their subscriptions are awaited.
const OPENED_AT_ONCE: usize = 100;
/// How long it may take until what is awaited has come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a wait looks at the clock.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
