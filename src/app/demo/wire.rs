//! The wire between a page and the replicas, which the page can have cut: then
//! neither end is told, as when a laptop is closed or a network fails.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use socket2::SockRef;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::select;
use tokio::sync::watch;

/// Every page's wire, by the name that the page gave it.
#[derive(Debug, Clone, Default)]
pub struct Wires(Arc<Mutex<HashMap<String, Wire>>>);

#[derive(Debug)]
struct Wire {
    /// Counts the cuts. Each connection over the wire listens.
    cuts: watch::Sender<u64>,
    /// Until when nothing gets through.
    dead_until: Instant,
}

/// Why nothing gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Dead {
    #[error("the wire is cut")]
    Cut,
    #[error("more than {WIRES_MAX} pages are open")]
    TooMany,
}

impl Wires {
    /// Cuts a wire for so long; what runs over it ends now.
    pub fn cut(&self, name: &str, lasting: Duration) {
        let mut wires = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wire) = wires.get_mut(name) {
            wire.dead_until = Instant::now() + lasting.min(CUT_MAX);
            wire.cuts.send_modify(|cuts| *cuts += 1);
        }
    }

    /// Takes a wire; what is returned changes when the wire is cut.
    ///
    /// # Errors
    ///
    /// [`Dead`] while it is cut, or when there are too many.
    pub fn take(&self, name: &str) -> Result<watch::Receiver<u64>, Dead> {
        let mut wires = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if !wires.contains_key(name) {
            if wires.len() >= WIRES_MAX {
                wires.retain(|_, wire| wire.cuts.receiver_count() > 0 || wire.dead_until > now);
            }
            if wires.len() >= WIRES_MAX {
                return Err(Dead::TooMany);
            }
            let wire = Wire { cuts: watch::Sender::new(0), dead_until: now };
            wires.insert(name.to_owned(), wire);
        }
        let wire = &wires[name];
        if wire.dead_until > now { Err(Dead::Cut) } else { Ok(wire.cuts.subscribe()) }
    }
}

/// Carries bytes between a page and a replica, after `head`, until one of them
/// ends it or the wire is cut.
///
/// # Errors
///
/// When the replica can't be reached or either end broke.
pub async fn carry(
    mut page: TcpStream,
    replica: SocketAddr,
    head: &[u8],
    mut cuts: watch::Receiver<u64>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(replica).await?;
    page.set_nodelay(true)?;
    server.set_nodelay(true)?;
    server.write_all(head).await?;
    select! {
        carried = copy_bidirectional(&mut page, &mut server) => carried.map(|_| ()),
        _ = cuts.changed() => {
            reset(page)?;
            reset(server)
        }
    }
}

/// Drops a connection without a word: no Close frame, no end of stream.
///
/// # Errors
///
/// When the connection is gone already.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Pages that have a wire at the same time.
const WIRES_MAX: usize = 256;
/// How long a wire can be cut at most.
const CUT_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_reaches_one_wire_and_ends() {
        let wires = Wires::default();
        let one = wires.take("one").expect("a wire");
        let other = wires.take("other").expect("a wire");
        wires.cut("one", CUT_MAX);
        assert!(one.has_changed().expect("the wire is there"));
        assert!(!other.has_changed().expect("the wire is there"));
        assert_eq!(wires.take("one").expect_err("it is cut"), Dead::Cut);
        wires.cut("one", Duration::ZERO);
        let again = wires.take("one").expect("the cut is over");
        assert!(!again.has_changed().expect("the wire is there"));
    }

    #[test]
    fn wires_that_nobody_holds_make_room() {
        let wires = Wires::default();
        let held: Vec<_> =
            (0..WIRES_MAX).map(|index| wires.take(&index.to_string()).expect("a wire")).collect();
        assert_eq!(wires.take("more").expect_err("no room"), Dead::TooMany);
        drop(held);
        wires.take("more").expect("room");
    }
}
