//! One client's socket, and the small task that waits for it.

use std::cell::Cell;
use std::cell::RefCell;
use std::cell::RefMut;
use std::fmt;
use std::future::Future;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::delivery::outbox::Outbox;
use crate::delivery::subscription::ConnectionKey;
use crate::server::places::Place;
use crate::server::settings::SocketSettings;
use crate::server::stream::ClientStream;
use crate::server::tls::session;
use crate::server::tls::session::Session;
use crate::server::worker::Worker;
use crate::types::ids::ConnectionId;

/// The socket of one connection. Its worker writes to it; its [`LinkTask`]
/// reads from it and waits until it can be written again.
pub(in crate::server) struct Link {
    pub(in crate::server) key: ConnectionKey,
    /// As the client knows it and the log names it.
    pub(in crate::server) id: ConnectionId,
    pub(in crate::server) stream: TcpStream,
    /// What stands before the socket, with TLS. Boxed, for most of a connection
    /// is small, and without TLS this is a pointer to nothing.
    tls: Option<Box<RefCell<Session>>>,
    phase: Cell<Phase>,
    /// Wakes the task; `None` before its first turn.
    task: Cell<Option<Waker>>,
    /// Its place among those of its address, for as long as the socket is there.
    _place: Option<Box<Place>>,
}

/// What the task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Bytes of the peer.
    Reading,
    /// Those, and room for bytes that the socket did not take.
    Blocked,
    /// Nothing: the worker is done with the connection.
    Ended,
}

impl Link {
    pub(in crate::server) fn new(
        key: ConnectionKey,
        id: ConnectionId,
        stream: ClientStream,
        place: Option<Box<Place>>,
    ) -> Rc<Self> {
        let (stream, tls) = stream.into_parts();
        let tls = tls.map(|session| Box::new(RefCell::new(session)));
        let phase = Cell::new(Phase::Reading);
        Rc::new(Self { key, id, stream, tls, phase, task: Cell::new(None), _place: place })
    }

    /// Returns what stands before the socket; `None` without TLS.
    pub(in crate::server) fn tls(&self) -> Option<RefMut<'_, Session>> {
        self.tls.as_ref().map(|session| session.borrow_mut())
    }

    /// Writes the first pieces of what is unsent; returns how much was taken.
    pub(in crate::server) fn write_some(
        &self,
        unsent: &Outbox,
        scratch: &mut [u8],
    ) -> io::Result<usize> {
        match self.tls() {
            None => self.stream.try_write(first_bytes(unsent, scratch)),
            Some(mut tls) => tls.write(&self.stream, || {
                first_bytes(unsent, &mut scratch[..session::RECORD_BYTES_MAX])
            }),
        }
    }

    /// Writes what TLS has sealed and the socket has not taken.
    pub(in crate::server) fn flush_sealed(&self) -> io::Result<()> {
        self.tls().map_or(Ok(()), |mut tls| tls.flush(&self.stream))
    }

    /// Notes that the socket takes no more for now.
    pub(in crate::server) fn block(&self) {
        self.enter(Phase::Blocked);
    }

    /// Notes that everything is written.
    pub(in crate::server) fn unblock(&self) {
        if self.phase.get() == Phase::Blocked {
            self.phase.set(Phase::Reading);
        }
    }

    /// Ends the task.
    pub(in crate::server) fn end(&self) {
        self.enter(Phase::Ended);
    }

    /// Lets the kernel forget what it still has for the peer, who gets a reset
    /// when the last owner of the link is gone.
    pub(in crate::server) fn cut(&self) {
        // A socket that can't be set is gone already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Returns how many bytes the kernel holds that the peer has not
    /// acknowledged; `None` where it does not tell.
    #[cfg(target_os = "linux")]
    pub(in crate::server) fn held(&self) -> Option<u32> {
        let mut held: libc::c_int = 0;
        // SAFETY: TIOCOUTQ writes one int to the address, which outlives the
        // call, and the descriptor is open for as long as the stream is.
        let told = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut held) };
        (told == 0).then(|| u32::try_from(held).ok()).flatten()
    }

    /// Returns nothing: this system does not tell.
    #[cfg(not(target_os = "linux"))]
    pub(in crate::server) fn held(&self) -> Option<u32> {
        None
    }

    fn enter(&self, phase: Phase) {
        let before = self.phase.replace(phase);
        if before != phase
            && let Some(task) = self.task.take()
        {
            task.wake();
        }
    }

    fn note_task(&self, waker: &Waker) {
        let known = self.task.take().filter(|known| known.will_wake(waker));
        self.task.set(Some(known.unwrap_or_else(|| waker.clone())));
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Waits for one socket: two pointers and no buffer, for there is one task per
/// connection and most of them are idle.
pub(in crate::server) struct LinkTask {
    pub(in crate::server) worker: Rc<Worker>,
    pub(in crate::server) link: Rc<Link>,
}

impl Future for LinkTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { worker, link } = &*self;
        link.note_task(context.waker());
        for _ in 0..TURNS_MAX {
            let write = match link.phase.get() {
                Phase::Ended => return Poll::Ready(()),
                Phase::Reading => Poll::Pending,
                Phase::Blocked => link.stream.poll_write_ready(context),
            };
            let read = link.stream.poll_read_ready(context);
            if write.is_pending() && read.is_pending() {
                return Poll::Pending;
            }
            worker.attend();
            if link.phase.get() == Phase::Ended {
                return Poll::Ready(());
            }
            if write.is_ready() {
                worker.flush(link);
            }
            if read.is_ready() && link.phase.get() != Phase::Ended {
                worker.read(link);
            }
        }
        // The peer sends without end: the others of this thread come first.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Counts a socket that is being closed, for as long as it lives.
pub(in crate::server) struct Lingering {
    count: Rc<Cell<usize>>,
    wake: Arc<Notify>,
}

impl Lingering {
    pub(in crate::server) fn new(count: &Rc<Cell<usize>>, wake: &Arc<Notify>) -> Self {
        count.update(|count| count + 1);
        Self { count: Rc::clone(count), wake: Arc::clone(wake) }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.count.update(|count| count - 1);
        self.wake.notify_one();
    }
}

/// Returns the first pieces of `unsent`: a large one as it stands, small ones
/// gathered, for a vectored write of many slices costs twice the copy.
fn first_bytes<'b>(unsent: &'b Outbox, scratch: &'b mut [u8]) -> &'b [u8] {
    let mut pieces = unsent.pieces();
    let first = pieces.next().expect("an outbox with bytes has a piece");
    if pieces.len() == 0 || first.len() >= LARGE_BYTES {
        return first;
    }
    let mut length = 0;
    for piece in unsent.pieces() {
        let room = &mut scratch[length..];
        if piece.len() > room.len() {
            break;
        }
        room[..piece.len()].copy_from_slice(piece);
        length += piece.len();
    }
    &scratch[..length]
}

/// Says whether the same call may do better later.
pub(in crate::server) fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Sets a client's socket.
///
/// # Errors
///
/// When the socket is gone or the system does not know an option.
pub(in crate::server) fn tune(stream: &TcpStream, settings: SocketSettings) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(settings.send_buffer_bytes)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(settings.unsent_low_water_bytes)?;
        socket.set_tcp_user_timeout(Some(settings.user_timeout))?;
        limit_retransmission_wait(stream, settings.retransmission_wait_max);
    }
    Ok(())
}

/// Has what was lost on its way to the peer sent again after this time at the latest.
/// Linux doubles the wait each time, up to two minutes: a client that is back after half
/// a minute without a network would hear nothing for another. Before Linux 6.15 there is
/// no such option, and that wait remains.
#[cfg(target_os = "linux")]
fn limit_retransmission_wait(stream: &TcpStream, longest: Duration) {
    let millis = libc::c_int::try_from(longest.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is one int, which outlives the call, and the descriptor
    // is open for as long as the stream is.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const millis).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// Says that nothing more comes in the words of TLS, if it is spoken, and then
/// ends the connection in order.
pub(in crate::server) async fn finish(link: &Link) {
    let told = async {
        link.tls()?.end();
        loop {
            match link.flush_sealed() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.stream.writable().await.ok()?;
                }
                Ok(()) | Err(_) => return Some(()),
            }
        }
    };
    // A peer that does not read is not waited for.
    let _ = timeout_at(Instant::now() + LINGER_MAX, told).await;
    linger(&link.stream).await;
}

/// Ends a connection in order: says that no more comes, then reads what is
/// still on its way. Closed with bytes unread, the kernel would send a reset,
/// and the peer might never see the Close frame or the refusal before it.
pub(in crate::server) async fn linger(stream: &TcpStream) {
    if SockRef::from(stream).shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + LINGER_MAX;
    let mut unread = [0; LINGER_CHUNK_BYTES];
    for _ in 0..LINGER_CHUNKS_MAX {
        if !matches!(timeout_at(deadline, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        match stream.try_read(&mut unread) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Turns that a socket may take before other tasks have theirs.
const TURNS_MAX: usize = 8;
/// How long the peer has to take note that the connection ends.
const LINGER_MAX: Duration = Duration::from_secs(2);
const LINGER_CHUNK_BYTES: usize = 4 << 10;
/// Reads after which a peer that goes on sending is cut off.
const LINGER_CHUNKS_MAX: usize = 1_024;
/// Bytes from which a piece is written as it stands.
const LARGE_BYTES: usize = 16 << 10;
/// Of Linux's `tcp.h`; the crate of C's names lacks it.
#[cfg(target_os = "linux")]
const TCP_RTO_MAX_MS: libc::c_int = 44;

const _: () = assert!(LARGE_BYTES <= session::RECORD_BYTES_MAX);

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_lost_is_sent_again_soon_where_the_system_can_be_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let told = |stream: &TcpStream| {
            let (mut millis, mut length) = (0 as libc::c_int, size_of::<libc::c_int>() as u32);
            // SAFETY: both addresses outlive the call, and the descriptor is open.
            let failed = unsafe {
                libc::getsockopt(
                    stream.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    TCP_RTO_MAX_MS,
                    (&raw mut millis).cast(),
                    &raw mut length,
                )
            };
            (failed == 0).then_some(millis).ok_or_else(|| io::Error::last_os_error().raw_os_error())
        };
        let usual = told(&stream);
        limit_retransmission_wait(&stream, Duration::from_secs(5));
        match usual {
            Ok(usual) => assert_eq!((usual, told(&stream)), (120_000, Ok(5_000))),
            Err(code) => assert_eq!(code, Some(libc::ENOPROTOOPT), "Linux before 6.15"),
        }
    }
}
