//! The TLS of one connection, between the shard's plaintext and the socket.

use std::fmt;
use std::io;
use std::io::Read;
use std::io::Write;

use rustls::ServerConnection;
use tokio::net::TcpStream;

/// What is sealed and opened for one connection. Nothing here waits.
///
/// Plaintext counts as written when it is sealed, for a sealed record can't be
/// taken back, and the shard takes back what the peer has nothing of. Nothing is
/// sealed while something sealed waits for the socket: beside what the shard has
/// unsent, at most one record of [`RECORD_BYTES_MAX`] stands here.
pub(in crate::server) struct Session {
    connection: ServerConnection,
}

/// What was opened for the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Opened {
    /// So many bytes of plaintext.
    Bytes(usize),
    /// A part of a record, or nothing.
    Nothing,
    /// The peer has ended.
    End,
}

impl Session {
    /// Goes on with a connection whose handshake is done.
    pub(in crate::server) fn new(connection: ServerConnection) -> Self {
        Self { connection }
    }

    /// Seals the beginning of what `plain` returns and writes it, as far as the
    /// socket takes it; returns how much was sealed. `plain` is asked only when
    /// nothing is left of the record before.
    ///
    /// # Errors
    ///
    /// As the socket's; `WouldBlock` while a part of the record before is here.
    pub(in crate::server) fn write<'p>(
        &mut self,
        stream: &TcpStream,
        plain: impl FnOnce() -> &'p [u8],
    ) -> io::Result<usize> {
        self.flush(stream)?;
        let plain = plain();
        let record = &plain[..plain.len().min(RECORD_BYTES_MAX)];
        let sealed = self.connection.writer().write(record)?;
        match self.flush(stream) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(sealed),
        }
    }

    /// Writes what is sealed.
    ///
    /// # Errors
    ///
    /// As the socket's; `WouldBlock` while some is still here.
    pub(in crate::server) fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut Socket(stream))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Reads once from the socket. What has been opened is to be taken by
    /// [`Session::open`], also after an error.
    ///
    /// # Errors
    ///
    /// As the socket's; `InvalidData` for what is no TLS of this connection, whose
    /// peer has then been told.
    pub(in crate::server) fn receive(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.connection.read_tls(&mut Socket(stream))?;
        let received = self.connection.process_new_packets();
        // An answer of TLS itself, such as an alert; the next write takes what the
        // socket does not.
        let told = self.flush(stream);
        received.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match told {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves what was opened to the beginning of `room`.
    pub(in crate::server) fn open(&mut self, room: &mut [u8]) -> Opened {
        match self.connection.reader().read(room) {
            Ok(0) => Opened::End,
            Ok(length) => Opened::Bytes(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Opened::Nothing,
            // The socket ended without the word of TLS for it. WebSocket has Close
            // frames of its own, and every frame says its length: nothing can be
            // cut off unseen.
            Err(_) => Opened::End,
        }
    }

    /// Says whether sealed bytes wait for the socket.
    pub(in crate::server) fn has_unsent(&self) -> bool {
        self.connection.wants_write()
    }

    /// Adds the word that nothing more comes.
    pub(in crate::server) fn end(&mut self) {
        self.connection.send_close_notify();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// A socket that does not wait, as rustls reads and writes it.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Plaintext of one record, the most that TLS allows (RFC 8446, 5.1).
pub(in crate::server) const RECORD_BYTES_MAX: usize = 16 << 10;
