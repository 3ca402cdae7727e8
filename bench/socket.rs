//! One client's socket, with TLS or without.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use mio::Interest;
use mio::Registry;
use mio::Token;
use mio::net::TcpStream;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::StreamOwned;
use rustls::pki_types::ServerName;

/// How clients speak to the server.
#[derive(Debug, Clone)]
pub enum Security {
    Plain,
    Tls(Arc<ClientConfig>),
}

/// A connected socket that does not block.
#[derive(Debug)]
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Connects, and waits until TLS is agreed on.
    ///
    /// # Errors
    ///
    /// When the server is not there or not who it should be.
    pub fn connect(address: SocketAddr, security: &Security) -> Result<Self> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let tls = match security {
            Security::Plain => None,
            Security::Tls(config) => {
                let name = ServerName::from(address.ip());
                let mut tls = ClientConnection::new(Arc::clone(config), name)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream)?;
                }
                Some(tls)
            }
        };
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(match tls {
            None => Self::Plain(stream),
            Some(tls) => Self::Tls(Box::new(StreamOwned::new(tls, stream))),
        })
    }

    /// Has `registry` tell when there is something to read.
    ///
    /// # Errors
    ///
    /// When the system does not take it.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_mut(),
        };
        registry.register(stream, token, Interest::READABLE)
    }

    /// Says whether a read that leaves room has emptied the socket. TLS gives one of
    /// its records at a time.
    pub fn is_emptied_by_short_reads(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
