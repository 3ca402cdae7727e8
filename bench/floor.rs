//! The floor: a bare tokio program that writes the same bytes to as many
//! clients. One thread, one `write` a client and round, no protocol.
//!
//! It prints the ports of its clients and of its control connection. On the
//! latter it is told what to write: four bytes of length, then the bytes.

use std::io;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use anyhow::Result;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use crate::machine::Core;
use crate::process::Process;

/// A floor that runs, as seen by who drives it.
#[derive(Debug)]
pub struct Floor {
    pub process: Process,
    pub clients_port: u16,
    control: std::net::TcpStream,
}

impl Floor {
    /// Starts one that waits for so many clients.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(clients: usize) -> Result<Self> {
        let arguments = ["floor".to_owned(), clients.to_string()];
        let mut process = Process::start_role(&arguments, Core::Server)?;
        let line = process.first_line()?;
        let (clients_port, control_port) = line.split_once(' ').context("two ports")?;
        let control = std::net::TcpStream::connect(("127.0.0.1", control_port.parse()?))?;
        control.set_nodelay(true)?;
        Ok(Self { process, clients_port: clients_port.parse()?, control })
    }

    /// Has it write `bytes` to every client.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut order = u32::try_from(bytes.len())?.to_be_bytes().to_vec();
        order.extend_from_slice(bytes);
        io::Write::write_all(&mut self.control, &order)?;
        Ok(())
    }
}

/// Is the floor, until its control connection ends.
///
/// # Errors
///
/// When a connection fails.
pub fn run(clients: usize) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(clients))
}

async fn serve(clients: usize) -> Result<()> {
    let listener = listen()?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{} {}", listener.local_addr()?.port(), control.local_addr()?.port());
    let (mut control, _) = control.accept().await?;
    let mut streams = Vec::with_capacity(clients);
    while streams.len() < clients {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let mut bytes = Vec::new();
    while let Ok(length) = control.read_u32().await {
        bytes.resize(length as usize, 0);
        control.read_exact(&mut bytes).await?;
        for stream in &streams {
            write_all(stream, &bytes).await?;
        }
    }
    Ok(())
}

fn listen() -> io::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.listen(4_096)
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
