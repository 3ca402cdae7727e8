//! What stands between two that talk: it passes bytes on, until it is told not
//! to.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    Pass,
    /// Connections are closed and new ones refused.
    Cut,
    /// Connections are reset, and new ones pass.
    Reset,
    /// Connections, those that are and those that come, are dead for ever, and
    /// nobody hears of it: bytes are taken and thrown away. As when a router on
    /// the way forgets them.
    HalfOpen,
    /// Nothing is read any more: buffers fill.
    Stall,
    /// So many bytes a second pass in each direction of each connection.
    Slow(u32),
}

/// Which connections a mode is for, counted in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    All,
    /// One of so many.
    OneIn(u64),
}

/// A listener on loopback that leads elsewhere.
pub struct Proxy {
    pub port: u16,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    whose: Whose,
    /// Counts the changes of mode, so that a connection that came under one can
    /// be told from those that lived through it.
    change: u64,
}

impl State {
    fn of(self, connection: u64) -> Mode {
        match self.whose {
            Whose::All => self.mode,
            // Others at each change: of those that an earlier one meant, none is left.
            Whose::OneIn(n) if (connection + self.change).is_multiple_of(n) => self.mode,
            Whose::OneIn(_) => Mode::Pass,
        }
    }
}

/// Where a proxy leads to.
pub type Target = Arc<Mutex<Option<SocketAddr>>>;

impl Proxy {
    /// Begins to listen; connections go to `target` as it then is, from the
    /// address `from`.
    pub fn start(runtime: &Handle, target: Target, from: Ipv4Addr) -> Self {
        let (state, states) =
            watch::channel(State { mode: Mode::Pass, whose: Whose::All, change: 0 });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        // Whom it accepts has the same.
        limit(&socket2::SockRef::from(&listener));
        let port = listener.local_addr().expect("bound").port();
        listener.set_nonblocking(true).expect("a socket can be");
        runtime.spawn(accept(listener, target, from, states));
        Self { port, state }
    }

    pub fn set(&self, mode: Mode, whose: Whose) {
        self.state.send_modify(|state| {
            *state = State { mode, whose, change: state.change + 1 };
        });
    }

    /// Lets everything pass again, but for connections that are dead.
    pub fn heal(&self) {
        self.set(Mode::Pass, Whose::All);
    }
}

/// Returns a target that is not known yet.
pub fn unknown_target() -> Target {
    Arc::default()
}

async fn accept(
    listener: std::net::TcpListener,
    target: Target,
    from: Ipv4Addr,
    states: watch::Receiver<State>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    for connection in 0.. {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let state = *states.borrow();
        if state.of(connection) == Mode::Cut {
            abort(&stream);
            continue;
        }
        let target = *target.lock().expect("nobody panics here");
        let states = states.clone();
        tokio::spawn(async move {
            let Some(target) = target else { return abort(&stream) };
            match connect(target, from).await {
                Ok(there) => carry(stream, there, states, connection, state.change).await,
                Err(_) => abort(&stream),
            }
        });
    }
}

async fn connect(target: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    limit(&socket2::SockRef::from(&socket));
    socket.bind(SocketAddr::from((from, 0)))?;
    let connecting = tokio::time::timeout(CONNECT_MAX, socket.connect(target));
    connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Bounds what the system keeps, so that who reads nothing is felt on the other
/// side. To be called before there is a connection: a buffer that shrinks
/// afterwards drops what it had promised to take, and the peer's system waits
/// seconds to send it again.
fn limit(socket: &socket2::SockRef<'_>) {
    socket.set_send_buffer_size(SOCKET_BYTES).expect("a socket can be bounded");
    socket.set_recv_buffer_size(SOCKET_BYTES).expect("a socket can be bounded");
    retransmit_often(socket);
}

/// Lets the system send again what was dropped after a second at the latest. What is
/// sent to somebody who reads nothing is dropped, and sent again after twice as long
/// each time: who reads on after 10 s waited up to 13 s more for the next time. Only
/// Linux from 6.15 on knows how; elsewhere a run may fail by that.
fn retransmit_often(socket: &socket2::SockRef<'_>) {
    let longest_millis: libc::c_int = 1_000;
    // SAFETY: the descriptor is open, and the option's value is one int that outlives
    // the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const longest_millis).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// Of Linux's `tcp.h`; the crate of C's names lacks it.
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Makes the stream end with a reset when it is dropped.
fn abort(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn carry(
    here: TcpStream,
    there: TcpStream,
    mut states: watch::Receiver<State>,
    connection: u64,
    since: u64,
) {
    let _ = here.set_nodelay(true);
    let _ = there.set_nodelay(true);
    for stream in [&here, &there] {
        abort(stream);
    }
    let (here_in, here_out) = here.into_split();
    let (there_in, there_out) = there.into_split();
    let (there_states, back_states) = (states.clone(), states.clone());
    // One side may end and still hear the other; a reset ends both ways at once. Whoever
    // waits for an answer would else wait for ever.
    let both = async {
        tokio::try_join!(
            pump(here_in, Outlet(Some(there_out)), there_states, connection),
            pump(there_in, Outlet(Some(here_out)), back_states, connection),
        )
    };
    let told = async {
        while states.changed().await.is_ok() {
            let state = *states.borrow_and_update();
            match state.of(connection) {
                Mode::Cut | Mode::Reset if state.change > since => return,
                _ => {}
            }
        }
        std::future::pending::<()>().await;
    };
    // Dropped streams reset.
    tokio::select! {
        _ = both => {}
        () = told => {}
    }
}

/// A side has reset the connection.
struct Broken;

/// The writing half of a stream; dropped, it says nothing to the other side.
/// (The half itself would say that it has ended, before a reset could.)
struct Outlet(Option<OwnedWriteHalf>);

impl Outlet {
    fn half(&mut self) -> &mut OwnedWriteHalf {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: Outlet,
    mut states: watch::Receiver<State>,
    connection: u64,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let mode = states.borrow_and_update().of(connection);
        if mode == Mode::HalfOpen {
            swallow(from, to, buffer).await;
            return Ok(());
        }
        if mode == Mode::Stall {
            if states.changed().await.is_err() {
                return Ok(());
            }
            continue;
        }
        let room = match mode {
            Mode::Slow(rate) => ((rate / 20) as usize).clamp(1, buffer.len()),
            _ => buffer.len(),
        };
        let read = tokio::select! {
            biased;
            changed = states.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            read = from.read(&mut buffer[..room]) => read,
        };
        let read = read.map_err(|_| Broken)?;
        if read == 0 {
            let _ = to.half().shutdown().await;
            return Ok(());
        }
        to.half().write_all(&buffer[..read]).await.map_err(|_| Broken)?;
        if let Mode::Slow(rate) = mode {
            let pause = Duration::from_secs_f64(read as f64 / f64::from(rate));
            tokio::time::sleep(pause).await;
        }
    }
}

/// Takes what one side says, and lets the other side believe that it says
/// nothing, not even that it has ended.
async fn swallow(mut from: OwnedReadHalf, to: Outlet, mut buffer: Vec<u8>) {
    while matches!(from.read(&mut buffer).await, Ok(read) if read > 0) {}
    drop(to);
}

/// Bytes that the system may keep for a connection, each way.
const SOCKET_BYTES: usize = 64 << 10;
/// How long a proxy tries to reach its target.
const CONNECT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Returns a proxy and where it leads to.
    fn lead() -> (Proxy, TcpListener) {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket can be");
        let target = unknown_target();
        *target.lock().expect("no panic") = Some(listener.local_addr().expect("bound"));
        let proxy = Proxy::start(&Handle::current(), target, Ipv4Addr::LOCALHOST);
        (proxy, TcpListener::from_std(listener).expect("a listener"))
    }

    /// Returns a proxy before somebody who repeats what it hears.
    fn echo() -> Proxy {
        let (proxy, listener) = lead();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        proxy
    }

    async fn connect_to(proxy: &Proxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).await.expect("it listens")
    }

    /// What comes back of a word within a moment.
    async fn say(stream: &mut TcpStream, word: &[u8]) -> Option<Vec<u8>> {
        stream.write_all(word).await.ok()?;
        let mut heard = vec![0; word.len()];
        let hearing = tokio::time::timeout(MOMENT, stream.read_exact(&mut heard));
        hearing.await.ok()?.ok()?;
        Some(heard)
    }

    const MOMENT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn what_passes_comes_back() {
        let proxy = echo();
        let mut stream = connect_to(&proxy).await;
        assert_eq!(say(&mut stream, b"one").await.as_deref(), Some(&b"one"[..]));
    }

    #[tokio::test]
    async fn cut_and_reset_end_connections_and_only_cut_lets_none_begin() {
        for (mode, begins) in [(Mode::Cut, false), (Mode::Reset, true)] {
            let proxy = echo();
            let mut old = connect_to(&proxy).await;
            assert!(say(&mut old, b"one").await.is_some());
            proxy.set(mode, Whose::All);
            let mut rest = [0; 1];
            let end = tokio::time::timeout(MOMENT, old.read(&mut rest)).await.expect("it ends");
            assert!(end.is_err(), "a reset, not {end:?}");
            let mut new = connect_to(&proxy).await;
            assert_eq!(say(&mut new, b"two").await.is_some(), begins, "{mode:?}");
            proxy.heal();
            assert!(say(&mut connect_to(&proxy).await, b"three").await.is_some());
        }
    }

    #[tokio::test]
    async fn a_reset_reaches_who_only_waits() {
        let (proxy, listener) = lead();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let heard = stream.read(&mut [0; 1]).await;
            assert!(heard.is_ok_and(|length| length > 0));
            abort(&stream);
        });
        let mut stream = connect_to(&proxy).await;
        stream.write_all(b"one").await.expect("it is taken");
        let end = tokio::time::timeout(MOMENT, stream.read(&mut [0; 1])).await.expect("it ends");
        assert!(end.is_err(), "a reset, not {end:?}");
    }

    #[tokio::test]
    async fn a_half_open_connection_stays_dead_and_says_nothing() {
        let proxy = echo();
        let mut old = connect_to(&proxy).await;
        assert!(say(&mut old, b"one").await.is_some());
        proxy.set(Mode::HalfOpen, Whose::All);
        assert_eq!(say(&mut old, b"two").await, None);
        proxy.heal();
        assert_eq!(say(&mut old, b"three").await, None);
        let mut rest = [0; 1];
        let silence = tokio::time::timeout(MOMENT, old.read(&mut rest)).await;
        assert!(silence.is_err(), "neither an end nor a reset: {silence:?}");
        assert!(say(&mut connect_to(&proxy).await, b"four").await.is_some());
    }

    #[tokio::test]
    async fn what_is_stalled_arrives_later_whole() {
        let proxy = echo();
        let mut stream = connect_to(&proxy).await;
        assert!(say(&mut stream, b"one").await.is_some());
        proxy.set(Mode::Stall, Whose::All);
        assert_eq!(say(&mut stream, b"two").await, None);
        proxy.heal();
        let mut late = [0; 3];
        stream.read_exact(&mut late).await.expect("it arrives");
        assert_eq!(&late, b"two");
    }

    #[tokio::test]
    async fn what_is_slow_takes_its_time() {
        let proxy = echo();
        let mut stream = connect_to(&proxy).await;
        proxy.set(Mode::Slow(20_000), Whose::All);
        let began = Instant::now();
        stream.write_all(&[7; 10_000]).await.expect("it is taken");
        let mut heard = vec![0; 10_000];
        stream.read_exact(&mut heard).await.expect("it arrives");
        assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn one_in_so_many_is_meant() {
        let proxy = echo();
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut stream = connect_to(&proxy).await;
            assert!(say(&mut stream, b"one").await.is_some());
            streams.push(stream);
        }
        proxy.set(Mode::HalfOpen, Whose::OneIn(2));
        for (number, stream) in streams.iter_mut().enumerate() {
            assert_eq!(say(stream, b"two").await.is_some(), number % 2 == 0, "{number}");
        }
        // And those that were left the next time.
        proxy.set(Mode::HalfOpen, Whose::OneIn(2));
        for (number, stream) in streams.iter_mut().enumerate() {
            assert_eq!(say(stream, b"three").await, None, "{number}");
        }
    }
}
